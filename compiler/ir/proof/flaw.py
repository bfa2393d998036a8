"""What a proof finds when it fails: where, what, and a point at which it is so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flaw:
    """A claim that does not hold. `where` names the access or the buffer, `point` is a counterexample."""

    where: str
    what: str
    point: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        at = ", ".join(f"{name} = {value}" for name, value in self.point)
        return f"{self.where}: {self.what}{f' at {at}' if at else ''}"


def flaw(where: object, what: str, point: Mapping[str, int] | None = None) -> Flaw:
    """A flaw with its counterexample."""
    return Flaw(str(where), what, tuple((point or {}).items()))
