"""The errors of the graph IR: a broken graph, a refused type rule, unreadable text."""

from __future__ import annotations

from birc.runtime.errors import BadModelError, InternalError


class InvalidIRError(InternalError):
    """A graph that breaks the rules of the IR: whoever built it has a bug.

    `problems` lists every broken rule, one sentence each; `report` shows each with the node and its
    neighbours.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        problems: tuple[str, ...] = (),
        report: str = "",
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.problems = problems
        self.report = report

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.what, self.where, self.hint, self.problems, self.report))


def _rebuild(what: str, where: str | None, hint: str | None, problems: tuple[str, ...], report: str) -> InvalidIRError:
    return InvalidIRError(what, where=where, hint=hint, problems=problems, report=report)


class TypeRuleError(BadModelError):
    """Input types or attributes that contradict the rule of an op."""


class UnknownDimError(TypeRuleError):
    """The size of a dimension is asked for that is still `symbol`."""

    def __init__(self, symbol: str) -> None:
        super().__init__(f"dimension {symbol!r} has no size yet", hint=f"give it one: --dim {symbol}=SIZE")
        self.symbol = symbol

    def __reduce__(self) -> tuple[object, ...]:
        return (UnknownDimError, (self.symbol,))


class TextError(BadModelError):
    """Text that is not a graph; `where` is `file:line:column`."""
