"""Blocks of products and depthwise convolutions whose values are small integers, exact in every format.

graph = network(blocks=3, samples=4)
expected(pixels, blocks=3)
"""

from __future__ import annotations

import numpy as np
from graph_maker import GraphMaker

from birc.compiler.ir.graph import Graph

WIDTH, SIDE, MOST = 16, 6, 6.0


def weights(block: int) -> tuple[np.ndarray, np.ndarray]:
    """Those of a block, small integers: a product over the channels, and a window on each."""
    generator = np.random.default_rng(block)
    product = generator.integers(-1, 2, (WIDTH, WIDTH, 1, 1))
    return product.astype(np.float32), generator.integers(-1, 2, (WIDTH, 1, 3, 3)).astype(np.float32)


def network(blocks: int, samples: int) -> Graph:
    """Blocks of a product and a depthwise convolution, both clamped: every value is an integer of a few bits."""
    make = GraphMaker()
    x = make.input(samples, WIDTH, SIDE, SIDE)
    common = {"stride": (1, 1), "dilation": (1, 1)}
    for block in range(blocks):
        product, window = weights(block)
        for filters, pad, group in ((product, 0, 1), (window, 1, WIDTH)):
            x = make("conv2d", x, make.constant(filters), pads=(pad,) * 4, group=group, **common)
            x = make("clip", x, minimum=0.0, maximum=MOST)
    return make.graph(x)


def expected(x: np.ndarray, blocks: int) -> np.ndarray:
    """The same in double precision."""
    x = x.astype(np.float64)
    for block in range(blocks):
        product, window = weights(block)
        x = np.clip(np.einsum("ncyx,oc->noyx", x, product[:, :, 0, 0]), 0, MOST)
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        taps = [
            padded[:, :, r : r + SIDE, s : s + SIDE] * window[:, 0, r, s][:, None, None]
            for r in range(3)
            for s in range(3)
        ]
        x = np.clip(np.sum(taps, axis=0), 0, MOST)
    return x


def pixels_of(samples: int) -> np.ndarray:
    """Images for the network."""
    return np.random.default_rng(9).integers(-2, 3, (samples, WIDTH, SIDE, SIDE)).astype(np.float32)
