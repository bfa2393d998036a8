"""Random instructions, kernels and programs from the table, for property tests and fuzzing.

What is sampled is valid in form: every operand is within its field's range. It is not meant to be executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from birc.runtime.dtypes import DTYPES
from birc.runtime.field_ranges import I64, MAX_COMMAND_LOOP_DEPTH, U8, U16, U32, U64, Range, number_range
from birc.runtime.isa import COMMANDS, INSTRUCTIONS, Field, InstructionRow
from birc.runtime.program import (
    FILLS,
    LOOP_KINDS,
    LOOP_LEVELS,
    MAPPINGS,
    MAX_BOX_RANK,
    MAX_LOOP_DEPTH,
    MULTICAST_MODES,
    SPACES,
    Affine,
    Axis,
    Box,
    Command,
    CommandLoop,
    ConstantImage,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    Operand,
    Piece,
    Port,
    Program,
    Register,
    RingAddress,
    Sync,
    Window,
    affine,
)

_IMMEDIATES: Final = (0.0, -0.0, 1.0, 0.1, 1e-45, np.finfo(np.float32).max, np.inf, -np.inf)
_LETTERS: Final = tuple('abz"\\ ;\u00e9\u6771\n')


_DRAWS_AT_ONCE: Final = 4096


class Sampler:
    """Draws from a seeded generator; `descriptors` and `kernels` are the lengths of the program's tables."""

    __slots__ = ("_draws", "_rng", "descriptors", "kernels")

    def __init__(self, rng: np.random.Generator, descriptors: int = 8, kernels: int = 4) -> None:
        self._rng = rng
        self._draws: Iterator[int] = iter(())
        self.descriptors = descriptors
        self.kernels = kernels

    def instruction(self, row: InstructionRow | None = None) -> Instruction:
        """An instruction of the given row, or of any."""
        chosen = row or INSTRUCTIONS[self._below(len(INSTRUCTIONS))]
        return Instruction(
            chosen.mnemonic,
            self._operands(chosen),
            self._several(self.sync, 3),
            self._several(self.sync, 3),
            self.number(U8) if chosen.engine == "vector" else 0,
        )

    def command(self, row: InstructionRow | None = None) -> Command:
        """A command of the given row, or of any."""
        chosen = row or COMMANDS[self._below(len(COMMANDS))]
        return Command(chosen.mnemonic, self._operands(chosen), self.number(U32), self._below(2) == 1)

    def kernel(self) -> Kernel:
        """A kernel of a few nests, some of them deep."""
        nests = self._several(lambda: self._nest(0), 3)
        semaphores = self._several(lambda: self.number(U32), 4)
        return Kernel(self.text(), nests, semaphores, self._of(MULTICAST_MODES))

    def program(self) -> Program:
        """A program; its commands refer to descriptors and kernels that it has."""
        descriptors = self._several(self.descriptor, 6, at_least=1)
        kernels = self._several(self.kernel, 3, at_least=1)
        inside = Sampler(self._rng, len(descriptors), len(kernels))
        return Program(
            name=self.text(),
            machine=self.text(),
            machine_digest=self.text(),
            dies=self.number(U8),
            l2_bytes=self.number(U64),
            tensor_buffer_bytes=self.number(U64),
            hbm_bytes=self.number(U64),
            descriptors=descriptors,
            kernels=kernels,
            commands=self._several(lambda: inside._command_item(0), 5),
            inputs=self._several(inside.port, 3),
            outputs=self._several(inside.port, 3),
            constants=self._several(self.constant, 3),
            useful_macs=self.number(U64),
        )

    def descriptor(self) -> Descriptor:
        rank = self._below(MAX_BOX_RANK + 1)
        return Descriptor(
            self._of(SPACES),
            self.number(U64),
            self._of(DTYPES).name,
            self._numbers(U64, rank),
            self._numbers(I64, rank),
            self._numbers(I64, rank) if self._below(2) else (),
            self._of(MAPPINGS),
        )

    def port(self) -> Port:
        rank = self._below(5)
        pieces = self._several(lambda: self._piece(rank), 3)
        return Port(self.text(), self._of(DTYPES).name, self._numbers(U64, rank), pieces)

    def constant(self) -> ConstantImage:
        return ConstantImage(self.text(), self.number(U64), self.number(U64), self.number(U32))

    def affine(self) -> Affine:
        """An affine expression, mostly of a few variables."""
        depths = {self._below(MAX_LOOP_DEPTH) for _ in range(self._below(4))}
        return affine(self.number(I64), {depth: self.number(I64) for depth in depths})

    def sync(self) -> Sync:
        return Sync(self.affine(), *self._numbers((0, 1 << MAX_LOOP_DEPTH), 2))

    def box(self) -> Box:
        axes = self._several(
            lambda: Axis(self.affine(), self.number(U32), self._of((1, 1, 2, -1, -(1 << 31)))), MAX_BOX_RANK
        )
        return Box(self.number(U16), axes, self._of(FILLS))

    def ring(self) -> RingAddress:
        if self._below(2):
            return RingAddress(self.affine())
        return RingAddress(self.affine(), self.number(I64), self.affine(), self.number((1, 1 << 32)))

    def window(self) -> Window:
        return Window(self.affine(), self.affine(), *self._numbers(U16, 3))

    def immediate(self) -> float:
        """A 32-bit float, often a round or an extreme one."""
        if self._below(2):
            return float(np.float32(self._of(_IMMEDIATES)))
        value = np.uint32(self._below(1 << 32)).view(np.float32)
        return 0.5 if np.isnan(value) else float(value)

    def text(self) -> str:
        """A short text with characters that need an escape."""
        return "".join(self._of(_LETTERS) for _ in range(self._below(8)))

    def number(self, limits: Range) -> int:
        """A number of any magnitude within half-open limits, often one of the ends."""
        low, high = limits
        match self._below(4):
            case 0:
                return self._of((low, high - 1))
            case 1:
                return max(low, min(high - 1, self._below(300)))
        magnitude = self._below(1 << self._below((high - low).bit_length()))
        return min(high - 1, max(low, -magnitude if low < 0 and self._below(2) else magnitude))

    def _operands(self, row: InstructionRow) -> tuple[Operand, ...]:
        return tuple(KINDS[field.kind](self, field) for field in row.fields)

    def _nest(self, depth: int) -> Loop | Instruction:
        if depth == MAX_LOOP_DEPTH or self._below(3) == 0:
            return self.instruction()
        body = self._several(lambda: self._nest(depth + 1), 3)
        limit = None if self._below(2) else self.affine()
        return Loop(self._of(LOOP_KINDS), self.number(U32), body, self._of(LOOP_LEVELS), limit)

    def _command_item(self, depth: int) -> Command | CommandLoop:
        if depth == MAX_COMMAND_LOOP_DEPTH or self._below(3):
            return self.command()
        return CommandLoop(self.number(U32), self._several(lambda: self._command_item(depth + 1), 3))

    def _piece(self, rank: int) -> Piece:
        dies, descriptor = self.number(U32), self._below(self.descriptors)
        return Piece(dies, descriptor, self._numbers(I64, rank), self._numbers(U64, rank))

    def _below(self, end: int) -> int:
        draw = next(self._draws, None)
        if draw is None:
            self._draws = iter(self._rng.integers(1 << 64, size=_DRAWS_AT_ONCE, dtype=np.uint64).tolist())
            draw = next(self._draws)
        return draw % end

    def _of(self, words: tuple[Any, ...]) -> Any:
        return words[self._below(len(words))]

    def _numbers(self, limits: Range, count: int) -> tuple[int, ...]:
        return tuple(self.number(limits) for _ in range(count))

    def _several(self, draw: Callable[[], Any], at_most: int, at_least: int = 0) -> tuple[Any, ...]:
        return tuple(draw() for _ in range(at_least + self._below(at_most - at_least + 1)))


