"""The least work of a lowered graph: T-core cycles and bytes that have to move, whatever the schedule.

A mapping cuts every contraction into operations of the T-core. Each multiplies a block of `a` (rows x depth) by a
block of `b` (depth x columns); rows, columns and depth are any of the contraction's, its batch, row and pixel
dimensions flattened, and every product of elements inside the tensors is computed once. docs/timing.md derives the
formulas.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from birc.compiler.ir.plan import PAR, Access, Contraction, Index, Kernel
from birc.compiler.ir.plan_panels import panel_span
from birc.compiler.passes.bounds_values import coordinates, is_inside
from birc.compiler.passes.lower.lower import Lowered
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine, TcoreFormat

MOST_POINTS = 1 << 22
"""Points of dimensions that share a coordinate beyond which a contraction is not counted."""

Counts = Counter[int]
"""How often a number occurs."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The dimensions of a contraction: in `a` alone, in `b` alone, in both, reduced; what is in neither is computed
    once."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    batch: tuple[str, ...]
    depth: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TcoreWork:
    """What a contraction takes of the T-core: cycles of its operations, and output tiles. Real numbers: least ones.

    `part` are the roles of its dimensions, `least_tile_cycles` the cycles of the operations of any one tile, with one
    of its panels; `always` tells whether every output has at least one product of elements inside the tensors, of
    each panel.
    """

    part: Roles
    operation_cycles: float
    tiles: float
    least_tile_cycles: int
    always: bool = True

    def cycles(self, machine: Machine) -> float:
        """Cycles on one SPC: between two tiles the only accumulator passes from the array to a vector program."""
        return self.operation_cycles + self.tiles * machine.tile_gap_cycles()


def roles(kernel: Kernel, contraction: Contraction) -> Roles:
    """Which operand moves along which dimension."""
    by_a = frozenset().union(*map(moving, contraction.panels))
    by_b = moving(contraction.b)
    par = [d.name for d in kernel.space if d.kind == PAR]
    return Roles(
        tuple(name for name in par if name in by_a and name not in by_b),
        tuple(name for name in par if name in by_b and name not in by_a),
        tuple(name for name in par if name in by_b and name in by_a),
        tuple(d.name for d in kernel.red_dims),
    )


def moving(access: Access) -> frozenset[str]:
    """The dimensions along which an access reaches other elements."""
    pairs = zip(access.index, access.view.strides, strict=True)
    return frozenset(name for index, stride in pairs if stride for name, factor in index.terms if factor)


