"""Convolutions by windows of a patch: the whole path gives what onnxruntime gives, and all engines agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pipeline import Compiled, compile_network, compiled_plans

from birc.compiler.importer.importer import import_model
from birc.compiler.ir.plan import SPC, Kernel, Tiling
from birc.compiler.ir.plan_winding import winds_through_depth
from birc.compiler.passes import contraction_cost
from birc.compiler.passes.contraction_cost import Shape
from birc.compiler.prove import new_prover
from birc.runtime.timing import simulate
from birc.runtime.values.engine import ValuesEngine


@dataclass(frozen=True)
class Window:
    """A convolution of `shape` [n, c, h, w] and its attributes; `by_windows` tells whether the machine has it."""

    kernel: tuple[int, int]
    shape: tuple[int, int, int, int] = (1, 5, 11, 13)
    filters: int = 6
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: int = 1
    stride: int = 1
    group: int = 1
    by_windows: bool = True

    def model(self) -> onnx.ModelProto:
        """The convolution, its weights a constant, with a bias and ReLU."""
        rng = np.random.default_rng(len(repr(self)))
        weights = rng.integers(-3, 4, (self.filters, self.shape[1] // self.group, *self.kernel))
        initializers = [
            onnx.numpy_helper.from_array(weights.astype(np.float32), "w"),
            onnx.numpy_helper.from_array(rng.integers(-9, 9, self.filters).astype(np.float32), "b"),
        ]
        attributes = {
            "kernel_shape": self.kernel, "pads": self.pads, "dilations": [self.dilation] * 2,
            "strides": [self.stride] * 2, "group": self.group,
        }  # fmt: skip
        nodes = [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", **attributes),
            helper.make_node("Relu", ["c"], ["y"], "relu"),
        ]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "g", [x], [y], initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def inputs(self) -> dict[str, np.ndarray]:
        return {"x": np.random.default_rng(1).integers(-4, 5, self.shape).astype(np.float32)}


SQUARES = [Window((size, size), pads=(size // 2,) * 4) for size in range(2, 8)]
DILATED = [Window((size, size), pads=(min(3, size - 1),) * 4, dilation=2, shape=(1, 3, 14, 15)) for size in range(2, 7)]
OTHERS = [
    Window((7, 7), pads=(3, 2, 1, 0), dilation=2, shape=(2, 3, 12, 14)),
    Window((1, 7), pads=(0, 3, 0, 3)),
    Window((5, 1), pads=(2, 0, 1, 0), shape=(3, 8, 9, 5)),
    Window((3, 3), pads=(1, 1, 1, 1), shape=(2, 8, 16, 16), filters=16),
    Window((3, 3), pads=(1, 1, 1, 1), shape=(2, 40, 17, 7), filters=70),
    Window((3, 3), pads=(1, 1, 1, 1), shape=(1, 12, 10, 9), filters=6, group=3),
    Window((2, 3), shape=(1, 300, 3, 4)),
    Window((1, 5), pads=(0, 2, 0, 2), shape=(1, 5, 1, 30)),
    Window((3, 3), shape=(4, 6, 3, 3)),
]
BY_COORDINATES = [
    Window((1, 1), by_windows=False),
    Window((3, 3), pads=(1, 1, 1, 1), stride=2, by_windows=False),
    Window((3, 3), pads=(3, 3, 3, 3), dilation=3, by_windows=False),
    Window((3, 3), pads=(4, 4, 4, 4), by_windows=False),
    Window((8, 8), shape=(1, 5, 11, 13), by_windows=False),
]


LINES = [
    Window((3, 3), pads=(1, 1, 1, 1), shape=(16, 5, 7, 7)),
    Window((3, 3), pads=(1, 1, 1, 1), shape=(26, 40, 14, 9), filters=70),
    Window((3, 2), pads=(2, 0, 1, 1), dilation=2, shape=(24, 3, 10, 9)),
    Window((5, 4), pads=(0, 3, 2, 1), shape=(14, 130, 10, 10)),
    Window((2, 3), pads=(1, 1, 0, 1), shape=(16, 40, 6, 7)),
]
"""Images of which windows of lines are fewer than squares."""
FOLDED = [
    (Window((3, 3), pads=(1, 1, 1, 1), shape=(32, 5, 12, 12)), 16),
    (Window((3, 3), pads=(1, 0, 1, 2), shape=(64, 40, 10, 10), filters=70), 32),
    (Window((4, 2), pads=(1, 0, 2, 0), dilation=2, shape=(32, 40, 12, 12)), 16),
]
"""Images of which windows have a line of pixels of many samples, and how many of these."""


@pytest.fixture(autouse=True)
def prefer_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tilings by windows before all others, whatever the estimate says."""
    _prefer(monkeypatch, lambda tiling: bool(tiling.taps))


