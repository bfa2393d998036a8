"""How one core op is said as one ONNX operator: for comparing the numpy meanings with ONNX's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import helper

from birc.compiler.ir.attributes import AttributeValue
from birc.runtime.dtypes import DType

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class OnnxCall:
    """One application of an ONNX operator: `extra` inputs follow the row's own."""

    op_type: str
    attributes: Mapping[str, object]
    extra: Arrays = ()


Translate = Callable[[Mapping[str, AttributeValue], Arrays], OnnxCall]


def _same(op_type: str, **fixed: object) -> Translate:
    """The attributes have the same names and meanings."""
    return lambda attributes, arrays: OnnxCall(op_type, {**attributes, **fixed})


def _window(attributes: Mapping[str, AttributeValue]) -> dict[str, object]:
    names = {"stride": "strides", "pads": "pads", "dilation": "dilations", "kernel": "kernel_shape"}
    return {onnx: attributes[name] for name, onnx in names.items() if name in attributes}


def _avg_pool(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
    given = {**_window(attributes), "count_include_pad": attributes["count_include_pad"]}
    if attributes["count_include_pad"] and attributes["divisor_pads"] != attributes["pads"]:
        given |= {"pads": attributes["divisor_pads"], "ceil_mode": 1}  # the sample's larger pads round up
    return OnnxCall("AveragePool", given)


def _cast(op_type: str) -> Translate:
    def translate(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
        to = attributes["to"]
        assert isinstance(to, DType)
        return OnnxCall(op_type, {"to": helper.np_dtype_to_tensor_dtype(to.numpy)})

    return translate


def _convert(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
    call = _cast("Cast")(attributes, arrays)
    return OnnxCall("Cast", {**call.attributes, **{name: attributes[name] for name in ("saturate", "round_mode")}})


def _clip(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
    holder = arrays[0].dtype
    limits = (attributes["minimum"], attributes["maximum"])
    top = np.finfo(holder).max if holder.kind == "f" else np.iinfo(holder).max
    return OnnxCall("Clip", {}, tuple(np.array(min(limit, top)).astype(holder) for limit in limits))  # type: ignore[type-var]


def _axes(op_type: str) -> Translate:
    def translate(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
        return OnnxCall(op_type, {"keepdims": attributes["keepdims"]}, (np.array(attributes["axes"]),))

    return translate


def _logsumexp(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
    return OnnxCall("ReduceLogSumExp", {"keepdims": 1}, (np.array([attributes["axis"]]),))


def _slice(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
    axes = np.arange(arrays[0].ndim)
    starts, ends, steps = (np.array(attributes[name]) for name in ("starts", "ends", "steps"))
    return OnnxCall("Slice", {}, (starts, ends, axes, steps))


def _pad(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
    value = np.array(attributes["value"]).astype(arrays[0].dtype)
    return OnnxCall("Pad", {}, (np.array(attributes["pads"]), value))


def _shape(op_type: str, **fixed: object) -> Translate:
    return lambda attributes, arrays: OnnxCall(op_type, fixed, (np.array(attributes["shape"], np.int64),))


def _mod(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
    return OnnxCall("Mod", {"fmod": int(arrays[0].dtype.kind == "f")})


def _contraction(op_type: str, integer_op_type: str) -> Translate:
    def translate(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
        name = integer_op_type if arrays[0].dtype.itemsize == 1 else op_type
        given = {**_window(attributes), "group": attributes["group"]} if "group" in attributes else {}
        return OnnxCall(name, given)

    return translate


def _quantization(op_type: str) -> Translate:
    """Scales of one dimension belong to the last one."""

    def translate(attributes: Mapping[str, AttributeValue], arrays: Arrays) -> OnnxCall:
        to = attributes.get("to")
        elements = {"output_dtype": helper.np_dtype_to_tensor_dtype(to.numpy)} if isinstance(to, DType) else {}
        return OnnxCall(op_type, {"axis": -1 if arrays[1].ndim else 1, **elements})

    return translate


_NAMED = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "maximum": "Max", "minimum": "Min",
    "and": "And", "or": "Or", "xor": "Xor", "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual",
    "greater": "Greater", "greater_equal": "GreaterOrEqual", "neg": "Neg", "abs": "Abs", "exp": "Exp",
    "log": "Log", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "tanh": "Tanh", "sigmoid": "Sigmoid",
    "erf": "Erf", "relu": "Relu", "floor": "Floor", "ceil": "Ceil", "round": "Round", "sign": "Sign",
    "sin": "Sin", "cos": "Cos", "not": "Not", "softplus": "Softplus", "leaky_relu": "LeakyRelu", "elu": "Elu",
    "hard_sigmoid": "HardSigmoid", "gelu": "Gelu", "where": "Where", "batch_norm": "BatchNormalization",
    "layer_norm": "LayerNormalization", "rms_norm": "RMSNormalization", "softmax": "Softmax",
    "log_softmax": "LogSoftmax", "transpose": "Transpose", "concat": "Concat", "gather": "Gather",
    "gather_nd": "GatherND", "silu": "Swish", "bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr",
    "asin": "Asin", "acos": "Acos", "atan": "Atan", "bitwise_xor": "BitwiseXor", "bitwise_not": "BitwiseNot",
}  # fmt: skip

EQUIVALENTS: dict[str, Translate] = {
    **{name: _same(op_type) for name, op_type in _NAMED.items()},
    "lrn": lambda attributes, arrays: OnnxCall(
        "LRN", {("bias" if name == "k" else name): value for name, value in attributes.items()}
    ),
    "mod": _mod,
    "cast": _cast("Cast"),
    "bitcast": _cast("BitCast"),
    "shift_left": _same("BitShift", direction="LEFT"),
    "shift_right": _same("BitShift", direction="RIGHT"),
    "convert": _convert,
    "quantize": _quantization("QuantizeLinear"),
    "dequantize": _quantization("DequantizeLinear"),
    "clip": _clip,
    "matmul": _contraction("MatMul", "MatMulInteger"),
    "conv2d": _contraction("Conv", "ConvInteger"),
    "max_pool2d": lambda attributes, arrays: OnnxCall("MaxPool", _window(attributes)),
    "avg_pool2d": _avg_pool,
    "logsumexp": _logsumexp,
    "reduce_sum": _axes("ReduceSum"),
    "reduce_mean": _axes("ReduceMean"),
    "reduce_max": _axes("ReduceMax"),
    "reduce_min": _axes("ReduceMin"),
    "reduce_prod": _axes("ReduceProd"),
    "slice": _slice,
    "pad": _pad,
    "rotate": _same("RotaryEmbedding", num_heads=1),
    "reshape": _shape("Reshape", allowzero=1),
    "expand": _shape("Expand"),
}
"""The rows that are one ONNX operator; `rsqrt` is two, `max_pool2d_position` half of one."""
