"""The benchmark on a small model: the results it writes, and models that cannot be measured."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from networks import EXAMPLES_FOLDER, EXPORTED_FOLDER

pytest.importorskip("threadpoolctl")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = ("bench", "measure", "one_node", "workloads")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/bench.py with measurements that take little time."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("bench")
    monkeypatch.setattr(sys.modules["measure"], "SECONDS", 0.0)
    yield module
    for name in MODULES:
        sys.modules.pop(name, None)


def test_results(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = EXAMPLES_FOLDER / "digits" / "digits.onnx"
    assert bench.main((str(model), "--only", "--batch", "4", "--output", str(tmp_path))) == 0
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [(row["name"], row["precision"]) for row in results["rows"]] == [("digits", "model"), ("digits", "bf16")]
    for row in results["rows"]:
        assert row["latency_us"] >= row["roofline_us"] > 0
        assert min(row[key] for key in ("compile_s", "values_s", "onnxruntime_s", "timing_s")) > 0
        assert row["relative_error"] < (1e-3 if row["precision"] == "model" else 5e-2)
    assert results["environment"]["thread_pools"]
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    heads = {name for name, _ in bench.COLUMNS}
    assert heads == {cell.strip() for cell in page.splitlines()[4].strip("|").split("|")}
    assert "digits" in capsys.readouterr().out


def test_what_cannot_be_measured_is_told(bench: ModuleType, tmp_path: Path) -> None:
    model = EXAMPLES_FOLDER / "digits" / "digits.onnx"
    options = (str(model), "--only", "--quick", "--output", str(tmp_path))
    assert bench.main(options) == 1  # the batch is not fixed
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert not results["rows"] and "digits" in results["failures"][0]


def test_every_workload_can_be_named(bench: ModuleType) -> None:
    names = [workload.name for workload in sys.modules["workloads"].workloads()]
    assert len(names) == len(set(names)) >= 10
    assert all((EXPORTED_FOLDER / f"{name}.onnx").is_file() for name in sys.modules["workloads"].EXPORTED)


def test_cost_of_one_node(bench: ModuleType) -> None:
    one_node = sys.modules["one_node"]
    found = tuple(one_node.costs("^test_(abs|string_concat|identity_sequence)$"))
    assert [(cost.name, cost.with_host) for cost in found] == [
        ("test_abs", False),
        ("test_identity_sequence", True),
        ("test_string_concat", True),
    ]
    assert all(0 < cost.total_ms < 10 * one_node.GOAL_MS for cost in found)
    text = one_node.summary((*found, None))
    assert "on the device: 1 cases" in text and "with the host: 2 cases" in text and "not measured: 1" in text
    assert one_node.summary((None,)) == "one node: no case could be measured"
