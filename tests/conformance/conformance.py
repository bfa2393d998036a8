"""Runs the backend cases of the onnx package in every form, and rewrites the results and their document.

    make conformance      (or: python tests/conformance/conformance.py [-k REGEX] [--quick] [--check])

With `-k` or `--runs` only these lines and columns are renewed. Failures are printed with their messages. The result is
1 when a failure is not among the expected ones, or a case among them passes. `--check` writes nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from case_results import Result, read_results, write_results
from case_runs import run_case
from conformance_document import PATH, conformance_document
from expected_failures import EXPECTED_FAILURES, RANDOM
from onnx_cases import all_names
from run_table import FAILED, NO_SENSE, RUNS, Outcome, quick_runs

CASES_AT_ONCE = 8
SHOWN = 500  # characters of a failure's end


@dataclass(frozen=True, slots=True)
class Job:
    """A case to run in some ways, with its package in a folder."""

    kind: str
    name: str
    runs: tuple[str, ...]
    folder: Path


def run_job(job: Job) -> tuple[Job, dict[str, Outcome], float]:
    """The outcomes by run, and the seconds that they took."""
    start = time.perf_counter()
    outcomes = {run: run_case(job.kind, job.name, RUNS[run], job.folder) for run in job.runs}
    return job, outcomes, time.perf_counter() - start


def arguments(parameters: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run the backend cases of the onnx package.")
    parser.add_argument("-k", default="", metavar="REGEX", help="only cases whose names match")
    parser.add_argument("--runs", default=",".join(RUNS), help="only these, of %(default)s")
    parser.add_argument("--quick", action="store_true", help="only the runs of `make test`")
    parser.add_argument("-j", type=int, default=2, help="processes")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--slowest", type=int, default=0, help="name this many slow cases")
    return parser.parse_args(parameters)


def main(parameters: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    options = arguments(parameters)
    warnings.simplefilter("ignore")  # references overflow and divide by zero, as their cases want
    names = list(all_names())  # before the processes split, so that onnx makes its cases once
    found: dict[str, dict[str, Outcome]] = {}
    times: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(kind, name, quick_runs(kind, name) if options.quick else tuple(options.runs.split(",")), Path(folder))
            for kind, name in names
            if re.search(options.k, name)
        ]
        with multiprocessing.get_context("fork").Pool(options.j) as pool:
            for job, outcomes, seconds in pool.imap(run_job, jobs, CASES_AT_ONCE):
                found[job.name] = outcomes
                times.append((seconds, job.name))
                report(job, outcomes)
    lines = read_results()[1]
    results = [lines.get(name, Result(kind, name, {})).updated(found.get(name, {})) for kind, name in names]
    for seconds, name in sorted(times, reverse=True)[: options.slowest]:
        print(f"{seconds:8.2f} s  {name}")
    if not options.check:
        write_results(onnx.__version__, results)
        PATH.write_text(conformance_document(), encoding="utf-8")
        print(f"{PATH.name} written")
    return judge(found)


def report(job: Job, outcomes: Mapping[str, Outcome]) -> None:
    """Print what failed though it was not expected to."""
    problems: dict[str, list[str]] = {}
    for run, outcome in outcomes.items():
        if outcome.status == FAILED and (job.name, run) not in EXPECTED_FAILURES:
            problems.setdefault(" ".join(outcome.problem.split())[-SHOWN:], []).append(run)
    for problem, failing in problems.items():
        print(f"{job.name} [{', '.join(failing)}]: {problem}", flush=True)


def judge(found: Mapping[str, Mapping[str, Outcome]]) -> int:
    """Compare with the expected failures, and count."""
    failed = {(name, run) for name, outcomes in found.items() for run, o in outcomes.items() if o.status == FAILED}
    ran = {(name, run) for name, outcomes in found.items() for run, o in outcomes.items() if o.status != NO_SENSE}
    unexpected, passing = failed - EXPECTED_FAILURES.keys(), (ran & EXPECTED_FAILURES.keys()) - failed - RANDOM
    print(f"{len(ran)} runs, {len(failed)} failed, {len(unexpected)} of these unexpectedly")
    for name, run in sorted(passing):
        print(f"{name} [{run}] passes: take it out of expected_failures.py")
    return 1 if unexpected or passing else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
