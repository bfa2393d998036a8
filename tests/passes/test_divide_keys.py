"""Attention to many keys, piece by piece: values beside FP64, what pieces see, and when it is left as it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import with_input_buffers
from networks import onnxruntime_outputs
from onnx import TensorProto, helper, numpy_helper
from pipeline import compile_graph, compiled_plans, fusing

from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.divide_keys import DivideKeys, divide_keys_for
from birc.compiler.plan_search import Found, PlanSearch
from birc.runtime.machine import load_machine

LOWEST = float(np.finfo(np.float32).min)
WIDE = with_input_buffers()


def attention(
    rows: int,
    columns: int,
    keeps: np.ndarray | None = None,
    low: float = -math.inf,
    *,
    bias: bool = False,
    heads: int = 2,
    depth: int = 8,
) -> Graph:
    """softmax(where(keeps, q @ k * 0.5 + bias, low)) @ v"""
    make = GraphMaker()
    scores = make("matmul", make.input(heads, rows, depth), make.input(heads, depth, columns))
    scores = make("mul", scores, make.constant(0.5))
    if bias:
        scores = make("add", scores, make.constant(slopes(columns)))
    if keeps is not None:
        scores = make("where", make.constant(keeps, element="bool"), scores, make.constant(low))
    return make.graph(make("matmul", make("softmax", scores, axis=2), make.input(heads, columns, depth)))


def slopes(columns: int) -> np.ndarray:
    return np.linspace(-2, 2, 2 * columns, dtype=np.float32).reshape(2, 1, columns)


def expected(graph: Graph, inputs: dict[str, np.ndarray], keeps: np.ndarray | None, bias: bool = False) -> np.ndarray:
    """The attention in FP64."""
    q, k, v = (inputs[value.name].astype(np.float64) for value in graph.inputs)
    scores = q @ k * 0.5 + (slopes(k.shape[-1]) if bias else 0.0)
    scores = scores if keeps is None else np.where(keeps, scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


def causal(rows: int, columns: int) -> np.ndarray:
    return np.tril(np.ones((rows, columns), bool), columns - rows)


def pieces(graph: Graph) -> list[tuple[int, ...]]:
    """The sizes of the scores of pieces that are put together."""
    return [graph.type_of(node.inputs[0]).sizes for node in graph.nodes if node.op == "logsumexp"]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_factors_of_queries_and_keys_do_not_hide_an_attention(shape: tuple[int, ...]) -> None:
    make = GraphMaker()
    factor = make.constant(np.full(shape, 0.7))
    queries, keys = make("mul", make.input(2, 5, 4), factor), make("mul", make.input(2, 4, 8), factor)
    graph = make.graph(make("matmul", make("softmax", make("matmul", queries, keys), axis=2), make.input(2, 8, 4)))
    assert len(pieces(run_passes(canonicalize(graph), (DivideKeys(4),)))) == 2


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 24),
    columns=st.integers(3, 40),
    most=st.sampled_from([2, 4, 6, 12]),
    tile=st.sampled_from([1, 2]),
    mask=st.sampled_from(["", "causal", "any", "columns"]),
    low=st.sampled_from([-math.inf, LOWEST, -1e30]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pieces_come_to_the_whole(
    rows: int, columns: int, most: int, tile: int, mask: str, low: float, bias: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    keeps = None
    if mask == "causal":
        keeps = causal(rows, columns) if rows <= columns else np.tri(rows, columns, dtype=bool)
    elif mask:
        keeps = generator.random((1 if mask == "columns" else rows, columns)) < 0.2
        keeps[:, generator.integers(columns)] = True
    graph = attention(rows, columns, keeps, low, bias=bias)
    result = DivideKeys(most, tile).run(graph)
    assert result.changed == (columns > most)
    assert all(sizes[-1] <= most for sizes in pieces(result.graph))
    inputs = random_inputs(graph)
    (actual,) = run_graph(result.graph, inputs).values()
    np.testing.assert_allclose(actual, expected(graph, inputs, keeps, bias), rtol=1e-4, atol=1e-5)


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    """The first piece has scores that are 300 above those of the second, in half of the rows, and below in others."""
    graph = attention(2, 8)
    inputs = random_inputs(graph)
    q, k = (inputs[value.name] for value in graph.inputs[:2])
    q[:], k[:] = 0, 0
    q[:, :, 0], k[:, 0, :4] = [[300, -300]], 2
    for one in (graph, DivideKeys(4).run(graph).graph):
        (actual,) = run_graph(one, inputs).values()
        np.testing.assert_allclose(actual, expected(graph, inputs, None), rtol=1e-5, atol=1e-6)


def test_rows_take_the_pieces_that_their_mask_lets_through() -> None:
    graph = attention(16, 16, causal(16, 16))
    result = DivideKeys(8).run(graph).graph
    softmax = [n.output.type.sizes for n in result.nodes if n.op == "softmax" and n.attributes["axis"] == 2]
    assert softmax == [(2, 8, 8), (2, 4, 8), (2, 4, 4), (2, 4, 8), (2, 4, 8)]
    assert pieces(result) == [(2, 4, 8), (2, 4, 4), (2, 4, 8), (2, 4, 8)]


def masked_attention(
    rows: int, columns: int, form: str, *sizes: int, low: float = -math.inf, heads: int = 2, depth: int = 8
) -> Graph:
    """As `attention`, with a mask of run time that is added, or lets scores through, or covers them."""
    make = GraphMaker()
    scores = make("matmul", make.input(heads, rows, depth), make.input(heads, depth, columns))
    scores = make("mul", scores, make.constant(0.5))
    values = make.input(heads, columns, depth)
    mask = make.input(*sizes, element="f32" if form == "added" else "bool")
    if form == "added":
        scores = make("add", scores, mask)
    else:
        options = (scores, make.constant(low))
        scores = make("where", mask, *(options if form == "keeps" else options[::-1]))
    return make.graph(make("matmul", make("softmax", scores, axis=2), values))


def masked_inputs(graph: Graph, form: str, keeps: np.ndarray, low: float) -> dict[str, np.ndarray]:
    """Random values, and the mask that leaves what `keeps` says."""
    mask = np.where(keeps, 0.0, low).astype(np.float32) if form == "added" else keeps == (form == "keeps")
    return {**random_inputs(graph), graph.inputs[3].name: mask}


def masked_expected(graph: Graph, inputs: dict[str, np.ndarray], form: str, low: float) -> np.ndarray:
    """The attention in exact numbers: what is added to all scores of a row changes nothing."""
    q, k, v, mask = (inputs[value.name].astype(np.float64) for value in graph.inputs)
    scores = q @ k * 0.5
    with np.errstate(invalid="ignore"):
        if form == "added":
            scores = scores + (mask - mask.max(axis=-1, keepdims=True))
        else:
            scores = np.where(mask == (form == "keeps"), scores, low)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(13, 40),
    most=st.sampled_from([(2, 2), (6, 4), (12, 6)]),
    form=st.sampled_from(["added", "keeps", "covers"]),
    axes=st.tuples(*[st.booleans()] * 3),
    rank=st.integers(1, 3),
    low=st.sampled_from([-math.inf, LOWEST, -1e4, -1.0]),
    share=st.sampled_from([0.0, 0.05, 0.5]),
    seed=st.integers(0, 99),
)
def test_pieces_under_masks_of_run_time(
    rows: int,
    columns: int,
    most: tuple[int, int],
    form: str,
    axes: tuple[bool, bool, bool],
    rank: int,
    low: float,
    share: float,
    seed: int,
) -> None:
    """Of any shape that spreads to the scores, with pieces and whole rows that they cover; those have no numbers where
    the scores are minus infinity."""
    sizes = tuple(size if wanted else 1 for size, wanted in zip((2, rows, columns), axes, strict=True))[-rank:]
    graph = masked_attention(rows, columns, form, *sizes, low=low)
    result = DivideKeys(most[0], 2, most[1]).run(graph)
    assert result.changed
    assert all(sizes[-1] <= most[1] for sizes in pieces(result.graph))
    keeps = np.random.default_rng(seed).random(sizes) < share
    inputs = masked_inputs(graph, form, keeps, low)
    (actual,) = run_graph(result.graph, inputs).values()
    wanted = masked_expected(graph, inputs, form, low)
    np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)
    assert np.isnan(actual).any() == (low == -math.inf and not keeps.any(axis=-1).all())


def test_what_is_added_may_be_any_number() -> None:
    graph = masked_attention(4, 16, "added", 2, 4, 16)
    inputs = random_inputs(graph)
    (actual,) = run_graph(DivideKeys(4, 1, 4).run(graph).graph, inputs).values()
    np.testing.assert_allclose(actual, masked_expected(graph, inputs, "added", 0.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["added", "keeps"])
def test_a_mask_that_attentions_share_is_looked_at_once(form: str) -> None:
    make = GraphMaker()
    mask = make.input(2, 1, 12, element="f32" if form == "added" else "bool")
    low, x = make.constant(-math.inf), make.input(2, 4, 8)
    for _ in range(3):
        scores = make("matmul", x, make.input(2, 8, 12))
        scores = make("add", scores, mask) if form == "added" else make("where", mask, scores, low)
        x = make("matmul", make("softmax", scores, axis=2), make.input(2, 12, 8))
    result = DivideKeys(4, 1, 4).run(make.graph(x)).graph
    assert sum(node.op in ("reduce_max", "reduce_min") for node in result.nodes) == 1
    assert sum(node.op == "softmax" for node in result.nodes) == 3 * (3 + 1)


Rest = Callable[[GraphMaker, str], str]
OTHERS: dict[str, Rest] = {
    "few keys": lambda make, scores: make("add", scores, make.constant(0.5)),
    "a mask with infinities": lambda make, scores: make(
        "add", scores, make.constant(np.where(np.arange(12) < 6, 0, -np.inf))
    ),
    "two masks of run time": lambda make, scores: make(
        "where",
        make.input(1, 4, 12, element="bool"),
        make("add", scores, make.input(2, 1, 12)),
        make.constant(-math.inf),
    ),
    "a constant mask beside one of run time": lambda make, scores: make(
        "where",
        make.constant(causal(4, 12), element="bool"),
        make("add", scores, make.input(2, 1, 12)),
        make.constant(-math.inf),
    ),
    "a factor of run time": lambda make, scores: make("mul", scores, make.input(2, 1, 12)),
    "one number of run time": lambda make, scores: make("add", scores, make.input()),
    "scores of run time in place of others": lambda make, scores: make(
        "where", make.input(4, 12, element="bool"), scores, make.input(4, 12)
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_left_as_it_is(case: str) -> None:
    """Where whole pieces may have the score minus infinity they have no shares to put together."""
    make = GraphMaker()
    scores = make("matmul", make.input(2, 4, 8), make.input(2, 8, 12))
    others = OTHERS[case](make, scores)
    graph = make.graph(make("matmul", make("softmax", others, axis=2), make.input(2, 12, 8)))
    assert not DivideKeys(12 if case == "few keys" else 4).run(graph).changed


DEVICE = {
    "no mask": (128, 320, None),
    "causal": (192, 320, causal(192, 320)),
    "three pieces": (64, 384, None),
    "a row without a score in a piece": (64, 256, np.arange(256)[None, :] % 256 >= np.arange(64)[:, None] * 4),
}


@pytest.mark.parametrize("precision", ["bf16", "model"])
@pytest.mark.parametrize("case", DEVICE)
def test_pieces_on_the_device(case: str, precision: str) -> None:
    """All plans, on both engines: each piece is one kernel of scores and shares, and one with the values."""
    rows, columns, keeps = DEVICE[case]
    graph = attention(rows, columns, keeps)
    divided = DivideKeys(128, 64).run(graph).graph
    assert pieces(divided)
    inputs = random_inputs(graph)
    wanted = expected(graph, inputs, keeps)
    error = 3e-2 if precision == "bf16" else 2e-3
    for number, compiled in enumerate(compiled_plans(divided, WIDE, precision)):
        compiled.verify()
        outputs = [compiled.values(inputs), *([compiled.step(inputs, "random", 3)] if number == 0 else [])]
        for actual in (array for each in outputs for array in each.values()):
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=error)
    products = sum(kernel.contraction is not None for kernel in compiled.kernels)
    assert products == sum(node.op == "matmul" for node in divided.nodes)


@pytest.mark.parametrize("columns", [256, 384])
def test_logarithms_of_sums_are_not_rounded_in_bf16(columns: int) -> None:
    """Scores of about a hundred, whose logarithms are half apart in BF16, and pieces with opposite results."""
    graph = attention(64, columns)
    inputs = {name: np.round(array * 8) / 8 for name, array in random_inputs(graph).items()}
    q, k, v = (inputs[value.name] for value in graph.inputs)
    q[:, :, 0], k[:, 0] = 10, 20
    v[:] = np.where(np.arange(columns) < 128, 1, -1)[:, None]
    divided = DivideKeys(128, 64).run(graph).graph
    for compiled in compiled_plans(divided, WIDE, "bf16"):
        (actual,) = compiled.values(inputs).values()
        np.testing.assert_allclose(actual, expected(graph, inputs, None), rtol=0, atol=1e-2)


MASKED = {
    "added to columns": ("added", (2, 1, 320), -math.inf),
    "added to rows of columns": ("added", (1, 64, 320), -1e4),
    "chooses columns": ("keeps", (2, 1, 320), -math.inf),
    "covers rows of columns": ("covers", (1, 64, 320), LOWEST),
}


@pytest.mark.parametrize("precision", ["bf16", "model"])
@pytest.mark.parametrize("case", MASKED)
def test_masks_of_run_time_on_the_device(case: str, precision: str) -> None:
    """On both engines, with rows that see one piece only, and none."""
    form, sizes, low = MASKED[case]
    graph = masked_attention(64, 320, form, *sizes, low=low)
    divided = DivideKeys(256, 64, 128).run(graph).graph
    keeps = np.arange(320) < np.array([100, 0] * 32)[: sizes[0] * sizes[1]].reshape(*sizes[:2], 1)
    inputs = masked_inputs(graph, form, keeps, low)
    wanted = masked_expected(graph, inputs, form, low)
    assert np.isnan(wanted).any() == (low == -math.inf)
    for number, compiled in enumerate(compiled_plans(divided, WIDE, precision)):
        compiled.verify()
        outputs = [compiled.values(inputs), *([compiled.step(inputs, "random", 3)] if number == 0 else [])]
        for actual in (array for each in outputs for array in each.values()):
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=3e-2 if precision == "bf16" else 2e-3)
    assert sum(kernel.contraction is not None for kernel in compiled.kernels) == 2 * len(pieces(divided))


@pytest.mark.parametrize("precision", ["bf16", "model"])
@pytest.mark.parametrize("form", ["added", "chosen"])
def test_models_with_padding_masks_beside_onnxruntime(form: str, precision: str) -> None:
    """Sequences of 300 and 70 tokens in a batch that is 320 long, as they are exported."""
    sizes, element = [2, 2, 320, 16], TensorProto.FLOAT
    shapes = {"q": (element, sizes), "k": (element, [2, 2, 16, 320]), "v": (element, sizes)}
    shapes["mask"] = (element if form == "added" else TensorProto.BOOL, [2, 1, 1, 320])
    masking = ["s", "mask"] if form == "added" else ["mask", "s", "low"]
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["qk"]),
        helper.make_node("Div", ["qk", "root"], ["s"]),
        helper.make_node("Add" if form == "added" else "Where", masking, ["masked"]),
        helper.make_node("Softmax", ["masked"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(name, *shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", element, sizes)],
        [numpy_helper.from_array(np.float32(number), name) for name, number in (("root", 4.0), ("low", LOWEST))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    imported = canonicalize(import_model(model))
    keeps = np.arange(320) < np.array([300, 70]).reshape(2, 1, 1, 1)
    mask = np.where(keeps, 0, LOWEST).astype(np.float32) if form == "added" else keeps
    inputs = {**random_inputs(imported), "mask": mask}
    divided = DivideKeys(256, 64, 128).run(imported).graph
    assert len(pieces(divided)) == 3
    compiled = compile_graph(divided, WIDE, precision)
    (actual,) = compiled.values(inputs).values()
    np.testing.assert_allclose(
        actual, onnxruntime_outputs(model, inputs)["y"], atol=1e-2 if precision == "bf16" else 1e-3
    )


def test_on_a_br100_each_piece_is_two_products() -> None:
    """Of 2,048 keys, which no kernel takes together, nothing is left to kernels of its own but putting together."""
    machine = load_machine("br100")
    graph = attention(2048, 2048, causal(2048, 2048))
    divided = divide_keys_for(machine).run(graph).graph
    fused = run_passes(divided, fusing(machine, "bf16"))
    kinds = [node.attributes["kind"] for node in fused.nodes if node.op == "group" and node.body is not None]
    softmax = [kind for kind in kinds if "softmax" in str(kind)]
    assert len(softmax) == sum(node.op == "matmul" for node in fused.nodes)
    assert set(softmax) == {"matmul+softmax", "matmul+softmax+logsumexp"}


@pytest.mark.parametrize(("rows", "columns"), [(512, 2048), (16, 4096)])
def test_the_faster_way_is_taken(rows: int, columns: int) -> None:
    machine = load_machine("br100")
    search, plain = PlanSearch(machine, "bf16", 3), fusing(machine, "bf16")
    ways = (plain, (divide_keys_for(machine), *plain))
    graph = attention(rows, columns, heads=16, depth=64)
    latencies = [_cycles(search.plan(run_passes(graph, way), timed=True)) for way in ways]
    passes, found = search.best_way(graph, ways)
    assert passes is ways[int(np.argmin(latencies))]
    assert _cycles(found) == min(latencies)
    assert (latencies[1] < latencies[0]) == (rows == 512)


def _cycles(found: Found) -> int:
    assert found.outcome is not None
    return found.outcome.latency_cycles


def test_logarithms_that_no_softmax_makes_have_a_kernel_of_their_own() -> None:
    """Those of other scores, and of rows that are too long to wait in registers."""
    make = GraphMaker()
    x, y = make.input(2, 64, 8), make.input(2, 8, 64)
    scores = make("matmul", x, y)
    graph = make.graph(make("softmax", scores, axis=2), make("logsumexp", scores, axis=1))
    inputs = random_inputs(graph)
    wanted = run_graph(graph, inputs)
    for compiled in compiled_plans(graph, WIDE):
        assert len(compiled.kernels) > 1
        for name, actual in compiled.values(inputs).items():
            np.testing.assert_allclose(actual, wanted[name], rtol=0, atol=2e-3)
