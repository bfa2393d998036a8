"""Annotated figures: a number with its unit, its source and how sure it is.

A machine description is a set of these. `read_figure` is the strict door: whatever is missing, unknown or out
of its range is refused with the name of the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from birc.runtime.errors import UsageError

Confidence = Literal["stated", "derived", "estimated"]
CONFIDENCES: Final[tuple[str, ...]] = get_args(Confidence)

_REQUIRED: Final = ("value", "unit", "source", "confidence")
_RANGE: Final = ("low", "high")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a machine.

    `confidence` is "stated" (the source says it), "derived" (arithmetic on stated figures) or "estimated"
    (nothing public gives it: `low` and `high` bound it, both inclusive). `section` groups figures for
    printing.
    """

    value: float
    unit: str
    source: str
    confidence: Confidence
    low: float | None = None
    high: float | None = None
    section: str = ""

    def __str__(self) -> str:
        unit = "" if self.unit == "count" else f" {self.unit}"
        span = "" if self.low is None else f" [{self.low:g} to {self.high:g}]"
        return f"{self.value:.12g}{unit}{span}, {self.confidence}: {self.source}"


@dataclass(frozen=True, slots=True)
class FigureType:
    """What a field accepts: its unit, and whether only whole numbers make sense."""

    unit: str
    whole: bool


def read_figure(table: object, expected: FigureType, *, where: str, section: str) -> Figure:
    """The figure that a TOML table describes, checked against what its field expects.

    `where` names the file and the field in errors. Raises `UsageError`.
    """
    if not isinstance(table, Mapping):
        raise UsageError("is not a table", where=where, hint="write { value, unit, source, confidence }")
    _check_keys(table, where)
    _check_words(table, expected, where)
    numbers = {key: _number(table[key], key, expected, where) for key in ("value", *_RANGE) if key in table}
    figure = Figure(
        value=numbers["value"],
        unit=expected.unit,
        source=str(table["source"]).strip(),
        confidence=cast(Confidence, table["confidence"]),
        low=numbers.get("low"),
        high=numbers.get("high"),
        section=section,
    )
    _check_range(figure, where)
    return figure


def _check_keys(table: Mapping[str, object], where: str) -> None:
    unknown = [key for key in table if key not in (*_REQUIRED, *_RANGE)]
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r}", where=where, hint=f"known: {', '.join((*_REQUIRED, *_RANGE))}")
    missing = [key for key in _REQUIRED if key not in table]
    if missing:
        raise UsageError(f"has no {missing[0]!r}", where=where)


def _check_words(table: Mapping[str, object], expected: FigureType, where: str) -> None:
    if table["unit"] != expected.unit:
        raise UsageError(f"unit is {table['unit']!r}, expected {expected.unit!r}", where=where)
    if table["confidence"] not in CONFIDENCES:
        raise UsageError(f"confidence is {table['confidence']!r}", where=where, hint=f"one of {', '.join(CONFIDENCES)}")
    if not isinstance(table["source"], str) or not table["source"].strip():
        raise UsageError("has an empty source", where=where, hint="name the document or the formula")


def _number(raw: object, key: str, expected: FigureType, where: str) -> float:
    """The positive finite number `raw`: an int where the field counts, else a float."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise UsageError(f"{key} is {raw!r}, not a number", where=where)
    if not math.isfinite(raw) or raw <= 0:
        raise UsageError(f"{key} is {raw}, must be positive", where=where)
    if expected.unit == "fraction" and raw > 1:
        raise UsageError(f"{key} is {raw}, a fraction is at most 1", where=where)
    if not expected.whole:
        return float(raw)
    if not isinstance(raw, int):
        raise UsageError(f"{key} is {raw}, must be a whole number", where=where)
    return raw


def _check_range(figure: Figure, where: str) -> None:
    if (figure.low is None) != (figure.high is None):
        raise UsageError("has only one of low and high", where=where)
    if figure.low is None or figure.high is None:
        if figure.confidence == "estimated":
            raise UsageError("is estimated but has no low and high", where=where)
        return
    if not figure.low <= figure.value <= figure.high:
        span = f"{figure.low:g} to {figure.high:g}"
        raise UsageError(f"value {figure.value:g} lies outside its range {span}", where=where)


def read_assignment(old: Figure, value: float, expected: FigureType, *, where: str, source: str) -> Figure:
    """`old` with another value, set by a program; it loses its range. Raises `UsageError` for a bad value."""
    number = _number(value, "value", expected, where)
    return Figure(number, old.unit, source, "derived", section=old.section)
