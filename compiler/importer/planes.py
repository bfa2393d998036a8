"""Windows over any number of spatial dimensions, as windows over the planes of pictures, one after the other.

The largest element and the mean of a box are those of the largest elements and the means of its layers: a window over
many dimensions is one over the last two, then one over each dimension before them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from birc.compiler.importer.window import Sizes, Window
from birc.compiler.ir.attributes import AttributeValue


@dataclass(frozen=True, slots=True)
class Plane:
    """One step: the input seen as the picture `shape`, and the spatial dimensions that are its rows and columns.

    None: that dimension of the picture is not a spatial one, and the window does not reach along it.
    """

    shape: tuple[int, int, int, int]
    row: int | None
    column: int | None

    def attributes(self, window: Window) -> dict[str, AttributeValue]:
        """What the window is to the core rows of pools: kernel, stride, dilation, pads."""
        return {
            "kernel": self._both(window.kernel, 1),
            "stride": self._both(window.stride, 1),
            "dilation": self._both(window.dilation, 1),
            "pads": self.pads(window),
        }

    def pads(self, window: Window) -> Sizes:
        """The padding of the plane: top, left, bottom, right."""
        return (*self._both(window.begins, 0), *self._both(window.ends, 0))

    def _both(self, sizes: Sizes, other: int) -> tuple[int, int]:
        row = other if self.row is None else sizes[self.row]
        return row, other if self.column is None else sizes[self.column]


def planes(shape: Sizes, window: Window) -> tuple[Plane, ...]:
    """The steps for an input of `shape` (batch, channels, then the spatial dimensions); at least one."""
    batch, channels, *spatial = shape
    results = window.results(tuple(spatial))
    if len(spatial) == 1:
        return (Plane((batch, channels, 1, spatial[0]), None, 0),)
    last = len(spatial) - 1
    outer = channels * math.prod(spatial[: last - 1])
    steps = [Plane((batch, outer, spatial[last - 1], spatial[last]), last - 1, last)]
    for place in reversed(range(last - 1)):
        outer = channels * math.prod(spatial[:place])
        steps.append(Plane((batch, outer, spatial[place], math.prod(results[place + 1 :])), place, None))
    return tuple(steps)
