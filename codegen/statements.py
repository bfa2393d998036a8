"""Vector statements of the plan as instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from birc.codegen.nest import NestBuilder, mask
from birc.codegen.slots import Slots
from birc.compiler.ir.plan import Kernel, Statement
from birc.compiler.ir.registers import Registers
from birc.runtime.errors import InternalError
from birc.runtime.program import Affine, Instruction, Operand, Register, Sync, affine

FOLDED = {"vfoldsum": "vadd", "vfoldmax": "vmax", "vfoldmin": "vmin", "vfoldprod": "vmul"}
"""What a fold does with its register and its argument."""


@dataclass(slots=True)
class StatementWriter:
    """Writes statements into a nest.

    `program_depth` is the loop whose iterations run on different vector programs, each with `stride` registers, of
    which those from `first` on are written;
    `aliases` are values that lie in another register than their own. Each iteration of the loops in `rows`, by
    depth, has registers of its own, so many further on.
    """

    kernel: Kernel
    nest: NestBuilder
    slots: Slots
    tile: dict[str, int]
    registers: Registers
    program_depth: int | None = None
    stride: int = 0
    first: int = 0
    aliases: dict[str, Register] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)

    def register(self, name: str) -> Register:
        """The register of a value in the current vector program."""
        return self.aliases.get(name) or Register(self.in_program(self.first + self.registers.numbers[name]))

    def in_program(self, number: int) -> Affine:
        """A register number of the first vector program, in the current one."""
        own = Affine(number) + affine(0, self.rows)
        if self.program_depth is None:
            return own
        return own + affine(0, {self.program_depth: self.stride or self.registers.count})

    def write(self, statement: Statement, fold_loops: Sequence[int | None] = (), *, goes_on: bool = False) -> None:
        """Append the instruction of a statement; folds restart in the first iteration of `fold_loops`, or go on."""
        if goes_on and statement.op in FOLDED:
            result = self.register(statement.result)
            operands = (result, result, *(self._source(a) for a in statement.arguments))
            self.nest.append(Instruction(FOLDED[statement.op], operands))
            return
        self.nest.append(Instruction(statement.op, self._operands(statement, fold_loops)))

    def write_drain(self, destination: Register, first: int, waits: tuple[Sync, ...], posts: tuple[Sync, ...]) -> None:
        """Append the drain of the accumulator."""
        shape = tuple(self.tile[d.name] for d in self.kernel.par_dims)
        self.nest.append(Instruction("vacc", (destination, shape, first), waits, posts))

    def _operands(self, statement: Statement, fold_loops: Sequence[int | None]) -> tuple[Operand, ...]:
        arguments = tuple(self._source(a) for a in statement.arguments)
        if statement.op == "vst":
            return (self._box(statement), *arguments)
        result = self.register(statement.result)
        if statement.op == "vld":
            return (result, self._box(statement))
        if statement.op == "vmovi":
            return (result, *arguments, (1,) * len(self.kernel.par_dims))
        if statement.op == "vldx":
            return (result, self._box(statement), *arguments, statement.index_axis, statement.index_count)
        if statement.op.startswith("vred"):
            return (result, *arguments, sum({1 << self.kernel.register_axis(name) for name in statement.dims}))
        if statement.op.startswith("vfold"):
            return (result, *arguments, mask(list(fold_loops)))
        return (result, *arguments)

    def _source(self, argument: str | float) -> Register | float:
        return argument if isinstance(argument, float) else self.register(argument)

    def _box(self, statement: Statement) -> Operand:
        if statement.access is None:
            raise InternalError(f"{statement.op} without an access", where=self.kernel.name)
        return self.nest.box(self.slots.number(statement.access.view), statement.access, self.tile, {})
