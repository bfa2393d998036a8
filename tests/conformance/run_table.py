"""The ways in which every case runs, the words for what comes of it, and which of them `make test` takes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from birc.runtime.variant import HostNode

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted", "real")
"""The folders of onnx's backend cases."""

ON_DEVICE, WITH_HOST, FAILED, NO_SENSE = "device", "host", "fail", "-"
"""What can be said of a run: passed without and with nodes on the host, failed, does not exist in this form."""


@dataclass(frozen=True, slots=True)
class Run:
    """A way to run every case: a form (see `case_forms`), a precision, and how documents call it."""

    name: str
    form: str
    precision: str
    title: str


RUNS: Mapping[str, Run] = {
    run.name: run
    for run in (
        Run("as_is", "as_is", "fp32", "as it is"),
        Run("symbolic", "symbolic", "fp32", "dimensions symbolic, fixed when compiled"),
        Run("weights", "weights", "fp32", "inputs but the first as constants"),
        Run("constant", "constant", "fp32", "all inputs as constants"),
        Run("model", "as_is", "model", "as it is, precision `model`"),
    )
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: one of the four words, why it failed, and the nodes on the host."""

    status: str
    problem: str = ""
    host_nodes: tuple[HostNode, ...] = ()


def quick_runs(kind: str, case: str) -> tuple[str, ...]:
    """The runs of `make test`: as it is, and in the form whose third the checksum of the name gives, if in any.

    Constants come in two forms, which share a third. Real networks, which take most of the time, run as they are.
    """
    if kind == "real":
        return ("as_is",)
    forms = ((), ("symbolic",), ("weights",), (), ("symbolic",), ("constant",))
    return "as_is", *forms[zlib.crc32(case.encode()) % len(forms)]
