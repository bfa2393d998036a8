"""Unrolling a kernel that folds a window: its taps one after the other, for several neighbouring outputs at once.

A fold over a window becomes a chain of operations of which each takes one tap, and a chain of products and sums one of
multiply-adds. Neighbouring outputs are computed together, each in a register of its own, so that what one load brings
serves every output and tap that needs it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from birc.compiler.ir.plan import Dimension, Index, Kernel, Phase, Statement
from birc.compiler.passes.taps_beside import with_taps_beside

FOLDED = {"vfoldsum": "vadd", "vfoldmax": "vmax", "vfoldmin": "vmin", "vfoldprod": "vmul"}
"""The operation of two values that each fold repeats."""
Point = tuple[tuple[str, int], ...]
"""Values of some dimensions, by name."""
Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Unrolling:
    """How a window kernel is unrolled.

    `outputs`: neighbouring outputs computed together, by dimension; a dimension has a whole number of such groups.
    `order`: the dimensions along which the taps' operands are taken, the slowest first. `ahead`: how many loads are
    under way before the one that is needed next. With `fused` products are added by one operation, which only floats
    have. With `once` what is the same for all outputs is loaded in a phase of its own, before the others. The taps
    along `beside`, if that is a dimension, lie side by side in registers.
    """

    outputs: tuple[tuple[str, int], ...]
    order: tuple[str, ...]
    ahead: int
    fused: bool
    once: bool = False
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """The parts of a kernel that folds a window.

    `before` computes `operand`, which is folded, at one tap; where that is a product, `factors` are the two values that
    are multiplied, and `before` computes those only. `after` takes the result of `fold`.
    """

    before: tuple[Statement, ...]
    factors: tuple[str, ...]
    operand: str
    fold: Statement
    after: tuple[Statement, ...]


def window_of(kernel: Kernel, beside: str = "") -> Window | None:
    """The parts of a kernel that is a fold over all its reduced dimensions, and what follows; None for others.

    Nothing else is reduced but the taps that lie `beside` each other.
    """
    if kernel.contraction is not None or len(kernel.phases) != 2 or not kernel.red_dims:
        return None
    first, second = kernel.phases
    *before, fold = first.statements
    if set(first.loops) != {d.name for d in kernel.red_dims} or second.loops or fold.op not in FOLDED:
        return None
    if any(s.op.startswith(("vred", "vfold")) and s.dims != (beside,) for s in (*before, *second.statements)):
        return None
    (operand,) = fold.arguments
    made = {s.result: s for s in before}
    if not isinstance(operand, str):
        return None
    product, uses = made[operand], sum(operand in s.arguments for s in first.statements)
    factors = tuple(a for a in product.arguments if isinstance(a, str))
    if fold.op != "vfoldsum" or product.op != "vmul" or uses != 1 or len(factors) != 2:
        return Window(tuple(before), (), operand, fold, second.statements)
    return Window(tuple(s for s in before if s is not product), factors, operand, fold, second.statements)


def unrolled(kernel: Kernel, window: Window, how: Unrolling) -> Kernel:
    """The kernel unrolled by its window, with taps beside each other already: its reduced dimensions are gone, the
    others count groups of outputs."""
    outputs = dict(how.outputs)
    space = tuple(replace(d, extent=d.extent // outputs.get(d.name, 1)) for d in kernel.par_dims)
    statements = _Unroller(kernel.red_dims, window, how).statements()
    common = [s for s in statements if how.once and s.op == "vld" and not _moving(s) & outputs.keys()]
    own = Phase(tuple(s for s in statements if s not in common))
    phases = (Phase(tuple(common)), own) if common else (own,)
    return with_loads_ahead(replace(kernel, space=space, phases=phases), how.ahead)


def in_window_form(kernel: Kernel, beside: str = "") -> tuple[Kernel, Window] | None:
    """The kernel with the taps along a dimension, if one is named, side by side, and its window; None without one."""
    changed = with_taps_beside(kernel, beside) if beside else kernel
    window = window_of(changed, beside)
    return None if window is None else (changed, window)


def _moving(statement: Statement) -> set[str]:
    """The dimensions along which a load moves."""
    return {name for index in (statement.access.index if statement.access else ()) for name, _ in index.terms}


@dataclass(slots=True)
class _Unroller:
    """Writes the statements of all outputs of a group."""

    taps: tuple[Dimension, ...]
    window: Window
    how: Unrolling
    written: list[Statement] = field(default_factory=list)
    names: dict[Key, str] = field(default_factory=dict)
    loaded: dict[tuple[str, Point], str] = field(default_factory=dict)

    def statements(self) -> list[Statement]:
        """What one group computes, equal values once."""
        start, after = _start(self.window) if self.window.factors and self.how.fused else (None, self.window.after)
        pairs = self._in_order()
        left = Counter(output for output, _ in pairs)
        sums: dict[Point, str | float] = {}
        for output, tap in pairs:
            known: dict[str, str | float] = {}
            self._write_all(self.window.before, (*output, *tap), known)
            if output not in sums and start is not None:
                sums[output] = start if isinstance(start, float) else self._write(start, output, {})
            sums[output] = self._joined(sums.get(output), known)
            left[output] -= 1
            if not left[output]:
                self._write_all(after, output, {self.window.fold.result: sums.pop(output)})
        return self.written

    def _joined(self, total: str | float | None, known: Mapping[str, str | float]) -> str | float:
        """What an output has after a tap, with `total` before; None before the first."""
        factors = tuple(known[name] for name in self.window.factors)
        if factors and total is not None and self.how.fused:
            return self._append(Statement("vfma", "new", (*factors, total)))
        value = self._append(Statement("vmul", "new", factors)) if factors else known[self.window.operand]
        if total is None:
            return value
        return self._append(Statement(FOLDED[self.window.fold.op], "new", (total, value)))

    def _in_order(self) -> list[tuple[Point, Point]]:
        """Every tap of every output, in the order in which their operands are taken."""
        names = {d.name for d in self.taps}
        axes = {
            name: index
            for s in self.window.before
            if s.access is not None
            for index in s.access.index
            if names & {name for name, _ in index.terms}
            for name, _ in index.terms
            if name in self.how.order
        }

        def place(pair: tuple[Point, Point]) -> tuple[int, ...]:
            return tuple(_substituted(axes[name], (*pair[0], *pair[1]), self.how).constant for name in self.how.order)

        return sorted(itertools.product(self._outputs(), self._points(self.taps)), key=place)

    def _outputs(self) -> list[Point]:
        return list(self._points(tuple(Dimension(name, count) for name, count in self.how.outputs)))

    @staticmethod
    def _points(dimensions: tuple[Dimension, ...]) -> Iterator[Point]:
        for values in itertools.product(*(range(d.extent) for d in dimensions)):
            yield tuple(zip((d.name for d in dimensions), values, strict=True))

    def _write_all(self, statements: tuple[Statement, ...], point: Point, known: dict[str, str | float]) -> None:
        for statement in statements:
            name = self._write(statement, point, known)
            if statement.result:
                known[statement.result] = name

    def _write(self, statement: Statement, point: Point, known: Mapping[str, str | float]) -> str:
        """The statement at one point; an equal one is not written again."""
        if statement.op != "vld":
            return self._write_new(statement, point, known)
        moving = _moving(statement)
        place = statement.result, tuple(one for one in point if one[0] in moving)
        if place not in self.loaded:
            self.loaded[place] = self._write_new(statement, point, known)
        return self.loaded[place]

    def _write_new(self, statement: Statement, point: Point, known: Mapping[str, str | float]) -> str:
        arguments = tuple(known[a] if isinstance(a, str) else a for a in statement.arguments)
        access = statement.access
        if access is not None:
            index = tuple(_substituted(i, point, self.how) for i in access.index)
            access = replace(access, index=index)
        new = replace(statement, arguments=arguments, access=access)
        if not statement.result:
            self.written.append(new)
            return ""
        return self._append(new)

    def _append(self, statement: Statement) -> str:
        key = (statement.op, statement.arguments, statement.access, statement.index_axis, statement.index_count)
        if key not in self.names:
            self.names[key] = f"v{len(self.names)}"
            self.written.append(replace(statement, result=self.names[key]))
        return self.names[key]


def _start(window: Window) -> tuple[Statement | float | None, tuple[Statement, ...]]:
    """What a sum can begin with, instead of being added to the finished one, and what then is left to do."""
    total = window.fold.result
    uses = [s for s in window.after if total in s.arguments]
    loads = {s.result: s for s in window.after if s.op == "vld"}
    if len(uses) != 1 or uses[0].op != "vadd" or uses[0].arguments.count(total) != 1:
        return None, window.after
    (other,) = (a for a in uses[0].arguments if a != total)
    if isinstance(other, str) and other not in loads:
        return None, window.after
    is_shared = sum(other in s.arguments for s in window.after) > 1
    initial = loads[other] if isinstance(other, str) else other
    gone = uses[0].result
    rest = tuple(
        replace(s, arguments=tuple(total if a == gone else a for a in s.arguments))
        for s in window.after
        if s is not uses[0] and (is_shared or s is not initial)
    )
    return initial, rest


def _substituted(index: Index, point: Point, how: Unrolling) -> Index:
    """A coordinate at one output of a group and one tap."""
    values, outputs = dict(point), dict(how.outputs)
    constant = index.constant + sum(factor * values.get(name, 0) for name, factor in index.terms)
    terms = tuple(
        (name, factor * outputs.get(name, 1)) for name, factor in index.terms if name in outputs or name not in values
    )
    return Index(terms, constant)


def with_loads_ahead(kernel: Kernel, ahead: int) -> Kernel:
    """An unrolled kernel with each load in front of what needs the load `ahead` places before it."""
    *before, phase = kernel.phases
    loads = [s for s in phase.statements if s.op == "vld"]
    met = issued = 0
    ordered: list[Statement] = []
    for statement in phase.statements:
        if statement.op == "vld":
            met += 1
            continue
        ordered += loads[issued : met + ahead]
        issued = max(issued, min(len(loads), met + ahead))
        ordered.append(statement)
    return replace(kernel, phases=(*before, Phase(tuple(ordered))))
