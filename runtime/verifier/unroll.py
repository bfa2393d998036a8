"""Kernels unrolled into arrays: for each instruction its iterations on one SPC and their sequential order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birc.runtime.program import Affine, Instruction, Kernel, Loop, Register, RingAddress, Window
from birc.runtime.verifier.scope import Place, places, trip_limits
from birc.runtime.verifier.structure import spc_loops

Ints = npt.NDArray[np.int64]
# The trip counts to walk instead of the real ones: (path of the loop, real trips of each entry) -> trips.
Shorten = Callable[["LoopPath", Ints], Ints]
LoopPath = tuple[int, ...]  # position in the nests, then in each body


@dataclass(frozen=True, slots=True)
class Instances:
    """The executions of one static instruction on one SPC, in order.

    `variables` is [n, depth]; `first` and `last` are bit masks [n] of the loops in their first and last
    iteration; `position` [n] is the place in the sequential order of the kernel.
    """

    place: Place
    variables: Ints
    first: Ints
    last: Ints
    position: Ints

    def values(self, affine: Affine) -> Ints:
        """An affine number in every iteration."""
        return affine_values(affine, self.variables)

    def ring(self, ring: RingAddress) -> Ints:
        """The byte address in every iteration."""
        return self.values(ring.base) + ring.stride * (self.values(ring.index) % ring.modulo)

    def where(self, masked_first: int, masked_last: int = 0) -> npt.NDArray[np.bool_]:
        """In which iterations all loops of the masks are in their first and last iteration."""
        return ((self.first & masked_first) == masked_first) & ((self.last & masked_last) == masked_last)

    def iteration(self, index: int) -> tuple[int, ...]:
        return tuple(int(value) for value in self.variables[index])


@dataclass(frozen=True, slots=True)
class Unrolled:
    """All executions of a kernel on one SPC: by static instruction, and how many there are."""

    instances: tuple[Instances, ...]
    events: int


@dataclass(slots=True)
class _Node:
    """A loop or instruction, unrolled: the iteration around that each entry belongs to, and its events."""

    parent: Ints  # [n] index of the iteration around
    variables: Ints
    first: Ints
    last: Ints
    events: Ints  # [n] events of this entry, inner loops included
    children: list[_Node]
    instruction: bool


def affine_values(affine: Affine, variables: Ints) -> Ints:
    """An affine number for each row of loop variables."""
    result = np.full(len(variables), affine.constant, np.int64)
    for depth, factor in affine.terms:
        result += factor * variables[:, depth]
    return result


def spc_coordinates(kernel: Kernel) -> Ints:
    """The variables of the spc loops on each SPC, [SPCs, loops]; SPC number = row number."""
    head: tuple[Loop, ...] = next((spc_loops(place.loops) for place in places(kernel)), ())
    extents = tuple(loop.extent for loop in head)
    if not extents:
        return np.zeros((1, 0), np.int64)
    return np.stack(np.unravel_index(np.arange(int(np.prod(extents))), extents), axis=1).astype(np.int64)


def whole(path: LoopPath, trips: Ints) -> Ints:
    """Walk every iteration."""
    return trips


def most_events(kernel: Kernel) -> int:
    """An upper bound of the executions of all instructions on one SPC."""
    total = 0
    for place in places(kernel):
        trips = zip(place.loops, trip_limits(place.loops), strict=True)
        total += math.prod(count for loop, count in trips if loop.level != "spc")
    return total


def unroll(kernel: Kernel, spc: Ints, shorten: Shorten = whole) -> Unrolled:
    """The executions of a kernel on the SPC whose spc loop variables are `spc`."""
    start = np.zeros(1, np.int64)
    root = _Node(start, np.zeros((1, 0), np.int64), start, start, start.copy(), [], instruction=False)
    root.children = [_expand(nest, root, spc, (index,), shorten) for index, nest in enumerate(kernel.nests)]
    _count(root)
    leaves: list[tuple[_Node, Ints]] = []
    _place(root, np.zeros(1, np.int64), leaves)
    instances = tuple(
        Instances(place, node.variables, node.first, node.last, position)
        for place, (node, position) in zip(places(kernel), leaves, strict=True)
    )
    return Unrolled(instances, int(root.events.sum()))


def _expand(item: Loop | Instruction, around: _Node, spc: Ints, path: LoopPath, shorten: Shorten) -> _Node:
    entries = len(around.variables)
    if isinstance(item, Instruction):
        everything = np.arange(entries)
        ones = np.ones(entries, np.int64)
        return _Node(everything, around.variables, around.first, around.last, ones, [], instruction=True)
    depth = around.variables.shape[1]
    trips = np.full(entries, item.extent, np.int64)
    if item.limit is not None:
        trips = np.minimum(trips, np.maximum(0, affine_values(item.limit, around.variables)))
    if item.level == "spc":
        # One iteration of the loop runs on this SPC, if it is there at all.
        parent = np.flatnonzero(spc[depth] < trips)
        variable = np.full(len(parent), spc[depth], np.int64)
    else:
        trips = shorten(path, trips)
        parent = np.repeat(np.arange(entries), trips)
        variable = np.arange(len(parent)) - np.repeat(np.cumsum(trips) - trips, trips)
    bit = np.int64(1 << depth)
    node = _Node(
        parent,
        np.concatenate([around.variables[parent], variable[:, None]], axis=1),
        around.first[parent] | np.where(variable == 0, bit, 0),
        around.last[parent] | np.where(variable == trips[parent] - 1, bit, 0),
        np.zeros(len(parent), np.int64),
        [],
        instruction=False,
    )
    node.children = [_expand(child, node, spc, (*path, index), shorten) for index, child in enumerate(item.body)]
    return node


def _count(node: _Node) -> None:
    for child in node.children:
        if not child.instruction:
            _count(child)
        node.events += np.bincount(child.parent, child.events, len(node.events)).astype(np.int64)


def _place(node: _Node, start: Ints, leaves: list[tuple[_Node, Ints]]) -> None:
    """Assign sequential positions: `start` is that of each entry of `node`."""
    offset = start.copy()
    for child in node.children:
        before = np.cumsum(child.events) - child.events
        # Exclusive sums restart with every iteration of the loop around.
        totals = np.bincount(child.parent, child.events, len(start)).astype(np.int64)
        base = np.cumsum(totals) - totals
        child_start = offset[child.parent] + before - base[child.parent]
        if child.instruction:
            leaves.append((child, child_start))
        else:
            _place(child, child_start, leaves)
        offset += totals


def spc_classes(kernel: Kernel, coordinates: Ints) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """SPCs whose trip counts, rings, registers and semaphores are the same: (representative, members)."""
    affines = _control_affines(kernel, coordinates.shape[1])
    columns = [affine_values(affine, coordinates) for affine in affines]
    if _masks(kernel) & ((1 << coordinates.shape[1]) - 1):
        columns += list(coordinates.T)
    groups: dict[tuple[int, ...], list[int]] = {}
    for spc in range(len(coordinates)):
        groups.setdefault(tuple(int(column[spc]) for column in columns), []).append(spc)
    return tuple((members[0], tuple(members)) for members in groups.values())


def _masks(kernel: Kernel) -> int:
    """All loops that some wait, post or instruction distinguishes the first or last iteration of."""
    mask = 0
    for place in places(kernel):
        for sync in place.instruction.waits + place.instruction.posts:
            mask |= sync.first | sync.last
        for field, value in zip(place.row.fields, place.instruction.operands, strict=True):
            if field.kind == "mask" and isinstance(value, int):
                mask |= value
    return mask


def _control_affines(kernel: Kernel, spc_depth: int) -> list[Affine]:
    """The parts in spc loop variables of every affine number but the boxes' starts."""
    found: dict[Affine, None] = {}
    for place in places(kernel):
        instruction = place.instruction
        numbers = [loop.limit for loop in place.loops if loop.limit is not None]
        numbers += [sync.semaphore for sync in instruction.waits + instruction.posts]
        for operand in instruction.operands:
            if isinstance(operand, RingAddress):
                numbers += [operand.base, operand.index]
            elif isinstance(operand, Register):
                numbers.append(operand.number)
            elif isinstance(operand, Window):
                numbers += [operand.top, operand.left]
        for number in numbers:
            part = Affine(0, tuple(term for term in number.terms if term[0] < spc_depth))
            if part.terms:
                found[part] = None
    return list(found)


def by_path(kernel: Kernel) -> Mapping[LoopPath, Loop]:
    """Every loop of a kernel by its path."""
    found: dict[LoopPath, Loop] = {}
    pending: list[tuple[LoopPath, Loop | Instruction]] = [((i,), nest) for i, nest in enumerate(kernel.nests)]
    while pending:
        path, item = pending.pop()
        if isinstance(item, Loop):
            found[path] = item
            pending.extend(((*path, index), child) for index, child in enumerate(item.body))
    return found
