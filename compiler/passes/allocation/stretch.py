"""Lives stretched to the next barriers, so that sharing an address adds none.

Kernels that need nothing of each other run without a barrier between them. When one of them writes where another one
reads something that it is the last to read, there must be one after all. So a buffer that lives between two barriers
should have its address for itself from the one to the other, wherever there is room for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from birc.compiler.ir.plan import CopyStep, ExchangeStep, Kernel, KernelStep, Plan, Step, View
from birc.compiler.passes.allocation.blocks import Block
from birc.compiler.passes.region import region


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
        views = (kernel.contraction.a.view, kernel.contraction.b.view)
        reads |= {_box(view) for view in views if view.buffer not in local}
    return reads, writes


def _box(view: View) -> _Box:
    box = region(view)
    return box.buffer, box.offset, box.end


def _meets(boxes: Mapping[str, set[tuple[int, int]]], box: _Box) -> bool:
    name, first, end = box
    return any(first < other_end and other_first < end for other_first, other_end in boxes.get(name, ()))


def barriers(plan: Plan) -> list[bool]:
    """For every step whether all dies that take part in it wait for the steps before, wherever buffers lie."""
    local = frozenset(b.name for b in plan.buffers if b.space == "tb")
    pending = [_Pending() for _ in range(plan.dies)]
    return [_has_barrier(step, pending, local) for step in plan.steps]


def _has_barrier(step: Step, pending: list[_Pending], local: frozenset[str]) -> bool:
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
        case CopyStep():
            return False


def stretched(blocks: Sequence[Block], is_copied: Sequence[bool], has_barrier: Sequence[bool]) -> list[Block]:
    """The blocks with lives from barrier to barrier, as far as no more bytes live at once than did before.

    The content of those in `is_copied` is on its way before the barrier of their first step. Small blocks come first.
    """
    live = np.zeros(len(has_barrier) + 1, np.int64)
    for block in blocks:
        live[block.start : block.end] += block.num_bytes
    most = int(live.max(initial=0))
    begins = _begins(has_barrier)
    ends = _ends(has_barrier)
    result = list(blocks)
    for number in sorted(range(len(blocks)), key=lambda n: (blocks[n].num_bytes, n)):
        block = blocks[number]
        early = begins[max(0, block.start - 1)] if is_copied[number] else begins[block.start]
        for start, end in ((early, ends[block.end - 1]), (block.start, ends[block.end - 1]), (early, block.end)):
            before, after = live[start : block.start], live[block.end : end]
            if max(before.max(initial=0), after.max(initial=0)) + block.num_bytes <= most:
                before += block.num_bytes
                after += block.num_bytes
                result[number] = Block(block.num_bytes, start, end)
                break
    return result


def _begins(has_barrier: Sequence[bool]) -> list[int]:
    """For every step the last one up to it that has a barrier."""
    found: list[int] = []
    for step, has in enumerate(has_barrier):
        found.append(step if has or not found else found[-1])
    return found


def _ends(has_barrier: Sequence[bool]) -> list[int]:
    """For every step the next one after it that has a barrier."""
    found: list[int] = []
    end = len(has_barrier)
    for step in reversed(range(len(has_barrier))):
        found.append(end)
        if has_barrier[step]:
            end = step
    return found[::-1]
