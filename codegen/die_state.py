"""What is known of a die while its commands are written: what is on its way, and what the other die has heard of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field

from birc.codegen.regions import Meet, Pending, Touch
from birc.compiler.ir.plan import View

Fill = tuple[str, int]
"""A buffer that a copy or transfer fills, and which part of it."""
WHOLE = 0
SENT = 2
"""Parts: all of a buffer, or its halves 0 and 1; `SENT` stands for the half that a die sends, and has itself."""
PIECES = 3
"""The number of the first of several pieces."""


@dataclass(slots=True)
class DieState:
    """What is known of one die; times are the numbers of its commands.

    `pending` is what kernels touch since the SPCs last waited for each other, `unfinished` since the command processor
    waited for them. `copies` are the events of what is on its way, `flying` its views, `filling` it by buffer; `events`
    are those that are taken. `running` are the views that kernels use since then, `finished` those that the die knows
    to be done with, and since when, but of which the other die has not heard; `waited` are likewise events that it
    waited for. `apart` are the views used since the SPCs of both dies last waited for each other, and `stored` what the
    other die stored before that: done when a kernel is run that comes after.
    """

    bound: dict[int, int] = field(default_factory=dict)
    pending: Pending = field(default_factory=Pending)
    unfinished: Pending = field(default_factory=Pending)
    copies: dict[Fill, int] = field(default_factory=dict)
    flying: dict[Fill, tuple[View, ...]] = field(default_factory=dict)
    filling: dict[str, set[Fill]] = field(default_factory=dict)
    events: set[int] = field(default_factory=set)
    running: set[View] = field(default_factory=set)
    finished: dict[View, int] = field(default_factory=dict)
    waited: dict[int, int] = field(default_factory=dict)
    apart: set[View] = field(default_factory=set)
    stored: set[Touch] = field(default_factory=set)

    def start(self, fill: Fill, event: int, views: tuple[View, ...]) -> None:
        """A copy or transfer is on its way."""
        self.copies[fill] = event
        self.flying[fill] = views
        self.filling.setdefault(fill[0], set()).add(fill)
        self.events.add(event)
        self.apart.update(views)

    def wait(self, fill: Fill, time: int) -> int:
        """What is on its way has come; returns its event."""
        self.finished |= dict.fromkeys(self.flying.pop(fill), time)
        self.filling[fill[0]].remove(fill)
        event = self.copies.pop(fill)
        self.events.remove(event)
        self.waited[event] = time
        return event

    def run(self, reads: Set[Touch], writes: Set[Touch], views: Iterable[View]) -> None:
        """A kernel is run."""
        self.pending.add(reads, writes)
        self.unfinished.add(reads, {*writes, *self.stored})
        self.stored.clear()
        self.use(views)

    def use(self, views: Iterable[View]) -> None:
        """A kernel of either die touches what lies here."""
        used = set(views)
        self.running |= used
        self.apart |= used

    def meet(self) -> None:
        """All kernels have ended before any that follows begins."""
        self.pending.clear()

    def meet_all(self, stored: Iterable[Touch]) -> None:
        """Those of both dies have, and what they `stored` here is there."""
        self.pending.clear()
        self.apart = {view for views in self.flying.values() for view in views}
        self.stored.update(stored)

    def may_be_stored(self, touch: Touch, meet: Meet) -> bool:
        """Whether kernels of the other die, for all that this one knows, may still store what is touched."""
        return Pending(writes=self.stored).conflicts((), (touch,), meet)

    def barrier(self, time: int) -> None:
        """All kernels of this die have ended."""
        self.pending.clear()
        self.unfinished.clear()
        self.finished |= dict.fromkeys(self.running, time)
        self.running.clear()

    def hear(self, time: int) -> None:
        """The other die hears of all that this one knew at a time."""
        self.finished = {view: since for view, since in self.finished.items() if since > time}
        self.waited = {event: since for event, since in self.waited.items() if since > time}

    def in_use(self) -> Iterator[View]:
        """The views that, for all that the other die knows, may still be in use."""
        yield from self.running
        yield from self.finished
        for views in self.flying.values():
            yield from views

    def fills(self, names: Iterable[str]) -> list[Fill]:
        """What is on its way to these buffers."""
        return sorted(fill for name in set(names) for fill in self.filling.get(name, ()))
