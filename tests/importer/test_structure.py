"""Names, functions, branches, aliases and the report of unsupported operators."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from birc.compiler import compile_model
from birc.compiler.importer.importer import import_model, import_parts
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.runtime import load
from birc.runtime.errors import UnsupportedError

X = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)


def parsed(text: str, opset: int = 18) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}, "local" : 1]>\n{text}')


def accounted(graph: Graph) -> set[str]:
    return {source for node in graph.nodes for source in node.sources} | {fate.source for fate in graph.fates}


def test_all_unsupported_operators_are_listed_at_once() -> None:
    """Nobody can run them; what the host can run is not among them."""
    model = parsed("""
        bad (float[2, 3] x) => (int64[n, m] y, float[2, 3] w) {
            [first] a = NoSuchOp(x)
            [second] b = vendor.Magic(x)
            [fine] c = Relu(x)
            [host] d = NonZero(c)
            [behind] e = Neg(d)
            [third] y = vendor.Other(e)
            [after] w = Add(c, c)
        }
    """)
    with pytest.raises(UnsupportedError) as caught:
        import_model(model)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert message.startswith("3 operators are not supported")
    assert "'first': NoSuchOp (ai.onnx 18): not on the device (ONNX has no such operator" in message
    assert "'second': Magic (vendor 1): not on the device (no operator of domain 'vendor'" in message
    assert "'third': Other" in message
    assert "fine" not in message
    assert "'host'" not in message


def test_what_reads_a_value_of_unknown_shape_runs_on_the_host_too() -> None:
    model = parsed("""
        dynamic (float[2, 3] x) => (int64[n, m] y, float[2, 3] w) {
            [where] d = NonZero(x)
            [behind] y = Neg(d)
            [beside] w = Add(x, x)
        }
    """)
    imported = import_parts(model)
    assert [(node.name, node.op_type) for node in imported.host_nodes] == [("where", "NonZero"), ("behind", "Neg")]
    assert "shape of 'd' is only known at run time" in imported.host_nodes[1].reason
    host, device = imported.parts
    assert (host.inputs, host.outputs) == (("x",), ("y",))
    assert [node.op for node in device.graph.nodes] == ["add"]


def test_the_device_goes_on_where_the_shape_is_known_again() -> None:
    model = parsed("""
        again (float[2, 3] x) => (float[2, 3] w) <int64 axis = {1}> {
            [before] a = Exp(x)
            [random] s = RandomNormalLike(a)
            [after] w = Mul(s, a)
        }
    """)
    first, host, second = import_parts(model).parts
    assert [node.op for node in first.graph.nodes] == ["exp"]
    assert [call.node.op_type for call in host.calls] == ["RandomNormalLike"]
    assert [value.name for value in second.graph.inputs] == ["s", "a"]
    assert second.graph.outputs == ("w",)


def test_parameters_that_depend_on_data_go_to_the_host() -> None:
    model = parsed("bad (float[2, 3] x, int64[2] s) => (float[n, m] y) { [r] y = Reshape(x, s) }")
    (node,) = import_parts(model).host_nodes
    assert (node.name, node.op_type) == ("r", "Reshape")
    assert "shape" in node.reason


def test_unnamed_and_repeated_names_become_stable_and_unique() -> None:
    model = parsed("names (float[2, 3] x) => (float[2, 3] y) { [a] b = Relu(x) c = Neg(b) [a] y = Exp(c) }")
    graph = import_model(model)
    assert [node.sources for node in graph.nodes] == [("a",), ("Neg_1",), ("a_2",)]


def test_model_functions_are_inlined_with_paths_as_names() -> None:
    model = parsed("""
        calls (float[2, 3] x) => (float[2, 3] y) {
            [one] a = local.scaled <factor = 2.0> (x)
            [two] y = local.scaled (a)
        }
        <domain: "local", opset_import: ["" : 18, "local" : 1]>
        scaled <factor: float = 3.0> (v) => (r) {
            [weight] c = Constant <value_float: float = @factor> ()
            [inner] t = local.negated (v)
            [product] r = Mul(t, c)
        }
        <domain: "local", opset_import: ["" : 18]>
        negated (v) => (r) { [flip] r = Neg(v) }
    """)
    graph = import_model(model)
    assert [node.sources for node in graph.nodes] == [
        ("one/inner/flip",), ("one/product",), ("two/inner/flip",), ("two/product",),
    ]  # fmt: skip
    assert {"one", "two", "one/weight"} <= accounted(graph)
    np.testing.assert_allclose(run_graph(graph, {"x": X})["y"], 6 * X, rtol=1e-6)


def test_functions_of_the_standard_go_by_the_name_of_the_caller() -> None:
    graph = import_model(
        parsed("f (float[2, 3] x) => (float[2, 3] y) { [norm] y = MeanVarianceNormalization <axes = [1]> (x) }")
    )
    assert {source for node in graph.nodes for source in node.sources} == {"norm"}
    expected = (X - X.mean(1, keepdims=True)) / X.std(1, keepdims=True)
    np.testing.assert_allclose(run_graph(graph, {"x": X})["y"], expected, rtol=1e-5, atol=1e-6)


def test_known_branch_is_taken() -> None:
    model = parsed("""
        branch (float[2, 3] x) => (float[2, 3] y) <bool condition = {0}> {
            [choose] y = If (condition) <
                then_branch = g1 () => (float[2, 3] t) { [wrong] t = Exp(x) },
                else_branch = g2 () => (float[2, 3] e) { [right] e = Neg(x) }
            >
        }
    """)
    graph = import_model(model)
    assert accounted(graph) == {"choose", "choose/right"}
    np.testing.assert_array_equal(run_graph(graph, {"x": X})["y"], -X)


@pytest.mark.parametrize(
    "body",
    [
        "y = Identity(x)",
        "t = Identity(x) y = Identity(t)",
        "t = Neg(x) y = Identity(t) z = Identity(t)",
        "t = Neg(x) z = Exp(t) y = Dropout(t)",
        "y = Constant <value_floats = [1.0, 2.0]> ()",
    ],
)
def test_outputs_keep_their_names(body: str) -> None:
    extra = ", float[n, m] z" if "z =" in body else ""
    model = parsed(f"alias (float[2, 3] x) => (float[n, m] y{extra}) {{ {body} }}")
    graph = import_model(model)
    assert graph.outputs == tuple(output.name for output in model.graph.output)
    assert set(run_graph(graph, {"x": X})) == set(graph.outputs)


def test_fills_stay_one_element() -> None:
    model = parsed("""
        fill (float[1024, 1024] x) => (float[1024, 1024] y) <int64[2] s = {1024, 1024}> {
            [ones] c = ConstantOfShape <value = float[1] {1.0}> (s)
            y = Add(x, c)
        }
    """)
    graph = import_model(model)
    assert graph.constants["c"].is_splat
    assert "ones" in accounted(graph)


def test_same_model_gives_the_same_text() -> None:
    model = parsed("names (float[2, 3] x) => (float[2, 3] y) { b = Mish(x) y = HardSwish(b) }")
    first, second = import_model(model), import_model(model.SerializeToString())
    assert [node.outputs for node in first.nodes] == [node.outputs for node in second.nodes]


def test_outputs_that_are_constants_of_the_host() -> None:
    """Strings and float64 numbers never reach the device, whatever their name."""
    model = parsed("""
        known (float[2] x) => (float[2] w, string[2] s, double[2] d, string[2] t) <string[2] s = {"a", "b"}> {
            [run] w = Neg(x)
            [wide] d = Constant <value = double[2] {1.0, 2.0}> ()
            [text] t = Constant <value_strings = ["c", "d"]> ()
        }
    """)
    session = load(compile_model(model, target="tiny"))
    outputs = session.run({"x": np.array([1, 2], np.float32)})
    assert list(outputs) == ["w", "s", "d", "t"]
    assert [outputs["s"].tolist(), outputs["t"].tolist()] == [["a", "b"], ["c", "d"]]
    np.testing.assert_array_equal(outputs["d"], np.array([1.0, 2.0]))
    np.testing.assert_array_equal(outputs["w"], np.array([-1, -2], np.float32))


def test_an_empty_list_that_a_function_hands_on_reaches_the_host() -> None:
    """Without the type of the reference an empty list has none."""
    model = parsed("""
        calls (string[2] s) => (string[n] y) { [call] y = local.lower (s) }
        <domain: "local", opset_import: ["" : 18]>
        lower <words: strings = []> (v) => (r) {
            [normal] r = StringNormalizer <case_change_action = "LOWER", stopwords: strings = @words> (v)
        }
    """)
    del model.functions[0].attribute_proto[0].strings[:]
    model.functions[0].attribute_proto[0].type = onnx.AttributeProto.STRINGS
    package = compile_model(model, target="tiny")
    assert package is not None
    assert load(package).run({"s": np.array(["A", "b"], object)})["y"].tolist() == ["a", "b"]
