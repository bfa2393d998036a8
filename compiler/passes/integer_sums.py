"""How deep an integer product may be: its FP32 accumulator holds every integer up to 2^24, and no more.

With one operand known, the largest sum that any operand on the other side can make is known too; any part of a sum,
in any order, is at most that.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.ir.graph import Constant, Node
from birc.compiler.ir.types import TensorType

LARGEST_SUM: Final = 1 << 24
LARGEST_I8: Final = 128

_STEP: Final = 64
"""Pieces are whole multiples of this depth where that makes no more of them."""


def depth_costs(
    node: Node, a: TensorType, b: TensorType, known_a: Constant | None, known_b: Constant | None
) -> np.ndarray:
    """What each step of the depth can add to a sum, at most: [depth, sums].

    The depth of a matrix product are its terms, that of a convolution the channels of a group. The types of the
    operands are i8.
    """
    if node.op == "conv2d":
        return _channel_costs(b, known_b)
    if known_b is not None:
        return _magnitudes(np.moveaxis(np.asarray(known_b.data), -2, 0))
    if known_a is not None:
        return _magnitudes(np.moveaxis(np.asarray(known_a.data), -1, 0))
    return np.full((a.sizes[-1], 1), LARGEST_I8 * LARGEST_I8)


def _channel_costs(w: TensorType, known: Constant | None) -> np.ndarray:
    _, channels, rows, columns = w.sizes
    if known is None:
        return np.full((channels, 1), LARGEST_I8 * LARGEST_I8 * rows * columns)
    return np.abs(np.asarray(known.data, np.int64)).sum((2, 3)).T * LARGEST_I8


def _magnitudes(data: np.ndarray) -> np.ndarray:
    return np.abs(data.reshape(len(data), -1).astype(np.int32)) * LARGEST_I8


def largest_sum(costs: np.ndarray) -> int:
    """The largest sum over the whole depth."""
    return int(costs.sum(0, dtype=np.int64).max(initial=0))


def exact_pieces(costs: np.ndarray) -> list[tuple[int, int]] | None:
    """The depth in as few equal pieces (start, end) as have exact sums; None when a single step has not."""
    depth = len(costs)
    if int(costs.max(initial=0)) > LARGEST_SUM:
        return None
    count = max(1, -(-largest_sum(costs) // LARGEST_SUM))
    while True:
        size = -(-depth // count)
        rounded = -(-size // _STEP) * _STEP
        for step in (rounded, size):
            starts = np.arange(0, depth, step)
            if int(np.add.reduceat(costs, starts, 0, dtype=np.int64).max()) <= LARGEST_SUM:
                return [(int(start), min(int(start) + step, depth)) for start in starts]
        count += 1
