"""Products by any tiling: every engine computes what the graph says, in any order, and the verifier proves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_tilings import MACHINE, TiledProduct, lowered_product, tiled_products, with_tiling

from birc.codegen.row_order import executed
from birc.codegen.tile_products import A_FREE, A_FULL, ACC_FREE, B_FREE, B_FULL
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import BLOCK, TILE, Tiling
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.ir.plan_winding import winds_through_depth
from birc.compiler.ir.registers import epilogue, epilogue_of
from birc.compiler.ir.tile_order import BY_COLUMNS, LAST_ROWS, OPENING, WINDING, TileOrder, shifted
from birc.compiler.passes.split_depth import split_depth
from birc.runtime.program import Affine, Instruction, Loop, RingAddress
from birc.runtime.timing import simulate
from birc.runtime.values.engine import ValuesEngine
from birc.runtime.verifier.findings import VerificationError
from birc.runtime.verifier.verify import verify_program

OPENING_DEPTH = 6


def check(case: TiledProduct, seed: int) -> None:
    """Values and counts of the engines, and the verifier's word."""
    compiled = case.compiled
    compiled.verify()
    inputs = case.inputs(seed)
    expected = run_graph(compiled.graph, inputs)
    stepped, counts = compiled.step_counted(inputs, "random" if seed % 2 else "sequential", seed)
    memory = compiled.memory(inputs)
    engine = ValuesEngine(compiled.program, MACHINE)
    assert engine.run(memory) == counts
    assert simulate(compiled.program, MACHINE).counts == counts
    for name, actual in (*stepped.items(), *compiled.outputs(memory).items()):
        if case.is_exact:
            np.testing.assert_array_equal(actual, expected[name])
        else:
            np.testing.assert_allclose(actual, expected[name], rtol=1e-5, atol=1e-6)
    # Loops over parts of the columns are walked one by one, which costs little.
    assert all(case.goes_by_parts and fallback.raised for fallback in engine.fallbacks)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=tiled_products(), seed=st.integers(0, 9))
def test_every_tiling_gives_the_same(case: TiledProduct, seed: int) -> None:
    check(case, seed)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=tiled_products(("panels",)), seed=st.integers(0, 9))
def test_every_tiling_of_panels_gives_the_same(case: TiledProduct, seed: int) -> None:
    assert case.kernel.contraction is not None and case.kernel.contraction.further
    check(case, seed)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=tiled_products(("wound",)), seed=st.integers(0, 9))
def test_every_way_through_a_depth_that_does_not_fit_gives_the_same(case: TiledProduct, seed: int) -> None:
    assert winds_through_depth(case.kernel, case.tiling)
    check(case, seed)


def counted(case: TiledProduct) -> Iterator[tuple[str, int]]:
    """The instructions of the kernel by mnemonic, and how often each is executed."""
    instructions = list(case.compiled.program.kernels[0].instructions())
    for (_, number), done in simulate(case.compiled.program, MACHINE).counts.instructions.items():
        yield instructions[number].mnemonic, done.executions


def executions(case: TiledProduct) -> Counter[str]:
    """How often the instructions of a mnemonic are executed together."""
    found: Counter[str] = Counter()
    for mnemonic, count in counted(case):
        found[mnemonic] += count
    return found


def product(m: int, k: int, n: int, *, softmax: bool = False) -> tuple[object, ...]:
    """x @ w + bias + residual, and its kernel."""
    make = GraphMaker()
    total = make("add", make("matmul", make.input(m, k), make.input(k, n)), make.input(n))
    total = make("add", total, make.input(m, n))
    graph = make.graph(make("softmax", total, axis=1) if softmax else total)
    fused, lowered = lowered_product(graph)
    return fused, lowered, lowered.kernels[0]


