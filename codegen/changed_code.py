"""Finished code again, with every instruction changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from birc.runtime.program import Instruction, Loop

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
