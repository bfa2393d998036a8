"""docs/ops.md: every ONNX operator, where it runs, on which types, and what sends it to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import onnx

from birc.compiler.importer.control_flow import CONTROL_FLOW
from birc.compiler.importer.host_only import HOST_ONLY
from birc.compiler.importer.lowering import OpType
from birc.compiler.importer.op_types import OP_TYPES
from birc.compiler.importer.read import NEWEST_OPSET, OLDEST_OPSET
from birc.compiler.importer.reasons import reasons
from birc.compiler.importer.remedies import OTHER, RULES
from birc.compiler.importer.scan import SCAN

_HEAD: Final = """# ONNX operators

Made by `make docs` from the importer's table and its code; not to be edited. `birc check MODEL.onnx` applies the same
rules to every node of a model. The rows of the graph, to which operators are lowered, are in [rows.md](rows.md), the
element types in [types.md](types.md).

An operator runs on the **device** unless one of its limits holds for a node; then that node runs on the **host**, by
onnx's reference evaluator, and is counted in every report. "By its definition" means that the standard defines the
operator by others, which are lowered in its place, all of them or none. These limits hold for every operator:

* float64 arithmetic, strings, complex numbers, sequences and optionals are on the host;
* shapes have to be known when compiling: a parameter that comes at run time may decide a shape only where the model
  declares the shape of the result, and the program is held to it then;
* at most about 4,000 nodes of the graph for one operator; the reasons below give other figures, `…` stands for what
  depends on the node.
"""

_DOMAINS: Final = ("", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft")


def operators_document() -> str:
    """The text of the document."""
    parts = [_HEAD, _rules()]
    for domain in _DOMAINS:
        names = sorted({entry.name for entry in OP_TYPES if entry.domain == domain} | set(_standard(domain)))
        rows = "\n".join(_line(domain, name) for name in names)
        parts.append(
            f"## {domain or 'ai.onnx'} ({len(names)})\n\n| operator | operator sets | runs on | types | limits |\n"
            f"|---|---|---|---|---|\n{rows}\n"
        )
    return "\n".join(parts)


def _rules() -> str:
    lines = "\n".join(f"| `{rule.name}` | {rule.meaning} | {rule.remedy} |" for rule in (*RULES, OTHER))
    return f"## Rules\n\n| rule | why a node is not on the device | what can be done |\n|---|---|---|\n{lines}\n"


def _standard(domain: str) -> Iterable[str]:
    """The operators that ONNX has in the domain and has not given up."""
    return (s.name for s in onnx.defs.get_all_schemas() if s.domain == domain and not s.deprecated)


def _line(domain: str, name: str) -> str:
    entries = [entry for entry in OP_TYPES if (entry.domain, entry.name) == (domain, name)]
    schema = onnx.defs.get_schema(name, domain=domain) if onnx.defs.has(name, domain) else None
    cells = (f"`{name}`", _versions(domain, name, entries), _place(domain, name, entries, schema), _types(schema))
    return f"| {' | '.join(cells)} | {_limits(domain, name, entries)} |"


def _versions(domain: str, name: str, entries: Sequence[OpType]) -> str:
    if domain:
        return "all"
    first = min(
        (s.since_version for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == (domain, name)),
        default=OLDEST_OPSET,
    )
    since = max(min((entry.since for entry in entries), default=first), first, OLDEST_OPSET)
    until = NEWEST_OPSET if not entries or any(entry.until is None for entry in entries) else None
    last = until if until is not None else max(entry.until or 0 for entry in entries)
    return f"{since} to {last}"


def _place(domain: str, name: str, entries: Sequence[OpType], schema: onnx.defs.OpSchema | None) -> str:
    if entries or (domain == "" and name in (*CONTROL_FLOW, *SCAN)):
        return "device"
    if name in HOST_ONLY:
        return "host"
    if schema is not None and (schema.has_function or schema.has_context_dependent_function):  # type: ignore[attr-defined]
        return "device, by its definition"
    return "host"


def _types(schema: onnx.defs.OpSchema | None) -> str:
    """The element types of the first input as the schema allows them; those of the host alone in brackets."""
    if schema is None or not schema.inputs:
        return ""
    allowed = sorted(str(kind) for kind in schema.inputs[0].types)
    plain = [kind.removeprefix("tensor(").removesuffix(")") for kind in allowed if kind.startswith("tensor(")]
    host = [kind for kind in plain if kind in ("double", "string", "complex64", "complex128")]
    others = sorted({kind.split("(")[0] for kind in allowed if not kind.startswith("tensor(")})
    device = [kind for kind in plain if kind not in host]
    bracketed = f" ({', '.join((*host, *others))})" if host or others else ""
    return ", ".join(device) + bracketed


def _limits(domain: str, name: str, entries: Sequence[OpType]) -> str:
    if not entries and domain == "" and name in HOST_ONLY:
        return HOST_ONLY[name]
    control = [table[name] for table in (CONTROL_FLOW, SCAN) if domain == "" and name in table]
    functions: tuple[Callable[..., object], ...] = (*(entry.lower for entry in entries), *control)
    found = dict.fromkeys(text for function in functions for text in reasons(function))
    return "<br>".join(text.replace("|", "\\|") for text in found)
