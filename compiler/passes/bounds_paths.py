"""The least times at which the values of a lowered graph can be there: what has to follow what, on which SPC.

`first` of a buffer is a time before which no program has any of its elements, counted from the start of the program.
An element that one SPC computes needs others. Either all of them, back to some kernel, are computed on the same SPC,
at the rate of one; or one comes from another SPC, and that takes a barrier. docs/timing.md has the argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from birc.compiler.ir.plan import Access, Kernel
from birc.compiler.passes.bounds_values import NOTHING, Value, always_inside, coordinates, is_inside, values
from birc.compiler.passes.bounds_vector import VectorWork, vector_work
from birc.compiler.passes.bounds_work import Roles, TcoreWork, tcore_work
from birc.compiler.passes.lower.lower import Lowered
from birc.runtime.machine import Machine

DEEPEST_PATH = 12
"""Kernels that are looked at together as computed on one SPC."""

MOST_WRITERS = 8
"""Kernels that write one buffer up to which each of them is looked at; of more only the earliest time."""

Needed = Mapping[str, int]
"""How many values of each dimension of a kernel are needed; 1 where it says nothing."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """The least cycles between kernels, from the figures of the machine. A value is there when it is in a register."""

    start: int  # before the first kernel
    to_array: int  # store, load of a tile, on one SPC
    load: int  # from L2 or HBM
    across: int  # store, barrier, load
    output: int  # the last store
    sums: int  # from the start of an operation's last part to its sum in a register, without the operation


def latencies(machine: Machine) -> Latencies:
    """A transfer takes a cycle at least, then its latency; what it posts is seen `semaphore_cycles` later."""
    far = 1 + min(machine.l2_local_latency_cycles, machine.l2_remote_latency_cycles, machine.hbm_latency_cycles)
    near = min(far, 1 + machine.tb_latency_cycles)
    by_copy = far + machine.die_barrier_cycles + machine.dma_start_cycles
    return Latencies(
        start=machine.launch_cycles + machine.bind_cycles,
        to_array=2 * (near + machine.semaphore_cycles),
        load=far,
        across=2 * far + machine.spcs_meet_cycles,
        output=min(1 + machine.hbm_latency_cycles, by_copy),
        sums=machine.tcore_fill_cycles + machine.semaphore_cycles + machine.accumulator_drain_cycles,
    )


@dataclass(frozen=True, slots=True)
class Content:
    """What kernels have written of a buffer so far: the first times of the earliest and of the latest store, and the
    stores, none of them where there are too many."""

    earliest: int
    latest: int
    writers: tuple[Written, ...]

    def joined(self, store: Written) -> Content:
        """With one store more."""
        writers = self.writers and (*self.writers, store)
        kept = writers if len(writers) <= MOST_WRITERS else ()
        return Content(min(self.earliest, store.first), max(self.latest, store.first), kept)


@dataclass(frozen=True, slots=True)
class Operand:
    """What a stored value needs of a buffer: by which access, over which dimensions, and what is in it; `content` is
    None for constants and inputs. `runs` are the dimensions along which it moves forward inside, with their steps."""

    access: Access
    spread: frozenset[str]
    multiplied: bool
    content: Content | None
    runs: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Written:
    """A store of a kernel: when its first element can be there, and the operand that this was derived from.

    `work` is that of the kernel's contraction, if the value needs it; None otherwise. `steps` are the dimensions that
    move the store alone along an axis, with their extents, by the elements that one value is from the next.
    """

    first: int
    kernel: Kernel
    access: Access
    extents: Mapping[str, int]
    work: TcoreWork | None
    source: Operand | None
    steps: Mapping[int, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Released:
    """Work that cannot begin before a time: cycles of one SPC's array, elements of its vector pipes."""

    time: int
    tcore_cycles: float = 0.0
    vector: VectorWork = field(default_factory=VectorWork)


