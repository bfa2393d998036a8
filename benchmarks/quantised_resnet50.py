"""ResNet-50 quantised to INT8: how often its first class stays, how long it takes, how busy the T-cores are.

    python benchmarks/quantised_resnet50.py [--images 100] [--batch 10] [--target br100]

Builds the network of examples/resnet50.py with a classifier that tells random pictures apart, as training makes one,
and quantises it with onnxruntime: statically, weights by channel, symmetric. Calibration and test images are random
pictures with noise. The package (precision int8) and onnxruntime classify them. Needs onnxruntime (the extra `bench`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from birc.compiler import compile_model
from birc.runtime import load
from birc.runtime.package import Package
from birc.runtime.session import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import resnet50

GOAL = 0.99
"""Share of the images whose first class must be that of the FP32 network."""

CLASSES = 10
COARSE = 3
"""Pictures are of so many random pixels a side, enlarged."""
NOISE = 0.2
FEATURES = "head.flatten_out"
CALIBRATION_IMAGES = 40
CALIBRATION_BATCH = 10


def pictures(count: int, size: int, seed: int) -> np.ndarray:
    """Random pictures with large structures, as photographs have."""
    coarse = np.random.default_rng(seed).standard_normal((count, 3, COARSE, COARSE))
    rows = np.linspace(0, COARSE - 1, size)
    low = np.minimum(rows.astype(int), COARSE - 2)
    part = rows - low
    tall = coarse[:, :, low] * (1 - part)[:, None] + coarse[:, :, low + 1] * part[:, None]
    return (tall[..., low] * (1 - part) + tall[..., low + 1] * part).astype(np.float32)


def images(count: int, size: int, seed: int) -> np.ndarray:
    """Random ones of the pictures, varied."""
    generator = np.random.default_rng(seed)
    return varied(pictures(CLASSES, size, seed=0)[generator.integers(0, CLASSES, count)], generator)


def varied(chosen: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Pictures with noise, in other contrast and brightness."""
    count = len(chosen)
    contrast, brightness = generator.uniform(0.9, 1.1, (count, 1, 1, 1)), generator.normal(0, 0.05, (count, 1, 1, 1))
    return (chosen * contrast + brightness + NOISE * generator.standard_normal(chosen.shape)).astype(np.float32)


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Hands images to the quantiser, batch by batch."""

    def __init__(self, data: np.ndarray, batch: int) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.split(data, len(data) // batch))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def outputs(model: onnx.ModelProto, data: np.ndarray, batch: int) -> np.ndarray:
    """What onnxruntime computes, operator by operator: its fused 8-bit kernels saturate in between."""
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"image": part})[0] for part in np.split(data, len(data) // batch)]
    return np.concatenate([np.asarray(part) for part in parts])


def network(batch: int, width: int, size: int) -> onnx.ModelProto:
    """ResNet-50 in FP32 whose classifier tells the `CLASSES` pictures apart: the nearest mean of features."""
    model = resnet50.build(batch, width=width, image_size=size, classes=CLASSES)
    with_features = onnx.ModelProto()
    with_features.CopyFrom(model)
    with_features.graph.output[0].CopyFrom(onnx.ValueInfoProto(name=FEATURES))
    means = outputs(with_features, varied(pictures(CLASSES, size, seed=0), np.random.default_rng(3)), batch)
    centred = means - means.mean(0)
    scale = 1 / centred.var()
    head = {"head.fc.weight": scale * centred, "head.fc.bias": -0.5 * scale * (means**2 - means.mean(0) ** 2).sum(1)}
    for tensor in model.graph.initializer:
        if tensor.name in head:
            tensor.CopyFrom(numpy_helper.from_array(head[tensor.name].astype(np.float32), tensor.name))
    return model


def quantised(model: onnx.ModelProto, data: np.ndarray, batch: int) -> onnx.ModelProto:
    """The model with QuantizeLinear and DequantizeLinear around its operators."""
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, result = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "result"))
        onnx.save(model, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(result),
            Calibration(data, batch),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "Gemm", "MaxPool"],
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"],
            },
        )
        return onnx.load(result)


def compiled(model: onnx.ModelProto, target: str, precision: str) -> Session:
    """A session of the compiled model."""
    package: Package | None = compile_model(model, target=target, precision=precision)
    if package is None:
        raise RuntimeError("the compilation was stopped")
    return load(package)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """The share of rows with the same largest element."""
    return float((a.argmax(1) == b.argmax(1)).mean())


def main() -> int:
    """Print the figures; 1 when too few first classes stay."""
    parser = argparse.ArgumentParser(description="ResNet-50 quantised to INT8.")
    parser.add_argument("--images", type=int, default=100, help="a multiple of the batch")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--target", default="br100")
    parser.add_argument("--width", type=int, default=64, help="channels after the first convolution")
    parser.add_argument("--image-size", type=int, default=224)
    given = parser.parse_args()
    calibration = images(CALIBRATION_IMAGES // given.batch * given.batch or given.batch, given.image_size, seed=1)
    data = images(given.images, given.image_size, seed=2)
    model = network(given.batch, given.width, given.image_size)
    whole = quantised(model, calibration, given.batch)
    session = compiled(whole, given.target, "int8")
    parts = [session.run({"image": part})["logits"] for part in np.split(data, len(data) // given.batch)]
    ours = np.concatenate(parts)
    exact, reference = outputs(model, data, given.batch), outputs(whole, data, given.batch)
    stays = agreement(ours, exact)
    print(f"same first class as FP32 onnxruntime           {stays:.0%}")
    print(f"same first class as INT8 onnxruntime           {agreement(ours, reference):.0%}")
    print(f"classes found in {given.images} images                    {len(np.unique(exact.argmax(1)))}")
    for precision, made in (("int8", session), ("bf16", compiled(model, given.target, "bf16"))):
        report = made.profile(with_range=False)
        busy = f"T-core {report.utilization['tcore']:.1%}, vector cores {report.utilization['vcore']:.1%}"
        print(f"{precision}: {report.latency_us:,.1f} us for {given.batch} images, {busy}")
    return 0 if stays >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
