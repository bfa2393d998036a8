"""64-bit integers as pairs of words, against Python's own integers, and whole kernels of them on both engines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker
from integer_reference import BINARY, REFERENCE, TRUTH, UNARY, interesting, power, wrapped
from macro_values import evaluate
from pipeline import compile_graph

from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.lower.expression import Builder, Expression
from birc.compiler.passes.lower.ranges import all_of, graph_ranges
from birc.compiler.passes.lower.wide import WIDE_MACROS, Wide, from_float, known, to_float
from birc.runtime.dtypes import DType, dtype

TYPES = ("i64", "u64")


def loaded(number: int) -> Wide:
    return Wide(*(Expression("vld", index_axis=2 * number + word, is_float=False) for word in (0, 1)))


def words(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The low and the high words as a load leaves them in registers."""
    pairs = np.ascontiguousarray(values).view(np.int32).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def joined(low: np.ndarray, high: np.ndarray, type: DType) -> np.ndarray:
    pairs = np.stack(np.broadcast_arrays(low, high), axis=-1).astype(np.int32)
    return np.ascontiguousarray(pairs).view(type.numpy).reshape(-1)


def computed(op: str, type: DType, *operands: np.ndarray | int, **attributes: float) -> np.ndarray:
    pairs = tuple(known(a) if isinstance(a, int) else loaded(i) for i, a in enumerate(operands))
    lanes = {
        register: lane
        for pair, a in zip(pairs, operands, strict=True)
        if isinstance(a, np.ndarray)
        for register, lane in zip(pair.words, words(a), strict=True)
    }
    result = WIDE_MACROS[op](Builder(), pairs, attributes, type)
    if isinstance(result, Expression):
        return evaluate(result, lanes)
    return joined(*(evaluate(word, lanes) for word in result.words), type)


def check(op: str, type: DType, result: np.ndarray, expected: list[int]) -> None:
    np.testing.assert_array_equal(result, expected if op in TRUTH else wrapped(expected, type))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("op", BINARY)
