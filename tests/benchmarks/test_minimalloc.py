"""The placement benchmark: the problems that lie beside it, its table, and files that are none."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PROBLEMS = sorted((BENCHMARKS / "data" / "minimalloc").glob("*.csv"))
CAPACITY = 1 << 20
GREEDY_LIMIT = 1.25
"""Height over capacity that greedy placement and a short climb stay below."""
QUICK = ("C", "F", "K")


@pytest.fixture
def minimalloc(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/minimalloc.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("minimalloc")
    sys.modules.pop("minimalloc", None)


def table(text: str) -> dict[str, list[str]]:
    """The cells of each problem."""
    return {cells[0]: cells for cells in (line.split() for line in text.splitlines()[2:]) if cells}


def test_without_the_exact_search_all_are_placed_near_their_capacity(
    minimalloc: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(PROBLEMS) == 6
    assert minimalloc.main(("--climbs", "20")) == 1  # above the capacity
    rows = table(capsys.readouterr().out)
    assert sorted(rows) == ["A", "B", "C", "E", "F", "K"]
    for _, _, height, over, capacity, bound, *_ in rows.values():
        assert int(capacity.replace(",", "")) == CAPACITY
        assert int(bound.replace(",", "")) <= CAPACITY < int(height.replace(",", "")) <= GREEDY_LIMIT * CAPACITY
        assert float(over) == pytest.approx(int(height.replace(",", "")) / int(bound.replace(",", "")), abs=1e-3)


@pytest.mark.parametrize("path", [path for path in PROBLEMS if path.name[0] in QUICK], ids=lambda path: path.name[0])
def test_exact_search_reaches_the_lower_bound(
    minimalloc: ModuleType, capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    assert minimalloc.main((str(path), "--exact", "--climbs", "0")) == 0
    (row,) = table(capsys.readouterr().out).values()
    assert row[3] == "1.000" and row[-1] == "exact"


@pytest.mark.slow
@pytest.mark.parametrize("path", PROBLEMS, ids=lambda path: path.name[0])
def test_exact_search_solves_every_problem(
    minimalloc: ModuleType, capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    assert minimalloc.main((str(path), "--exact")) == 0
    (row,) = table(capsys.readouterr().out).values()
    assert row[3] == "1.000"


def test_a_capacity_of_ones_own(minimalloc: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n")
    assert minimalloc.main((str(path),)) == 0
    assert table(capsys.readouterr().out)["mine"][2:5] == ["12", "1.000", "12"]
    assert minimalloc.main((str(path), "--capacity", "12")) == 0
    assert minimalloc.main((str(path), "--capacity", "11")) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,lower,upper\nb1,0,3\n", "is no placement problem"),
        ("id,lower,upper,size\nb1,0,3,x\n", "is no placement problem"),
        ("id,lower,upper,size\nb1,0,3,1\nb2,3,3,4\n", "line 3: a block that never lives"),
        ("id,lower,upper,size\nb1,0,3,-1\n", "line 2: a block that never lives, or of a negative size"),
    ],
)
def test_files_that_are_no_problems(
    minimalloc: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "wrong.12.csv"
    path.write_text(text)
    assert minimalloc.main((str(path),)) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1


def test_overlapping_blocks_are_noticed(minimalloc: ModuleType) -> None:
    problem = minimalloc.read_problem(PROBLEMS[0])
    placement = minimalloc.place(problem.blocks, effort=minimalloc.Effort(climbs=0))
    minimalloc.check(problem, placement)
    wrong = minimalloc.Placement((0,) * len(problem.blocks), 0, 0, "wrong")
    with pytest.raises(minimalloc.InternalError, match="overlap"):
        minimalloc.check(problem, wrong)
