"""Why two nodes of which one reads the other's value are computed by different kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The kinds of refusals, the permanent ones first."""

    VIEW = "view"
    MOVEMENT = "movement"
    OWN_ANCHOR = "own-anchor"
    PARAMETER = "parameter"
    FOLLOWS = "follows"
    REDUCTION = "reduction"
    ANCHORS = "anchors"
    GIVEN_OUT = "given-out"
    READERS = "readers"
    NOT_LAST = "not-last"
    SHAPES = "shapes"
    WRAPS = "wraps"
    WIDE = "wide"
    FULL = "full"
    UNREAD = "unread"
    OTHER_TENSORS = "other-tensors"
    BEFORE_SOFTMAX = "before-softmax"
    SOFTMAX_AXIS = "softmax-axis"
    UNEVEN_TILES = "uneven-tiles"
    REGISTERS = "registers"
    INPUT_BUFFER = "input-buffer"
    APART = "apart"

    @property
    def is_permanent(self) -> bool:
        """Whether nodes of these kinds never share a kernel, whatever the rest of the graph is: no near miss."""
        return self in _PERMANENT


_PERMANENT = frozenset({Reason.VIEW, Reason.MOVEMENT, Reason.OWN_ANCHOR, Reason.PARAMETER, Reason.FOLLOWS})

OF_PLANS = frozenset({Reason.FOLLOWS, Reason.APART})
"""Kinds that a plan decides about, not fusion."""

MOST_LISTED = 4
"""Names in a list; of more the number is told."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node does not join the kernel that makes its operand: the kind, and words with the figures concerned."""

    reason: Reason
    words: str

    def __str__(self) -> str:
        return self.words


def listed(names: Sequence[str]) -> str:
    """`%a, %b`; of more than a few names the first, and how many there are besides."""
    shown = ", ".join(f"%{name}" for name in names[:MOST_LISTED])
    rest = len(names) - MOST_LISTED
    return f"{shown} and {rest:,} more" if rest > 0 else shown
