"""What it gains that tensors between kernels in a row stay in the tensor buffers of the SPCs that made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from birc.compiler.ir.plan import Buffer, Kernel, KernelStep, Step
from birc.compiler.ir.plan_access import accesses, accesses_of
from birc.compiler.ir.region import region
from birc.compiler.passes.allocation.blocks import aligned
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.lifetimes import instances, touched, writes_of
from birc.runtime.dtypes import dtype
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK

LARGEST = 0.65
"""Share of an SPC's memory that what stays there may take: the rest is L2."""

OWN = ".own"
"""Behind the name of a tensor: its copy in the tensor buffers."""

Cycles = Callable[[Kernel, Memories], int]
"""The cycles of a kernel that is not tiled yet, by its best tiling."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps in a row with tensors between them that lie in the tensor buffers, and the cycles that this gains."""

    steps: tuple[KernelStep, ...]
    buffers: tuple[Buffer, ...]
    gain: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What a chain of so many steps would gain; most are not made."""

    length: int
    gain: int
    make: Callable[[], Chain]


def offered(chain: Chain) -> Offer:
    """One that is made already."""
    return Offer(len(chain.steps), chain.gain, lambda: chain)


@dataclass(frozen=True, slots=True)
class Gains:
    """Compares the kernels of one plan with those of chains: its buffers, their types, which steps touch each."""

    machine: Machine
    cycles: Cycles
    buffers: Mapping[str, Buffer]
    types: Mapping[str, str]
    users: Mapping[str, Sequence[int]]

    def chain(
        self,
        steps: Sequence[KernelStep],
        made: Sequence[KernelStep | None],
        between: Sequence[Buffer],
        saved: int,
    ) -> Chain | None:
        """The steps as they are `made`, one part an SPC, with the tensors between them in the tensor buffers.

        None when some step cannot be, those tensors find no room, or it takes more cycles than it saves of barriers.
        """
        found = tuple(step for step in made if step is not None)
        if len(found) < len(steps):
            return None
        local = []
        for buffer in between:
            elements = max(_reached(step, buffer.name) for step in found)
            local.append(replace(buffer, num_bytes=elements * dtype(buffer.dtype).bits // 8, space="tb"))
        if room(local, self.machine) > LARGEST * self.machine.spc_sram_bytes:
            return None
        names = frozenset(buffer.name for buffer in between)
        gain = saved + sum(self._most(step, frozenset()) for step in steps)
        for step in found:
            try:
                gain -= self._most(step, names)
            except DoesNotFitError:
                return None
            if gain <= 0:
                return None
        return Chain(found, tuple(local), gain)

    def _most(self, step: KernelStep, local: frozenset[str]) -> int:
        """The cycles of the slowest of a step's kernels."""
        memories = Memories(self.types, local)
        return max(self.cycles(kernel, memories) for kernel in step.distinct)


def room(buffers: Sequence[Buffer], machine: Machine) -> int:
    """The bytes of an SPC's memory that buffers take."""
    return sum(aligned(buffer.num_bytes, machine.l2_line_bytes) for buffer in buffers)


def written(step: Step) -> set[str]:
    """What a step writes: of one that is no kernel's all that it touches."""
    if not isinstance(step, KernelStep):
        return touched(step)
    return set[str]().union(*map(writes_of, instances(step)))


def in_parts(step: KernelStep, cut: Callable[[Kernel], Kernel | None]) -> KernelStep | None:
    """The step with a part an SPC; None when one of its kernels cannot be cut so, or needs too many axes then."""
    kernels = [kernel and cut(kernel) for kernel in step.kernels]
    if any(made is None and kernel is not None for made, kernel in zip(kernels, step.kernels, strict=True)):
        return None
    made = KernelStep(tuple(kernels))
    axes = (len(access.index) for kernel in instances(made) for access in accesses(kernel))
    return made if max(axes, default=0) <= MAX_BOX_RANK else None


def read_what_is_made(steps: Sequence[KernelStep], names: Iterable[str]) -> bool:
    """Whether steps in a row read no more of some tensors than what they write: others may write other parts."""
    for kernels in zip(*(step.kernels for step in steps), strict=True):
        found = [(op, region(access.view)) for k in kernels if k is not None for op, access in accesses_of(k)]
        for name in names:
            of_name = [(op == "vst", place) for op, place in found if place.buffer == name]
            made = [place for is_made, place in of_name if is_made]
            if any(not any(one.contains(place) for one in made) for _, place in of_name):
                return False
    return True


def _reached(step: KernelStep, name: str) -> int:
    """The elements of a buffer up to the last one that a step reaches."""
    views = [access.view for kernel in instances(step) for access in accesses(kernel)]
    return max((region(view).end for view in views if view.buffer == name), default=0)
