"""Operators on quantised tensors and onnxruntime's own ones, through the device path: compiled, loaded, run."""

from __future__ import annotations

import lowering_cases_attention
import lowering_cases_contrib
import lowering_cases_contrib_quantized
import lowering_cases_quantized_products
import numpy as np
import pytest
from lowering_case import Case
from networks import onnxruntime_outputs
from onnx.reference import ReferenceEvaluator

from birc.compiler.driver import compile_model
from birc.runtime.session import load

CASES: tuple[Case, ...] = (
    *lowering_cases_quantized_products.CASES,
    *lowering_cases_contrib.CASES,
    *lowering_cases_contrib_quantized.CASES,
    *lowering_cases_attention.CASES,
)
TOLERANCE = 2e-5


@pytest.mark.parametrize("entry", CASES, ids=lambda entry: entry.op)
def test_the_device_computes_what_onnxruntime_does(entry: Case) -> None:
    model, given = entry.model()
    if entry.oracle == "onnxruntime":
        expected = onnxruntime_outputs(model, given)
    else:
        names = [output.name for output in model.graph.output]
        expected = dict(zip(names, ReferenceEvaluator(model).run(None, given), strict=True))
    package = compile_model(model, precision="fp32", target="br100")
    assert package is not None
    assert not any(variant.host_nodes for variant in package.manifest.variants)
    actual = load(package).run(given)
    for name, wanted in expected.items():
        assert actual[name].dtype == wanted.dtype
        tolerance = max(entry.tolerance, TOLERANCE)
        np.testing.assert_allclose(actual[name], wanted, rtol=tolerance, atol=tolerance)
