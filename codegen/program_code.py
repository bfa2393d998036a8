"""The command stream: kernels, descriptors, copies and the barriers and waits that order them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from birc.codegen.die_state import PIECES, SENT, WHOLE, DieState, Fill
from birc.codegen.kernel_code import KernelWriter, descriptor
from birc.codegen.pieces import pieces_of
from birc.codegen.regions import Touch, bytes_of, half_of, overlap, part_of, view_range, whole_of
from birc.codegen.slots import Slots
from birc.compiler.ir.copies import copy_dims, row_major_strides
from birc.compiler.ir.names import unused_name
from birc.compiler.ir.plan import (
    Access,
    Boundary,
    Buffer,
    CopyStep,
    ExchangeStep,
    Kernel,
    KernelStep,
    Plan,
    ShareStep,
    Step,
    View,
)
from birc.compiler.ir.plan_access import accesses, accesses_of, views_by_buffer
from birc.compiler.ir.plan_beside import together
from birc.runtime.conversion import memory_type
from birc.runtime.dtypes import dtype
from birc.runtime.errors import InternalError
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.machine import Machine
from birc.runtime.package_sources import RunSource
from birc.runtime.program import Command, CommandLoop, ConstantImage, Descriptor, Piece, Port, Program
from birc.runtime.program import Kernel as KernelCode
from birc.runtime.verifier.boxes import overlaps, whole_view

KERNELS_AHEAD = 3
"""Copies that come before so many kernels more count when a barrier is chosen."""

EVENTS = next(f.high or 0 for f in BY_MNEMONIC["wait"].fields if f.name == "event")


@dataclass(frozen=True, slots=True)
class Generated:
    """The program, and for every `run` command in order its source.

    `elements` are the element types of the program's constants by key, `parts` those that are parts of the plan's.
    """

    program: Program
    runs: tuple[RunSource, ...]
    elements: Mapping[str, str]
    parts: Mapping[str, View]

    def with_parts(self, data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of the plan's constants, and those that are parts of them."""
        return {**data, **{key: part_of(data[view.buffer], view) for key, view in self.parts.items()}}

    def weights(self, data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The contents of the program's constants, in the types that memory holds."""
        arrays = self.with_parts(data)
        return {
            key: np.asarray(arrays[key]).astype(memory_type(element), copy=False)
            for key, element in self.elements.items()
        }


class ProgramWriter:
    """Writes the program of a plan."""

    def __init__(self, plan: Plan, machine: Machine, writer: KernelWriter) -> None:
        self.plan = plan
        self.writer = writer
        self.machine = machine
        self.buffers: Mapping[str, Buffer] = {b.name: b for b in plan.buffers}
        self.views = views_by_buffer(plan)
        self.descriptors: dict[Descriptor, int] = {}
        self.kernels: dict[tuple[object, ...], int] = {}
        self.kernel_codes: list[KernelCode] = []
        self.commands: list[Command | CommandLoop] = []
        self.in_loop = False
        self.advances = dict(plan.advances)
        self.runs: list[RunSource] = []
        self.residents = {s.target for s in plan.steps if isinstance(s, CopyStep) and s.resident}
        self.dies = tuple(DieState() for _ in range(plan.dies))
        self.preloads: dict[int, int] = {}  # by die, the kernel that loads ahead of its run
        self.next_event = 0
        self.time = 0
        self.told: dict[int, tuple[int, int]] = {}  # by event on its way: the sender, and what it knew
        self.elements: dict[str, str] = {}
        self.parts: dict[str, View] = {}

    def write(self) -> Generated:
        """The whole program. Raises `InternalError` for a plan without tilings or addresses."""
        everyone = self._active_dies()
        spcs = (1 << self.machine.spcs_per_die) - 1
        self.commands.append(Command("launch", (spcs, self.plan.name), everyone))
        self._round()
        if self.plan.repeat > 1:
            self._later_rounds(everyone)
        self.commands.append(Command("barrier", ("die" if everyone == 1 else "device",), everyone))
        hbm_bytes = max((b.address + b.num_bytes for b in self.plan.buffers if b.space == "hbm"), default=0)
        program = Program(
            name=self.plan.name,
            machine=self.machine.name,
            machine_digest=self.machine.digest,
            dies=self.plan.dies,
            l2_bytes=self.machine.spc_sram_bytes - self.plan.tensor_buffer_bytes,
            tensor_buffer_bytes=self.plan.tensor_buffer_bytes,
            hbm_bytes=-(-hbm_bytes // 512) * 512,
            descriptors=(),
            kernels=tuple(self.kernel_codes),
            commands=tuple(self.commands),
            inputs=tuple(self._port(b) for b in self.plan.inputs),
            outputs=tuple(self._port(b) for b in self.plan.outputs),
            constants=tuple(image for b in self.plan.buffers for image in self._images(b, everyone)),
            useful_macs=self.plan.macs,
        )
        # Ports add descriptors, so the table is complete only now.
        return Generated(
            replace(program, descriptors=tuple(self.descriptors)), tuple(self.runs), self.elements, self.parts
        )

    def _images(self, buffer: Buffer, dies: int) -> Iterator[ConstantImage]:
        """What the memory of the dies holds of a constant: the same on all, or a part of its own on each."""
        if buffer.role != "constant":
            return
        if not buffer.part_offsets:
            self.elements[buffer.name] = buffer.dtype
            yield ConstantImage(buffer.name, buffer.num_bytes, buffer.address, dies)
        for die, offset in enumerate(buffer.part_offsets):
            key = unused_name(f"{buffer.name}.{die}", self.buffers, self.elements)
            self.elements[key] = buffer.dtype
            self.parts[key] = View(buffer.name, offset, buffer.part_dims, buffer.part_strides)
            yield ConstantImage(key, buffer.num_bytes, buffer.address, 1 << die)

    def _active_dies(self) -> int:
        """The mask of the dies that run kernels; the first one always counts."""
        kernels = (step.kernels for step in self.plan.steps if isinstance(step, KernelStep))
        return (
            1
            | sum(
                1 << die for die, column in enumerate(zip(*kernels, strict=True)) if any(k is not None for k in column)
            )
            & ~1
        )

    def _round(self) -> None:
        """The steps once."""
        steps = self.plan.steps
        for group in together(steps):
            match steps[group.start]:
                case KernelStep():
                    of_group = [step for step in steps[group.start : group.stop] if isinstance(step, KernelStep)]
                    self._run(of_group, steps[group.stop :])
                case CopyStep(source, target, once, resident):
                    if not (self.in_loop and (once or resident)):
                        self._copy(self.buffers[source], self.buffers[target], self._users(target))
                case ExchangeStep() as step:
                    self._exchange(step, steps[group.start :])
                case ShareStep(name):
                    if not self.in_loop:
                        self._share(self.buffers[name])

    def _later_rounds(self, everyone: int) -> None:
        """All rounds but the first, as a loop; a round begins when the one before has ended."""
        before = self.commands
        self.commands, self.in_loop = [], True
        for state in self.dies:
            state.bound.clear()
        self._barrier(everyone)
        self._round()
        body = tuple(self.commands)
        self.commands = [*before, CommandLoop(self.plan.repeat - 1, body)]

    def _run(self, steps: Sequence[KernelStep], following: Sequence[Step]) -> None:
        """Kernels that run side by side, or one; and the steps that come then."""
        dies_of_run: dict[int, list[tuple[int, Sequence[Kernel]]]] = {}
        codes = self._bound(steps)
        for die, kernels, number in codes:
            dies_of_run.setdefault(number, []).append((die, kernels))
        for die, kernels, number in codes:
            self._order(die, kernels, number, following)
        for number, members in dies_of_run.items():
            mask = sum(1 << die for die, _ in members)
            macs = sum(kernel.macs for _, kernels in members for kernel in kernels)
            self.commands.append(Command("run", (number, macs), mask))
            first = members[0][1]
            sources = dict.fromkeys(source for kernel in first for source in kernel.sources)
            self.runs.append(RunSource(" + ".join(kernel.name for kernel in first), tuple(sources)))

    def _bound(self, steps: Sequence[KernelStep]) -> list[tuple[int, Sequence[Kernel], int]]:
        """The kernels of steps side by side, by die, with the number of their code, when their slots have been bound.

        A run takes the slots as they are when it is issued: binding goes on while earlier kernels work.
        """
        columns = enumerate(zip(*(step.kernels for step in steps), strict=True))
        instances = [(die, [kernel for kernel in column if kernel is not None]) for die, column in columns]
        codes = [(die, kernels, *self._code(kernels)) for die, kernels in instances if kernels]
        for die, _, _, slots in codes:
            self._bind(1 << die, slots.views)
        return [(die, kernels, number) for die, kernels, number, _ in codes]

    def _announce(self, steps: Sequence[Step]) -> None:
        """While an exchange, first of `steps`, goes on, let the next kernels load what no step until then writes."""
        count = next((number for number, step in enumerate(steps) if isinstance(step, KernelStep)), len(steps))
        group = next(together(steps[count:]), range(0))
        if not group or self.preloads:
            return
        written = [bytes_of(self.buffers[name]) for before in steps[:count] for name in _written_by(before)]
        # Loads from HBM would hold up what goes through it.
        busy = any(space == "hbm" for space, _, _ in written)
        next_steps = [step for step in steps[count : count + len(group)] if isinstance(step, KernelStep)]
        for die, kernels, number in self._bound(next_steps):
            ahead = _ahead(kernels)
            ranges = [bytes_of(self.buffers[access.view.buffer]) for access in ahead]
            if any(overlap(taken, written) or (busy and taken[0] == "hbm") for taken in ranges):
                continue
            self._await_fills(die, ahead)
            self._preload(die, number, ahead)

    def _preload(self, die: int, number: int, ahead: Sequence[Access]) -> None:
        """Load what a kernel takes ahead of its run, unless it is still being written, or loaded already."""
        pending = self.dies[die].pending
        if not ahead or die in self.preloads:
            return
        if not pending.conflicts(self._reached(access.view for access in ahead), (), self._may_meet):
            self.commands.append(Command("preload", (number,), 1 << die))
            self.preloads[die] = number

    def _code(self, kernels: Sequence[Kernel]) -> tuple[int, Slots]:
        """The number of the code of kernels side by side, new unless others have the same, and its slots."""
        code, slots = self.writer.emit(kernels)
        key = (code.nests, code.semaphores, code.multicast)
        if key not in self.kernels:
            self.kernels[key] = len(self.kernel_codes)
            self.kernel_codes.append(code)
        return self.kernels[key], slots

    def _order(self, die: int, kernels: Sequence[Kernel], number: int, following: Sequence[Step]) -> None:
        """Waits and a barrier, where kernels touch what is still on its way or in use.

        What they load ahead of them is there before, and stays.
        """
        state = self.dies[die]
        touched = [access for kernel in kernels for access in accesses(kernel)]
        reads, writes = self._touches(kernels)
        ahead = _ahead(kernels)
        self._await_fills(die, ahead)
        conflicts = state.pending.conflicts(reads, writes, self._may_meet)
        if conflicts or self._awaited(die, touched):
            self._preload(die, number, ahead)
        if conflicts:
            self._separate(die, following)
        self._await_fills(die, touched)
        self.preloads.pop(die, None)
        state.run(reads, writes, (access.view for access in touched))

    def _separate(self, die: int, following: Sequence[Step]) -> None:
        """The kernels run so far end before the next one begins.

        The SPCs see to that themselves; the command processor waits where it is to know soon, for a copy.
        """
        is_longer = self.machine.die_barrier_cycles <= self.machine.spcs_meet_cycles
        if is_longer or self._is_to_know(self.dies[die], following):
            self._barrier(1 << die)
            return
        self.commands.append(Command("barrier", ("spcs",), 1 << die))
        self.dies[die].meet()

    def _is_to_know(self, state: DieState, following: Sequence[Step]) -> bool:
        """Whether a copy comes before one of the next kernels, to where one that was run may still be at work."""
        kernels = 0
        for step in following:
            kernels += isinstance(step, KernelStep)
            if kernels == KERNELS_AHEAD:
                break
            if isinstance(step, CopyStep):
                written = whole_of(self.buffers[step.target])
                touch = bytes_of(self.buffers[step.target]), written
                if state.unfinished.conflicts((), (touch,), self._may_meet):
                    return True
        return False

    def _await_fills(self, die: int, wanted: Sequence[Access]) -> None:
        """Wait for what is on its way to these accesses."""
        for fill in self._awaited(die, wanted):
            self._wait([(die, fill)])

    def _awaited(self, die: int, wanted: Sequence[Access]) -> list[Fill]:
        """What is on its way to these accesses; of a buffer that comes in pieces only what they may reach."""
        state = self.dies[die]

        def reach(piece: View) -> bool:
            return any(a.view.buffer == piece.buffer and self._meet(a.view, piece) for a in wanted)

        fills = state.fills(access.view.buffer for access in wanted)
        return [fill for fill in fills if fill[1] < PIECES or reach(state.flying[fill][0])]

    def _meet(self, one: View, other: View) -> bool:
        """Whether two views may have elements in common, as the verifier can tell."""
        left, right = self._described(one), self._described(other)
        return bool(overlaps(left, whole_view(left), right, whole_view(right)).any())

    def _may_meet(self, one: View, other: View) -> bool:
        """The same of what SPCs touch of the views, which the verifier tells apart where the strides are the same."""
        return one.strides != other.strides or self._meet(one, other)

    def _barrier(self, mask: int, scope: str = "die") -> None:
        self.commands.append(Command("barrier", (scope,), mask))
        now = self._now()
        for die, state in enumerate(self.dies):
            if mask >> die & 1:
                state.barrier(now)
                if scope == "device":
                    state.hear(now)

    def _now(self) -> int:
        """The time of the next command."""
        self.time += 1
        return self.time

    def _touches(self, kernels: Sequence[Kernel]) -> tuple[set[Touch], set[Touch]]:
        """What kernels read and write; in tensor buffers each SPC sees its own alone, and runs kernels in order."""
        reads: set[Touch] = set()
        writes: set[Touch] = set()
        for op, access in (found for kernel in kernels for found in accesses_of(kernel)):
            (writes if op == "vst" else reads).update(self._reached((access.view,)))
        return reads, writes

    def _reached(self, views: Iterable[View]) -> Iterator[Touch]:
        """What views reach outside of tensor buffers."""
        for view in views:
            buffer = self.buffers[view.buffer]
            if buffer.space != "tb":
                yield view_range(view, buffer), view

    def _bind(self, mask: int, views: Sequence[View]) -> None:
        """Bind what is not bound yet. In later rounds, tensors of which each chunk has its part move on."""
        for slot, view in enumerate(views):
            step_bytes = self.advances.get(view.buffer, 0) if self.in_loop else 0
            descriptor = self._descriptor(view, step_bytes)
            needed = 0
            for die, state in enumerate(self.dies):
                if mask >> die & 1 and state.bound.get(slot) != descriptor:
                    needed |= 1 << die
                    state.bound[slot] = descriptor
            if needed:
                advance = (step_bytes,) if step_bytes else ()
                self.commands.append(Command("bind", (slot, descriptor, advance), needed))

    def _copy(self, source: Buffer, target: Buffer, mask: int) -> None:
        """A DMA copy to be waited for by the first kernel that reads the target."""
        for part, dies, written, read in self._parts(source, target, mask):
            event = self._take_event()
            states = [state for die, state in enumerate(self.dies) if dies >> die & 1]
            touch = view_range(written, target), written
            if any(state.unfinished.conflicts((), (touch,), self._may_meet) for state in states):
                self._barrier(dies)
            views = [
                self._descriptor(view) if part >= PIECES else self._bytes(buffer, view)
                for buffer, view in ((target, written), (source, read))
            ]
            self.commands.append(Command("copy", (*views, (), (), event), dies, once=target.name in self.residents))
            for state in states:
                state.start((target.name, part), event, (written, read))

    def _parts(self, source: Buffer, target: Buffer, mask: int) -> Iterator[tuple[int, int, View, View]]:
        """The copies that fill a buffer: for each its part, the dies, and what is written and read."""
        if source.shared:
            yield from ((die, 1 << die, half_of(target, die), whole_of(source)) for die in range(self.plan.dies))
            return
        users: dict[tuple[View, ...], int] = {}  # the dies that see a buffer in such pieces
        for die in (die for die in range(self.plan.dies) if mask >> die & 1):
            pieces = pieces_of(target, self.views[target.name][die], self.machine)
            users[pieces] = users.get(pieces, 0) | 1 << die
        if not all(users):
            yield WHOLE, mask, whole_of(target), whole_of(source)
            return
        for pieces, dies in users.items():
            for part, piece in enumerate(pieces, PIECES):
                yield part, dies, piece, replace(piece, buffer=source.name)

    def _share(self, target: Buffer) -> None:
        """Each die sends its half of a buffer to the other; to be waited for by the first kernel that reads it."""
        for sender in range(self.plan.dies):
            for fill in self.dies[sender].fills((target.name,)):
                if fill[1] == sender:
                    self._wait([(sender, fill)])
        halves = [half_of(target, sender) for sender in range(self.plan.dies)]
        if any(self._may_still_use(1 - sender, half) for sender, half in enumerate(halves)):
            self._barrier((1 << self.plan.dies) - 1, "device")
        for sender, half in enumerate(halves):
            event = self._take_event(sender)
            descriptor = self._bytes(target, half)
            self.commands.append(Command("transfer", (descriptor, descriptor, event), 1 << sender))
            self.told[event] = sender, self._now()
            self.dies[sender].start((target.name, SENT), event, ())
            self.dies[1 - sender].start((target.name, sender), event, ())

    def _users(self, name: str) -> int:
        """The mask of the dies whose kernels touch a buffer."""
        return sum(1 << die for die, views in enumerate(self.views.get(name, ())) if views)

    def _take_event(self, sender: int | None = None) -> int:
        """The next event in turn that nothing is going to set; when all are, the oldest copy is waited for first.

        A transfer's is to be one of which the sender knows that the other die waited for its last use.
        """
        pending = [event for state in self.dies for event in state.copies.values()]
        if len(set(pending)) == EVENTS:
            self._await_event(pending[0])
        taken = {event for state in self.dies for event in state.copies.values()}
        unheard = self.dies[1 - sender].waited if sender is not None else {}
        turn = [event % EVENTS for event in range(self.next_event, self.next_event + EVENTS)]
        event = next((event for event in turn if event not in taken and event not in unheard), None)
        if event is None:
            self._barrier((1 << self.plan.dies) - 1, "device")
            event = next(event for event in turn if event not in taken)
        self.next_event = event + 1
        return event

    def _await_event(self, event: int) -> None:
        """Wait for a copy or transfer on every die that is to know of it."""
        fills = [(die, fill) for die, state in enumerate(self.dies) for fill, e in state.copies.items() if e == event]
        self._wait(fills)

    def _wait(self, fills: Sequence[tuple[int, Fill]]) -> None:
        """Wait on dies for what one event tells; with what came from the other die came word of what that had done."""
        now = self._now()
        (event,) = {self.dies[die].wait(fill, now) for die, fill in fills}
        mask = sum(1 << die for die, _ in fills)
        once = any(name in self.residents for _, (name, _) in fills)
        self.commands.append(Command("wait", (event,), mask, once=once))
        sender, known = self.told.get(event, (0, 0))
        if event in self.told and mask >> (1 - sender) & 1:
            self.dies[sender].hear(known)
            del self.told[event]

    def _exchange(self, step: ExchangeStep, steps: Sequence[Step]) -> None:
        """Transfers between the dies, with everything before them finished and everything after them waiting."""
        everyone = (1 << self.plan.dies) - 1
        self._before_exchange(step, everyone)
        events = []
        for number, exchange in enumerate(step.exchanges):
            fill = (exchange.view.buffer, number)
            event = self._take_event(exchange.sender)
            view = self._descriptor(exchange.view)
            self.commands.append(Command("transfer", (view, view, event), 1 << exchange.sender))
            self.told[event] = exchange.sender, self._now()
            events.append(event)
            for state in self.dies:
                state.start(fill, event, ())
        self._announce(steps)
        for event in events:
            if event in self.told:  # Else all were in use, and it was waited for before.
                self._await_event(event)

    def _before_exchange(self, step: ExchangeStep, everyone: int) -> None:
        """Each die waits for its own work, and for the other's only where that may still use what is overwritten."""
        if any(self._may_still_use(1 - e.sender, e.view) for e in step.exchanges):
            self._barrier(everyone, "device")
            return
        for die, state in enumerate(self.dies):
            if state.unfinished.reads or state.unfinished.writes:
                self._barrier(1 << die)

    def _may_still_use(self, die: int, view: View) -> bool:
        """Whether a die may touch bytes of a view in work that the other die has not heard the end of.

        Of an exchanged buffer each die has parts of its own: what counts is whether the verifier can tell them apart.
        """
        written = bytes_of(self.buffers[view.buffer])
        for used in self.dies[die].in_use():
            if overlap(written, (bytes_of(self.buffers[used.buffer]),)) and (
                used.buffer != view.buffer or self._meet(view, used)
            ):
                return True
        return False

    def _bytes(self, buffer: Buffer, part: View) -> int:
        """The descriptor of a dense part of a buffer as bytes."""
        _, first, end = view_range(part, buffer)
        dims = copy_dims(replace(buffer, num_bytes=end - first), self.machine.max_dim)
        if dims is None:
            raise InternalError(f"{end - first} B cannot be described for a copy", where=buffer.name)
        return self._number(Descriptor(buffer.space, first, "u8", dims, row_major_strides(dims)))

    def _descriptor(self, view: View, moved_bytes: int = 0) -> int:
        return self._number(self._described(view, moved_bytes))

    def _described(self, view: View, moved_bytes: int = 0) -> Descriptor:
        return descriptor(view, self.buffers[view.buffer], moved_bytes)

    def _number(self, descriptor: Descriptor) -> int:
        return self.descriptors.setdefault(descriptor, len(self.descriptors))

    def _port(self, boundary: Boundary) -> Port:
        pieces = tuple(
            Piece(mask, self._descriptor(view), start, boundary.part(view)) for mask, start, view in boundary.pieces
        )
        held = [self.buffers[view.buffer].dtype for _, _, view in boundary.pieces]
        element = held[0] if held else dtype(boundary.dtype).device or boundary.dtype
        return Port(boundary.name, element, boundary.shape, pieces)


def _ahead(kernels: Sequence[Kernel]) -> list[Access]:
    """What kernels can load ahead of their run."""
    return [kernel.contraction.b for kernel in kernels if kernel.contraction is not None]


def _written_by(step: Step) -> tuple[str, ...]:
    """The buffers that a copy or an exchange fills."""
    match step:
        case CopyStep():
            return (step.target,)
        case ShareStep():
            return (step.buffer,)
        case ExchangeStep():
            return tuple(exchange.view.buffer for exchange in step.exchanges)
        case KernelStep():
            return ()


def generate(plan: Plan, machine: Machine, writer: KernelWriter | None = None) -> Generated:
    """The program of a tiled, scheduled and allocated plan. A `writer` remembers the kernels of other plans."""
    return ProgramWriter(plan, machine, writer or KernelWriter(machine)).write()
