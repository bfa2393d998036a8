"""Expressions over one iteration space, and their division into phases of vector statements.

A group's body becomes a small expression graph: loads, vector operations, reductions over register axes, folds over
loops. A reduction whose dimension does not fit into one tile, and every fold, ends a phase: its result stays in a
register while the following phase runs through the loop again, reloading what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from birc.compiler.ir.plan import Access, Phase, Statement


@dataclass(frozen=True, eq=False, slots=True)
class Expression:
    """A value at every point of the space. `op` as in `Statement`; `dims` are those a vred or vfold removes."""

    op: str
    arguments: tuple[Expression | float, ...] = ()
    access: Access | None = None
    dims: tuple[str, ...] = ()
    index_axis: int = 0
    index_count: int = 0
    is_float: bool = True

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """The arguments that are expressions."""
        return tuple(a for a in self.arguments if isinstance(a, Expression))


@dataclass(slots=True)
class Builder:
    """Makes expressions; equal loads and equal operations are made once."""

    made: dict[tuple[object, ...], Expression] = field(default_factory=dict)

    def load(self, access: Access, is_float: bool = True) -> Expression:
        """The elements at `access`."""
        return self._make(Expression("vld", access=access, is_float=is_float))

    def gather(self, access: Access, index: Expression, axis: int, count: int, is_float: bool) -> Expression:
        """The elements at `access`, displaced along view dimension `axis` by `index` (0 <= index < count)."""
        return self._make(Expression("vldx", (index,), access, index_axis=axis, index_count=count, is_float=is_float))

    def op(self, mnemonic: str, *arguments: Expression | float, is_float: bool = True) -> Expression:
        """A vector operation on registers or immediates; of immediates alone, the first goes to a register."""
        if arguments and all(isinstance(a, float) for a in arguments):
            filled = self._make(Expression("vmovi", arguments[:1], is_float=is_float))
            if mnemonic == "vmov":
                return filled
            arguments = (filled, *arguments[1:])
        return self._make(Expression(mnemonic, arguments, is_float=is_float))

    def reduce(self, mnemonic: str, argument: Expression, dims: tuple[str, ...]) -> Expression:
        """A reduction (`vred...`) over register axes; they become extent 1."""
        return self._make(Expression(mnemonic, (argument,), dims=dims, is_float=argument.is_float))

    def fold(self, mnemonic: str, argument: Expression, dims: tuple[str, ...]) -> Expression:
        """An accumulation (`vfold...`) over loops."""
        return self._make(Expression(mnemonic, (argument,), dims=dims, is_float=argument.is_float))

    def _make(self, expression: Expression) -> Expression:
        arguments = tuple(a if isinstance(a, float) else id(a) for a in expression.arguments)
        key = (expression.op, arguments, expression.access, expression.dims, expression.index_axis)
        return self.made.setdefault(key, expression)


@dataclass(frozen=True, slots=True)
class Store:
    """Writes a value at `access`."""

    value: Expression | float
    access: Access


def phases(stores: Iterable[Store], looped: Callable[[Expression], tuple[str, ...]]) -> tuple[Phase, ...]:
    """Statements in phases. `looped` tells over which loops a reduction or fold runs (none: no new phase)."""
    stores = tuple(stores)
    breaks: dict[int, list[Expression]] = {}
    levels: dict[Expression, int] = {}
    for store in stores:
        if isinstance(store.value, Expression):
            _level(store.value, looped, levels, breaks)
    emitter = _Emitter(looped, levels)
    result = []
    loops: tuple[str, ...] = ()
    for level in sorted(breaks):
        loops = tuple(dict.fromkeys(d for e in breaks[level] for d in looped(e)))
        emitter.begin(level)
        for expression in breaks[level]:
            emitter.finish_break(expression)
        result.append(Phase(tuple(emitter.statements), loops))
    emitter.begin(len(breaks) and max(breaks) + 1)
    for store in stores:
        value = store.value if isinstance(store.value, float) else emitter.name(store.value)
        emitter.statements.append(Statement("vst", arguments=(value,), access=store.access))
    last_loops = tuple(d for d in loops if any(_spans(s.access, d) for s in stores))
    result.append(Phase(tuple(emitter.statements), last_loops))
    return tuple(result)


def _spans(access: Access, dim: str) -> bool:
    """Whether a store moves along `dim`."""
    return any(name == dim for index in access.index for name, _ in index.terms)


def _level(
    root: Expression,
    looped: Callable[[Expression], tuple[str, ...]],
    levels: dict[Expression, int],
    breaks: dict[int, list[Expression]],
) -> None:
    """Assign each expression the phase in which it can first be computed (iteratively, inputs first)."""
    pending = [root]
    while pending:
        expression = pending[-1]
        waiting = [e for e in expression.inputs if e not in levels]
        if waiting:
            pending.extend(waiting)
            continue
        pending.pop()
        if expression in levels:
            continue
        level = max((_available(e, looped, levels) for e in expression.inputs), default=0)
        levels[expression] = level
        if looped(expression):
            breaks.setdefault(level, []).append(expression)


def _available(
    expression: Expression, looped: Callable[[Expression], tuple[str, ...]], levels: dict[Expression, int]
) -> int:
    return levels[expression] + (1 if looped(expression) else 0)


class _Emitter:
    """Writes the statements of one phase after the other; results of breaks stay named across phases."""

    def __init__(self, looped: Callable[[Expression], tuple[str, ...]], levels: dict[Expression, int]) -> None:
        self.looped = looped
        self.levels = levels
        self.statements: list[Statement] = []
        self.kept: dict[Expression, str] = {}
        self.names: dict[Expression, str] = {}
        self.level = 0
        self.count = 0

    def begin(self, level: int) -> None:
        """Start a phase: forget everything but results of earlier breaks."""
        self.level = level
        self.statements = []
        self.names = dict(self.kept)

    def name(self, root: Expression) -> str:
        """The register value of an expression in this phase, computed here if it is not yet."""
        pending = [root]
        while pending:
            expression = pending[-1]
            if expression in self.names:
                pending.pop()
                continue
            waiting = [e for e in expression.inputs if e not in self.names]
            if waiting:
                pending.extend(reversed(waiting))
                continue
            pending.pop()
            self._emit(expression, expression.op)
        return self.names[root]

    def finish_break(self, expression: Expression) -> None:
        """Emit a reduction or fold that ends this phase."""
        (argument,) = expression.inputs
        value = self.name(argument)
        if expression.op.startswith("vred"):
            partial = self._fresh()
            self.statements.append(Statement(expression.op, partial, (value,), dims=expression.dims))
            value = partial
        result = self._fresh()
        fold = expression.op.replace("vred", "vfold")
        self.statements.append(Statement(fold, result, (value,), dims=self.looped(expression)))
        self.kept[expression] = result
        self.names[expression] = result

    def _emit(self, expression: Expression, op: str) -> None:
        result = self._fresh()
        arguments = tuple(a if isinstance(a, float) else self.names[a] for a in expression.arguments)
        self.statements.append(
            Statement(
                op,
                result,
                arguments,
                expression.access,
                expression.dims,
                expression.index_axis,
                expression.index_count,
            )
        )
        self.names[expression] = result

    def _fresh(self) -> str:
        self.count += 1
        return f"v{self.count - 1}"
