"""What must hold of steps that fill tensor buffers, and of the kernels that read there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from birc.compiler.ir.plan import Buffer, FillStep, KernelStep, Step
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.plan_verify_kernel import view_problems
from birc.runtime.machine import Machine


def fill_problems(step: FillStep, buffers: Mapping[str, Buffer], dies: int, machine: Machine) -> Iterator[str]:
    """What is wrong with a step that fills tensor buffers."""
    problems = [what for view in (step.source, step.target) for what in view_problems(view, buffers)]
    if problems:
        yield from problems
        return
    source, target = (buffers[view.buffer] for view in (step.source, step.target))
    if target.space != "tb":
        yield f"fills %{target.name}, which lies in {target.space}"
    if source.space == "tb":
        yield f"fills from %{source.name}, which lies in the tensor buffers"
    if source.dtype != target.dtype:
        yield f"fills {target.dtype} with {source.dtype}"
    if any(view.away or view.seen or view.word for view in (step.source, step.target)):
        yield "copies what lies on the other die, or is seen as another type"
    if step.source.dims[len(step.grid) :] != step.target.dims:
        yield f"fills {list(step.target.dims)} with parts of {list(step.source.dims)}"
    if step.spcs != machine.spcs_per_die:
        yield f"has parts for {step.spcs} SPCs, a die has {machine.spcs_per_die}"
    if not 0 < step.dies < 1 << dies:
        yield f"fills on the dies {step.dies:#x}, there are {dies}"


def reader_problems(steps: Sequence[Step]) -> Iterator[tuple[int, str]]:
    """Kernels that divide SPCs otherwise than what they read was dealt out to these, by the numbers of their steps."""
    filled: dict[str, FillStep] = {}
    for number, step in enumerate(steps):
        if isinstance(step, FillStep):
            filled[step.target.buffer] = step
        for kernel in (k for k in step.kernels if k is not None) if isinstance(step, KernelStep) and filled else ():
            spcs = tuple(count for _, count in kernel.tiling.spcs) if kernel.tiling is not None else ()
            for name in sorted({access.view.buffer for access in accesses(kernel)} & filled.keys()):
                if spcs != filled[name].grid:
                    yield number, f"kernel {kernel.name!r} divides SPCs otherwise than %{name} was dealt out"
