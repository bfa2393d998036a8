"""If, Loop and Scan on the device: against onnxruntime, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from networks import onnxruntime_outputs
from onnx import parser

from birc.compiler.driver import compile_model
from birc.compiler.importer.importer import import_model, import_parts
from birc.compiler.ir.interpreter import run_graph
from birc.runtime import load
from birc.runtime.faults import MachineFault

X = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
TRUTHS = [np.array(False), np.array(True)]


def parsed(text: str, opset: int = 18) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')


def check(model: onnx.ModelProto, inputs: dict[str, Any], *, compiled: bool = False) -> None:
    """What the model's graph, or its compiled program, computes is what onnxruntime computes."""
    if compiled:
        session = load(compile_model(model, target="tiny"))
        actual = session.run({value.name: inputs[value.name] for value in session.inputs})
    else:
        graph = import_model(model)
        actual = run_graph(graph, {value.name: inputs[value.name] for value in graph.inputs})
    for name, expected in onnxruntime_outputs(model, inputs).items():
        assert actual[name].dtype == expected.dtype
        np.testing.assert_allclose(actual[name], expected, rtol=1e-5, atol=1e-6)


def refused(model: onnx.ModelProto) -> str:
    (entry,) = import_parts(model).host_nodes
    return entry.reason


BRANCHES = """
    branch (bool c, bool d, float[2, 3] x) => (float[2, 3] y, float[2, 3] z, float[3] w) {
        doubled = Add(x, x)
        [choose] y, z, w = If (c) <
            then_branch = g1 () => (float[2, 3] t, float[2, 3] p, float[3] u) <float[3] k = {1.0, 2.0, 3.0}> {
                [inner] t = If (d) <
                    then_branch = g3 () => (float[2, 3] a) { a = Mul(doubled, k) },
                    else_branch = g4 () => (float[2, 3] b) { b = Exp(x) }
                >
                p = Identity(x)
                u = Identity(k)
            },
            else_branch = g2 () => (float[2, 3] e, float[2, 3] q, float[3] v) {
                e = Neg(doubled)
                q = Identity(x)
                v = Constant <value_floats = [4.0, 5.0, 6.0]> ()
            }
        >
    }
"""


@pytest.mark.parametrize("outer", TRUTHS)
@pytest.mark.parametrize("inner", TRUTHS)
@pytest.mark.parametrize("compiled", [False, True])
def test_both_branches_and_a_choice(outer: np.ndarray, inner: np.ndarray, compiled: bool) -> None:
    check(parsed(BRANCHES), {"c": outer, "d": inner, "x": X}, compiled=compiled)


def test_a_result_that_is_the_same_in_both_branches_needs_no_choice() -> None:
    graph = import_model(parsed(BRANCHES))
    assert [node.output.type.sizes for node in graph.nodes if node.op == "where"] == [(2, 3), (2, 3), (3,)]


def test_branches_of_different_shapes_are_refused() -> None:
    model = parsed("""
        shapes (bool c, float[2, 3] x) => (float[n, m] y) {
            y = If (c) <
                then_branch = g1 () => (float[2, 3] t) { t = Neg(x) },
                else_branch = g2 () => (float[4, 3] e) { e = Concat <axis = 0> (x, x) }
            >
        }
    """)
    assert refused(model) == "its result is f32[2,3] or f32[4,3], as is decided at run time"


def test_a_branch_without_lowering_is_named() -> None:
    model = parsed("""
        sequence (bool c, float[2, 3] x) => (float[2, 3] y) {
            y = If (c) <
                then_branch = g1 () => (float[2, 3] t) {
                    [make] s = SequenceConstruct(x)
                    t = ConcatFromSequence <axis = 0> (s)
                },
                else_branch = g2 () => (float[2, 3] e) { e = Neg(x) }
            >
        }
    """)
    assert refused(model).startswith("SequenceConstruct 'make' inside it: ")


PICK = """
    pick (int64 i, float[4, 3] x) => (float[3] y) <int64 end = {4}> {
        inside = Less(i, end)
        y = If (inside) <
            then_branch = g1 () => (float[3] t) { t = Gather(x, i) },
            else_branch = g2 () => (float[3] e) {
                axes = Constant <value_ints = [0]> ()
                e = ReduceMax <keepdims = 0> (x, axes)
            }
        >
    }
"""


