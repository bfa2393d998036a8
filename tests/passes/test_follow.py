"""Which products follow others as one kernel, and what a plan says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from followed import followed, one_is_faster
from graph_maker import GraphMaker
from machines import with_input_buffers
from pairs import paired_plan
from pipeline import Compiled

from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Access, ExchangeStep, Kernel, KernelStep, Plan
from birc.compiler.ir.plan_access import with_statements
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.follow import following
from birc.compiler.passes.tile import tile
from birc.runtime.machine import Machine
from birc.runtime.program import Command
from birc.runtime.timing.kernels import KernelTimer

WIDE = with_input_buffers().with_values({"spc_sram_bytes": 1 << 20})


def attention(heads: int = 8, rows: int = 128, columns: int = 128, features: int = 64) -> Graph:
    """softmax(q @ k) @ v"""
    make = GraphMaker()
    scores = make("matmul", make.input(heads, rows, 64), make.input(heads, 64, columns))
    return make.graph(make("matmul", make("softmax", scores, axis=2), make.input(heads, columns, features)))


def tiled_plan(graph: Graph) -> Plan:
    """The plan of the graph with products whose tensors stay on their SPC."""
    found = paired_plan(graph, WIDE)
    assert found is not None
    return tile(found[2], WIDE)


def follows(plan: Plan) -> list[bool]:
    return [isinstance(step, KernelStep) and step.follows for step in plan.steps]


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return next(followed(attention(), WIDE))


def test_two_products_are_one_kernel(compiled: Compiled) -> None:
    assert follows(compiled.plan) == [False, True]
    runs = [c for c in compiled.program.commands if isinstance(c, Command) and c.mnemonic == "run"]
    assert len(runs) == 1
    assert runs[0].operands[1] == sum(kernel.macs for kernel in compiled.kernels)


def test_the_text_of_a_plan_says_what_follows(compiled: Compiled) -> None:
    text = print_plan(compiled.plan)
    assert "run follows true {" in text
    assert parse_plan(text) == compiled.plan


def test_the_timing_engine_decides() -> None:
    """One kernel takes less than the two and the barrier between them, or they stay as they are."""
    clock, plan = KernelClock(KernelTimer(WIDE)), tiled_plan(attention())
    cycles: dict[tuple[str, ...], int] = {}

    def timed(kernels: Sequence[Kernel], memories: Memories, machine: Machine) -> int:
        names = tuple(kernel.name for kernel in kernels)
        cycles[names] = min(cycles.get(names, 1 << 30), clock.together(kernels, memories, machine))
        return cycles[names]

    assert follows(following(plan, WIDE, timed, {})) == [False, True]
    (both,) = (taken for names, taken in cycles.items() if len(names) > 1)
    assert both < sum(taken for names, taken in cycles.items() if len(names) == 1) + WIDE.spc_barrier_cycles


def two_attentions(*, in_a_row: bool) -> Graph:
    """An attention, and one beside it, or one of its result."""
    make = GraphMaker()
    heads, rows, depth = 8, 128, 64
    x = make.input(heads, rows, depth)
    results = []
    for _ in range(2):
        scores = make("matmul", results[-1] if results and in_a_row else x, make.input(heads, depth, rows))
        results.append(make("matmul", make("softmax", scores, axis=2), make.input(heads, rows, depth)))
    return make.graph(*results)


def test_pairs_stay_one_kernel_where_that_takes_less() -> None:
    plan = tiled_plan(two_attentions(in_a_row=False))

    def pairs_are_faster(kernels: Sequence[Kernel], _: Memories, __: Machine) -> int:
        return {1: 1000, 2: 1000}.get(len(kernels), 2000 + WIDE.spc_barrier_cycles)

    assert follows(following(plan, WIDE, pairs_are_faster, {})) == [False, True, False, True]
    assert follows(following(plan, WIDE, one_is_faster, {})) == [False, True, True, True]


def test_pairs_of_which_one_reads_what_the_other_writes_stay_apart() -> None:
    """What other SPCs made is there behind a barrier only."""
    plan = tiled_plan(two_attentions(in_a_row=True))
    found = follows(following(plan, WIDE, one_is_faster, {}))
    assert found.count(True) == 2
    assert [True, True] not in [found[n : n + 2] for n in range(len(found))]


def test_pairs_with_an_exchange_between_them_stay_apart() -> None:
    plan = tiled_plan(two_attentions(in_a_row=False))
    parted = replace(plan, steps=(*plan.steps[:2], ExchangeStep(()), *plan.steps[2:], ExchangeStep(())))
    found = follows(following(parted, WIDE, one_is_faster, {}))
    assert found == [False, True, False, False, True, False]


def test_rows_that_one_pair_passes_on_live_while_it_runs() -> None:
    """Those of the next pair may lie in their place; their sums, which a program reads late, may not."""
    (found, *_) = followed(two_attentions(in_a_row=False), WIDE)
    lives = {b.name: (b.first, b.last) for b in found.plan.buffers if b.space == "tb"}
    first = found.plan.steps.index(next(s for s in found.plan.steps if isinstance(s, KernelStep)))
    sums = {life for name, life in lives.items() if name.endswith(".sums")}
    rows = {life for name, life in lives.items() if not name.endswith(".sums")}
    assert sums == {(first, first + 3)}
    assert rows == {(first, first + 1), (first + 2, first + 3)}


def test_pairs_that_need_too_many_semaphores_are_refused() -> None:
    (found, *_) = followed(two_attentions(in_a_row=False), WIDE)
    small = replace(WIDE, digest="small", semaphores_tcore=8)
    with pytest.raises(InvalidIRError) as caught:
        verify_plan(found.plan, "tile", small)
    assert "need 2" in str(caught.value.report)
    assert "semaphores, an SPC has 23" in str(caught.value.report)
    paired = tiled_plan(two_attentions(in_a_row=False))
    assert follows(following(paired, small, one_is_faster, {})) == [False, True, False, True]


def as_long(kernels: Sequence[Kernel], _: Memories, __: Machine) -> int:
    """Cycles by which one kernel saves nothing."""
    return 1000 if len(kernels) == 1 else 2000 + WIDE.spc_barrier_cycles


def test_without_a_gain_they_stay_apart() -> None:
    plan = tiled_plan(attention())
    assert following(plan, WIDE, as_long, {}) == plan


@pytest.mark.parametrize("features", [100, 128, 200])
def test_heads_may_be_wider_than_a_tile(features: int) -> None:
    """The clock decides how the columns of tiles are taken; here the first way is as good as any."""
    plan = following(tiled_plan(attention(features=features)), WIDE, one_is_faster, {})
    assert follows(plan) == [False, True]


def test_a_product_that_takes_all_slots_leaves_some() -> None:
    """The input buffer holds the columns of one row: half of the slots go to the values."""
    plan = tiled_plan(attention(4, 64, 512))
    (whole, _), (ahead, behind) = (
        [step.kernel.tiling for step in p.steps if isinstance(step, KernelStep)]
        for p in (plan, following(plan, WIDE, one_is_faster, {}))
    )
    assert whole is not None and ahead is not None and behind is not None
    assert ahead.b_slots < whole.b_slots
    assert behind.programs == 1


def test_columns_that_leave_some_slots_pass() -> None:
    """All slots hold the columns that the rows of an SPC go past: with fewer each row loads them once more."""
    plan = changed(tiled_plan(attention(8, 384)), 0, hoist="b", b_slots=2)

    def fewer_are_faster(kernels: Sequence[Kernel], _: Memories, __: Machine) -> int:
        tiling = kernels[0].tiling
        return 1000 if len(kernels) == 1 or tiling is None else tiling.b_slots

    found = following(plan, WIDE, fewer_are_faster, {})
    verify_plan(found, "tile", WIDE)
    step = found.steps[0]
    assert isinstance(step, KernelStep) and step.kernel.tiling is not None
    assert (step.kernel.tiling.b_slots, step.kernel.tiling.hoist) == (1, "")


def changed(plan: Plan, number: int, **fields: object) -> Plan:
    """The plan with other fields in the tiling of its kernels at a step."""
    step = plan.steps[number]
    assert isinstance(step, KernelStep)
    kernels = tuple(
        kernel and kernel.tiling and replace(kernel, tiling=replace(kernel.tiling, **fields)) for kernel in step.kernels
    )
    return replace(plan, steps=(*plan.steps[:number], replace(step, kernels=kernels), *plan.steps[number + 1 :]))


def storing_over(plan: Plan) -> Plan:
    """The plan whose second product stores where the first one has its rows."""
    step = plan.steps[1]
    assert isinstance(step, KernelStep) and step.kernel.contraction is not None
    rows = step.kernel.contraction.a.view.buffer
    local = {b.name for b in plan.buffers if b.space == "tb"}

    def over(access: Access) -> Access:
        return access if access.view.buffer in local else replace(access, view=replace(access.view, buffer=rows))

    kernels = tuple(kernel and with_statements(kernel, over) for kernel in step.kernels)
    return replace(plan, steps=(plan.steps[0], replace(step, kernels=kernels)))


@pytest.mark.parametrize(
    ("mistake", "what"),
    [
        (lambda plan: changed(plan, 1, programs=2), "blocks are not tiles of a row, each finished by one"),
        (lambda plan: changed(plan, 0, b_slots=16), "leaves no programs, registers or input buffers"),
        (lambda plan: changed(plan, 1, a_slots=8), "behind another product operand a needs"),
        (lambda plan: replace(plan, steps=plan.steps[1:]), "follows what is no step of one kernel a die"),
        (lambda plan: replace(plan, steps=(replace(plan.steps[0], follows=True), plan.steps[1])), "follows what is no"),
        (lambda plan: replace(plan, steps=(plan.steps[0], *plan.steps[:0:-1], plan.steps[1])), "follows what is no"),
        (storing_over, "which the product before it uses"),
    ],
)
def test_the_verifier_of_plans_tells_what_cannot_follow(compiled: Compiled, mistake: object, what: str) -> None:
    assert callable(mistake)
    with pytest.raises(InvalidIRError) as caught:
        verify_plan(mistake(compiled.plan), "tile", WIDE)
    assert what in str(caught.value.report)
