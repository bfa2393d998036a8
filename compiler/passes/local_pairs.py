"""Pairs of kernels between which tensors stay in the tensor buffers: every SPC makes the part that it then reads.

Of a product and of what follows it on the vector cores, a depthwise convolution for one, each SPC takes the same
samples, and of these the same columns or rows of the image. Then no barrier of the die is needed between the two, and
the second kernel loads from a memory that is nearer than L2 and has a port of its own. Rows that the windows of two
SPCs reach are made on both. Of a product and of what it reads, the shares of an attention for one, each SPC takes the
same heads or rows (own_products.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from birc.compiler.ir.plan import Access, Buffer, Kernel, KernelStep, Plan, Step
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.region import region
from birc.compiler.passes.allocation.blocks import aligned
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.lifetimes import instances, reads_of, touched, users, writes_of
from birc.compiler.passes.lower.frame import unit
from birc.compiler.passes.own_parts import Bands, Parts, in_own_parts
from birc.compiler.passes.own_products import in_own_products, stored_twice, ways
from birc.compiler.passes.schedule import redirect
from birc.runtime.dtypes import dtype
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK

MOST_BEYOND = 1.2
"""How many rows of an image an SPC may make for each of its own: the windows of neighbours need the same ones."""
LARGEST = 0.65
"""Share of an SPC's memory that what stays there may take: the rest is L2."""
ROWS_TOGETHER = 4
"""Rows that are made are a multiple of it, so that tiles come out even."""

OWN = ".own"
"""Behind the name of a tensor: its copy in the tensor buffers."""

Cycles = Callable[[Kernel, Memories], int]
"""The cycles of a kernel that is not tiled yet, by its best tiling."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two steps with tensors between them that lie in the tensor buffers, and the cycles that this gains."""

    first: KernelStep
    second: KernelStep
    buffers: tuple[Buffer, ...]
    gain: int


def local_pairs(plan: Plan, machine: Machine, cycles: Cycles) -> Plan | None:
    """The plan with the pairs that gain time; None when there are none, or it uses the tensor buffers already."""
    if plan.tensor_buffer_bytes:
        return None
    buffers = {b.name: b for b in plan.buffers}
    types = {f"{name}{copied}": buffer.dtype for name, buffer in buffers.items() for copied in ("", OWN)}
    search = _Search(machine, cycles, buffers, types, users(plan))
    order = _drawn_together(plan.steps, search)
    pairs = _most_gaining([search.best(plan.steps, *two, is_next=True) for two in pairwise(order)])
    if not pairs:
        return None
    steps = [plan.steps[number] for number in order]
    for place, pair in pairs.items():
        steps[place : place + 2] = pair.first, pair.second
    local = {buffer.name: buffer for pair in pairs.values() for buffer in pair.buffers}
    return replace(
        plan,
        steps=tuple(steps),
        buffers=(*(local.pop(b.name, b) for b in plan.buffers), *local.values()),
        tensor_buffer_bytes=max(_room(pair.buffers, machine) for pair in pairs.values()),
    )


def _drawn_together(steps: Sequence[Step], search: _Search) -> list[int]:
    """The order of the steps, products right behind what alone they read of where such pairs gain by themselves."""
    order = list(range(len(steps)))
    for number, step in enumerate(steps):
        readers = {search.users[name][-1] for name in touched(step) if len(search.users[name]) == 2}
        for other in sorted(reader for reader in readers if reader > number + 1):
            place, end = order.index(number), order.index(other)
            passed = order[place + 1 : end]
            if passed and _may_pass(steps, other, passed) and search.best(steps, number, other, is_next=False):
                order.insert(place + 1, order.pop(end))
    return order


