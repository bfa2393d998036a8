"""Which SPCs of a die behave alike in a kernel, told by the few numbers in which they differ.

An SPC has variables of its own. They move semaphores, registers and limits of loops, decide which masks hold, and say
where boxes begin; but where a box lies inside its tensor in every iteration does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import Affine, Box, Descriptor, Instruction, Kernel, Loop, Register
from birc.runtime.timing.routes import RoutePlan
from birc.runtime.timing.specialise import mask_depths, spc_loops
from birc.runtime.timing.steps import affine_range

Terms = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Share:
    """What an SPC's variables add to a number. Where that is in `low` to `high` it does not matter how much it is."""

    terms: Terms
    low: int = 0
    high: int = -1

    def of(self, variables: tuple[int, ...]) -> int | None:
        """The share of an SPC; None where it does not matter."""
        share = sum(factor * variables[depth] for depth, factor in self.terms)
        return None if self.low <= share <= self.high else share


def alike(kernel: Kernel, bindings: Mapping[int, Descriptor], plan: RoutePlan) -> list[list[int]]:
    """The SPCs of `plan.active` in groups, all of each alike; two groups may be so as well."""
    if plan.depends_on_spcs:
        return [[spc] for spc in plan.active]
    heads = spc_loops(kernel)
    shares: dict[_Share, None] = {}
    masked: set[int] = set()
    for item, trips in _items(kernel.nests, 0, {}):
        shares |= dict.fromkeys(_shares(item, trips, bindings, len(heads)))
        masked |= _masked(item)
    depths = sorted(depth for depth in masked if depth < len(heads))
    found: dict[object, list[int]] = {}
    for spc, variables in plan.active.items():
        ends = [
            (not variables[depth], variables[depth] == heads[depth].trip_count(variables[:depth]) - 1)
            for depth in depths
        ]
        found.setdefault((*ends, *(share.of(variables) for share in shares)), []).append(spc)
    return list(found.values())


def _items(
    items: tuple[Loop | Instruction, ...], depth: int, trips: dict[int, int]
) -> Iterator[tuple[Loop | Instruction, dict[int, int]]]:
    """Every loop that is not of level "spc" and every instruction, with the extents of such loops around it."""
    for item in items:
        if isinstance(item, Instruction):
            yield item, trips
        elif item.level == "spc":
            yield from _items(item.body, depth + 1, trips)
        else:
            yield item, trips
            yield from _items(item.body, depth + 1, {**trips, depth: item.extent})


def _shares(
    item: Loop | Instruction, trips: dict[int, int], bindings: Mapping[int, Descriptor], heads: int
) -> Iterator[_Share]:
    """The numbers of an item that the variables of `heads` loops over SPCs move."""
    for number in _numbers(item):
        own, _ = _parts(number, heads)
        if own:
            yield _Share(own)
    for operand in item.operands if isinstance(item, Instruction) else ():
        if not isinstance(operand, Box) or operand.slot not in bindings:
            continue
        descriptor = bindings[operand.slot]
        for axis, low, extent in zip(operand.axes, descriptor.lower, descriptor.dims, strict=True):
            own, others = _parts(axis.start, heads)
            if own:
                least, most = affine_range(others, trips)
                reach = (axis.extent - 1) * axis.step
                yield _Share(own, low - least - min(0, reach), low + extent - 1 - most - max(0, reach))


def _numbers(item: Loop | Instruction) -> Iterator[Affine]:
    """The numbers of semaphores, registers and limits."""
    if isinstance(item, Loop):
        if item.limit is not None:
            yield item.limit
        return
    for sync in (*item.waits, *item.posts):
        yield sync.semaphore
    for operand in item.operands:
        if isinstance(operand, Register):
            yield operand.number


def _masked(item: Loop | Instruction) -> set[int]:
    """The depths of the loops whose first or last iteration an instruction asks for."""
    if isinstance(item, Loop):
        return set()
    masks: list[Any] = [mask for sync in (*item.waits, *item.posts) for mask in (sync.first, sync.last)]
    fields = BY_MNEMONIC[item.mnemonic].fields
    masks += [value for field, value in zip(fields, item.operands, strict=True) if field.name == "first"]
    return {depth for mask in masks if mask for depth in mask_depths(mask)}


def _parts(number: Affine, heads: int) -> tuple[Terms, Affine]:
    """The terms of loops over SPCs, and the number without them."""
    own = tuple(term for term in number.terms if term[0] < heads)
    return own, Affine(number.constant, number.terms[len(own) :])
