"""Nodes of the operator sets before 7, in the form that operator set 7 gives them.

What changed is stated in ONNX's Changelog.md. The lowerings, which know operator set 7 and newer, see the new form
only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import onnx

from birc.compiler.importer.axes import integers_of, positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.onnx_node import CannotLower, OnnxAttribute, OnnxNode, decode_attributes
from birc.compiler.importer.shape import reshape
from birc.runtime.errors import BadModelError

MODERN: Final = 7
"""The first operator set with numpy's broadcasting, and the oldest that lowerings know."""

_DROPPED: Final = ("consumed_inputs",)
_OLD_SELU: Final = {"alpha": 1.6732, "gamma": 1.0507}
_MODERN_SELU: Final = 6


def modern(node: OnnxNode, build: GraphBuilder) -> OnnxNode:
    """`node` as operator set 7 would say it; what it needs besides is emitted.

    Raises `CannotLower` for what has no new form, `BadModelError` for what contradicts itself.
    """
    if node.domain or node.version >= MODERN:
        return node
    kept = {name: value for name, value in node.attributes.items() if name not in _DROPPED}
    plain = replace(node, attributes=kept)
    form = _FORMS.get(node.op_type)
    changed = plain if form is None else form(plain, build)
    return replace(changed, version=max(changed.version, MODERN))


def modern_proto(proto: onnx.NodeProto, node: OnnxNode) -> onnx.NodeProto:
    """The protobuf of `node`, which `modern` made of the one in `proto`. Raises `CannotLower` for inner graphs."""
    if any(attribute.HasField("g") or attribute.graphs for attribute in proto.attribute):
        raise CannotLower(f"its inner graphs are older than operator set {MODERN}")
    old = {attribute.name: attribute for attribute in proto.attribute}
    renewed = onnx.NodeProto(name=proto.name, op_type=proto.op_type, domain=proto.domain)
    renewed.input.extend(node.inputs)
    renewed.output.extend(node.outputs)
    for name, value in node.attributes.items():
        same = name in old and decode_attributes([old[name]], {}).get(name) == value
        renewed.attribute.append(old[name] if same else onnx.helper.make_attribute(name, value))
    return renewed


def _with(node: OnnxNode, given: Mapping[str, OnnxAttribute], *dropped: str) -> OnnxNode:
    kept = {name: value for name, value in node.attributes.items() if name not in dropped}
    return replace(node, attributes={**kept, **given})


def _without(*names: str) -> Callable[[OnnxNode, GraphBuilder], OnnxNode]:
    return lambda node, _: _with(node, {}, *names)


def _broadcast(node: OnnxNode, build: GraphBuilder) -> OnnxNode:
    """The second operand stands at `axis` of the first one, at its end by default, and only with `broadcast` = 1."""
    plain = _with(node, {}, "broadcast", "axis")
    first, second = build.type_of(node.input(0)).shape, build.type_of(node.input(1)).shape
    if not node.int_attribute("broadcast", 0):
        if first != second:
            raise BadModelError(
                f"{node.op_type} of {list(first)} and {list(second)}, but its attribute broadcast is not 1",
                where=node.where,
            )
        return plain
    if all(size == 1 for size in second):
        return plain if len(second) <= len(first) else _second(plain, reshape(build, node.input(1), ()))
    start = len(first) - len(second)
    axis = positive_axis(node, node.int_attribute("axis", start), len(first)) if node.has("axis") else start
    behind = len(first) - axis - len(second)
    fits = axis >= 0 and behind >= 0
    if not fits or any(b not in (1, a) for a, b in zip(first[axis:], second, strict=False)):
        raise BadModelError(
            f"{node.op_type} of {list(first)} and {list(second)}, which does not fit at axis {axis}", where=node.where
        )
    if not behind:
        return plain
    return _second(plain, reshape(build, node.input(1), (*build.shape(node.input(1)), *(1,) * behind)))


def _second(node: OnnxNode, value: str) -> OnnxNode:
    return replace(node, inputs=(node.inputs[0], value, *node.inputs[2:]))


def _channel_slopes(node: OnnxNode, build: GraphBuilder) -> OnnxNode:
    """PRelu: slopes in one dimension are one for all channels, or one a channel, which is dimension 1."""
    x, slopes = build.type_of(node.input(0)).shape, build.type_of(node.input(1)).shape
    if len(slopes) != 1 or len(x) < 3 or slopes == (1,):
        return node
    if slopes[0] != x[1]:
        raise BadModelError(f"{slopes[0]} slopes of PRelu for {x[1]} channels", where=node.where)
    return _second(node, reshape(build, node.input(1), (*build.shape(node.input(1)), *(1,) * (len(x) - 2))))