def _most_gaining(pairs: Sequence[_Pair | None]) -> dict[int, _Pair]:
    """Of the pairs of each step with the next one those that gain most together, a step in one of them at most."""
    gains, taken = [0, 0], [False]
    for pair in pairs:
        longer = gains[-2] + pair.gain if pair is not None else 0
        taken.append(longer > gains[-1])
        gains.append(max(longer, gains[-1]))
    found, place = {}, len(pairs)
    while place > 0:
        pair = pairs[place - 1]
        if taken[place] and pair is not None:
            found[place - 1] = pair
        place -= 1 + taken[place]
    return found


def _may_pass(steps: Sequence[Step], number: int, others: Sequence[int]) -> bool:
    """Whether a step may come before others: neither touches what the other one writes."""
    moved = steps[number]
    written = _written(moved)
    return bool(written) and all(
        written.isdisjoint(touched(steps[n])) and touched(moved).isdisjoint(_written(steps[n])) for n in others
    )


def _written(step: Step) -> set[str]:
    """What a step writes: of one that is no kernel's all that it touches."""
    if not isinstance(step, KernelStep):
        return touched(step)
    return set[str]().union(*map(writes_of, instances(step)))


def _room(buffers: Sequence[Buffer], machine: Machine) -> int:
    """The bytes of an SPC's memory that buffers take."""
    return sum(aligned(buffer.num_bytes, machine.l2_line_bytes) for buffer in buffers)


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks for pairs of steps in one plan, of which it knows the buffers, their types and which steps touch each."""

    machine: Machine
    cycles: Cycles
    buffers: Mapping[str, Buffer]
    types: Mapping[str, str]
    users: Mapping[str, Sequence[int]]

    def best(self, steps: Sequence[Step], number: int, other: int, *, is_next: bool) -> _Pair | None:
        """The fastest way to keep tensors between two steps local; None when that gains nothing.

        Where the second `is_next` there is a barrier between them, which this saves.
        """
        first, second = steps[number], steps[other]
        if not isinstance(first, KernelStep) or not isinstance(second, KernelStep):
            return None
        if [k is None for k in first.kernels] != [k is None for k in second.kernels]:
            return None
        between = [self.buffers[name] for name in sorted(touched(first)) if self.users[name] == [number, other]]
        may_stay = [buffer for buffer in between if buffer.role == "scratch" and buffer.space != "tb"]
        found: Iterator[_Pair]
        if second.kernel.contraction is not None:
            found = self._products(first, second, may_stay, copied=is_next)
        elif is_next:
            found = (pair for buffer in may_stay for pair in self._pairs(first, second, buffer))
        else:
            return None
        saved = (self.machine.spcs_meet_cycles if is_next else 0) - self.machine.spc_barrier_cycles
        gaining = (replace(pair, gain=pair.gain + saved) for pair in found if pair.gain + saved > 0)
        return max(gaining, key=lambda pair: pair.gain, default=None)

    def _products(
        self, first: KernelStep, second: KernelStep, may_stay: Sequence[Buffer], *, copied: bool
    ) -> Iterator[_Pair]:
        """Pairs of which the second is a product; all that the first one writes for it stays.

        What others read, too, is stored once more for them, if it may be `copied`.
        """
        if any(len({kernel.space for kernel in instances(step)}) > 1 for step in (first, second)):
            return  # the dies have parts of different size
        between = _written(first) & touched(second)
        others = between - {buffer.name for buffer in may_stay}
        if not between or (others and not copied) or _written(second) & touched(first):
            return
        copies = [replace(self.buffers[name], name=name + OWN, role="scratch") for name in sorted(others)]
        if any(copy.name in self.buffers or copy.space == "tb" for copy in copies):
            return
        maker = KernelStep(tuple(kernel and stored_twice(kernel, others, OWN) for kernel in first.kernels))
        names = {name: name + OWN for name in others}
        reader = KernelStep(tuple(kernel and redirect(kernel, names) for kernel in second.kernels))
        stay = [*may_stay, *copies]
        local = [buffer.name for buffer in stay]
        for of_first, of_second in ways(maker.kernel, reader.kernel, local, self.machine):
            made = _cut(maker, partial(in_own_products, cuts=of_first, local=local))
            read = _cut(reader, partial(in_own_products, cuts=of_second, local=local))
            yield from self._pair(first, second, made, read, stay)

    def _pairs(self, first: KernelStep, second: KernelStep, buffer: Buffer) -> Iterator[_Pair]:
        if buffer.name not in writes_of(first.kernel) & reads_of(second.kernel):
            return
        for of_first, of_second in _ways(first.kernel, second.kernel, buffer, self.machine):
            made = _cut(first, partial(in_own_parts, parts=of_first, local=buffer.name))
            read = _cut(second, partial(in_own_parts, parts=of_second, local=buffer.name))
            yield from self._pair(first, second, made, read, [buffer])

    def _pair(
        self,
        first: KernelStep,
        second: KernelStep,
        made: KernelStep | None,
        read: KernelStep | None,
        between: Sequence[Buffer],
    ) -> Iterator[_Pair]:
        """The pair of two steps in parts, where the tensors between them find room."""
        if made is None or read is None:
            return
        local = []
        for buffer in between:
            elements = max(_reached(step, buffer.name) for step in (made, read))
            local.append(replace(buffer, num_bytes=elements * dtype(buffer.dtype).bits // 8, space="tb"))
        if _room(local, self.machine) > LARGEST * self.machine.spc_sram_bytes:
            return
        names = frozenset(buffer.name for buffer in between)
        try:
            taken = self._most(made, names) + self._most(read, names)
        except DoesNotFitError:
            return
        before = self._most(first, frozenset()) + self._most(second, frozenset())
        yield _Pair(made, read, tuple(local), before - taken)

    def _most(self, step: KernelStep, local: frozenset[str]) -> int:
        """The cycles of the slowest of a step's kernels."""
        memories = Memories(self.types, local)
        return max(self.cycles(kernel, memories) for kernel in dict.fromkeys(instances(step)))


