"""Register assignment: no value is overwritten while it is still needed, loops included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import LARGE, OpCase
from pipeline import compile_graph

from birc.compiler.ir.plan import Phase, Statement
from birc.compiler.ir.registers import assign

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
