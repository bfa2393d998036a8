"""Every row of the importer's table on at least one model, against onnxruntime.

The cases stand in tests/support, one file a family of operators.
"""

from __future__ import annotations

from collections.abc import Mapping

import lowering_cases_attention
import lowering_cases_basic
import lowering_cases_casts
import lowering_cases_contrib
import lowering_cases_contrib_quantized
import lowering_cases_elementwise
import lowering_cases_indices
import lowering_cases_ml
import lowering_cases_normalization
import lowering_cases_optimizer
import lowering_cases_quantization
import lowering_cases_quantized_products
import lowering_cases_recurrent
import lowering_cases_reductions
import lowering_cases_resize
import lowering_cases_sampling
import lowering_cases_shapes
import lowering_cases_signal
import lowering_cases_windows
import numpy as np
import onnx
import pytest
from lowering_case import Case
from networks import onnxruntime_outputs
from onnx.reference import ReferenceEvaluator

from birc.compiler.importer.importer import import_model
from birc.compiler.importer.lowering import OpType
from birc.compiler.importer.op_types import OP_TYPES
from birc.compiler.ir.interpreter import run_graph

CASES: tuple[Case, ...] = (
    *lowering_cases_attention.CASES,
    *lowering_cases_basic.CASES,
    *lowering_cases_casts.CASES,
    *lowering_cases_contrib.CASES,
    *lowering_cases_contrib_quantized.CASES,
    *lowering_cases_indices.CASES,
    *lowering_cases_ml.CASES,
    *lowering_cases_normalization.CASES,
    *lowering_cases_optimizer.CASES,
    *lowering_cases_elementwise.CASES,
    *lowering_cases_quantization.CASES,
    *lowering_cases_quantized_products.CASES,
    *lowering_cases_recurrent.CASES,
    *lowering_cases_reductions.CASES,
    *lowering_cases_resize.CASES,
    *lowering_cases_sampling.CASES,
    *lowering_cases_shapes.CASES,
    *lowering_cases_signal.CASES,
    *lowering_cases_windows.CASES,
)


def onnx_outputs(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [output.name for output in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(None, dict(inputs)), strict=True))


ORACLES = {"onnxruntime": onnxruntime_outputs, "onnx": onnx_outputs}


def identify(entry: Case) -> str:
    return f"{entry.op}-{entry.opset}"


@pytest.mark.parametrize("entry", CASES, ids=identify)
def test_lowering_agrees_with_onnxruntime(entry: Case) -> None:
    model, given = entry.model()
    graph = import_model(model)
    expected = ORACLES[entry.oracle](model, given)
    actual = run_graph(graph, {value.name: given[value.name] for value in graph.inputs})
    assert list(actual) == [f"o{place}" for place in range(entry.outputs)]
    for name, reference in expected.items():
        assert actual[name].dtype == reference.dtype
        np.testing.assert_allclose(actual[name], reference, rtol=entry.tolerance, atol=entry.tolerance / 10)


@pytest.mark.parametrize("entry", CASES, ids=identify)
def test_node_name_survives(entry: Case) -> None:
    graph = import_model(entry.model()[0])
    alive = {source for node in graph.nodes for source in node.sources}
    gone = {fate.source for fate in graph.fates}
    assert alive | gone == {"the_node"}
    assert not alive & gone


def _covers(row: OpType, entry: Case) -> bool:
    return row.covers(entry.domain_version if entry.domain else entry.opset)


def test_every_row_of_the_table_has_a_case() -> None:
    missing = [
        f"{row.name} {row.since}-{row.until}"
        for row in OP_TYPES
        if not any((entry.domain, entry.op) == (row.domain, row.name) and _covers(row, entry) for entry in CASES)
    ]
    assert not missing


def test_rows_of_one_op_do_not_overlap() -> None:
    for version in range(7, 29):
        covered = [(row.domain, row.name) for row in OP_TYPES if row.covers(version)]
        assert len(covered) == len(set(covered))
