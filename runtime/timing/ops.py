"""Instructions prepared for a walk: what does not change from one execution to the next is looked up once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from birc.runtime.errors import InternalError
from birc.runtime.timing.queues import Cursor, affine_at
from birc.runtime.timing.steps import VECTOR, StepSpec, SyncSpec

Shape: TypeAlias = tuple[int, ...]


class Op:
    """A step with what the units of the SPC know about it.

    `waits`, `posts` and `registers` (those read, then the one written) are None where they depend on the
    loops. `handler(slot, queue, op)` executes it; `known` remembers the costs of a handler.
    """

    __slots__ = ("handler", "known", "posts", "registers", "route", "spec", "variant", "waits")

    def __init__(self, spec: StepSpec) -> None:
        self.spec = spec
        self.waits = _fixed_semaphores(spec.waits)
        self.posts = _fixed_semaphores(spec.posts)
        self.registers = self._fixed_registers()
        self.handler: Callable[[int, Any, Op], int] = _no_handler
        self.known: dict[Any, Any] = {}
        self.variant = -1
        self.route = -1

    def waits_at(self, cursor: Cursor) -> tuple[int, ...]:
        """The semaphores that this execution waits for."""
        return _semaphores(self.spec.waits, cursor) if self.waits is None else self.waits

    def posts_at(self, cursor: Cursor) -> tuple[int, ...]:
        """The semaphores that this execution posts."""
        return _semaphores(self.spec.posts, cursor) if self.posts is None else self.posts

    def registers_at(self, cursor: Cursor) -> tuple[int, ...]:
        """The registers of this execution: those read, then the one written."""
        if self.registers is not None:
            return self.registers
        spec, variables = self.spec, cursor.variables
        numbers = [affine_at(number, variables) for number in spec.reads]
        if spec.writes is not None:
            numbers.append(affine_at(spec.writes, variables))
        return tuple(numbers)

    def _fixed_registers(self) -> tuple[int, ...] | None:
        if self.spec.queue < VECTOR:
            return ()
        writes = () if self.spec.writes is None else (self.spec.writes,)
        numbers = (*self.spec.reads, *writes)
        return None if any(number.terms for number in numbers) else tuple(n.constant for n in numbers)


def _no_handler(slot: int, queue: Any, op: Op) -> int:
    raise InternalError(f"the timing engine has no handler for {op.spec.mnemonic}")


def _fixed_semaphores(syncs: tuple[SyncSpec, ...]) -> tuple[int, ...] | None:
    if any(sync.semaphore.terms or sync.first or sync.last for sync in syncs):
        return None
    return tuple(sync.semaphore.constant for sync in syncs)


def _semaphores(syncs: tuple[SyncSpec, ...], cursor: Cursor) -> tuple[int, ...]:
    """The semaphores of the waits or posts that happen in this iteration."""
    variables, trips = cursor.variables, cursor.trips
    found = []
    for sync in syncs:
        for depth in sync.first:
            if variables[depth]:
                break
        else:
            for depth in sync.last:
                if variables[depth] != trips[depth] - 1:
                    break
            else:
                semaphore = sync.semaphore
                found.append(affine_at(semaphore, variables) if semaphore.terms else semaphore.constant)
    return tuple(found)
