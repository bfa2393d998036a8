"""Which buffers of a plan lie in L2, and from which step on: tensors first, then the twins of constants."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from birc.compiler.ir.plan import Buffer, Plan
from birc.compiler.passes.allocation.blocks import Block, aligned
from birc.compiler.passes.allocation.room import Room
from birc.compiler.passes.allocation.stretch import Stretch

Spans = Mapping[str, tuple[int, int]]
"""The first and last step that touches each buffer."""


@dataclass(frozen=True, slots=True)
class Residence:
    """What lies in L2: `stays` are the lives by buffer, `kept` those for which their room is kept free.

    Tensors in `spilled` and the twins in `dropped` are not there.
    """

    stays: Mapping[str, Block]
    kept: Mapping[str, Block]
    spilled: tuple[Buffer, ...]
    dropped: tuple[Buffer, ...]


def reside(
    plan: Plan, spans: Spans, room: Room, line_bytes: int, stretch: Stretch | None, *, lasting_twins: bool = False
) -> Residence:
    """Tensors take L2 first, the largest first; then twins, in the order of use, each as early as there is room.

    With `stretch`, room for a tensor is kept as that wants it, where there is so much. With `lasting_twins` a twin is
    there throughout or not at all. In a repeated plan twins stay through all rounds when all of them can; else the
    first would leave no room for the last.
    """
    stays: dict[str, Block] = {}
    kept: dict[str, Block] = {}
    spilled, dropped = [], []
    for tensor in sorted(tensors(plan, spans, "l2"), key=lambda b: (-b.num_bytes, spans[b.name], b.name)):
        first, last = spans[tensor.name]
        stay = Block(aligned(tensor.num_bytes, line_bytes), first, last + 1)
        lives = (stay,) if stretch is None else (stretch.wanted(tensor.name, stay), stay)
        life = next((life for life in lives if room.take(life.num_bytes, life.start, life.end)), None)
        if life is not None:
            stays[tensor.name], kept[tensor.name] = stay, life
        else:
            spilled.append(tensor)
    twins = [b for b in plan.buffers if b.home and b.name in spans]
    all_bytes = sum(aligned(twin.num_bytes, line_bytes) for twin in twins)
    lasting = plan.repeat > 1 and bool(twins) and room.has(all_bytes, 0, len(plan.steps))
    for twin in sorted(twins, key=lambda b: spans[b.name]):
        span = (0, len(plan.steps) - 1) if lasting_twins or lasting else spans[twin.name]
        life = _life(aligned(twin.num_bytes, line_bytes), span, room)
        if life is not None:
            stays[twin.name] = kept[twin.name] = life
        else:
            dropped.append(twin)
    return Residence(stays, kept, tuple(spilled), tuple(dropped))


def tensors(plan: Plan, spans: Spans, space: str) -> list[Buffer]:
    """The tensors between kernels that are meant for the tensor buffer ("tb") or for L2."""
    scratch = (b for b in plan.buffers if b.role == "scratch" and not b.home and b.name in spans)
    return [b for b in scratch if (b.space == "tb") == (space == "tb")]


def _life(num_bytes: int, span: tuple[int, int], room: Room) -> Block | None:
    """The life of a twin, from the first step since which there is room; None when even its use has none."""
    use, end = span[0], span[1] + 1
    # Where there is room for a life, there is room for a shorter one: most begin with the program.
    start = 0
    if not room.has(num_bytes, 0, end):
        start = bisect_left(range(use + 1), True, lo=1, key=lambda step: room.has(num_bytes, step, end))
    if start > use:
        return None
    room.take(num_bytes, start, end)
    return Block(num_bytes, start, end)
