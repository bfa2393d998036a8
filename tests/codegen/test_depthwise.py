"""Depthwise convolutions on the vector cores: values of onnxruntime, whatever the shape, on every machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from pipeline import Compiled, compile_graph, compile_network
from window_ways import choose_only, choose_taps_beside, joins_taps

from birc.compiler.driver import compile_model
from birc.compiler.importer.importer import import_model
from birc.compiler.ir.plan import KernelStep, Statement
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.plan_verify import find_plan_problems
from birc.compiler.ir.registers import vector_registers
from birc.compiler.passes import tile_window
from birc.compiler.passes.taps_beside import may_lie_beside
from birc.compiler.passes.unroll_window import Unrolling, in_window_form, unrolled, window_of
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine
from birc.runtime.timing import simulate


@dataclass(frozen=True)
class Depthwise:
    """A convolution of `shape` [n, c, h, w], every channel by itself, with or without a bias, and a Clip."""

    shape: tuple[int, int, int, int]
    kernel: tuple[int, int] = (3, 3)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    bias: bool = True
    shared: bool = False

    def model(self) -> onnx.ModelProto:
        """Whole numbers, so that sums are exact in any order; `shared`: the sum is added to what it was made of."""
        rng = np.random.default_rng(len(repr(self)))
        channels = self.shape[1]
        weights = rng.integers(-3, 4, (channels, 1, *self.kernel)).astype(np.float32)
        initializers = [
            onnx.numpy_helper.from_array(weights, "w"),
            onnx.numpy_helper.from_array(rng.integers(-9, 9, channels).astype(np.float32), "b"),
            onnx.numpy_helper.from_array(np.float32(-20), "low"),
            onnx.numpy_helper.from_array(np.float32(30), "high"),
        ]
        attributes = {
            "kernel_shape": self.kernel, "pads": self.pads, "dilations": self.dilations,
            "strides": self.strides, "group": channels,
        }  # fmt: skip
        taken = ["x", "w", "b"] if self.bias else ["x", "w"]
        nodes = [
            helper.make_node("Conv", taken, ["c"], "conv", **attributes),
            helper.make_node("Clip", ["c", "low", "high"], ["d"], "clip"),
            helper.make_node("Add", ["d", "x" if self.shared else "d"], ["y"], "add"),
        ]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "g", [x], [y], initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def inputs(self) -> dict[str, np.ndarray]:
        return {"x": np.random.default_rng(1).integers(-4, 5, self.shape).astype(np.float32)}


def drawn(seed: int) -> Depthwise:
    """A small convolution of any kernel, stride, dilation and borders whose output is not empty."""
    rng = np.random.default_rng(seed)
    while True:
        kernel = tuple(int(k) for k in rng.choice([1, 2, 3, 3, 5], 2))
        strides = tuple(int(k) for k in rng.choice([1, 1, 2, 3], 2))
        dilations = tuple(int(k) for k in rng.choice([1, 1, 2], 2))
        pads = tuple(int(k) for k in rng.integers(0, 3, 4))
        shape = tuple(int(rng.integers(1, most)) for most in (4, 40, 24, 24))
        case = Depthwise(shape, kernel, pads, strides, dilations, bool(rng.integers(2)))
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        if all(shape[2 + i] + pads[i] + pads[2 + i] >= reach[i] for i in range(2)) and shape[1] > 1 and max(kernel) > 1:
            return case


CASES = [
    Depthwise((1, 32, 16, 16)),
    Depthwise((2, 7, 13, 11), strides=(2, 2)),
    Depthwise((1, 65, 7, 14), (5, 5), (2, 2, 2, 2)),
    Depthwise((2, 16, 15, 14), (5, 5), (4, 4, 4, 4), dilations=(2, 2)),
    Depthwise((3, 12, 9, 8), pads=(0, 1, 2, 0), strides=(1, 2)),
    Depthwise((2, 24, 12, 12), shared=True),
    Depthwise((2, 24, 12, 12), bias=False),
    Depthwise((1, 4, 40, 40), (7, 7), (3, 3, 3, 3)),
    Depthwise((40, 8, 6, 6)),
    *(drawn(seed) for seed in range(3)),
]
MORE = [drawn(seed) for seed in range(3, 24)]


def expected_of(case: Depthwise) -> np.ndarray:
    session = onnxruntime.InferenceSession(case.model().SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, case.inputs())
    return expected


def check_window(compiled: Compiled) -> None:
    """The window is unrolled: nothing is folded, and its registers are within the machine's."""
    kernels = [kernel for kernel in compiled.kernels if kernel.macs and kernel.contraction is None]
    assert kernels
    for kernel in kernels:
        assert kernel.tiling is not None
        assert not any(s.op.startswith("vfold") for phase in kernel.phases for s in phase.statements)
        assert (
            kernel.tiling.programs * vector_registers(kernel.phases, kernel.tiling.once).count
            <= compiled.machine.vector_registers
        )


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE)], ids=str)
def test_values_are_those_of_onnxruntime(case: Depthwise) -> None:
    for target, precision in (("br100", "bf16"), ("tiny", "model")):
        compiled = compile_network(case.model(), target, precision)
        compiled.verify()
        check_window(compiled)
        values, counts = compiled.values_counted(case.inputs())
        # Small whole numbers: BF16 has them all.
        np.testing.assert_array_equal(values["y"], expected_of(case))
        assert simulate(compiled.program, compiled.machine).counts == counts


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_plans_are_proved(case: Depthwise) -> None:
    compiled = compile_network(case.model(), "br100", "bf16")
    new_prover().prove(compiled.plan, compiled.machine)


