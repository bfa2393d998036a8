"""Finished code again, with every instruction changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from birc.runtime.program import (
    Affine,
    Axis,
    Box,
    Instruction,
    Loop,
    Operand,
    Register,
    RingAddress,
    Window,
)

Item = Loop | Instruction
Around = tuple[Loop, ...]
"""The loops around an instruction, outermost first."""


def changed(nests: Sequence[Item], change: Callable[[Instruction, Around], Instruction]) -> list[Item]:
    """The code with every instruction changed, in the order of the text."""

    def of(item: Item, around: Around) -> Item:
        if isinstance(item, Loop):
            return replace(item, body=tuple(of(inner, (*around, item)) for inner in item.body))
        return change(item, around)

    return [of(item, ()) for item in nests]


def numbered(operand: Operand, number: Callable[[Affine], Affine]) -> Operand:
    """An operand with every number that moves with loops changed."""
    match operand:
        case Register(at):
            return Register(number(at))
        case Box(slot, axes, fill):
            return Box(slot, tuple(Axis(number(a.start), a.extent, a.step) for a in axes), fill)
        case RingAddress(base, stride, index, modulo):
            return RingAddress(number(base), stride, number(index), modulo)
        case Window():
            return replace(operand, top=number(operand.top), left=number(operand.left))
    return operand
