"""What proofs know of a buffer: how its elements are told apart, over rounds, SPCs and the words of an element.

An element is four numbers: the round, the SPC, the word, the position in the buffer. Rounds count for buffers that
advance, SPCs for those in tensor buffers, of which every SPC has its own; words for buffers some of whose accesses
see halves of elements. Elsewhere these are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from birc.compiler.ir.affine import Range, below, constant, equal, scaled, total, value_at, variable, weighted
from birc.compiler.ir.plan import ExchangeStep, Index, Kernel, KernelStep, Plan, View
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.plan_verify_kernel import bounds
from birc.compiler.ir.polyhedra import Elements, example_point
from birc.runtime.dtypes import dtype

ROUND = "(round)"
WORD = "(word)"
_SHARE = "(spc)"
_AXIS = "(axis) "
_OTHER = "other "


@dataclass(frozen=True, slots=True)
class Storage:
    """A buffer without its name and place."""

    num_bytes: int
    dtype: str
    is_local: bool
    halved: bool
    rounds: int
    step_bytes: int
    spcs: int

    @property
    def element_bytes(self) -> int:
        """Bytes of one element."""
        return dtype(self.dtype).bits // 8

    @property
    def step(self) -> int:
        """Elements by which accesses move on from one round to the next."""
        return self.step_bytes // self.element_bytes

    @property
    def words(self) -> int:
        """Words of an element that are told apart."""
        return 2 if self.halved else 1

    def seen_words(self, view: View) -> tuple[int, int]:
        """The half-open range of the words that a view sees."""
        if not self.halved or not view.seen or dtype(view.seen).bits == dtype(self.dtype).bits:
            return 0, self.words
        return view.word, view.word + 1

    def seen_bytes(self, view: View) -> tuple[int, int]:
        """The first byte of an element that a view sees, and how many it sees."""
        seen = dtype(view.seen or self.dtype).bits // 8
        return view.word * seen, seen

    def elements(self, view: View, position: Index, spc: Index, conditions: Sequence[Range]) -> Elements:
        """The elements at the positions that a view's accesses have, in all rounds."""
        low, end = self.seen_words(view)
        moved = total(position, scaled(variable(ROUND), self.step))
        coordinates = (variable(ROUND), spc if self.is_local else constant(0), variable(WORD), moved)
        ranges = (Range(variable(ROUND), 0, self.rounds), Range(variable(WORD), low, end))
        return Elements.image((*conditions, *ranges), coordinates)

    def whole(self) -> Elements:
        """Every element, in every round."""
        return self._everywhere(variable(_AXIS), (Range(variable(_AXIS), 0, self.num_bytes // self.element_bytes),))

    def viewed(self, view: View) -> Elements:
        """The elements of a view, in every round; it does not move on."""
        coordinates, limits = view_coordinates(view)
        return self._everywhere(weighted(coordinates, view.strides, view.offset), limits, self.seen_words(view))

    def twice(self, view: View) -> int | None:
        """An element that is at two coordinates of a view; None when there is none."""
        one, limits = view_coordinates(view)
        other, other_limits = view_coordinates(view, _OTHER)
        position, again = (weighted(place, view.strides, view.offset) for place in (one, other))
        apart = [(below(first, second),) for first, second in zip(one, other, strict=True)]
        point = example_point((*limits, *other_limits, equal(position, again)), apart)
        return None if point is None else value_at(position, point)

    def _everywhere(
        self, position: Index, conditions: tuple[Range, ...], words: tuple[int, int] | None = None
    ) -> Elements:
        low, end = words or (0, self.words)
        ranges = (
            Range(variable(ROUND), 0, self.rounds),
            Range(variable(_SHARE), 0, self.spcs if self.is_local else 1),
            Range(variable(WORD), low, end),
        )
        return Elements.image((*conditions, *ranges), (*(item.value for item in ranges), position))


def view_coordinates(view: View, prefix: str = "") -> tuple[tuple[Index, ...], tuple[Range, ...]]:
    """A variable for each axis of a view, and its limits."""
    place = tuple(variable(f"{prefix}{_AXIS}{axis}") for axis in range(len(view.dims)))
    return place, tuple(Range(at, *limit) for at, limit in zip(place, bounds(view), strict=True))


def storages(plan: Plan, spcs: int) -> dict[str, Storage]:
    """What is known of every buffer of a plan by name, on a machine with so many SPCs a die."""
    advances = dict(plan.advances)
    halved = _halved(plan)
    return {
        buffer.name: Storage(
            buffer.num_bytes,
            buffer.dtype,
            buffer.space == "tb",
            buffer.name in halved,
            plan.repeat if advances.get(buffer.name) else 1,
            advances.get(buffer.name, 0),
            spcs,
        )
        for buffer in plan.buffers
    }


def _halved(plan: Plan) -> set[str]:
    """The buffers of which some access sees halves of elements."""
    bits = {buffer.name: dtype(buffer.dtype).bits for buffer in plan.buffers}
    views = [access.view for kernel in kernels_of(plan) for access in accesses(kernel)]
    views += [view for boundary in (*plan.inputs, *plan.outputs) for _, _, view in boundary.pieces]
    views += [e.view for step in plan.steps if isinstance(step, ExchangeStep) for e in step.exchanges]
    return {view.buffer for view in views if view.seen and dtype(view.seen).bits < bits[view.buffer]}


def kernels_of(plan: Plan) -> list[Kernel]:
    """Every kernel of a plan, each die's own."""
    steps = (step for step in plan.steps if isinstance(step, KernelStep))
    return [kernel for step in steps for kernel in step.kernels if kernel is not None]