@pytest.mark.parametrize("case", [CASES[1], CASES[4], CASES[5]], ids=str)
def test_stepping_gives_the_same_in_any_order(case: Depthwise) -> None:
    compiled = compile_network(case.model(), "br100", "bf16")
    for seed in range(2):
        stepped = compiled.step(case.inputs(), "random" if seed else "sequential", seed)
        np.testing.assert_array_equal(stepped["y"], expected_of(case))


@pytest.mark.parametrize("registers", [3, 4, 6, 9])
def test_few_registers_are_enough(registers: int) -> None:
    """Fewer outputs are then computed together, down to a loop over the taps."""
    case = CASES[4]
    machine = load_machine("tiny").with_values({"vector_registers": registers})
    compiled = compile_graph(import_model(case.model()), machine)
    for kernel in compiled.kernels:
        assert kernel.tiling is not None
        assert kernel.tiling.programs * vector_registers(kernel.phases, kernel.tiling.once).count <= registers
    np.testing.assert_array_equal(compiled.values(case.inputs())["y"], expected_of(case))


def test_what_is_loaded_serves_all_outputs_of_a_group() -> None:
    """Four rows of outputs under 3 x 3 taps need six rows, each at three places, and the bias begins the sums."""
    case = Depthwise((1, 32, 16, 16))
    (kernel,) = (kernel for kernel in compile_network(case.model()).lowered.kernels if kernel.macs)
    window = window_of(kernel)
    assert window is not None
    rows, columns = (d.name for d in kernel.par_dims if d.name in ("d2", "d3"))
    for ahead in (1, 3, 50):
        how = Unrolling(((rows, 4), (columns, 1)), (columns, rows), ahead, fused=True)
        (phase,) = unrolled(kernel, window, how).phases
        counts = Counter(s.op for s in phase.statements)
        assert counts == {"vld": 6 * 3 + 9 + 1, "vfma": 4 * 9, "vmax": 4, "vmin": 4, "vadd": 4, "vst": 4}
        under_way = 0
        for statement in phase.statements[:ahead]:
            under_way += statement.op == "vld"
        assert under_way == min(ahead, counts["vld"])


def check_values_and_counts(case: Depthwise, compiled: Compiled) -> None:
    """The program is right by the verifier and by its values, is counted alike by both engines, and has a text."""
    compiled.verify()
    check_window(compiled)
    assert parse_plan(print_plan(compiled.plan)) == compiled.plan
    values, counts = compiled.values_counted(case.inputs())
    np.testing.assert_array_equal(values["y"], expected_of(case))
    assert simulate(compiled.program, compiled.machine).counts == counts


