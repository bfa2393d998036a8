"""`birc debug explain`: the kernel of every node, the reason for every neighbour outside, and names that are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from onnx import parser

from birc.compiler import explain_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.printer import print_graph
from birc.compiler.plan_search import Found, PlanSearch

NETWORK = """
    <ir_version: 8, opset_import: ["" : 18]>
    net (float[64, 32] x, float[32, 2048] w, float[64, 2048] m) => (float[64, 2048] y, float[2048, 64] z, int64[2, n] k)
    <float half = {0.5}, float two = {2.0}, float four = {4.0}>
    {
        [factor] f = Mul(half, two)
        [scores] s = MatMul(x, w)
        [scaled] t = Mul(s, f)
        [masked] u = Add(t, m)
        [row] r = Softmax <axis = 1> (u)
        [gate] g = Sigmoid(r)
        [swish] h = Mul(r, g)
        [divided] y = Div(h, four)
        [moved] v = Transpose <perm = [1, 0]> (h)
        [negated] z = Neg(v)
        [where] k = NonZero(y)
    }
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("explained") / "net.onnx"
    onnx.save(parser.parse_model(NETWORK), path)
    return path


@pytest.fixture
def explain(birc, network):
    """What `birc debug explain` says of the network, as JSON."""

    def run(*arguments: str) -> dict:
        outcome = birc("debug", "explain", network, *arguments, "--format", "json")
        assert (outcome.code, outcome.err) == (0, "")
        return json.loads(outcome.out)

    return run


def test_a_node_has_its_kernel_and_its_neighbours(explain) -> None:
    said = explain("row")
    assert said["schema"] == "birc.explain/1"
    assert [node["op"] for node in said["nodes"]] == ["softmax"]
    (kernel,) = said["kernels"]
    assert said["nodes"][0] in kernel["nodes"]
    (miss,) = [miss for miss in said["neighbours_elsewhere"] if miss["reader"]["op"] == "softmax"]
    assert miss["reason"] == "registers"
    assert miss["words"] == "softmax over 2,048 columns: 32 tiles in a row, the vector registers hold 16"
    assert miss["near_miss"] is True
    assert miss["bytes"] == 64 * 2048 * 4


FEW_REGISTERS = """
name = "few"
vendor = "birc"
base = "br100"
[vector]
vector_registers = { value = 20, unit = "count", source = "chosen for the test", confidence = "stated" }
"""


NO_MEMORY = """
name = "small"
vendor = "birc"
base = "br100"
[hbm]
hbm_bytes_per_die = { value = 1024, unit = "B", source = "chosen for the test", confidence = "stated" }
"""


def test_the_target_and_the_precision_count(explain, tmp_path) -> None:
    (miss,) = explain("row", "--precision", "bf16")["neighbours_elsewhere"]
    assert miss["bytes"] == 64 * 2048 * 2
    path = tmp_path / "few.toml"
    path.write_text(FEW_REGISTERS, encoding="utf-8")
    (miss,) = explain("row", "--target", str(path))["neighbours_elsewhere"]
    assert miss["words"].endswith("the vector registers hold 10")


@pytest.mark.parametrize("name", ["scores", "s", "%s", "scaled", "masked"])
def test_onnx_nodes_and_values_name_the_same_kernel(explain, name: str) -> None:
    (kernel,) = explain(name)["kernels"]
    assert [node["op"] for node in kernel["nodes"]] == ["matmul", "add"]


def test_what_a_pass_took_away_leads_to_what_stands_for_it(explain) -> None:
    assert any("folded by the pass import into %f" in note for note in explain("factor")["notes"])
    said = explain("gate")
    assert [node["op"] for node in said["nodes"]] == ["silu"]
    assert "swish" in said["nodes"][0]["onnx_nodes"]


def test_a_value_that_the_importer_folded_is_known_by_its_node(explain) -> None:
    said = explain("f")
    assert said["notes"][0] == "%f is of the ONNX node factor"
    assert said["kernels"] == []


def test_views_and_inputs_have_no_kernel(birc, network) -> None:
    outcome = birc("debug", "explain", network, "moved")
    assert "is a view (transpose) of %" in outcome.out
    assert "no kernel computes it" in outcome.out
    outcome = birc("debug", "explain", network, "x")
    assert outcome.out == "%x is an input of the program: no kernel computes it; it is read by %s\n"


def test_a_node_on_the_host_says_so(birc, network) -> None:
    outcome = birc("debug", "explain", network, "where")
    assert outcome.code == 0
    assert outcome.out.startswith("where: NonZero on the host, since the shape of its result depends on data")


def test_the_text_marks_the_node_and_tells_why(birc, network) -> None:
    lines = birc("debug", "explain", network, "masked").out.splitlines()
    assert lines[0] == "masked: Add"
    assert any("matmul, 2 nodes" in line for line in lines)
    assert [line.split()[:3] for line in lines if line.startswith(">")] == [[">", "%u", "add"]]
    assert any("is read by softmax" in line for line in lines)
    assert any("32 tiles in a row, the vector registers hold 16" in line for line in lines)


