"""Lives stretched to the next barriers, so that sharing an address adds none.

Kernels that need nothing of each other run without a barrier between them. When one of them writes where another one
reads something that it is the last to read, there must be one after all. So a buffer that lives between two barriers
should have its address for itself from the one to the other, wherever there is room for that. What one die sends to the
other should go where nothing was since the dies last heard of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from birc.compiler.ir.plan import CopyStep, ExchangeStep, FillStep, Kernel, KernelStep, Plan, ShareStep, Step, View
from birc.compiler.ir.region import region
from birc.compiler.passes.allocation.blocks import Block


@dataclass(slots=True)
class _Pending:
    """What a die has read and written since its last barrier: the first and the end element of each box, by buffer."""

    reads: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    writes: dict[str, set[tuple[int, int]]] = field(default_factory=dict)

    def needs_barrier(self, kernel: Kernel, local: frozenset[str]) -> bool:
        """Whether the kernel touches what must be finished first; it is pending itself from now on."""
        reads, writes = _boxes(kernel, local)
        found = any(_meets(self.writes, read) for read in reads)
        found = found or any(_meets(self.writes, write) or _meets(self.reads, write) for write in writes)
        if found:
            self.reads.clear()
            self.writes.clear()
        for boxes, touched in ((self.reads, reads), (self.writes, writes)):
            for name, first, end in touched:
                boxes.setdefault(name, set()).add((first, end))
        return found


_Box = tuple[str, int, int]


def _boxes(kernel: Kernel, local: frozenset[str]) -> tuple[set[_Box], set[_Box]]:
    """What a kernel reads and writes outside of tensor buffers, which each SPC has for itself."""
    reads: set[_Box] = set()
    writes: set[_Box] = set()
    for phase in kernel.phases:
        for statement in phase.statements:
            if statement.access is not None and statement.access.view.buffer not in local:
                (writes if statement.op == "vst" else reads).add(_box(statement.access.view))
    if kernel.contraction is not None:
        views = (access.view for access in kernel.contraction.operands)
        reads |= {_box(view) for view in views if view.buffer not in local}
    return reads, writes


def _box(view: View) -> _Box:
    box = region(view)
    return box.buffer, box.offset, box.end


def _meets(boxes: Mapping[str, set[tuple[int, int]]], box: _Box) -> bool:
    name, first, end = box
    return any(first < other_end and other_first < end for other_first, other_end in boxes.get(name, ()))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where lives should begin and end, by step: `begins` and `ends` are the barriers around it.

    `since` has, for every buffer that the dies exchange, the exchange before its own: from then on no die knows what
    the other one has finished. The content of a twin is on its way before the barrier of its first step.
    """

    begins: tuple[int, ...]
    ends: tuple[int, ...]
    since: Mapping[str, int]
    twins: frozenset[str]

    def wanted(self, name: str, life: Block) -> Block:
        """The life of a buffer from barrier to barrier."""
        start = self.begins[max(0, life.start - 1) if name in self.twins else life.start]
        return Block(life.num_bytes, min(start, self.since.get(name, start)), self.ends[life.end - 1])


def stretch_of(plan: Plan) -> Stretch:
    """Where the lives of a plan's buffers should begin and end, wherever they lie."""
    local = frozenset(b.name for b in plan.buffers if b.space == "tb")
    pending = [_Pending() for _ in range(plan.dies)]
    has_barrier = [_has_barrier(step, pending, local) for step in plan.steps]
    since: dict[str, int] = {}
    last = 0
    for number, step in enumerate(plan.steps):
        if isinstance(step, ExchangeStep):
            for exchange in step.exchanges:
                since.setdefault(exchange.view.buffer, last)
            last = number + 1
    twins = frozenset(b.name for b in plan.buffers if b.home)
    return Stretch(_begins(has_barrier), _ends(has_barrier), since, twins)


def _has_barrier(step: Step, pending: list[_Pending], local: frozenset[str]) -> bool:
    """Whether all dies that take part in a step wait for the steps before."""
    match step:
        case KernelStep(kernels):
            needed = [
                state.needs_barrier(kernel, local)
                for state, kernel in zip(pending, kernels, strict=True)
                if kernel is not None
            ]
            return bool(needed) and all(needed)
        case ExchangeStep():
            for number in range(len(pending)):
                pending[number] = _Pending()
            return True
        case CopyStep() | FillStep() | ShareStep():
            return False


def stretched(lives: Mapping[str, Block], stretch: Stretch, steps: int, most_bytes: int = 0) -> dict[str, Block]:
    """The lives from barrier to barrier, as far as no more bytes live at once than before, or than `most_bytes`.

    What the dies exchange comes first, then small blocks.
    """
    live = np.zeros(steps + 1, np.int64)
    for life in lives.values():
        live[life.start : life.end] += life.num_bytes
    most = max(most_bytes, int(live.max()))
    result = dict(lives)
    for name in sorted(lives, key=lambda name: (name not in stretch.since, lives[name].num_bytes, name)):
        life, wanted = lives[name], stretch.wanted(name, lives[name])
        for start, end in ((wanted.start, wanted.end), (life.start, wanted.end), (wanted.start, life.end)):
            before, after = live[start : life.start], live[life.end : end]
            if max(before.max(initial=0), after.max(initial=0)) + life.num_bytes <= most:
                before += life.num_bytes
                after += life.num_bytes
                result[name] = Block(life.num_bytes, start, end)
                break
    return result


def _begins(has_barrier: Sequence[bool]) -> tuple[int, ...]:
    """For every step the last one up to it that has a barrier."""
    found: list[int] = []
    for step, has in enumerate(has_barrier):
        found.append(step if has or not found else found[-1])
    return tuple(found)


def _ends(has_barrier: Sequence[bool]) -> tuple[int, ...]:
    """For every step the next one after it that has a barrier."""
    found: list[int] = []
    end = len(has_barrier)
    for step in reversed(range(len(has_barrier))):
        found.append(end)
        if has_barrier[step]:
            end = step
    return tuple(found[::-1])
