"""Lowering of the ai.onnx.ml operators that pick, scale, encode and fill in features."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import all_true, reduced, require_helpers
from birc.compiler.importer.floats import divisor, in_f32, is_nan
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.ml_attributes import DOMAIN, floats, integers, required_floats, words
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.compiler.importer.tensors import tensor_array
from birc.runtime.dtypes import dtype, from_numpy
from birc.runtime.errors import BadModelError


def _array_feature_extractor(node: OnnxNode, build: GraphBuilder) -> Results:
    """Columns of the last dimension; a vector is one row."""
    x, picked = node.input(0), node.input(1)
    shape = build.shape(x)
    count = build.type_of(picked).num_elements
    result = build.emit("gather", (x, reshape(build, picked, (count,))), {"axis": len(shape) - 1})
    return result if len(shape) > 1 else reshape(build, result, (1, count))


def _binarizer(node: OnnxNode, build: GraphBuilder) -> Results:
    """1 above the threshold, else 0. A whole number is above it when it is above its floor."""
    x, threshold = node.input(0), node.float_attribute("threshold", 0.0)
    kept = build.type_of(x).dtype
    limit = threshold if kept.is_float else math.floor(threshold)
    return cast(build, build.emit("greater", (x, build.scalar(limit, x))), kept)


def _scaler(node: OnnxNode, build: GraphBuilder) -> Results:
    """(x - offset) * scale, one of each or one a feature."""
    x = in_f32(build, node.input(0))
    offset, scale = floats(node, "offset"), floats(node, "scale")
    if offset is not None:
        x = build.emit("sub", (x, build.constant(offset)))
    return x if scale is None else build.emit("mul", (x, build.constant(scale)))


def _normalizer(node: OnnxNode, build: GraphBuilder) -> Results:
    """Rows over their maximum, the sum of their magnitudes or the root of that of their squares, unless that is 0."""
    x, norm = in_f32(build, node.input(0)), node.string_attribute("norm", "MAX")
    last = len(build.shape(x)) - 1
    if norm == "MAX":
        size = reduced(build, "reduce_max", x, last, keep=True)
    elif norm == "L1":
        size = reduced(build, "reduce_sum", build.emit("abs", (x,)), last, keep=True)
    elif norm == "L2":
        size = build.emit("sqrt", (reduced(build, "reduce_sum", build.emit("mul", (x, x)), last, keep=True),))
    else:
        raise BadModelError(f"norm {norm!r} of Normalizer", where=node.where)
    return build.emit("div", (x, divisor(build, size)))


def _feature_vectorizer(node: OnnxNode, build: GraphBuilder) -> Results:
    """The features of all inputs side by side, each cut or filled with zeros to its number of features."""
    parts = []
    for name, wanted in zip(node.inputs, integers(node, "inputdimensions").tolist(), strict=True):
        x = in_f32(build, name)
        shape = build.shape(x)
        x = reshape(build, x, (shape[0], math.prod(shape[1:])))
        width = build.shape(x)[1]
        x = slice_axis(build, x, 1, 0, min(width, wanted))
        if width < wanted:
            x = build.emit("pad", (x,), {"pads": (0, 0, 0, wanted - width), "value": 0.0})
        parts.append(x)
    return build.emit("concat", parts, {"axis": 1})


def _imputer(node: OnnxNode, build: GraphBuilder) -> Results:
    """Where a feature has the value that stands for a missing one, its replacement."""
    x = node.input(0)
    kept = build.type_of(x).dtype
    if kept.is_float:
        values = required_floats(node, "imputed_value_floats")
        missing: float | int = node.float_attribute("replaced_value_float", 0.0)
    else:
        values = integers(node, "imputed_value_int64s")
        missing = node.int_attribute("replaced_value_int64", 0)
    if len(values) not in (1, build.shape(x)[-1]):
        raise BadModelError(f"{len(values)} replacements for {build.shape(x)[-1]} features", where=node.where)
    if math.isnan(missing):
        is_missing = is_nan(build, x)
    else:
        is_missing = build.emit("equal", (x, build.scalar(missing, x)))
    return build.emit("where", (is_missing, build.constant(values.astype(kept.numpy)), x))


def _label_encoder(node: OnnxNode, build: GraphBuilder) -> Results:
    """The value of the key that an element equals, else the default; of equal keys the last counts."""
    x = node.input(0)
    keys, values = _labels(node, "keys"), _labels(node, "values")
    if len(keys) != len(values):
        raise BadModelError(f"{len(keys)} keys and {len(values)} values", where=node.where)
    distinct = {key: place for place, key in enumerate(keys.tolist())}
    nan = [place for place, key in enumerate(keys.tolist()) if math.isnan(key)]
    places = [place for key, place in distinct.items() if not math.isnan(key)]
    default = build.constant(np.asarray(_default(node, values.dtype), values.dtype))
    shape = build.shape(x)
    require_helpers(math.prod(shape) * max(len(places), 1), "the comparison with all keys")
    column = reshape(build, x, (math.prod(shape), 1))
    result = build.emit("expand", (default,), {"shape": (math.prod(shape), 1)})
    if places:
        hits = build.emit("equal", (column, build.constant(keys[places].astype(build.type_of(x).dtype.numpy))))
        numbers = build.constant(np.arange(1, len(places) + 1, dtype=np.int32))
        found = build.emit("where", (hits, numbers, build.scalar(0, numbers)))
        found = reduced(build, "reduce_sum", found, 1, keep=True)
        table = build.emit("concat", (reshape(build, default, (1,)), build.constant(values[places])), {"axis": 0})
        result = build.emit("gather", (table, found), {"axis": 0})
    if nan:
        result = build.emit("where", (is_nan(build, column), build.constant(values[nan[-1]].reshape(())), result))
    return reshape(build, result, shape)


def _labels(node: OnnxNode, stem: str) -> np.ndarray:
    """Keys or values, from the attribute of their kind."""
    if node.has(f"{stem}_floats"):
        return np.asarray(node.attributes[f"{stem}_floats"], np.float32)
    if node.has(f"{stem}_int64s"):
        return integers(node, f"{stem}_int64s")
    found = _tensor(node, f"{stem}_tensor")
    if found is None:
        raise CannotLower("it encodes strings")
    return found.reshape(-1)


def _tensor(node: OnnxNode, name: str) -> np.ndarray | None:
    """A tensor of numbers that the device has; None without one."""
    given = node.attributes.get(name)
    if given is None:
        return None
    found = tensor_array(given, None)  # type: ignore[arg-type]
    if found.dtype == np.float64 or found.dtype.kind not in "fiu":
        raise CannotLower(f"its labels are of type {found.dtype}")
    return found


def _default(node: OnnxNode, kind: np.dtype) -> float | int:
    """The value for what is no key: ONNX's own defaults are -0.0 and -1."""
    given = _tensor(node, "default_tensor")
    if given is not None:
        return given.reshape(-1)[0].item()
    if from_numpy(kind).is_float:
        return node.float_attribute("default_float", -0.0)
    return node.int_attribute("default_int64", -1)