def _reached(step: KernelStep, name: str) -> int:
    """The elements of a buffer up to the last one that a step reaches."""
    views = [access.view for kernel in instances(step) for access in accesses(kernel)]
    return max(region(view).end for view in views if view.buffer == name)


def _cut(step: KernelStep, cut: Callable[[Kernel], Kernel | None]) -> KernelStep | None:
    """The step with a part an SPC; None when one of its kernels cannot be cut so, or needs too many axes then."""
    kernels = [kernel and cut(kernel) for kernel in step.kernels]
    if any(made is None and kernel is not None for made, kernel in zip(kernels, step.kernels, strict=True)):
        return None
    made = KernelStep(tuple(kernels))
    axes = (len(access.index) for kernel in instances(made) for access in accesses(kernel))
    return made if max(axes, default=0) <= MAX_BOX_RANK else None


def _ways(first: Kernel, second: Kernel, buffer: Buffer, machine: Machine) -> Iterator[tuple[Parts, Parts]]:
    """The parts of both kernels that may go together: of the tensor between them each SPC then has the same.

    They are as many parts of the samples as there can be, and of these columns, or bands of rows. A row of the first
    kernel may be several of the second one side by side, where these lie without gaps: then columns are not divided.
    """
    made = [access for access in accesses(first) if access.view.buffer == buffer.name]
    read = [access for access in accesses(second) if access.view.buffer == buffer.name]
    if len(made) != 1:
        return
    columns, column = _along(second, read[0], 1)
    same, of_first = _along(first, made[0], 1)
    pitch = math.gcd(*(step for access in (*made, *read) for step in access.view.strides if step > 1))
    beside = same // columns if columns else 0
    if (
        not pitch
        or not column
        or not of_first
        or same != beside * columns
        or (beside > 1 and pitch != columns)
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
    number = max(n for n in range(1, most // rows + 1) if columns % n == 0) if beside == 1 else 1
    whole = Parts(row_of_first, rows, of_first, 1, pitch * beside), Parts(row, rows, column, 1, pitch)
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
