"""`birc check`: every node with its place, the rule and the remedy; exit 4 for what nobody runs."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import parser

from birc.cli.main import main

MIXED = """
    <ir_version: 8, opset_import: ["" : 18, "vendor" : 1]>
    mixed (float[2, 3] x, float[rows, 3] o) => (float[2, 3] y, int64[2, n] z, double[2, 3] w, float[rows, 3] p) {
        [first] t = Exp(x)
        [where] z = NonZero(t)
        [wide] w = Cast <to = 11> (t)
        [noise] q = RandomNormalLike(x)
        [last] y = Add(t, q)
        [open] p = Neg(o)
    }
"""


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.onnx"
    onnx.save(parser.parse_model(MIXED), path)
    return path


def test_every_node_has_a_place_a_rule_and_a_remedy(mixed: Path, capsys) -> None:
    assert main(["check", str(mixed), "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "birc.check/1"
    assert shown["summary"] == {"device": 3, "host": 3, "unsupported": 0}
    places = {node["name"]: (node["place"], node["rule"]) for node in shown["nodes"]}
    assert places == {
        "first": ("device", ""),
        "where": ("host", "shape-at-run-time"),
        "wide": ("host", "float64"),
        "noise": ("host", "random"),
        "last": ("device", ""),
        "open": ("device", ""),
    }
    assert all(bool(node["remedy"]) == bool(node["reason"]) == (node["place"] != "device") for node in shown["nodes"])


def test_the_text_names_them_too(mixed: Path, capsys) -> None:
    assert main(["check", str(mixed)]) == 0
    text = capsys.readouterr().out
    for word in ("where", "NonZero", "host", "shape-at-run-time", "export the model in float32", "What can be done"):
        assert word in text
    assert "3 on the device, 3 on the host, 0 unsupported; 1 program and 2 steps on the host" in text


def test_what_nobody_runs_ends_in_exit_4_after_the_whole_table(mixed: Path, capsys) -> None:
    model = onnx.load(mixed)
    model.graph.node[0].domain, model.graph.node[0].op_type = "vendor", "Gelu"
    onnx.save(model, mixed)
    assert main(["check", str(mixed)]) == 4
    captured = capsys.readouterr()
    assert "unknown-operator" in captured.out
    assert "domain ai.onnx or com.microsoft has a Gelu" in captured.out or "domain ai.onnx has a Gelu" in captured.out
    assert "'first' (Gelu)" in captured.err
    assert "noise" in captured.out


def test_a_dimension_that_a_node_needs_is_named(mixed: Path, capsys) -> None:
    model = onnx.load(mixed)
    model.graph.node[5].op_type = "Softmax"
    onnx.save(model, mixed)
    assert main(["check", str(mixed)]) in (0, 2)
    assert main(["check", str(mixed), "--dim", "rows=4"]) == 0
    assert "Softmax" in capsys.readouterr().out
