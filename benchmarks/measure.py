"""One measurement: a model compiled, run and simulated, and run in onnxruntime in the same process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from workloads import Sample

from birc.cli.compare import relative_error
from birc.cli.files import random_inputs
from birc.compiler import compile_model
from birc.runtime import Package, load
from birc.runtime.errors import InternalError
from birc.runtime.report import Report

THREADS = 2
LEAST_RUNS = 3
MOST_RUNS = 25
SECONDS = 3.0  # a measurement is repeated until it has taken this long, or `MOST_RUNS` times


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model in one precision. Times of this computer are in seconds, those of the device in microseconds.

    `relative_error` is the largest of the outputs against onnxruntime.
    """

    name: str
    precision: str
    compile_s: float
    values_s: float
    onnxruntime_s: float
    relative_error: float
    timing_s: float
    latency_us: float
    roofline_us: float
    tcore_utilization: float
    vector_utilization: float
    hbm_utilization: float
    hbm_bytes: int
    compulsory_bytes: int

    @property
    def over_onnxruntime(self) -> float:
        return self.values_s / self.onnxruntime_s

    @property
    def over_compulsory(self) -> float:
        return self.hbm_bytes / self.compulsory_bytes

    @property
    def over_roofline(self) -> float:
        return self.latency_us / self.roofline_us


def measure(name: str, sample: Sample, target: str, precision: str) -> Measurement:
    """Measure one model. Raises the errors of birc when it cannot be compiled or run."""
    start = time.perf_counter()
    package = _compiled(sample, target, precision)
    compile_s = time.perf_counter() - start
    session = load(package)
    inputs = sample.inputs or random_inputs(session.inputs, seed=0)

    outputs = session.run(inputs)
    values_s = median_seconds(lambda: session.run(inputs))
    reference = Reference(sample.model)
    expected = reference.run(inputs)
    onnxruntime_s = median_seconds(lambda: reference.run(inputs))
    report = session.profile(with_range=False)
    timing_s = median_seconds(lambda: session.profile(with_range=False))

    error = max(relative_error(outputs[name], expected[name]) for name in outputs)
    seconds = {
        "compile_s": compile_s,
        "values_s": values_s,
        "onnxruntime_s": onnxruntime_s,
        "timing_s": timing_s,
    }
    return Measurement(name, precision, relative_error=error, **seconds, **_device_figures(report))


def _device_figures(report: Report) -> dict[str, float]:
    return {
        "latency_us": report.latency_us,
        "roofline_us": report.bound_us["roofline"],
        "tcore_utilization": report.utilization["tcore"],
        "vector_utilization": report.utilization["vcore"],
        "hbm_utilization": report.utilization["hbm"],
        "hbm_bytes": report.traffic["hbm_bytes"],
        "compulsory_bytes": report.traffic["compulsory_bytes"],
    }


def _compiled(sample: Sample, target: str, precision: str) -> Package:
    package = compile_model(
        sample.model, target=target, precision=precision, dims=sample.dimensions, batch=sample.batch
    )
    if package is None:
        raise InternalError("a compilation without a last phase gave no package")
    return package


class Reference:
    """The model in onnxruntime, with as many threads as the values engine has cores here."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        content = model.SerializeToString()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name."""
        return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))


def median_seconds(function: Callable[[], object]) -> float:
    """The median time of several calls."""
    seconds: list[float] = []
    while len(seconds) < LEAST_RUNS or (sum(seconds) < SECONDS and len(seconds) < MOST_RUNS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