def _one_hot_encoder(node: OnnxNode, build: GraphBuilder) -> Results:
    """1 for the category that an element is, along a new last dimension; without `zeros` there must be one."""
    if words(node, "cats_strings"):
        raise CannotLower("its categories are strings")
    x, categories = node.input(0), integers(node, "cats_int64s")
    whole = cast(build, x, dtype("i64")) if build.type_of(x).dtype.is_float else x
    column = reshape(build, whole, (*build.shape(x), 1))
    hot = build.emit("equal", (column, build.constant(categories.astype(build.type_of(whole).dtype.numpy))))
    result = cast(build, hot, dtype("f32"))
    if node.int_attribute("zeros", 1):
        return result
    is_known = build.emit("cast", (reduced(build, "reduce_max", result, len(build.shape(x))),), {"to": dtype("bool")})
    return build.guarded(result, all_true(build, is_known))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("ArrayFeatureExtractor", _array_feature_extractor, domain=DOMAIN),
    OpType("Binarizer", _binarizer, domain=DOMAIN),
    OpType("FeatureVectorizer", _feature_vectorizer, domain=DOMAIN),
    OpType("Imputer", _imputer, domain=DOMAIN),
    OpType("LabelEncoder", _label_encoder, domain=DOMAIN),
    OpType("Normalizer", _normalizer, domain=DOMAIN),
    OpType("OneHotEncoder", _one_hot_encoder, domain=DOMAIN),
    OpType("Scaler", _scaler, domain=DOMAIN),
)