def tcore_work(kernel: Kernel, contraction: Contraction, machine: Machine) -> TcoreWork:
    """The least cycles of the operations of a contraction, and the least tiles."""
    form = machine.format(contraction.format)
    part = roles(kernel, contraction)
    blocks = _blocks(kernel, contraction)
    if blocks is None:
        return TcoreWork(part, 0.0, 0.0, 0, always=False)
    rows, columns = machine.tcore_rows, machine.tcore_cols
    # In `a` (rows x depth), every element in use meets every column in use, 64 in one place of an operation.
    by_column = sum(n * -(-used // columns) for used, n in _histogram(kernel, part, blocks, part.columns).items())
    by_row = sum(n * -(-used // rows) for used, n in _histogram(kernel, part, blocks, part.rows).items())
    depths = _histogram(kernel, part, blocks, part.depth)
    by_output = sum(n * _rounded(used, form) for used, n in depths.items())
    slots = max(by_column / rows, by_row / columns, by_output / (rows * columns))
    outputs = sum(n for used, n in depths.items() if used)
    always = 0 not in depths
    tiles = outputs / (rows * columns)
    if always:
        height, width, batch = (_size(kernel, names) for names in (part.rows, part.columns, part.batch))
        tiles = max(tiles, batch * height * -(-width // columns) / rows, batch * width * -(-height // rows) / columns)
    area, rate = rows * columns, form.macs_per_cycle_per_spc
    widths = [end - begin for begin, end in map(panel_span, contraction.panels)] if contraction.further else []
    least = min((used for used in (*depths, *widths) if used), default=0)
    return TcoreWork(part, slots * area / rate, tiles, -(-area * _rounded(least, form) // rate), always)


def _rounded(depth: int, form: TcoreFormat) -> int:
    return -(-depth // form.k_unit) * form.k_unit


def _size(kernel: Kernel, names: Iterable[str]) -> int:
    return math.prod(kernel.dimension(name).extent for name in names)


@dataclass(frozen=True, slots=True)
class _Block:
    """Dimensions that share a coordinate which may lie outside its tensor: at which of their points it is inside."""

    names: tuple[str, ...]
    inside: np.ndarray


def _blocks(kernel: Kernel, contraction: Contraction) -> list[_Block] | None:
    """The blocks of both operands, disjoint in their dimensions; None when one has too many points to count."""
    extents = {d.name: d.extent for d in kernel.space}
    clipped = [
        (tuple(sorted(name for name, factor in index.terms if factor)), index, low, high)
        for index, low, high in _coordinates(contraction)
        if not is_inside(index, low, high, extents)
    ]
    groups: list[tuple[set[str], list[tuple[Index, int, int]]]] = []
    for names, index, low, high in clipped:
        joined, members = set(names), [(index, low, high)]
        for other in [g for g in groups if g[0] & joined]:
            groups.remove(other)
            joined |= other[0]
            members += other[1]
        groups.append((joined, members))
    if any(math.prod(extents[name] for name in names) > MOST_POINTS for names, _ in groups):
        return None
    return [_Block(tuple(sorted(names)), _inside(sorted(names), members, extents)) for names, members in groups]


def _coordinates(contraction: Contraction) -> Iterator[tuple[Index, int, int]]:
    """The coordinates of both operands, which are 0 outside; panels side by side have one depth together."""
    if not contraction.further:
        for access in (contraction.a, contraction.b):
            yield from coordinates(access) if access.fill == "zero" else ()
        return
    for panel in contraction.panels:
        yield from list(coordinates(panel))[: contraction.rows]
    yield contraction.a.index[-1], 0, sum(panel.view.dims[-1] for panel in contraction.panels)
    yield from coordinates(contraction.b)


def _inside(names: list[str], members: Iterable[tuple[Index, int, int]], extents: Mapping[str, int]) -> np.ndarray:
    grid = {name: np.arange(extents[name]) for name in names}
    shape = tuple(extents[name] for name in names)
    inside = np.ones(shape, bool)
    for index, low, high in members:
        coordinate = np.full(shape, index.constant)
        for name, factor in index.terms:
            coordinate += factor * grid[name].reshape([-1 if other == name else 1 for other in names])
        inside &= (low <= coordinate) & (coordinate < high)
    return inside


def _histogram(kernel: Kernel, part: Roles, blocks: Iterable[_Block], counted: tuple[str, ...]) -> Counts:
    """For every point of the other dimensions the number of points of `counted` that are inside, as a histogram."""
    names = {*part.rows, *part.columns, *part.batch, *part.depth}
    free = names - {name for block in blocks for name in block.names}
    product: Counts = Counter(
        {_size(kernel, (n for n in free if n in counted)): _size(kernel, (n for n in free if n not in counted))}
    )
    for block in blocks:
        axes = tuple(axis for axis, name in enumerate(block.names) if name in counted)
        found = np.atleast_1d(block.inside.sum(axis=axes) if axes else block.inside.astype(np.int64))
        values, times = np.unique(found, return_counts=True)
        grown: Counts = Counter()
        for value, number in zip(values.tolist(), times.tolist(), strict=True):
            for other, n in product.items():
                grown[other * value] += n * number
        product = grown
    return product


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of constants and inputs that kernels read, and of outputs: each counted once."""

    read: int
    written: int


def traffic(lowered: Lowered) -> Traffic:
    """What has to come from HBM and what has to go there."""
    buffers = {b.name: b for b in lowered.buffers}
    spans: dict[str, list[tuple[int, int, int]]] = {}
    gathered: Counter[str] = Counter()
    for kernel in lowered.kernels:
        extents = {d.name: d.extent for d in kernel.space}
        for access, rows in _reads(kernel):
            buffer = buffers[access.view.buffer]
            if buffer.role not in ("input", "constant"):
                continue
            bits = dtype(access.view.seen or buffer.dtype).bits
            if rows:
                gathered[buffer.name] += rows * bits // 8
            else:
                first, end, count = _reach(access, extents)
                spans.setdefault(buffer.name, []).append((first, end, count * bits // 8))
    read = sum(_apart(found) for found in spans.values())
    read += sum(min(buffers[n].num_bytes, size) for n, size in gathered.items() if n not in spans)
    views = {view.buffer: view for view in lowered.outputs.values()}
    written = sum(math.prod(view.dims) * dtype(buffers[name].dtype).bits // 8 for name, view in views.items())
    return Traffic(read, written)


def _reads(kernel: Kernel) -> Iterator[tuple[Access, int]]:
    """Every access that reads; of those at indices the elements that they read, of the others 0."""
    if kernel.contraction is not None:
        yield from ((access, 0) for access in kernel.contraction.operands)
    for phase in kernel.phases:
        for s in phase.statements:
            if s.access is not None and s.op != "vst":
                yield s.access, math.prod(d.extent for d in kernel.par_dims) if s.op == "vldx" else 0


def _reach(access: Access, extents: Mapping[str, int]) -> tuple[int, int, int]:
    """First element and end of what an access reaches, and how many different ones it reaches at least."""
    view = access.view
    axes = []
    offset = view.offset
    for (index, low, high), stride in zip(coordinates(access), view.strides, strict=True):
        taken = _values(index, extents)
        taken = taken[(low <= taken) & (taken < high)]
        if not len(taken):
            return view.offset, view.offset, 0
        first, last = int(taken[0]), int(taken[-1])
        offset += min(first * stride, last * stride)
        step = int(np.diff(taken).min()) if len(taken) > 1 else 0
        axes.append((step * abs(stride), (last - first) * abs(stride), len(taken), index))
    span, count, met = 0, 1, set[str]()
    for step, reach, number, index in sorted(axes, key=lambda axis: axis[0]):
        names = {name for name, _ in index.terms}
        if step > span and not names & met:  # Further apart than all before: no element is met twice.
            count *= number
        span += reach
        met |= names
    return offset, offset + span + 1, count


def _values(index: Index, extents: Mapping[str, int]) -> np.ndarray:
    """The values that a coordinate takes, rising."""
    found = np.array([index.constant])
    for number, (name, factor) in enumerate(index.terms):
        sums = np.add.outer(found, factor * np.arange(extents[name]))
        found = np.unique(sums) if number or factor <= 0 else sums[0]
    return found


def _apart(spans: Iterable[tuple[int, int, int]]) -> int:
    """Bytes of reads, of those that overlap only the largest."""
    total = largest = reached = 0
    for first, end, size in sorted(spans):
        if first >= reached:
            total, largest = total + largest, 0
        largest, reached = max(largest, size), max(reached, end)
    return total + largest