def _batch_normalization(node: OnnxNode, _: GraphBuilder) -> OnnxNode:
    """It trains unless `is_test` is set; operator set 14 says so with one result, operator set 7 with several."""
    plain = _with(node, {}, "is_test")
    if node.int_attribute("is_test", 0):
        return replace(plain, outputs=node.outputs[:1])
    if len(node.outputs) > 1:
        return plain
    if not node.int_attribute("spatial", 1):
        raise CannotLower("it trains on statistics of every feature")
    return replace(_with(plain, {"training_mode": 1}, "spatial"), version=14)


def _dropout(node: OnnxNode, _: GraphBuilder) -> OnnxNode:
    if not node.int_attribute("is_test", 0):
        raise CannotLower("without is_test = 1 it drops elements at random")
    return _with(node, {}, "is_test")


def _cast(node: OnnxNode, _: GraphBuilder) -> OnnxNode:
    """Until operator set 5 the type is a name."""
    if isinstance(node.attributes.get("to"), int):
        return node
    name = node.string_attribute("to", "").upper()
    number = dict(onnx.TensorProto.DataType.items()).get(name)
    if number is None:
        raise BadModelError(f"there is no element type {name!r}, to which it casts", where=node.where)
    return _with(node, {"to": number})


def _concat(node: OnnxNode, _: GraphBuilder) -> OnnxNode:
    return _with(node, {"axis": node.int_attribute("axis", 1)})


def _pad(node: OnnxNode, _: GraphBuilder) -> OnnxNode:
    return _with(node, {"pads": node.ints_attribute("paddings")}, "paddings") if node.has("paddings") else node


def _norm(node: OnnxNode, _: GraphBuilder) -> OnnxNode:
    """Pools by a p-norm, where p was a float."""
    order = node.attributes.get("p")
    if not isinstance(order, float):
        return node
    if not order.is_integer():
        raise CannotLower(f"p is {order:g}, which is no whole number")
    return _with(node, {"p": int(order)})


def _reshape(node: OnnxNode, build: GraphBuilder) -> OnnxNode:
    if node.optional(1):
        return node
    shape = build.constant(np.array(node.ints_attribute("shape"), np.int64))
    return _with(replace(node, inputs=(*node.inputs[:1], shape)), {}, "shape")


def _selu(node: OnnxNode, _: GraphBuilder) -> OnnxNode:
    return node if node.version >= _MODERN_SELU else _with(node, {**_OLD_SELU, **node.attributes})


def _split(node: OnnxNode, build: GraphBuilder) -> OnnxNode:
    """The sizes of the parts were an input or an attribute, later an attribute alone."""
    sizes = integers_of(node, build, 1, "sizes of the parts")
    return node if sizes is None else _with(replace(node, inputs=node.inputs[:1]), {"split": sizes})


def _tile(node: OnnxNode, build: GraphBuilder) -> OnnxNode:
    """Until operator set 5 it repeats along one axis."""
    if not node.optional(2):
        return node
    tiles, axes = integers_of(node, build, 1, "number of tiles"), integers_of(node, build, 2, "axis")
    if not tiles or not axes:
        raise BadModelError("Tile needs a number of tiles and an axis", where=node.where)
    rank = build.rank(node.input(0))
    repeats = np.ones(rank, np.int64)
    repeats[positive_axis(node, axes[0], rank)] = tiles[0]
    return replace(node, inputs=(*node.inputs[:1], build.constant(repeats)))


def _upsample(node: OnnxNode, _: GraphBuilder) -> OnnxNode:
    """Images of two dimensions, with a factor for each."""
    if node.has("scales"):
        return node
    scales = (1.0, 1.0, node.float_attribute("height_scale", 0.0), node.float_attribute("width_scale", 0.0))
    if min(scales) <= 0.0:
        raise BadModelError("height_scale and width_scale of Upsample must be above 0", where=node.where)
    mode = node.string_attribute("mode", "nearest")
    given = {"scales": scales, "mode": "linear" if mode == "bilinear" else mode}
    return _with(node, given, "height_scale", "width_scale")


_BROADCASTING: Final = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")
_FORMS: Final[dict[str, Callable[[OnnxNode, GraphBuilder], OnnxNode]]] = {
    **dict.fromkeys(_BROADCASTING, _broadcast),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _without("output_sequence")),
    **dict.fromkeys(("GlobalLpPool", "LpPool"), _norm),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Concat": _concat,
    "Dropout": _dropout,
    "Gemm": _without("broadcast"),
    "PRelu": _channel_slopes,
    "Pad": _pad,
    "Reshape": _reshape,
    "Selu": _selu,
    "Split": _split,
    "Tile": _tile,
    "Upsample": _upsample,
}
