"""Loops whose length depends on outer loops, walked over their whole extent where that changes nothing.

An iteration beyond the limit changes nothing when all it stores lies out of bounds, and when what it adds to a
matrix product is zero because both tiles lie out of bounds. Otherwise the loops that the limit depends on are
stepped, which makes it a constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from birc.runtime.program import Descriptor
from birc.runtime.values.form import Access, Coordinate, LoopVariable, substitute
from birc.runtime.values.index_space import CannotRaiseError, IndexSpace
from birc.runtime.values.nest import Node


@dataclass(frozen=True, slots=True)
class Limit:
    """The loop `index` ends at `bound`; `loop` is one that `bound` depends on."""

    index: int
    bound: Coordinate
    loop: int


class Limits:
    """The limits of the loops walked so far."""

    __slots__ = ("_limits", "_space")

    def __init__(self, space: IndexSpace) -> None:
        self._space = space
        self._limits: dict[int, Limit] = {}

    def enter(self, index: int, node: Node, variables: tuple[LoopVariable, ...]) -> None:
        """Note a loop that is walked as `index`; `variables` are those around it."""
        if node.loop.limit is None:
            return
        bound = substitute(node.loop.limit, variables)
        low = bound.constant + sum(min(0, factor * (self._space.extent(other) - 1)) for other, factor in bound.terms)
        if low < self._space.extent(index):
            outer = next(v.loop for v in variables if v.index is not None and v.index == bound.terms[0][0])
            self._limits[index] = Limit(index, bound, outer)

    def check_store(self, access: Access, descriptor: Descriptor, loops: Iterable[int]) -> None:
        """A store in these loops must be out of bounds beyond their limits."""
        for limit in self._of(loops):
            if not self._beyond(access, descriptor, limit):
                raise CannotRaiseError("stores beyond a limit", limit.loop, ordinary=True)

    def check_product(
        self, tiles: Iterable[Access], descriptors: Mapping[int, Descriptor], over: Iterable[int]
    ) -> None:
        """Both tiles of a product summed over these loops must be zero beyond their limits."""
        accesses = tuple(tiles)
        for limit in self._of(over):
            for access in accesses:
                zero = access.fill == "zero" and self._beyond(access, descriptors[access.slot], limit)
                if not zero:
                    raise CannotRaiseError("multiplies beyond a limit", limit.loop, ordinary=True)

    def check_fold(self, over: Iterable[int]) -> None:
        """A fold over a limited loop has to leave iterations out."""
        for limit in self._of(over):
            raise CannotRaiseError("folds beyond a limit", limit.loop, ordinary=True)

    def check_pairs(self, pairs: Iterable[tuple[int, int]]) -> None:
        """A loop that writes no further than its limit must be read no further."""
        for written, read in pairs:
            for limit in self._of((written,)):
                other = self._limits.get(read)
                if other is None or other.bound != limit.bound:
                    raise CannotRaiseError("reads beyond a limit", limit.loop, ordinary=True)

    def _of(self, loops: Iterable[int]) -> list[Limit]:
        return [self._limits[index] for index in loops if index in self._limits]

    def _beyond(self, access: Access, descriptor: Descriptor, limit: Limit) -> bool:
        """Whether some coordinate is above its dimension in every iteration beyond the limit."""
        leaves = self._space.leaves(limit.index)
        if len(leaves) != 1:
            return False
        bounds = zip(descriptor.lower, descriptor.dims, strict=True)
        # A coordinate beyond the descriptor's own is the number of the SPC.
        pairs = zip(access.coordinates, bounds, strict=False)
        return any(
            self._least_beyond(coordinate, leaves[0], limit.bound) >= low + dim
            for coordinate, (low, dim) in pairs
            if dict(self._leaf_terms(coordinate)).get(leaves[0], 0) > 0
        )

    def _least_beyond(self, coordinate: Coordinate, index: int, bound: Coordinate) -> int:
        """The least value of a coordinate that grows with `index`, from the iteration `bound` on."""
        factors = dict(self._leaf_terms(coordinate))
        growth = factors.pop(index)
        for other, factor in self._leaf_terms(bound):
            factors[other] = factors.get(other, 0) + growth * factor
        low = coordinate.constant + growth * bound.constant
        return low + sum(min(0, factor * (self._space.extent(other) - 1)) for other, factor in factors.items())

    def _leaf_terms(self, coordinate: Coordinate) -> list[tuple[int, int]]:
        return [term for index, factor in coordinate.terms for term in self._space.terms(index, factor)]
