"""Builders of small networks, each of which every plan can work on."""

from __future__ import annotations

from graph_maker import GraphMaker

CONV = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}
POOL = {"kernel": (3, 3), "stride": (2, 2), "pads": (1, 1, 1, 1), "dilation": (1, 1)}


def image_classifier(make: GraphMaker) -> str:
    """Sixteen images through a stem, a pool, a residual block, depthwise and a classifier."""
    x = make.input(16, 3, 24, 24)
    stem = make("relu", make("conv2d", x, make.random(24, 3, 5, 5), **{**CONV, "stride": (2, 2)}))
    pooled = make("max_pool2d", stem, **POOL)
    inner = make("relu", make("conv2d", pooled, make.random(24, 24, 3, 3), make.random(24), **CONV))
    block = make("relu", make("add", make("conv2d", inner, make.random(24, 24, 3, 3), **CONV), pooled))
    deep = make("conv2d", block, make.random(24, 1, 3, 3), **{**CONV, "group": 24})
    mean = make("reduce_mean", make("sigmoid", deep), axes=(2, 3), keepdims=0)
    return make("softmax", make("matmul", mean, make.random(24, 10)), axis=1)


def shortcut(make: GraphMaker) -> str:
    """Sixteen images through a block whose shortcut is one product with its last convolution, and one more."""
    x = make.input(16, 32, 12, 12)
    half, point = {**CONV, "stride": (2, 2)}, {**CONV, "pads": (0, 0, 0, 0)}
    inner = make("relu", make("conv2d", x, make.random(16, 32, 3, 3), **half))
    strided = make("slice", x, starts=(0, 0, 0, 0), ends=(16, 32, 11, 11), steps=(1, 1, 2, 2))
    block = make("conv2d", make("concat", inner, strided, axis=1), make.random(48, 48, 1, 1), make.random(48), **point)
    return make("conv2d", make("relu", block), make.random(24, 48, 3, 3), **CONV)


def attention(make: GraphMaker) -> str:
    """Eight sequences through one attention block with a mask."""
    x, mask = make.input(8, 20, 48), make.input(8, 1, 1, 20)
    heads = []
    for _ in range(3):
        flat = make("matmul", x, make.random(48, 48))
        split = make("reshape", flat, shape=(8, 20, 3, 16))
        heads.append(make("transpose", split, perm=(0, 2, 1, 3)))
    query, key, value = heads
    scores = make("matmul", query, make("transpose", key, perm=(0, 1, 3, 2)))
    weights = make("softmax", make("add", make("mul", scores, make.constant(0.25)), mask), axis=3)
    mixed = make("transpose", make("matmul", weights, value), perm=(0, 2, 1, 3))
    joined = make("matmul", make("reshape", mixed, shape=(8, 20, 48)), make.random(48, 48))
    return make("layer_norm", make("add", joined, x), make.random(48), make.random(48), axis=2, epsilon=1e-5)


def movements(make: GraphMaker) -> str:
    """Thirty-two samples padded, sliced, joined and turned around."""
    x = make.input(32, 6, 10)
    padded = make("pad", x, pads=(0, 1, 0, 0, 0, 2), value=1.5)
    part = make("slice", padded, starts=(0, 1, 1), ends=(32, 7, 11), steps=(1, 1, 1))
    joined = make("concat", make("relu", part), x, axis=1)
    return make("neg", make("transpose", joined, perm=(0, 2, 1)))


def long_rows(make: GraphMaker) -> str:
    """Rows that do not fit into a tile, of sums over another long axis."""
    x = make.input(16, 4099)
    scaled = make("sub", x, make("reduce_max", x, axes=(1,), keepdims=1))
    return make("log_softmax", make("add", scaled, make.input(4099)), axis=1)


def few_rows(make: GraphMaker) -> str:
    """One row through wide products: dies share the weights, and exchange what they made of them."""
    x = make.input(1, 384)
    for _ in range(4):
        x = make("relu", make("matmul", x, make.random(384, 384)))
    return x


def wide_blocks(make: GraphMaker, blocks: int = 3, rows: int = 5) -> str:
    """Thirty-two samples through blocks that are wide inside: neither all weights nor all results fit on `tiny`."""
    x = make.input(32, rows, 16)
    for _ in range(blocks):
        wide = make("relu", make("matmul", x, make.random(16, 528, low=-0.2, high=0.2)))
        x = make("add", make("matmul", wide, make.random(528, 16, low=-0.2, high=0.2)), x)
    return x