@pytest.mark.parametrize("turns", [TILE, BLOCK])
def test_a_block_of_twenty_four_tiles(turns: str) -> None:
    fused, lowered, kernel = product(24, 8, 24)
    tile = (("m", 3), ("n", 4), ("k0", 4))
    columns, programs = (3, 3) if turns == TILE else (6, 1)
    rows = 24 // columns
    tiling = Tiling(tile, (), rows, columns, 1, "", False, 2 * rows + 1, 2 * columns, programs, turns)
    check(with_tiling(fused, lowered, kernel, tiling), 1)


def test_registers_hold_no_sums_of_a_depth_that_is_one_step() -> None:
    """Nothing is loaded in chunks when the depth that is not resident is a single step."""
    fused, lowered, kernel = product(9, 4, 24)
    tile = (("m", 3), ("n", 4), ("k0", 4))
    tiling = Tiling(tile, (), 3, 6, resident=0, a_slots=3, b_slots=6, programs=6)
    check(with_tiling(fused, lowered, kernel, tiling), 1)


@pytest.mark.parametrize("depth", [4, 8, 12])
@pytest.mark.parametrize(("rows", "columns"), [(3, 2), (7, 3)])
def test_the_last_rows_go_by_columns(rows: int, columns: int, depth: int) -> None:
    """With the depth in one, two or three chunks; blocks on every SPC, the last one not full."""
    fused, lowered, kernel = product(3 * 11, depth, 4 * 5)
    tile = (("m", 3), ("n", 4), ("k0", 2))
    if depth > 4:
        kernel = split_depth(kernel, 4)
        tile = (("m", 3), ("n", 4), ("k0", 1), ("k0_in", 2))
    spcs = (("n", 2),)
    tiling = Tiling(tile, spcs, rows, columns, 1, "", True, 5, 2 * columns, programs=columns, order=BY_COLUMNS)
    check(with_tiling(fused, lowered, kernel, tiling), 1)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("rows", "columns"), [(5, 2), (8, 3)])
@pytest.mark.parametrize("eager", [False, True])
def test_rows_wind_past_blocks_of_columns(blocks: int, rows: int, columns: int, eager: bool) -> None:
    """Each block but the first finds the rows with which the one before ended; those that are left are loaded once."""
    depth, spcs = 4, 2
    fused, lowered, kernel = product(3 * rows - 1, depth, 4 * spcs * blocks * columns - 1)
    tile = (("m", 3), ("n", 4), ("k0", 2))
    slots = 5, 2 * columns + eager
    tiling = Tiling(tile, (("n", spcs),), rows, columns, 1, "", True, *slots, columns, order=WINDING, eager=eager)
    case = with_tiling(fused, lowered, kernel, tiling)
    check(case, 1)
    executed = executions(case)
    assert executed["tlda"] == spcs * depth // 2 * (rows + (blocks - 1) * (rows - LAST_ROWS))
    assert executed["vld"] < 2 * executed["vst"]  # Biases are loaded once for several rows.


