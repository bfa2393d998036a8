"""Every rule fires on its cases, changes nothing numerically, and does not match its own result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import integer_forms
import numpy as np
import pytest
import rotary_forms
import score_forms
import unrolled_forms
from graph_maker import GraphMaker, random_inputs, sources_of

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes import fold_batch_norm, integer_products, quantized_products, recognise_composites, simplify
from birc.compiler.passes.rules import Rule, apply_rules
from birc.runtime.dtypes import dtype

F32 = dtype("f32")
EXACT = 0.0
ROUNDED = 3e-6  # a few roundings of f32 in another order
TABLES = (
    *(simplify.RULES, fold_batch_norm.RULES, recognise_composites.RULES),
    *(integer_products.RULES, quantized_products.RULES),
)
RULES = {rule.name: rule for rules in TABLES for rule in rules}
Body = Callable[[GraphMaker], str]


@dataclass(frozen=True)
class Case:
    """`rule` alone turns the graph into one of `ops` (in order of execution)."""

    rule: str
    ops: str
    body: Body
    tolerance: float = EXACT
    low: float = -2.0


def conv(make: GraphMaker, *, bias: bool, group: int = 1) -> str:
    inputs = [make.input(2, 4, 5, 6), make.random(6, 4 // group, 3, 3), *([make.random(6)] if bias else [])]
    return make("conv2d", *inputs, stride=(1, 2), pads=(1, 0, 1, 0), dilation=(1, 1), group=group)


def batch_norm(make: GraphMaker, x: str, channels: int) -> str:
    parameters = (make.random(channels), make.random(channels), make.random(channels))
    return make("batch_norm", x, *parameters, make.random(channels, low=0.5, high=2.0), epsilon=1e-3)


def slices(make: GraphMaker) -> str:
    inner = make("slice", make.input(9, 10), starts=(1, 0), ends=(9, 10), steps=(2, 3))
    return make("slice", inner, starts=(1, 1), ends=(4, 4), steps=(2, 1))


def rows(make: GraphMaker, x: str) -> str:
    """Six rows of a matrix as two times three."""
    return make("reshape", x, shape=(2, 3, 5))


def biased_rows(make: GraphMaker) -> str:
    return rows(make, make("add", make.random(5), make("matmul", make.input(6, 4), make.random(4, 5))))


def chain(op: str) -> Body:
    def body(make: GraphMaker) -> str:
        inner = make(op, make.random(3, 1), make.input(2, 3, 4))
        return make(op, inner, make.random(3, 1))

    return body


def scale_and_shift(make: GraphMaker) -> str:
    scaled = make("mul", make.input(2, 3, 4), make.random(3, 1))
    return make("mul", make("add", scaled, make.random(3, 1)), make.constant(1.7))


def erf_gelu(order: int) -> Body:
    """0.5 x (1 + erf(x / sqrt 2)) as different exporters write it."""

    def body(make: GraphMaker) -> str:
        x = make.input(3, 5)
        root = make.constant(math.sqrt(2))
        inner = make("div", x, root) if order != 2 else make("mul", make.constant(math.sqrt(0.5)), x)
        gate = make("add", make("erf", inner), make.constant(1.0))
        half = make.constant(0.5)
        if order == 0:
            return make("mul", make("mul", x, gate), half)
        if order == 1:
            return make("mul", make("mul", half, x), gate)
        if order == 2:
            return make("mul", x, make("mul", gate, half))
        return make("mul", make("div", x, make.constant(2.0)), gate)

    return body


def tanh_gelu(order: int) -> Body:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) as different exporters write it."""

    def body(make: GraphMaker) -> str:
        x, slope = make.input(3, 5), make.constant(math.sqrt(2 / math.pi))
        cubic = make.constant(0.044715)
        square = make("mul", x, x) if order else ""
        if order == 0:
            inner = make("mul", slope, make("add", x, make("mul", cubic, make("pow", x, make.constant(3.0)))))
        elif order == 1:
            inner = make("mul", make("add", x, make("mul", make("mul", square, x), cubic)), slope)
        else:
            curve = make("add", make.constant(1.0), make("mul", cubic, square))
            inner = make("mul", make("mul", slope, x), curve)
        gate = make("add", make.constant(1.0), make("tanh", inner))
        return make("mul", make("mul", make.constant(0.5), x), gate)

    return body


