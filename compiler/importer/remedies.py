"""What can be done about an operator that the device does not run: the rules behind the reasons, in one table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import onnx

from birc.compiler.importer.imported import PlacedNode
from birc.compiler.importer.op_types import OP_TYPES


@dataclass(frozen=True, slots=True)
class Rule:
    """`pattern` finds the reasons that the rule stands behind."""

    name: str
    meaning: str
    remedy: str
    pattern: str


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "unknown-operator",
        "Nobody knows the operator: no lowering, no definition in the model, no reference.",
        "replace it with operators of ONNX, or add its definition to the model as a function",
        r"no operator of domain|no such operator|is unknown",
    ),
    Rule(
        "float64",
        "The chip has no 64-bit floating point.",
        "export the model in float32",
        r"\bf64\b|double|float64",
    ),
    Rule(
        "host-only-values",
        "Strings, complex numbers, sequences, optionals and maps exist on the host alone.",
        "keep such values at the ends of the model, where they cost no way to the device and back",
        r"\bstring|complex|sequence|optional|\bmap\b|is on the host",
    ),
    Rule(
        "shape-at-run-time",
        "A program has fixed shapes; this one is only known when the data is there.",
        "make the parameter an initialiser, or declare the shape of the result (value_info or graph output)",
        r"only known at run time|must be known|the type of .* is open|depends on (the )?data",
    ),
    Rule(
        "random",
        "Random numbers are drawn on the host.",
        "export for inference, or feed the random values as an input",
        r"random",
    ),
    Rule(
        "too-large",
        "Written out for the device the node would be larger than birc allows.",
        "use smaller sizes or fewer steps, or leave the node on the host",
        r"limit|more than|at most|too (many|long|large)",
    ),
    Rule(
        "no-device-code",
        "No vector or matrix instruction computes the operator on these types.",
        "cast the inputs to float32 before it",
        r"no vector instruction|no instruction|the device has not|T-core",
    ),
    Rule(
        "no-lowering",
        "The operator has no lowering yet, and no definition made of other operators.",
        "replace it with simpler operators, or leave it on the host",
        r"no lowering|the op has no",
    ),
)

OTHER: Final = Rule(
    "form",
    "This form of the operator is not lowered.",
    "see the operator's limits in docs/ops.md; another form of it may run on the device",
    r"",
)


def rule_of(node: PlacedNode) -> Rule:
    """The rule behind the reason of a node that is not on the device."""
    return next((rule for rule in RULES if re.search(rule.pattern, node.reason)), OTHER)


def near_names(node: PlacedNode) -> tuple[str, ...]:
    """Known operators with the node's name in another domain, for one that nobody knows."""
    lowered = {entry.domain for entry in OP_TYPES if entry.name == node.op_type}
    standard = {schema.domain for schema in onnx.defs.get_all_schemas() if schema.name == node.op_type}
    return tuple(sorted(domain or "ai.onnx" for domain in lowered | standard if domain != node.domain))