def test_without_a_node_all_near_misses_are_listed(birc, network, explain) -> None:
    said = explain()
    reasons = [miss["reason"] for miss in said["near_misses"]]
    assert reasons
    assert "registers" in reasons
    assert not set(reasons) & set(said["never"])
    sizes = [miss["bytes"] for miss in said["near_misses"]]
    assert sizes == sorted(sizes, reverse=True)
    text = birc("debug", "explain", network).out
    assert f"{said['kernels']} kernels, {len(reasons)} near misses" in text
    assert "pairs that never share a kernel: " in text


def test_a_name_that_nothing_has_is_told_with_the_nearest(fails, network) -> None:
    line = fails(2, "debug", "explain", network, "mask")
    assert "'mask' is no node of the model, nor a value that one computes" in line
    assert "did you mean masked" in line
    assert "near misses" in fails(2, "debug", "explain", network, "0123456789")


def attention(features: int) -> onnx.ModelProto:
    """softmax(q @ k) @ v"""
    return parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 18]>
        attention (float[4, 64, 16] q, float[4, 16, 64] k, float[4, 64, {features}] v) => (float[4, 64, {features}] y)
        {{
            [scores] s = MatMul(q, k)
            [shares] p = Softmax <axis = 2> (s)
            [context] y = MatMul(p, v)
        }}
    """)


@pytest.mark.parametrize(
    ("target", "reason", "words"),
    [
        ("br100", "follows", "one kernel of the machine all the same: the product takes rows as they are finished"),
        ("tiny", "apart", "follows a product that leaves no programs, registers or input buffers"),
    ],
)
@pytest.mark.parametrize("node", ["shares", "context"])
def test_products_are_one_kernel_of_the_machine_or_not(birc, tmp_path, target, reason, words, node) -> None:
    path = tmp_path / "attention.onnx"
    onnx.save(attention(16), path)
    options = ("--target", target, "--precision", "bf16", "--format", "json")
    said = json.loads(birc("debug", "explain", path, node, *options).out)
    found = [miss for miss in said["neighbours_elsewhere"] if miss["reader"]["op"] == "matmul"]
    assert [(miss["reason"], miss["words"]) for miss in found] == [(reason, words)]
    assert [miss["near_miss"] for miss in found] == [reason == "apart"]
    everything = json.loads(birc("debug", "explain", path, *options).out)
    assert len(everything["near_misses"]) == (reason == "apart")


def test_of_a_model_that_does_not_fit_the_kernels_are_told_all_the_same(birc, tmp_path) -> None:
    path = tmp_path / "attention.onnx"
    model = attention(16)
    onnx.save(model, path)
    machine = tmp_path / "small.toml"
    machine.write_text(NO_MEMORY, encoding="utf-8")
    said = json.loads(birc("debug", "explain", path, "context", "--target", machine, "--format", "json").out)
    assert [kernel["kind"] for kernel in said["kernels"]] == ["matmul"]
    assert_no_plan_fits(said["notes"])


def assert_no_plan_fits(notes: Sequence[str]) -> None:
    assert notes[-1].startswith("no plan fits, so that what plans decide, as the form of the graph, is not known: ")
    assert "must lie in HBM of a die, which has 1024" in notes[-1]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_of_a_model_with_forms_of_which_none_fits_those_of_the_plain_one_are_told(birc, tmp_path, precision) -> None:
    """The depth of the product could be divided among dies, which plans would say."""
    weights = ", ".join(f"{n}.0" for n in range(32))
    model = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 18]>
        deep (float[64, 16] a) => (float[64, 2] z)
        <float[16, 2] b = {{{weights}}}>
        {{
            [product] y = MatMul(a, b)
            [positive] z = Relu(y)
        }}
    """)
    path, machine = tmp_path / "deep.onnx", tmp_path / "small.toml"
    onnx.save(model, path)
    machine.write_text(NO_MEMORY, encoding="utf-8")
    options = ("--target", machine, "--precision", precision)
    said = json.loads(birc("debug", "explain", path, "product", *options, "--format", "json").out)
    assert [[node["op"] for node in kernel["nodes"]] for kernel in said["kernels"]] == [["matmul", "relu"]]
    assert_no_plan_fits(said["notes"])
    everything = birc("debug", "explain", path, *options).out.splitlines()
    assert everything[0] == "deep: 1 kernel, 0 near misses"
    assert_no_plan_fits(everything)


def test_a_model_that_several_plans_decide_about_is_planned_once_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of shares, and a deep product that dies may divide."""
    weights = ", ".join(f"{n}.0" for n in range(32))
    model = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 18]>
        attention (float[4, 64, 16] q, float[4, 16, 64] k, float[4, 64, 16] v, float[64, 16] a)
            => (float[4, 64, 16] y, float[64, 2] z)
        <float[16, 2] b = {{{weights}}}>
        {{
            s = MatMul(q, k)
            p = Softmax <axis = 2> (s)
            y = MatMul(p, v)
            z = MatMul(a, b)
        }}
    """)
    planned: list[str] = []
    plan = PlanSearch.plan

    def counted(search: PlanSearch, graph: Graph, *, timed: bool = False) -> Found:
        planned.append(print_graph(graph))
        return plan(search, graph, timed=timed)

    monkeypatch.setattr(PlanSearch, "plan", counted)
    assert "matmul+softmax" in {kernel.kind for kernel in explain_model(model, "br100", "bf16").kernels}
    assert len(planned) == len(set(planned)) > 1
