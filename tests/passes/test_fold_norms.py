"""Norms between products: which are folded, that values stay however large the mean, and that the faster is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline import Compiled, compiled_plans

from birc.compiler.ir.graph import Constant, Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.passes.base import Pass, run_pass
from birc.compiler.passes.bounds import bounds
from birc.compiler.passes.fold_norms import FoldNorms
from birc.compiler.passes.fuse import fuse_for
from birc.compiler.plan_search import PlanSearch
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import load_machine
from birc.runtime.timing import simulate

WIDTH, DEPTH, RESULTS, EPSILON = 128, 64, 96, 1e-5
Norm = Callable[[GraphMaker, str, int], str]


def layer_norm(make: GraphMaker, x: str, width: int = WIDTH) -> str:
    return make("layer_norm", x, make.random(width), make.random(width), axis=1, epsilon=EPSILON)


def rms_norm(make: GraphMaker, x: str, width: int = WIDTH) -> str:
    return make("rms_norm", x, make.random(width), axis=1, epsilon=EPSILON)


def block(norm: Norm, rows: int = 70, width: int = WIDTH) -> Graph:
    """A residual stream: what is added to it, its norm, two products of that, and the stream goes on."""
    make = GraphMaker()
    stream = make("add", make("matmul", make.input(rows, DEPTH), make.random(DEPTH, width)), make.input(rows, width))
    normalised = norm(make, stream, width)
    wide = make("add", make("matmul", normalised, make.random(width, RESULTS)), make.random(RESULTS))
    gate = make("matmul", normalised, make.random(width, RESULTS))
    narrow = make("matmul", gate, make.random(RESULTS, width))
    return make.graph(make("relu", wide), gate, make("add", stream, narrow))


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_products_read_what_is_not_normalised(norm: Norm) -> None:
    graph = block(norm)
    result = run_pass(FoldNorms(), graph)
    ops = [node.op for node in result.graph.nodes]
    assert norm.__name__ not in ops
    assert (ops.count("row_moments"), ops.count("scale_by_moments"), ops.count("matmul")) == (1, 2, 4)
    assert ops.count("add") == {"layer_norm": 2, "rms_norm": 3}[norm.__name__]  # Biases and shifts are one.
    inputs = random_inputs(graph)
    for name, expected in run_graph(graph, inputs).items():
        apart = run_graph(result.graph, inputs)[name] - expected
        assert np.square(apart).mean() <= 1e-4 * np.square(expected).mean()  # Weights are rounded to BF16.
    assert not run_pass(FoldNorms(), result.graph).changed


def test_the_product_of_one_norm_makes_the_rows_of_another() -> None:
    make = GraphMaker()
    hidden = layer_norm(make, make("matmul", make.input(70, DEPTH), make.random(DEPTH, WIDTH)))
    again = layer_norm(make, make("matmul", hidden, make.random(WIDTH, WIDTH)))
    graph = make.graph(make("matmul", again, make.random(WIDTH, RESULTS)))
    folded, inputs = run_pass(FoldNorms(), graph).graph, random_inputs(graph)
    assert [node.op for node in folded.nodes].count("scale_by_moments") == 2
    (before,), (after,) = (run_graph(one, inputs).values() for one in (graph, folded))
    assert np.square(after - before).mean() <= 1e-4 * np.square(before).mean()


def test_moments_are_made_with_the_rows() -> None:
    folded = run_pass(FoldNorms(), block(layer_norm)).graph
    fused = run_pass(fuse_for(load_machine("br100"), "bf16"), folded).graph
    inside = [[node.op for node in group.body.nodes] for group in fused.nodes if group.body is not None]
    assert ["matmul", "add", "row_moments"] in inside
    assert sum(ops[:2] == ["matmul", "scale_by_moments"] for ops in inside) == 2
    assert sum("matmul" in ops for ops in inside) == 4


@pytest.mark.parametrize(("width", "is_folded"), [(4096, True), (5120, True), (64 * 67, False)])
def test_rows_of_many_parts(width: int, is_folded: bool) -> None:
    """More parts than a register has columns are loaded in pieces of one width, but in a few alone."""
    graph = block(layer_norm, 8, width)
    assert run_pass(FoldNorms(), graph).changed == is_folded
    if is_folded:
        (compiled, *_) = of_plans(run_pass(FoldNorms(), graph).graph, "br100")
        assert error(compiled, graph, with_mean(graph, 1.0)) < 0.01


def test_a_tile_has_all_columns_of_a_part() -> None:
    """Else sums of several tiles would be stored in the place of one."""
    folded = run_pass(FoldNorms(), block(layer_norm)).graph
    machine = load_machine("br100")
    (kernel, *_) = (
        kernel
        for compiled in compiled_plans(folded, machine, "bf16")
        for kernel in compiled.kernels
        if kernel.contraction is not None and len(kernel.contraction.column_dims) == 2
    )
    assert kernel.tiling is not None
    assert kernel.contraction is not None
    inside = kernel.contraction.column_dims[1]
    tile = {**dict(kernel.tiling.tile), inside: kernel.dimension(inside).extent // 2}
    halved = replace(kernel, tiling=replace(kernel.tiling, tile=tuple(tile.items())))
    assert not list(tiling_problems(kernel, machine))
    assert any("must have all" in problem for problem in tiling_problems(halved, machine))


def _computed_weights(make: GraphMaker, x: str) -> tuple[str, ...]:
    return (make("matmul", layer_norm(make, x), make.input(WIDTH, RESULTS)),)


def _computed_scale(make: GraphMaker, x: str) -> tuple[str, ...]:
    scaled = make("rms_norm", x, make.input(WIDTH), axis=1, epsilon=EPSILON)
    return (make("matmul", scaled, make.random(WIDTH, RESULTS)),)


def _given_out(make: GraphMaker, x: str) -> tuple[str, ...]:
    normalised = layer_norm(make, x)
    return normalised, make("matmul", normalised, make.random(WIDTH, RESULTS))


def _read_otherwise(make: GraphMaker, x: str) -> tuple[str, ...]:
    normalised = layer_norm(make, x)
    return make("relu", normalised), make("matmul", normalised, make.random(WIDTH, RESULTS))


def _second_operand(make: GraphMaker, x: str) -> tuple[str, ...]:
    return (make("matmul", make.random(RESULTS, 70), layer_norm(make, x)),)


def _whole_tensor(make: GraphMaker, x: str) -> tuple[str, ...]:
    scaled = make("rms_norm", x, make.random(WIDTH), axis=0, epsilon=EPSILON)
    return (make("matmul", scaled, make.random(WIDTH, RESULTS)),)


def _infinite_weights(make: GraphMaker, x: str) -> tuple[str, ...]:
    return (make("matmul", layer_norm(make, x), make.splat(np.inf, WIDTH, RESULTS)),)


@pytest.mark.parametrize(
    "readers",
    [
        _computed_weights,
        _computed_scale,
        _given_out,
        _read_otherwise,
        _second_operand,
        _whole_tensor,
        _infinite_weights,
    ],
)
def test_other_norms_stay(readers: Callable[[GraphMaker, str], tuple[str, ...]]) -> None:
    make = GraphMaker()
    x = make("matmul", make.input(70, DEPTH), make.random(DEPTH, WIDTH))
    assert not run_pass(FoldNorms(), make.graph(*readers(make, x))).changed


def test_rows_that_no_kernel_computes_stay() -> None:
    make = GraphMaker()
    for x in (make.input(70, WIDTH), make("reshape", make.input(WIDTH, 70), shape=(70, WIDTH))):
        graph = make.graph(make("matmul", layer_norm(make, x), make.random(WIDTH, RESULTS)))
        assert not run_pass(FoldNorms(), graph).changed


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
@pytest.mark.parametrize("precision", ["model", "bf16"])
def test_a_kernel_that_has_whole_rows_leaves_their_statistics(norm: Norm, precision: str) -> None:
    make = GraphMaker()
    x = make("add", make.input(70, WIDTH), make.input(70, WIDTH))
    y = make("matmul", norm(make, x, WIDTH), make.random(WIDTH, RESULTS))
    graph = make.graph(y, make("add", x, make("matmul", y, make.random(RESULTS, WIDTH))))
    folded = run_pass(FoldNorms(), graph).graph
    fused = run_pass(fuse_for(load_machine("br100"), "bf16"), folded).graph
    inside = [[node.op for node in group.body.nodes] for group in fused.nodes if group.body is not None]
    assert ["add", "row_statistics"] in inside
    inputs = random_inputs(graph)
    expected = run_graph(graph, inputs)
    for target in ("tiny", "br100"):
        for compiled in compiled_plans(folded, target, precision):
            compiled.verify()
            for found in (compiled.values(inputs), compiled.step(inputs)):
                for name, values in expected.items():
                    assert np.square(found[name] - values).mean() <= 1e-4 * np.square(values).mean()


def test_rows_that_have_no_whole_parts_stay() -> None:
    graph = block(layer_norm)
    assert not run_pass(FoldNorms(48), graph).changed
    assert run_pass(FoldNorms(256), graph).changed  # All of a row is one part.


def with_mean(graph: Graph, mean: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs for which the stream of a block has about this mean, and a deviation of about one."""
    inputs = random_inputs(graph, seed)
    return {"x0": inputs["x0"] * np.float32(0.05), "x1": inputs["x1"] * np.float32(0.8) + np.float32(mean)}


