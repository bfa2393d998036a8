"""Plans the matrix products of a part: which axes are rows, columns and depth, how operands are packed."""

from __future__ import annotations

from typing import Protocol

from birc.runtime.values.axes import Part
from birc.runtime.values.boxes import BoxView
from birc.runtime.values.contraction import Multiplying, Packing, Shared, arrange
from birc.runtime.values.form import Access, Product, Tile
from birc.runtime.values.frame import Region

Positions = tuple[int, ...]


class Scheduler(Protocol):
    """What planning needs of the schedule of the part."""

    conflict: bool
    whole: Region
    places: Positions  # the dimensions of the axes
    constants: frozenset[int]  # slots

    def positions(self, axes: set[int]) -> frozenset[int]:
        """The positions of axes in the order."""

    def box(self, access: Access) -> BoxView:
        """The view of an access."""

    def new_buffer(self) -> int:
        """A buffer that no value alive uses."""


class ProductPlanner:
    """Plans products one by one; collects the operands that are packed before the blocks in `shared`."""

    __slots__ = ("_lengths", "_part", "_schedule", "shared")

    def __init__(self, part: Part, schedule: Scheduler, lengths: dict[int, int]) -> None:
        """`lengths` are those of the blocks, by the positions of the axes that are cut."""
        self._part = part
        self._schedule = schedule
        self._lengths = lengths
        self.shared: list[Packing] = []

    def plan(self, product: Product) -> Multiplying:
        """The plan of a product."""
        positions = self._schedule.positions
        a, b = (positions(self._part.axes_of_tile(tile)) for tile in (product.a, product.b))
        over = positions(self._part.summed(product))
        batch = tuple(sorted((a & b) - over))
        rows, columns = tuple(sorted(a - b - over)), tuple(sorted(b - a - over))
        depth, repeats = over & (a | b), tuple(sorted(over - a - b))
        a_box, b_box = self._schedule.box(product.a.access), self._schedule.box(product.b.access)
        ordered = _depth_order(b_box, depth)
        a_packing = self._packing(product.a, a_box, batch, rows, ordered)
        b_packing = self._packing(product.b, b_box, batch, columns, ordered)
        return Multiplying(
            self._shared(a_packing),
            self._shared(b_packing),
            batch,
            rows,
            columns,
            ordered,
            repeats,
        )

    def _packing(self, tile: Tile, box: BoxView, batch: Positions, side: Positions, depth: Positions) -> Packing:
        depth_inside = arrange(box, side, depth)
        outer, inner = (side, depth) if depth_inside else (depth, side)
        new_buffer = self._schedule.new_buffer
        return Packing(
            box, tile.format, batch, outer, inner, depth_inside, self._schedule.places, new_buffer(), new_buffer()
        )

    def _shared(self, packing: Packing) -> Packing | Shared:
        """The operand packed before the blocks, if each would pack the same, or if it is constant."""
        schedule = self._schedule
        constant = packing.box.slot in schedule.constants
        if schedule.conflict and not constant:
            return packing
        groups = (packing.batch, packing.outer, packing.inner)
        cut_axes = {position for position in self._lengths if any(position in group for group in groups)}
        outermost = {group[0] for group in groups if group}
        again = len(cut_axes) < len(self._lengths)
        if not (constant or again) or not cut_axes <= outermost:
            return packing
        self.shared.append(packing)
        return Shared(len(self.shared) - 1, packing, schedule.whole)


def _depth_order(b: BoxView, depth: frozenset[int]) -> Positions:
    """The axes of the depth as they lie in the second operand, which is the one that is larger in networks."""
    return tuple(sorted(depth, key=lambda position: (-abs(b.step_bytes(position)), position)))
