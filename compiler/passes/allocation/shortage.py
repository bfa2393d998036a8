"""The answer when a memory is too small for what must lie in it: what is there at the peak, and how much it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from birc.compiler.ir.plan import Buffer, KernelStep, Plan, Step
from birc.compiler.passes.allocation.blocks import Block, aligned
from birc.compiler.passes.allocation.residence import Residence
from birc.compiler.passes.allocation.room import Arena
from birc.compiler.passes.lifetimes import instances, writes_of
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine

MOST_LISTED: Final = 5
"""Buffers that a message names."""

MEMORIES: Final[Mapping[str, str]] = {"hbm": "HBM of a die", "tb": "the tensor buffer of an SPC"}

Found = Sequence[tuple[Buffer, Block, int]]
"""Buffers with their lives and the addresses that were found for them, some of which are too high."""


class ShortageError(DoesNotFitError):
    """A memory ("hbm", "l2" or "tb") that is too small: of `capacity_bytes` the program takes `needed_bytes`."""

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        space: str = "hbm",
        needed_bytes: int = 0,
        capacity_bytes: int = 0,
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.space = space
        self.needed_bytes = needed_bytes
        self.capacity_bytes = capacity_bytes

    def with_hint(self, hint: str) -> ShortageError:
        """The same error with another hint."""
        return ShortageError(
            self.what,
            where=self.where,
            hint=hint,
            space=self.space,
            needed_bytes=self.needed_bytes,
            capacity_bytes=self.capacity_bytes,
        )


@dataclass(frozen=True, slots=True)
class _Peak:
    """The step at which most bytes live, and what lives there, the largest first."""

    step: int
    num_bytes: int
    buffers: tuple[Buffer, ...]


def shortage(plan: Plan, machine: Machine, space: str, capacity_bytes: int, found: Found) -> ShortageError:
    """The error that says why the buffers do not fit a memory of so many bytes."""
    peak = _peak(found)
    needed = max(peak.num_bytes, *(low + block.num_bytes for _, block, low in found))
    parts = [
        f"{peak.num_bytes} bytes must lie in {MEMORIES[space]}, which has {capacity_bytes}",
        *([f"no addresses were found below {needed}"] if peak.num_bytes <= capacity_bytes else []),
        *_hole_texts(found, capacity_bytes),
        f"at the peak, {_step_text(plan, peak.step)}, there are {_listed(plan, peak.buffers)}",
    ]
    hint = "compile it for smaller dimensions, another precision or a larger target"
    where = f"{plan.name} on {machine.name}"
    return ShortageError(
        "; ".join(parts), where=where, hint=hint, space=space, needed_bytes=needed, capacity_bytes=capacity_bytes
    )


def no_room_for_twins(plan: Plan, machine: Machine, residence: Residence, capacity_bytes: int) -> ShortageError:
    """The error that says why the twins of constants do not all stay in L2 beside the tensors."""
    line_bytes = machine.l2_line_bytes
    twins = sum(aligned(b.num_bytes, line_bytes) for b in plan.buffers if b.home)
    missing = sum(aligned(b.num_bytes, line_bytes) for b in residence.dropped)
    kept = [(b, residence.kept[b.name]) for b in plan.buffers if b.name in residence.kept and not b.home]
    peak = _peak([(buffer, block, 0) for buffer, block in kept])
    what = (
        f"{twins} bytes of weights are to stay in the L2 of a die, which has {capacity_bytes}, beside "
        f"{peak.num_bytes} bytes of tensors at the peak; {missing} find no room"
    )
    hint = "compile it for smaller dimensions, another precision or a larger target, or let weights not stay"
    where = f"{plan.name} on {machine.name}"
    needed = max(capacity_bytes + line_bytes, twins + peak.num_bytes)
    return ShortageError(what, where=where, hint=hint, space="l2", needed_bytes=needed, capacity_bytes=capacity_bytes)


def _peak(found: Found) -> _Peak:
    steps = sorted({block.start for _, block, _ in found})
    most = _Peak(0, 0, ())
    for step in steps:
        live = [(buffer, block) for buffer, block, _ in found if block.start <= step < block.end]
        num_bytes = sum(block.num_bytes for _, block in live)
        if num_bytes > most.num_bytes:
            buffers = sorted((buffer for buffer, _ in live), key=lambda b: (-b.num_bytes, b.name))
            most = _Peak(step, num_bytes, tuple(buffers))
    return most


def _hole_texts(found: Found, capacity_bytes: int) -> Iterator[str]:
    """The largest buffer that finds no room beside the others, and the largest gap that is free throughout its life."""
    arena = Arena(capacity_bytes)
    outside = [
        (block.num_bytes, buffer.name, block)
        for buffer, block, _ in sorted(found, key=lambda item: item[2])
        if not arena.take(block.num_bytes, block.start, block.end)
    ]
    for num_bytes, name, block in sorted(outside, key=lambda item: (-item[0], item[1]))[:1]:
        yield f"{name!r} takes {num_bytes}, the largest hole beside the others is of {arena.largest_gap(block)}"


def _step_text(plan: Plan, number: int) -> str:
    """The step with the name of its kernel."""
    match plan.steps[number] if number < len(plan.steps) else None:
        case KernelStep() as step:
            return f"step {number} ({step.kernel.name})"
        case _:
            return f"step {number}"


def _listed(plan: Plan, buffers: Sequence[Buffer]) -> str:
    writers = _writers(plan.steps)
    named = [_described(buffer, writers.get(buffer.name, ())) for buffer in buffers[:MOST_LISTED]]
    more = len(buffers) - len(named)
    if more:
        rest = sum(buffer.num_bytes for buffer in buffers[MOST_LISTED:])
        named.append(f"{more} more of {rest} bytes")
    return ", ".join(named)


def _described(buffer: Buffer, nodes: Sequence[str]) -> str:
    """Name, bytes and where it comes from: its role, or the ONNX nodes that compute it."""
    source = buffer.role if not nodes else ("node " if len(nodes) == 1 else "nodes ") + ", ".join(nodes[:2])
    dots = ", ..." if len(nodes) > 2 else ""
    return f"{buffer.name!r} of {buffer.num_bytes} bytes ({source}{dots})"


def _writers(steps: Sequence[Step]) -> dict[str, tuple[str, ...]]:
    """The ONNX nodes that each buffer's content comes from."""
    found: dict[str, dict[str, None]] = {}
    for step in steps:
        if not isinstance(step, KernelStep):
            continue
        for kernel in instances(step):
            for name in writes_of(kernel):
                found.setdefault(name, {}).update(dict.fromkeys(kernel.sources))
    return {name: tuple(nodes) for name, nodes in found.items()}
