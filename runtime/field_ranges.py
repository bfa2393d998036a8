"""The limits of the numbers that instruction fields can hold."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from birc.runtime.isa import Field
from birc.runtime.program import MAX_LOOP_DEPTH

Range = tuple[int, int]  # half open

MAX_COMMAND_LOOP_DEPTH: Final = 4

U8: Final[Range] = (0, 1 << 8)
U16: Final[Range] = (0, 1 << 16)
U32: Final[Range] = (0, 1 << 32)
U64: Final[Range] = (0, 1 << 64)
I32: Final[Range] = (-(1 << 31), 1 << 31)
I64: Final[Range] = (-(1 << 63), 1 << 63)
LOOP_MASK: Final[Range] = (0, 1 << MAX_LOOP_DEPTH)

NUMBER_KINDS: Final = MappingProxyType({"u8": U8, "u16": U16, "u32": U32, "u64": U64, "i32": I32})


def number_range(field: Field) -> Range:
    """The half-open range of a number field: that of its kind, cut to the field's own bounds."""
    low, high = NUMBER_KINDS[field.kind]
    return (low if field.low is None else field.low, high if field.high is None else field.high)
