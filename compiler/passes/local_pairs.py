"""Pairs of kernels between which a tensor stays in the tensor buffers: every SPC makes the part that it then reads.

Of a product and of what follows it on the vector cores, a depthwise convolution for one, each SPC takes the same
samples, and of these the same columns or rows of the image. Then no barrier of the die is needed between the two, and
the second kernel loads from a memory that is nearer than L2 and has a port of its own. Rows that the windows of two
SPCs reach are made on both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from birc.compiler.ir.plan import Access, Buffer, Kernel, KernelStep, Plan
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.region import region
from birc.compiler.passes.allocation.blocks import aligned
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.lifetimes import instances, reads_of, touched, writes_of
from birc.compiler.passes.lower.frame import unit
from birc.compiler.passes.own_parts import Bands, Parts, in_own_parts
from birc.runtime.dtypes import dtype
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine

MOST_BEYOND = 1.2
"""How many rows of an image an SPC may make for each of its own: the windows of neighbours need the same ones."""
LARGEST = 0.65
"""Share of an SPC's memory that what stays there may take: the rest is L2."""
ROWS_TOGETHER = 4
"""Rows that are made are a multiple of it, so that tiles come out even."""

Cycles = Callable[[Kernel, Memories], int]
"""The cycles of a kernel that is not tiled yet, by its best tiling."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two steps with a tensor between them that lies in the tensor buffers, and the cycles that this gains."""

    first: KernelStep
    second: KernelStep
    buffer: Buffer
    gain: int


def local_pairs(plan: Plan, machine: Machine, cycles: Cycles) -> Plan | None:
    """The plan with the pairs that gain time; None when there are none, or it uses the tensor buffers already."""
    if plan.tensor_buffer_bytes:
        return None
    users: dict[str, list[int]] = {}
    for number, step in enumerate(plan.steps):
        for name in touched(step):
            users.setdefault(name, []).append(number)
    buffers = {b.name: b for b in plan.buffers}
    search = _Search(machine, cycles, {b.name: b.dtype for b in plan.buffers})
    steps, number, largest = list(plan.steps), 0, 0
    while number + 1 < len(steps):
        first, second = steps[number : number + 2]
        best: _Pair | None = None
        if isinstance(first, KernelStep) and isinstance(second, KernelStep):
            between = [
                buffers[name] for name in touched(first) & touched(second) if users[name] == [number, number + 1]
            ]
            best = search.best(first, second, between)
        if best is None:
            number += 1
            continue
        steps[number : number + 2] = [best.first, best.second]
        buffers[best.buffer.name] = best.buffer
        largest = max(largest, aligned(best.buffer.num_bytes, machine.l2_line_bytes))
        number += 2
    if not largest:
        return None
    return replace(
        plan, steps=tuple(steps), buffers=tuple(buffers[b.name] for b in plan.buffers), tensor_buffer_bytes=largest
    )


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks for pairs in one plan, whose buffers have these element types."""

    machine: Machine
    cycles: Cycles
    types: Mapping[str, str]

    def best(self, first: KernelStep, second: KernelStep, between: list[Buffer]) -> _Pair | None:
        """The fastest way to keep one of the tensors between two steps local; None when that gains nothing."""
        ways = [
            pair
            for buffer in between
            if buffer.role == "scratch" and buffer.space != "tb"
            for pair in self._pairs(first, second, buffer)
        ]
        return max((pair for pair in ways if pair.gain > 0), key=lambda pair: pair.gain, default=None)

    def _pairs(self, first: KernelStep, second: KernelStep, buffer: Buffer) -> Iterator[_Pair]:
        if [k is None for k in first.kernels] != [k is None for k in second.kernels]:
            return
        if second.kernel.contraction is not None or buffer.name not in writes_of(first.kernel) & reads_of(
            second.kernel
        ):
            return
        for of_first, of_second in _ways(first.kernel, second.kernel, buffer, self.machine):
            made = _in_parts(first, of_first, buffer.name)
            read = _in_parts(second, of_second, buffer.name)
            if made is None or read is None:
                continue
            elements = max(_reached(step, buffer.name) for step in (made, read))
            num_bytes = elements * dtype(buffer.dtype).bits // 8
            if aligned(num_bytes, self.machine.l2_line_bytes) > LARGEST * self.machine.spc_sram_bytes:
                continue
            try:
                taken = self._most(made, buffer.name) + self._most(read, buffer.name)
            except DoesNotFitError:
                continue
            local = replace(buffer, num_bytes=num_bytes, space="tb")
            before = self._most(first, "") + self._most(second, "") + self.machine.die_barrier_cycles
            yield _Pair(made, read, local, before - taken - self.machine.spc_barrier_cycles)

    def _most(self, step: KernelStep, local: str) -> int:
        """The cycles of the slowest of a step's kernels."""
        memories = Memories(self.types, frozenset({local} if local else ()))
        return max(self.cycles(kernel, memories) for kernel in dict.fromkeys(instances(step)))


def _reached(step: KernelStep, name: str) -> int:
    """The elements of a buffer up to the last one that a step reaches."""
    views = [access.view for kernel in instances(step) for access in accesses(kernel)]
    return max(region(view).end for view in views if view.buffer == name)


