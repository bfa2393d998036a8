"""Pairs of kernels between which a tensor stays in the tensor buffers: every SPC makes the part that it then reads.

Of a product and of what follows it on the vector cores, a depthwise convolution for one, each SPC takes the same
samples, and of these the same columns (own_parts.py). Of a product and of what it reads, the shares of an attention for
one, each SPC takes the same heads or rows (own_products.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from birc.compiler.ir.found_once import found_once
from birc.compiler.ir.kernel_form import Form, form_of, of_buffer
from birc.compiler.ir.plan import Access, Buffer, Kernel, KernelStep, Step, View
from birc.compiler.ir.plan_access import accesses, moved, with_views
from birc.compiler.passes.chain_gain import OWN, Chain, Gains, Offer, in_parts, read_what_is_made, written
from birc.compiler.passes.lifetimes import instances, reads_of, touched, writes_of
from birc.compiler.passes.lower.frame import unit
from birc.compiler.passes.own_parts import Parts, in_own_parts
from birc.compiler.passes.own_products import in_own_products, stored_twice, ways
from birc.compiler.passes.schedule import redirect
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine


@dataclass(frozen=True, slots=True)
class Way:
    """A way to keep `between` local: the steps as they are cut, and how each is."""

    steps: tuple[KernelStep, KernelStep]
    cuts: tuple[Callable[[Kernel], Kernel | None], Callable[[Kernel], Kernel | None]]
    between: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class _Solved:
    """The fastest chain of two steps, if one gains; their buffers, and where the views on constants begin."""

    chain: Chain
    buffers: Sequence[str]
    begins: Mapping[str, int]

    def like(self, steps: Sequence[KernelStep], buffers: Sequence[str], begins: Mapping[str, int]) -> Chain:
        """The chain of other steps of the same form."""
        pairs = tuple(zip(self.buffers, buffers, strict=True))
        names = {name + OWN: other + OWN for name, other in pairs} | dict(pairs)

        def renamed(view: View) -> View:
            name = names[view.buffer]
            return moved(view, name, view.offset + begins.get(name, 0) - self.begins.get(view.buffer, 0))

        def of(kernel: Kernel, known: Kernel) -> Kernel:
            like = with_views(known, renamed)
            return replace(like, name=kernel.name, sources=kernel.sources, macs=kernel.macs)

        made = (
            tuple(kernel and own and of(kernel, own) for kernel, own in zip(step.kernels, known.kernels, strict=True))
            for step, known in zip(steps, self.chain.steps, strict=True)
        )
        local = tuple(replace(buffer, name=names[buffer.name]) for buffer in self.chain.buffers)
        return Chain(tuple(map(KernelStep, made)), local, self.chain.gain)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Looks for pairs of steps in one plan; pairs that differ in names alone are solved once."""

    gains: Gains
    solved: dict[object, _Solved | None] = field(default_factory=dict)  # by form; None when nothing is gained

    def best(self, steps: Sequence[Step], number: int, other: int, *, is_next: bool) -> Offer | None:
        """The fastest way to keep tensors between two steps local; None when that gains nothing.

        Where the second `is_next` there is a barrier between them, which this saves.
        """
        first, second = steps[number], steps[other]
        if not isinstance(first, KernelStep) or not isinstance(second, KernelStep):
            return None
        if [k is None for k in first.kernels] != [k is None for k in second.kernels]:
            return None
        between = [
            self.gains.buffers[name] for name in sorted(touched(first)) if self.gains.users[name] == [number, other]
        ]
        may_stay = [buffer for buffer in between if buffer.role == "scratch" and buffer.space != "tb"]
        saved = self.gains.machine.spcs_meet_cycles if is_next else 0
        saved -= self.gains.machine.spc_barrier_cycles
        found: Iterator[Way]
        if second.kernel.contraction is not None:
            found = self._products((first, second), may_stay, copied=is_next)
        elif is_next:
            found = (way for buffer in may_stay for way in self._columns((first, second), buffer))
        else:
            return None
        begins: dict[str, int] = {}  # of constants, of which one buffer holds several
        form = self._form((first, second), begins)
        key = self._key(form, may_stay), is_next

        def solve() -> _Solved | None:
            chains = (self._chain((first, second), way, saved) for way in found)
            chain = max((chain for chain in chains if chain is not None), key=lambda chain: chain.gain, default=None)
            return _Solved(chain, form.buffers, begins) if chain is not None else None

        known = found_once(self.solved, key, solve)
        if known is None:
            return None
        return Offer(2, known.chain.gain, partial(known.like, (first, second), form.buffers, begins))

    def _chain(self, steps: tuple[KernelStep, KernelStep], way: Way, saved: int) -> Chain | None:
        made = [in_parts(step, cut) for step, cut in zip(way.steps, way.cuts, strict=True)]
        return self.gains.chain(steps, made, way.between, saved)

    def _form(self, steps: tuple[KernelStep, KernelStep], begins: dict[str, int]) -> Form:
        """The form of the kernels of a pair, whatever the places of constants, which go into `begins`."""
        buffers = self.gains.buffers

        def offset(view: View) -> int:
            is_constant = buffers[view.buffer].role == "constant"
            return view.offset - begins.setdefault(view.buffer, view.offset) if is_constant else view.offset

        return form_of(*(kernel for step in steps for kernel in step.kernels), offset=offset)

    def _key(self, form: Form, may_stay: Sequence[Buffer]) -> object:
        """What decides about a pair: its form, and what its buffers are but their names."""
        buffers = self.gains.buffers
        places = {name: place for place, name in enumerate(form.buffers)}
        known = tuple(of_buffer(buffers[name]) for name in places)
        are_taken = tuple(name + OWN in buffers for name in places)
        # Buffers are looked at in the order of their names.
        order = tuple(places[name] for name in sorted(places))
        return form.key, known, are_taken, order, tuple(places[b.name] for b in may_stay)

    def _products(
        self, steps: tuple[KernelStep, KernelStep], may_stay: Sequence[Buffer], *, copied: bool
    ) -> Iterator[Way]:
        """Pairs of which the second is a product; all that the first one writes for it stays.

        What others read, too, is stored once more for them, if it may be `copied`.
        """
        first, second = steps
        if any(len({kernel.space for kernel in instances(step)}) > 1 for step in steps):
            return  # the dies have parts of different size
        between = written(first) & touched(second)
        others = between - {buffer.name for buffer in may_stay}
        if not between or (others and not copied) or written(second) & touched(first):
            return
        copies = [replace(self.gains.buffers[name], name=name + OWN, role="scratch") for name in sorted(others)]
        if any(copy.name in self.gains.buffers or copy.space == "tb" for copy in copies):
            return
        if not read_what_is_made(steps, others):
            return
        maker = KernelStep(tuple(kernel and stored_twice(kernel, others, OWN) for kernel in first.kernels))
        names = {name: name + OWN for name in others}
        reader = KernelStep(tuple(kernel and redirect(kernel, names) for kernel in second.kernels))
        stay = [*may_stay, *copies]
        local = [buffer.name for buffer in stay]
        for of_first, of_second in ways(maker.kernel, reader.kernel, local, self.gains.machine):
            made = partial(in_own_products, cuts=of_first, local=local)
            read = partial(in_own_products, cuts=of_second, local=local)
            yield Way((maker, reader), (made, read), stay)

    def _columns(self, steps: tuple[KernelStep, KernelStep], buffer: Buffer) -> Iterator[Way]:
        first, second = steps
        if buffer.name not in writes_of(first.kernel) & reads_of(second.kernel):
            return
        for of_first, of_second in _ways(first.kernel, second.kernel, buffer, self.gains.machine):
            made = partial(in_own_parts, parts=of_first, local=buffer.name)
            read = partial(in_own_parts, parts=of_second, local=buffer.name)
            yield Way(steps, (made, read), [buffer])


def _ways(first: Kernel, second: Kernel, buffer: Buffer, machine: Machine) -> Iterator[tuple[Parts, Parts]]:
    """The parts of both kernels that may go together: of the tensor between them each SPC then has the same.

    They are as many parts of the samples as there can be, and of these columns. A row of the first kernel may be
    several of the second one side by side, where these lie without gaps: then columns are not divided.
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
    if rows * number > 1:
        yield Parts(row_of_first, rows, of_first, number, pitch * beside), Parts(row, rows, column, number, pitch)


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
