"""Which dimension of each kernel the dies divide: a beam search over the kernels in order.

A kernel runs whole on every die that needs its result, or each die computes a part along one par dimension. A part
may read only what its die has: otherwise the missing parts are exchanged first, which costs two barriers and the
link. The search minimises the sum of estimated cycles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from birc.compiler.ir.found_once import found_once
from birc.compiler.ir.kernel_form import form_of
from birc.compiler.ir.plan import Access, Buffer, Kernel, View
from birc.compiler.ir.plan_access import accesses, named_dims
from birc.compiler.ir.region import Region, region, union
from birc.compiler.passes.lifetimes import writes_of
from birc.compiler.passes.restrict import restrict
from birc.compiler.passes.rough_cycles import KERNEL_OVERHEAD_CYCLES, constant_bytes, kernel_cycles
from birc.runtime.machine import Machine

BEAM_WIDTH = 12
"""States that are kept behind each kernel."""
MOST_OPTIONS = 8
"""A kernel has no more: one for each dimension that can be divided, and not to divide it."""
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
    """A way to divide kernels of one form, with what the search asks of it for every state.

    `parts` is how many of them are looked at; 0 when it is not divided. `reads` are by part what the kernel does not
    write itself, `stores` by buffer and part what it writes: buffers by their places in the form.
    """

    number: int
    dimension: str
    parts: int
    cycles: float
    reads: tuple[tuple[tuple[int, Region], ...], ...]
    stores: Mapping[int, tuple[tuple[Region, ...], ...]]


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


class _Growth(NamedTuple):
    """A state and an option for the kernel behind it; what that costs in all, and the buffers to make whole for it.

    The least is the best: no two have the same order.
    """

    cost: float
    order: int
    before: _State
    option: _Option
    exchanged: tuple[str, ...]


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
    _solved: dict[object, list[_Option]] = field(default_factory=dict)  # by form

    def __post_init__(self) -> None:
        for number, kernel in enumerate(self.kernels):
            for name in writes_of(kernel):
                self._first_writers.setdefault(name, number)
            self._last_users.update((access.view.buffer, number) for access in accesses(kernel))

    def best(self) -> list[Choice] | None:
        """A choice for every kernel; None when exchanges are forbidden and some kernel would need one."""
        states = [_State(0.0, 0, {})]
        for position, kernel in enumerate(self.kernels):
            states = self._behind(states, position, *self._options(kernel))
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

    def _behind(
        self, states: Sequence[_State], position: int, names: tuple[str, ...], options: Sequence[_Option]
    ) -> list[_State]:
        """The best states behind a kernel that is in some place, and has buffers of these names."""
        # Orders would grow from kernel to kernel: ranks say the same.
        ranks = {order: rank for rank, order in enumerate(sorted(state.order for state in states))}
        grown = [
            growth
            for state in states
            for option in options
            if (growth := self._growth(state, ranks[state.order], names, option)) is not None
        ]
        extended = (self._extended(growth, position, names) for growth in sorted(grown))
        return list(islice((state for state in extended if state is not None), BEAM_WIDTH))

    def _options(self, kernel: Kernel) -> tuple[tuple[str, ...], list[_Option]]:
        """The buffers of a kernel and all of its options, the same for all kernels of its form.

        Where constants lie does not matter.
        """
        form = form_of(kernel, offset=self._offset)
        key = (form.key, kernel.macs, tuple((self.buffers[n].role, self.buffers[n].dtype) for n in form.buffers))
        return form.buffers, found_once(self._solved, key, lambda: self._all_options(kernel, form.buffers))

    def _all_options(self, kernel: Kernel, buffers: Sequence[str]) -> list[_Option]:
        places = {name: place for place, name in enumerate(buffers)}
        undivided = [""] if self.exchange else []
        dimensions = (*undivided, *self._dimensions(kernel))
        return [self._option(kernel, places, *option) for option in enumerate(dimensions)]

    def _offset(self, view: View) -> int:
        return 0 if self.buffers[view.buffer].role == "constant" else view.offset

    def _dimensions(self, kernel: Kernel) -> Iterator[str]:
        """The dimensions along which a kernel can be divided."""
        named = named_dims(kernel)
        if kernel.contraction is not None:
            named.update(kernel.contraction.column_dims[1:])  # A tile has all of them.
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

    def _option(self, kernel: Kernel, places: Mapping[str, int], number: int, dimension: str) -> _Option:
        parts = self._parts(kernel, dimension)
        readers = (kernel,) * self.parts if parts is None else parts
        return _Option(
            number,
            dimension,
            len(parts or ()),
            self._cycles(readers[0]),
            tuple(self._reads(reader, places) for reader in dict.fromkeys(readers)),
            {
                places[name]: tuple(tuple(_box(a.view) for a in _stores(part, name)) for part in readers)
                for name in writes_of(kernel)
            },
        )

    def _reads(self, kernel: Kernel, places: Mapping[str, int]) -> tuple[tuple[int, Region], ...]:
        """What a kernel needs of tensors: all that it reads but for what it has written itself."""
        written = {name: [_box(a.view) for a in _stores(kernel, name)] for name in writes_of(kernel)}
        read = (a.view for a in accesses(kernel) if self.buffers[a.view.buffer].role != "constant")
        found = dict.fromkeys((view.buffer, _box(view)) for view in read)
        return tuple(
            (places[name], box) for name, box in found if not any(made.contains(box) for made in written.get(name, ()))
        )

    def _growth(self, state: _State, rank: int, names: Sequence[str], option: _Option) -> _Growth | None:
        """An option behind a state of some rank; None when it needs an exchange that is forbidden."""
        missing = sorted(self._missing(state, names, option)) if state.split else []
        if missing and not self.exchange:
            return None
        cost = state.cost + option.cycles
        cost += sum(self._exchange_cycles(self.buffers[name]) for name in missing) if missing else 0.0
        return _Growth(cost, rank * MOST_OPTIONS + option.number, state, option, tuple(missing))

    def _extended(self, growth: _Growth, position: int, names: Sequence[str]) -> _State | None:
        """The state with the option behind it; None when that writes what is in parts otherwise."""
        option = growth.option
        split = {
            name: owned
            for name, owned in growth.before.split.items()
            if name not in growth.exchanged and self._last_users[name] >= position
        }
        for place, stores in option.stores.items():
            name = names[place]
            if not option.parts:
                if name in split:
                    return None
                continue
            if name not in split and self._first_writers[name] < position:
                return None
            before = split.get(name) or ((),) * len(stores)
            split[name] = tuple(union(new, old) for old, new in zip(before, stores, strict=True))
        return _State(growth.cost, growth.order, split, growth.before, option, growth.exchanged)

    def _missing(self, state: _State, names: Sequence[str], option: _Option) -> set[str]:
        """Buffers of which some part needs elements that its die does not have."""
        missing = set()
        for number in range(option.parts or self.parts):
            for place, needed in option.reads[number if len(option.reads) > 1 else 0]:
                owned = state.split.get(names[place])
                if owned is None or needed in owned[number]:
                    continue
                if not any(have.contains(needed) for have in owned[number]):
                    missing.add(names[place])
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


def _box(view: View) -> Region:
    """The elements of a view, whatever buffer it is on."""
    box = region(view)
    return Region("", box.offset, box.dims)


def _stores(kernel: Kernel, name: str) -> list[Access]:
    return [
        s.access
        for phase in kernel.phases
        for s in phase.statements
        if s.op == "vst" and s.access is not None and s.access.view.buffer == name
    ]
