"""Which dimension of each kernel the dies divide: a beam search over the kernels in order.

A kernel runs whole on every die that needs its result, or each die computes a part along one par dimension. A part
may read only what its die has: otherwise the missing parts are exchanged first, which costs two barriers and the
link. The search minimises the sum of estimated cycles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from birc.compiler.ir.plan import Access, Buffer, Kernel, View
from birc.compiler.ir.plan_access import accesses, moved, named_dims, with_views
from birc.compiler.ir.region import Region, region, union
from birc.compiler.passes.lifetimes import writes_of
from birc.compiler.passes.restrict import restrict
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine

BEAM_WIDTH = 12
KERNEL_OVERHEAD_CYCLES = 1500
"""Start, first loads and barrier of a kernel, which splitting does not shorten."""
STREAM_SHARE = 0.5
"""What a cycle in which constants stream from HBM counts beside one of a kernel: kernels before may hide it or not."""

Owned = tuple[tuple[Region, ...], ...]
"""For each part the regions of a buffer that it holds."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How one kernel is divided: along which dimension, into which parts (None: not divided), and the buffers to
    make whole before it."""

    parts: tuple[Kernel, ...] | None
    dimension: str = ""
    exchanged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Option:
    """A way to divide a kernel, with what the search asks of it for every state.

    `parts` is how many of them are looked at; 0 when it is not divided. `reads` are by part the tensors that the kernel
    does not write itself, `stores` by buffer and part what it writes.
    """

    number: int
    dimension: str
    parts: int
    cycles: float
    reads: tuple[tuple[tuple[str, Region], ...], ...]
    stores: Mapping[str, tuple[tuple[Region, ...], ...]]

    def renamed(self, names: Mapping[str, str]) -> _Option:
        """The same for a kernel of the same form."""

        def other(box: Region) -> Region:
            return Region(names[box.buffer], box.offset, box.dims)

        return replace(
            self,
            reads=tuple(tuple((names[name], other(box)) for name, box in part) for part in self.reads),
            stores={
                names[name]: tuple(tuple(map(other, part)) for part in parts) for name, parts in self.stores.items()
            },
        )


@dataclass(frozen=True, slots=True)
class _State:
    """An option for the last kernel, and the state before it; the cost so far, and the buffers that are in parts.

    `order` breaks ties.
    """

    cost: float
    order: int
    split: Mapping[str, Owned]
    before: _State | None = None
    option: _Option | None = None
    exchanged: tuple[str, ...] = ()


@dataclass(slots=True)
class SplitSearch:
    """The search for one list of kernels.

    With `exchange` False only choices without exchanges count, of which parts of equal extent are wanted: the first,
    the second and the last stand for all.
    """

    kernels: Sequence[Kernel]
    buffers: Mapping[str, Buffer]
    machine: Machine
    parts: int
    exchange: bool = True
    _first_writers: dict[str, int] = field(default_factory=dict)
    _last_users: dict[str, int] = field(default_factory=dict)
    _solved: dict[object, tuple[tuple[str, ...], list[_Option]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, kernel in enumerate(self.kernels):
            for name in writes_of(kernel):
                self._first_writers.setdefault(name, number)
            self._last_users.update((access.view.buffer, number) for access in accesses(kernel))

    def best(self) -> list[Choice] | None:
        """A choice for every kernel; None when exchanges are forbidden and some kernel would need one."""
        states = [_State(0.0, 0, {})]
        for position, kernel in enumerate(self.kernels):
            options = self._options(kernel)
            grown = [
                extended
                for state in states
                for option in options
                if (extended := self._extend(state, position, option)) is not None
            ]
            states = sorted(grown, key=lambda s: (s.cost, s.order))[:BEAM_WIDTH]
            if not states:
                return None
        choices: list[Choice] = []
        state: _State | None = states[0]
        for kernel in reversed(self.kernels):
            if state is not None and state.option is not None:
                dimension = state.option.dimension
                choices.append(Choice(self._parts(kernel, dimension), dimension, state.exchanged))
                state = state.before
        return choices[::-1]

    def _options(self, kernel: Kernel) -> list[_Option]:
        """All options of a kernel; kernels that differ in names and in places of constants alone are looked at once."""
        names = tuple(dict.fromkeys(access.view.buffer for access in accesses(kernel)))
        places = {name: str(number) for number, name in enumerate(names)}

        def like(view: View) -> View:
            is_constant = self.buffers[view.buffer].role == "constant"
            return moved(view, places[view.buffer], 0 if is_constant else view.offset)

        form = with_views(replace(kernel, name="", sources=()), like)
        key = (form, tuple((self.buffers[name].role, self.buffers[name].dtype) for name in names))
        if key not in self._solved:
            undivided = [""] if self.exchange else []
            options = [self._option(kernel, *o) for o in enumerate((*undivided, *self._dimensions(kernel)))]
            self._solved[key] = names, options
            return options
        known, options = self._solved[key]
        renamed = dict(zip(known, names, strict=True))
        return [option.renamed(renamed) for option in options]

    def _dimensions(self, kernel: Kernel) -> Iterator[str]:
        """The dimensions along which a kernel can be divided."""
        named = named_dims(kernel)
        for d in kernel.par_dims:
            if d.name in named or d.extent < self.parts or (not self.exchange and d.extent % self.parts):
                continue
            if -(-d.extent // -(-d.extent // self.parts)) == self.parts:
                yield d.name

    def _parts(self, kernel: Kernel, dimension: str) -> tuple[Kernel, ...] | None:
        """The parts of a kernel that are looked at; None when it is not divided."""
        if not dimension:
            return None
        extent = kernel.dimension(dimension).extent
        part = -(-extent // self.parts)
        numbers = range(self.parts) if self.exchange else sorted({0, 1, self.parts - 1})
        return tuple(restrict(kernel, dimension, n * part, min(part, extent - n * part)) for n in numbers)

    def _option(self, kernel: Kernel, number: int, dimension: str) -> _Option:
        parts = self._parts(kernel, dimension)
        written = writes_of(kernel)
        readers = (kernel,) * self.parts if parts is None else parts
        tensors = {a.view.buffer for a in accesses(kernel) if self.buffers[a.view.buffer].role != "constant"}
        return _Option(
            number,
            dimension,
            len(parts or ()),
            self._cycles(readers[0]),
            tuple(
                tuple(
                    {
                        (a.view.buffer, region(a.view)): None
                        for a in accesses(reader)
                        if a.view.buffer in tensors - written
                    }
                )
                for reader in dict.fromkeys(readers)
            ),
            {name: tuple(tuple(region(a.view) for a in _stores(part, name)) for part in readers) for name in written},
        )

    def _extend(self, state: _State, position: int, option: _Option) -> _State | None:
        """The state after the kernel; None when it needs an exchange that is forbidden."""
        missing = sorted(self._missing(state, option))
        if missing and not self.exchange:
            return None
        cost = state.cost + option.cycles
        cost += sum(self._exchange_cycles(self.buffers[name]) for name in missing)
        split = {
            name: owned
            for name, owned in state.split.items()
            if name not in missing and self._last_users[name] >= position
        }
        for name, stores in option.stores.items():
            if not option.parts:
                if name in split:
                    return None
                continue
            if name not in split and self._first_writers[name] < position:
                return None
            before = split.get(name) or ((),) * len(stores)
            split[name] = tuple(union(new, old) for old, new in zip(before, stores, strict=True))
        return _State(cost, state.order * 8 + option.number, split, state, option, tuple(missing))

    def _missing(self, state: _State, option: _Option) -> set[str]:
        """Buffers of which some part needs elements that its die does not have."""
        missing = set()
        for number in range(option.parts or self.parts):
            for name, needed in option.reads[number if len(option.reads) > 1 else 0]:
                owned = state.split.get(name)
                if owned is not None and not any(have.contains(needed) for have in owned[number]):
                    missing.add(name)
        return missing

    def _cycles(self, kernel: Kernel) -> float:
        """What the kernel takes, unless its constants take longer to come from HBM; and a share of that stream."""
        machine = self.machine
        stream = constant_bytes(kernel, self.buffers) / machine.streamed_hbm_bytes_per_cycle()
        alone = max(kernel_cycles(kernel, self.buffers, machine), stream + KERNEL_OVERHEAD_CYCLES)
        return alone + STREAM_SHARE * stream

    def _exchange_cycles(self, buffer: Buffer) -> float:
        machine = self.machine
        fixed = machine.die_barrier_cycles + 2 * machine.cross_die_flag_cycles + machine.dma_start_cycles
        return fixed + buffer.num_bytes / self.parts / machine.d2d_bytes_per_cycle


def kernel_cycles(kernel: Kernel, buffers: Mapping[str, Buffer], machine: Machine) -> float:
    """A rough count: T-core at half rate, or bytes through the ports."""
    moved = sum(num_bytes for _, num_bytes in _moved(kernel, buffers))
    through_ports = 1.5 * moved / (machine.spcs_per_die * machine.noc_bytes_per_cycle)
    return max(_computing(kernel, kernel.macs, machine), through_ports) + KERNEL_OVERHEAD_CYCLES


def least_cycles(kernel: Kernel, machine: Machine, parts: int) -> float:
    """What that count is at least of one of so many equal parts of a kernel, whatever it moves."""
    return _computing(kernel, round(kernel.macs * (1 / parts)), machine) + KERNEL_OVERHEAD_CYCLES


def _computing(kernel: Kernel, macs: int, machine: Machine) -> float:
    if kernel.contraction is None:
        return 0.0
    return 2.0 * macs / (machine.format(kernel.contraction.format).macs_per_cycle_per_spc * machine.spcs_per_die)


def constant_bytes(kernel: Kernel, buffers: Mapping[str, Buffer]) -> float:
    """The bytes of constants that a kernel reads; of a table no more than one row an index."""
    return sum(num_bytes for name, num_bytes in _moved(kernel, buffers) if buffers[name].role == "constant")


def _moved(kernel: Kernel, buffers: Mapping[str, Buffer]) -> Iterator[tuple[str, float]]:
    """For each access the buffer and its bytes: of a table read at indices no more than one row an index."""
    indexed = {s.access for phase in kernel.phases for s in phase.statements if s.op == "vldx"}
    iterations = math.prod(d.extent for d in kernel.par_dims)
    for access in accesses(kernel):
        elements = region(access.view).num_elements
        if access in indexed:
            elements = min(elements, iterations)
        yield access.view.buffer, elements * dtype(buffers[access.view.buffer].dtype).bits / 8


def _stores(kernel: Kernel, name: str) -> list[Access]:
    return [
        s.access
        for phase in kernel.phases
        for s in phase.statements
        if s.op == "vst" and s.access is not None and s.access.view.buffer == name
    ]
