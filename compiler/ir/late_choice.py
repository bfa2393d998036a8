"""Masks of a product's scores that begin at some column: the tiles before it need neither mask nor choice."""

from __future__ import annotations

from dataclasses import dataclass

from birc.compiler.ir.plan import Phase, Statement

CHOSEN = {"highest": 1, "zero": 2}
"""The argument of a choice that is taken where the condition is outside its tensor, by what it reads there."""


@dataclass(frozen=True, slots=True)
class LateChoice:
    """A choice between a `score` and a number that chooses the score in all columns before `begin`, by a `mask`."""

    mask: Statement
    choice: Statement
    score: str
    begin: int


def late_choice(phase: Phase, column: str) -> LateChoice | None:
    """The only choice of a phase over columns that begins late; None without one."""
    if phase.loops != (column,):
        return None
    made = {s.result: s for s in phase.statements}
    found = []
    for choice in (s for s in phase.statements if s.op == "vsel"):
        mask = made.get(str(choice.arguments[0]))
        begin = _begin(mask, column) if mask is not None else 0
        if mask is None or mask.access is None or not begin:
            continue
        score = choice.arguments[CHOSEN[mask.access.fill]]
        readers = [s for s in phase.statements if mask.result in s.arguments or score in s.arguments]
        if isinstance(score, str) and score in made and readers == [choice]:
            found.append(LateChoice(mask, choice, score, begin))
    return found[0] if len(found) == 1 else None


def _begin(mask: Statement, column: str) -> int:
    """The first column that is inside the view of a load; 0 where it is not known to leave the view before."""
    if mask.op != "vld" or mask.access is None or mask.access.fill not in CHOSEN:
        return 0
    moving = [index for index in mask.access.index if any(name == column for name, _ in index.terms)]
    if len(moving) != 1 or moving[0].terms != ((column, 1),) or any(mask.access.view.lower):
        return 0
    return max(0, -moving[0].constant)
