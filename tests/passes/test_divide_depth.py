"""Deep products in parts: which are divided, that values stay, and that the driver takes what is faster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from example_networks import small
from graph_maker import GraphMaker, random_inputs
from pipeline import compiled_plans

from birc.compiler.driver import Compilation
from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.base import Pass, PassResult, run_pass, run_passes
from birc.compiler.passes.divide_depth import FEWEST_ROWS, DivideDepth
from birc.compiler.passes.fuse import fuse_for
from birc.compiler.plan_search import Found, PlanSearch
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import load_machine


def product(x: tuple[int, ...], columns: int) -> Graph:
    make = GraphMaker()
    return make.graph(make("relu", make("matmul", make.input(*x), make.random(x[-1], columns))))


@pytest.mark.parametrize(
    ("x", "columns", "divides"),
    [
        ((64, 96), 40, True),
        ((1, 64, 96), 40, True),
        ((1, 1, 64, 96), 40, True),
        ((64, 96), 48, False),  # exchanging the operand is no more than exchanging the sums
        ((64, 97), 40, False),  # no even parts
        ((FEWEST_ROWS - 1, 96), 40, False),
        ((2, 64, 96), 40, False),  # the dies have the batch to divide
    ],
)
def test_what_is_divided(x: tuple[int, ...], columns: int, divides: bool) -> None:
    graph = product(x, columns)
    result = run_pass(DivideDepth(2), graph)
    assert result.changed == divides
    inputs = random_inputs(graph)
    for name, expected in run_graph(graph, inputs).items():
        np.testing.assert_allclose(run_graph(result.graph, inputs)[name], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("width", "is_read_twice", "is_shared"),
    [((96,), False, True), ((1,), False, True), ((64, 96), False, False), ((96,), True, False)],
)
def test_a_constant_for_each_column_is_added_in_shares(
    width: tuple[int, ...], is_read_twice: bool, is_shared: bool
) -> None:
    make = GraphMaker()
    total = make("matmul", make.input(64, 512), make.random(512, 96))
    biased = make("add", total, make.random(*width))
    graph = make.graph(make("relu", biased), *([total] if is_read_twice else []))
    result = run_pass(DivideDepth(2), graph)
    assert result.changed
    (product,) = (node for node in result.graph.nodes if node.op == "matmul")
    (user, *_) = result.graph.users(product.name)
    assert (user.op == "add" and user.inputs[1] in result.graph.constants) == is_shared
    inputs = random_inputs(graph)
    for name, expected in run_graph(graph, inputs).items():
        np.testing.assert_allclose(run_graph(result.graph, inputs)[name], expected, rtol=1e-4, atol=1e-4)


def beside(x: tuple[int, ...], columns: Sequence[int]) -> Graph:
    """A graph of products of one operand, with so many columns each."""
    make = GraphMaker()
    rows = make.input(*x)
    return make.graph(*(make("matmul", rows, make.random(x[-1], count)) for count in columns))


@pytest.mark.parametrize(
    ("x", "columns", "count"),
    [
        ((64, 96), (96,), 1),
        ((64, 96), (97,), 0),
        ((64, 96), (32, 64), 2),  # each less than half as wide as deep, or all together no wider than deep
        ((64, 96), (64, 64), 0),  # the operand is less than what they make of it
    ],
)
def test_square_products_are_divided_on_demand(x: tuple[int, ...], columns: Sequence[int], count: int) -> None:
    graph = beside(x, columns)
    assert len(DivideDepth(2, square=True).deep(graph)) == count
    assert len(DivideDepth(2).deep(graph)) == sum(x[-1] > 2 * wide for wide in columns)
    result = run_pass(DivideDepth(2, square=True), graph)
    inputs = random_inputs(graph)
    for name, expected in run_graph(graph, inputs).items():
        np.testing.assert_allclose(run_graph(result.graph, inputs)[name], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_product_behind_heads_is_divided_where_that_is_faster() -> None:
    """In a layer of BERT-large each die has heads of its own, which are its part of the depth of the product behind."""
    model = small("bert", batch=1, layers=1, hidden=1024, heads=16, sequence=384, intermediate=4096)
    counts = []

    def count(step: Pass, graph: Graph, result: PassResult) -> None:
        if isinstance(step, DivideDepth):
            counts.append(result.stats["divided"])

    compilation = Compilation(load_machine("br100"), "bf16", stop_after="fuse", observe=count)
    compilation.compile_graph(import_model(model), "import")
    assert counts == [2]


def test_weights_computed_at_run_time_are_not_divided() -> None:
    make = GraphMaker()
    graph = make.graph(make("matmul", make.input(64, 96), make.input(96, 40)))
    assert not run_pass(DivideDepth(2), graph).changed


def test_one_die_has_nothing_to_divide() -> None:
    assert not run_pass(DivideDepth(1), product((64, 96), 40)).changed


@pytest.mark.parametrize("precision", ["model", "bf16"])
def test_every_plan_gives_the_values(precision: str) -> None:
    graph = product((1, 70, 512), 96)
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    divided = run_passes(graph, [DivideDepth(2)])
    for compiled in compiled_plans(divided, "br100", precision):
        compiled.verify()
        error = np.abs(compiled.values(inputs)[name] - expected).max() / np.abs(expected).max()
        assert error <= {"model": 1e-3, "bf16": 2e-2}[precision]


def _ways(graph: Graph) -> tuple[PlanSearch, list[list[Pass]], list[int]]:
    """A search, two lists of passes, and the latency that the plans of each have."""
    machine = load_machine("br100")
    search = PlanSearch(machine, "bf16", 3)
    ways: list[list[Pass]] = [[fuse_for(machine, "bf16")], [DivideDepth(2), fuse_for(machine, "bf16")]]
    return search, ways, [_cycles(search.plan(run_passes(graph, way), timed=True)) for way in ways]


def _cycles(found: Found) -> int:
    assert found.outcome is not None
    return found.outcome.latency_cycles


@pytest.mark.parametrize(("x", "columns"), [((384, 4096), 1024), ((64, 256), 64)])
def test_the_faster_way_is_taken(x: tuple[int, ...], columns: int) -> None:
    graph = product(x, columns)
    search, ways, latencies = _ways(graph)
    assert latencies[0] != latencies[1]
    passes, found = search.best_way(graph, ways)
    assert passes is ways[int(np.argmin(latencies))]
    assert _cycles(found) == min(latencies)


def test_a_way_that_does_not_fit_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = product((64, 256), 64)
    search, ways, _ = _ways(graph)
    plan = search.plan

    def refusing(refused: int) -> None:
        def chosen(graph: Graph, *, timed: bool = False) -> object:
            is_divided = any("parts" in name for name in graph.constants)
            if refused in (int(is_divided), 2):
                raise DoesNotFitError("too large", where="a test")
            return plan(graph, timed=timed)

        monkeypatch.setattr(PlanSearch, "plan", staticmethod(chosen))

    for refused in (0, 1):
        refusing(refused)
        assert search.best_way(graph, ways)[0] is ways[1 - refused]
    refusing(2)
    with pytest.raises(DoesNotFitError):
        search.best_way(graph, ways)
