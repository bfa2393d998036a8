"""The printer of plans: text that reads back to the same plan."""

from __future__ import annotations

from birc.compiler.ir.plan import Plan
from birc.compiler.ir.plan_forms import PLAN_FORM


def print_plan(plan: Plan) -> str:
    """The text of `plan`, every field of it; the data of constants is not part of a plan."""
    return PLAN_FORM.show(plan) + "\n"