@pytest.mark.parametrize("parts", [2, 4, 6])
@pytest.mark.parametrize(("hoist", "rows", "programs"), [("a", 2, 2), ("", 2, 2), ("a", 1, 1), ("", 1, 1), ("", 1, 2)])
def test_rows_are_scaled_by_what_is_made_once_for_all_their_columns(
    hoist: str, rows: int, programs: int, parts: int
) -> None:
    """By each program for its own rows: moments are loaded, and roots taken, once for all columns that go past."""
    m, n, columns = 3 * 4, 4 * 4, 4
    make = GraphMaker()
    x = make("matmul", make.input(m, 8), make.input(8, n))
    y = make("scale_by_moments", x, make.input(2, m, parts), make.input(n), make.input(n), count=4 * parts, epsilon=9.0)
    fused, lowered = lowered_product(make.graph(y))
    tile = (("m", 3), ("n", 4), ("k0", 4))
    case = with_tiling(
        fused, lowered, lowered.kernels[0], Tiling(tile, (), rows, 1, 1, hoist, False, 4, 4, programs=programs)
    )
    check(case, 1)
    executed = executions(case)
    pieces = -(-parts // 4)
    shared = programs if rows == 1 else 1  # Programs that take columns in turn have rows in common.
    assert executed["vrsqrt"] == 4 * shared
    assert executed["vld"] == 4 * (2 * pieces * shared + 2 * columns)


@pytest.mark.parametrize("deals", [2, 3])
@pytest.mark.parametrize("hoist", ["", "a", "b"])
@pytest.mark.parametrize("turns", [TILE, BLOCK])
def test_columns_are_dealt_out_several_times(deals: int, hoist: str, turns: str) -> None:
    """Two blocks of columns an SPC at each deal, the last of them not full; each operand as if they were dealt once."""
    rows, columns, blocks = 2, 2, 2 * deals
    fused, lowered, kernel = product(3 * 2 * rows, 4, 4 * 2 * blocks * columns - 3)
    tile = (("m", 3), ("n", 4), ("k0", 2))
    tiling = Tiling(tile, (("n", 2),), rows, columns, 1, hoist, False, 5, 5, 2, turns, deals=deals)
    once = with_tiling(fused, lowered, kernel, replace(tiling, deals=1))
    case = with_tiling(fused, lowered, kernel, tiling)
    check(case, 1)
    assert simulate(case.compiled.program, MACHINE).traffic == simulate(once.compiled.program, MACHINE).traffic


@pytest.mark.parametrize(
    ("rows", "steps", "slots"), [(2, 5, 4), (3, 3, 2), (5, 4, 2), (8, 9, 7), (7, 7, 4), (20, 9, 5)]
)
def test_rows_wind_through_a_depth_that_does_not_fit(rows: int, steps: int, slots: int) -> None:
    """Each row but the first finds what the one before ended with; what it finds no slots for is loaded for each."""
    spcs = 2
    fused, lowered, kernel = product(3 * rows - 1, 2 * steps - 1, 4 * spcs - 1)
    tile = (("m", 3), ("n", 4), ("k0", 2))
    tiling = Tiling(tile, (("n", spcs),), 1, 1, 1, "b", True, steps + 1, slots)
    case = with_tiling(fused, lowered, kernel, tiling)
    check(case, 1)
    loads = executions(case)
    assert loads["tlda"] == spcs * rows * steps
    assert loads["tldb"] == spcs * (slots + rows * (steps - slots))
    assert loads["vacc"] == spcs * rows


def test_programs_without_a_tile_load_nothing() -> None:
    """Two programs share three columns, of one row each, no better than one does: it takes all of them."""
    fused, lowered, kernel = product(3, 4, 4 * 3)
    tiling = Tiling((("m", 3), ("n", 4), ("k0", 2)), (), 1, 1, 1, "b", False, 2, 2, programs=2)
    case = with_tiling(fused, lowered, kernel, tiling)
    check(case, 1)
    assert executions(case)["vld"] == 2 * 3  # a bias and a residual
    once = with_tiling(fused, lowered, kernel, replace(tiling, programs=1))
    assert case.compiled.program.kernels == once.compiled.program.kernels


@pytest.mark.parametrize(("steps", "chunks", "group"), [(2, 2, 1), (2, 3, 3), (3, 2, 1), (4, 3, 1)])
def test_the_first_rows_take_their_chunks_later(steps: int, chunks: int, group: int) -> None:
    """Blocks on every SPC, the last one not full, some columns of it alone; in slots for one chunk of the columns.

    The order of sums is another one, all values are whole numbers.
    """
    rows, columns = group * (steps - 1) + 2, 2
    fused, lowered, kernel = product(3 * (2 * rows - 1), 2 * steps * chunks, 4 * 2 * columns * 2 - 5)
    tile = (("m", 3), ("n", 4), ("k0", 1), ("k0_in", 2))
    slots = steps + 1, steps * columns
    tiling = Tiling(tile, (("n", 2),), rows, columns, 1, "", True, *slots, programs=columns, order=shifted(group))
    case = with_tiling(fused, lowered, split_depth(kernel, 2 * steps), tiling)
    check(case, 1)
    loads = executions(case)
    blocks = 2 * 2 * 2
    assert loads["tlda"] == blocks * rows * steps * chunks
    assert loads["tldb"] == blocks * columns * steps * chunks


@pytest.mark.parametrize("order", [BY_COLUMNS, shifted(1)], ids=lambda order: order.name)
def test_rows_that_go_in_another_order_have_a_program_for_each_column(order: TileOrder) -> None:
    _, _, kernel = product(3 * 9, 8, 4 * 6)
    chunked = split_depth(kernel, 4)
    tile = (("m", 3), ("n", 4), ("k0", 1), ("k0_in", 2))
    tiling = Tiling(tile, (), 5, 3, 1, "", True, 5, 6, programs=3, order=order)
    assert not list(tiling_problems(replace(chunked, tiling=tiling), MACHINE))
    (alone,) = tiling_problems(replace(chunked, tiling=replace(tiling, programs=1)), MACHINE)
    assert "tile by tile by a program each" in alone
    (fewer, *_) = tiling_problems(replace(chunked, tiling=replace(tiling, programs=2)), MACHINE)
    assert fewer == "2 vector programs take 3 columns of a block in turn, must be as many, or one"


def opened(rows: int, deals: int = 1, more: int = 0) -> Tiling:
    """Rows that stay, on two SPCs; slots for as many columns as open, and some more."""
    tile, slots = (("m", 3), ("n", 4), ("k0", 2)), rows * OPENING_DEPTH // 2 + more
    return Tiling(tile, (("n", 2),), rows, 1, 1, "a", False, slots, slots, rows, order=OPENING, deals=deals)


@pytest.mark.parametrize("more", [0, 1, 3])
@pytest.mark.parametrize(("rows", "columns", "blocks"), [(2, 2, 1), (2, 3, 2), (2, 5, 1), (3, 3, 2), (3, 7, 1)])
def test_columns_open_past_rows_that_stay(rows: int, columns: int, blocks: int, more: int) -> None:
    """With biases and residuals, blocks of rows one after the other, the last tiles not full; each is loaded once."""
    fused, lowered, kernel = product(3 * rows * blocks - 1, OPENING_DEPTH, 4 * 2 * columns - 3)
    case = with_tiling(fused, lowered, kernel, opened(rows, more=more))
    check(case, 1)
    loads = executions(case)
    assert loads["tlda"] == 2 * rows * blocks * OPENING_DEPTH // 2
    assert loads["tldb"] == 2 * columns * blocks * OPENING_DEPTH // 2


@pytest.mark.parametrize("deals", [1, 2])
@pytest.mark.parametrize(("rows", "columns"), [(2, 4), (3, 6)])
def test_each_row_keeps_what_lasts_while_columns_open(rows: int, columns: int, deals: int) -> None:
    """Programs that take columns of any row in turn have what belongs to each row."""
    make = GraphMaker()
    scaled = make(
        "mul",
        make("matmul", make.input(3 * rows, OPENING_DEPTH), make.input(OPENING_DEPTH, 8 * columns)),
        make.input(3 * rows, 1),
    )
    fused, lowered = lowered_product(make.graph(make("add", scaled, make.input(8 * columns))))
    kernel = lowered.kernels[0]
    case = with_tiling(fused, lowered, kernel, opened(rows, deals))
    check(case, 1)
    biases = 2 * rows * columns
    assert executions(case)["vld"] == biases + 2 * rows * rows, "each program has those of all rows"


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (2, 5), (3, 4)])
def test_the_first_columns_go_row_by_row(rows: int, columns: int) -> None:
    fused, lowered, kernel = product(3 * rows, OPENING_DEPTH, 8 * columns)
    case = with_tiling(fused, lowered, kernel, opened(rows))
    (code,) = case.compiled.program.kernels
    multiplied = []
    for item, _, variables in executed(code.nests, lambda i: i.mnemonic == "tmma"):
        address = next(operand for operand in item.operands if isinstance(operand, RingAddress))
        multiplied.append(address.at(variables))
    tiles = multiplied[:: OPENING_DEPTH // 2]
    places = sorted({*tiles})
    row_by_row = [place for place in places for _ in range(rows)]
    assert tiles == row_by_row + places * (columns - rows)


def without(item: Loop | Instruction, semaphore: int) -> Loop | Instruction:
    """The code in which nothing waits for a semaphore, or posts it."""
    if isinstance(item, Loop):
        return replace(item, body=tuple(without(inner, semaphore) for inner in item.body))
    waits, posts = (tuple(s for s in syncs if s.semaphore != Affine(semaphore)) for syncs in (item.waits, item.posts))
    return replace(item, waits=waits, posts=posts)


@pytest.mark.parametrize("semaphore", [A_FULL, A_FREE, B_FULL, B_FREE, ACC_FREE])
def test_columns_that_open_and_do_not_wait_are_refused(semaphore: int) -> None:
    """For what they take, and for room in the buffers, also from one block of rows to the next."""
    fused, lowered, kernel = product(3 * 2 * 2, OPENING_DEPTH, 8 * 5)
    program = with_tiling(fused, lowered, kernel, opened(2)).compiled.program
    (code,) = program.kernels
    mutant = replace(code, nests=tuple(without(item, semaphore) for item in code.nests))
    verify_program(program, MACHINE)
    with pytest.raises(VerificationError):
        verify_program(replace(program, kernels=(mutant,)), MACHINE)


@pytest.mark.parametrize(
    "changes",
    [
        {"b_slots": 2 * OPENING_DEPTH // 2 - 1},
        {"hoist": "b"},
        {"programs": 1},
        {"eager": True},
        {"rows": 1, "programs": 1},
        {"deals": 3},
    ],
)
def test_columns_that_cannot_open_are_refused(changes: dict[str, int | str]) -> None:
    _, _, kernel = product(6, OPENING_DEPTH, 8 * 3)
    tiling = opened(2)
    assert not list(tiling_problems(replace(kernel, tiling=tiling), MACHINE))
    problems = tiling_problems(replace(kernel, tiling=replace(tiling, **changes)), MACHINE)
    assert any("opens with columns row by row" in problem for problem in problems)


@pytest.mark.parametrize("turns", [TILE, BLOCK])
@pytest.mark.parametrize("hoist", ["a", "b"])
def test_the_first_tiles_of_what_goes_past_others_come_first(hoist: str, turns: str) -> None:
    """They hold two slots each, whose number need not be twice theirs."""
    fused, lowered, kernel = product(3 * 6, 6, 4 * 6)
    tile = (("m", 3), ("n", 4), ("k0", 2))
    block, slots = ((3, 1), (9, 7)) if hoist == "a" else ((1, 3), (7, 9))
    tiling = Tiling(tile, (), *block, 1, hoist, False, *slots, programs=3 if turns == TILE else 2, turns=turns)
    case = with_tiling(fused, lowered, kernel, tiling)
    loads = [i for k in case.compiled.program.kernels for i in k.instructions() if i.mnemonic.startswith("tld")]
    assert sorted(len(load.waits) for load in loads) == [1, 2]
    check(case, 1)
    eager = with_tiling(fused, lowered, kernel, replace(tiling, eager=True))
    loads = [i for k in eager.compiled.program.kernels for i in k.instructions() if i.mnemonic.startswith("tld")]
    assert [len(load.waits) for load in loads] == [1, 1]
    check(eager, 1)


@pytest.mark.parametrize(
    ("rows", "columns", "programs", "loads"), [(1, 3, 3, 6), (2, 1, 2, 12), (1, 1, 2, 12), (1, 1, 1, 6), (1, 3, 1, 36)]
)
def test_what_is_the_same_for_all_rows_is_loaded_once(rows: int, columns: int, programs: int, loads: int) -> None:
    """By each program, for each column of tiles that it has tiles of; the residual for each of all 36 tiles."""
    fused, lowered, kernel = product(6 * 3, 6, 6 * 4)
    tiling = Tiling(
        (("m", 3), ("n", 4), ("k0", 2)), (), rows, columns, 1, "b", False, 9, 9, programs=programs, turns=TILE
    )
    case = with_tiling(fused, lowered, kernel, tiling)
    check(case, 1)
    assert sorted(count for mnemonic, count in counted(case) if mnemonic == "vld") == sorted((loads, 36))


def test_registers_that_are_not_there_hold_nothing_for_all_rows() -> None:
    """What comes after the bias takes its register, unless that is needed for the next row."""
    make = GraphMaker()
    total = make("add", make("matmul", make.input(18, 6), make.input(6, 24)), make.input(24))
    _, lowered = lowered_product(make.graph(make("gelu", total, approximate="none")))
    (kernel,) = lowered.kernels
    tiling = Tiling((("m", 3), ("n", 4), ("k0", 2)), (), 1, 3, 1, "b", False, 9, 9, programs=3, turns=TILE)
    needed = epilogue(kernel, by_block=False).registers.count
    once, again = (epilogue_of(kernel, tiling, 3 * count) for count in (needed + 1, needed))
    assert (len(once.lasting), once.registers.count) == (1, needed + 1)
    assert (len(again.lasting), again.registers.count) == (0, needed)


@pytest.mark.parametrize("columns", [8, 12, 20])
def test_whole_rows_with_half_of_the_depth_at_a_time(columns: int) -> None:
    fused, lowered, kernel = product(6, 8, columns, softmax=True)
    assert len(kernel.phases) > 1
    tile, count = (("m", 3), ("n", 4), ("k0", 4)), columns // 4
    tiling = Tiling(tile, (), 1, count, 0, "", True, 2, count + 1, programs=2, turns=BLOCK)
    check(with_tiling(fused, lowered, kernel, tiling), 3)


@pytest.mark.parametrize(("rows", "programs"), [(1, 1), (1, 2), (2, 2), (1, 3)])
@pytest.mark.parametrize("begin", [24, 12])
def test_tiles_hold_one_load_and_others_go_ahead(begin: int, rows: int, programs: int) -> None:
    """A bias, a residual and, from a late column on, a mask of a row of six tiles; registers for few loads ahead."""
    m, n = 2 * rows * programs, 24
    make = GraphMaker()
    total = make("add", make("matmul", make.input(m, 2), make.input(2, n)), make.input(n))
    total = make("add", total, make.input(m, n))
    if begin < n:
        keeps = np.arange(n) < begin + np.arange(m)[:, None]
        total = make("where", make.constant(keeps, element="bool"), total, make.constant(-1e4))
    fused, lowered = lowered_product(make.graph(make("softmax", total, axis=1)))
    kernel = lowered.kernels[0]
    tiling = Tiling((("m", rows), ("n", 4), ("k0", 2)), (), 1, 6, 1, "", False, 2, 7, programs, BLOCK)
    assert epilogue_of(kernel, tiling, MACHINE.vector_registers).loads
    check(with_tiling(fused, lowered, kernel, tiling), 3)


def test_a_random_order_of_all_instructions() -> None:
    fused, lowered, kernel = product(12, 8, 16)
    tile = (("m", 3), ("n", 4), ("k0", 4))
    tiling = Tiling(tile, (), 2, 4, 1, "", True, 5, 9, programs=2, turns=BLOCK)
    case = with_tiling(fused, lowered, kernel, tiling)
    inputs = case.inputs()
    (expected,) = run_graph(case.compiled.graph, inputs).values()
    for seed in range(5):
        (actual,) = case.compiled.step(inputs, "random", seed).values()
        np.testing.assert_array_equal(actual, expected)