def mean_square(make: GraphMaker, x: str, square: str) -> str:
    squared = make("mul", x, x) if square == "mul" else make("pow", x, make.constant(2.0))
    mean = make("reduce_mean", squared, axes=(2,), keepdims=1)
    return make("add", mean, make.constant(1e-5))


def rms_norm(order: int) -> Body:
    def body(make: GraphMaker) -> str:
        x, scale = make.input(2, 3, 8), make.random(8) if order != 2 else make.random(1, 1, 8)
        inverse = make("rsqrt", mean_square(make, x, "mul" if order else "pow"))
        if order == 0:
            return make("mul", make("mul", x, inverse), scale)
        return make("mul", scale, make("mul", inverse, x))

    return body


def rms_norm_by_division(make: GraphMaker) -> str:
    x = make.input(2, 3, 8)
    quotient = make("div", x, make("sqrt", mean_square(make, x, "mul")))
    return make("mul", make.random(8), quotient)


def layer_norm(make: GraphMaker) -> str:
    """Its inside is already an RMSNorm of the centred values: that rule comes first."""
    x = make.input(2, 3, 8)
    centred = make("sub", x, make("reduce_mean", x, axes=(2,), keepdims=1))
    return make("add", make("rms_norm", centred, make.random(8), axis=2, epsilon=1e-5), make.random(8))


def gather_nd(make: GraphMaker, *shape: int, positions: list) -> str:
    return make("gather_nd", make.input(*shape), make.constant(positions, "i64"), batch_dims=0)


def where(make: GraphMaker, condition: bool, *shape: int) -> str:
    return make("where", make.splat(condition, *shape, element="bool"), make.input(3), make.input(2, 3))


def silu(make: GraphMaker) -> str:
    x = make.input(2, 3)
    return make("mul", make("sigmoid", x), x)


EVERYTHING = [[[row, column] for column in range(3)] for row in range(2)]


def concat_of_both(make: GraphMaker, longer: str, axis: int = 1) -> str:
    """The sum of a concatenation's values, and those of a longer one of the values that `longer` names."""
    values = {name: make.input(2, 2) for name in "xyz"}
    short = make("concat", values["x"], values["y"], axis=1)
    whole = make("concat", *(values[name] for name in longer), axis=axis)
    return make("add", *(make("reduce_sum", value, axes=(0, 1), keepdims=1) for value in (short, whole)))


def concat_of_parts(make: GraphMaker, *parts: tuple[int, int], rows: Sequence[int] = (0, 0), step: int = 1) -> str:
    """A concatenation of some columns of a tensor, each from its row on, and of another tensor."""
    x, other = make.input(4, 5), make("neg", make.input(3, 2))
    pieces = [
        make("slice", x, starts=(row, start), ends=(row + 3, end), steps=(1, step))
        for row, (start, end) in zip(rows, parts, strict=True)
    ]
    return make("concat", *pieces, other, axis=1)


SIGNED = "cast sub cast"
SUMS = "cast reduce_sum mul"
GROUPED_PIECE = "reshape slice reshape slice conv2d"

UNROLLED = "tanh mul slice reshape " * 3 + "concat concat matmul"

