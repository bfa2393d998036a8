"""The steps in which a product goes through its depth: an operation on a tile of each operand at each."""

from __future__ import annotations

import math
from collections.abc import Iterable

from birc.compiler.ir.plan import Dimension, Kernel, Tiling


def depth_steps(kernel: Kernel, tiling: Tiling) -> int:
    """The steps of the whole depth."""
    return _steps(kernel.red_dims, tiling)


def resident_steps(kernel: Kernel, tiling: Tiling) -> int:
    """The steps of the depth that is resident: its innermost loops, whose tiles stay in the input buffers together."""
    return _steps(kernel.red_dims[len(kernel.red_dims) - tiling.resident :], tiling)


def _steps(dimensions: Iterable[Dimension], tiling: Tiling) -> int:
    tile = dict(tiling.tile)
    return math.prod(-(-d.extent // tile.get(d.name, 1)) for d in dimensions)
