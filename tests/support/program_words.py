"""Short words for the parts of a program, to write one by hand."""

from __future__ import annotations

from birc.runtime.program import (
    Affine,
    Axis,
    Box,
    Command,
    Instruction,
    Loop,
    Operand,
    Register,
    Sync,
    affine,
)

Term = Affine | int


def i(depth: int, factor: int = 1) -> Affine:
    """`factor` times the loop variable at `depth`."""
    return affine(0, {depth: factor})


def as_affine(value: Term) -> Affine:
    return value if isinstance(value, Affine) else Affine(value)


def box(slot: int, *axes: tuple[Term, int] | tuple[Term, int, int], fill: str = "zero") -> Box:
    """A box of (start, extent) or (start, extent, step) axes."""
    return Box(slot, tuple(Axis(as_affine(axis[0]), *axis[1:]) for axis in axes), fill)


def v(number: Term) -> Register:
    return Register(as_affine(number))


def op(
    mnemonic: str,
    *operands: Operand,
    waits: tuple[Sync, ...] = (),
    posts: tuple[Sync, ...] = (),
    program: int = 0,
) -> Instruction:
    return Instruction(mnemonic, operands, waits, posts, program)


def sync(semaphore: Term, first: int = 0, last: int = 0) -> Sync:
    return Sync(as_affine(semaphore), first, last)


def par(extent: int, *body: Loop | Instruction, level: str = "tile", limit: Affine | None = None) -> Loop:
    return Loop("par", extent, body, level, limit)


def red(extent: int, *body: Loop | Instruction, limit: Affine | None = None) -> Loop:
    return Loop("red", extent, body, limit=limit)


def command(mnemonic: str, *operands: Operand, dies: int = 1) -> Command:
    return Command(mnemonic, operands, dies)


def row_major(dims: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a dense tensor whose last axis is contiguous."""
    strides = [1]
    for dim in reversed(dims[1:]):
        strides.insert(0, strides[0] * dim)
    return tuple(strides)[: len(dims)]