CASES = (
    Case("same-shape-reshape", "neg", lambda m: m("neg", m("reshape", m.input(2, 3), shape=(2, 3)))),
    Case("same-shape-expand", "neg", lambda m: m("neg", m("expand", m.input(2, 3), shape=(2, 3)))),
    Case("same-order-transpose", "neg", lambda m: m("neg", m("transpose", m.input(2, 3), perm=(0, 1)))),
    Case("same-type-cast", "neg", lambda m: m("neg", m("cast", m.input(2, 3), to=F32))),
    Case(
        "whole-slice",
        "neg",
        lambda m: m("neg", m("slice", m.input(2, 3), starts=(0, 0), ends=(2, 3), steps=(1, 1))),
    ),
    Case("single-concat", "neg", lambda m: m("neg", m("concat", m.input(2, 3), axis=1))),
    Case("concat-without-empty", "concat", lambda m: m("concat", m.input(2, 3), m.input(0, 3), m.input(1, 3), axis=0)),
    Case(
        "concat-of-concat",
        "concat concat reduce_sum reduce_sum add",
        lambda m: concat_of_both(m, "xyz"),
    ),
    Case("concat-of-slices", "neg slice concat", lambda m: concat_of_parts(m, (0, 2), (2, 4))),
    Case("no-padding", "neg", lambda m: m("neg", m("pad", m.input(2, 3), pads=(0, 0, 0, 0), value=1.0))),
    Case(
        "reshape-of-reshape",
        "reshape",
        lambda m: m("reshape", m("reshape", m.input(2, 6), shape=(12,)), shape=(3, 4)),
    ),
    Case(
        "transpose-of-transpose",
        "transpose",
        lambda m: m("transpose", m("transpose", m.input(2, 3, 4), perm=(1, 2, 0)), perm=(0, 2, 1)),
    ),
    Case("transpose-between-reshapes", "transpose", score_forms.turned_keys((6, 5, 4), (0, 2, 1), (2, 3, 4, 5))),
    Case("transpose-between-reshapes", "transpose", score_forms.turned_keys((2, 15, 4), (2, 1, 0), (4, 3, 5, 2))),
    Case(
        "transpose-between-reshapes",
        "transpose",
        lambda m: m(
            "reshape", m("transpose", m("reshape", m.input(1, 3, 1, 4), shape=(3, 4)), perm=(1, 0)), shape=(1, 4, 1, 3)
        ),
    ),
    Case(
        "expand-of-expand",
        "expand",
        lambda m: m("expand", m("expand", m.input(1, 3, 1), shape=(1, 3, 4)), shape=(2, 3, 4)),
    ),
    Case("slice-of-slice", "slice", slices),
    Case("add-zero", "neg", lambda m: m("neg", m("add", m.constant(0.0), m.input(2, 3)))),
    Case("multiply-by-one", "neg", lambda m: m("neg", m("mul", m.input(2, 3), m.splat(1.0, 3)))),
    Case("subtract-zero", "neg", lambda m: m("neg", m("sub", m.input(2, 3), m.constant(0.0)))),
    Case("divide-by-one", "neg", lambda m: m("neg", m("div", m.input(2, 3), m.constant(1.0)))),
    Case("divide-by-power-of-two", "mul", lambda m: m("div", m.input(2, 3), m.constant([0.25, -2.0, 1024.0]))),
    Case("divide-by-power-of-two", "mul", lambda m: m("div", m.input(2, 3), m.splat(8.0, 3))),
    Case("one-over-root", "rsqrt", lambda m: m("div", m.constant(1.0), m("sqrt", m.input(3))), ROUNDED, 0.1),
    Case("reciprocal-of-root", "rsqrt", lambda m: m("reciprocal", m("sqrt", m.input(3))), ROUNDED, 0.1),
    Case("small-power", "neg", lambda m: m("neg", m("pow", m.input(5), m.constant(1.0)))),
    Case("small-power", "mul", lambda m: m("pow", m.input(5), m.constant(2.0)), ROUNDED),
    Case("small-power", "mul mul", lambda m: m("pow", m.input(5), m.splat(3.0, 5)), ROUNDED),
    Case("small-power", "sqrt", lambda m: m("pow", m.input(5), m.constant(0.5)), ROUNDED, 0.1),
    Case("small-power", "rsqrt", lambda m: m("pow", m.input(5), m.constant(-0.5)), ROUNDED, 0.1),
    Case("small-power", "reciprocal", lambda m: m("pow", m.input(5), m.constant(-1.0)), ROUNDED, 0.1),
    Case("merge-factors", "mul", chain("mul"), ROUNDED),
    Case("merge-terms", "add", chain("add"), ROUNDED),
    Case("merge-scale-and-shift", "mul add", scale_and_shift, ROUNDED),
    Case("known-choice", "neg", lambda m: m("neg", where(m, False, 3))),
    Case("known-choice", "expand", lambda m: where(m, True, 2, 1)),
    Case(
        "term-into-convolution-bias",
        "conv2d",
        lambda m: m("add", m.random(1, 6, 1, 1), conv(m, bias=True)),
        ROUNDED,
    ),
    Case(
        "term-into-convolution-bias",
        "conv2d",
        lambda m: m("add", conv(m, bias=False), m.constant(2.0)),
        ROUNDED,
    ),
    Case(
        "factor-into-convolution-weights",
        "conv2d",
        lambda m: m("mul", conv(m, bias=True, group=2), m.random(6, 1, 1)),
        ROUNDED,
    ),
    Case(
        "factor-into-convolution-weights",
        "conv2d",
        lambda m: m("mul", m.constant(0.3), conv(m, bias=False)),
        ROUNDED,
    ),
    Case("gather-nd-known", "reshape", lambda m: gather_nd(m, 2, 3, positions=EVERYTHING)),
    Case("gather-nd-known", "reshape gather", lambda m: gather_nd(m, 2, 3, 4, positions=[[1, -1], [0, 0]])),
    Case("gather-of-a-run", "slice", lambda m: m("gather", m.input(2, 5), m.constant([2, -2], "i64"), axis=1)),
    Case(
        "gather-of-a-run",
        "slice reshape",
        lambda m: m("gather", m.input(2, 5), m.constant(-1, "i64"), axis=1),
    ),
    Case("rows-of-product", "reshape matmul", lambda m: rows(m, m("matmul", m.input(6, 4), m.random(4, 5)))),
    Case("rows-of-sum", "matmul reshape add", biased_rows),
    Case("batch-norm-into-convolution", "conv2d", lambda m: batch_norm(m, conv(m, bias=False), 6), ROUNDED),
    Case("batch-norm-into-convolution", "conv2d", lambda m: batch_norm(m, conv(m, bias=True), 6), ROUNDED),
    Case("batch-norm-to-scale-and-shift", "mul add", lambda m: batch_norm(m, m.input(2, 3, 4), 3), ROUNDED),
    Case("silu", "silu", silu, ROUNDED),
    *(Case("erf-gelu", "gelu", erf_gelu(order), ROUNDED) for order in range(4)),
    *(Case("tanh-gelu", "gelu", tanh_gelu(order), ROUNDED) for order in range(3)),
    *(
        Case("rms-norm", "rms_norm" if order < 2 else "reshape rms_norm", rms_norm(order), ROUNDED)
        for order in range(3)
    ),
    Case("rms-norm-by-division", "rms_norm", rms_norm_by_division, ROUNDED),
    Case("layer-norm", "layer_norm", layer_norm, ROUNDED),
    *(Case("rotate-by-turned-copy", "rotate", lambda m, o=o: rotary_forms.turned_copy(m, order=o)) for o in (0, 1)),
    Case("rotate-by-turned-copy", "rotate", lambda m: rotary_forms.turned_copy(m, neighbours=True)),
    Case("rotate-by-turned-copy", "slice rotate", rotary_forms.turned_copy_of_a_part),
    *(
        Case("rotate-by-halves", "rotate", lambda m, o=o: rotary_forms.turned_pairs(m, order=o), ROUNDED)
        for o in (0, 1)
    ),
    Case("rotate-by-halves", "slice rotate slice concat", rotary_forms.turned_first_half, ROUNDED),
    *(
        Case("rotate-by-neighbours", ops, lambda m, f=form: rotary_forms.turned_pairs(m, form=f), ROUNDED)
        for form, ops in (("strided", "rotate"), ("taken", "rotate"))
    ),
    *(Case("one-angle-a-pair", "rotate", lambda m, n=n: rotary_forms.rotate(m, neighbours=n)) for n in (False, True)),
    *(Case("choice-by-mask", "where softmax", score_forms.masked(low)) for low in (-1e9, -3.4e38, -math.inf)),
    Case("choice-by-mask", "where softmax", score_forms.masked(-1e9, first=True)),
    Case("choice-by-mask", "where softmax", score_forms.masked(-1e9, rows=1)),
    Case("concat-of-pieces", "slice", lambda m: unrolled_forms.pieces(m, (3, 5, 7), None, 1)),
    Case("concat-of-pieces", "slice reshape", lambda m: unrolled_forms.pieces(m, (0, 2, 4, 6, 8), (1, 3, 2), 1)),
    *(
        Case("products-of-rounds", f"{UNROLLED} reshape transpose reshape", unrolled_forms.unrolled(axis=axis), ROUNDED)
        for axis in (0, 1, 2)
    ),
    Case("factor-of-scores", "matmul mul softmax", score_forms.scaled_scores(0), ROUNDED),
    Case("factor-of-scores", "matmul mul softmax", score_forms.scaled_scores(1, first=True), ROUNDED),
    Case("factor-of-scores", "matmul mul softmax", score_forms.scaled_scores(0, factor=[[0.25]]), ROUNDED),
    Case("factor-of-scores", "matmul mul add softmax", score_forms.scaled_scores(1, masked=True), ROUNDED),
    Case("signed-quantisation", "quantize dequantize", integer_forms.unsigned_quantisation),
    Case("integer-matrix-product", "matmul sub cast mul", integer_forms.quantized_product, ROUNDED),
    Case("integer-convolution", "pad conv2d cast mul add", integer_forms.quantized_conv, ROUNDED),
    *(
        Case(f"{op}-of-integers", f"{op} dequantize", integer_forms.view_of_integers(op))
        for op in integer_forms.VIEWS_OF_INTEGERS
    ),
    Case("kept-integers", "neg", integer_forms.kept_integers),
    Case("ordered-integers", "max_pool2d", integer_forms.pool_of_integers),
    Case("saturated-instead", "quantize", lambda make: integer_forms.quantized(make, make("relu", make.input(3, 4)))),
    Case("divided-beforehand", "mul dequantize add relu quantize", integer_forms.scaled_sum),
    Case(
        "signed-matrix-product",
        f"{SIGNED} {SIGNED} matmul {SUMS} add {SUMS} add",
        integer_forms.integer_product((3, 4), (4, 5), "u8"),
    ),
    Case(
        "signed-convolution",
        f"{SIGNED} {SIGNED} pad conv2d {SUMS} reshape add conv2d reshape expand reshape mul add",
        integer_forms.integer_conv((1, 4, 5, 5), (6, 2, 3, 3), "u8", "i32"),
    ),
    Case(
        "cut-matrix-product",
        "slice slice matmul slice slice matmul add",
        integer_forms.integer_product((2, 2000), (2000, 3), "i8"),
    ),
    Case(
        "cut-convolution",
        f"{GROUPED_PIECE} {GROUPED_PIECE} {GROUPED_PIECE} add add",
        integer_forms.integer_conv((1, 600, 4, 4), (2, 300, 3, 3), "i8", "i32"),
    ),
    Case(
        "cut-window",
        "pad slice slice conv2d slice slice conv2d add",
        integer_forms.integer_conv((1, 1, 33, 33), (1, 1, 33, 33), "i8", "i32"),
    ),
    Case(
        "product-of-wide-integers",
        "expand reshape expand reshape transpose reshape reshape mul reduce_sum reshape",
        integer_forms.integer_product((1, 2, 1, 1, 2, 3), (3, 4), "i32"),
    ),
    Case(
        "convolution-of-wide-integers",
        "pad slice slice reshape reshape concat reshape reshape cast cast mul reduce_sum cast reshape reshape add",
        integer_forms.integer_conv((1, 2, 4, 4), (3, 2, 1, 2), "i16", "i16"),
    ),
    Case(
        "product-by-halves",
        "slice slice mul slice concat slice slice mul slice concat slice slice mul slice slice mul reshape",
        lambda m: m("reduce_prod", m.input(5, 2, element="i64"), axes=(0, 1), keepdims=0),
    ),
)