def _number(sampler: Sampler, field: Field) -> int:
    return sampler.number(number_range(field))


KINDS: Final[Mapping[str, Callable[[Sampler, Field], Operand]]] = MappingProxyType(
    {
        **dict.fromkeys(("u8", "u16", "u32", "u64", "i32"), _number),
        "f32": lambda sampler, _: sampler.immediate(),
        "enum": lambda sampler, field: sampler._of(field.choices),
        "mask": lambda sampler, _: sampler.number((0, 1 << MAX_LOOP_DEPTH)),
        "shape": lambda sampler, _: sampler._several(lambda: sampler.number(U32), MAX_BOX_RANK),
        "descriptor": lambda sampler, _: sampler._below(sampler.descriptors),
        "kernel": lambda sampler, _: sampler._below(sampler.kernels),
        "text": lambda sampler, _: sampler.text(),
        "register": lambda sampler, _: Register(sampler.affine()),
        "source": lambda sampler, _: sampler.immediate() if sampler._below(2) else Register(sampler.affine()),
        "box": lambda sampler, _: sampler.box(),
        "ring": lambda sampler, _: sampler.ring(),
        "window": lambda sampler, _: sampler.window(),
        "advance": lambda sampler, _: sampler._several(lambda: sampler.number(I64), MAX_COMMAND_LOOP_DEPTH),
    }
)
