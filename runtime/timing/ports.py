"""Ports that transfers share fairly, in exact integer arithmetic.

A transfer takes a *route* over one or more ports. Transfers of one queue are served one after the other;
those of different queues share their ports max-min fairly: every port's rate is divided evenly among the
transfers on it, and what one of them cannot use because another of its ports is narrower goes to the
others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

# Rates are rounded down to 1/5040 byte a cycle: divisible by 1 to 10, so that most shares are exact.
RATE_SCALE: Final = 5_040
NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Port:
    """A port of one SPC and its rate, or the SPC's share of something larger."""

    name: str
    bytes_per_cycle: Fraction


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one kind of transfer: ports with the part of each byte that loads them.

    `kind` says which bytes these are: "hbm", "l2", "tb" or "d2d"; `store` the direction. A multicast loads the
    memory side of its route with only its share of each byte (`shared_by` receivers).
    """

    kind: str
    store: bool
    usage: tuple[tuple[Port, Fraction], ...]
    latency_cycles: int
    shared_by: int = 1


def fair_rates(routes: Sequence[Route], active: Sequence[int]) -> list[Fraction]:
    """Bytes a cycle of one transfer on each route, while `active[i]` transfers are on route i."""
    rates = [Fraction(0)] * len(routes)
    open_routes = {index for index, count in enumerate(active) if count}
    left = {port: port.bytes_per_cycle for index in open_routes for port, _ in routes[index].usage}
    while open_routes:
        load: dict[Port, Fraction] = {}
        for index in open_routes:
            for port, part in routes[index].usage:
                load[port] = load.get(port, Fraction(0)) + part * active[index]
        level, narrowest = min(((left[port] / load[port], port) for port in load), key=lambda entry: entry[0])
        full = {index for index in open_routes if any(port == narrowest for port, _ in routes[index].usage)}
        for index in full:
            rates[index] = level
            for port, part in routes[index].usage:
                left[port] -= level * part * active[index]
        open_routes -= full
    return rates


class SharedPorts:
    """The transfers in progress of one SPC.

    Each flow (one direction of one queue) is served first in, first out. All transfers on a route progress
    at the same rate, so a route keeps one running sum of bytes per transfer (`_service`, scaled by
    `RATE_SCALE`) and a transfer ends when that sum reaches its mark. Ends are rounded up to whole cycles.
    """

    __slots__ = (
        "_active",
        "_counts",
        "_rates",
        "_routes",
        "_service",
        "_since",
        "_table",
        "_waiting",
        "next_time",
    )

    def __init__(self, routes: Sequence[Route], flows: int) -> None:
        self._routes = tuple(routes)
        self._active: dict[int, tuple[int, int, Any]] = {}  # flow -> (mark, route, tag)
        self._waiting: list[deque[tuple[int, int, Any]]] = [deque() for _ in range(flows)]
        self._counts = [0] * len(self._routes)
        self._rates: tuple[int, ...] = (0,) * len(self._routes)
        self._service = [0] * len(self._routes)
        self._table: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._since = 0
        self.next_time = NEVER

    def submit(self, flow: int, route: int, size: int, tag: Any, now: int) -> None:
        """Queue a transfer of `size` bytes (more than 0); `tag` comes back when it ends."""
        if flow in self._active:
            self._waiting[flow].append((size * RATE_SCALE, route, tag))
            return
        self._settle(now)
        self._active[flow] = (self._service[route] + size * RATE_SCALE, route, tag)
        self._counts[route] += 1
        self._retime(now)

    def finish(self, now: int) -> list[tuple[int, Any]]:
        """The (route, tag) of the transfers that end at `now`, in the order of their flows."""
        self._settle(now)
        service = self._service
        ended = [flow for flow, (mark, route, _) in self._active.items() if mark <= service[route]]
        ended.sort()
        done = []
        for flow in ended:
            _, route, tag = self._active.pop(flow)
            done.append((route, tag))
            self._counts[route] -= 1
            if self._waiting[flow]:
                size, route, tag = self._waiting[flow].popleft()
                self._active[flow] = (service[route] + size, route, tag)
                self._counts[route] += 1
        self._retime(now)
        return done

    def relative_state(self, now: int) -> tuple:
        """All that decides the future of the ports, without absolute times."""
        self._settle(now)
        active = tuple(
            (flow, mark - self._service[route], route, tag, tuple(self._waiting[flow]))
            for flow, (mark, route, tag) in sorted(self._active.items())
        )
        return active

    def shift(self, cycles: int) -> None:
        """Move everything into the future by `cycles`."""
        self._since += cycles
        if self.next_time != NEVER:
            self.next_time += cycles

    def _settle(self, now: int) -> None:
        elapsed = now - self._since
        if elapsed:
            rates = self._rates
            self._service = [done + rate * elapsed for done, rate in zip(self._service, rates, strict=True)]
            self._since = now

    def _retime(self, now: int) -> None:
        counts = tuple(self._counts)
        rates = self._table.get(counts)
        if rates is None:
            exact = fair_rates(self._routes, counts)
            rates = tuple(int(rate * RATE_SCALE) for rate in exact)
            self._table[counts] = rates
        self._rates = rates
        service = self._service
        soonest = NEVER
        for mark, route, _ in self._active.values():
            cycles = -((service[route] - mark) // rates[route])
            soonest = min(soonest, cycles)
        self.next_time = NEVER if soonest == NEVER else now + soonest
