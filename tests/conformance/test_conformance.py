"""The backend cases of the onnx package, each compared with its line in the committed results.

All of them run as they are, and a fixed third of them in each of the other forms; `make conformance` runs everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from blas import TELLS_EQUAL_SUMS_APART, keeps_equal_sums
from case_results import Result, read_results
from case_runs import run_case
from expected_failures import EXPECTED_FAILURES, GROUPS, RANDOM
from onnx_cases import all_names, cases_of
from run_table import FAILED, KINDS, NO_SENSE, RUNS, quick_runs

VERSION, RESULTS = read_results()
MOST_EXPECTED_FAILURES = 83
OTHER_ONNX = pytest.mark.skipif(onnx.__version__ != VERSION, reason=f"the results are those of onnx {VERSION}")


def chosen_runs() -> Iterator[tuple[Result, str]]:
    """What runs here."""
    for result in RESULTS.values():
        yield from ((result, run) for run in quick_runs(result.kind, result.case) if result.statuses[run] != NO_SENSE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("result", "run"), [pytest.param(result, run, id=f"{result.case}-{run}") for result, run in chosen_runs()]
)
def test_case(result: Result, run: str, tmp_path: Path) -> None:
    if onnx.__version__ != VERSION and result.case not in cases_of(result.kind):
        pytest.skip(f"onnx {onnx.__version__} has no such case")
    if result.case in TELLS_EQUAL_SUMS_APART and not keeps_equal_sums():
        pytest.skip("the BLAS of this computer does not keep equal sums equal, and the case tells them apart")
    outcome = run_case(result.kind, result.case, RUNS[run], tmp_path)
    hosts = "; ".join(map(str, outcome.host_nodes))
    if (result.case, run) in RANDOM and outcome.status != FAILED:
        return
    assert outcome.status == result.statuses[run], outcome.problem or hosts or "passes: run `make conformance`"


@OTHER_ONNX
@pytest.mark.filterwarnings("ignore")
def test_every_case_has_a_line() -> None:
    assert [(result.kind, result.case) for result in RESULTS.values()] == list(all_names())
    assert all(result.statuses[run] for result in RESULTS.values() for run in RUNS)
    assert [len(cases_of(kind)) for kind in KINDS] == [1884, 23, 35, 82, 9]


def test_the_failures_are_those_expected() -> None:
    failed = {(r.case, run) for r in RESULTS.values() for run, status in r.statuses.items() if status == FAILED}
    assert failed == EXPECTED_FAILURES.keys()
    listed = sum(len(group.cases) * len(group.runs) for group in GROUPS)
    assert listed == len(EXPECTED_FAILURES), "a case is there twice"


def test_the_list_of_expected_failures_only_shrinks() -> None:
    assert len(EXPECTED_FAILURES) == MOST_EXPECTED_FAILURES, "lower the figure with the list, and never raise it"


def test_every_expected_failure_has_a_reason() -> None:
    assert all(re.fullmatch(r".{20,}[^.]", group.reason) for group in GROUPS)