def refusals() -> tuple[tuple[str, Body], ...]:
    """Near misses: the rule must leave the graph alone."""

    def shared_conv(m: GraphMaker) -> str:
        shared = conv(m, bias=False)
        return m("add", m("mul", shared, m.constant(2.0)), m("relu", shared))

    def other_gate(m: GraphMaker) -> str:
        return m("mul", m("sigmoid", m.input(2, 3)), m.input(2, 3))

    def wrong_half(m: GraphMaker) -> str:
        x = m.input(3)
        gate = m("add", m("erf", m("div", x, m.constant(1.5))), m.constant(1.0))
        return m("mul", m("mul", x, gate), m.constant(0.5))

    def mean_of_all(m: GraphMaker) -> str:
        x = m.input(2, 3, 8)
        mean = m("reduce_mean", m("mul", x, x), axes=(1,), keepdims=1)
        inverse = m("rsqrt", m("add", mean, m.constant(1e-5)))
        return m("mul", m("mul", x, inverse), m.random(8))

    def shared_scores(m: GraphMaker) -> str:
        scores = m("add", m.input(4, 4), m.constant(np.triu(np.full((4, 4), -1e9), 1)))
        return m("add", scores, m("softmax", scores, axis=1))

    def product_of_scaled(m: GraphMaker) -> str:
        return m("matmul", m("mul", m.input(2, 5, 4), m.constant(0.25)), m.input(2, 4, 6))

    def shared_queries(m: GraphMaker) -> str:
        queries = m("mul", m.input(2, 5, 4), m.constant(0.25))
        return m("matmul", m("softmax", m("matmul", queries, m.input(2, 4, 5)), axis=2), queries)

    def shared_rows(biased: bool) -> Body:
        def body(m: GraphMaker) -> str:
            shared = m("matmul", m.input(6, 4), m.random(4, 5))
            if biased:
                shared = m("add", shared, m.random(5))
            return m("add", rows(m, shared), m("reshape", m("relu", shared), shape=(2, 3, 5)))

        return body

    return (
        ("add-zero", lambda m: m("add", m.input(3), m.splat(0.0, 2, 3))),
        ("multiply-by-one", lambda m: m("mul", m.input(3), m.constant([1.0, 1.0, 1.5]))),
        ("divide-by-power-of-two", lambda m: m("div", m.input(3), m.constant([2.0, 4.0, 3.0]))),
        ("divide-by-power-of-two", lambda m: m("div", m.input(2), m.constant([1e-45, 2.0**127]))),
        ("divide-by-power-of-two", lambda m: m("div", m.input(2), m.constant([0.0, np.inf]))),
        ("divide-by-power-of-two", lambda m: m("div", m.input(2, element="i32"), m.constant([2, 4], "i32"))),
        ("small-power", lambda m: m("pow", m.input(3), m.constant(2.5))),
        ("small-power", lambda m: m("pow", m.input(3), m.splat(2.0, 2, 3))),
        ("merge-factors", lambda m: m("mul", m("mul", m.input(2, 1), m.random(1, 5)), m.random(2, 1))),
        ("known-choice", lambda m: m("where", m.constant([True, False], "bool"), m.input(2), m.input(2))),
        ("factor-into-convolution-weights", shared_conv),
        ("factor-into-convolution-weights", lambda m: m("mul", conv(m, bias=False), m.random(5, 1))),
        ("gather-of-a-run", lambda m: m("gather", m.input(5), m.constant([3, 4, 0], "i64"), axis=0)),
        ("gather-of-a-run", lambda m: m("gather", m.input(5), m.constant([5, 6], "i64"), axis=0)),
        ("silu", other_gate),
        ("erf-gelu", wrong_half),
        ("rms-norm", mean_of_all),
        *(("rotate-by-turned-copy", body) for body in rotary_forms.NEAR_COPIES.values()),
        *(("rotate-by-halves", body) for body in rotary_forms.NEAR_PAIRS.values()),
        ("rotate-by-turned-copy", rotary_forms.turned_integers),
        ("one-angle-a-pair", lambda m: rotary_forms.rotate(m, neighbours=False, twice=False)),
        ("one-angle-a-pair", lambda m: m("rotate", m.input(3, 8), m.random(8), m.random(8), interleaved=0)),
        ("choice-by-mask", score_forms.masked(-1e4)),
        ("choice-by-mask", score_forms.masked_otherwise(np.triu(np.full((4, 4), -1e9), 0))),
        ("choice-by-mask", score_forms.masked_otherwise(np.tri(4) * -1e9 + np.eye(4))),
        ("choice-by-mask", score_forms.masked_otherwise(np.triu(np.full((4, 4), -1e9), 1), axis=1)),
        ("choice-by-mask", score_forms.masked_otherwise(np.triu(np.full((4, 4), -1e9), 1)[..., :1])),
        ("choice-by-mask", score_forms.masked_otherwise(np.zeros((4, 4)))),
        ("choice-by-mask", shared_scores),
        ("transpose-between-reshapes", score_forms.turned_keys((6, 5, 4), (0, 2, 1), (3, 2, 4, 5))),
        ("transpose-between-reshapes", score_forms.turned_keys((6, 5, 4), (1, 2, 0), (5, 4, 6, 1))),
        ("transpose-between-reshapes", score_forms.turned_keys((3, 10, 4), (0, 2, 1), (2, 3, 4, 5))),
        ("factor-of-scores", score_forms.scaled_scores(0, factor=np.ones((5, 1)))),
        ("factor-of-scores", score_forms.scaled_scores(0, factor=0.0)),
        ("factor-of-scores", score_forms.scaled_scores(0, factor=1e-30)),
        ("factor-of-scores", score_forms.scaled_scores(0, factor=-0.5)),
        ("factor-of-scores", product_of_scaled),
        ("factor-of-scores", shared_queries),
        ("concat-of-pieces", lambda m: unrolled_forms.pieces(m, (3, 5, 8), None, 1)),
        ("concat-of-pieces", lambda m: unrolled_forms.pieces(m, (5, 3, 1), None, 1)),
        ("concat-of-pieces", lambda m: unrolled_forms.pieces(m, (3, 5), None, 2)),
        ("concat-of-pieces", lambda m: unrolled_forms.pieces(m, (3, 5), (2, 3, 1), 1)),
        ("products-of-rounds", unrolled_forms.unrolled(2)),
        ("products-of-rounds", unrolled_forms.unrolled(views=True)),
        ("products-of-rounds", unrolled_forms.unrolled(weights=True)),
        ("same-shape-reshape", lambda m: m("reshape", m.input(2, 3), shape=(2, 3))),
        ("concat-of-slices", lambda m: concat_of_parts(m, (2, 4), (0, 2))),
        ("concat-of-slices", lambda m: concat_of_parts(m, (0, 2), (3, 5))),
        ("concat-of-slices", lambda m: concat_of_parts(m, (0, 2), (2, 4), rows=(0, 1))),
        ("concat-of-slices", lambda m: concat_of_parts(m, (0, 2), (2, 4), step=2)),
        ("concat-of-concat", lambda m: concat_of_both(m, "yxz")),
        ("concat-of-concat", lambda m: concat_of_both(m, "xy", axis=0)),
        ("concat-of-concat", lambda m: concat_of_both(m, "xyz", axis=0)),
        ("rows-of-product", shared_rows(False)),
        ("rows-of-product", lambda m: rows(m, m("matmul", m.input(1, 6, 4), m.random(4, 5)))),
        ("rows-of-product", lambda m: rows(m, m("matmul", m.input(6, 4), m.input(1, 4, 5)))),
        ("rows-of-product", lambda m: rows(m, m("relu", m("matmul", m.input(6, 4), m.random(4, 5))))),
        ("rows-of-product", lambda m: m("reshape", m("matmul", m.input(6, 4), m.random(4, 5)), shape=(2, 3, 5, 1))),
        ("rows-of-product", lambda m: m("reshape", m("matmul", m.input(6, 4), m.random(4, 6)), shape=(6, 2, 3))),
        ("rows-of-product", lambda m: m("reshape", m("matmul", m.input(6, 4), m.random(4, 5)), shape=(5, 6))),
        ("rows-of-sum", shared_rows(True)),
        ("rows-of-sum", lambda m: rows(m, m("add", m.input(6, 5), m.random(5)))),
        ("rows-of-sum", lambda m: rows(m, m("add", m("matmul", m.input(6, 4), m.random(4, 5)), m.random(6, 5)))),
        ("rows-of-sum", lambda m: rows(m, m("add", m("matmul", m.input(6, 4), m.random(4, 5)), m.random(1, 5)))),
        ("rows-of-sum", lambda m: rows(m, m("add", m("matmul", m.input(6, 4), m.random(4, 5)), m.constant(2.0)))),
        ("rows-of-sum", lambda m: rows(m, m("sub", m("matmul", m.input(6, 4), m.random(4, 5)), m.random(5)))),
    )


