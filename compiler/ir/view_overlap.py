"""Whether two views of a buffer may have elements in common, as far as the verifier of streams can tell."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from birc.compiler.ir.found_once import found_once
from birc.compiler.ir.plan import View
from birc.runtime.program import Descriptor
from birc.runtime.verifier.boxes import overlaps, whole_view


@dataclass(frozen=True, slots=True)
class ViewOverlap:
    """Answers, each found once for views that are as far apart."""

    _known: dict[Hashable, bool] = field(default_factory=dict)

    def may_overlap(self, one: View, other: View) -> bool:
        """Of views as wholes."""
        if one.buffer != other.buffer:
            return False
        key = one.dims, one.strides, one.lower, other.dims, other.strides, other.lower, other.offset - one.offset
        return found_once(self._known, key, lambda: _overlap(one, other))

    def may_meet(self, one: View, other: View) -> bool:
        """Of what SPCs touch of the views, which it cannot tell apart where the strides differ."""
        return one.buffer == other.buffer and (one.strides != other.strides or self.may_overlap(one, other))


def _overlap(one: View, other: View) -> bool:
    left, right = (Descriptor("l2", v.offset, "u8", v.dims or (1,), v.strides or (1,), v.lower) for v in (one, other))
    return bool(overlaps(left, whole_view(left), right, whole_view(right)).any())
