"""The schedule phase: constants that the T-core streams are copied to the chip ahead of their use.

So are inputs of the graph that products would load from HBM several times.
"""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.copies import copy_dims
from birc.compiler.ir.plan import Buffer, FillStep, Kernel, KernelStep, Plan, Step
from birc.compiler.ir.plan_access import accesses, moved, with_views
from birc.compiler.passes.lifetimes import streamed
from birc.compiler.passes.reloads import inputs_to_copy
from birc.runtime.machine import Machine

L2_SUFFIX = ".l2"


def schedule(plan: Plan, machine: Machine) -> Plan:
    """The plan with an on-chip twin for each constant that kernels read tile by tile, and for inputs read repeatedly.

    Where the twins lie, and when they are filled, is decided by allocation; a twin that finds no room goes again.
    """
    limit, read = machine.max_dim, streamed(plan)
    copied = {b.name for b in plan.buffers if b.role == "constant"} | inputs_to_copy(plan, machine)
    wanted = {
        buffer.name: Buffer(buffer.name + L2_SUFFIX, buffer.dtype, buffer.num_bytes, "scratch", "l2", home=buffer.name)
        for buffer in plan.buffers
        if buffer.name in copied and copy_dims(buffer.num_bytes, limit) is not None and buffer.name in read
    }
    twins = {name: twin.name for name, twin in wanted.items()}
    steps = tuple(redirected(step, twins) for step in plan.steps)
    return replace(plan, buffers=(*plan.buffers, *wanted.values()), steps=steps)


def redirected(step: Step, names: dict[str, str]) -> Step:
    """The step with the accesses of its kernels to some buffers turned to others of the same shape."""
    if isinstance(step, FillStep):
        source = step.source
        return replace(step, source=moved(source, names.get(source.buffer, source.buffer), source.offset))
    if not isinstance(step, KernelStep):
        return step
    return replace(step, kernels=tuple(kernel and redirect(kernel, names) for kernel in step.kernels))


def redirect(kernel: Kernel, names: dict[str, str]) -> Kernel:
    """The kernel with its accesses to some buffers turned to others of the same shape."""
    if not any(access.view.buffer in names for access in accesses(kernel)):
        return kernel

    return with_views(kernel, lambda view: moved(view, names.get(view.buffer, view.buffer), view.offset))