@pytest.mark.parametrize("place", [1, 3, 7])
def test_an_index_of_the_branch_that_is_not_taken_may_be_out_of_range(place: int) -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    check(parsed(PICK), {"i": np.array(place), "x": table}, compiled=True)


COUNTED = """
    counted (float[2, 3] x, float[3] w) => (float[2, 3] y, float[4, 2, 3] s, int64[4] n)
    <int64 m = {4}, bool on = {1}> {
        y, s, n = Loop (m, on, x) <body = b (int64 i, bool c, float[2, 3] v)
                => (bool d, float[2, 3] u, float[2, 3] each, int64 number) <float k = {0.5}> {
            d = Identity(c)
            fixed = Exp(w)
            scaled = Mul(v, k)
            u = Add(scaled, fixed)
            each = Neg(u)
            two = Constant <value_int = 2> ()
            number = Mul(i, two)
        }>
    }
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_counted_loop(compiled: bool) -> None:
    check(parsed(COUNTED), {"x": X, "w": X[0]}, compiled=compiled)


def test_what_does_not_change_is_computed_once() -> None:
    graph = import_model(parsed(COUNTED))
    ops = [node.op for node in graph.nodes]
    assert (ops.count("exp"), ops.count("mul"), ops.count("neg")) == (1, 4, 4)
    assert len([name for name, constant in graph.constants.items() if constant.type.rank == 0]) == 1
    np.testing.assert_array_equal(graph.constants["n"].data, [0, 2, 4, 6])


def test_a_condition_that_its_own_counter_decides_ends_the_loop() -> None:
    """The loop has no trip count: 1, 2, 4, 8, 16, then the condition is false."""
    check(parsed("""
        folded (float[2, 3] x) => (float[2, 3] y, int64 last) <int64 one = {1}, bool on = {1}> {
            y, last = Loop ("", on, x, one) <body = b (int64 i, bool c, float[2, 3] v, int64 n)
                    => (bool d, float[2, 3] u, int64 m) {
                ten = Constant <value_int = 10> ()
                m = Add(n, n)
                d = Less(m, ten)
                half = Constant <value_float = 0.5> ()
                u = Mul(v, half)
            }>
        }
    """), {"x": X})  # fmt: skip


NESTED = """
    nested (float[2, 3] x) => (float[2, 3] y, float[n, k, 2, 3] s) <int64 three = {3}, int64 two = {2}> {
        y, s = Loop (three, "", x) <body = b (int64 i, bool c, float[2, 3] v)
                => (bool d, float[2, 3] u, float[k, 2, 3] each) {
            d = Identity(c)
            u, each = Loop (two, "", v) <body = e (int64 j, bool f, float[2, 3] p)
                    => (bool g, float[2, 3] q, float[2, 3] r) {
                g = Identity(f)
                sum = Add(i, j)
                step = Cast <to = 1> (sum)
                moved = Add(p, step)
                q = Sub(moved, x)
                r = Add(q, v)
            }>
        }>
    }
"""


def test_nested_loops_read_all_outer_values() -> None:
    check(parsed(NESTED), {"x": X})


WHILE = """
    halve (float[3] x, bool on, float least) => (float[3] y, float a) <int64 m = {5}, float z = {0.0}> {
        y, a = Loop (m, on, x, z) <body = b (int64 i, bool c, float[3] v, float n) => (bool d, float[3] u, float o) {
            half = Constant <value_float = 0.5> ()
            u = Mul(v, half)
            one = Constant <value_float = 1.0> ()
            o = Add(n, one)
            largest = ReduceMax <keepdims = 0> (u)
            d = Greater(largest, least)
        }>
    }
