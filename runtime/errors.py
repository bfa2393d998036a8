"""The errors of birc: one class a reason, each with its exit code.

Only these reach a user. Each says in one line what is wrong, where (node, offset, field), what the limit is
and what to do.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_INTERRUPTED = 130


class BircError(Exception):
    """The base of every error that birc raises on purpose.

    `what` is the sentence, `where` the place (a node, an offset, a field), `hint` what the user can do.
    """

    exit_code: ClassVar[int] = 1
    meaning: ClassVar[str] = "an error of birc"

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.hint})" if self.hint else ""
        return " ".join(f"{place}{self.what}{advice}".split())

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild with the keyword fields, so that the error survives the way between processes."""
        return (_rebuild, (type(self), self.what, self.where, self.hint))


def _rebuild(kind: type[BircError], what: str, where: str | None, hint: str | None) -> BircError:
    return kind(what, where=where, hint=hint)


class InternalError(BircError):
    """A state that cannot be: the fault is in birc, not in what it was given."""

    exit_code = 1
    meaning = "internal error: a bug in birc"


class UsageError(BircError):
    """A command line, option or argument that does not make sense."""

    exit_code = 2
    meaning = "wrong usage"


class BadModelError(BircError):
    """A model that cannot be read or contradicts itself."""

    exit_code = 3
    meaning = "bad or unreadable model"


class UnsupportedError(BircError):
    """Operators that neither the device nor the host can run."""

    exit_code = 4
    meaning = "unsupported operators"


class DoesNotFitError(BircError):
    """A program that is larger than the target's memory or limits."""

    exit_code = 5
    meaning = "does not fit the target"


class BadPackageError(BircError):
    """A package that is damaged, of another version, or refused by the verifier."""

    exit_code = 6
    meaning = "bad package"


class NumericMismatchError(BircError):
    """Results that differ from the reference by more than the tolerance."""

    exit_code = 7
    meaning = "numeric mismatch"


class LimitError(BircError):
    """A time or memory limit that was reached before the work was done."""

    exit_code = 8
    meaning = "time or memory limit reached"


ERRORS: tuple[type[BircError], ...] = (
    InternalError,
    UsageError,
    BadModelError,
    UnsupportedError,
    DoesNotFitError,
    BadPackageError,
    NumericMismatchError,
    LimitError,
)


def exit_codes() -> tuple[tuple[int, str], ...]:
    """Every exit code of the command line with its meaning, in ascending order."""
    failures = tuple((error.exit_code, error.meaning) for error in ERRORS)
    return ((EXIT_OK, "success"), *failures, (EXIT_INTERRUPTED, "interrupted"))
