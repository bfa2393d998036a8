"""Whether two views may have elements in common, as far as the verifier of streams can tell."""

from __future__ import annotations

from birc.compiler.ir.plan import View
from birc.runtime.program import Descriptor
from birc.runtime.verifier.boxes import overlaps, whole_view


def may_meet(one: View, other: View) -> bool:
    """Whether it cannot tell two views apart by their coordinates, as it cannot where the strides differ."""
    if one.buffer != other.buffer:
        return False
    if one.strides != other.strides:
        return True
    left, right = (Descriptor("l2", v.offset, "u8", v.dims or (1,), v.strides or (1,), v.lower) for v in (one, other))
    return bool(overlaps(left, whole_view(left), right, whole_view(right)).any())
