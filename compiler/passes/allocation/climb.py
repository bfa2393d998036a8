"""Hill climbing: better placements by changing the priorities with which blocks are placed.

Two kinds of steps take turns. A squeaky wheel (Joslin and Clements, "Squeaky Wheel Optimization", 1999) raises the
priority of every block that ends above the lower bound. A swap takes a block at the peak, or one of those that it
rests on, and exchanges its priority with that of a neighbour; it stays when the placement is not higher.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from birc.compiler.passes.allocation.greedy import PRIORITIES, Addresses, lowest_first, priorities
from birc.compiler.passes.allocation.problem import Problem

RAISE = 0.5
"""Squeaking blocks rise by up to this share of their priority."""
PATIENCE = 50
"""Placements in a row without progress after which the squeaky wheel goes back to the best."""
SHAKE = 0.2
"""The width in which priorities are changed then."""
FACTORS = (0.25, 0.5, 2.0, 4.0)
"""By which a priority is changed when it is not swapped."""
SEED = 0


@dataclass(slots=True)
class _Climber:
    """One climb: the best placement so far and the priorities that gave it."""

    problem: Problem
    goal: int
    random: Random
    priority: list[float]
    addresses: Addresses
    height: int

    def is_done(self) -> bool:
        """Whether nothing better is asked for."""
        return self.height <= self.goal

    def take(self, priority: list[float], addresses: Addresses | None) -> bool:
        """Keep a placement that is not higher; whether it is lower."""
        height = self.height + 1 if addresses is None else self.problem.height(addresses)
        if addresses is None or height > self.height:
            return False
        is_lower = height < self.height
        self.priority, self.addresses, self.height = priority, addresses, height
        return is_lower

    def squeak(self, count: int) -> None:
        """Raise what ends too high, `count` times."""
        current, placed, idle = self.priority, self.addresses, 0
        for _ in range(count):
            if self.is_done():
                return
            if idle == PATIENCE:
                largest = max(self.priority)
                current = [p / largest * (1 + SHAKE * (self.random.random() - 0.5)) for p in self.priority]
                idle = 0
            else:
                ends = (low + size for low, size in zip(placed, self.problem.sizes, strict=True))
                current = [
                    p * (1 + RAISE * self.random.random()) if end > self.goal else p
                    for p, end in zip(current, ends, strict=True)
                ]
            placed = lowest_first(self.problem, current) or placed
            idle = 0 if self.take(current, placed) else idle + 1

    def swap(self, count: int) -> None:
        """Change priorities under the peak, `count` times."""
        for _ in range(count):
            if self.is_done():
                return
            changed = list(self.priority)
            resting = self._under_the_peak()
            for _ in range(self.random.choice((1, 1, 2, 3))):
                block = self.random.choice(resting)
                others = self.problem.neighbours[block]
                if others and self.random.random() < 0.6:
                    other = self.random.choice(others)
                    changed[block], changed[other] = changed[other], changed[block]
                else:
                    changed[block] *= self.random.choice(FACTORS)
            self.take(changed, lowest_first(self.problem, changed, self.height))

    def _under_the_peak(self) -> list[int]:
        """A block that ends highest, and all on which it rests."""
        sizes, addresses = self.problem.sizes, self.addresses
        peaks = [b for b, size in enumerate(sizes) if addresses[b] + size == self.height]
        found = [self.random.choice(peaks)]
        seen = set(found)
        for block in found:
            for other in self.problem.neighbours[block]:
                if other not in seen and addresses[other] + sizes[other] == addresses[block]:
                    seen.add(other)
                    found.append(other)
        return found


def climb(problem: Problem, goal: int, iterations: int) -> tuple[str, Addresses]:
    """The lowest placement of so many, divided over the starting points; ends early at a height of `goal`."""
    best: _Climber | None = None
    starts = list(PRIORITIES)[:3]
    for number, name in enumerate(starts):
        priority = priorities(problem, name)
        addresses = lowest_first(problem, priority) or []
        climber = _Climber(problem, goal, Random(SEED), priority, addresses, problem.height(addresses))
        share = (iterations * (number + 1)) // len(starts) - (iterations * number) // len(starts)
        climber.squeak(share // 2)
        climber.swap(share - share // 2)
        if best is None or climber.height < best.height:
            best = climber
        if best.is_done():
            break
    return "hill climbing", best.addresses if best is not None else []
