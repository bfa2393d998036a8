"""Every row of the importer's table on at least one model, against onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from networks import onnxruntime_outputs
from onnx import helper, numpy_helper

from birc.compiler.importer.importer import import_model
from birc.compiler.importer.op_types import OP_TYPES
from birc.compiler.ir.interpreter import run_graph

F32 = np.float32
I64 = np.int64


@dataclass(frozen=True)
class Case:
    """One node: arrays are graph inputs, `known` ones are initialisers by position."""

    op: str
    inputs: tuple[np.ndarray | None, ...]
    opset: int = 18
    outputs: int = 1
    known: tuple[int, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)

    def model(self) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
        names = [f"i{place}" if array is not None else "" for place, array in enumerate(self.inputs)]
        results = [f"o{place}" for place in range(self.outputs)]
        node = helper.make_node(self.op, names, results, name="the_node", **self.attributes)
        given = {
            name: array
            for place, (name, array) in enumerate(zip(names, self.inputs, strict=True))
            if array is not None and place not in self.known
        }
        constants = [numpy_helper.from_array(self.inputs[place], names[place]) for place in self.known]
        declared = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in given.items()
        ]
        graph = helper.make_graph(
            [node], "one_node", declared, [onnx.ValueInfoProto(name=name) for name in results], constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for output, found in zip(model.graph.output, inferred.graph.output, strict=True):
            known_type = found.type.HasField("tensor_type")
            output.CopyFrom(found if known_type else _float_output(output.name))
        return model, given


def _float_output(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


def f32(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(list(shape)).uniform(low, high, shape).astype(F32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, I64)


def flags(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).integers(0, 2, shape).astype(np.bool_)


def case(op: str, *inputs: np.ndarray | None, known: tuple[int, ...] = (), opset: int = 18, outputs: int = 1,
         **attributes: Any) -> Case:  # fmt: skip
    return Case(op, inputs, opset, outputs, known, attributes)


X = f32(2, 3, 4)
IMAGE = f32(2, 4, 7, 9)
SIGNAL = f32(2, 4, 9)
UNARY = (
    "Abs",
    "Asinh",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Mish",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
)
BINARY = (
    "Add",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mul",
    "PRelu",
    "Sub",
    "Sum",
)
REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
NORM = {"axis": 1, "epsilon": 1e-3}

CASES = (
    *(case(op, X, opset=20) for op in UNARY),
    *(case(op, X, f32(3, 1)) for op in BINARY),
    *(case(op, X, known=(), opset=13 if op != "ReduceSum" else 11, axes=[-1, 0]) for op in REDUCTIONS),
    *(case(op, X, ints(1), known=(1,), keepdims=0) for op in REDUCTIONS),
    case("ReduceMean", X, noop_with_empty_axes=1),
    case("ReduceLogSum", f32(2, 3, 4, low=0.5), axes=[1], opset=13),
    case("Acosh", f32(3, 4, low=1.0, high=3.0)),
    case("Atanh", f32(3, 4, low=-0.9, high=0.9)),
    case("Log", f32(3, 4, low=0.1)),
    case("Sqrt", f32(3, 4, low=0.1)),
    case("Pow", f32(3, 4, low=0.1), f32(4)),
    case("Pow", f32(3, 4, low=0.1), np.array(2, I64)),
    case("Mod", ints(-7, 7, -7, 7), ints(3, -3, -3, 3)),
    case("Mod", ints(-7, 7, -7, 7), ints(3, -3, -3, 3), fmod=1),
    case("Mod", f32(3, 4), f32(4, low=0.5), fmod=1),
    case("Div", ints(-7, 7, -7, 7), ints(3, -3, -3, 3)),
    case("And", flags(2, 3), flags(3)),
    case("Or", flags(2, 3), flags(3)),
    case("Xor", flags(2, 3), flags(3)),
    case("Not", flags(2, 3)),
    case("Where", flags(3, 1), X, f32(4)),
    case("Sum", X, X, f32(4)),
    case("Mean", X, X, f32(4)),
    case("Max", X, f32(4), f32(3, 1)),
    case("Clip", X, opset=7, min=-1.0, max=0.5),
    case("Clip", X, opset=7, min=-1.0),
    case("Clip", X, opset=7),
    case("Clip", X, np.array(-1, F32), np.array(0.5, F32), known=(1, 2)),
    case("Clip", X, None, np.array(0.5, F32), known=(2,)),
    case("Clip", X, np.array(-1, F32), np.array(0.5, F32)),
    case("Cast", X, to=onnx.TensorProto.INT32),
    case("Cast", ints(-1, 0, 300), to=onnx.TensorProto.FLOAT),
    case("CastLike", X, ints(1)),
    case("Gelu", X, opset=20),
    case("Gelu", X, opset=20, approximate="tanh"),
    case("IsInf", np.array([1, np.inf, -np.inf], F32), detect_negative=0),
    case("Shrink", X, bias=0.5, lambd=1.0),
    case("MatMul", X, f32(4, 5)),
    case("MatMul", f32(4), f32(2, 4, 5)),
    case("MatMul", X, f32(4)),
    case("MatMul", f32(4), f32(4)),
    case("Gemm", f32(3, 4), f32(4, 5), f32(5)),
    case("Gemm", f32(4, 3), f32(5, 4), f32(3, 1), transA=1, transB=1, alpha=0.5, beta=2.0),
    case("Gemm", f32(3, 4), f32(4, 5)),
    case("Conv", IMAGE, f32(6, 4, 3, 3), f32(6), pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2]),
    case("Conv", IMAGE, f32(8, 2, 3, 3), group=2, auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", IMAGE, f32(4, 1, 2, 2), group=4, auto_pad="SAME_LOWER"),
    case("Conv", IMAGE, f32(4, 4, 2, 2), auto_pad="VALID"),
    case("Conv", SIGNAL, f32(6, 4, 3), f32(6), pads=[2, 1], strides=[2]),
    case("MaxPool", IMAGE, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3]),
    case("MaxPool", SIGNAL, kernel_shape=[3], strides=[2], auto_pad="SAME_LOWER"),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", f32(1, 2, 6, 8), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, opset=19),
    case("AveragePool", SIGNAL, kernel_shape=[4], auto_pad="SAME_UPPER"),
    case("GlobalAveragePool", IMAGE),
    case("GlobalMaxPool", IMAGE),
    case("BatchNormalization", IMAGE, f32(4), f32(4), f32(4), f32(4, low=0.5), epsilon=1e-3),
    case("InstanceNormalization", IMAGE, f32(4), f32(4)),
    case("GroupNormalization", IMAGE, f32(4), f32(4), num_groups=2, opset=21),
    case("LayerNormalization", X, f32(3, 4), f32(3, 4), **NORM),
    case("LayerNormalization", X, f32(4)),
    case("LayerNormalization", X, f32(4), f32(4), outputs=3),
    case("RMSNormalization", X, f32(4), opset=23),
    case("LpNormalization", X, axis=1, p=1),
    case("LpNormalization", X, opset=18),
    case("LRN", IMAGE, size=3, alpha=0.01, beta=0.5, bias=2.0),
    case("Softmax", X, opset=11),
    case("Softmax", X, opset=11, axis=2),
    case("Softmax", X, axis=1),
    case("LogSoftmax", X, opset=11, axis=0),
    case("LogSoftmax", X),
    case("Swish", X, opset=24, alpha=1.0),
    case("Swish", X, opset=24, alpha=1.5),
    case("Gather", X, ints(2, 0, -1), axis=1),
    case("GatherElements", f32(3, 4), np.array([[0, -1], [2, 1]], I64), axis=0),
    case("GatherND", X, np.array([[0, 2], [1, -3]], I64)),
    case("GatherND", X, np.array([[0], [2]], I64), batch_dims=1),
    case("Concat", X, f32(2, 1, 4), axis=-2),
    case("DepthToSpace", IMAGE, blocksize=2),
    case("DepthToSpace", IMAGE, blocksize=2, mode="CRD"),
    case("SpaceToDepth", f32(1, 2, 4, 6), blocksize=2),
    case("Dropout", X, opset=7),
    case("Dropout", X, opset=13),
    case("Expand", f32(3, 1), ints(2, 1, 4), known=(1,)),
    case("Flatten", X, axis=-1),
    case("OneHot", ints(0, -1, 2), np.array(4, I64), np.array([-1, 1], F32), known=(1,), axis=0),
    case("Pad", X, opset=7, pads=[0, 1, 0, 2, 0, 3], value=1.5),
    case("Pad", X, ints(0, -1, 1, 0, 2, 0), np.array(1.5, F32), known=(1, 2)),
    case("Pad", X, ints(0, 1, 2, 0, 2, 1), known=(1,), mode="reflect"),
    case("Pad", X, ints(1, 2), None, ints(-1), known=(1, 3), mode="edge"),
    case("Pad", X, ints(1, 2), None, ints(1), known=(1, 3), mode="wrap", opset=19),
    case("Reshape", X, ints(0, -1), known=(1,)),
    case("Slice", X, opset=9, starts=[1, -3], ends=[3, 100], axes=[1, 2]),
    case("Slice", X, ints(1, -1), ints(-1, -100), ints(1, 2), ints(1, -2), known=(1, 2, 3, 4)),
    case("Slice", X, ints(3), ints(1), ints(1), known=(1, 2, 3)),
    case("Split", X, opset=11, outputs=2, axis=1, split=[1, 2]),
    case("Split", X, ints(1, 3), known=(1,), outputs=2, axis=-1),
    case("Split", X, outputs=2, axis=1, num_outputs=2),
    case("Squeeze", f32(1, 3, 1), opset=11, axes=[-1]),
    case("Squeeze", f32(1, 3, 1)),
    case("Unsqueeze", X, opset=11, axes=[0, -1]),
    case("Unsqueeze", X, ints(-1, 1), known=(1,)),
    case("Tile", X, ints(2, 1, 3), known=(1,)),
    case("Transpose", X),
    case("Transpose", X, perm=[2, 0, 1]),
    case("Trilu", X, np.array(1, I64), known=(1,)),
    case("Trilu", X, upper=0),
    case("Constant", value_floats=[1.0, 2.0]),
    case("ConstantOfShape", ints(2, 3), known=(0,), value=helper.make_tensor("v", 6, [1], [7])),
    case("EyeLike", f32(3, 4), k=1),
    case("Range", np.array(3, I64), np.array(10, I64), np.array(2, I64), known=(0, 1, 2)),
    case("Shape", X, start=1),
    case("Size", X),
)  # fmt: skip


def identify(entry: Case) -> str:
    return f"{entry.op}-{entry.opset}"


@pytest.mark.parametrize("entry", CASES, ids=identify)
def test_lowering_agrees_with_onnxruntime(entry: Case) -> None:
    model, given = entry.model()
    graph = import_model(model)
    expected = onnxruntime_outputs(model, given)
    actual = run_graph(graph, {value.name: given[value.name] for value in graph.inputs})
    assert list(actual) == [f"o{place}" for place in range(entry.outputs)]
    for name, reference in expected.items():
        assert actual[name].dtype == reference.dtype
        np.testing.assert_allclose(actual[name], reference, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("entry", CASES, ids=identify)
def test_node_name_survives(entry: Case) -> None:
    graph = import_model(entry.model()[0])
    alive = {source for node in graph.nodes for source in node.sources}
    gone = {fate.source for fate in graph.fates}
    assert alive | gone == {"the_node"}
    assert not alive & gone


def test_every_row_of_the_table_has_a_case() -> None:
    missing = [
        f"{row.name} {row.since}-{row.until}"
        for row in OP_TYPES
        if not any(entry.op == row.name and row.covers(entry.opset) for entry in CASES)
    ]
    assert not missing


def test_rows_of_one_op_do_not_overlap() -> None:
    for version in range(7, 29):
        covered = [(row.domain, row.name) for row in OP_TYPES if row.covers(version)]
        assert len(covered) == len(set(covered))
