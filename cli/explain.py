"""`birc debug explain`: the kernel that a node went to, and why its neighbours are in others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birc import compiler
from birc.cli.compile import Precision, PrecisionOption
from birc.cli.output import Format, FormatOption, count, print_json, print_table, print_text, size
from birc.cli.progress import progress
from birc.cli.sizes import BatchOption, DimensionOption, one_size

if TYPE_CHECKING:
    from birc.compiler.explain import ExplainedKernel, Explanation, Found, Miss
    from birc.compiler.ir.graph import Node

_MARK = ">"


def explain_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX model.")],
    node: Annotated[
        str | None,
        typer.Argument(metavar="NODE", help="An ONNX node, or a value, by name. Default: all near misses."),
    ] = None,
    target: Annotated[str, typer.Option(help="A name from `birc targets`, or the path of a .toml file.")] = "br100",
    precision: PrecisionOption = Precision.MODEL,
    dim: DimensionOption = None,
    batch: BatchOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Say in which kernel a node ended, with which others, and for every neighbour outside why it is not in it.

    Without NODE: every pair of neighbours that a change of the model, or of the machine, could bring into one kernel,
    the largest tensors between them first. The model is compiled up to the phase `fuse`; where a product reads a
    softmax of another one, up to the plan, which says whether the two are one kernel of the machine, and why not.

    Examples:

        birc debug explain bert.onnx --dim seq=2048

        birc debug explain bert.onnx /encoder/layer.0/attention/self/Softmax --precision bf16

        birc debug explain net.onnx relu_48 --target tiny --format json
    """
    with progress(f"compiling {model.name}"):
        explanation = compiler.explain_model(model, target, precision.value, one_size(dim or []), batch)
        found = None if node is None else explanation.find(node)
    if format is Format.JSON:
        print_json(_json(explanation) if found is None else _found_json(explanation, found))
    elif found is None:
        _print_all(explanation)
    else:
        _print_found(found)


def _print_all(explanation: Explanation) -> None:
    near = [miss for miss in explanation.misses if not miss.refusal.reason.is_permanent]
    if near:
        rows = [
            (_short(miss.producer), _short(miss.reader), _tensor(miss), size(miss.num_bytes), str(miss.refusal))
            for miss in near
        ]
        print_table(("made by", "read by", "between them", "size", "why not in one kernel"), rows, right=(3,))
        print_text("")
    kernels = count(len(explanation.kernels), "kernel")
    print_text(f"{explanation.model}: {kernels}, {len(near):,} near {'miss' if len(near) == 1 else 'misses'}")
    others = _permanent(explanation)
    if others:
        listed = ", ".join(f"{number:,} {reason}" for reason, number in others.items())
        print_text(f"pairs that never share a kernel: {listed} (name a node to see its own)")
    print_text(*explanation.notes)


def _permanent(explanation: Explanation) -> dict[str, int]:
    """How many pairs there are for each reason that is no near miss."""
    reasons = (miss.refusal.reason for miss in explanation.misses if miss.refusal.reason.is_permanent)
    return dict(sorted(Counter(map(str, reasons)).items()))


def _print_found(found: Found) -> None:
    """Paragraphs with an empty line between: what happened to the name, its kernels, the neighbours outside."""
    wanted = {node.name for node in found.nodes}
    inside = {node.name for kernel in found.kernels for node in kernel.nodes}
    views = [
        f"%{node.name} is a view ({node.op}) of %{node.inputs[0]}" for node in found.nodes if node.name not in inside
    ]
    head = [*found.notes, *(f"{view}: no kernel computes it" for view in views)]
    print_text(*head)
    for number, kernel in enumerate(found.kernels):
        print_text(
            *([""] if head or number else []),
            f"kernel %{kernel.name}: {kernel.kind}, {count(len(kernel.nodes), 'node')}",
        )
        rows = [
            (_MARK if node.name in wanted else "", f"%{node.name}", node.op, str(node.output.type), _sources(node))
            for node in kernel.nodes
        ]
        print_table(("", "value", "op", "type", "ONNX nodes"), rows)
    if found.misses:
        print_text("", "neighbours elsewhere")
        for miss in found.misses:
            print_text(*_neighbour(miss, wanted))


def _neighbour(miss: Miss, wanted: set[str]) -> tuple[str, str]:
    """Two lines on the node of the pair that was not asked for."""
    is_reader = miss.producer.name in wanted
    other = miss.reader if is_reader else miss.producer
    sources = f" for {_sources(other)}" if other.sources else ""
    side = "is read by" if is_reader else "reads"
    return f"  {side} {_short(other)}{sources}: {_tensor(miss)}, {size(miss.num_bytes)}", f"    {miss.refusal}"


def _short(node: Node) -> str:
    return f"{node.op} %{node.name}"


def _sources(node: Node) -> str:
    return ", ".join(node.sources)


def _tensor(miss: Miss) -> str:
    return str(miss.producer.output.type)


def _json(explanation: Explanation) -> dict[str, Any]:
    near = [miss for miss in explanation.misses if not miss.refusal.reason.is_permanent]
    return {
        "schema": "birc.explain/1",
        "model": explanation.model,
        "notes": list(explanation.notes),
        "kernels": len(explanation.kernels),
        "near_misses": [_miss_json(miss) for miss in near],
        "never": _permanent(explanation),
    }


def _found_json(explanation: Explanation, found: Found) -> dict[str, Any]:
    return {
        "schema": "birc.explain/1",
        "model": explanation.model,
        "name": found.name,
        "notes": list(found.notes),
        "nodes": [_node_json(node) for node in found.nodes],
        "kernels": [_kernel_json(kernel) for kernel in found.kernels],
        "neighbours_elsewhere": [_miss_json(miss) for miss in found.misses],
    }


def _kernel_json(kernel: ExplainedKernel) -> dict[str, Any]:
    return {"name": kernel.name, "kind": kernel.kind, "nodes": [_node_json(node) for node in kernel.nodes]}


def _node_json(node: Node) -> dict[str, Any]:
    return {"value": node.name, "op": node.op, "type": str(node.output.type), "onnx_nodes": list(node.sources)}


def _miss_json(miss: Miss) -> dict[str, Any]:
    return {
        "producer": _node_json(miss.producer),
        "reader": _node_json(miss.reader),
        "bytes": miss.num_bytes,
        "reason": str(miss.refusal.reason),
        "near_miss": not miss.refusal.reason.is_permanent,
        "words": str(miss.refusal),
    }
