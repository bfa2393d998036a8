"""The cost of a model of one node, from its package in a file to its result: over the node cases of the onnx package.

    python benchmarks/one_node.py [-k REGEX]      (`make bench` prints the same at its end)

A cost is the least of a few, each with a session of its own: open the file, check and verify, run once. Cases that do
not compile or run are left out and counted.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests

from birc.compiler import compile_model
from birc.runtime import load
from birc.runtime.errors import BircError

TARGET, PRECISION = "br100", "fp32"
GOAL_MS = 40.0
REPEATS = 3
NAMED = 5  # the most expensive ones are named


@dataclass(frozen=True, slots=True)
class Cost:
    """One model: the milliseconds from its file to its result, and whether it has nodes on the host."""

    name: str
    total_ms: float
    with_host: bool


def costs(pattern: str = "") -> Iterator[Cost | None]:
    """The cost of every node case whose name matches, None for one that does not compile or run."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx computes its cases, some of them with overflows
        for case in load_model_tests(kind="node"):
            if re.search(pattern, case.name):
                ((inputs, _),) = case.data_sets
                feeds = {e.name: _plain(value) for e, value in zip(case.model.graph.input, inputs, strict=False)}
                yield _cost(case.name, case.model, feeds, Path(folder) / "one.birc")


def _cost(name: str, model: onnx.ModelProto, feeds: Mapping[str, Any], path: Path) -> Cost | None:
    try:
        package = compile_model(model, target=TARGET, precision=PRECISION)
        if package is None:
            return None
        package.save(path, overwrite=True)
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            load(path).run(feeds)
            times.append(1e3 * (time.perf_counter() - start))
    except BircError:
        return None
    return Cost(name, min(times), bool(package.manifest.first.host_nodes))


def _plain(value: Any) -> Any:
    """A value as arrays, lists and None."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    return value if value is None else np.asarray(value)


def summary(found: Sequence[Cost | None]) -> str:
    """What is printed: median, high percentiles and maximum, with and without nodes on the host."""
    measured = [cost for cost in found if cost is not None]
    if not measured:
        return "one node: no case could be measured"
    lines = [f"Models of one node, from the file to the result; the goal is {GOAL_MS:.0f} ms:", ""]
    for title, with_host in (("on the device", False), ("with the host", True)):
        times = sorted(cost.total_ms for cost in measured if cost.with_host == with_host)
        if times:
            high = times[int(0.99 * (len(times) - 1))]
            over = sum(value > GOAL_MS for value in times)
            lines.append(
                f"* {title}: {len(times)} cases, median {statistics.median(times):.1f} ms, "
                f"99 of 100 within {high:.1f} ms, at most {times[-1]:.1f} ms, {over} over the goal"
            )
    most = sorted(measured, key=lambda cost: -cost.total_ms)[:NAMED]
    lines.append("* most: " + ", ".join(f"{cost.name} {cost.total_ms:.1f} ms" for cost in most))
    missing = len(found) - len(measured)
    return "\n".join((*lines, *((f"* not measured: {missing}",) if missing else ())))


def main(parameters: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure one-node models from load to result.")
    parser.add_argument("-k", default="", metavar="REGEX", help="only cases whose names match")
    print(summary(tuple(costs(parser.parse_args(parameters).k))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
