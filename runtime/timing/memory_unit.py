"""Loads and stores of one SPC: what each moves, how many are in flight, when their data is there."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

from birc.runtime.timing.ports import NEVER, Route, SharedPorts
from birc.runtime.timing.queues import Queue, affine_at
from birc.runtime.timing.result import Variant
from birc.runtime.timing.state import LOADS_FULL, STORES_FULL, SpcState
from birc.runtime.timing.steps import AccessSpec, StepSpec
from birc.runtime.timing.traffic import count_in_bounds, touched_bytes

_WHOLE: Final = Fraction(1)


class MemoryUnit:
    """The memory side of an SPC. Handlers return when the queue may issue again, or -1 when they could not start."""

    __slots__ = ("_known", "_numbers", "ports", "routes", "state")

    def __init__(self, state: SpcState, routes: list[Route]) -> None:
        self.state = state
        self.routes = routes
        self._numbers = {route: number for number, route in enumerate(routes)}
        self.ports = SharedPorts(routes, 2 * len(state.queues))
        # What one execution of a step moves, by its elements in bounds and the shape of its index register:
        # (number of the variant, bytes over the ports).
        self._known: dict[tuple, tuple[int, int]] = {}

    def load(self, slot: int, queue: Queue, step: StepSpec) -> int:
        """tlda, tldb, vld, vldx."""
        state = self.state
        if queue.loads >= queue.max_loads:
            queue.blocked = LOADS_FULL
            return -1
        queue.loads += 1
        register = -1
        index_shape: tuple[int, ...] = ()
        access = step.access
        if step.writes is not None and access is not None:
            register = queue.registers[-1]
            if access.indexed:
                index_shape = state.shapes.get(queue.registers[0], ())
            state.shapes[register] = _broadcast(access.shape, index_shape) if index_shape else access.shape
            state.ready[register] = NEVER
        self._start(slot, queue, step, register, index_shape)
        return state.now + state.machine.issue_cycles

    def store(self, slot: int, queue: Queue, step: StepSpec) -> int:
        """vst."""
        if queue.stores >= queue.max_loads:
            queue.blocked = STORES_FULL
            return -1
        queue.stores += 1
        self._start(slot, queue, step, -1, ())
        return self.state.now + self.state.machine.issue_cycles

    def _start(
        self, slot: int, queue: Queue, step: StepSpec, register: int, index_shape: tuple[int, ...]
    ) -> None:
        access = step.access
        if access is None:
            raise TypeError(f"{step.mnemonic} without a box")
        state = self.state
        variables = queue.cursor.variables
        counts = tuple(
            axis.fixed
            if axis.fixed is not None
            else count_in_bounds(
                affine_at(axis.start, variables), axis.step, axis.extent, axis.low, axis.high
            )
            for axis in access.axes
        )
        key = (step.index, queue.number, counts, index_shape)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._measure(step, access, counts, index_shape)
        variant, num_bytes = known
        state.executed[variant] += 1
        route = access.route
        hbm = route.kind == "hbm"
        state.in_flight(hbm, 1)
        posts = state.resolve(step.posts, queue.cursor)
        tag = (slot, register, posts)
        if num_bytes:
            self.ports.submit(2 * slot + route.store, self._numbers[route], num_bytes, tag, state.now)
        else:
            state.arrives(state.now + route.latency_cycles, tag, route.store, hbm)

    def transfers_end(self, now: int) -> None:
        """The last bytes of transfers have left their ports; a latency later they have arrived."""
        for number, tag in self.ports.finish(now):
            route = self.routes[number]
            self.state.arrives(now + route.latency_cycles, tag, route.store, route.kind == "hbm")

    def _measure(
        self, step: StepSpec, access: AccessSpec, counts: tuple[int, ...], index_shape: tuple[int, ...]
    ) -> tuple[int, int]:
        """The variant and the bytes over the ports of an access with these elements in bounds."""
        granule = self.state.machine.granule_bytes
        rows = 1
        if access.indexed:
            rows = math.prod(_broadcast(access.shape, index_shape)) // max(1, math.prod(access.shape))
        moved = rows * touched_bytes(counts, access.pitches, access.element_bytes, granule)
        payload = rows * math.prod(counts) * access.element_bytes
        route = access.route
        memory = (route.kind, moved * Fraction(1, route.shared_by))
        noc = () if route.kind == "tb" else (("noc out" if route.store else "noc in", moved * _WHOLE),)
        variant = Variant(
            step.index,
            bytes_read=0 if route.store else payload,
            bytes_written=payload if route.store else 0,
            traffic=(memory, *noc),
        )
        return self.state.add_variant(variant), moved


def _broadcast(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != len(other):
        return shape
    return tuple(max(pair) for pair in zip(shape, other, strict=True))
