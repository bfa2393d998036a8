"""The command stream: kernels, descriptors, copies and the barriers and waits that order them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from birc.codegen.command_log import CommandLog
from birc.codegen.constant_pieces import pieces_of
from birc.codegen.die_state import PIECES, SENT, WHOLE, DieState
from birc.codegen.generated import Generated
from birc.codegen.kernel_code import KernelWriter
from birc.codegen.regions import Range, Touch, bytes_of, half_of, overlap, view_range, whole_of
from birc.codegen.slots import Slots
from birc.compiler.ir.names import unused_name
from birc.compiler.ir.plan import (
    Access,
    Boundary,
    Buffer,
    CopyStep,
    ExchangeStep,
    FillStep,
    Kernel,
    KernelStep,
    Plan,
    ShareStep,
    Step,
    View,
)
from birc.compiler.ir.plan_access import accesses, accesses_of, views_by_buffer
from birc.compiler.ir.plan_beside import together
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine
from birc.runtime.package_sources import RunSource
from birc.runtime.program import Command, CommandLoop, ConstantImage, Piece, Port, Program
from birc.runtime.program import Kernel as KernelCode

KERNELS_AHEAD = 3
"""Copies that come before so many kernels more count when a barrier is chosen."""

_Bound = tuple[int, Sequence[Kernel], int]
"""A die, the kernels that run there as one, and the number of their code."""


@dataclass(frozen=True, slots=True)
class _Rest:
    """The steps from one on."""

    steps: Sequence[Step]
    start: int

    def __iter__(self) -> Iterator[Step]:
        return (self.steps[number] for number in range(self.start, len(self.steps)))

    def next_kernels(self) -> tuple[int, list[KernelStep]]:
        """The number of the next step that runs a kernel, and all that run with it."""
        first = next((n for n in range(self.start, len(self.steps)) if isinstance(self.steps[n], KernelStep)), None)
        if first is None:
            return len(self.steps), []
        group = next(together(self.steps, first))
        return first, [step for step in self.steps[first : group.stop] if isinstance(step, KernelStep)]


class ProgramWriter:
    """Writes the program of a plan."""

    def __init__(self, plan: Plan, machine: Machine, writer: KernelWriter) -> None:
        self.plan = plan
        self.writer = writer
        self.machine = machine
        self.log = CommandLog(plan, machine)
        self.views = views_by_buffer(plan)
        self.has_fills = any(isinstance(step, FillStep) for step in plan.steps)
        self.kernels: dict[int, int] = {}  # by the writer's numbers
        self.kernel_codes: list[KernelCode] = []
        self.runs: list[RunSource] = []
        self.preloads: dict[int, int] = {}  # by die, the kernel that loads ahead of its run
        self.bound: tuple[tuple[int, ...], list[_Bound]] = (), []  # the last steps, by identity
        self.elements: dict[str, str] = {}
        self.parts: dict[str, View] = {}

    def write(self) -> Generated:
        """The whole program. Raises `InternalError` for a plan without tilings or addresses."""
        everyone = self._active_dies()
        spcs = (1 << self.machine.spcs_per_die) - 1
        self.log.commands.append(Command("launch", (spcs, self.plan.name), everyone))
        self._round()
        if self.plan.repeat > 1:
            self._later_rounds(everyone)
        self.log.commands.append(Command("barrier", ("die" if everyone == 1 else "device",), everyone))
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
            commands=tuple(self.log.commands),
            inputs=tuple(self._port(b) for b in self.plan.inputs),
            outputs=tuple(self._port(b) for b in self.plan.outputs),
            constants=tuple(image for b in self.plan.buffers for image in self._images(b, everyone)),
            useful_macs=self.plan.macs,
        )
        # Ports add descriptors, so the table is complete only now.
        return Generated(
            replace(program, descriptors=tuple(self.log.descriptors)), tuple(self.runs), self.elements, self.parts
        )

    def _images(self, buffer: Buffer, dies: int) -> Iterator[ConstantImage]:
        """What the memory of the dies holds of a constant: the same on all, or a part of its own on each."""
        if buffer.role != "constant":
            return
        if not buffer.part_offsets:
            self.elements[buffer.name] = buffer.dtype
            yield ConstantImage(buffer.name, buffer.num_bytes, buffer.address, dies)
        for die, offset in enumerate(buffer.part_offsets):
            key = unused_name(f"{buffer.name}.{die}", self.log.buffers, self.elements)
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
        steps = _meetings_first(self.plan.steps)
        for group in together(steps):
            match steps[group.start]:
                case KernelStep():
                    of_group = [step for step in steps[group.start : group.stop] if isinstance(step, KernelStep)]
                    self._run(of_group, _Rest(steps, group.stop))
                case CopyStep(source, target, once, resident):
                    if not (self.log.in_loop and (once or resident)):
                        self._copy(self.log.buffers[source], self.log.buffers[target], _Rest(steps, group.start))
                case FillStep() as step:
                    self._fill(step, _Rest(steps, group.start))
                case ExchangeStep() as step:
                    self._exchange(step, _Rest(steps, group.start))
                case ShareStep(name):
                    if not self.log.in_loop:
                        self._share(self.log.buffers[name])

    def _later_rounds(self, everyone: int) -> None:
        """All rounds but the first, as a loop; a round begins when the one before has ended."""
        before = self.log.commands
        self.log.commands, self.log.in_loop = [], True
        for state in self.log.dies:
            state.bound.clear()
        self.bound = (), []
        self.log.barrier(everyone)
        self._round()
        body = tuple(self.log.commands)
        self.log.commands = [*before, CommandLoop(self.plan.repeat - 1, body)]

    def _run(self, steps: Sequence[KernelStep], following: _Rest) -> None:
        """Kernels that run side by side, or one; and the steps that come then."""
        dies_of_run: dict[int, list[tuple[int, Sequence[Kernel]]]] = {}
        codes = self._bound(steps)
        for die, kernels, number in codes:
            dies_of_run.setdefault(number, []).append((die, kernels))
        for die, kernels, number in codes:
            self._load_ahead(die, kernels, number)
        if any(self._may_overwrite(die, kernels) for die, kernels, _ in codes):
            self.log.meet_all()
        for die, kernels, _ in codes:
            self._order(die, kernels, following)
        for number, members in dies_of_run.items():
            mask = sum(1 << die for die, _ in members)
            macs = sum(kernel.macs for _, kernels in members for kernel in kernels)
            self.log.commands.append(Command("run", (number, macs), mask))
            first = members[0][1]
            sources = dict.fromkeys(source for kernel in first for source in kernel.sources)
            self.runs.append(RunSource(" + ".join(kernel.name for kernel in first), tuple(sources)))

    def _bound(self, steps: Sequence[KernelStep]) -> list[_Bound]:
        """The kernels of steps side by side, by die, with the number of their code, when their slots have been bound.

        A run takes the slots as they are when it is issued: binding goes on while earlier kernels work.
        """
        key = tuple(map(id, steps))
        if self.bound[0] == key:
            return self.bound[1]
        columns = enumerate(zip(*(step.kernels for step in steps), strict=True))
        instances = [(die, [kernel for kernel in column if kernel is not None]) for die, column in columns]
        continuing = any(step.continues for step in steps)
        codes = [(die, kernels, *self._code(kernels, continuing)) for die, kernels in instances if kernels]
        for die, _, _, slots in codes:
            self.log.bind(1 << die, slots.views)
        self.bound = key, [(die, kernels, number) for die, kernels, number, _ in codes]
        return self.bound[1]

    def _announce(self, rest: _Rest) -> None:
        """While `rest` begins with what takes time, let the next kernels load what none before them writes."""
        first, next_steps = rest.next_kernels()
        if not next_steps or self.preloads:
            return
        before = rest.steps[rest.start : first]
        written = [bytes_of(self.log.buffers[name]) for step in before for name in _written_by(step)]
        # Loads from HBM would hold up what goes through it.
        busy = any(space == "hbm" for space, _, _ in written)
        for die, kernels, number in self._bound(next_steps):
            ahead = _ahead(kernels)
            ranges = [bytes_of(self.log.buffers[access.view.buffer]) for access in ahead]
            if any(overlap(taken, written) or (busy and taken[0] == "hbm") for taken in ranges):
                continue
            self._load_ahead(die, kernels, number)

    def _load_ahead(self, die: int, kernels: Sequence[Kernel], number: int) -> None:
        """Load what kernels take ahead of their run, unless it is still being written, or loaded already.

        What is in a tensor buffer the kernel before may still use.
        """
        ahead = _ahead(kernels)
        pending = self.log.dies[die].pending
        self.log.await_fills(die, ahead)
        is_near = any(self.log.buffers[access.view.buffer].space == "tb" for access in ahead)
        if not ahead or is_near or die in self.preloads or not self.runs:
            return
        if not pending.conflicts(self.log.reached(access.view for access in ahead), (), self.log.overlap.may_meet):
            self.log.commands.append(Command("preload", (number,), 1 << die))
            self.preloads[die] = number

    def _code(self, kernels: Sequence[Kernel], continuing: bool) -> tuple[int, Slots]:
        """The number of the code of kernels that are one, new unless others have the same, and its slots."""
        code, slots, written = self.writer.emit(kernels, continuing=continuing)
        if written not in self.kernels:
            self.kernels[written] = len(self.kernel_codes)
            self.kernel_codes.append(code)
        return self.kernels[written], slots

    def _order(self, die: int, kernels: Sequence[Kernel], following: _Rest) -> None:
        """Waits and a barrier, where kernels touch what is still on its way or in use."""
        state = self.log.dies[die]
        touched = [access for kernel in kernels for access in accesses(kernel)]
        reads, writes = self._touches(kernels)
        if state.pending.conflicts(reads, writes, self.log.overlap.may_meet):
            self._separate(die, kernels, following)
        self.log.await_fills(die, touched)
        self.preloads.pop(die, None)
        local = self._local_touches(kernels) if self.has_fills else ()
        state.run({*reads, *local}, writes, (access.view for access in touched if not access.view.away))
        away = [replace(access.view, away=False) for access in touched if access.view.away]
        if away:
            self.log.dies[1 - die].use(away)

    def _may_overwrite(self, die: int, kernels: Sequence[Kernel]) -> bool:
        """Whether kernels store where the other die may still be at work, for all that they know."""
        stored = [access.view for kernel in kernels for access in accesses(kernel) if access.view.away]
        return any(self.log.may_still_use(1 - die, replace(v, away=False), kernels=True) for v in stored)

    def _separate(self, die: int, kernels: Sequence[Kernel], following: _Rest) -> None:
        """The kernels run so far end before the next one begins.

        The SPCs see to that themselves; the command processor waits where it is to know soon, for a copy.
        """
        is_longer = self.machine.die_barrier_cycles <= self.machine.spcs_meet_cycles
        if is_longer or self._is_to_know(self.log.dies[die], kernels, following):
            self.log.barrier(1 << die)
            return
        self.log.meet(die)

    def _is_to_know(self, state: DieState, kernels: Sequence[Kernel], following: _Rest) -> bool:
        """Whether copies come soon to where kernels that were run may be at work, and none where those until then are.

        Else they wait for these, and so for the others. `kernels` are run next. Where the SPCs of all dies meet before,
        the command processor can wait meanwhile.
        """
        copied: list[Touch] = []
        between, count = self._bytes_touched(kernels), 0
        for step in following:
            if self.has_fills and isinstance(step, ExchangeStep) and step.stored and not copied:
                return False
            for name in _copied(step):
                copied.append((bytes_of(self.log.buffers[name]), whole_of(self.log.buffers[name])))
            if not isinstance(step, KernelStep):
                continue
            is_awaited = any(state.unfinished.conflicts((), (touch,), self.log.overlap.may_meet) for touch in copied)
            if is_awaited and not any(overlap(target, between) for target, _ in copied):
                return True
            between |= self._bytes_touched([kernel for kernel in step.kernels if kernel is not None])
            copied, count = [], count + 1
            if count == KERNELS_AHEAD:
                break
        return False

    def _bytes_touched(self, kernels: Sequence[Kernel]) -> set[Range]:
        names = {access.view.buffer for kernel in kernels for access in accesses(kernel)}
        return {bytes_of(self.log.buffers[name]) for name in names}

    def _touches(self, kernels: Sequence[Kernel]) -> tuple[set[Touch], set[Touch]]:
        """What kernels read and write; in tensor buffers each SPC sees its own alone, and runs kernels in order."""
        reads: set[Touch] = set()
        writes: set[Touch] = set()
        for op, access in (found for kernel in kernels for found in accesses_of(kernel)):
            (writes if op == "vst" else reads).update(self.log.reached((access.view,)))
        return reads, writes

    def _local_touches(self, kernels: Sequence[Kernel]) -> Iterator[Touch]:
        """What kernels touch in tensor buffers: copies that fill these wait for them."""
        for view in (access.view for kernel in kernels for access in accesses(kernel)):
            buffer = self.log.buffers[view.buffer]
            if buffer.space == "tb":
                yield view_range(view, buffer), view

    def _copy(self, source: Buffer, target: Buffer, rest: _Rest) -> None:
        """A DMA copy, first of the `rest`, to be waited for by the first kernel that reads the target."""
        for part, dies, written, read in self._parts(source, target, self._users(target.name)):
            event = self.log.take_event()
            states = [state for die, state in enumerate(self.log.dies) if dies >> die & 1]
            touch = view_range(written, target), written
            is_stored = any(state.may_be_stored(touch, self.log.overlap.may_meet) for state in states)
            if is_stored or any(
                state.unfinished.conflicts((), (touch,), self.log.overlap.may_meet) for state in states
            ):
                self._announce(rest)
                self.log.barrier(dies, for_stored=is_stored)
            views = [
                self.log.descriptor(view) if part >= PIECES else self.log.bytes_descriptor(buffer, view)
                for buffer, view in ((target, written), (source, read))
            ]
            self.log.commands.append(
                Command("copy", (*views, (), (), event), dies, once=target.name in self.log.residents)
            )
            for state in states:
                state.start((target.name, part), event, (written, read))

    def _fill(self, step: FillStep, rest: _Rest) -> None:
        """A DMA copy into tensor buffers, first of the `rest`, to be waited for by the first kernel that reads them."""
        source, target = step.source, step.target
        touch = view_range(target, self.log.buffers[target.buffer]), target
        states = [(die, state) for die, state in enumerate(self.log.dies) if step.dies >> die & 1]
        for die, _ in states:
            self.log.await_fills(die, [Access(source, ())])
        if any(state.unfinished.conflicts((), (touch,), self.log.overlap.may_meet) for _, state in states):
            self._announce(rest)
            self.log.barrier(step.dies, for_stored=False)
        event = self.log.take_event()
        views = [self.log.descriptor(view) for view in (target, source)]
        self.log.commands.append(Command("copy", (*views, (), (), event), step.dies))
        for _, state in states:
            state.start((target.buffer, WHOLE), event, (target, source))

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
            for fill in self.log.dies[sender].fills((target.name,)):
                if fill[1] == sender:
                    self.log.wait([(sender, fill)])
        halves = [half_of(target, sender) for sender in range(self.plan.dies)]
        if any(self.log.may_still_use(1 - sender, half) for sender, half in enumerate(halves)):
            self.log.barrier(self.log.everyone, "device")
        for sender, half in enumerate(halves):
            event = self.log.take_event(sender)
            descriptor = self.log.bytes_descriptor(target, half)
            self.log.commands.append(Command("transfer", (descriptor, descriptor, event), 1 << sender))
            self.log.told[event] = sender, self.log.now()
            self.log.dies[sender].start((target.name, SENT), event, ())
            self.log.dies[1 - sender].start((target.name, sender), event, ())

    def _users(self, name: str) -> int:
        """The mask of the dies whose kernels touch a buffer."""
        return sum(1 << die for die, views in enumerate(self.views.get(name, ())) if views)

    def _exchange(self, step: ExchangeStep, rest: _Rest) -> None:
        """Transfers between the dies, with everything before them finished and everything after them waiting."""
        if step.stored:
            self._announce(rest)
            self.log.meet_all(step.exchanges)
            if self.has_fills:  # The command processors get to know meanwhile.
                self.log.barrier(self.log.everyone, for_stored=False)
            return
        self._before_exchange(step)
        events = []
        for number, exchange in enumerate(step.exchanges):
            fill = (exchange.view.buffer, number)
            event = self.log.take_event(exchange.sender)
            view = self.log.descriptor(exchange.view)
            self.log.commands.append(Command("transfer", (view, view, event), 1 << exchange.sender))
            self.log.told[event] = exchange.sender, self.log.now()
            events.append(event)
            for state in self.log.dies:
                state.start(fill, event, ())
        self._announce(rest)
        for event in events:
            if event in self.log.told:  # Else all were in use, and it was waited for before.
                self.log.await_event(event)

    def _before_exchange(self, step: ExchangeStep) -> None:
        """Each die waits for its own work, and for the other's only where that may still use what is overwritten."""
        if any(self.log.may_still_use(1 - e.sender, e.view) for e in step.exchanges):
            self.log.barrier(self.log.everyone, "device")
            return
        for die, state in enumerate(self.log.dies):
            if state.unfinished.reads or state.unfinished.writes:
                self.log.barrier(1 << die)

    def _port(self, boundary: Boundary) -> Port:
        pieces = tuple(
            Piece(mask, self.log.descriptor(view), start, boundary.part(view)) for mask, start, view in boundary.pieces
        )
        held = [self.log.buffers[view.buffer].dtype for _, _, view in boundary.pieces]
        element = held[0] if held else dtype(boundary.dtype).device or boundary.dtype
        return Port(boundary.name, element, boundary.shape, pieces)


