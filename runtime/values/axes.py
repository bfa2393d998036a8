"""The array axes of a part of a raised kernel: which indices are one axis, how long, in which order.

Tiles are an artefact of the hardware. An index whose step is the whole extent of another, wherever either occurs,
is merged with it: the loops over tiles and the tile's own axis become one long axis of the tensor. What reaches
beyond the bounds of all that is stored is cut off, and the axes get the order of the largest tensor in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from birc.runtime.program import Descriptor
from birc.runtime.values.form import (
    Access,
    Compute,
    Contract,
    Fill,
    Load,
    Operation,
    Product,
    Reduce,
    Store,
    Tile,
    Value,
)
from birc.runtime.values.index_space import CannotRaiseError, IndexSpace

Need = Callable[[int, int, int], None]


# The tensor buffers of two SPCs are further apart than anything inside one.
_BETWEEN_SPCS: Final = 1 << 40
# numpy has 64; a gather needs some of them.
_MOST_DIMENSIONS: Final = 40


@dataclass(slots=True, eq=False)
class Reach:
    """The coordinates of an access over axes: a constant and {axis: coefficient} for each dimension."""

    slot: int
    fill: str
    constants: list[int]
    factors: list[dict[int, int]]

    @property
    def axes(self) -> set[int]:
        return {axis for factors in self.factors for axis in factors}


@dataclass(slots=True)
class Part:
    """Operations that share values, and the axes that they range over.

    `ranges` is the part of each axis that is computed, `order` the axes from the outermost to the innermost;
    `places` says which dimension of the arrays an axis is, in the same order. Axes that no array has in
    common may share one.
    """

    operations: list[Operation]
    extents: dict[int, int] = field(default_factory=dict)
    reaches: dict[int, Reach] = field(default_factory=dict)  # by id of the access
    axes: dict[int, set[int]] = field(default_factory=dict)  # by id of the value
    over: dict[int, set[int]] = field(default_factory=dict)  # by id of the reduction or product
    ranges: dict[int, tuple[int, int]] = field(default_factory=dict)
    order: tuple[int, ...] = ()
    places: tuple[int, ...] = ()

    def reach(self, access: Access) -> Reach:
        return self.reaches[id(access)]

    def axes_of(self, value: Value) -> set[int]:
        """The axes that a value varies with."""
        return self.axes[id(value.array)]

    def axes_of_tile(self, tile: Tile) -> set[int]:
        return self.reach(tile.access).axes

    def summed(self, operation: Reduce | Product) -> set[int]:
        """The axes that a reduction or product sums over."""
        return self.over[id(operation)]

    def groups(self) -> Iterator[set[int]]:
        """Sets of axes of values, tiles, boxes and sums: axes that merge are together in all or none."""
        for reach in self.reaches.values():
            yield reach.axes
        yield from self.axes.values()
        yield from self.over.values()


def parts_of(operations: Sequence[Operation], space: IndexSpace, descriptors: Mapping[int, Descriptor]) -> list[Part]:
    """The raised form cut where no value is alive, each part with its axes."""
    parts = [Part(section) for section in _sections(operations)]
    for part in parts:
        part.operations = _join_reductions(part.operations)
        _resolve(part, space)
        _merge(part)
        _clip(part, descriptors)
        _sort(part, descriptors)
        _place(part)
    return parts


def sources(operation: Operation) -> tuple[Value, ...]:
    """The arrays of the values that an operation reads."""
    match operation:
        case Load():
            values: Iterable[object] = (operation.index,)
        case Compute():
            values = operation.sources
        case Store() | Reduce():
            values = (operation.source,)
        case _:
            values = ()
    return tuple(value.array for value in values if isinstance(value, Value))


def accesses(operation: Operation) -> tuple[Access, ...]:
    """The boxes that an operation loads or stores."""
    match operation:
        case Load() | Store():
            return (operation.access,)
        case Contract():
            return tuple(tile.access for p in operation.products for tile in (p.a, p.b))
        case _:
            return ()


def _sections(operations: Sequence[Operation]) -> list[list[Operation]]:
    last_use = {id(value): at for at, op in enumerate(operations) for value in sources(op)}
    sections: list[list[Operation]] = []
    section: list[Operation] = []
    alive_until = -1
    for at, operation in enumerate(operations):
        section.append(operation)
        if not isinstance(operation, Store):
            alive_until = max(alive_until, last_use.get(id(operation.result), -1))
        if at >= alive_until:
            if any(isinstance(member, Store) for member in section):
                sections.append(section)
            section = []
    return sections


def _join_reductions(operations: list[Operation]) -> list[Operation]:
    """A reduction of nothing but a reduction, as one."""
    uses: dict[int, int] = {}
    for operation in operations:
        for value in sources(operation):
            uses[id(value)] = uses.get(id(value), 0) + 1
    inner: dict[int, Reduce] = {}
    joined: list[Operation] = []
    for operation in operations:
        if isinstance(operation, Reduce) and isinstance(operation.source, Value):
            first = inner.get(id(operation.source.array))
            if first is not None and first.mnemonic == operation.mnemonic and uses[id(first.result)] == 1:
                joined.remove(first)
                over = (*first.over, *operation.over)
                operation = Reduce(operation.mnemonic, operation.result, first.source, over)  # noqa: PLW2901
            inner[id(operation.result)] = operation
        joined.append(operation)
    return joined


def _resolve(part: Part, space: IndexSpace) -> None:
    """Fill in the axes of everything; at first each index that was not cut is one."""
    for operation in part.operations:
        for access in accesses(operation):
            part.reaches[id(access)] = _reach(access, space)
        match operation:
            case Load():
                axes = part.reach(operation.access).axes
                axes |= part.axes_of(operation.index) if operation.index is not None else set()
                part.axes[id(operation.result)] = axes
            case Fill():
                part.axes[id(operation.result)] = set()
            case Compute():
                part.axes[id(operation.result)] = set().union(*map(part.axes_of, sources(operation)))
            case Reduce():
                over = {leaf for index in operation.over for leaf in space.leaves(index)}
                part.over[id(operation)] = over
                part.axes[id(operation.result)] = set().union(*map(part.axes_of, sources(operation))) - over
            case Contract():
                part.axes[id(operation.result)] = _product_axes(part, operation, space)
    for group in part.groups():
        part.extents.update((axis, space.extent(axis)) for axis in group)


def _product_axes(part: Part, operation: Contract, space: IndexSpace) -> set[int]:
    axes = set()
    for product in operation.products:
        over = {leaf for index in product.over for leaf in space.leaves(index)}
        part.over[id(product)] = over
        axes |= (part.axes_of_tile(product.a) | part.axes_of_tile(product.b)) - over
    return axes


def _reach(access: Access, space: IndexSpace) -> Reach:
    factors: list[dict[int, int]] = []
    for coordinate in access.coordinates:
        sums: dict[int, int] = {}
        for index, factor in coordinate.terms:
            for leaf, leaf_factor in space.terms(index, factor):
                sums[leaf] = sums.get(leaf, 0) + leaf_factor
        factors.append({leaf: factor for leaf, factor in sums.items() if factor})
    return Reach(access.slot, access.fill, [c.constant for c in access.coordinates], factors)


def _merge(part: Part) -> None:
    """Merge axes until none can be."""
    pending = list(part.extents)
    while pending:
        inner = pending.pop()
        outer = _merging(part, inner)
        if outer is None:
            continue
        part.extents[inner] *= part.extents.pop(outer)
        for group in (*part.axes.values(), *part.over.values()):
            group.discard(outer)
        for reach in part.reaches.values():
            for factors in reach.factors:
                factors.pop(outer, None)
        # Others may fit the longer axis now.
        pending = list(part.extents)


def _merging(part: Part, inner: int) -> int | None:
    """An axis whose step is the extent of `inner` everywhere."""
    extent = part.extents[inner]
    factors = next((f for reach in part.reaches.values() for f in reach.factors if inner in f), None)
    if factors is None:
        return None
    wanted = factors[inner] * extent
    for outer, factor in factors.items():
        if factor == wanted and outer != inner and _together(part, outer, inner, extent):
            return outer
    return None


def _together(part: Part, outer: int, inner: int, extent: int) -> bool:
    for reach in part.reaches.values():
        for factors in reach.factors:
            if factors.get(outer, 0) != factors.get(inner, 0) * extent:
                return False
    return all((outer in group) == (inner in group) for group in (*part.axes.values(), *part.over.values()))


def _clip(part: Part, descriptors: Mapping[int, Descriptor]) -> None:
    """Find the range of each axis that can change what is stored."""
    needed: dict[int, tuple[int, int]] = {}

    def need(axis: int, low: int, high: int) -> None:
        old = needed.get(axis, (low, high))
        needed[axis] = (min(low, old[0]), max(high, old[1]))

    for operation in part.operations:
        match operation:
            case Store():
                axes = part.reach(operation.access).axes
                _need_inside(part, operation.access, descriptors, axes, need, dropped=True)
            case Reduce():
                for axis in part.summed(operation):
                    need(axis, 0, part.extents[axis])
            case Contract():
                for product in operation.products:
                    summed = part.summed(product)
                    tiles = [(tile, part.axes_of_tile(tile)) for tile in (product.a, product.b)]
                    for tile, axes in tiles:
                        _need_inside(part, tile.access, descriptors, summed & axes, need, dropped=False)
                    for axis in summed:
                        if not all(axis in axes for _, axes in tiles):
                            need(axis, 0, part.extents[axis])
    for axis, extent in part.extents.items():
        low, high = needed.get(axis, (0, extent))
        part.ranges[axis] = (low, high) if low < high else (0, 1)


def _need_inside(
    part: Part,
    access: Access,
    descriptors: Mapping[int, Descriptor],
    axes: set[int],
    need: Need,
    *,
    dropped: bool,
) -> None:
    """Need of `axes` what is in bounds of an access, where that depends on the one axis alone.

    Outside, elements are zero, or `dropped`.
    """
    reach = part.reach(access)
    inside: dict[int, tuple[int, int]] = {}
    if dropped or access.fill == "zero":
        descriptor = descriptors[access.slot]
        bounds = zip(reach.constants, reach.factors, descriptor.lower, descriptor.dims, strict=False)
        for constant, factors, low, dim in bounds:
            if len(factors) == 1:
                ((axis, factor),) = factors.items()
                if sum(axis in other for other in reach.factors) == 1:
                    inside[axis] = range_inside(constant - low, factor, part.extents[axis], dim)
    for axis in axes:
        need(axis, *inside.get(axis, (0, part.extents[axis])))


def range_inside(start: int, step: int, extent: int, dim: int) -> tuple[int, int]:
    """The half-open range of i in 0:extent with 0 <= start + i * step < dim; (0, 0) when there is none."""
    if step < 0:
        start, step = dim - 1 - start, -step
    first = max(0, -(start // step))
    end = min(extent, -((start - dim) // step))
    return (first, end) if first < end else (0, 0)


def _sort(part: Part, descriptors: Mapping[int, Descriptor]) -> None:
    """Order the axes by their steps in memory: of the largest store first, of other accesses for the rest."""
    stores = [operation.access for operation in part.operations if isinstance(operation, Store)]
    others = [access for op in part.operations for access in accesses(op) if access not in stores]
    steps: dict[int, int] = {}
    for access in sorted(stores, key=lambda entry: -_elements(part, entry)) + others:
        reach, descriptor = part.reach(access), descriptors[access.slot]
        for axis in reach.axes - steps.keys():
            strides = zip(reach.factors, (*descriptor.strides, _BETWEEN_SPCS), strict=False)
            steps[axis] = abs(sum(factors.get(axis, 0) * stride for factors, stride in strides))
    part.order = tuple(sorted(part.extents, key=lambda axis: (-steps.get(axis, 0), axis)))


def _place(part: Part) -> None:
    """Give each axis the first dimension behind those of the outer axes that it meets in an array."""
    meets: dict[int, set[int]] = {axis: set() for axis in part.order}
    for operation in part.operations:
        for together in _meetings(part, operation):
            for axis in together:
                meets[axis] |= together
    places: dict[int, int] = {}
    for axis in part.order:
        outer = (places[other] for other in meets[axis] if other in places)
        places[axis] = 1 + max(outer, default=-1)
    part.places = tuple(places[axis] for axis in part.order)
    if max(part.places, default=0) >= _MOST_DIMENSIONS:
        raise CannotRaiseError("arrays of too many dimensions")


def _meetings(part: Part, operation: Operation) -> Iterator[set[int]]:
    """Sets of axes that are dimensions of arrays together.

    The depths of the products that a contraction adds up are not: each product has its own.
    """
    match operation:
        case Contract():
            yield part.axes_of(operation.result)
            for product in operation.products:
                yield part.axes_of_tile(product.a) | part.axes_of_tile(product.b) | part.summed(product)
        case _:
            axes = set().union(*map(part.axes_of, sources(operation)))
            axes = axes.union(*(part.reach(access).axes for access in accesses(operation)))
            yield axes | part.summed(operation) if isinstance(operation, Reduce) else axes


def _elements(part: Part, access: Access) -> int:
    count = 1
    for axis in part.reach(access).axes:
        count *= part.extents[axis]
    return count
