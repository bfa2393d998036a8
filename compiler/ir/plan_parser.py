"""The parser of plans: the text form back to a plan."""

from __future__ import annotations

from birc.compiler.ir.plan import Plan
from birc.compiler.ir.plan_forms import PLAN_FORM
from birc.compiler.ir.token_reader import TokenReader


def parse_plan(text: str, file: str = "<text>") -> Plan:
    """The plan that `text` says. Raises `TextError`, with line, column and what was expected.

    The plan is not verified (see plan_verify.py).
    """
    reader = TokenReader(text, file)
    plan: Plan = PLAN_FORM.read(reader)
    reader.end()
    return plan
