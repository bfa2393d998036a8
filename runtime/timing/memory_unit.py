"""Loads and stores of one SPC: what each moves, how many are in flight, when their data is there."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

from birc.runtime.errors import InternalError
from birc.runtime.timing.ops import Op, Shape
from birc.runtime.timing.ports import NEVER, Route, SharedPorts
from birc.runtime.timing.queues import Queue, affine_at
from birc.runtime.timing.result import Variant
from birc.runtime.timing.state import LOADS_FULL, PROGRAM_BYTES, STORES_FULL, SpcState
from birc.runtime.timing.steps import VECTOR, AccessSpec
from birc.runtime.timing.traffic import count_in_bounds, touched_bytes

_WHOLE: Final = Fraction(1)


class MemoryUnit:
    """The memory side of an SPC.

    Handlers return when the queue may issue again, or -1 when they could not start.
    """

    __slots__ = ("_is_hbm", "_issue_cycles", "ports", "routes", "state")

    def __init__(self, state: SpcState, routes: list[Route]) -> None:
        self.state = state
        self.routes = routes
        self.ports = SharedPorts(routes, 2 * len(state.queues))
        self._is_hbm = [route.kind == "hbm" for route in routes]
        self._issue_cycles = state.machine.issue_cycles

    def prepare(self, op: Op) -> None:
        """Look up the route of a memory instruction."""
        op.route = self.routes.index(_access(op).route)
        op.handler = self.store if _access(op).route.store else self.load

    def load(self, slot: int, queue: Queue, op: Op) -> int:
        """tlda, tldb, vld, vldx."""
        if queue.loads >= queue.max_loads:
            queue.blocked = LOADS_FULL
            return -1
        queue.loads += 1
        state = self.state
        register = -1
        index_shape: Shape = ()
        if queue.registers:
            register = queue.registers[-1]
            shape = _access(op).shape
            if _access(op).indexed:
                index_shape = state.shapes[queue.registers[0]]
                shape = _broadcast(shape, index_shape)
            state.shapes[register] = shape
            state.ready[register] = NEVER
        self._start(slot, queue, op, register, index_shape)
        return state.now + self._issue_cycles

    def store(self, slot: int, queue: Queue, op: Op) -> int:
        """vst."""
        if queue.stores >= queue.max_loads:
            queue.blocked = STORES_FULL
            return -1
        queue.stores += 1
        self._start(slot, queue, op, -1, ())
        return self.state.now + self._issue_cycles

    def _start(self, slot: int, queue: Queue, op: Op, register: int, index_shape: Shape) -> None:
        """Send the transfer to its ports; one without any byte in bounds only takes the latency."""
        state = self.state
        cursor = queue.cursor
        variables = cursor.variables
        counts = tuple(
            [
                axis.fixed
                if axis.fixed is not None
                else count_in_bounds(affine_at(axis.start, variables), axis.step, axis.extent, axis.low, axis.high)
                for axis in op.spec.access.axes  # type: ignore[union-attr]
            ]
        )
        key = (counts, index_shape)
        known = op.known.get(key)
        if known is None:
            known = op.known[key] = self._measure(op, counts, index_shape)
        variant, num_bytes = known
        state.executed[variant] += 1
        hbm = self._is_hbm[op.route]
        queue.from_hbm += hbm
        route = self.routes[op.route]
        comes_in = queue.number >= VECTOR and not route.store and route.kind != "tb"
        tag = (slot, register, op.posts_at(cursor), num_bytes if comes_in else 0)
        if num_bytes:
            store = register < 0 and route.store
            self.ports.submit(2 * slot + store, op.route, num_bytes, tag, state.now)
        else:
            state.arrives(state.now + route.latency_cycles, tag, route.store, hbm)

    def transfers_end(self, now: int) -> None:
        """The last bytes of transfers have left their ports; a latency later they have arrived."""
        for number, tag in self.ports.finish(now):
            route = self.routes[number]
            self.state.sums[PROGRAM_BYTES] += tag[3]
            self.state.arrives(now + route.latency_cycles, tag, route.store, self._is_hbm[number])

    def _measure(self, op: Op, counts: tuple[int, ...], index_shape: Shape) -> tuple[int, int]:
        """The variant and the bytes over the ports of an access with these elements in bounds."""
        access = _access(op)
        rows = 1
        if access.indexed:
            rows = math.prod(_broadcast(access.shape, index_shape)) // max(1, math.prod(access.shape))
        granule = self.state.machine.granule_bytes
        moved = rows * touched_bytes(counts, access.pitches, access.element_bytes, granule)
        payload = rows * math.prod(counts) * access.element_bytes
        route = access.route
        kind = "l2 write" if route.store and route.kind == "l2" else route.kind
        memory = (kind, moved * Fraction(1, route.shared_by))
        noc = () if route.kind == "tb" else (("noc out" if route.store else "noc in", moved * _WHOLE),)
        variant = Variant(
            op.spec.index,
            bytes_read=0 if route.store else payload,
            bytes_written=payload if route.store else 0,
            traffic=(memory, *noc),
        )
        return self.state.add_variant(variant), moved


def _access(op: Op) -> AccessSpec:
    if op.spec.access is None:
        raise InternalError(f"{op.spec.mnemonic} has no box")
    return op.spec.access


def _broadcast(shape: Shape, other: Shape) -> Shape:
    if len(shape) != len(other):
        return shape
    return tuple(max(pair) for pair in zip(shape, other, strict=True))