def _meetings_first(steps: Sequence[Step]) -> list[Step]:
    """The steps with the stored exchanges between two kernels in front of what else is there.

    SPCs of both dies meet beside what the command processors wait for.
    """
    found: list[Step] = []
    begin = 0  # of the steps behind the last kernel
    for step in steps:
        if isinstance(step, ExchangeStep) and step.stored:
            found.insert(begin, step)
        else:
            found.append(step)
        if not isinstance(step, CopyStep | FillStep | ShareStep):
            begin = len(found)
    return found


def _ahead(kernels: Sequence[Kernel]) -> list[Access]:
    """What kernels can load ahead of their run."""
    return [kernel.contraction.b for kernel in kernels if kernel.contraction is not None]


def _copied(step: Step) -> tuple[str, ...]:
    """The buffer that a DMA copy inside of a die fills."""
    match step:
        case CopyStep():
            return (step.target,)
        case FillStep():
            return (step.target.buffer,)
        case _:
            return ()


def _written_by(step: Step) -> tuple[str, ...]:
    """The buffers that a copy or an exchange fills."""
    match step:
        case CopyStep() | FillStep():
            return _copied(step)
        case ShareStep():
            return (step.buffer,)
        case ExchangeStep():
            return tuple(exchange.view.buffer for exchange in step.exchanges)
        case KernelStep():
            return ()


def generate(plan: Plan, machine: Machine, writer: KernelWriter | None = None) -> Generated:
    """The program of a tiled, scheduled and allocated plan. A `writer` remembers the kernels of other plans."""
    return ProgramWriter(plan, machine, writer or KernelWriter(machine)).write()
