"""`birc check`: where every node of a model would run, and what can be done about those that are not on the device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birc import compiler
from birc.cli.output import Format, FormatOption, count, print_json, print_table, print_text
from birc.cli.progress import progress
from birc.cli.sizes import BatchOption, DimensionOption, one_size
from birc.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from birc.compiler.check import Check, CheckedNode


def check_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX model.")],
    dim: DimensionOption = None,
    batch: BatchOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Say for every node whether it runs on the device, on the host or not at all, by which rule, and the remedy.

    Nothing is compiled. The exit code is 4 when a node is unsupported.

    Examples:

        birc check net.onnx

        birc check net.onnx --dim seq=128 --format json
    """
    with progress(f"checking {model.name}"):
        check = compiler.check_model(model, one_size(dim or []), batch)
    if format is Format.JSON:
        print_json(_json(check))
    else:
        _print(check)
    unsupported = [checked.node for checked in check.nodes if checked.node.place == "unsupported"]
    if unsupported:
        names = ", ".join(f"{node.name!r} ({node.op_type})" for node in unsupported)
        raise UnsupportedError(f"{count(len(unsupported), 'node')} unsupported: {names}", where=str(model))


def _json(check: Check) -> dict[str, Any]:
    return {
        "schema": "birc.check/1",
        "model": check.model,
        "summary": {place: check.count(place) for place in ("device", "host", "unsupported")},
        "programs": check.programs,
        "host_steps": check.host_steps,
        "nodes": [_node_json(checked) for checked in check.nodes],
    }


def _node_json(checked: CheckedNode) -> dict[str, Any]:
    node = checked.node
    return {
        "name": node.name,
        "op_type": node.op_type,
        "domain": node.domain or "ai.onnx",
        "opset": node.opset,
        "place": node.place,
        "reason": node.reason,
        "rule": checked.rule,
        "remedy": checked.remedy,
    }


def _print(check: Check) -> None:
    rows = [
        (checked.node.name, checked.node.op_type, checked.node.place, checked.rule, checked.node.reason)
        for checked in check.nodes
    ]
    print_table(("node", "operator", "runs on", "rule", "reason"), rows)
    remedies = {checked.rule: checked.remedy for checked in check.nodes if checked.rule}
    if remedies:
        print_text("", "What can be done")
        print_table(("rule", "remedy"), list(remedies.items()))
    parts = f"{count(check.programs, 'program')} and {count(check.host_steps, 'step')} on the host"
    print_text(
        "",
        f"{check.model}: {check.count('device')} on the device, {check.count('host')} on the host, "
        f"{check.count('unsupported')} unsupported" + (f"; {parts}" if check.host_steps else ""),
    )
