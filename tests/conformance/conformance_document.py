"""The document of the conformance suite, from its results and the expected failures."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from case_results import Result, read_results
from expected_failures import EXPECTED_FAILURES
from run_table import FAILED, KINDS, NO_SENSE, ON_DEVICE, RUNS, WITH_HOST

PATH = Path(__file__).parents[2] / "docs" / "conformance.md"
QUOTED = re.compile(r"'[^']*'")

STATED_ELSEWHERE: tuple[tuple[str, int], ...] = (
    ("onnx's own reference", 2015),
    ("onnxruntime", 1653),
    ("OpenVINO", 1607),
    ("tinygrad", 1483),
    ("IREE", 1370),
    ("TVM", 1067),
)
"""How many of the 2,033 cases others pass, as stated for them; not measured here."""

INTRODUCTION = """\
Written by `make conformance` from `tests/conformance/results.tsv`; not to be edited.

The backend cases of onnx {version}: every operator of the standard in its variants, and networks. Each goes through
the whole path: compiled for br100, packed into a file, loaded, verified, run on the instruction stream, and compared
by the rules of onnx's own runner. Precision is `fp32` unless a row says `model`.

* As it is.
* Every dimension of every input a symbol, whose size is given when the model is compiled. Dimensions of outputs are
  symbols too: that of an input where the sizes coincide, else one without a size.
* Inputs turned into initialisers: all but the first, and all.

A form counts only the cases that have it: some have no dimension to open, no second input, no input at all. `make test`
runs the first form whole and a third of the others, but networks only in the first, and compares each case with its
committed line.
"""


def conformance_document() -> str:
    """The text of docs/conformance.md."""
    version, lines = read_results()
    results = tuple(lines.values())
    return "\n".join(
        (
            "# Conformance",
            "",
            INTRODUCTION.format(version=version),
            "## Passing",
            "",
            *_totals(results),
            "",
            "## By kind, as it is",
            "",
            *_kinds(results),
            "",
            "## Others",
            "",
            f"Of the same {len(results):,} cases, as stated for them elsewhere (not measured here):",
            "",
            *_table(("", "passing"), [(name, f"{count:,}") for name, count in STATED_ELSEWHERE]),
            "",
            "## Expected failures",
            "",
            *_failures(),
            "",
            "## Nodes on the host, by reason",
            "",
            "Of the cases as they are. Names of values are left out.",
            "",
            *_hosts(results),
            "",
        )
    )


def _totals(results: Sequence[Result]) -> list[str]:
    rows = []
    for run in RUNS:
        count = _counts(result.statuses[run] for result in results)
        ran = len(results) - count[NO_SENSE]
        rows.append((RUNS[run].title, ran, count[ON_DEVICE] + count[WITH_HOST], *map(count.get, _WORDS)))
    return _table(("form", "cases", "pass", *_HEADS), [(title, *map(_number, row)) for title, *row in rows])


def _kinds(results: Sequence[Result]) -> list[str]:
    rows = []
    for kind in KINDS:
        mine = [result.statuses["as_is"] for result in results if result.kind == kind]
        count = _counts(mine)
        rows.append((kind, *map(_number, (len(mine), count[ON_DEVICE] + count[WITH_HOST], *map(count.get, _WORDS)))))
    return _table(("kind", "cases", "pass", *_HEADS), rows)


_WORDS = (ON_DEVICE, WITH_HOST, FAILED)
_HEADS = ("without the host", "with nodes on the host", "fail")


def _counts(statuses: Iterable[str]) -> dict[str, int]:
    return {**dict.fromkeys((*_WORDS, NO_SENSE), 0), **Counter(statuses)}


def _number(value: int | None) -> str:
    return f"{value or 0:,}"


def _failures() -> list[str]:
    """The expected failures: the cases that fail in the same forms for the same reason in one row."""
    forms: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (case, run), reason in EXPECTED_FAILURES.items():
        forms[case, reason].append(RUNS[run].title)
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (case, reason), titles in forms.items():
        rows["; ".join(titles), reason].append(f"`{case}`")
    return _table(
        ("cases", "form", "reason"), [(", ".join(sorted(cases)), *row) for row, cases in rows.items()], numbers=False
    )


def _hosts(results: Iterable[Result]) -> list[str]:
    cases: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result in results:
        if result.statuses["as_is"] == WITH_HOST:
            nodes = (QUOTED.sub("…", node).partition(": ") for node in result.host_nodes)
            for operator, _, reason in dict.fromkeys(nodes):
                cases[operator, reason].append(f"`{result.case}`")
    rows = [
        (operator, reason, str(len(names)), ", ".join(names)) for (operator, reason), names in sorted(cases.items())
    ]
    return _table(("operator", "reason", "cases", ""), rows, numbers=False)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> list[str]:
    rule = ["---" if place == 0 or not numbers else "--:" for place in range(len(heads))]
    lines = [heads, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