def _prefer(monkeypatch: pytest.MonkeyPatch, wanted: Callable[[Tiling], bool]) -> None:
    estimate = contraction_cost.estimate

    def preferring(shape: Shape, tiling: Tiling) -> float:
        return estimate(shape, tiling) + (0.0 if wanted(tiling) else 1e12)

    monkeypatch.setattr("birc.compiler.passes.tile_contraction.estimate", preferring)


def by_windows(compiled: Compiled) -> bool:
    return any(i.mnemonic == "tconv" for kernel in compiled.program.kernels for i in kernel.instructions())


@pytest.mark.parametrize("case", [*SQUARES, *DILATED, *OTHERS, *BY_COORDINATES], ids=str)
def test_values_are_those_of_onnxruntime(case: Window) -> None:
    _check(case)


@pytest.mark.parametrize("case", LINES, ids=str)
def test_values_by_windows_of_lines(case: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    _prefer(monkeypatch, lambda tiling: len(tiling.taps) == 1)
    tilings = [kernel.tiling for kernel in _check(case).kernels if kernel.contraction is not None]
    assert {len(tiling.taps) for tiling in tilings if tiling is not None} == {1}


def test_slots_of_a_patch_are_given_back_with_its_last_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch that goes past two columns takes two slots; one of them is free when both columns had all taps."""
    case = Window((3, 5), pads=(0, 1, 1, 2), shape=(20, 16, 12, 6), filters=70)
    _prefer(monkeypatch, lambda tiling: len(tiling.taps) == 1 and (tiling.hoist, tiling.columns) == ("b", 2))
    plans = list(compiled_plans(import_model(case.model()), "br100"))
    tilings = [kernel.tiling for one in plans for kernel in one.kernels if kernel.contraction is not None]
    assert (1, "b", 1, 2) in {(len(one.taps), one.hoist, one.rows, one.columns) for one in tilings if one is not None}
    for one in plans:
        _check(case, one)


@pytest.mark.parametrize(("case", "samples"), FOLDED, ids=str)
def test_values_by_windows_of_many_samples(case: Window, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _prefer(monkeypatch, _takes_many_samples)
    compiled = _of_all_spcs(case)
    tilings = [kernel.tiling for kernel in compiled.kernels if kernel.contraction is not None]
    assert {dict(tiling.tile)["n"] for tiling in tilings if tiling is not None} == {samples}
    _check(case, compiled)


def _of_all_spcs(case: Window, precision: str = "model") -> Compiled:
    """The plan in which SPCs have no samples of their own."""
    plans = compiled_plans(import_model(case.model()), "br100", precision)
    return next(one for one in plans if all(d.name != SPC for kernel in one.kernels for d in kernel.space))


def _takes_many_samples(tiling: Tiling) -> bool:
    return len(tiling.taps) == 1 and dict(tiling.tile)["n"] > 8


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    shape=st.tuples(st.integers(2, 17), st.integers(1, 40), st.integers(7, 20), st.integers(7, 20)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    dilation=st.integers(1, 2),
)
def test_convolutions_of_many_samples(
    kernel: tuple[int, int], shape: tuple[int, int, int, int], pads: tuple[int, int, int, int], dilation: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _prefer(patch, lambda tiling: len(tiling.taps) == 1)
        _check(Window(kernel, shape, pads=pads, dilation=dilation, by_windows=kernel != (1, 1)))


def _check(case: Window, compiled: Compiled | None = None) -> Compiled:
    """Compile, verify, prove; values are those of onnxruntime, and what is timed is what is executed."""
    model, inputs = case.model(), case.inputs()
    compiled = compiled or compile_network(model, "br100")
    assert by_windows(compiled) == case.by_windows
    compiled.verify()
    new_prover().prove(compiled.plan, compiled.machine)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    memory, engine = compiled.memory(inputs), ValuesEngine(compiled.program, compiled.machine)
    counts = engine.run(memory)
    assert engine.fallbacks == ()
    np.testing.assert_array_equal(compiled.outputs(memory)["y"], expected)
    assert simulate(compiled.program, compiled.machine).counts == counts
    return compiled


def test_a_ring_need_not_hold_whole_blocks() -> None:
    """The weights of nine taps and 128 channels fit the input buffer once, and seven of the next nine beside them."""
    case = Window((3, 3), pads=(1, 1, 1, 1), shape=(1, 256, 16, 8), filters=16)
    compiled = compile_network(case.model(), "br100", "bf16")
    (tiling,) = {kernel.tiling for kernel in compiled.kernels if kernel.contraction is not None}
    assert tiling is not None
    assert dict(tiling.tile)["c"] == 128
    assert (tiling.resident, tiling.b_slots) == (2, 16)
    compiled.verify()
    inputs = case.inputs()
    values, counts = compiled.values_counted(inputs)
    stepped, step_counts = compiled.step_counted(inputs, "random", 3)
    np.testing.assert_array_equal(values["y"], stepped["y"])
    assert counts == step_counts


DEEP = [
    Window((3, 3), pads=(1, 1, 1, 1), shape=(2, 256, 14, 14), filters=140),
    Window((3, 3), pads=(1, 1, 1, 1), shape=(16, 280, 7, 4), filters=70),
    Window((5, 5), pads=(2, 2, 2, 2), shape=(8, 72, 14, 14), filters=30),
]
"""Images whose weights are a little too deep for the input buffer."""


@pytest.mark.parametrize("case", DEEP, ids=str)
def test_rows_wind_through_weights_that_do_not_fit(case: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the values engine finds in the slots was loaded in different places: it goes step by step."""
    _prefer(monkeypatch, lambda tiling: bool(tiling.taps) and tiling.hoist == "b" and tiling.stream)
    plans = list(compiled_plans(import_model(case.model()), "br100", "bf16"))
    wound = [one for one in plans if any(map(_winds, one.kernels))]
    assert wound
    inputs = case.inputs()
    session = onnxruntime.InferenceSession(case.model().SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    for compiled in wound:
        compiled.verify()
        new_prover().prove(compiled.plan, compiled.machine)
        _check_steps(inputs, compiled)
        np.testing.assert_allclose(compiled.values(inputs)["y"], expected, rtol=2**-8)  # Stored as BF16.


def _winds(kernel: Kernel) -> bool:
    return kernel.tiling is not None and winds_through_depth(kernel, kernel.tiling)


@pytest.mark.parametrize(
    "case", [SQUARES[1], DILATED[1], OTHERS[1], OTHERS[4], LINES[0], LINES[2], FOLDED[0][0]], ids=str
)
def test_stepping_gives_the_same_in_any_order(case: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    if case in LINES:
        _prefer(monkeypatch, lambda tiling: len(tiling.taps) == 1)
    inputs = case.inputs()
    _check_steps(inputs, compile_network(case.model(), "br100", "bf16"))


def test_stepping_gives_the_same_for_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    _prefer(monkeypatch, _takes_many_samples)
    case, _ = FOLDED[0]
    _check_steps(case.inputs(), _of_all_spcs(case, "bf16"))


def _check_steps(inputs: dict[str, np.ndarray], compiled: Compiled) -> None:
    values, counts = compiled.values_counted(inputs)
    for seed in range(2):
        stepped, step_counts = compiled.step_counted(inputs, "random" if seed else "sequential", seed)
        np.testing.assert_array_equal(stepped["y"], values["y"])
        assert step_counts == counts
