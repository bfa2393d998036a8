"""Lowering of ops whose result is known at import: constants, shapes, ranges."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast, named_type
from birc.compiler.importer.counting import LARGEST_HELPER_ELEMENTS
from birc.compiler.importer.floats import wide_type
from birc.compiler.importer.limits import check_value_size
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.run_time import are, declared_result, flattened, held
from birc.compiler.importer.shape import reshape
from birc.compiler.importer.tensors import tensor_array
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import from_numpy
from birc.runtime.errors import BadModelError

_LONGEST_RANGE: Final = 1 << 24


def _constant(node: OnnxNode, build: GraphBuilder) -> Results:
    """The value is in one of several attributes, by its kind."""
    given = node.attributes
    if len(given) != 1:
        raise BadModelError(f"a constant is given by one attribute, not {len(given)}", where=node.where)
    if isinstance(given.get("value"), onnx.TensorProto):
        return build.constant(_attribute_array(node, "value"))
    for name, numpy_type in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in given:
            return build.constant(np.asarray(given[name], numpy_type))
    raise CannotLower(f"a constant given as {', '.join(given) or 'nothing'} is not a dense tensor of numbers")


def _attribute_array(node: OnnxNode, name: str) -> np.ndarray:
    tensor = node.attributes[name]
    if not isinstance(tensor, onnx.TensorProto):
        raise BadModelError(f"attribute {name!r} of {node.op_type} must be a tensor", where=node.where)
    named_type(tensor.data_type)
    return tensor_array(tensor, None)


def _constant_of_shape(node: OnnxNode, build: GraphBuilder) -> Results:
    fill = _attribute_array(node, "value") if node.has("value") else np.zeros((), np.float32)
    if fill.size != 1:
        raise BadModelError(f"value of ConstantOfShape has {fill.size} elements, not 1", where=node.where)
    if build.type_of(node.input(0)).dtype.name != "i64":
        raise BadModelError("the shape of ConstantOfShape is not int64", where=node.where)
    fill = fill.reshape(())
    known = build.constant_of(node.input(0))
    if known is not None:
        return build.splat(fill, TensorType(from_numpy(fill.dtype), tuple(int(size) for size in known.reshape(-1))))
    sizes, given = declared_result(node, build), flattened(build, node.input(0))
    if build.shape(given) != (len(sizes),):
        raise CannotLower(f"{build.shape(given)[0]} sizes do not make the declared {list(sizes)}")
    if 0 in sizes:
        return build.splat(fill, TensorType(from_numpy(fill.dtype), sizes))
    one = held(build, build.constant(fill), [are(build, given, sizes)])
    return build.emit("expand", (one,), {"shape": sizes})


def _shape(node: OnnxNode, build: GraphBuilder) -> Results:
    type = build.type_of(node.input(0))
    start, end = node.int_attribute("start", 0), node.int_attribute("end", type.rank)
    return build.constant(np.array(type.with_shape(type.shape[start:end]).sizes, np.int64))


def _size(node: OnnxNode, build: GraphBuilder) -> Results:
    return build.constant(np.array(build.type_of(node.input(0)).num_elements, np.int64))


def _range(node: OnnxNode, build: GraphBuilder) -> Results:
    values = [reshape(build, node.input(place), ()) for place in range(3)]
    known = [build.constant_of(value) for value in values]
    kind = build.type_of(values[0]).dtype
    if any(value is None for value in known):
        return _range_at_run_time(node, build, values)
    start, limit, delta = (value.item() if not kind.is_float else float(value) for value in known if value is not None)
    if delta == 0:
        raise BadModelError("the step of Range is 0", where=node.where)
    count = max(math.ceil((limit - start) / delta) if kind.is_float else -int((start - limit) // delta), 0)
    check_value_size(TensorType(kind, (count,)), node.where)
    if count > _LONGEST_RANGE:
        raise CannotLower(f"a range of {count} numbers is stored as a constant, of at most {_LONGEST_RANGE}")
    wide = np.float64 if kind.is_float else np.int64
    return build.constant((start + np.arange(count, dtype=wide) * delta).astype(kind.numpy))


def _range_at_run_time(node: OnnxNode, build: GraphBuilder, values: list[str]) -> str:
    """start + delta * (0, 1, ...), as many as the model declares; another limit faults.

    Narrow floats are computed in FP32. The comparison with the limit leaves floats an error of rounding.
    """
    (count,), kind = declared_result(node, build), build.type_of(values[0]).dtype
    if not count:
        return build.splat(0, TensorType(kind, (0,)))
    wide = wide_type(kind)
    start, limit, delta = (cast(build, value, wide) for value in values)
    falls = build.emit("less", (delta, build.scalar(0, delta)))
    stride = build.emit("abs", (delta,))
    rising = build.emit("sub", (limit, start))
    distance = build.emit("where", (falls, build.emit("sub", (start, limit)), rising))
    slack = 2.0**-20 if kind.is_float else 0
    before = build.emit("mul", (stride, build.scalar((count - 1) * (1 - slack), stride)))
    behind = build.emit("mul", (stride, build.scalar(count * (1 + slack), stride)))
    enough = build.emit("less", (before, distance))
    fits = build.emit("and", (enough, build.emit("less_equal", (distance, behind))))
    steps = build.emit("mul", (build.constant(np.arange(count).astype(wide.numpy)), delta))
    return held(build, cast(build, build.emit("add", (steps, start)), kind), [fits])


def _eye_like(node: OnnxNode, build: GraphBuilder) -> Results:
    like = build.type_of(node.input(0))
    kind = named_type(node.int_attribute("dtype", 0)) if node.has("dtype") else like.dtype
    if like.rank != 2:
        raise BadModelError(f"EyeLike of {like.rank} dimensions, not 2", where=node.where)
    rows, columns = like.sizes
    if rows * columns > LARGEST_HELPER_ELEMENTS:
        raise CannotLower(
            f"a unit matrix of {rows} x {columns} is stored, of at most {LARGEST_HELPER_ELEMENTS} elements"
        )
    return build.constant(np.eye(rows, columns, node.int_attribute("k", 0)).astype(kind.numpy))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Constant", _constant),
    OpType("ConstantOfShape", _constant_of_shape),
    OpType("EyeLike", _eye_like),
    OpType("Range", _range),
    OpType("Shape", _shape),
    OpType("Size", _size),
)