def _in_parts(step: KernelStep, parts: Parts, local: str) -> KernelStep | None:
    """The step with a part an SPC; None when one of its kernels cannot be cut so."""
    kernels = [kernel and in_own_parts(kernel, parts, local) for kernel in step.kernels]
    if any(made is None and kernel is not None for made, kernel in zip(kernels, step.kernels, strict=True)):
        return None
    return KernelStep(tuple(kernels))


def _ways(first: Kernel, second: Kernel, buffer: Buffer, machine: Machine) -> Iterator[tuple[Parts, Parts]]:
    """The parts of both kernels that may go together: of the tensor between them each SPC then has the same.

    They are as many parts of the samples as there can be, and of these columns, or bands of rows.
    """
    made = [access for access in accesses(first) if access.view.buffer == buffer.name]
    read = [access for access in accesses(second) if access.view.buffer == buffer.name]
    if len(made) != 1:
        return
    columns, column = _along(second, read[0], 1)
    same, of_first = _along(first, made[0], 1)
    pitch = math.gcd(*(step for access in (*made, *read) for step in access.view.strides if step > 1))
    if (
        not pitch
        or not column
        or not of_first
        or columns != same
        or any(_along(second, a, 1) != (columns, column) for a in read)
    ):
        return
    elements = _rows(buffer, pitch) * pitch
    row, row_of_first = _outermost(second, read[0], elements), _outermost(first, made[0], elements)
    if not row_of_first or any(_outermost(second, access, elements) != row for access in read):
        row = ""
    most, rows = machine.spcs_per_die, 1
    if row:
        samples = math.gcd(second.dimension(row).extent, first.dimension(row_of_first).extent)
        rows = max(n for n in range(1, most + 1) if samples % n == 0)
    number = max(n for n in range(1, most // rows + 1) if columns % n == 0)
    whole = Parts(row_of_first, rows, of_first, 1, pitch), Parts(row, rows, column, 1, pitch)
    if rows * number > 1:
        yield replace(whole[0], columns=number), replace(whole[1], columns=number)
    if not row or rows == second.dimension(row).extent:
        for of_first_bands, bands in _bands(first, second, (made[0], *read), most // rows, elements // rows):
            yield replace(whole[0], bands=of_first_bands), replace(whole[1], bands=bands)


def _bands(
    first: Kernel, second: Kernel, reached: Sequence[Access], most: int, elements: int
) -> Iterator[tuple[Bands, Bands]]:
    """Bands of rows, as many as there can be, of what the first kernel makes for them, and of what the second one does.

    `reached` are their accesses to the images between them, of so many elements each.
    """
    made, *read = reached
    reduced = {d.name: d.extent for d in second.red_dims}
    for place, index in enumerate(read[0].index):
        (own,) = [term for term in index.terms if term[0] not in reduced] or [("", 0)]
        reach = 1 + sum(factor * (reduced[name] - 1) for name, factor in index.terms if name in reduced)
        extent, stride = read[0].view.dims[place], read[0].view.strides[place]
        name, width = _rows_of(first, made, stride, extent)
        if (
            stride * extent != elements
            or len(index.terms) < 2
            or not name
            or any(index not in access.index for access in read)
        ):
            continue
        total = second.dimension(own[0]).extent
        count = max(n for n in range(1, most + 1) if total % n == 0)
        share = total // count
        needed = -(-(own[1] * (share - 1) + reach) // ROWS_TOGETHER) * ROWS_TOGETHER
        before = max(0, -index.constant)
        after = max(0, own[1] * (total - share) + index.constant + needed - extent)
        if count > 1 and needed <= MOST_BEYOND * own[1] * share:
            of_first = (own[1] * share, needed, index.constant, before, after)
            yield (
                Bands(name, count, *(rows * width for rows in of_first)),
                Bands(own[0], count, share, share, 0, before, after),
            )
            return


def _rows_of(kernel: Kernel, access: Access, stride: int, extent: int) -> tuple[str, int]:
    """The dimension that moves an access over images of so many rows, and the points of it in a row; "" for none."""
    for index, dim, step in zip(access.index, access.view.dims, access.view.strides, strict=True):
        width = stride // step if step and not stride % step else 0
        for d in kernel.par_dims:
            if width and index == unit(d.name) and dim == d.extent and not dim % (extent * width):
                return d.name, width
    return "", 0


def _along(kernel: Kernel, access: Access, stride: int) -> tuple[int, str]:
    """The extent and the name of the dimension that alone moves an access by so many elements; "" when none does."""
    for index, dim, step in zip(access.index, access.view.dims, access.view.strides, strict=True):
        for d in kernel.par_dims:
            if index == unit(d.name) and step == stride and dim == d.extent:
                return d.extent, d.name
    return 0, ""


def _rows(buffer: Buffer, pitch: int) -> int:
    """The rows of a tensor, of which the last one may lack what is in none of its columns."""
    return -(-buffer.num_bytes * 8 // (dtype(buffer.dtype).bits * pitch))


def _outermost(kernel: Kernel, access: Access, elements: int) -> str:
    """The dimension that alone moves an access over all of a tensor, part after part; "" when there is none."""
    for index, dim, step in zip(access.index, access.view.dims, access.view.strides, strict=True):
        for d in kernel.par_dims:
            if index == unit(d.name) and dim == d.extent and step * dim == elements:
                return d.name
    return ""