def exactly(graph: Graph, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a block in double precision, from what memory holds of the stream: that is rounded to BF16."""
    values = {name: constant.data.astype(np.float64) for name, constant in graph.constants.items()} | inputs
    first, *_ = graph.nodes
    stream = _bf16(_bf16(inputs["x0"]) @ _bf16(values[first.inputs[1]]) + _bf16(inputs["x1"]))
    norm = next(node for node in graph.nodes if node.op.endswith("_norm"))
    scale, bias = values[norm.inputs[1]], values[norm.inputs[2]] if len(norm.inputs) > 2 else 0.0
    centred = stream - (stream.mean(1, keepdims=True) if norm.op == "layer_norm" else 0.0)
    normalised = centred / np.sqrt(np.square(centred).mean(1, keepdims=True) + EPSILON) * scale + bias
    wide, gate = (node for node in graph.nodes if node.op == "matmul" and node.inputs[0] == norm.name)
    shift = next(values[n.inputs[1]] for n in graph.nodes if n.op == "add" and n.inputs[0] == wide.name)
    return [np.maximum(normalised @ values[wide.inputs[1]] + shift, 0.0), normalised @ values[gate.inputs[1]]]


def _bf16(values: np.ndarray) -> np.ndarray:
    """Rounded to BF16, to nearest and even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def error(compiled: Compiled, graph: Graph, inputs: dict[str, np.ndarray]) -> float:
    """The deviation of a compiled block from its exact results, relative to their size."""
    found = compiled.values(inputs)
    return max(
        float(np.sqrt(np.square(found[name] - exact).mean() / np.square(exact).mean()))
        for name, exact in zip(graph.outputs, exactly(graph, inputs), strict=False)
    )


def of_plans(graph: Graph, target: str, precision: str = "bf16") -> list[Compiled]:
    made = list(compiled_plans(graph, target, precision))
    for compiled in made:
        compiled.verify()
    return made


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
@pytest.mark.parametrize("target", ["tiny", "br100"])
def test_errors_are_no_larger_than_with_the_norm(norm: Norm, target: str) -> None:
    """By every plan, one die's and two dies', and by both engines that give values."""
    graph = block(norm)
    plain, folded = (of_plans(one, target) for one in (graph, run_pass(FoldNorms(), graph).graph))
    for mean in (0.0, 0.5, 3.0, -10.0):
        inputs = with_mean(graph, mean)
        most = max(error(compiled, graph, inputs) for compiled in plain)
        for compiled in folded:
            assert error(compiled, graph, inputs) <= 1.1 * most
    inputs = with_mean(graph, 1.0)
    for compiled in folded:
        for name, values in compiled.step(inputs, "random", 1).items():
            np.testing.assert_allclose(compiled.values(inputs)[name], values, rtol=1e-2, atol=1e-2)


@settings(max_examples=15, deadline=None)
@given(
    at_once=st.booleans(),
    rows=st.integers(1, 9),
    parts=st.integers(1, 5),
    mean=st.floats(-100.0, 100.0),
    deviation=st.floats(0.01, 10.0),
    centred=st.booleans(),
    seed=st.integers(0, 99),
)
def test_factors_are_those_of_the_rows(
    at_once: bool, rows: int, parts: int, mean: float, deviation: float, centred: bool, seed: int
) -> None:
    """Against double precision: nothing cancels where means are ten thousand deviations."""
    make, columns = GraphMaker(), 16 * parts
    if at_once:
        factors = make("row_statistics", make.input(rows, columns), centred=int(centred), epsilon=EPSILON)
    else:
        moments = make("row_moments", make.input(rows, columns), parts=parts, centred=int(centred))
        first, second = (make.constant(np.eye(2, dtype=np.float32)[n]) for n in range(2))
        of_columns = (second,) if centred else ()
        inputs = (make("expand", first, shape=(rows, 2)), moments, *of_columns)
        factors = make("scale_by_moments", *inputs, count=columns, epsilon=EPSILON)
    graph = make.graph(factors)
    x = np.random.default_rng(seed).normal(mean, deviation, (rows, columns)).astype(np.float32)
    exact = x.astype(np.float64)
    means = exact.mean(1) if centred else np.zeros(rows)
    inverse = 1 / np.sqrt(np.square(exact - means[:, None]).mean(1) + EPSILON)
    for compiled in compiled_plans(graph, "tiny"):
        (found,) = compiled.values({"x0": x}).values()
        of_rows = found[..., 0] if at_once else found.T
        np.testing.assert_allclose(of_rows[0], inverse, rtol=1e-3)
        if centred:
            np.testing.assert_allclose(of_rows[1], -means * inverse, rtol=1e-3, atol=1e-4)


def _without_means(graph: Graph) -> Graph:
    return _changed(graph, "sums", np.zeros_like)


def _without_shift(graph: Graph) -> Graph:
    return _changed(graph, "bias", np.zeros_like)


def _without_scale(graph: Graph) -> Graph:
    return _changed(graph, "scaled", np.abs)


def _without_a_part(graph: Graph) -> Graph:
    nodes = [
        node.replace(attributes={**node.attributes, "count": 2 * WIDTH}) if node.op == "scale_by_moments" else node
        for node in graph.nodes
    ]
    return graph.replace(nodes=tuple(nodes))


def _changed(graph: Graph, what: str, change: Callable[[np.ndarray], np.ndarray]) -> Graph:
    constants = {
        name: Constant(constant.type, change(constant.data)) if what in name else constant
        for name, constant in graph.constants.items()
    }
    assert constants != graph.constants
    return graph.replace(constants=constants)


@pytest.mark.parametrize("broken", [_without_means, _without_shift, _without_scale, _without_a_part])
def test_every_piece_counts(broken: Callable[[Graph], Graph]) -> None:
    """What the comparison with exact results would say of a mistake."""
    graph = block(layer_norm)
    folded = run_pass(FoldNorms(), graph).graph
    inputs = with_mean(graph, 1.0)
    (right, *_), (wrong, *_) = (of_plans(one, "br100") for one in (folded, broken(folded)))
    assert error(right, graph, inputs) < 0.01
    assert error(wrong, graph, inputs) > 0.03


def test_no_plan_takes_less_than_the_bounds() -> None:
    machine = load_machine("br100")
    folded = run_pass(FoldNorms(), block(layer_norm, 384)).graph
    for compiled in of_plans(folded, "br100"):
        latency = simulate(compiled.program, machine).latency_cycles
        assert all(cycles <= latency for _, cycles in bounds(compiled.lowered, machine).by_resource)


def _search() -> tuple[PlanSearch, list[Pass], list[Pass]]:
    machine = load_machine("br100")
    fuse = fuse_for(machine, "bf16")
    return PlanSearch(machine, "bf16", 3), [fuse], [FoldNorms(), fuse]


def sums_before_a_product(rows: int, width: int) -> Graph:
    """Rows that no product makes, their norm, and the product that reads it."""
    make = GraphMaker()
    sums = make("add", make.input(rows, width), make.input(rows, width))
    return make.graph(make("matmul", layer_norm(make, sums, width), make.random(width, width)))


@pytest.mark.parametrize(
    ("graph", "is_folded"), [(block(layer_norm, 1024, 768), True), (sums_before_a_product(8, WIDTH), False)]
)
def test_the_faster_way_is_taken(graph: Graph, is_folded: bool) -> None:
    search, plain, folding = _search()
    passes, found = search.faster_way(graph, (plain, None), folding)
    (other,) = (way for way in (plain, folding) if way is not passes)
    _, rival = search.faster_way(graph, (other, None), other)
    assert found.outcome is not None
    assert rival.outcome is not None
    assert found.outcome.latency_cycles <= rival.outcome.latency_cycles
    assert (passes is folding) == is_folded


def test_a_way_that_does_not_fit_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    search, plain, folding = _search()
    plan = search.plan

    def refusing(graph: Graph, *, timed: bool = False) -> object:
        bodies = (node.body.nodes for node in graph.nodes if node.body is not None)
        if any(node.op == "scale_by_moments" for nodes in bodies for node in nodes):
            raise DoesNotFitError("too large", where="a test")
        return plan(graph, timed=timed)

    monkeypatch.setattr(PlanSearch, "plan", staticmethod(refusing))
    assert search.faster_way(block(layer_norm, 1024), (plain, None), folding)[0] is plain
