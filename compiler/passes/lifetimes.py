"""Which steps of a plan read and write which buffers."""

from __future__ import annotations

from collections.abc import Iterator

from birc.compiler.ir.plan import CopyStep, ExchangeStep, Kernel, KernelStep, Plan, Step
from birc.compiler.passes.lower.coalesce import accesses


def reads_of(kernel: Kernel) -> set[str]:
    """Buffers that a kernel reads."""
    found = {s.access.view.buffer for p in kernel.phases for s in p.statements if s.access and s.op != "vst"}
    if kernel.contraction is not None:
        found |= {kernel.contraction.a.view.buffer, kernel.contraction.b.view.buffer}
    return found


def writes_of(kernel: Kernel) -> set[str]:
    """Buffers that a kernel writes."""
    return {s.access.view.buffer for p in kernel.phases for s in p.statements if s.access and s.op == "vst"}


def instances(step: KernelStep) -> Iterator[Kernel]:
    """The kernels of a step, one a die that takes part."""
    return (kernel for kernel in step.kernels if kernel is not None)


def touched(step: Step) -> set[str]:
    """Every buffer a step reads or writes."""
    match step:
        case KernelStep():
            return {access.view.buffer for kernel in instances(step) for access in accesses(kernel)}
        case CopyStep(source, target):
            return {source, target}
        case ExchangeStep(exchanges):
            return {exchange.view.buffer for exchange in exchanges}


def lifetimes(plan: Plan) -> dict[str, tuple[int, int]]:
    """The first and last step that touches each buffer."""
    spans: dict[str, tuple[int, int]] = {}
    for number, step in enumerate(plan.steps):
        for name in touched(step):
            first, _ = spans.get(name, (number, number))
            spans[name] = (first, number)
    return spans
