"""The table of schedules and bounds, on a small network."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import onnx
import onnx.parser
import pytest
from networks import EXAMPLES_FOLDER, EXPORTED_FOLDER

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = ("schedule", "schedule_ports", "schedule_rows", "workloads")


@pytest.fixture
def schedule(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/schedule.py with a small network and one that does not compile as its rows."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("schedule")
    models = {
        "small": onnx.load(EXPORTED_FOLDER / "gpt2.onnx"),
        "open": onnx.load(EXAMPLES_FOLDER / "digits" / "digits.onnx"),  # its batch is not fixed
    }
    goals = sys.modules["schedule_rows"].Goals(1.0, 2.0)
    made = [module.Row(name, 1, goals, lambda _, model=model: model) for name, model in models.items()]
    monkeypatch.setattr(module, "rows", lambda: tuple(made))
    yield module
    for name in MODULES:
        sys.modules.pop(name, None)


def test_table(schedule: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schedule.main(("-k", "small", "--target", "tiny", "--noc", "64", "--output", str(tmp_path))) == 0
    page = (tmp_path / "schedule_noc64.md").read_text(encoding="utf-8").splitlines()
    assert "NoC ports of 64 B a cycle" in page[2]
    heads, cells = ([cell.strip() for cell in page[line].strip("|").split("|")] for line in (4, 6))
    assert heads == [name.strip() for name, _ in schedule.COLUMNS]
    figures = dict(zip(heads, cells, strict=True))
    assert figures["model"] == "small"
    latency, (bound, name) = float(figures["latency us"]), figures["bound us"].split()
    assert latency >= float(bound) > 0 and name == "dependency"
    assert float(figures["latency / bound"]) == pytest.approx(latency / float(bound), abs=0.02)  # of rounded figures
    assert cells[heads.index("latency / bound") + 1] == "<= 1.00 no"
    assert cells[heads.index("HBM / compulsory") + 1] == "<= 2.00 yes"
    assert float(figures["two dies"].removesuffix(" x")) > 0
    assert "small, batch 1: latency us" in " ".join(capsys.readouterr().out.split())


def _goals(**limits: float) -> object:
    return sys.modules["schedule_rows"].Goals(**limits)


PRODUCT = """
    <ir_version: 8, opset_import: ["" : 18]>
    product (float[64, 512] x, float[512, 512] w) => (float[64, 512] y) { y = MatMul(x, w) }
"""


def test_other_ports_have_a_table_of_their_own(
    schedule: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = schedule.Row("small", 1, _goals(), lambda _: onnx.parser.parse_model(PRODUCT))
    monkeypatch.setattr(schedule, "rows", lambda: (row,))
    assert schedule.main(("--target", "tiny", "--all-dies", "--output", str(tmp_path), "--ports", "4", "8")) == 0
    first, ports = (tmp_path / "schedule.md").read_text(encoding="utf-8").split("## Other NoC ports")
    own = [cell.strip() for cell in first.splitlines()[6].strip("|").split("|")][2]
    cells = [cell.strip() for cell in ports.splitlines()[-1].strip("|").split("|")]
    assert cells[:2] == ["small", "1"]
    narrow_us, _, ratio, wider_us, _, _, own_us = map(float, cells[2:])
    assert narrow_us > wider_us > own_us == float(own)
    assert ratio == pytest.approx(narrow_us / own_us, abs=0.01)


def test_a_row_without_goals_and_one_of_warm_calls(schedule: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    row = schedule.rows()[0]
    warm = schedule.Row("warm", 1, _goals(latency_us=1e9), row.make, resident=True)
    machine = schedule.load_machine("br100")
    result = schedule.measure(warm, machine, None, False, lambda _: None)
    assert result.report.warm is not None
    assert result.latency_us == result.report.warm["latency_us"] <= result.report.latency_us
    assert not {"hbm", "noc"} & set(result.bounds_us)
    cells = dict(
        zip([name for name, _ in schedule.COLUMNS], [cell(result) for _, cell in schedule.COLUMNS], strict=True)
    )
    assert cells["goal"] == cells["goal "] == cells["two dies"] == "-"
    assert cells["goal us"] == "<= 1000000000.00 yes"


def test_what_cannot_be_compiled_is_told(schedule: ModuleType, tmp_path: Path) -> None:
    assert schedule.main(("-k", "open", "--quick", "--output", str(tmp_path))) == 1
    page = (tmp_path / "schedule.md").read_text(encoding="utf-8")
    assert "Failed: open, batch 1" in page and "2 layers" in page


def test_rows_have_names_of_their_own_and_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    rows = importlib.import_module("schedule_rows").rows()
    for name in MODULES:
        sys.modules.pop(name, None)
    assert len({row.name for row in rows}) == len(rows) == 12
    assert {row.model.split(",")[0] for row in rows if row.quick} == {row.model.split(",")[0] for row in rows}
