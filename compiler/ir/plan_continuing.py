"""Products that continue others as one kernel of the machine: parts of one that is too large for a descriptor, for one.

They have a tiling in common, read the same buffers and nothing that one of them writes, and write other elements. The
queues of the T-core go on from one to the next without a barrier, and while the last tile of one is finished the next
begins. What the first waits for all wait for.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

from birc.compiler.ir.plan import Kernel, KernelStep, Step, View
from birc.compiler.ir.plan_access import accesses_of
from birc.compiler.ir.tile_order import BY_COLUMNS, IN_TURN
from birc.compiler.ir.view_overlap import ViewOverlap
from birc.runtime.isa import BY_MNEMONIC

SLOTS: Final = next(f.high or 0 for f in BY_MNEMONIC["bind"].fields if f.name == "slot")
"""Of a kernel of the machine."""


def continuing_problems(steps: Sequence[Step]) -> Iterator[str]:
    """What is wrong with tiled steps of which all but the first continue the one before."""
    kernels = [step for step in steps if isinstance(step, KernelStep)]
    if len(kernels) < len(steps) or any(step.beside or step.follows for step in kernels) or kernels[0].continues:
        yield "continues what is no step of one kernel a die"
        return
    if len({tuple(kernel is None for kernel in step.kernels) for step in kernels}) > 1:
        yield "continues a step on other dies"
        return
    for column in dict.fromkeys(zip(*(step.kernels for step in kernels), strict=True)):
        of_die = [kernel for kernel in column if kernel is not None]
        yield from _problems(of_die)


def _problems(kernels: Sequence[Kernel]) -> Iterator[str]:
    if any(kernel.contraction is None or not _is_plain(kernel) for kernel in kernels):
        yield "continues another kernel, but not both are products of whole blocks of tiles"
        return
    if len({_grid(kernel) for kernel in kernels}) > 1:
        yield "continues a product with other tiles"
    found = [_views(kernel) for kernel in kernels]
    views = {view for read, written in found for view in (*read, *written)}
    if len(views) > SLOTS:
        yield f"products that continue each other need {len(views)} slots, a kernel has {SLOTS}"
    if len({frozenset(view.buffer for view in read) for read, _ in found}) > 1:
        yield "continues a product that reads other buffers"
    overlap = ViewOverlap()
    for (read, written), (other_read, other_written) in itertools.permutations(found, 2):
        yield from (
            f"continues a product, but both use %{one.buffer}, which one of them writes"
            for one in written
            for other in (*other_written, *other_read, *read)
            if overlap.may_meet(one, other)
        )


def _is_plain(kernel: Kernel) -> bool:
    """Whether a product loads all tiles of a block before it takes the next ones, and each into a slot of its own."""
    t, contraction = kernel.tiling, kernel.contraction
    if t is None or contraction is None or contraction.further or kernel.has_own_parts:
        return False
    return t.order in (IN_TURN, BY_COLUMNS) and not (t.taps or t.stream)


def _grid(kernel: Kernel) -> Hashable:
    """The tiling of a product, and its tiles by dimension; of columns a part may have more than another."""
    tile = dict(kernel.tiling.tile) if kernel.tiling is not None else {}
    column = kernel.contraction.column if kernel.contraction is not None else ""
    counts = {d.name: -(-d.extent // tile.get(d.name, 1)) for d in kernel.space if d.name != column}
    return kernel.tiling, tuple((d.name, d.kind, counts.get(d.name)) for d in kernel.space)


def _views(kernel: Kernel) -> tuple[set[View], set[View]]:
    """What a kernel reads and what it writes."""
    found = [(op, access.view) for op, access in accesses_of(kernel)]
    return {view for op, view in found if op != "vst"}, {view for op, view in found if op == "vst"}
