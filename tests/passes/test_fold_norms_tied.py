"""Norms before logits by the transposed table of words: the rows are scaled as they are made, the table stays one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compiled_plans

from birc.compiler.ir.graph import Constant, Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.base import run_pass
from birc.compiler.passes.fold_norms import FoldNorms
from birc.compiler.passes.fuse import fuse_for
from birc.runtime.machine import load_machine

ROWS, DEPTH, WIDTH, WORDS, EPSILON = 70, 64, 128, 150, 1e-5
Norm = Callable[[GraphMaker, str], str]


def layer_norm(make: GraphMaker, x: str) -> str:
    return make("layer_norm", x, make.random(WIDTH), make.random(WIDTH), axis=1, epsilon=EPSILON)


def rms_norm(make: GraphMaker, x: str) -> str:
    return make("rms_norm", x, make.random(WIDTH), axis=1, epsilon=EPSILON)


class Decoder:
    """What a product makes is added to embeddings; the norm of the sum is multiplied by the transposed table of words.

    `more` gives outputs beside the logits, from the sum and its norm.
    """

    def __init__(self, norm: Norm, more: Callable[[GraphMaker, str, str], tuple[str, ...]] = lambda *_: ()) -> None:
        make = GraphMaker()
        self.table = make.random(WORDS, WIDTH)
        self.weights = make.random(DEPTH, WIDTH, low=-0.2, high=0.2)
        words = make("gather", self.table, make.input(ROWS, element="i64"), axis=0)
        product = make("matmul", make.input(ROWS, DEPTH), self.weights)
        self.shift = make.input(ROWS, 1)
        total = make("add", make("add", words, product), make("expand", self.shift, shape=(ROWS, WIDTH)))
        normalised = norm(make, total)
        logits = make("matmul", normalised, make("transpose", self.table, perm=(1, 0)))
        self.graph = make.graph(logits, *more(make, total, normalised))

    def inputs(self, mean: float) -> dict[str, np.ndarray]:
        """Inputs for which the sums have about this mean, and deviations below one."""
        draw = np.random.default_rng(7)
        ids, x = draw.integers(0, WORDS, ROWS), draw.normal(0, 1, (ROWS, DEPTH)).astype(np.float32)
        return {"x0": ids, "x1": x, "x2": np.full((ROWS, 1), mean, np.float32)}

    def logits(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """The logits in double precision."""
        values = {name: constant.data.astype(np.float64) for name, constant in self.graph.constants.items()}
        table = values[self.table]
        total = inputs["x1"].astype(np.float64) @ values[self.weights] + table[inputs["x0"]] + inputs["x2"]
        norm = next(node for node in self.graph.nodes if node.op.endswith("_norm"))
        centred = total - (total.mean(1, keepdims=True) if norm.op == "layer_norm" else 0.0)
        scaled = centred / np.sqrt(np.square(centred).mean(1, keepdims=True) + EPSILON) * values[norm.inputs[1]]
        return (scaled + (values[norm.inputs[2]] if len(norm.inputs) > 2 else 0.0)) @ table.T

    def error(self, compiled: Compiled, inputs: dict[str, np.ndarray]) -> float:
        """The deviation of compiled logits, relative to their size."""
        exact = self.logits(inputs)
        found = compiled.values(inputs)[self.graph.outputs[0]]
        return float(np.sqrt(np.square(found - exact).mean() / np.square(exact).mean()))


def folded(graph: Graph) -> Graph:
    result = run_pass(FoldNorms(), graph)
    assert result.changed
    return result.graph


def plans(graph: Graph, target: str) -> list[Compiled]:
    made = list(compiled_plans(graph, target, "bf16", clean=False))
    for compiled in made:
        compiled.verify()
    return made


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_no_table_is_made_beside_the_one(norm: Norm) -> None:
    decoder = Decoder(norm)
    after = folded(decoder.graph)
    assert not [node for node in after.nodes if node.op.endswith("_norm")]
    assert [name for name, c in after.constants.items() if c.data.size >= WORDS * WIDTH] == [decoder.table]
    inputs = decoder.inputs(1.0)
    (before,), (found,) = (run_graph(one, inputs).values() for one in (decoder.graph, after))
    np.testing.assert_allclose(found, before, rtol=0.05, atol=0.05)  # What goes by means is of rounded weights.
    assert not run_pass(FoldNorms(), after).changed


def test_the_kernel_that_makes_rows_scales_them_and_stores_nothing_else_of_them() -> None:
    fused = run_pass(fuse_for(load_machine("br100"), "bf16"), folded(Decoder(layer_norm).graph)).graph
    (made,) = (n for n in fused.nodes if n.body is not None and "row_moments" in {m.op for m in n.body.nodes})
    assert made.body is not None
    assert sorted(node.op for node in made.body.nodes if node.op != "add") == ["matmul", "mul", "row_moments"]
    assert sorted(made.body.producer(name).op for name in made.body.outputs) == ["mul", "row_moments"]
    assert sum(n.body is not None for n in fused.nodes) == 2


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
@pytest.mark.parametrize("target", ["tiny", "br100"])
def test_logits_are_as_near_as_with_the_norm(norm: Norm, target: str) -> None:
    decoder = Decoder(norm)
    plain, without = plans(decoder.graph, target), plans(folded(decoder.graph), target)
    for mean in (0.0, 0.5, 3.0, -10.0):
        inputs = decoder.inputs(mean)
        most = max(decoder.error(compiled, inputs) for compiled in plain)
        for compiled in without:
            assert decoder.error(compiled, inputs) <= 1.15 * most
    inputs = decoder.inputs(1.0)
    for compiled in without:
        for name, values in compiled.step(inputs, "random", 1).items():
            np.testing.assert_allclose(compiled.values(inputs)[name], values, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("what", ["scale", "sums", "bias"])
def test_every_piece_counts(what: str) -> None:
    """What the comparison with exact results would say of a mistake."""
    decoder = Decoder(layer_norm)
    after, inputs = folded(decoder.graph), decoder.inputs(1.0)
    (name,) = (name for name in after.constants if name.endswith(what))
    broken = Constant(after.constants[name].type, 1 - after.constants[name].data)
    wrong = after.replace(constants={**after.constants, name: broken})
    assert decoder.error(plans(after, "br100")[0], inputs) < 0.01
    assert decoder.error(plans(wrong, "br100")[0], inputs) > 0.1


def test_other_products_of_the_norm_read_scaled_rows_too() -> None:
    def gate(make: GraphMaker, total: str, normalised: str) -> tuple[str, ...]:
        return (make("matmul", normalised, make.random(WIDTH, DEPTH)),)

    decoder = Decoder(layer_norm, gate)
    after, inputs = folded(decoder.graph), decoder.inputs(1.0)
    assert [node.op for node in after.nodes].count("mul") == 1
    before = run_graph(decoder.graph, inputs)
    for compiled in plans(after, "br100"):
        for name, found in compiled.values(inputs).items():
            assert np.square(found - before[name]).mean() <= 2e-4 * np.square(before[name]).mean()


def test_weights_alone_can_be_scaled() -> None:
    make = GraphMaker()
    x = make("matmul", make.input(ROWS, DEPTH), make.random(DEPTH, WIDTH))
    hidden = make("matmul", layer_norm(make, x), make.random(WIDTH, WIDTH))
    logits = make("matmul", layer_norm(make, hidden), make("transpose", make.random(WORDS, WIDTH), perm=(1, 0)))
    graph = make.graph(logits)
    left = [
        [node.op for node in run_pass(way, graph).graph.nodes].count("layer_norm") for way in FoldNorms().ways(graph)
    ]
    assert left == [0, 1]
    assert FoldNorms().ways(Decoder(layer_norm).graph) == (FoldNorms(),)
    assert FoldNorms().ways(folded(graph)) == ()


def _go_on(make: GraphMaker, total: str, normalised: str) -> tuple[str, ...]:
    return (make("add", total, make.input(ROWS, WIDTH)),)


def _are_given_out(make: GraphMaker, total: str, normalised: str) -> tuple[str, ...]:
    return (total,)


@pytest.mark.parametrize("more", [_go_on, _are_given_out])
def test_rows_that_others_read_stay(more: Callable[[GraphMaker, str, str], tuple[str, ...]]) -> None:
    """They would have to be stored twice."""
    assert not run_pass(FoldNorms(), Decoder(layer_norm, more).graph).changed


def test_rows_that_no_product_makes_stay() -> None:
    make = GraphMaker()
    x = make("add", make.input(ROWS, WIDTH), make.input(ROWS, WIDTH))
    table = make("transpose", make.random(WORDS, WIDTH), perm=(1, 0))
    assert not run_pass(FoldNorms(), make.graph(make("matmul", layer_norm(make, x), table))).changed


def test_weights_seen_otherwise_stay() -> None:
    make = GraphMaker()
    x = make("matmul", make.input(ROWS, DEPTH), make.random(DEPTH, WIDTH))
    weights = make("reshape", make.random(WORDS * WIDTH), shape=(WIDTH, WORDS))
    assert not run_pass(FoldNorms(), make.graph(make("matmul", layer_norm(make, x), weights))).changed
