"""What rounding alone does to a network: every weight and every tensor in memory in BF16, all else exact."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np

from birc.compiler.ir.graph import GROUP, Graph, Node
from birc.compiler.ir.table import row

Values = dict[str, np.ndarray]


def rounded_outputs(graph: Graph, inputs: Mapping[str, np.ndarray]) -> Values:
    """The outputs of a fused graph with inputs, constants and the result of every group rounded to BF16."""
    values = {name: _rounded(array) for name, array in inputs.items()}
    values |= {name: _rounded(np.asarray(constant.data)) for name, constant in graph.constants.items()}
    for node in graph.nodes:
        for output, array in zip(node.outputs, _evaluate(node, values), strict=True):
            values[output.name] = _rounded(array)
    return {name: values[name] for name in graph.outputs}


def _evaluate(node: Node, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    if node.op != GROUP or node.body is None:
        return row(node.op).evaluate([values[name] for name in node.present_inputs], node.attributes)
    inner = dict(zip((value.name for value in node.body.inputs), (values[name] for name in node.inputs), strict=True))
    for member in node.body.nodes:
        results = row(member.op).evaluate([inner[name] for name in member.present_inputs], member.attributes)
        inner |= dict(zip((value.name for value in member.outputs), results, strict=True))
    return tuple(inner[name] for name in node.body.outputs)


def _rounded(array: np.ndarray) -> np.ndarray:
    return array.astype(ml_dtypes.bfloat16).astype(np.float32) if array.dtype == np.float32 else array
