"""The indices of a raised kernel: loops and tile axes, and which of them are the same index.

A loop that becomes an array axis is one index, an axis of a tile another. Instructions tie them together: the
sum of two registers makes their axes equal, a tile read in another loop than it was written in makes the two
loops equal, and an accumulator seen with another shape cuts an axis into factors.
"""

from __future__ import annotations

from collections.abc import Iterable


class CannotRaiseError(Exception):
    """A form that has no whole-array equivalent; never leaves the engine.

    `loop` is the static loop whose iterations have to be taken one by one, None when that does not help.
    `ordinary` says that this is how such a loop is meant (a length that depends on an outer loop).
    """

    def __init__(self, reason: str, loop: int | None = None, *, ordinary: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.loop = loop
        self.ordinary = ordinary


class IndexSpace:
    """Indices by number, each with an extent; equal ones are united, and one may be cut into factors."""

    __slots__ = ("_extents", "_factors", "_parents")

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._extents: list[int] = []
        self._factors: dict[int, tuple[int, int]] = {}  # of a root: (outer, inner)

    def new(self, extent: int) -> int:
        """Another index."""
        self._parents.append(len(self._parents))
        self._extents.append(extent)
        return len(self._parents) - 1

    def extent(self, index: int) -> int:
        return self._extents[index]

    def leaves(self, index: int) -> tuple[int, ...]:
        """The uncut indices that an index consists of, outermost first; none for extent 1."""
        root = self._root(index)
        if self._extents[root] == 1:
            return ()
        if root not in self._factors:
            return (root,)
        outer, inner = self._factors[root]
        return self.leaves(outer) + self.leaves(inner)

    def terms(self, index: int, coefficient: int) -> list[tuple[int, int]]:
        """`coefficient * index` as terms of its leaves."""
        result = []
        for leaf in reversed(self.leaves(index)):
            result.append((leaf, coefficient))
            coefficient *= self._extents[leaf]
        return result

    def unite(self, left: Iterable[int], right: Iterable[int]) -> None:
        """Make two sequences of indices equal, each read as one index in row-major order.

        Cuts indices where the sequences differ. Raises `CannotRaiseError` when the extents have no common
        factors.
        """
        pending_left = [leaf for index in left for leaf in self.leaves(index)]
        pending_right = [leaf for index in right for leaf in self.leaves(index)]
        while pending_left and pending_right:
            a, b = self._root(pending_left.pop()), self._root(pending_right.pop())
            if a in self._factors or b in self._factors:
                pending_left.extend(self.leaves(a))
                pending_right.extend(self.leaves(b))
            elif self._extents[a] == self._extents[b]:
                self._parents[a] = b
            elif self._extents[a] > self._extents[b]:
                self._cut(a, b)
                pending_left.extend(self.leaves(a))
                pending_right.append(b)
            else:
                self._cut(b, a)
                pending_right.extend(self.leaves(b))
                pending_left.append(a)
        if pending_left or pending_right:
            raise CannotRaiseError("two shapes of different size are one tile")

    def _cut(self, index: int, inner: int) -> None:
        """Cut a root so that its inner factor has the extent of `inner`."""
        extent, inner_extent = self._extents[index], self._extents[inner]
        if extent % inner_extent:
            raise CannotRaiseError(f"extents {extent} and {inner_extent} have no common factors")
        self._factors[index] = (self.new(extent // inner_extent), self.new(inner_extent))

    def _root(self, index: int) -> int:
        while self._parents[index] != index:
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index
