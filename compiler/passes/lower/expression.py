"""Expressions over one iteration space, and their division into phases of vector statements.

A group's body becomes a small expression graph: loads, vector operations, reductions over register axes, folds over
loops. A reduction whose dimension does not fit into one tile, and every fold, ends a phase: its result stays in a
register while the following phase runs through the loop again, reloading what it needs. After a contraction nothing is
computed again: what a later phase needs of a tile stays in a register of that tile, but for what was loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from birc.compiler.ir.plan import Access, Phase, Statement

VARYING = frozenset({"vacc", "vst"})
"""What is another one in every iteration without reading anything that is."""

MOST_ROW_VALUES = 4
"""Values of a row, beside the results of reductions, that stay in registers while a loop runs through its tiles."""


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


def phases(
    stores: Iterable[Store], looped: Callable[[Expression], tuple[str, ...]], keep_tiles: bool = False
) -> tuple[Phase, ...]:
    """Statements in phases. `looped` tells over which loops a reduction or fold runs (none: no new phase).

    With `keep_tiles` a value of one phase is used in later ones, else it is computed again; and what a phase behind the
    first makes is stored there.
    """
    stores = list(_multiplied_and_added(stores) if keep_tiles else stores)
    breaks: dict[int, list[Expression]] = {}
    levels: dict[Expression, int] = {}
    for store in stores:
        if isinstance(store.value, Expression):
            _level(store.value, looped, levels, breaks)
    emitter = _Emitter(looped, levels, keep_tiles)
    result = []
    loops: tuple[str, ...] = ()
    for level in sorted(breaks):
        loops = tuple(dict.fromkeys(d for e in breaks[level] for d in looped(e)))
        emitter.begin(level, loops)
        early = [s for s in stores if keep_tiles and level > 0 and _is_made_at(s.value, level, looped, levels)]
        emitter.store(early)
        stores = [s for s in stores if s not in early]
        for expression in breaks[level]:
            emitter.finish_break(expression)
        result.append(Phase(tuple(emitter.statements), loops))
    emitter.begin(len(breaks) and max(breaks) + 1, loops)
    emitter.store(stores)
    last_loops = tuple(d for d in loops if any(_spans(s.access, d) for s in stores))
    result.append(Phase(tuple(emitter.statements), last_loops))
    return tuple(part for phase in result for part in _invariant_apart(phase, result)) if keep_tiles else tuple(result)


def _is_made_at(
    value: Expression | float,
    level: int,
    looped: Callable[[Expression], tuple[str, ...]],
    levels: Mapping[Expression, int],
) -> bool:
    """Whether a value is there for each iteration of the loops of a level."""
    return isinstance(value, Expression) and levels[value] == level and not looped(value)


def _invariant_apart(phase: Phase, phases: list[Phase]) -> list[Phase]:
    """What is the same in every iteration of a phase's loops as a phase of its own before it."""
    varying = {s.result for other in phases for s in other.statements if other.loops and not s.op.startswith("vfold")}
    before, inside = [], []
    for statement in phase.statements:
        varies = any(isinstance(a, str) and a in varying for a in statement.arguments) or statement.op in VARYING
        if statement.access is not None:
            varies = varies or any(_spans(statement.access, name) for name in phase.loops)
        if varies or statement.op.startswith("vfold") or not phase.loops:
            inside.append(statement)
        else:
            before.append(statement)
            varying.discard(statement.result)
    once = _kept_for_rows(before, inside)
    before, inside = [s for s in phase.statements if id(s) in once], [s for s in phase.statements if id(s) not in once]
    return [Phase(tuple(before)), Phase(tuple(inside), phase.loops)] if before else [phase]