@pytest.fixture
def loading_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all ways to unroll and tile only those by which a program loads the weights once for all its tiles."""
    choose_only(monkeypatch, lambda how: how.once)


@pytest.mark.usefixtures("loading_once")
@pytest.mark.parametrize("target", ["br100", "tiny"])
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[5], CASES[8]], ids=str)
def test_weights_can_be_loaded_once(case: Depthwise, target: str) -> None:
    compiled = compile_network(case.model(), target)
    assert any(kernel.tiling is not None and kernel.tiling.once for kernel in compiled.kernels)
    check_values_and_counts(case, compiled)
    np.testing.assert_array_equal(compiled.step(case.inputs(), "random", 1)["y"], expected_of(case))


@pytest.fixture
def taps_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all ways to unroll and tile only those whose taps along one dimension lie side by side in registers."""
    choose_taps_beside(monkeypatch)


def are_beside(compiled: Compiled) -> bool:
    """Whether sums of taps that lie side by side are joined, in every kernel that is a window."""
    windows = [kernel for kernel in compiled.kernels if kernel.macs and kernel.contraction is None]
    return bool(windows) and all(joins_taps(kernel) for kernel in windows)


@pytest.mark.usefixtures("taps_beside")
@pytest.mark.parametrize("target", ["br100", "tiny"])
@pytest.mark.parametrize("case", CASES[:8], ids=str)
def test_taps_can_lie_side_by_side(case: Depthwise, target: str) -> None:
    compiled = compile_network(case.model(), target)
    assert are_beside(compiled)
    check_values_and_counts(case, compiled)


@pytest.mark.usefixtures("taps_beside")
@pytest.mark.parametrize("case", [CASES[1], CASES[4], CASES[5]], ids=str)
def test_taps_side_by_side_are_proved_and_stepped(case: Depthwise) -> None:
    compiled = compile_network(case.model())
    assert are_beside(compiled)
    new_prover().prove(compiled.plan, compiled.machine)
    np.testing.assert_array_equal(compiled.step(case.inputs(), "random", 1)["y"], expected_of(case))


@pytest.mark.parametrize("name", ["r", "s"])
def test_a_load_brings_all_taps_side_by_side(name: str) -> None:
    """Two outputs under 7 x 7 taps need 8 loads along the other dimension, and 7 of weights; each has one reduction."""
    (kernel,) = (k for k in compile_network(CASES[7].model()).lowered.kernels if k.macs)
    found = in_window_form(kernel, name)
    assert found is not None
    along = {"r": "d3", "s": "d2"}[name]
    (phase,) = unrolled(*found, Unrolling(((along, 2),), (along,), 1, fused=True, beside=name)).phases
    counts = Counter(s.op for s in phase.statements)
    assert counts["vld"] == 8 + 7 + 1
    assert (counts["vmul"], counts["vfma"], counts["vredsum"]) == (2, 2 * 6, 2)


@pytest.mark.usefixtures("taps_beside")
def test_a_tile_has_one_output_along_taps_side_by_side() -> None:
    """What windows see of several outputs and several taps overlaps, and no box has it: the verifier says so."""
    compiled = compile_network(CASES[0].model())
    (step,) = (step for step in compiled.plan.steps if isinstance(step, KernelStep) and step.kernel.macs)
    kernels = []
    for kernel in step.kernels:
        assert kernel is not None
        assert kernel.tiling is not None
        (reduced,) = {d for phase in kernel.phases for s in phase.statements for d in s.dims}
        other = {"r": "d2", "s": "d3"}[reduced]
        tiling = replace(kernel.tiling, tile=tuple((d, 2 if d == other else n) for d, n in kernel.tiling.tile))
        kernels.append(replace(kernel, tiling=tiling))
    plan = replace(compiled.plan, steps=(replace(step, kernels=tuple(kernels)),))
    assert any(
        "several tiled dimensions" in str(problem) for problem in find_plan_problems(plan, "tile", compiled.machine)
    )


def test_few_taps_do_not_lie_side_by_side() -> None:
    """Three taps have a load each: a reduction of three would take as long as it saves."""
    compiled = compile_network(CASES[0].model())
    assert not are_beside(compiled)
    check_window(compiled)


