"""Products of integers that are not lowered: too large for the vector cores, or scaled by fractions."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from birc.compiler.importer.importer import import_model
from birc.runtime.errors import UnsupportedError


def _import(op: str, size: int, **attributes: float) -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, [size, size]) for name in ("a", "b")]
    output = helper.make_tensor_value_info("y", TensorProto.INT32, [size, size])
    node = helper.make_node(op, ["a", "b"], ["y"], name="the_node", **attributes)
    graph = helper.make_graph([node], "one_node", inputs, [output])
    import_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def test_a_large_product_of_wide_integers() -> None:
    _import("MatMul", 256)
    with pytest.raises(UnsupportedError, match=r"the_node.*MatMul.*multiplies 27000000 pairs of i32"):
        _import("MatMul", 300)


def test_integers_scaled_by_a_fraction() -> None:
    with pytest.raises(UnsupportedError, match=r"scales i32 by 0.5"):
        _import("Gemm", 4, alpha=0.5)