@dataclass(slots=True)
class Paths:
    """Goes through the kernels in order."""

    lowered: Lowered
    machine: Machine
    contents: dict[str, Content] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=dict)  # by format
    released: list[Released] = field(default_factory=list)
    latency: Latencies = field(init=False)

    def __post_init__(self) -> None:
        self.latency = latencies(self.machine)

    def follow(self) -> Paths:
        """Find the first times of all buffers, and the release of all work."""
        for kernel in self.lowered.kernels:
            self._kernel(kernel)
        return self

    def last_output(self) -> int:
        """Before this time no program has stored every output."""
        names = {view.buffer for view in self.lowered.outputs.values()}
        latest = [self.contents[name].latest for name in names if name in self.contents]
        return max(latest, default=self.latency.start) + self.latency.output

    def _kernel(self, kernel: Kernel) -> None:
        extents = {d.name: d.extent for d in kernel.space}
        contraction, work = kernel.contraction, None
        if contraction is not None:
            work = tcore_work(kernel, contraction, self.machine)
            of_a = min(map(self._operand_ready, contraction.panels))
            ready = max(of_a, self._operand_ready(contraction.b))
            self.released.append(Released(ready, tcore_cycles=work.cycles(self.machine)))
        stores = []
        found = values(kernel)
        for value, amount in zip(found, vector_work(found, extents), strict=True):
            if amount.alu or amount.sfu:
                ready = self._ready(self._operands(kernel, value, extents, work, value.gone))
                self.released.append(Released(ready, vector=amount))
            if value.access is not None:
                operands = list(self._operands(kernel, value, extents, work))
                stores.append(self._store(kernel, value.access, operands, work, extents))
        for store in stores:
            name, begun = store.access.view.buffer, Content(store.first, store.first, (store,))
            self.contents[name] = self.contents[name].joined(store) if name in self.contents else begun

    def _operands(
        self,
        kernel: Kernel,
        value: Value,
        extents: Mapping[str, int],
        work: TcoreWork | None,
        gone: frozenset[str] = NOTHING,
    ) -> Iterator[Operand]:
        """The operands of which every element of the value needs one: of every part of it, before those in `gone` are
        reduced."""
        contraction = kernel.contraction
        for access, whole in value.needs.items():
            spread = whole - gone
            multiplied = value.multiplied and contraction is not None and access in contraction.operands
            if multiplied:
                always = work is not None and work.always
            else:
                always = always_inside(access, spread, extents)
            if always:
                content = self.contents.get(access.view.buffer)
                yield Operand(access, spread, multiplied, content, _runs(access, extents))

    def _operand_ready(self, access: Access) -> int:
        """When the first tile of an operand can be in the input buffer."""
        content = self.contents.get(access.view.buffer)
        if content is None:
            return self.latency.start + self.latency.load + self.machine.semaphore_cycles
        return content.earliest + self.latency.to_array

    def _ready(self, operands: Iterable[Operand]) -> int:
        """When the first element of a value can be computed."""
        times = [self.latency.start]
        for operand in operands:
            if operand.multiplied:
                times.append(self._operand_ready(operand.access) + self.latency.sums)
            elif operand.content is not None:
                times.append(operand.content.earliest)
            else:
                times.append(self.latency.start + self.latency.load)
        return max(times)

    def _store(
        self,
        kernel: Kernel,
        access: Access,
        operands: Sequence[Operand],
        work: TcoreWork | None,
        extents: Mapping[str, int],
    ) -> Written:
        steps = _steps(access, extents)
        best = Written(self.latency.start, kernel, access, extents, work, None, steps)
        for operand in operands:
            node = Written(0, kernel, access, extents, work if operand.multiplied else None, operand, steps)
            first = self._first(node, operand)
            if first > best.first:
                best = replace(node, first=first)
        return best

    def _first(self, node: Written, operand: Operand) -> int:
        """The least time of the first element of a store, by what it needs of one operand."""
        if operand.content is None:
            return self.latency.start + self._own_load(node)
        if not operand.content.writers:
            return operand.content.earliest + self._step(node)
        return min(self._along(node, operand, writer) for writer in operand.content.writers)

    def _own_load(self, node: Written) -> int:
        """From the start of the first kernel to the sum of one operation, or to what was loaded."""
        load = self.latency.load
        return load if node.work is None else load + self.machine.semaphore_cycles + self._sum(node)

    def _sum(self, node: Written) -> int:
        """The least operation and its sum in a register; nothing for a value of the vector cores."""
        if node.work is None or node.kernel.contraction is None:
            return 0
        name = node.kernel.contraction.format
        if name not in self.sums:
            form = self.machine.format(name)
            products = self.machine.tcore_rows * self.machine.tcore_cols * form.k_unit
            self.sums[name] = -(-products // form.macs_per_cycle_per_spc) + self.latency.sums
        return self.sums[name]

    def _along(self, last: Written, operand: Operand, writer: Written) -> int:
        """The least time of one element of `last`, going back from it as long as it may all be on one SPC."""
        latency = self.latency
        best: int | None = None
        node, needed = last, dict[str, int]()
        after, work = 0, 0  # latencies of the kernels behind `node`, and their work on the SPC
        for _ in range(DEEPEST_PATH):
            before = work
            work += self._work(node, operand, needed)
            # One of the elements that `node` needs of `writer` comes from another SPC ...
            across = max(latency.across + self._sum_after_load(node) + after, self._led(work))
            if node.work is not None:  # ... or a part of a sum does, with all SPCs at work on them.
                shared = max(self._sum(node), (work - before) // self.machine.spcs)
                split = latency.to_array + shared + latency.across + after
                across = min(across, max(split, self._led(before)))
            best = writer.first + across if best is None else min(best, writer.first + across)
            after += self._step(node)
            source = writer.source
            if latency.start + work >= best:
                return best
            needed = self._needed(node, operand, needed, writer)
            node = writer
            if source is None or source.content is None:
                return min(best, self._from_start(node, source, needed, after, work))
            if len(source.content.writers) != 1:
                work += self._work(node, source, needed)
                return min(best, source.content.earliest + max(after + self._step(node), self._led(work)))
            operand, (writer,) = source, source.content.writers
        work += self._work(node, operand, needed)
        return min(best or 0, writer.first + max(after + self._step(node), self._led(work)))

    def _from_start(self, node: Written, operand: Operand | None, needed: Needed, after: int, work: int) -> int:
        """The least time when everything back to the inputs is on one SPC, or a part of its first sums on another."""
        latency = self.latency
        if operand is None:
            return latency.start + max(after, work)
        own = self._work(node, operand, needed)
        whole = max(self._own_load(node) + after, latency.load + work + own)
        if node.work is not None:
            shared = max(self._own_load(node), latency.load + own // self.machine.spcs)
            whole = min(whole, max(shared + latency.across + after, latency.load + work))
        return latency.start + whole

    def _step(self, node: Written) -> int:
        """From an element in a register to one that needs it, on the same SPC."""
        return self.latency.to_array + self._sum(node) if node.work is not None else 0

    def _sum_after_load(self, node: Written) -> int:
        return self.machine.semaphore_cycles + self._sum(node) if node.work is not None else 0

    def _led(self, work: int) -> int:
        """Work of the array with the way to it of the first operand."""
        return self.latency.to_array + work if work else 0

    def _work(self, node: Written, operand: Operand, needed: Needed) -> int:
        """Cycles of one SPC's array for the elements of a kernel that are needed, to the last sum in a register."""
        if node.work is None:
            return 0
        extents, part = node.extents, node.work.part
        inner = {name: extents[name] for name in operand.spread if name not in part.depth}
        tiles = self._tiles(part, {**needed, **inner})
        gap = self.machine.tile_gap_cycles()
        return max(0, tiles * (node.work.least_tile_cycles + gap) - self.machine.semaphore_cycles)

    def _tiles(self, part: Roles, needed: Needed) -> int:
        rows, columns, batch = (math.prod(needed.get(n, 1) for n in g) for g in (part.rows, part.columns, part.batch))
        machine = self.machine
        by_column = rows * -(-columns // machine.tcore_cols) / machine.tcore_rows
        by_row = columns * -(-rows // machine.tcore_rows) / machine.tcore_cols
        return batch * max(1, math.ceil(max(by_column, by_row)))

    def _needed(self, node: Written, operand: Operand, needed: Needed, writer: Written) -> dict[str, int]:
        """How many values of each dimension of the writer the needed elements of `node` need."""
        counts = ((s, node.extents[n] if n in operand.spread else needed.get(n, 1)) for s, n in operand.runs)
        return _matched(((step, count) for step, count in counts if count > 1), writer.steps)


def _runs(access: Access, extents: Mapping[str, int]) -> list[tuple[int, str]]:
    """The steps and names of the dimensions that move an access forward, where all that it reaches is inside.

    There are none where elements are seen as others.
    """
    view = access.view
    if view.seen or view.word:
        return []
    return [
        (factor * stride, name)
        for (index, low, high), stride in zip(coordinates(access), view.strides, strict=True)
        if is_inside(index, low, high, extents)
        for name, factor in index.terms
        if factor * stride > 0
    ]


def _steps(access: Access, extents: Mapping[str, int]) -> dict[int, tuple[str, int]]:
    """By the elements that one value is from the next the dimensions that alone count an axis, and their extents."""
    found: dict[int, tuple[str, int]] = {}
    if access.view.seen or access.view.word:
        return found
    for index, stride in zip(access.index, access.view.strides, strict=True):
        if len(index.terms) == 1:
            ((name, factor),) = index.terms
            if factor * stride > 0 and extents[name] > 1:
                found[factor * stride] = name, extents[name]
    return found


def _matched(spans: Iterable[tuple[int, int]], steps: Mapping[int, tuple[str, int]]) -> dict[str, int]:
    """Of runs of elements, each (step, count), how many values of each dimension of a writer they meet.

    `steps` has the dimensions by the elements that one value is from the next. A run goes through a dimension of the
    same step, then through the one whose step is the length of that, and so on; what does not fit counts once.
    """
    found: dict[str, int] = {}
    for first_step, elements in spans:
        step, count = first_step, elements
        while count > 1 and step in steps:
            name, extent = steps[step]
            if name in found:
                break
            found[name] = min(count, extent)
            if count % extent:
                break
            step, count = step * extent, count // extent
    return found
