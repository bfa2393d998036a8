"""The schedule phase: constants that the T-core streams are copied to the chip ahead of their use."""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.copies import copy_dims
from birc.compiler.ir.plan import Kernel, KernelStep, Plan, Step
from birc.compiler.ir.plan_access import accesses, with_views
from birc.compiler.passes.lifetimes import instances, reads_of
from birc.runtime.machine import Machine

L2_SUFFIX = ".l2"


def schedule(plan: Plan, machine: Machine) -> Plan:
    """The plan with an on-chip twin for each constant that kernels read tile by tile.

    Where the twins lie, and when they are filled, is decided by allocation; a twin that finds no room goes again.
    """
    limit = machine.max_dim
    wanted = {
        buffer.name: replace(buffer, name=buffer.name + L2_SUFFIX, role="scratch", space="l2", home=buffer.name)
        for buffer in plan.buffers
        if buffer.role == "constant" and copy_dims(buffer, limit) is not None and _is_streamed(plan, buffer.name)
    }
    steps = tuple(_redirected(step, {name: twin.name for name, twin in wanted.items()}) for step in plan.steps)
    return replace(plan, buffers=(*plan.buffers, *wanted.values()), steps=steps)


def _is_streamed(plan: Plan, name: str) -> bool:
    """Whether a kernel reads the buffer tile by tile, and not row by row at indices that only the data tells."""
    found = False
    for step in plan.steps:
        for kernel in instances(step) if isinstance(step, KernelStep) else ():
            for phase in kernel.phases:
                for s in phase.statements:
                    if s.op == "vldx" and s.access is not None and s.access.view.buffer == name:
                        return False
            found = found or name in reads_of(kernel)
    return found


def _redirected(step: Step, names: dict[str, str]) -> Step:
    if not isinstance(step, KernelStep):
        return step
    return KernelStep(tuple(kernel and redirect(kernel, names) for kernel in step.kernels))


def redirect(kernel: Kernel, names: dict[str, str]) -> Kernel:
    """The kernel with its accesses to some buffers turned to others of the same shape."""
    if not any(access.view.buffer in names for access in accesses(kernel)):
        return kernel

    return with_views(kernel, lambda view: replace(view, buffer=names.get(view.buffer, view.buffer)))
