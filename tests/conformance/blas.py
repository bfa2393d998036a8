"""What a case needs of the computer's BLAS, with which the values engine multiplies."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

TELLS_EQUAL_SUMS_APART: Final = frozenset({"test_squeezenet"})
"""Cases whose results are decided by the last bits of sums that are equal on the device.

The logits of that network, whose weights are all alike, are 9.5e9 each; a softmax of numbers of which some are a unit
in the last place larger is all theirs.
"""


@cache
def keeps_equal_sums() -> bool:
    """Whether products of equal columns come out equal, wherever they stand in a matrix.

    OpenBLAS has kernels that add at the edges of a block in another order (those for AMD's Zen and Intel's Haswell).
    """
    generator = np.random.default_rng(0)
    left, column = generator.random((64, 512), np.float32), generator.random((512, 1), np.float32)
    product = left @ np.ascontiguousarray(np.broadcast_to(column, (512, 1000)))
    return bool((product == product[:, :1]).all())
