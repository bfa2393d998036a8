"""The schedule phase: constants that the T-core streams are copied to the chip ahead of their use."""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.copies import copy_dims
from birc.compiler.ir.plan import Kernel, KernelStep, Plan, Step, View
from birc.compiler.passes.lifetimes import instances
from birc.compiler.passes.lower.coalesce import accesses
from birc.runtime.machine import Machine

L2_SUFFIX = ".l2"
LEAST_COPY_BYTES = 4096
"""Smaller constants are read where they are: a copy would cost more than it saves."""


def schedule(plan: Plan, machine: Machine) -> Plan:
    """The plan with an on-chip twin for each constant that kernels read as a contraction operand.

    Where the twins lie, and when they are filled, is decided by allocation; a twin that finds no room goes again.
    """
    limit = machine.max_dim
    wanted = {
        buffer.name: replace(buffer, name=buffer.name + L2_SUFFIX, role="scratch", space="l2", home=buffer.name)
        for buffer in plan.buffers
        if buffer.role == "constant"
        and buffer.num_bytes >= LEAST_COPY_BYTES
        and copy_dims(buffer, limit) is not None
        and _is_streamed(plan, buffer.name)
    }
    steps = tuple(_redirected(step, {name: twin.name for name, twin in wanted.items()}) for step in plan.steps)
    return replace(plan, buffers=(*plan.buffers, *wanted.values()), steps=steps)


def _is_streamed(plan: Plan, name: str) -> bool:
    """Whether a kernel reads the buffer as an operand of a contraction."""
    for step in plan.steps:
        if isinstance(step, KernelStep):
            for kernel in instances(step):
                contraction = kernel.contraction
                if contraction is not None and name in (contraction.a.view.buffer, contraction.b.view.buffer):
                    return True
    return False


def _redirected(step: Step, names: dict[str, str]) -> Step:
    if not isinstance(step, KernelStep):
        return step
    return KernelStep(tuple(kernel and redirect(kernel, names) for kernel in step.kernels))


def redirect(kernel: Kernel, names: dict[str, str]) -> Kernel:
    """The kernel with its accesses to some buffers turned to others of the same shape."""
    if not any(access.view.buffer in names for access in accesses(kernel)):
        return kernel

    def renamed(view: View) -> View:
        return replace(view, buffer=names.get(view.buffer, view.buffer))

    phases = tuple(
        replace(
            phase,
            statements=tuple(
                s if s.access is None else replace(s, access=replace(s.access, view=renamed(s.access.view)))
                for s in phase.statements
            ),
        )
        for phase in kernel.phases
    )
    contraction = kernel.contraction
    if contraction is not None:
        contraction = replace(
            contraction,
            a=replace(contraction.a, view=renamed(contraction.a.view)),
            b=replace(contraction.b, view=renamed(contraction.b.view)),
        )
    return replace(kernel, phases=phases, contraction=contraction)