def _kept_for_rows(before: list[Statement], inside: list[Statement]) -> set[int]:
    """Which statements, by identity, of those that are the same in every iteration are executed once, before it.

    What comes of reductions, and the first few of the other values that the loop reads, with all that they read.
    """
    makers = {statement.result: statement for statement in before}
    reduced: set[str] = set()
    for statement in before:
        if statement.op.startswith("vred") or any(a in reduced for a in statement.arguments):
            reduced.add(statement.result)
    read = dict.fromkeys(a for s in inside for a in s.arguments if isinstance(a, str) and a in makers)
    others = [name for name in read if name not in reduced]
    pending = [*reduced, *others[:MOST_ROW_VALUES]]
    once: set[int] = set()
    while pending:
        statement = makers[pending.pop()]
        if id(statement) not in once:
            once.add(id(statement))
            pending += [a for a in statement.arguments if isinstance(a, str) and a in makers]
    return once


def moving(root: Expression) -> frozenset[str]:
    """The dimensions along which a value may differ."""
    found: dict[Expression, frozenset[str]] = {}
    for e in _inputs_first([root]):
        names = frozenset().union(*(found[argument] for argument in e.inputs))
        if e.access is not None:
            names |= {name for index in e.access.index for name, _ in index.terms}
        found[e] = names - set(e.dims)
    return found[root]


def _multiplied_and_added(stores: Iterable[Store]) -> tuple[Store, ...]:
    """The stores with products that only a sum reads made one operation with it, where rows are reduced.

    Elsewhere the two roundings stay: what is quantised has to come out as the operators say.
    """
    stores = tuple(stores)
    order = _inputs_first([s.value for s in stores if isinstance(s.value, Expression)])
    if not any(e.op.startswith("vfold") for e in order):
        return stores
    uses = Counter(argument for e in order for argument in e.inputs)
    new: dict[Expression, Expression] = {}
    for e in order:
        arguments = tuple(new[a] if isinstance(a, Expression) else a for a in e.arguments)
        changed = replace(e, arguments=arguments) if arguments != e.arguments else e
        product = e.arguments[0] if e.op == "vadd" else None
        if isinstance(product, Expression) and product.op == "vmul" and e.is_float and uses[product] == 1:
            changed = replace(e, op="vfma", arguments=(*new[product].arguments, *arguments[1:]))
        new[e] = changed
    return tuple(replace(s, value=new[s.value]) if isinstance(s.value, Expression) else s for s in stores)


def _inputs_first(roots: Iterable[Expression]) -> list[Expression]:
    """Every expression below the roots, after those that it reads."""
    done: dict[Expression, None] = {}
    pending = list(roots)
    while pending:
        waiting = [e for e in pending[-1].inputs if e not in done]
        if waiting:
            pending.extend(waiting)
        else:
            done[pending.pop()] = None
    return list(done)


def _moves(expression: Expression, loops: tuple[str, ...]) -> bool:
    """Whether an expression is a load of something else in every iteration."""
    return expression.op == "vld" and expression.access is not None and any(_spans(expression.access, d) for d in loops)


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

    def __init__(
        self, looped: Callable[[Expression], tuple[str, ...]], levels: dict[Expression, int], keep_tiles: bool
    ) -> None:
        self.looped = looped
        self.keep_tiles = keep_tiles
        self.levels = levels
        self.statements: list[Statement] = []
        self.kept: dict[Expression, str] = {}
        self.names: dict[Expression, str] = {}
        self.level = 0
        self.count = 0

    def begin(self, level: int, loops: tuple[str, ...]) -> None:
        """Start a phase: forget everything but results of earlier breaks and what is kept.

        What is loaded for each iteration of its loops is loaded again: it would take a register of every tile.
        """
        self.level = level
        self.statements = []
        kept = {e: name for e, name in self.names.items() if not _moves(e, loops)} if self.keep_tiles else {}
        self.names = kept | self.kept

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

    def store(self, stores: Iterable[Store]) -> None:
        """Write values in this phase."""
        for store in stores:
            value = store.value if isinstance(store.value, float) else self.name(store.value)
            self.statements.append(Statement("vst", arguments=(value,), access=store.access))

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
