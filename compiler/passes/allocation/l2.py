"""What lies in L2, for how long, and where: of several ways to decide, the first that gives addresses is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from birc.compiler.ir.plan import Plan
from birc.compiler.passes.allocation.blocks import Block, Placement
from birc.compiler.passes.allocation.place import place
from birc.compiler.passes.allocation.residence import Residence, Spans, reside
from birc.compiler.passes.allocation.room import Arena, LiveBytes, Room
from birc.compiler.passes.allocation.stretch import Stretch, stretched
from birc.compiler.passes.lifetimes import most_at_once

SLACK = 1.03
"""How much higher than the most bytes that live at once a placement may be that adds no barriers."""
ENOUGH = 1.01
"""How much higher the addresses are that came with the decision when no others are looked for."""
HOPELESS = 1.03
"""How much higher than the capacity a placement is whose buffers are not tried with shorter lives."""


@dataclass(frozen=True, slots=True)
class L2:
    """The L2 of a die, and the plan that is to use it."""

    plan: Plan
    spans: Spans
    capacity_bytes: int
    line_bytes: int
    spcs: int
    lasting_twins: bool = False

    def place(self, stretch: Stretch) -> tuple[Residence, Placement]:
        """What lies there, and the addresses of its stays in their order.

        Whether there is room is first said by live bytes alone, then by gaps. Tensors keep room from barrier to barrier
        at first; when more would spill then, or little else fits, they do so only where nothing else wants it.
        """
        least = self._reside(self._live_bytes(), None)
        return self._roomy(stretch, least) or self._tight(stretch, least)

    def _roomy(self, stretch: Stretch, least: Residence) -> tuple[Residence, Placement] | None:
        """With room from barrier to barrier, unless that takes more memory or leaves less in it than in `least`."""
        residence = self._reside(self._live_bytes(), stretch)
        placement = self._addresses(residence.kept, None)
        if placement.height_bytes > self.capacity_bytes:
            arena = Arena(self.capacity_bytes)
            residence = self._reside(arena, stretch)
            placement = self._addresses(residence.kept, arena)
        is_whole = (residence.spilled, residence.dropped) == (least.spilled, least.dropped)
        is_low = placement.height_bytes <= self._low(_most(residence.stays))
        return (residence, placement) if is_whole and is_low else None

    def _tight(self, stretch: Stretch, least: Residence) -> tuple[Residence, Placement]:
        """With room from barrier to barrier only below the most bytes that live at once anyway."""
        placement = self._stretched(least, stretch, None)
        if placement.height_bytes <= self.capacity_bytes:
            return least, placement
        arena = Arena(self.capacity_bytes)
        residence = self._reside(arena, None)
        return residence, self._stretched(residence, stretch, arena)

    def _stretched(self, residence: Residence, stretch: Stretch, arena: Arena | None) -> Placement:
        most = int(self._low(_most(residence.stays))) if self.plan.tensor_buffer_bytes else 0
        lives = stretched(residence.stays, stretch, len(self.plan.steps), min(self.capacity_bytes, most))
        placement = self._addresses(lives, None)
        is_low = placement.height_bytes <= min(self.capacity_bytes, SLACK * placement.lower_bound_bytes)
        if is_low or (arena is None and placement.height_bytes > HOPELESS * self.capacity_bytes):
            return placement
        return self._addresses(residence.stays, arena)

    def _low(self, live_bytes: int) -> float:
        """Up to what height a placement is low where so much lives at once; tensor buffers count as well."""
        local_bytes = self.plan.tensor_buffer_bytes * self.spcs
        return SLACK * (live_bytes + local_bytes) - local_bytes

    def _reside(self, room: Room, stretch: Stretch | None) -> Residence:
        return reside(self.plan, self.spans, room, self.line_bytes, stretch, lasting_twins=self.lasting_twins)

    def _live_bytes(self) -> LiveBytes:
        return LiveBytes(self.capacity_bytes, len(self.plan.steps))

    def _addresses(self, lives: Mapping[str, Block], arena: Arena | None) -> Placement:
        bound = _most(lives)
        if arena is not None and arena.height_bytes <= ENOUGH * bound:
            return Placement(tuple(arena.addresses), arena.height_bytes, bound, "as decided")
        known = None if arena is None else arena.addresses
        return place([*lives.values()], self.capacity_bytes, self.line_bytes, known=known)


def _most(lives: Mapping[str, Block]) -> int:
    """The most bytes that live at once."""
    return most_at_once((life.num_bytes, life.start, life.end - 1) for life in lives.values())