def behind_a_product(case: Depthwise) -> onnx.ModelProto:
    """The convolution of a case, of what a product of channels leaves on the chip."""
    model, channels = case.model(), case.shape[1]
    mixing = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(mixing, "mixing"))
    model.graph.node[0].input[0] = "mixed"
    model.graph.node.insert(0, helper.make_node("Conv", ["x", "mixing"], ["mixed"], "product"))
    return model


def test_many_taps_are_loaded_together_where_they_would_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large window on few pixels has a load for each multiply-add: most of the time goes when a load has 7 taps."""
    model, machine = behind_a_product(Depthwise((1, 512, 7, 7), (7, 7), (3, 3, 3, 3))), load_machine("br100")
    cycles = []
    for may in (may_lie_beside, lambda *_: False):
        monkeypatch.setattr(tile_window, "may_lie_beside", may)
        package = compile_model(model, machine, "bf16")
        assert package is not None
        (program,) = package.programs.values()
        spans = simulate(program, machine).runs[-1].spans
        cycles.append(max(end for *_, end in spans) - min(start for _, _, start, _ in spans))
    assert 2 * cycles[0] < cycles[1]


@pytest.mark.usefixtures("loading_once")
def test_what_is_loaded_once_is_the_same_in_all_tiles_of_a_program() -> None:
    compiled = compile_network(CASES[0].model(), "tiny")
    (step,) = (step for step in compiled.plan.steps if isinstance(step, KernelStep) and step.kernel.macs)
    channels = step.kernel.par_dims[-1].name
    kernels = []
    for kernel in step.kernels:
        assert kernel is not None
        assert kernel.tiling is not None
        tile = tuple((name, 4 if name == channels else extent) for name, extent in kernel.tiling.tile)
        kernels.append(replace(kernel, tiling=replace(kernel.tiling, tile=tile, programs=1)))
    plan = replace(compiled.plan, steps=(replace(step, kernels=tuple(kernels)),))
    problems = find_plan_problems(plan, "tile", compiled.machine)
    assert any("once, which moves along" in str(problem) for problem in problems)


@pytest.mark.usefixtures("taps_beside")
@pytest.mark.parametrize(
    ("op", "attributes"),
    [("MaxPool", {}), ("AveragePool", {}), ("AveragePool", {"count_include_pad": 1}), ("MaxPool", {"strides": [2, 3]})],
    ids=str,
)
def test_taps_of_pools_can_lie_side_by_side(op: str, attributes: dict[str, Any]) -> None:
    """All below zero, so that what lies outside the image must not win."""
    pool = helper.make_node(op, ["x"], ["y"], "pool", kernel_shape=[3, 5], pads=[1, 2, 1, 2], **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 24, 11, 13))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([pool], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inputs = {"x": np.random.default_rng(2).integers(-9, 0, (2, 24, 11, 13)).astype(np.float32)}
    compiled = compile_network(model, "br100", "model")
    compiled.verify()
    joined = {s.op for kernel in compiled.kernels for phase in kernel.phases for s in phase.statements}
    assert joined & {"vredmax", "vredsum"}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    np.testing.assert_allclose(compiled.values(inputs)["y"], expected, rtol=1e-5)


@pytest.mark.parametrize("op", ["vredsum", "vredmax"])
def test_a_window_whose_outputs_are_reduced_is_not_unrolled(op: str) -> None:
    """Groups of outputs would be reduced each for itself."""
    (kernel,) = (k for k in compile_network(CASES[0].model()).lowered.kernels if k.macs)
    first, second = kernel.phases
    reduction = Statement(op, "reduced", (first.statements[-1].result,), dims=("d3",))
    after = tuple(
        replace(s, arguments=tuple("reduced" if a == first.statements[-1].result else a for a in s.arguments))
        for s in second.statements
    )
    reduced = replace(kernel, phases=(first, replace(second, statements=(reduction, *after))))
    assert window_of(kernel) is not None
    assert window_of(reduced) is None
    assert window_of(reduced, "r") is None
