"""What the verifier found: findings, how they are collected and the error that carries them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from birc.runtime.errors import BadPackageError

PRINTED_FINDINGS = 20
# A broken loop repeats one fault in every iteration; the first few say it all.
FINDINGS_PER_PLACE = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or cannot be proved right.

    `where` names the kernel or command, the instruction and the iteration; `what` the fault; `limit` the rule
    it breaks.
    """

    where: str
    what: str
    limit: str = ""

    def __str__(self) -> str:
        rule = f" (limit: {self.limit})" if self.limit else ""
        return f"{self.where}: {self.what}{rule}"


class VerificationError(BadPackageError):
    """A program that the verifier refuses; `findings` holds everything that it found."""

    def __init__(self, program: str, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        self.program = program
        printed = "; ".join(str(finding) for finding in self.findings[:PRINTED_FINDINGS])
        rest = len(self.findings) - PRINTED_FINDINGS
        more = f"; and {rest} more" if rest > 0 else ""
        super().__init__(f"the verifier refuses the program: {printed}{more}", where=program)

    def __reduce__(self) -> tuple[object, ...]:
        return (VerificationError, (self.program, self.findings))


@dataclass(slots=True)
class Findings:
    """Collects findings; of the same fault at the same place only the first few are kept."""

    found: list[Finding] = field(default_factory=list)
    _repeats: dict[tuple[object, str], int] = field(default_factory=dict)

    def add(self, where: str, what: str, limit: str = "", *, place: object = None) -> None:
        """Note a fault. `place` (by default `where`) is what counts as the same place."""
        key = (where if place is None else place, limit or what)
        seen = self._repeats.get(key, 0)
        self._repeats[key] = seen + 1
        if seen < FINDINGS_PER_PLACE:
            self.found.append(Finding(where, what, limit))

    def extend(self, other: Findings) -> None:
        """Take over all findings of another collection."""
        self.found.extend(other.found)

    def __bool__(self) -> bool:
        return bool(self.found)