def built(body: Body) -> Graph:
    make = GraphMaker()
    return make.graph(body(make))


def check_equal(before: Graph, after: Graph, tolerance: float, low: float) -> None:
    inputs = random_inputs(before, low=low)
    expected, actual = run_graph(before, inputs), run_graph(after, inputs)
    for name, reference in expected.items():
        scale = np.abs(reference).max()
        assert actual[name].dtype == reference.dtype
        assert np.abs(actual[name] - reference).max() <= tolerance * scale


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_rule_fires_and_both_sides_agree(case: Case) -> None:
    before = built(case.body)
    result = apply_rules(before, (RULES[case.rule],), "test")
    assert dict(result.stats) == {case.rule: 1}
    assert " ".join(node.op for node in result.graph.nodes) == case.ops
    verify_graph(result.graph)
    assert result.graph.outputs == before.outputs
    check_equal(before, result.graph, case.tolerance, case.low)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_rule_does_not_match_its_own_result(case: Case) -> None:
    once = apply_rules(built(case.body), (RULES[case.rule],), "test").graph
    again = apply_rules(once, (RULES[case.rule],), "test")
    assert not again.changed
    assert again.graph is once


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_every_source_stays_accounted_for(case: Case) -> None:
    before = built(case.body)
    after = apply_rules(before, (RULES[case.rule],), "test").graph
    alive, gone = sources_of(after)
    assert set(alive) | set(gone) == {source for node in before.nodes for source in node.sources}
    assert not set(alive) & set(gone)


@pytest.mark.parametrize(("name", "body"), refusals(), ids=lambda entry: entry if isinstance(entry, str) else "")
def test_near_misses_are_left_alone(name: str, body: Body) -> None:
    before = built(body)
    result = apply_rules(before, (RULES[name],), "test")
    assert not result.changed
    assert result.graph is before


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} == set(RULES)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_every_rule_says_what_it_does(rule: Rule) -> None:
    assert rule.rewrite.__doc__
