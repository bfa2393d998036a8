"""The committed results: one line a case, with one word for each way in which it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from expected_failures import RANDOM
from run_table import FAILED, RUNS, Outcome

PATH = Path(__file__).with_name("results.tsv")
COLUMNS = ("kind", "case", *RUNS, "on the host")
BETWEEN_NODES = " | "
VERSION_MARK = "# onnx "


@dataclass(frozen=True, slots=True)
class Result:
    """One line. `statuses` are by run; `host_nodes` are those of the case as it is, as `operator: reason`."""

    kind: str
    case: str
    statuses: Mapping[str, str]
    host_nodes: tuple[str, ...] = ()

    def updated(self, outcomes: Mapping[str, Outcome]) -> Result:
        """The line with the outcomes of some runs; what passes by chance is not written down as passing."""
        statuses = {run: outcomes[run].status if run in outcomes else self.statuses.get(run, "") for run in RUNS}
        statuses.update((run, FAILED) for run in outcomes if (self.case, run) in RANDOM)
        nodes = self.host_nodes
        if "as_is" in outcomes:
            nodes = tuple(dict.fromkeys(f"{node.op_type}: {node.reason}" for node in outcomes["as_is"].host_nodes))
        return Result(self.kind, self.case, statuses, nodes)


def read_results() -> tuple[str, dict[str, Result]]:
    """The version of onnx whose cases these are, and the lines by case."""
    if not PATH.exists():
        return "", {}
    version, _, *lines = PATH.read_text(encoding="utf-8").splitlines()
    results = {}
    for line in lines:
        kind, case, *statuses, nodes = line.split("\t")
        found = tuple(nodes.split(BETWEEN_NODES)) if nodes else ()
        results[case] = Result(kind, case, dict(zip(RUNS, statuses, strict=True)), found)
    return version.removeprefix(VERSION_MARK), results


def write_results(version: str, results: Iterable[Result]) -> None:
    """Replace the committed results."""
    lines = [f"{VERSION_MARK}{version}", "\t".join(COLUMNS)]
    for result in results:
        nodes = BETWEEN_NODES.join(" ".join(node.split()) for node in result.host_nodes)
        lines.append("\t".join((result.kind, result.case, *(result.statuses[run] for run in RUNS), nodes)))
    PATH.write_text("\n".join(lines) + "\n", encoding="utf-8")
