"""The limit on the memory of constants: on the device, for the host, and splats that never become dense."""

from __future__ import annotations

import numpy as np
import pytest
from bad_model import model_of, node, value

from birc.cli.main import main
from birc.compiler import compile_model
from birc.compiler.passes.constant_memory import check_bytes
from birc.runtime.errors import LimitError


def product(known: bool):
    """A product with 4 MiB of weights: stored in the file, or claimed by ConstantOfShape."""
    weights = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    if known:
        return model_of([node("MatMul", ("x", "w"))], [value("x", (8, 1024))], known={"w": weights})
    nodes = [node("ConstantOfShape", ("n",), ("w",)), node("MatMul", ("x", "w"))]
    return model_of(nodes, [value("x", (8, 1024))], known={"n": [1024, 1024]})


@pytest.mark.parametrize("known", [True, False])
def test_constants_beyond_the_limit(known: bool) -> None:
    with pytest.raises(LimitError) as caught:
        compile_model(product(known), mem_limit_bytes=2**20)
    message = str(caught.value)
    assert caught.value.exit_code == 8
    assert "4194304 bytes" in message
    assert "1048576" in message
    assert "'w'" in message


def test_constants_within_the_limit() -> None:
    assert compile_model(product(True), mem_limit_bytes=2**23) is not None


def test_spread_splat_takes_no_memory() -> None:
    nodes = [node("ConstantOfShape", ("n",), ("w",)), node("Add", ("x", "w"))]
    model = model_of(nodes, [value("x", (1024, 1024))], known={"n": [1024, 1024]})
    assert compile_model(model, mem_limit_bytes=2**20) is not None


def test_constants_of_the_host() -> None:
    with pytest.raises(LimitError, match="'b' with 300 bytes"):
        check_bytes({"a": 200, "b": 300}, 400)


@pytest.mark.parametrize(
    ("text", "code"), [("1MiB", 8), ("16 MiB", 0), ("16777216", 0), ("much", 2), ("0", 2), ("-1", 2)]
)
def test_option(tmp_path, text: str, code: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(product(True).SerializeToString())
    assert main(["compile", str(path), "-o", str(tmp_path / "out.birc"), "--mem-limit", text]) == code
