"""Register assignment: no value is overwritten while it is still needed, loops included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from graph_maker import GraphMaker
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import with_input_buffers
from op_cases import LARGE, OpCase
from pipeline import compile_graph

from birc.compiler.ir.plan import RED, Access, Contraction, Dimension, Index, Kernel, Phase, Statement, View
from birc.compiler.ir.registers import Epilogue, assign, epilogue, epilogue_of
from birc.runtime.machine import load_machine

OPERATIONS = (("vld",), ("vneg", "vabs", "vexp2"), ("vadd", "vmul", "vmax"))
LOOPS = st.sampled_from(((), ("d0",)))


def run(phases: Iterable[Phase], rounds: int = 3) -> None:
    """Executes statements with values that name themselves; loops go round several times.

    Fails when a register does not hold the value that the statement asks for.
    """
    phases = tuple(phases)
    registers = assign(phases)
    held: dict[int, str] = {}
    for phase in phases:
        for _ in range(rounds if phase.loops else 1):
            for statement in phase.statements:
                for argument in statement.arguments:
                    if isinstance(argument, str):
                        assert held[registers.numbers[argument]] == argument
                if statement.result:
                    held[registers.numbers[statement.result]] = statement.result
        # A fold's sum is in its register between the rounds too.
        for statement in phase.statements:
            if statement.op.startswith("vfold"):
                assert held[registers.numbers[statement.result]] == statement.result
    assert registers.count == len(set(registers.numbers.values()))


def fold_is_kept_between_rounds(phases: Iterable[Phase]) -> bool:
    """Whether nothing but the fold itself writes its register inside its phase."""
    phases = tuple(phases)
    numbers = assign(phases).numbers
    for phase in phases:
        folds = {numbers[s.result] for s in phase.statements if s.op.startswith("vfold")}
        others = {numbers[s.result] for s in phase.statements if s.result and not s.op.startswith("vfold")}
        if folds & others:
            return False
    return True


@dataclass
class Draft:
    """A phase in the making: its values, and those that nothing has used yet."""

    first_number: int
    statements: list[Statement] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def add(self, op: str, *arguments: str) -> str:
        name = f"v{self.first_number + len(self.statements)}"
        self.statements.append(Statement(op, name, arguments))
        self.unused = [*(value for value in self.unused if value not in arguments), name]
        self.values.append(name)
        return name

    def one_left(self) -> str:
        """Join what nothing uses into one value."""
        while len(self.unused) > 1:
            self.add("vadd", self.unused[0], self.unused[1])
        return self.unused[0]


@st.composite
def programs(draw: st.DrawFn) -> tuple[Phase, ...]:
    """Phases that each end in a fold, and a last one that stores; every value is used."""
    phases: list[Phase] = []
    folds: list[str] = []
    count = 0
    for _ in range(draw(st.integers(1, 4))):
        draft = Draft(count)
        for _ in range(draw(st.integers(1, 6))):
            readable = [*draft.values, *folds]
            operands = draw(st.lists(st.sampled_from(readable), max_size=2)) if readable else []
            draft.add(draw(st.sampled_from(OPERATIONS[len(operands)])), *operands)
        folds.append(draft.add("vfoldsum", draft.one_left()))
        count += len(draft.statements)
        phases.append(Phase(tuple(draft.statements), draw(LOOPS)))
    stores = tuple(Statement("vst", arguments=(name,)) for name in draw(st.permutations(folds)))
    return (*phases, Phase(stores, draw(LOOPS)))


@settings(max_examples=300, deadline=None)
@given(programs())
def test_random_statements(phases: tuple[Phase, ...]) -> None:
    run(phases)
    assert fold_is_kept_between_rounds(phases)


def test_registers_of_real_kernels() -> None:
    for large in LARGE[::4]:
        built = OpCase(large.op, large.sample()).build()
        if built is None or any(value.type.rank == 0 for value in built[0].inputs):
            continue
        for kernel in compile_graph(built[0]).kernels:
            run(kernel.phases)
            assert fold_is_kept_between_rounds(kernel.phases)


def test_registers_are_reused() -> None:
    chain = [Statement("vld", "v0"), *(Statement("vneg", f"v{i + 1}", (f"v{i}",)) for i in range(20))]
    assert assign((Phase((*chain, Statement("vst", arguments=("v20",)))),)).count == 1


# --- blocks of tiles, each with registers of its own


def run_blocks(after: Epilogue, tiles: int, ahead: int) -> None:
    """Executes an epilogue for a row of `tiles` whose sums are there, with loads that go ahead by `ahead` tiles.

    Fails when a register does not hold the value, of the tile, that the statement asks for.
    """
    looped = {s.result for p in after.phases for s in p.statements if p.loops and not s.op.startswith("vfold")}
    held: dict[tuple[str, int, int], tuple[str, int]] = {}

    def place(name: str, tile: int) -> tuple[str, int, int]:
        if name in after.slots:
            return "tile", after.slots[name], tile
        if name in after.loads:
            return "load", after.loads[name], tile % ahead
        return "register", after.registers.numbers[name], 0

    def value(name: str, tile: int) -> tuple[str, int]:
        return name, tile if name in looped else -1

    def execute(statement: Statement, tile: int) -> None:
        for argument in statement.arguments:
            if isinstance(argument, str):
                assert held[place(argument, tile)] == value(argument, tile)
        if statement.result and statement.op != "vacc":
            held[place(statement.result, tile)] = value(statement.result, tile)

    sums = next(s.result for p in after.phases for s in p.statements if s.op == "vacc")
    for tile in range(tiles):
        held[place(sums, tile)] = value(sums, tile)
    for phase in after.phases:
        first = [s for s in phase.statements if s.result in after.loads]
        rest = [s for s in phase.statements if s.result not in after.loads]
        for begin in range(0, tiles if phase.loops else 1, ahead):
            for statements in (first, rest):
                for tile in range(begin, begin + (ahead if phase.loops else 1)):
                    for statement in statements:
                        execute(statement, tile)
    assert len(held) <= after.count(tiles, ahead)


@st.composite
def row_phases(draw: st.DrawFn) -> tuple[Phase, ...]:
    """An epilogue about whole rows: what phases compute of a tile is read in any later one; every value is used."""
    phases: list[Phase] = []
    of_tiles: list[str] = []
    of_rows: list[str] = []
    unused: dict[str, None] = {}

    def add(statements: list[Statement], values: list[str], op: str, *arguments: str) -> str:
        name = f"v{len(of_tiles) + len(of_rows)}"
        statements.append(Statement(op, name, arguments))
        values.append(name)
        for argument in arguments:
            unused.pop(argument, None)
        unused[name] = None
        return name

    for number in range(draw(st.integers(1, 4))):
        statements: list[Statement] = []
        if not number:
            add(statements, of_tiles, "vacc")
        for _ in range(draw(st.integers(0, 5))):
            operands = draw(st.lists(st.sampled_from([*of_tiles, *of_rows]), max_size=2))
            add(statements, of_tiles, draw(st.sampled_from(OPERATIONS[len(operands)])), *operands)
        total = add(statements, of_rows, "vfoldsum", draw(st.sampled_from(of_tiles)))
        phases.append(Phase(tuple(statements), ("d0",)))
        if draw(st.booleans()):
            between: list[Statement] = []
            add(between, of_rows, "vredsum", total)
            phases.append(Phase(tuple(between)))
    statements = []
    total = of_tiles[0]
    for name in draw(st.permutations(list(unused))):
        total = add(statements, of_tiles, "vadd", total, name)
    statements.append(Statement("vst", arguments=(total,)))
    return (*phases, Phase(tuple(statements), ("d0",)))


@settings(max_examples=300, deadline=None)
@given(phases=row_phases(), ahead=st.integers(1, 3), groups=st.integers(1, 3))
def test_tiles_of_a_row_keep_their_values(phases: tuple[Phase, ...], ahead: int, groups: int) -> None:
    dimensions = (Dimension("d0", 8), Dimension("k", 8, RED))
    access = Access(View("t", 0, (8,), (1,)), (Index((("d0", 1),)),))
    contraction = Contraction(access, access, 0, 1, (), ("d0",), "tf32p")
    after = epilogue(Kernel("rows", dimensions, phases, contraction), by_block=True)
    run_blocks(after, ahead * groups, ahead)


@pytest.mark.parametrize("columns", [128, 320])
def test_a_masked_softmax_has_a_register_a_tile(columns: int) -> None:
    make = GraphMaker()
    scores = make("mul", make("matmul", make.input(5, 16), make.input(16, columns)), make.constant(0.5))
    graph = make.graph(make("softmax", make("add", scores, make.input(5, columns)), axis=1))
    (kernel, *_) = compile_graph(graph, with_input_buffers()).kernels
    after = epilogue(kernel, by_block=True)
    assert set(after.slots.values()) == {0}
    assert len(after.loads) == 1
    run_blocks(after, 6, 3)


def test_what_is_the_same_for_a_row_is_computed_once() -> None:
    """The reciprocal of the sum, and a factor of each row, stand before the loops over tiles."""
    make = GraphMaker()
    shares = make("softmax", make("matmul", make.input(5, 16), make.input(16, 192)), axis=1)
    graph = make.graph(make("mul", shares, make.input(5, 1)))
    (kernel, *_) = compile_graph(graph, with_input_buffers()).kernels
    looped = [s.op for phase in kernel.phases for s in phase.statements if phase.loops]
    once = [s.op for phase in kernel.phases for s in phase.statements if not phase.loops]
    assert not {"vld", "vrcp", "vredmax", "vredsum"} & set(looped)
    assert sorted(once) == ["vld", "vrcp", "vredmax", "vredsum"]


@pytest.mark.parametrize(("columns", "holds"), [(512, False), (640, True), (896, True), (1024, False)])
def test_long_rows_hold_their_mask_where_that_leaves_more_programs_or_time(columns: int, holds: bool) -> None:
    make = GraphMaker()
    scores = make("mul", make("matmul", make.input(4, 1024, 64), make.input(4, 64, columns)), make.constant(0.5))
    graph = make.graph(make("softmax", make("add", scores, make.input(1024, columns)), axis=2))
    machine = load_machine("br100")
    (kernel, *_) = compile_graph(graph, machine, "bf16").kernels
    assert kernel.tiling is not None
    after = epilogue_of(kernel, kernel.tiling, machine.vector_registers)
    assert bool(after.held) == holds
    assert all(after.slots[name] == 0 for name in after.held)
    assert kernel.tiling.programs * after.count(columns // 64) <= machine.vector_registers
