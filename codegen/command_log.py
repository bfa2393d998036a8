"""What both parts of the command stream are written with: descriptors, slots, events, barriers and waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from birc.codegen.die_state import PIECES, DieState, Fill
from birc.codegen.kernel_code import descriptor
from birc.codegen.regions import Touch, bytes_of, overlap, view_range
from birc.compiler.ir.copies import copy_dims, row_major_strides
from birc.compiler.ir.plan import Access, Buffer, CopyStep, Exchange, Plan, View
from birc.compiler.ir.view_overlap import ViewOverlap
from birc.runtime.errors import InternalError
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.machine import Machine
from birc.runtime.program import Command, CommandLoop, Descriptor

EVENTS: Final = next(f.high or 0 for f in BY_MNEMONIC["wait"].fields if f.name == "event")


class CommandLog:
    """The commands so far, and what is known of the dies behind them.

    While `in_loop`, tensors of which each round of the plan has its part move on.
    """

    def __init__(self, plan: Plan, machine: Machine) -> None:
        self.machine = machine
        self.buffers: Mapping[str, Buffer] = {b.name: b for b in plan.buffers}
        self.descriptors: dict[Descriptor, int] = {}
        self.commands: list[Command | CommandLoop] = []
        self.in_loop = False
        self.dies = tuple(DieState() for _ in range(plan.dies))
        self.told: dict[int, tuple[int, int]] = {}  # by event on its way: the sender, and what it knew
        self.residents = {s.target for s in plan.steps if isinstance(s, CopyStep) and s.resident}
        self._advances = dict(plan.advances)
        self.overlap = ViewOverlap()
        self._next_event = 0
        self._time = 0

    @property
    def everyone(self) -> int:
        """The mask of all dies."""
        return (1 << len(self.dies)) - 1

    def bind(self, mask: int, views: Sequence[View]) -> None:
        """Bind what is not bound yet. In later rounds, tensors of which each chunk has its part move on."""
        for slot, view in enumerate(views):
            step_bytes = self._advances.get(view.buffer, 0) if self.in_loop else 0
            descriptor = self.descriptor(view, step_bytes)
            needed = 0
            for die, state in enumerate(self.dies):
                if mask >> die & 1 and state.bound.get(slot) != descriptor:
                    needed |= 1 << die
                    state.bound[slot] = descriptor
            if needed:
                advance = (step_bytes,) if step_bytes else ()
                self.commands.append(Command("bind", (slot, descriptor, advance), needed))

    def barrier(self, mask: int, scope: str = "die", *, for_stored: bool = True) -> None:
        """Dies wait for all their kernels, or all dies for each other.

        A die alone cannot know of the end of kernels of the other one that none of its own came after: it has to
        where what those stored here is touched next (`for_stored`).
        """
        if for_stored and any(state.stored for die, state in enumerate(self.dies) if mask >> die & 1):
            mask, scope = self.everyone, "device"
        self.commands.append(Command("barrier", (scope,), mask))
        now = self.now()
        for die, state in enumerate(self.dies):
            if mask >> die & 1:
                state.barrier(now)
                if scope == "device":
                    state.hear(now)
                    state.meet_all(())
                    state.stored.clear()

    def meet(self, die: int) -> None:
        """The SPCs of a die wait for each other: the kernels run so far end before any that follows begins."""
        self.commands.append(Command("barrier", ("spcs",), 1 << die))
        self.dies[die].meet()

    def meet_all(self, exchanges: Sequence[Exchange] = ()) -> None:
        """The SPCs of all dies wait for each other, behind kernels that store on the other die what is exchanged."""
        self.commands.append(Command("barrier", ("all_spcs",), self.everyone))
        for die, state in enumerate(self.dies):
            state.meet_all(self.reached(e.view for e in exchanges if e.sender != die))

    def now(self) -> int:
        """The time of the next command."""
        self._time += 1
        return self._time

    def await_fills(self, die: int, wanted: Sequence[Access]) -> None:
        """Wait for what is on its way to these accesses."""
        for fill in self.awaited(die, wanted):
            self.wait([(die, fill)])

    def awaited(self, die: int, wanted: Sequence[Access]) -> list[Fill]:
        """What is on its way to these accesses; of a buffer that comes in pieces only what they may reach."""
        state = self.dies[die]

        def reach(piece: View) -> bool:
            return any(self.overlap.may_overlap(a.view, piece) for a in wanted)

        fills = state.fills(access.view.buffer for access in wanted)
        return [fill for fill in fills if fill[1] < PIECES or reach(state.flying[fill][0])]

    def take_event(self, sender: int | None = None) -> int:
        """The next event in turn that nothing is going to set; when all are, the oldest copy is waited for first.

        A transfer's is to be one of which the sender knows that the other die waited for its last use.
        """
        taken = self._events()
        if len(taken) == EVENTS:
            self.await_event(next(event for state in self.dies for event in state.copies.values()))
            taken = self._events()
        unheard = self.dies[1 - sender].waited if sender is not None else {}
        turn = range(self._next_event, self._next_event + EVENTS)
        event = next((n % EVENTS for n in turn if n % EVENTS not in taken and n % EVENTS not in unheard), None)
        if event is None:
            self.barrier(self.everyone, "device")
            event = next(n % EVENTS for n in turn if n % EVENTS not in taken)
        self._next_event = event + 1
        return event

    def _events(self) -> set[int]:
        """The events of what is on its way."""
        return set[int]().union(*(state.events for state in self.dies))

    def await_event(self, event: int) -> None:
        """Wait for a copy or transfer on every die that is to know of it."""
        fills = [(die, fill) for die, state in enumerate(self.dies) for fill, e in state.copies.items() if e == event]
        self.wait(fills)

    def wait(self, fills: Sequence[tuple[int, Fill]]) -> None:
        """Wait on dies for what one event tells; with what came from the other die came word of what that had done."""
        now = self.now()
        (event,) = {self.dies[die].wait(fill, now) for die, fill in fills}
        mask = sum(1 << die for die, _ in fills)
        once = any(name in self.residents for _, (name, _) in fills)
        self.commands.append(Command("wait", (event,), mask, once=once))
        sender, known = self.told.get(event, (0, 0))
        if event in self.told and mask >> (1 - sender) & 1:
            self.dies[sender].hear(known)
            del self.told[event]

    def may_still_use(self, die: int, view: View, *, kernels: bool = False) -> bool:
        """Whether a die may touch bytes of a view in work that the other one, or its `kernels`, may not come after.

        Of an exchanged buffer each die has parts of its own: what counts is whether the verifier can tell them apart.
        """
        written = bytes_of(self.buffers[view.buffer])
        for used in self.dies[die].in_use():
            if kernels and used not in self.dies[die].apart:
                continue
            if overlap(written, (bytes_of(self.buffers[used.buffer]),)) and (
                used.buffer != view.buffer or self.overlap.may_overlap(view, used)
            ):
                return True
        return False

    def reached(self, views: Iterable[View]) -> Iterator[Touch]:
        """What views reach outside of tensor buffers."""
        for view in views:
            buffer = self.buffers[view.buffer]
            if buffer.space != "tb":
                yield view_range(view, buffer), view

    def bytes_descriptor(self, buffer: Buffer, part: View) -> int:
        """The descriptor of a dense part of a buffer as bytes."""
        _, first, end = view_range(part, buffer)
        dims = copy_dims(end - first, self.machine.max_dim)
        if dims is None:
            raise InternalError(f"{end - first} B cannot be described for a copy", where=buffer.name)
        return self._number(Descriptor(buffer.space, first, "u8", dims, row_major_strides(dims)))

    def descriptor(self, view: View, moved_bytes: int = 0) -> int:
        """The number of the descriptor of a view, whose buffer it sees from so many bytes on."""
        return self._number(descriptor(view, self.buffers[view.buffer], moved_bytes))

    def _number(self, descriptor: Descriptor) -> int:
        return self.descriptors.setdefault(descriptor, len(self.descriptors))
