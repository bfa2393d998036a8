"""Which buffers of a plan lie in L2, and from which step on: tensors first, then the twins of constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from birc.compiler.ir.plan import Buffer, Plan
from birc.compiler.passes.allocation.blocks import Block, aligned
from birc.compiler.passes.allocation.room import Room

PREFETCH_DISTANCES = (1 << 30, 64, 16, 8, 4, 2, 1, 0)
"""Steps before its first use in which a twin may be filled, the earliest first."""

Spans = Mapping[str, tuple[int, int]]
"""The first and last step that touches each buffer."""


@dataclass(frozen=True, slots=True)
class Residence:
    """What lies in L2: `stays` are blocks by buffer; tensors in `spilled` and the twins in `dropped` are not there."""

    stays: Mapping[str, Block]
    spilled: tuple[Buffer, ...]
    dropped: tuple[Buffer, ...]


def reside(plan: Plan, spans: Spans, room: Room, line_bytes: int) -> Residence:
    """Tensors take L2 first, the largest first; then twins, in the order of use, each as early as there is room."""
    stays: dict[str, Block] = {}
    spilled, dropped = [], []
    for tensor in sorted(tensors(plan, spans, "l2"), key=lambda b: (-b.num_bytes, spans[b.name], b.name)):
        first, last = spans[tensor.name]
        block = Block(aligned(tensor.num_bytes, line_bytes), first, last + 1)
        if room.take(block.num_bytes, block.start, block.end):
            stays[tensor.name] = block
        else:
            spilled.append(tensor)
    twins = [b for b in plan.buffers if b.home and b.name in spans]
    for twin in sorted(twins, key=lambda b: spans[b.name]):
        num_bytes = aligned(twin.num_bytes, line_bytes)
        lives = (Block(num_bytes, first, last + 1) for first, last in _lives(spans[twin.name], plan))
        stay = next((b for b in lives if room.take(b.num_bytes, b.start, b.end)), None)
        if stay is not None:
            stays[twin.name] = stay
        else:
            dropped.append(twin)
    return Residence(stays, tuple(spilled), tuple(dropped))


def tensors(plan: Plan, spans: Spans, space: str) -> list[Buffer]:
    """The tensors between kernels that are meant for the tensor buffer ("tb") or for L2."""
    scratch = (b for b in plan.buffers if b.role == "scratch" and not b.home and b.name in spans)
    return [b for b in scratch if (b.space == "tb") == (space == "tb")]


def _lives(span: tuple[int, int], plan: Plan) -> Iterator[tuple[int, int]]:
    """Lives to try for a twin: through all rounds of a repeated plan, then from ever later before its first use."""
    use, last = span
    if plan.repeat > 1:
        yield 0, len(plan.steps) - 1
    for distance in PREFETCH_DISTANCES:
        yield max(0, use - distance), last
