"""Conflicts in memory inside a kernel: between the queues of an SPC, between iterations, between SPCs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from birc.runtime.verifier.access import Access
from birc.runtime.verifier.boxes import MOST_PAIRS, Bools, Boxes, byte_hulls, concatenate, overlaps, unique
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.onchip import common_par_depths, queue_name
from birc.runtime.verifier.unroll import Ints

# The loop variables of a static instruction's executions on an SPC.
Variables = Callable[[int, int], Ints]  # (static index, SPC)

LIMIT_ORDER = "a semaphore orders conflicting accesses"
LIMIT_PAR = "iterations of a par loop are independent"
LIMIT_SPCS = "SPCs are not ordered within a kernel: what one writes no other touches"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two accesses to the same memory, one at least a store; `pairs` [SPCs, SPCs] of hulls that meet."""

    left: Access
    right: Access
    pairs: Bools

    @property
    def spcs(self) -> Ints:
        """The SPCs on which both meet."""
        return np.flatnonzero(np.diagonal(self.pairs))


def find_conflicts(accesses: tuple[Access, ...]) -> Iterator[Conflict]:
    """Pairs of accesses whose hulls meet, on one SPC or on two."""
    for number, left in enumerate(accesses):
        for right in accesses[number:]:
            if not (left.store or right.store) or left.descriptor.space != right.descriptor.space:
                continue
            if not _spans_meet(left, right):
                continue
            pairs = overlaps(left.descriptor, left.hulls, right.descriptor, right.hulls)
            if left.descriptor.space == "tb":
                pairs &= np.eye(len(pairs), dtype=np.bool_)
            if pairs.any():
                yield Conflict(left, right, pairs)


def _spans_meet(left: Access, right: Access) -> bool:
    low, high = byte_hulls(left.descriptor, left.hulls)
    other_low, other_high = byte_hulls(right.descriptor, right.hulls)
    return bool(low.min() < other_high.max() and other_low.min() < high.max())


def check_between_spcs(conflict: Conflict, variables: Variables, findings: Findings) -> None:
    """Different SPCs must touch different bytes; hulls first, then box by box."""
    left, right = conflict.left, conflict.right
    between = conflict.pairs & ~np.eye(len(conflict.pairs), dtype=np.bool_)
    if not between.any():
        return
    these, owners = _boxes_by_spc(left, np.flatnonzero(between.any(axis=1)), variables)
    those, others = _boxes_by_spc(right, np.flatnonzero(between.any(axis=0)), variables)
    where = left.place.name() if left.store else right.place.name()
    if len(these) * len(those) > MOST_PAIRS:
        findings.add(where, "too many boxes to prove the SPCs apart", LIMIT_SPCS)
        return
    meets = overlaps(left.descriptor, these, right.descriptor, those) & (owners[:, None] != others[None, :])
    if meets.any():
        a, b = (int(index[0]) for index in np.nonzero(meets))
        what = f"SPC {owners[a]} and SPC {others[b]} (in {right.place.name()}) share bytes of slot {left.slot}"
        findings.add(where, what, LIMIT_SPCS)


def _boxes_by_spc(access: Access, spcs: Ints, variables: Variables) -> tuple[Boxes, Ints]:
    parts = [unique(access.boxes(variables(access.place.index, int(spc)))) for spc in spcs]
    owners = np.concatenate([np.full(len(part), spc) for spc, part in zip(spcs, parts, strict=True)])
    return concatenate(parts), owners


@dataclass(frozen=True, slots=True)
class Executions:
    """The executions of a static instruction on one SPC, with what each knew when it began."""

    variables: Ints
    position: Ints
    queue: Ints
    clocks: Ints

    @property
    def index(self) -> Ints:
        """The number of each execution in its queue."""
        return self.clocks[np.arange(len(self.queue)), self.queue]


def check_on_spc(conflict: Conflict, left: Executions, right: Executions, findings: Findings) -> None:
    """On one SPC, accesses to the same bytes must be ordered and lie in one iteration of each par loop."""
    if len(left.position) * len(right.position) > MOST_PAIRS:
        findings.add(conflict.left.place.name(), "too many boxes to prove them apart or ordered", LIMIT_ORDER)
        return
    these, those = conflict.left.boxes(left.variables), conflict.right.boxes(right.variables)
    meets = overlaps(conflict.left.descriptor, these, conflict.right.descriptor, those)
    if conflict.left.place.index == conflict.right.place.index:
        meets &= ~np.eye(len(meets), dtype=np.bool_)
    first, second = np.nonzero(meets)
    if not len(first):
        return
    _check_ordered(conflict, left, right, first, second, findings)
    _check_independent(conflict, left, right, first, second, findings)


def _check_ordered(
    conflict: Conflict, left: Executions, right: Executions, first: Ints, second: Ints, findings: Findings
) -> None:
    ahead = left.position[first] < right.position[second]
    right_knows = right.clocks[second, left.queue[first]] > left.index[first]
    left_knows = left.clocks[first, right.queue[second]] > right.index[second]
    same_queue = left.queue[first] == right.queue[second]
    racing = ~same_queue & ~np.where(ahead, right_knows, left_knows)
    if racing.any():
        worst = int(np.argmax(racing))
        a, b = int(first[worst]), int(second[worst])
        queues = f"{queue_name(int(left.queue[a]))} and {queue_name(int(right.queue[b]))}"
        what = f"{queues} meet in slot {conflict.left.slot}, unordered with {_name(conflict.right, right, b)}"
        findings.add(_name(conflict.left, left, a), what, LIMIT_ORDER)


def _check_independent(
    conflict: Conflict, left: Executions, right: Executions, first: Ints, second: Ints, findings: Findings
) -> None:
    for depth in common_par_depths(conflict.left.place, conflict.right.place):
        apart = left.variables[first, depth] != right.variables[second, depth]
        if apart.any():
            worst = int(np.argmax(apart))
            other = _name(conflict.right, right, int(second[worst]))
            what = f"touches what another iteration of the par loop at depth {depth} does, in {other}"
            findings.add(_name(conflict.left, left, int(first[worst])), what, LIMIT_PAR)


def _name(access: Access, executions: Executions, index: int) -> str:
    return access.place.name(tuple(int(value) for value in executions.variables[index]))
