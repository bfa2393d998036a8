"""Random small graphs for property tests: valid by construction, over many rows of the operator table."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from birc.compiler.ir.edit import GraphEditor
from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.graph import Constant, Graph, Value
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype

_SHAPES = ((), (3,), (2, 3), (3, 3), (1, 3), (2, 1, 3), (1, 2, 4, 4))
_UNARY = ("neg", "abs", "exp", "tanh", "sigmoid", "erf", "relu", "floor", "silu", "sign", "softplus")
_BINARY = ("add", "sub", "mul", "maximum", "minimum")
_CONV = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}
_POOL = {"kernel": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0), "dilation": (1, 1)}


@st.composite
def graphs(draw: st.DrawFn, max_nodes: int = 8) -> Graph:
    """A valid graph of float32 values: one to three inputs, some constants, an ONNX name a node."""
    shapes = draw(st.lists(st.sampled_from(_SHAPES), min_size=1, max_size=3))
    inputs = tuple(Value(f"x{at}", TensorType(dtype("f32"), shape)) for at, shape in enumerate(shapes))
    editor = GraphEditor(Graph("random", inputs, (), ()), "random")
    values = [value.name for value in inputs]
    for at in range(draw(st.integers(1, max_nodes))):
        values.append(_node(draw, editor, values, f"onnx{at}"))
    editor.outputs = draw(st.lists(st.sampled_from(values[len(inputs) :]), min_size=1, unique=True))
    return editor.finish()


def _node(draw: st.DrawFn, editor: GraphEditor, values: list[str], source: str) -> str:
    """One more node over what is there; when the drawn op does not take the drawn values, their negation."""
    x = draw(st.sampled_from(values))
    kind = draw(st.sampled_from(("unary", "binary", "constant", "matmul", "axis", "view", "picture")))
    try:
        return _of_kind(draw, editor, kind, x, values, source)
    except TypeRuleError:
        return editor.add("neg", [x], sources=(source,))


def _of_kind(draw: st.DrawFn, editor: GraphEditor, kind: str, x: str, values: list[str], source: str) -> str:
    shape = editor.type_of(x).sizes
    sources = (source,)
    if kind == "unary":
        return editor.add(draw(st.sampled_from(_UNARY)), [x], sources=sources)
    if kind == "binary":
        other = draw(st.sampled_from(values))
        return editor.add(draw(st.sampled_from(_BINARY)), [x, other], sources=sources)
    if kind == "constant":
        return editor.add("mul", [x, editor.add_constant(_constant(draw, shape))], sources=sources)
    if kind == "matmul":
        return editor.add("matmul", [x, draw(st.sampled_from(values))], sources=sources)
    if kind == "axis" and shape:
        axis = draw(st.integers(0, len(shape) - 1))
        if draw(st.booleans()):
            return editor.add("softmax", [x], {"axis": axis}, sources=sources)
        keepdims = draw(st.integers(0, 1))
        return editor.add("reduce_sum", [x], {"axes": (axis,), "keepdims": keepdims}, sources=sources)
    if kind == "view":
        if draw(st.booleans()):
            size = int(np.prod(shape))
            return editor.add("reshape", [x], {"shape": (size, 1)}, sources=sources)
        return editor.add("transpose", [x], {"perm": tuple(range(len(shape)))[::-1]}, sources=sources)
    if kind == "picture" and len(shape) == 4:
        if draw(st.booleans()):
            return editor.add("max_pool2d", [x], _POOL, sources=sources)
        w = editor.add_constant(_random((2, shape[1], 3, 3), draw(st.integers(0, 99))), "w")
        return editor.add("conv2d", [x, w], _CONV, sources=sources)
    raise TypeRuleError(f"no op of kind {kind} takes {shape}")


def _constant(draw: st.DrawFn, shape: tuple[int, ...]) -> Constant:
    if draw(st.booleans()):
        return Constant.splat(draw(st.floats(width=32)), TensorType(dtype("f32"), shape))
    return Constant.of(_random(shape, draw(st.integers(0, 99))))


def _random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), np.float32)
