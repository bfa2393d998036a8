"""What a kernel's instructions touch: each access with the loops around it, as conditions on iteration points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from birc.compiler.ir.affine import Range, box, constant, total, variable, weighted
from birc.compiler.ir.plan import Access, Index, Kernel, Statement, Tiling
from birc.compiler.ir.plan_forms import index_text
from birc.compiler.ir.plan_spread import Spread, spreads
from birc.compiler.ir.plan_verify_kernel import bounds

DATA = "(data)"
"""The variable for an index that data gives, of which only the range is known."""
_PATCH = "(patch) "
"""Before the name of a tap: the variable for the pixels that a patch has for it."""
_SPC = "(spc) "
"""Before the name of a dimension: the variable that numbers its shares."""
_DEAL = "(deal) "
"""Before the name of a dimension: the variable that numbers its deals."""


@dataclass(frozen=True, slots=True)
class Touch:
    """An access, and the dimensions whose loops are around it.

    `owner` is the operand ("a", "b") or the op it belongs to, `phase` the number of its phase, -1 of an operand.
    `parallel` are the dimensions whose points may run in any order, `varies` those along which a stored value differs,
    `indexed` the axis and the number of indices of an indexed load. A load that brings a patch for all taps brings as
    many pixels in a row of each tap as `patch` says, also those between two taps.
    """

    owner: str
    access: Access
    phase: int
    loops: tuple[str, ...]
    parallel: frozenset[str]
    varies: frozenset[str] = frozenset()
    indexed: tuple[int, int] | None = None
    patch: tuple[tuple[str, int], ...] = ()

    @property
    def stores(self) -> bool:
        """Whether the access writes."""
        return self.owner == "vst"

    @property
    def moved(self) -> tuple[str, ...]:
        """The dimensions that the access moves along, in order of its axes."""
        return tuple(dict.fromkeys(name for index in self.access.index for name, factor in index.terms if factor))

    @property
    def coordinates(self) -> tuple[Index, ...]:
        """The coordinate on each axis; on the axis of an indexed load an index from data is added."""
        axis = self.indexed[0] if self.indexed is not None else None
        return tuple(
            total(self._patched(index), variable(DATA)) if number == axis else total(self._patched(index))
            for number, index in enumerate(self.access.index)
        )

    def _patched(self, index: Index) -> Index:
        """The coordinate with single pixels of a patch in place of taps."""
        taps = dict(self.patch)
        terms = ((_PATCH + name, 1) if name in taps else (name, factor) for name, factor in index.terms)
        return Index(tuple(terms), index.constant)

    @property
    def data(self) -> tuple[Range, ...]:
        """The ranges of what is no dimension: an index from data, the pixels of a patch."""
        pixels = tuple(Range(variable(_PATCH + name), 0, extent) for name, extent in self.patch)
        return (*pixels, Range(variable(DATA), 0, self.indexed[1])) if self.indexed is not None else pixels

    @property
    def element(self) -> Index:
        """The element of the buffer."""
        return weighted(self.coordinates, self.access.view.strides, self.access.view.offset)

    @property
    def inside(self) -> tuple[Range, ...]:
        """The conditions that all coordinates are inside the view."""
        pairs = zip(self.coordinates, bounds(self.access.view), strict=True)
        return tuple(Range(coordinate, low, end) for coordinate, (low, end) in pairs)

    def __str__(self) -> str:
        place = ", ".join(index_text(index) for index in self.access.index)
        return f"{self.owner} %{self.access.view.buffer}[{place}]"


@dataclass(frozen=True)
class Space:
    """The iteration space of a tiled kernel, and what is touched in it."""

    kernel: Kernel
    tiling: Tiling

    @cached_property
    def spreads(self) -> Mapping[str, Spread]:
        """How each dimension is shared out."""
        return spreads(self.kernel, self.tiling)

    @cached_property
    def touches(self) -> tuple[Touch, ...]:
        """Every access: the operands of a contraction, then those of the statements in order."""
        return (*_operands(self.kernel, self.tiling), *_statements(self.kernel))

    def taps_of(self, touch: Touch) -> tuple[str, ...]:
        """The dimensions over which windows move on the patch that an access loads."""
        return self.tiling.taps if touch.owner == "a" else ()

    def within(self, names: tuple[str, ...], beyond: bool = False) -> tuple[Range, ...]:
        """The conditions that points are in the space; with `beyond` also those that tiles reach beyond it."""
        known = {name: self.spreads[name] for name in names}
        return box({name: spread.reached if beyond else spread.extent for name, spread in known.items()})

    def distinct(self, touch: Touch) -> tuple[str, ...]:
        """The dimensions whose points the touch tells apart.

        It moves along them, a loop repeats it for them, or the value that it stores has something else for each.
        """
        repeated = (name for name in touch.loops if self.spreads[name].tiles > 1 or name in touch.varies)
        return tuple(dict.fromkeys((*touch.moved, *repeated)))

    def spc(self, beyond: bool = False) -> tuple[Index, tuple[Range, ...]]:
        """The number of the SPC that runs a point, and the conditions that tie it to the point.

        The first dimension moves it most; a dimension that is not spread has no part in it.
        """
        number = constant(0)
        conditions: list[Range] = []
        for dimension in self.kernel.par_dims:
            spread = self.spreads[dimension.name]
            if spread.spcs == 1:
                continue
            share = variable(_SPC + dimension.name)
            number = weighted((number, share), (spread.spcs, 1))
            conditions += taken(variable(dimension.name), spread, share, variable(_DEAL + dimension.name))
            conditions += self.within((dimension.name,), beyond)
        return number, tuple(conditions)


def taken(point: Index, spread: Spread, share: Index, deal: Index) -> tuple[Range, ...]:
    """The conditions that a point is in the share of a number, at the deal of a number."""
    place = weighted((point, share), (1, -spread.hand))
    if spread.deals == 1:
        return Range(share, 0, spread.spcs), Range(place, 0, spread.hand)
    later = weighted((place, deal), (1, -spread.dealt))
    return Range(share, 0, spread.spcs), Range(deal, 0, spread.deals), Range(later, 0, spread.hand)


def _operands(kernel: Kernel, tiling: Tiling) -> Iterator[Touch]:
    if kernel.contraction is None:
        return
    a = kernel.contraction.a
    terms = {name: factor for index in a.index for name, factor in index.terms}
    patch = tuple((name, 1 + abs(terms.get(name, 0)) * (kernel.dimension(name).extent - 1)) for name in tiling.taps)
    loops = tuple(d.name for d in kernel.space)
    parallel = frozenset(d.name for d in kernel.par_dims)
    yield from (Touch("a", panel, -1, loops, parallel, patch=patch) for panel in kernel.contraction.panels)
    yield Touch("b", kernel.contraction.b, -1, loops, parallel)


def _statements(kernel: Kernel) -> Iterator[Touch]:
    looped = {name for phase in kernel.phases for name in phase.loops}
    outer = tuple(d.name for d in kernel.par_dims if d.name not in looped)
    varies = _varying(kernel)
    for number, phase in enumerate(kernel.phases):
        # A phase that folds runs its loops in order, so that its folds can accumulate.
        folds = any(statement.op.startswith("vfold") for statement in phase.statements)
        parallel = frozenset(outer if folds else (*outer, *phase.loops))
        for statement in phase.statements:
            if statement.access is None:
                continue
            indexed = (statement.index_axis, statement.index_count) if statement.op == "vldx" else None
            stored = _arguments(statement, varies) if statement.op == "vst" else frozenset()
            loops = (*outer, *phase.loops)
            yield Touch(statement.op, statement.access, number, loops, parallel, stored, indexed)


def _varying(kernel: Kernel) -> dict[str, frozenset[str]]:
    """The par dimensions along which each value differs: those that its operands are loaded along, not reduced."""
    par = frozenset(dimension.name for dimension in kernel.par_dims)
    found: dict[str, frozenset[str]] = {}
    for phase in kernel.phases:
        for statement in phase.statements:
            along = _arguments(statement, found)
            if statement.op == "vacc":
                along = par
            if statement.access is not None:
                along |= par & {name for index in statement.access.index for name, factor in index.terms if factor}
            if statement.result:
                found[statement.result] = along - frozenset(statement.dims)
    return found


def _arguments(statement: Statement, varies: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The dimensions along which one of the arguments differs."""
    names = (argument for argument in statement.arguments if isinstance(argument, str))
    return frozenset().union(*(varies.get(name, frozenset()) for name in names))