"""


@pytest.mark.parametrize("on", TRUTHS)
@pytest.mark.parametrize("least", [100.0, 1.5, 0.9, 0.0])
def test_a_bounded_loop_keeps_its_values_after_its_end(on: np.ndarray, least: float) -> None:
    inputs = {"x": np.array([4, 8, 2], np.float32), "on": on, "least": np.array(least, np.float32)}
    check(parsed(WHILE), inputs)


def test_a_bounded_loop_compiles() -> None:
    inputs = {"x": np.array([4, 8, 2], np.float32), "on": TRUTHS[1], "least": np.array(1.5, np.float32)}
    check(parsed(WHILE), inputs, compiled=True)


DECLARED = """
    declared (int64 m, bool on, float[3] x) => (float[3] y, float[3, 3] s) {
        y, s = Loop (m, on, x) <body = b (int64 i, bool c, float[3] v) => (bool d, float[3] u, float[3] each) {
            d = Identity(c)
            u = Add(v, v)
            each = Identity(u)
        }>
    }
"""


def test_declared_results_tell_how_often_a_loop_runs() -> None:
    check(parsed(DECLARED), {"m": np.array(3), "on": TRUTHS[1], "x": X[0]}, compiled=True)


@pytest.mark.parametrize(("trips", "on"), [(2, True), (4, True), (0, True), (3, False)])
def test_a_program_is_held_to_the_declared_number_of_iterations(trips: int, on: bool) -> None:
    session = load(compile_model(parsed(DECLARED), target="tiny"))
    with pytest.raises(MachineFault):
        session.run({"m": np.array(trips), "on": np.array(on), "x": X[0]})


def test_a_loop_that_never_runs_gives_nothing() -> None:
    model = parsed(COUNTED.replace("int64 m = {4}", "int64 m = {0}").replace("[4", "[n"))
    graph = import_model(model)
    actual = run_graph(graph, {"x": X, "w": X[0]})
    np.testing.assert_array_equal(actual["y"], X)
    assert (actual["s"].shape, actual["n"].shape, actual["n"].dtype) == ((0, 2, 3), (0,), np.int64)


@pytest.mark.parametrize(
    ("inputs", "trip", "condition", "reason"),
    [
        ("int64 m, bool on, ", "m", "on", "how many entries its iterations give is only known at run time"),
        ("bool on, ", '""', "on", "how many entries its iterations give is only known at run time"),
        ("", '""', '""', "it has no end"),
    ],
)
def test_loops_without_a_known_end_are_refused(inputs: str, trip: str, condition: str, reason: str) -> None:
    model = parsed(f"""
        endless ({inputs}float[3] x) => (float[3] y, float[n, 3] s) {{
            y, s = Loop ({trip}, {condition}, x) <body = b (int64 i, bool c, float[3] v)
                    => (bool d, float[3] u, float[3] each) {{
                d = Identity(c)
                u = Add(v, v)
                each = Identity(u)
            }}>
        }}
    """)
    assert refused(model) == reason


def test_a_carried_value_without_a_bound_is_refused() -> None:
    model = parsed(WHILE.replace("int64 m = {5}, ", "").replace("(float[3] x,", "(int64 m, float[3] x,"))
    assert refused(model) == "how often it runs is only known at run time"


@pytest.mark.parametrize(("trips", "limit"), [(3000, "4000 nodes"), (10**9, "20000 nodes of inner graphs")])
def test_what_may_be_unrolled_has_a_limit(trips: int, limit: str) -> None:
    body = "u = Add(v, v) w = Exp(u) d = Identity(c)" if trips == 3000 else "u = Identity(v) d = Identity(c)"
    result = "w" if trips == 3000 else "u"
    model = parsed(f"""
        long (float[3] x) => (float[3] y) <int64 m = {{{trips}}}> {{
            y = Loop (m, "", x) <body = b (int64 i, bool c, float[3] v) => (bool d, float[3] {result}) {{ {body} }}>
        }}
    """)
    assert limit in refused(model)


def test_values_that_change_their_shape_are_unrolled() -> None:
    check(parsed("""
        growing (float[1, 3] x) => (float[n, 3] y) <int64 m = {3}> {
            y = Loop (m, "", x) <body = b (int64 i, bool c, float[k, 3] v) => (bool d, float[l, 3] u) {
                d = Identity(c)
                u = Concat <axis = 0> (v, v)
            }>
        }
    """), {"x": X[:1]})  # fmt: skip
