"""What the importer is told about nodes with operands or results without elements."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from birc.compiler.driver import compile_model
from birc.compiler.ir.graph import Node, Value
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.lower.lower import device_problem
from birc.runtime import load
from birc.runtime.dtypes import dtype

F32 = dtype("f32")
FULL, EMPTY = TensorType(F32, (2, 3)), TensorType(F32, (2, 0))


@pytest.mark.parametrize(
    ("op", "inputs", "output", "reason"),
    [
        ("concat", (FULL, EMPTY, FULL), TensorType(F32, (2, 6)), None),
        ("concat", (EMPTY, EMPTY), EMPTY, None),
        ("slice", (FULL,), EMPTY, None),
        ("reduce_sum", (EMPTY,), TensorType(F32, (2,)), None),
        ("matmul", (EMPTY, TensorType(F32, (0, 3))), FULL, None),
        ("neg", (TensorType(dtype("f64"), (2, 3)),), TensorType(dtype("f64"), (2, 3)), "loads or stores f64"),
    ],
)
def test_what_has_no_elements_is_no_problem(
    op: str, inputs: tuple[TensorType, ...], output: TensorType, reason: str | None
) -> None:
    node = Node(op, tuple(f"i{place}" for place in range(len(inputs))), (Value("y", output),))
    found = device_problem(node, inputs)
    assert found is None if reason is None else reason in (found or "")


def test_parts_without_elements_need_no_host() -> None:
    package = compile_model(
        parser.parse_model("""
            <ir_version: 8, opset_import: ["" : 18]>
            parts (float[2, 4] x) => (float[2, 4] y, float[2, 0] z) <int64[2] sizes = {4, 0}> {
                a, z = Split <axis = 1> (x, sizes)
                b = Neg(a)
                y = Concat <axis = 1> (b, z)
            }
        """),
        target="tiny",
    )
    assert not package.manifest.first.host_nodes
    x = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
    actual = load(package).run({"x": x})
    np.testing.assert_array_equal(actual["y"], -x)
    assert actual["z"].shape == (2, 0)
