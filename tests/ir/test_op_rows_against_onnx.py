"""The numpy meaning of every row that is one ONNX operator agrees with ONNX's own reference."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_equivalents import EQUIVALENTS
from onnxruntime import InferenceSession

from birc.compiler.ir.op import OpRow, Sample
from birc.compiler.ir.table import OPS

TOLERANCE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-12, np.dtype(ml_dtypes.bfloat16): 0.02}
CASES = [(entry, at, sample) for entry in OPS for at, sample in enumerate(entry.samples)]
NOT_ONE_OPERATOR = {"rsqrt", "max_pool2d_position", "row_moments", "row_statistics", "scale_by_moments"}

# (Its lrn sums over as many channels as there are pictures: the samples of that row have as many of both.)
# Where the reference evaluator of onnx falls short, onnxruntime answers; each with the reason.
BY_ONNXRUNTIME = {
    "log_softmax": "it takes the logarithm of a softmax that underflowed",
    "max_pool2d": "it pads integers with NaN",
}
ONNXRUNTIME_OPSET = 21


def onnx_result(entry: OpRow, sample: Sample) -> np.ndarray:
    """What ONNX's reference, or onnxruntime, makes of a sample."""
    arrays = sample.arrays()
    call = EQUIVALENTS[entry.name](sample.attributes, arrays)
    by_onnxruntime = entry.name in BY_ONNXRUNTIME and arrays[0].dtype in (np.float32, np.int8)
    feeds = {f"x{at}": array for at, array in enumerate((*arrays, *call.extra))}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    node = helper.make_node(call.op_type, list(feeds), ["y"], **call.attributes)
    elements = entry.output_types(sample.types, sample.attributes)[0].dtype.numpy
    result = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(elements), None)
    graph = helper.make_graph([node], "one", inputs, [result])
    opset = ONNXRUNTIME_OPSET if by_onnxruntime else onnx.defs.onnx_opset_version()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    if by_onnxruntime:
        session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (value,) = session.run(None, feeds)
    else:
        (value,) = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(value)


def test_every_row_is_compared() -> None:
    assert {entry.name for entry in OPS} == EQUIVALENTS.keys() | NOT_ONE_OPERATOR


@pytest.mark.parametrize(
    ("entry", "sample"),
    [pytest.param(entry, sample, id=f"{entry.name}-{at}") for entry, at, sample in CASES],
)
def test_agrees_with_onnx(entry: OpRow, sample: Sample) -> None:
    if entry.name in NOT_ONE_OPERATOR:
        pytest.skip("not one ONNX operator")
    (ours,) = entry.evaluate(sample.arrays(), sample.attributes)
    theirs = onnx_result(entry, sample)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if ours.dtype in TOLERANCE:
        tolerance = TOLERANCE[ours.dtype]
        wide = ours.astype(np.float64), theirs.astype(np.float64)
        np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(ours, theirs)
