"""Products that follow each other as one kernel: an attention's shares, row by row, and their product with values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from followed import followed
from graph_maker import GraphMaker, random_inputs
from machines import with_input_buffers
from pipeline import Compiled, Values

from birc.codegen.kernel_code import KernelWriter
from birc.codegen.row_order import slot_of
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel, KernelStep
from birc.compiler.ir.tile_order import OVERLAPPING
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.follow import Clock
from birc.compiler.prove import new_prover
from birc.runtime.machine import Machine, load_machine
from birc.runtime.program import Instruction, Loop
from birc.runtime.program import Kernel as KernelCode
from birc.runtime.verifier.findings import VerificationError
from birc.runtime.verifier.verify import verify_program

DEPTH, FEATURES = 16, 24
WIDE = with_input_buffers().with_values({"spc_sram_bytes": 1 << 22})
LOWEST = float(np.finfo(np.float32).min)


def causal(rows: int, columns: int) -> np.ndarray:
    """Which columns each row sees."""
    return np.arange(columns) <= np.arange(columns - rows, columns)[:, None]


def attention(
    heads: int, rows: int, columns: int, mask: str = "", features: int = FEATURES, depth: int = DEPTH
) -> Graph:
    """softmax(q @ k + mask) @ v, the mask one for all rows, or causal."""
    make = GraphMaker()
    scores = make("matmul", make.input(heads, rows, depth), make.input(heads, depth, columns))
    v = make.input(heads, columns, features)
    if mask == "added":
        scores = make("add", scores, make.input(1, 1, columns))
    elif mask == "causal":
        scores = make("where", make.constant(causal(rows, columns), element="bool"), scores, make.constant(LOWEST))
    return make.graph(make("matmul", make("softmax", scores, axis=2), v))


def expected(inputs: Values, mask: str) -> np.ndarray:
    """The attention in FP64."""
    q, k, v, *added = (np.asarray(a, np.float64) for a in inputs.values())
    scores = q @ k + (added[0] if added else 0.0)
    if mask == "causal":
        scores = np.where(causal(*scores.shape[1:]), scores, LOWEST)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


def check(found: Compiled, mask: str, tolerance: float) -> None:
    """Verified, proved, and right: by whole arrays, and step by step in the order that the semaphores allow."""
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    inputs = {name: a.astype(ml_dtypes.bfloat16).astype(a.dtype) for name, a in random_inputs(found.graph).items()}
    stepped, counts = found.step_counted(inputs, "random", 3)
    values, counts_of_values = found.values_counted(inputs)
    assert counts == counts_of_values
    for outputs in (stepped, values):
        (actual,) = outputs.values()
        np.testing.assert_allclose(actual, expected(inputs, mask), rtol=0, atol=tolerance)


@pytest.mark.parametrize("mask", ["", "added", "causal"])
@pytest.mark.parametrize(
    ("heads", "rows", "columns"), [(4, 64, 128), (8, 70, 192), (4, 200, 320), (12, 64, 66), (4, 128, 900)]
)
def test_rows_are_taken_as_they_are_finished(heads: int, rows: int, columns: int, mask: str) -> None:
    plans = list(followed(attention(heads, rows, columns, mask), WIDE, "bf16"))
    assert plans
    for found in plans:
        check(found, mask, 3e-2)


def row_by_row(kernels: Sequence[Kernel], _: Memories, __: Machine) -> int:
    """Cycles by which the second product takes least with all columns of a row in turn."""
    return 1000 - columns_of(kernels[-1]) if len(kernels) > 1 else 1000


def column_by_column(kernels: Sequence[Kernel], _: Memories, __: Machine) -> int:
    """Cycles by which it takes least with all rows of a column in turn."""
    return columns_of(kernels[-1]) if len(kernels) > 1 else 1000


def columns_of(kernel: Kernel) -> int:
    """The columns of tiles of a block."""
    assert kernel.tiling is not None
    return kernel.tiling.columns


@pytest.mark.parametrize("clock", [row_by_row, column_by_column])
@pytest.mark.parametrize("mask", ["", "added", "causal"])
@pytest.mark.parametrize(
    ("heads", "rows", "columns", "features"),
    [(4, 64, 128, 128), (8, 70, 192, 100), (4, 200, 320, 200), (4, 128, 900, 128)],
)
def test_heads_may_be_wider_than_a_tile(
    heads: int, rows: int, columns: int, features: int, mask: str, clock: Clock
) -> None:
    """Rows are awaited once, and taken for each column of tiles."""
    plans = list(followed(attention(heads, rows, columns, mask, features), WIDE, "bf16", clock))
    assert plans
    for found in plans:
        check(found, mask, 3e-2)
    behind = [k for k in found.kernels if len(k.phases) == 1]
    assert {columns_of(k) for k in behind} == {1 if clock is column_by_column or columns == 900 else -(-features // 64)}


@pytest.mark.parametrize("mask", ["", "causal"])
def test_values_for_which_there_is_no_room_come_bit_by_bit(mask: str) -> None:
    """Each row takes them once more, a column after the other."""
    machine = with_input_buffers(1 << 16).with_values({"spc_sram_bytes": 1 << 22})
    (found, *_) = followed(attention(4, 128, 320, mask, 128), machine, "bf16")
    check(found, mask, 3e-2)
    assert {k.tiling.hoist for k in found.kernels if len(k.phases) == 1 and k.tiling} == {""}


@pytest.mark.parametrize("mask", ["", "added", "causal"])
def test_columns_of_scores_for_which_there_is_no_room_pass(mask: str) -> None:
    """Each row of scores loads them once more, one tile after the other."""
    machine = with_input_buffers(3 << 16).with_values({"spc_sram_bytes": 1 << 22})
    (found, *_) = followed(attention(4, 128, 900, mask, depth=128), machine, "bf16")
    check(found, mask, 3e-2)
    (ahead,) = {k.tiling for k in found.kernels if len(k.phases) > 1}
    assert ahead is not None
    assert ahead.b_slots < ahead.columns


def test_every_spc_of_a_br100_follows_itself() -> None:
    machine = load_machine("br100").with_values({"dies": 1})
    (found, *_) = followed(attention(32, 64, 128, "added"), machine, "bf16")
    check(found, "added", 3e-2)


def kernel_of(found: Compiled) -> tuple[int, KernelCode]:
    """The kernel of the program that is two products, and its number."""
    return next((n, k) for n, k in enumerate(found.program.kernels) if len(k.nests) > 1)


FORMS = {
    "programs take rows in turn": (8, 384, 128, lambda t: t.programs > 1 and t.hoist == "b"),
    "programs take a head each": (12, 64, 128, lambda t: t.programs > 1 and t.hoist == ""),
    "one program overlaps rows": (4, 128, 900, lambda t: t.order == OVERLAPPING),
}


@pytest.mark.parametrize("form", FORMS)
def test_whoever_finishes_the_rows(form: str) -> None:
    """Semaphores of each program tell its rows, and then their sums; the other product has a program of its own."""
    heads, rows, columns, is_so = FORMS[form]
    (found, *_) = followed(attention(heads, rows, columns), WIDE, "bf16")
    ahead = next(kernel.tiling for kernel in found.kernels if len(kernel.phases) > 1)
    assert ahead is not None
    assert is_so(ahead), ahead
    check(found, "", 3e-2)
    _, code = kernel_of(found)
    told = [i for i in code.instructions() if i.mnemonic == "vst" and i.posts]
    semaphores = [{sync.semaphore for sync in i.posts} for i in told]
    assert {len(each) for each in semaphores} == {1}
    by_slot = {slot_of(i): each for i, each in zip(told, semaphores, strict=True)}
    assert len(by_slot) == 2, "one of shares, one of sums"
    assert [by_slot[slot_of(i)] for i in told] == semaphores
    assert len(set.union(*semaphores)) == 2
    sums = [len(i.posts) for i in told if slot_of(i) == slot_of(told[-1])]
    assert sums == [1] * len(sums)
    last = [i for i in code.instructions() if i.mnemonic == "vrcp"]
    assert [i.program for i in last] == [ahead.programs]


DIVIDED = {
    "programs take rows in turn": (8, 384, 128, FEATURES, ""),
    "programs take a head each": (12, 64, 128, FEATURES, "added"),
    "one program overlaps rows": (4, 128, 900, FEATURES, "added"),
    "wide heads": (4, 200, 320, 200, ""),
}


@pytest.mark.parametrize("form", DIVIDED)
def test_shares_that_are_divided_are_stored_last(form: str) -> None:
    """Those of FP16, column by column: the last one tells that the row is there, and no sums are awaited."""
    heads, rows, columns, features, mask = DIVIDED[form]
    make = GraphMaker()
    scores = make("matmul", *(make.input(heads, *s, element="f16") for s in ((rows, DEPTH), (DEPTH, columns))))
    v = make.input(heads, columns, features, element="f16")
    if mask:
        scores = make("add", scores, make.input(1, 1, columns, element="f16"))
    plans = list(followed(make.graph(make("matmul", make("softmax", scores, axis=2), v)), WIDE))
    assert plans
    for found in plans:
        check(found, mask, 2e-2)
        assert found.kernels[0].phases[-1].loops
        _, code = kernel_of(found)
        told = [i for i in code.instructions() if i.mnemonic == "vst" and i.posts]
        assert len({slot_of(i) for i in told}) == 1


def two(one: tuple[int, int, int], other: tuple[int, int, int], features: int = FEATURES) -> Graph:
    """Two attentions of so many heads, rows and columns that have nothing to do with each other."""
    make = GraphMaker()
    results = []
    for heads, rows, columns in (one, other):
        scores = make("matmul", make.input(heads, rows, DEPTH), make.input(heads, DEPTH, columns))
        results.append(make("matmul", make("softmax", scores, axis=2), make.input(heads, columns, features)))
    return make.graph(*results)


PAIRS = {
    "fewer programs behind": ((8, 384, 256), (4, 128, 320)),
    "more programs behind": ((4, 128, 320), (12, 64, 128)),
    "overlapped rows behind": ((8, 128, 128), (4, 128, 900)),
    "overlapped rows in front": ((4, 128, 900), (8, 128, 128)),
}


@pytest.mark.parametrize("features", [FEATURES, 128])
@pytest.mark.parametrize("pairs", PAIRS)
def test_pairs_behind_each_other(pairs: str, features: int) -> None:
    """One kernel of four products, which two attentions share: nothing of one comes too early for the other."""
    (found, *_) = followed(two(*PAIRS[pairs], features), WIDE, "bf16")
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    (code,) = (kernel for kernel in found.program.kernels if len(kernel.nests) > 1)
    assert len(code.nests) == 4
    inputs = {name: a.astype(ml_dtypes.bfloat16).astype(np.float32) for name, a in random_inputs(found.graph).items()}
    parts = [dict(list(inputs.items())[start : start + 3]) for start in (0, 3)]
    for outputs in (found.values(inputs), *(found.step(inputs, "random", seed) for seed in range(2))):
        for actual, part in zip(outputs.values(), parts, strict=True):
            np.testing.assert_allclose(actual, expected(part, ""), rtol=0, atol=3e-2)


def loads_of_rows(item: Loop | Instruction, outer: tuple[int, ...] = ()) -> Iterator[int]:
    """The slots from which the first SPC loads `a`, in order."""
    if isinstance(item, Instruction):
        yield from [slot_of(item)] * (item.mnemonic == "tlda")
        return
    for iteration in range(1 if item.level == "spc" else item.trip_count(outer)):
        for inner in item.body:
            yield from loads_of_rows(inner, (*outer, iteration))


@pytest.mark.parametrize(("heads", "rows"), [(2, 32), (4, 96), (8, 384)])
def test_the_first_row_behind_a_pair_is_loaded_ahead_of_the_last_one_in_front(heads: int, rows: int) -> None:
    """It comes behind the shares of all rows but one, and is loaded once."""
    (found, *_) = followed(two((heads, rows, 512), (heads, rows, 448)), WIDE, "bf16")
    code = next(kernel for kernel in found.program.kernels if len(kernel.nests) == 4)
    first, shares, second, _ = (list(loads_of_rows(nest)) for nest in code.nests)
    (behind,) = {*shares} - {shares[-1]}
    chunks = (len(shares) - 1) // len(first)
    assert shares[-1 - chunks :] == [behind, *[shares[-1]] * chunks]
    assert shares.count(behind) == 1
    assert second == [behind] * (len(first) - 1)


def test_a_pair_that_stores_to_the_other_die_comes_first() -> None:
    """The link works while the SPC goes on with the other pair."""
    (found, *_) = followed(two(*PAIRS["fewer programs behind"]), WIDE, "bf16")
    kernels = [step.kernel for step in found.plan.steps if isinstance(step, KernelStep)][:4]
    (phase,) = kernels[-1].phases
    store = phase.statements[-1]
    assert store.access is not None
    away = replace(store, access=replace(store.access, view=replace(store.access.view, away=True)))
    sending = replace(kernels[-1], phases=(replace(phase, statements=(*phase.statements[:-1], away, store)),))
    for group, first in ((kernels, kernels[0]), ([*kernels[:-1], sending], kernels[2])):
        code, slots, _ = KernelWriter(WIDE).emit(group)
        loads = [slots.views[slot_of(i)] for i in code.instructions() if i.mnemonic == "tldb"]
        assert first.contraction is not None and loads[0] == first.contraction.b.view
        assert code.name == kernels[0].name


def test_programs_of_a_pair_wait_for_the_sums_of_the_pair_before() -> None:
    """Registers of its few programs are those of several of the pair before, which add up sums behind their rows."""
    for found in followed(attention(4, 2048, 2048, "causal"), WIDE, "bf16"):
        found.verify()


def without(item: Loop | Instruction, semaphores: range) -> Loop | Instruction:
    """The code in which nothing waits for some semaphores, or posts them."""
    if isinstance(item, Loop):
        return replace(item, body=tuple(without(inner, semaphores) for inner in item.body))
    waits, posts = (
        tuple(sync for sync in syncs if sync.semaphore.constant not in semaphores) for syncs in (item.waits, item.posts)
    )
    return replace(item, waits=waits, posts=posts)


@pytest.mark.parametrize(
    ("graph", "telling", "waiting"),
    [
        (attention(4, 1024, 1024, "causal"), "vst", "vld"),
        (two((2, 32, 512), (2, 32, 448)), "tmma", "tlda"),
        (two((12, 384, 512), (8, 384, 448)), "tmma", "tldb"),
    ],
)
def test_without_a_wait_for_the_pair_before_a_kernel_is_refused(graph: Graph, telling: str, waiting: str) -> None:
    """Registers and slots of input buffers would be written while the pair before still needs what is there."""
    found = next(each for each in followed(graph, WIDE, "bf16") if len(kernel_of(each)[1].nests) > 2)
    found.verify()
    number, code = kernel_of(found)
    last = {sync for i in code.instructions() if i.mnemonic == telling for sync in i.posts}
    told = {s.semaphore.constant for s in last if not code.semaphores[s.semaphore.constant]}
    awaited = {
        sync.semaphore.constant
        for i in code.instructions()
        for sync in i.waits
        if i.mnemonic == waiting and sync.semaphore.constant in told
    }
    assert awaited
    for first in awaited:
        mutant = tuple(without(item, range(first, first + 1)) for item in code.nests)
        kernels = tuple(replace(k, nests=mutant) if n == number else k for n, k in enumerate(found.program.kernels))
        with pytest.raises(VerificationError):
            verify_program(replace(found.program, kernels=kernels), found.machine)


@pytest.mark.parametrize("clock", [row_by_row, column_by_column])
@pytest.mark.parametrize("features", [FEATURES, 128])
@pytest.mark.parametrize("dropped", ["tlda", "vld"])
def test_without_a_wait_for_its_rows_a_program_is_refused(dropped: str, features: int, clock: Clock) -> None:
    """The verifier sees that rows, or their sums, may be read before they are stored."""
    (found, *_) = followed(attention(8, 384, 128, features=features), WIDE, "bf16", clock)
    number, code = kernel_of(found)
    told = {sync.semaphore.constant for i in code.instructions() if i.mnemonic == "vst" for sync in i.posts}

    def hasty(item: Loop | Instruction) -> Loop | Instruction:
        if isinstance(item, Loop):
            return replace(item, body=tuple(map(hasty, item.body)))
        if item.mnemonic == dropped:
            return replace(item, waits=tuple(w for w in item.waits if w.semaphore.constant not in told))
        return item

    mutant = replace(code, nests=tuple(map(hasty, code.nests)))
    assert mutant != code
    kernels = tuple(mutant if n == number else k for n, k in enumerate(found.program.kernels))
    with pytest.raises(VerificationError) as caught:
        verify_program(replace(found.program, kernels=kernels), found.machine)
    assert "unordered with" in str(caught.value.findings)


@pytest.mark.parametrize(
    ("clock", "waiting"), [(column_by_column, "tlda"), (column_by_column, "vld"), (row_by_row, "vld")]
)
def test_rows_that_every_column_waits_for_never_come(clock: Clock, waiting: str) -> None:
    """They are told once, and the verifier sees that nobody tells them again."""
    (found, *_) = followed(attention(8, 384, 128, features=128), WIDE, "bf16", clock)
    number, code = kernel_of(found)
    told = {sync.semaphore.constant for i in code.instructions() if i.mnemonic == "vst" for sync in i.posts}

    def patient(item: Loop | Instruction) -> Loop | Instruction:
        if isinstance(item, Loop):
            return replace(item, body=tuple(map(patient, item.body)))
        if item.mnemonic == waiting:
            waits = (replace(w, first=0) if w.semaphore.constant in told else w for w in item.waits)
            return replace(item, waits=tuple(waits))
        return item

    mutant = replace(code, nests=tuple(map(patient, code.nests)))
    assert mutant != code
    kernels = tuple(mutant if n == number else k for n, k in enumerate(found.program.kernels))
    with pytest.raises(VerificationError):
        verify_program(replace(found.program, kernels=kernels), found.machine)


def test_columns_that_pass_without_waiting_for_a_slot_are_refused() -> None:
    """A tile would be loaded over one that the T-core has not taken yet."""
    machine = with_input_buffers(3 << 16).with_values({"spc_sram_bytes": 1 << 22})
    (found, *_) = followed(attention(4, 128, 900, depth=128), machine, "bf16")
    number, code = kernel_of(found)
    load = next(i for i in code.instructions() if i.mnemonic == "tldb")
    (free,) = (w.semaphore.constant for w in load.waits if code.semaphores[w.semaphore.constant])
    mutant = tuple(without(item, range(free, free + 1)) for item in code.nests)
    kernels = tuple(replace(k, nests=mutant) if n == number else k for n, k in enumerate(found.program.kernels))
    with pytest.raises(VerificationError) as caught:
        verify_program(replace(found.program, kernels=kernels), machine)
    assert "orders conflicting accesses" in str(caught.value.findings)
