"""Reasons: read off the code of the lowerings, and each behind a rule with a remedy."""

from __future__ import annotations

import re

import pytest

from birc.compiler.importer.imported import PlacedNode
from birc.compiler.importer.lowering import direct
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.op_types import OP_TYPES
from birc.compiler.importer.reasons import reasons
from birc.compiler.importer.remedies import OTHER, RULES, near_names, rule_of

EXAMPLES = {
    "unknown-operator": "no operator of domain 'vendor' is known by that name",
    "float64": "no instruction loads or stores f64",
    "host-only-values": "'x' holds string values",
    "shape-at-run-time": "the shape of 'x' is only known at run time",
    "random": "random numbers are drawn on the host",
    "too-large": "unrolled, it takes more than 4000 nodes, the limit",
    "no-device-code": "no vector instruction computes it on u64; cast to f32 first",
    "no-lowering": "no lowering for it",
}


def placed(reason: str, op_type: str = "Op", domain: str = "") -> PlacedNode:
    return PlacedNode("the_node", op_type, domain, 18, "host", reason)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_behind_its_example(rule) -> None:
    assert rule_of(placed(EXAMPLES[rule.name])) is rule


def test_every_lowering_that_refuses_fp64_is_behind_its_rule() -> None:
    found = {text for row in OP_TYPES for text in reasons(row.lower)}
    refusals = [text for text in found if re.search(r"f64|64-bit float|double", text)]
    assert refusals
    assert {rule_of(placed(text)).name for text in refusals} == {"float64"}


def test_a_reason_that_no_rule_knows_is_the_form_of_the_node() -> None:
    assert rule_of(placed("its scheme is of an odd kind")) is OTHER


def test_a_domain_that_has_the_operator_is_named() -> None:
    assert "ai.onnx" in near_names(placed("", "Gelu", "vendor"))
    assert near_names(placed("", "NoSuchOperator", "vendor")) == ()


def test_reasons_are_those_that_the_code_raises() -> None:
    def inner(node: OnnxNode) -> None:
        raise CannotLower(f"its order is {node.name}")

    inner.__module__ = direct.__module__

    def lower(node: OnnxNode, build: object) -> str:
        inner(node)
        raise CannotLower("it has no end")

    lower.__module__ = direct.__module__
    assert reasons(lower) == ("it has no end", "its order is …")


def test_rows_with_reasons_have_texts_in_words() -> None:
    found = {text for row in OP_TYPES for text in reasons(row.lower)}
    assert len(found) > 40
    assert not [text for text in found if not re.search(r"[a-z]{3}", text)]