def test_two_operands(op: str, name: str) -> None:
    type = dtype(name)
    values = interesting(type)[::2]
    a, b = (np.ascontiguousarray(grid).reshape(-1) for grid in np.meshgrid(values, values))
    expected = [int(REFERENCE[op](x, y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    check(op, type, computed(op, type, a, b), expected)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("op", UNARY)
def test_one_operand(op: str, name: str) -> None:
    type = dtype(name)
    values = interesting(type)
    check(op, type, computed(op, type, values), [int(REFERENCE[op](x)) for x in values.tolist()])


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("op", ["add", "mul", "div", "mod", "less", "maximum"])
@pytest.mark.parametrize("number", [1, 3, 10**6, (1 << 40) + 12345, (1 << 62) + 7])
def test_immediates(op: str, name: str, number: int) -> None:
    type = dtype(name)
    values = interesting(type)
    check(op, type, computed(op, type, values, number), [int(REFERENCE[op](x, number)) for x in values.tolist()])


@pytest.mark.parametrize("name", TYPES)
def test_powers(name: str) -> None:
    type = dtype(name)
    for exponent in (*((-3, -2) if type.kind == "int" else ()), 0, 1, 2, 5, 31, 39, 63, 64, 65, 1000):
        bases = [v for v in (-3, -2, -1, 0, 1, 2, 3, 10) if type.kind == "int" or v >= 0]
        kept = np.array([v for v in bases if v % 2 == 0 or abs(v) == 1 or exponent < 64], type.numpy)
        expected = [power(x, exponent) for x in kept.tolist()]
        check("pow", type, computed("pow", type, kept, np.full_like(kept, exponent)), expected)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("op", ["shift_left", "shift_right"])
def test_shifts(op: str, name: str) -> None:
    type = dtype(name)
    values = interesting(type)
    for places in (0, 1, 31, 32, 33, 63, 64, 200, *((-1, -(1 << 40)) if type.kind == "int" else (1 << 40,))):
        inside = 0 <= places < 64
        if op == "shift_left":
            expected = [x << places if inside else 0 for x in values.tolist()]
        else:
            expected = [x >> (places if inside else 64) for x in values.tolist()]
        check(op, type, computed(op, type, values, np.full_like(values, places)), expected)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("limits", [(-3.0, 5.0), (0.0, float("inf")), (float("-inf"), 2.0**40), (-(2.0**50), 7.9)])
def test_clip(name: str, limits: tuple[float, float]) -> None:
    type = dtype(name)
    values, ends = interesting(type), np.iinfo(type.numpy)
    low, high = (int(min(max(limit, float(ends.min)), float(ends.max))) for limit in limits)
    result = computed("clip", type, values, minimum=limits[0], maximum=limits[1])
    check("clip", type, result, [min(max(x, low), high) for x in values.tolist()])


@pytest.mark.parametrize("name", TYPES)
def test_the_nearest_float(name: str) -> None:
    type = dtype(name)
    ties = np.array(
        [(1 << 40) + (1 << 16), (1 << 40) + (1 << 16) + 1, (1 << 62) + (1 << 38), (3 << 24) + 1], type.numpy
    )
    values = np.concatenate([interesting(type), ties])
    x = loaded(0)
    result = evaluate(to_float(Builder(), x, type), dict(zip(x.words, words(values), strict=True)))
    np.testing.assert_array_equal(result, [np.float32(v) for v in values])


@pytest.mark.parametrize("name", TYPES)
def test_floats_are_cut_and_held(name: str) -> None:
    type = dtype(name)
    rng = np.random.default_rng(5)
    values = (rng.normal(size=400) * 10.0 ** rng.integers(-1, 22, 400)).astype(np.float32)
    values = np.concatenate(
        [values, np.float32([0, -0.5, 0.9, 2.0**63, -(2.0**63), 2.0**64, 1e30, -1e30, np.inf, -np.inf])]
    )
    x = Expression("vld")
    result = from_float(Builder(), x, type)
    actual = joined(*(evaluate(word, {x: values}) for word in result.words), type)
    whole = all_of(type)
    expected = [min(max(int(min(max(float(v), -1e30), 1e30)), whole.low), whole.high) for v in values]
    np.testing.assert_array_equal(actual, wrapped(expected, type))
    nothing = from_float(Builder(), x, type)
    assert not joined(*(evaluate(w, {x: np.float32([np.nan])}) for w in nothing.words), type).any()


def big(*shape: int, kind: type = np.int64) -> np.ndarray:
    limits = np.iinfo(kind)
    return np.random.default_rng(list(shape)).integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


Body = Callable[[GraphMaker, str], str]
KERNELS: dict[str, Body] = {
    "chain": lambda m, x: m("sub", m("mul", m("add", x, m.constant(1 << 40, "i64")), x), x),
    "transpose": lambda m, x: m("transpose", x, perm=(1, 0)),
    "strides": lambda m, x: m("neg", m("slice", x, starts=(1, 0), ends=(4, 7), steps=(1, 2))),
    "concat": lambda m, x: m("concat", x, m("neg", x), axis=1),
    "pad": lambda m, x: m("pad", x, pads=(1, 0, 0, 2), value=-5.0),
    "gather": lambda m, x: m("gather", x, m.constant(np.array([3, 0, -1]), "i64"), axis=1),
    "largest": lambda m, x: m("reduce_max", m("abs", x), axes=(1,), keepdims=0),
    "smallest": lambda m, x: m("reduce_min", x, axes=(0, 1), keepdims=1),
    "sum": lambda m, x: m("reduce_sum", x, axes=(1,), keepdims=0),
    "product": lambda m, x: m("reduce_prod", x, axes=(0, 1), keepdims=0),
    "order": lambda m, x: m("less", x, m("transpose", m("transpose", m("neg", x), perm=(1, 0)), perm=(1, 0))),
    "choice": lambda m, x: m("where", m("less", x, m.constant(0, "i64")), m.constant(-(1 << 50), "i64"), x),
    "narrower": lambda m, x: m("cast", x, to=dtype("i32")),
    "lanes": lambda m, x: m("mul", m("mod", x, m.constant(1000, "i64")), m.constant(7, "i64")),
    "unsigned": lambda m, x: m("cast", m("cast", x, to=dtype("u32")), to=dtype("i64")),
    "float": lambda m, x: m("cast", x, to=dtype("f32")),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_64_bits(name: str) -> None:
    make = GraphMaker()
    graph = make.graph(KERNELS[name](make, make.input(4, 7, element="i64")))
    inputs = {"x0": big(4, 7)}
    compiled = compile_graph(graph, "tiny")
    compiled.verify()
    (expected,) = run_graph(graph, inputs).values()
    for actual in (compiled.step(inputs), compiled.values(inputs)):
        np.testing.assert_array_equal(next(iter(actual.values())), expected)


def test_long_sums_are_exact() -> None:
    make = GraphMaker()
    graph = make.graph(make("reduce_sum", make.input(2, 40000, element="i64"), axes=(1,), keepdims=0))
    x = big(2, 40000) >> 10
    (actual,) = compile_graph(graph, "tiny").values({"x0": x}).values()
    np.testing.assert_array_equal(actual, x.sum(axis=1))


@pytest.mark.parametrize(("op", "element"), [("reduce_sum", "i64"), ("reduce_mean", "i32"), ("reduce_mean", "u64")])
def test_sums_of_more_than_a_million_numbers(op: str, element: str) -> None:
    count = (1 << 20) + 64
    make = GraphMaker()
    graph = make.graph(make(op, make.input(count // 64, 64, element=element), axes=(0, 1), keepdims=0))
    limits = np.iinfo(dtype(element).numpy)
    x = np.random.default_rng(0).integers(limits.min, limits.max, (count // 64, 64), dtype(element).numpy)
    x >>= x.dtype.type(24 if element == "u64" else 0)
    total = sum(map(int, x.sum(axis=0, dtype=object)))
    expected = (
        wrapped([total], dtype(element))[0] if op == "reduce_sum" else int(total / abs(total)) * (abs(total) // count)
    )
    (actual,) = compile_graph(graph, "tiny").values({"x0": x}).values()
    assert actual == expected


@pytest.mark.parametrize("op", ["maximum", "less", "div", "reduce_max", "reduce_min", "to_float"])
def test_unsigned_words_have_their_whole_range(op: str) -> None:
    make = GraphMaker()
    x, y = make.input(3, 5, element="u32"), make.input(3, 5, element="u32")
    if op.startswith("reduce"):
        body = make(op, make("maximum", x, y), axes=(1,), keepdims=0)
    else:
        body = make("cast", make("maximum", x, y), to=dtype("f32")) if op == "to_float" else make(op, x, y)
    graph = make.graph(body)
    inputs = {"x0": big(3, 5, kind=np.uint32), "x1": big(5, 3, kind=np.uint32).reshape(3, 5) | 1}
    compiled = compile_graph(graph, "tiny")
    compiled.verify()
    (expected,) = run_graph(graph, inputs).values()
    for actual in (compiled.step(inputs), compiled.values(inputs)):
        np.testing.assert_array_equal(next(iter(actual.values())), expected)


def test_what_provably_fits_a_lane_is_computed_in_one() -> None:
    make = GraphMaker()
    index = make("cast", make.input(4, element="i32"), to=dtype("i64"))
    inside = make("mod", index, make.constant(100, "i64"))
    graph = make.graph(make("add", make("mul", inside, make.constant(8, "i64")), make.constant(3, "i64")))
    assert graph_ranges(graph)[graph.outputs[0]].fits_lane
    for kernel in compile_graph(graph, "tiny").kernels:
        assert [s.op for phase in kernel.phases for s in phase.statements].count("vst") == 1


@pytest.mark.parametrize(
    "op", ["add", "sub", "mul", "div", "mod", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"]
)
@pytest.mark.parametrize("limits", [((-7, 5), (1, 9)), ((0, 100), (3, 3)), ((-9, -2), (-4, 6)), ((2, 2), (0, 1))])
def test_ranges_hold_every_result(op: str, limits: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (a_low, a_high), (b_low, b_high) = limits
    make = GraphMaker()
    grids = np.meshgrid(np.arange(a_low, a_high + 1), np.arange(b_low, b_high + 1))
    graph = make.graph(make(op, *(make.constant(grid.astype(np.int64), "i64") for grid in grids)))
    found = graph_ranges(graph)[graph.outputs[0]]
    (values,) = run_graph(graph, {}).values()
    assert found.low <= values.min()
    assert values.max() <= found.high
