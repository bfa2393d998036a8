"""Convolutions of few channels: neighbours side by side in one row of a product."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from bound_checks import check_bounds
from networks import onnxruntime_outputs, relative_error
from onnx import TensorProto, helper, numpy_helper
from pairs import local_is_faster, own
from pipeline import Compiled, finished, fusing, plans_of

from birc.compiler import compile_model
from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import SPC, Kernel
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.local_chains import local_chains
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.partition import partitions
from birc.compiler.prove import new_prover
from birc.runtime import load
from birc.runtime.machine import Machine, load_machine
from birc.runtime.timing import TimingResult

BR100, TINY = load_machine("br100"), load_machine("tiny")
TOLERANCE = {"bf16": 2**-7, "fp32": 2**-20}


def random(*shape: int) -> np.ndarray:
    """Weights of which sums are about 1."""
    return np.random.default_rng(list(shape)).normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)


def network(
    shape: tuple[int, int, int, int],
    channels: int,
    out: int,
    *,
    kernel: int = 1,
    groups: int = 1,
    residual: bool = False,
    gate: tuple[int, ...] = (),
) -> onnx.ModelProto:
    """A stem (3x3, stride 2), the convolution that is looked at with bias and clip, and a pool of its results.

    What it makes is added to what it reads (`residual`), or multiplied by an input of the shape `gate`.
    """
    weights = {
        "stem": random(channels, shape[1], 3, 3),
        "stem_bias": random(channels),
        "weights": random(out, channels // groups, kernel, kernel),
        "bias": random(out),
        "low": np.float32(-1),
        "high": np.float32(1.5),
    }
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "stem", "stem_bias"], ["s"], "s", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["s", "low", "high"], ["r"], "r"),
        helper.make_node("Conv", ["r", "weights", "bias"], ["c"], "c", pads=pads, group=groups),
        helper.make_node("Clip", ["c", "low", "high"], ["t"], "t"),
        *([helper.make_node("Add", ["t", "r"], ["u"], "u")] if residual else ()),
        *([helper.make_node("Mul", ["t", "gate"], ["u"], "u")] if gate else ()),
        helper.make_node("MaxPool", ["u" if residual or gate else "t"], ["y"], "y", kernel_shape=[2, 2]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    if gate:
        inputs.append(helper.make_tensor_value_info("gate", TensorProto.FLOAT, gate))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    data = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "narrow", inputs, [y], data)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def fused(model: onnx.ModelProto, machine: Machine, precision: str = "bf16") -> Graph:
    return run_passes(canonicalize(import_model(model)), (*LEGALIZE, *fusing(machine, precision)))


def lowered(model: onnx.ModelProto, machine: Machine = BR100, precision: str = "bf16", joins: bool = True) -> Lowered:
    return lower_graph(fused(model, machine, precision), machine, precision, joins_neighbours=joins)


def compiled(model: onnx.ModelProto, machine: Machine, precision: str = "bf16", joins: bool = True) -> Compiled:
    """The model by its first plan."""
    made = lowered(model, machine, precision, joins)
    return next(plans_of(fused(model, machine, precision), made, machine))


def products(made: Lowered) -> list[Kernel]:
    return [kernel for kernel in made.kernels if kernel.contraction is not None]


def widths(made: Lowered) -> list[tuple[int, int]]:
    """Depth and columns of each product."""
    return [(np.prod([d.extent for d in k.red_dims]).item(), k.par_dims[-1].extent) for k in products(made)]


def tiles(result: TimingResult) -> float:
    """The gaps between the operations of tiles."""
    operations = float(result.ledger["tcore_useful"] + result.ledger["tcore_padding"])
    return (result.tcore_cycles - operations) / TINY.tile_gap_cycles()


def of_image(model: onnx.ModelProto) -> np.ndarray:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(1).uniform(-2, 2, shape).astype(np.float32)


# --- which, and how many -------------------------------------------------------


def test_pixels_fill_the_tiles_of_the_machine() -> None:
    """MobileNetV2 at batch 64: two pixels of the stem, four of 32 to 16 channels, two of 16 to 96."""
    assert widths(lowered(network((64, 3, 224, 224), 32, 16))) == [(3 * (3 + 2) * 3, 2 * 32), (4 * 32, 4 * 16)]
    assert widths(lowered(network((64, 3, 224, 224), 16, 96)))[1] == (2 * 16, 2 * 96)


@pytest.mark.parametrize(
    ("shape", "channels", "out"),
    [
        ((64, 3, 224, 224), 64, 64),  # whole tiles
        ((64, 3, 226, 226), 32, 16),  # rows of 113 pixels
        ((1, 3, 32, 32), 32, 16),  # fewer tiles than SPCs
    ],
)
def test_what_gains_nothing_stays(shape: tuple[int, int, int, int], channels: int, out: int) -> None:
    model = network(shape, channels, out)
    assert widths(lowered(model))[1] == widths(lowered(model, joins=False))[1] == (channels, out)


def test_groups_are_side_by_side() -> None:
    """ResNeXt: 32 groups of 4 channels. Each tap is an operation: a depth of 4 takes as long as one of 32."""
    made = lowered(network((8, 3, 112, 112), 128, 128, kernel=3, groups=32))
    assert widths(made)[1] == (9 * 64, 64)


@pytest.mark.parametrize("gate", [(64, 16, 1, 1), (64, 1, 112, 112), (64, 16, 112, 112)])
def test_what_does_not_lie_like_the_results_keeps_neighbours_apart(gate: tuple[int, ...]) -> None:
    """A number a channel, a number a pixel; an image with its channels apart. One number a sample is no matter."""
    assert widths(lowered(network((64, 3, 224, 224), 32, 16, gate=gate)))[1] == (32, 16)
    assert widths(lowered(network((64, 3, 224, 224), 32, 16, gate=(64, 1, 1, 1))))[1] == (128, 64)


def test_results_with_their_channels_apart_stay() -> None:
    """Outputs of the graph are row-major."""
    model = network((64, 3, 224, 224), 32, 16)
    del model.graph.node[-1]
    model.graph.node[-1].output[0] = "y"
    assert widths(lowered(model))[1] == (32, 16)


def test_fewer_tiles_take_less_of_the_matrix_arrays() -> None:
    model = network((2, 3, 64, 64), 32, 16)
    plain, joined = (compiled(model, TINY, joins=joins) for joins in (False, True))
    (_, plain_time), (_, joined_time) = check_bounds(plain), check_bounds(joined)
    assert tiles(joined_time) <= tiles(plain_time) / 2
    assert joined_time.tcore_cycles < 0.6 * plain_time.tcore_cycles
    assert joined_time.latency_cycles < plain_time.latency_cycles
    assert [k.macs for k in products(joined.lowered)] == [k.macs for k in products(plain.lowered)]


# --- values --------------------------------------------------------------------


RESIDUAL = network((2, 3, 48, 64), 16, 16, residual=True)
TAPS_OF_GROUPS = network((1, 3, 32, 32), 32, 16, kernel=3, groups=8)


@pytest.mark.parametrize(
    ("model", "precision", "count"),
    [
        (RESIDUAL, "bf16", 4),
        (RESIDUAL, "fp32", 2),  # three times the depth
        (network((2, 3, 34, 50), 16, 8), "bf16", 5),  # rows of 25 pixels
        (network((1, 1, 64, 64), 16, 1), "bf16", 4),
        (TAPS_OF_GROUPS, "bf16", 8),
        (TAPS_OF_GROUPS, "fp32", 4),
        (network((1, 3, 32, 32), 16, 16, groups=4, residual=True), "bf16", 4),
        (network((2, 3, 34, 46), 16, 16, residual=True), "bf16", 1),  # rows of 23 pixels
    ],
)
def test_values_are_those_of_the_network(model: onnx.ModelProto, precision: str, count: int) -> None:
    case = compiled(model, TINY, precision)
    ((_, _), (_, columns)) = widths(lowered(model, TINY, precision, joins=False))
    assert widths(case.lowered)[1][1] == columns * count
    case.verify()
    check_bounds(case)
    assert not list(new_prover().flaws(case.plan, case.machine))
    x = of_image(model)
    (expected,) = onnxruntime_outputs(model, {"x": x}).values()
    for outputs in (case.step({"x": x}, "random"), case.values({"x": x})):
        (actual,) = outputs.values()
        assert relative_error(actual, expected) < TOLERANCE[precision]


def test_what_is_not_finite_spoils_its_neighbours_from_level_2_on() -> None:
    """An infinite pixel of the image becomes a finite one of the stem, unless a zero for its neighbour meets it."""
    model = network((1, 3, 64, 64), 16, 8)
    x = of_image(model)
    x[0, 0, 16, 16] = np.inf
    spoiled = []
    for level in (1, 2):
        package = compile_model(model, "tiny", "bf16", opt_level=level)
        assert package is not None
        spoiled.append(np.argwhere(~np.isfinite(load(package).run({"x": x})["y"])))
    assert not len(spoiled[0])
    (_, _, rows, columns) = spoiled[1].T
    assert set(rows) == {7, 8}
    assert set(columns) <= set(range(7, 16))


# --- what comes after ----------------------------------------------------------


def test_every_spc_has_all_of_the_pixels_that_a_window_takes() -> None:
    """A depthwise convolution reads pixels, each of 24 channels, where the product before it stored several at once."""
    model = network((4, 3, 32, 32), 16, 24)
    filters = numpy_helper.from_array(random(24, 1, 3, 3), "filters")
    model.graph.initializer.append(filters)
    depthwise = helper.make_node("Conv", ["t", "filters"], ["y"], "y", pads=[1, 1, 1, 1], group=24)
    del model.graph.node[-1]
    model.graph.node.append(depthwise)
    made, graph = lowered(model, TINY), fused(model, TINY)
    assert widths(made)[1][1] > 24
    found = (local_chains(plan, TINY, local_is_faster) for plan in partitions(graph, made, TINY))
    plan = next(plan for plan in found if plan is not None)
    case = finished(graph, made, plan, TINY)
    assert {SPC: 2} in [own(kernel) for kernel in case.kernels]
    case.verify()
    assert not list(new_prover().flaws(case.plan, case.machine))
    x = of_image(model)
    (expected,) = onnxruntime_outputs(model, {"x": x}).values()
    (actual,) = case.step({"x": x}, "random").values()
    assert relative_error(actual, expected) < TOLERANCE["bf16"]
