"""Sampling and transforms beyond what one node against onnxruntime shows.

Run-time parameters that contradict the declared shape fault, long transforms stay accurate, large regions change the
method and not the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lowering_case import Case, case, f32, ints
from networks import onnxruntime_outputs
from onnx.reference import ReferenceEvaluator

from birc.compiler import compile_model
from birc.compiler.importer import roi_align
from birc.compiler.importer.importer import import_model, import_parts
from birc.compiler.ir.interpreter import run_graph
from birc.runtime import load
from birc.runtime.errors import BircError

F32 = np.float32
IMAGE = f32(1, 2, 5, 7)


def on_device(entry: Case) -> np.ndarray:
    model, given = entry.model()
    return load(compile_model(model)).run(given)["o0"]


def scaled(scales: tuple[float, ...], shape: tuple[int, ...], **attributes: Any) -> Case:
    return case("Resize", IMAGE, None, np.array(scales, F32), opset=19, shapes=(shape,), **attributes)


@pytest.mark.parametrize("scales", [(1, 1, 2, 1 / 3), (1, 1, 2.1, 0.4), (1, 1.2, 2.19, 0.42)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_every_scale_that_gives_the_declared_shape_is_right(scales: tuple[float, ...], mode: str) -> None:
    entry = scaled(scales, (1, 2, 10, 2), mode=mode, coordinate_transformation_mode="asymmetric")
    expected = ReferenceEvaluator(entry.model()[0]).run(None, entry.model()[1])[0]
    np.testing.assert_allclose(on_device(entry), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [3, 7, 9, 41, 47, 49])
def test_whole_quotients_by_run_time_scales_are_whole(steps: int) -> None:
    """floor(k n / n) is k: a quotient a little too small would take the element before."""
    line = np.arange(4, dtype=F32).reshape(1, 4)
    entry = case("Resize", line, None, np.array([1, steps], F32), opset=19, shapes=((1, 4 * steps),),
                 coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    np.testing.assert_array_equal(on_device(entry), np.repeat(line, steps, 1))


REFUSED = {
    "scales": scaled((1, 1, 2, 2), (1, 2, 10, 2)),
    "sizes": case("Resize", IMAGE, None, None, ints(1, 2, 9, 2), opset=19, shapes=((1, 2, 10, 2),)),
    "ratio": case("Resize", IMAGE, None, None, ints(10, 13), opset=19, shapes=((1, 2, 10, 14),), axes=[2, 3],
                  keep_aspect_ratio_policy="not_larger"),
    "window": case("HannWindow", np.array(9, np.int64), opset=17, shapes=((10,),)),
    "grid": case("AffineGrid", f32(1, 2, 3), ints(1, 3, 5, 4), opset=20, shapes=((1, 4, 5, 2),)),
    "crop": case("CenterCropPad", IMAGE, ints(1, 2, 3, 3), shapes=((1, 2, 3, 4),)),
    "axis": case("DFT", f32(2, 6, 6, 1), None, np.array(0), opset=20, onesided=1, shapes=((2, 4, 6, 2),)),
    "length": case("DFT", f32(2, 6, 1), np.array(7), opset=17, onesided=1, shapes=((2, 5, 2),)),
    "step": case("STFT", f32(1, 40, 1), np.array(6), f32(8), opset=17, shapes=((1, 7, 5, 2),)),
    "frame": case("STFT", f32(1, 40, 1), np.array(5), None, np.array(7), opset=17, shapes=((1, 7, 5, 2),)),
    "mel": case("MelWeightMatrix", np.array(9), np.array(64), np.array(8000), F32(0), F32(4000), opset=17,
                shapes=((33, 8),)),
}  # fmt: skip


@pytest.mark.parametrize("entry", REFUSED.values(), ids=REFUSED)
def test_parameters_that_contradict_the_declared_shape_fault(entry: Case) -> None:
    with pytest.raises(BircError, match="an indexed load has the index"):
        on_device(entry)


@pytest.mark.parametrize("op", ["HannWindow", "DFT", "Resize"])
def test_without_a_declared_shape_the_node_is_not_lowered(op: str) -> None:
    inputs = {
        "HannWindow": (np.array(9, np.int64),),
        "DFT": (f32(2, 6, 1), np.array(7)),
        "Resize": (IMAGE, None, np.ones(4, F32)),
    }
    (unsupported,) = import_parts(case(op, *inputs[op], opset=19).model()[0]).host_nodes
    assert "only known at run time" in unsupported.reason


@pytest.mark.parametrize("length", [600, 1021, 1024, 1499])
@pytest.mark.parametrize("attributes", [{}, {"inverse": 1}, {"onesided": 1}, {"inverse": 1, "onesided": 1}])
def test_long_transforms_against_fp64(length: int, attributes: dict[str, int]) -> None:
    is_half = len(attributes) == 2
    given = f32(2, length // 2 + 1 if is_half else length, 1 if attributes == {"onesided": 1} else 2)
    signal = given[..., 0] + 1j * given[..., -1] * (given.shape[-1] - 1)
    if is_half:
        expected = np.fft.irfft(signal.astype(np.complex128), length)[..., None]
    else:
        whole = (np.fft.ifft if attributes.get("inverse") else np.fft.fft)(signal.astype(np.complex128))
        half = whole[:, : length // 2 + 1] if attributes.get("onesided") else whole
        expected = np.stack([half.real, half.imag], -1)
    entry = case("DFT", given, np.array(length), known=(1,), opset=17, **attributes)
    found = run_graph(import_model(entry.model()[0]), {"i0": given})["o0"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("samples", [0, 2])
def test_means_over_regions_by_weights_of_pixels(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What many regions take, for few."""
    monkeypatch.setattr(roi_align, "LARGEST_HELPER_ELEMENTS", 0)
    regions = np.array([[0, 1, 3.5, 3], [-2, -4, 9, 11], [1.25, 0.5, 1.5, 0.5]], F32)
    entry = case("RoiAlign", f32(2, 3, 4, 5), regions, ints(0, 1, 1), opset=16, sampling_ratio=samples,
                 output_height=2, output_width=3)  # fmt: skip
    model, given = entry.model()
    graph = import_model(model)
    assert any(node.op == "matmul" for node in graph.nodes)
    expected = onnxruntime_outputs(model, given)["o0"]
    np.testing.assert_allclose(run_graph(graph, given)["o0"], expected, rtol=1e-4, atol=1e-5)


def test_a_grid_that_is_no_number_faults_nowhere() -> None:
    grid = np.array([np.nan, np.inf, -np.inf, 1e30, 0, 0], F32).reshape(1, 1, 3, 2)
    for padding in ("zeros", "border", "reflection"):
        entry = case("GridSample", IMAGE, grid, opset=20, padding_mode=padding)
        assert np.isfinite(on_device(entry)[..., 2]).all()
