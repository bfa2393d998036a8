"""Outputs that are no tensors of numbers: shown, stored and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from birc.cli.compare import difference
from birc.cli.main import main
from birc.cli.values import statistics, storable

MODEL = """
    <ir_version: 8, opset_import: ["" : 18]>
    texts (float[4] x, string[2] s) => (float[4] y, string[2] t, seq(float[2]) q) {
        y = Neg(x)
        t = Identity(s)
        q = SplitToSequence(x, two)
    }
"""


def test_statistics_of_every_kind() -> None:
    assert statistics("a", np.array([1.0, np.inf], np.float32))["not_finite"] == 1
    assert statistics("a", np.array(["x"], object)) == {"name": "a", "dtype": "string", "shape": [1], "not_finite": 0}
    assert statistics("a", [np.zeros(2)])["dtype"] == "sequence"
    assert statistics("a", None)["dtype"] == "none"


def test_sequences_are_stored_by_place() -> None:
    stored = storable({"q": [np.zeros(2), np.array(["a"], object)], "none": None})
    assert set(stored) == {"q.0", "q.1"}
    assert stored["q.1"].dtype.kind == "U"


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (None, None, True),
        (None, np.zeros(1), False),
        ([np.zeros(2)], [np.zeros(2)], True),
        ([np.zeros(2)], [], False),
        ([np.zeros(2)], np.zeros(2), False),
        (np.array(["a"], object), np.array(["a"]), True),
        (np.array(["a"], object), np.array(["b"]), False),
    ],
)
def test_difference_of_what_has_no_numbers(value, expected, same: bool) -> None:
    assert difference(value, expected) == (0.0 if same else np.inf)


def test_a_model_with_texts_and_sequences_runs_and_is_checked(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = parser.parse_model(MODEL.replace("{\n", "<int64 two = {2}> {\n", 1).replace("=> (", "=> (", 1))
    onnx.save(model, "texts.onnx")
    np.savez("in.npz", x=np.arange(4, dtype=np.float32), s=np.array(["a", "b"]))
    assert main(["compile", "texts.onnx", "--target", "tiny"]) == 0
    run = ["run", "texts.birc", "--input", "in.npz", "--output", "out.npz", "--check", "texts.onnx"]
    assert main(run) == 0
    shown = capsys.readouterr().out
    assert "sequence" in shown and "string" in shown
    with np.load("out.npz") as stored:
        assert stored["t"].tolist() == ["a", "b"]
        assert stored["q.1"].tolist() == [2.0, 3.0]
