"""The quantised ResNet-50: a small one agrees with onnxruntime, and goes on from every dump."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import relative_error

from birc.compiler.driver import compile_model, resume
from birc.runtime.codec import encode_program
from birc.runtime.session import load

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import quantised_resnet50 as benchmark


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """A narrow network on small images, quantised."""
    plain = benchmark.network(2, width=8, size=32)
    return benchmark.quantised(plain, benchmark.images(4, 32, seed=1), 2)


def test_agrees_with_onnxruntime_and_multiplies_integers_alone(model: onnx.ModelProto) -> None:
    data = benchmark.images(2, 32, seed=2)
    package = compile_model(model, precision="int8")
    assert package is not None
    (result,) = load(package).run({"image": data}).values()
    assert relative_error(result, benchmark.outputs(model, data, 2)) <= 0.1
    formats = {
        i.operands[5] for kernel in package.program.kernels for i in kernel.instructions() if i.mnemonic == "tmma"
    }
    assert formats == {"s8"}


def test_every_dump_gives_the_same_bytes(model: onnx.ModelProto, tmp_path: Path) -> None:
    package = compile_model(model, target="tiny", precision="int8", dump_ir=tmp_path)
    assert package is not None
    files = [p for p in sorted(tmp_path.iterdir()) if p.suffix in (".ir", ".plan")]
    assert any("quantized_products" in p.name for p in files)
    for file in files:
        again = resume(file, target="tiny", precision="int8")
        assert again is not None
        assert encode_program(again.program) == encode_program(package.program), file.name


def test_other_precisions_compute_the_model_in_floats(model: onnx.ModelProto) -> None:
    data = benchmark.images(2, 32, seed=2)
    package = compile_model(model, precision="fp32")
    assert package is not None
    (result,) = load(package).run({"image": data}).values()
    assert relative_error(result, benchmark.outputs(model, data, 2)) <= 0.1
    assert np.isfinite(result).all()
