"""A sample an SPC up to some kernel, then all SPCs together on the samples of a round.

With a sample an SPC every SPC loads all weights. Where these are many and the samples small, as at the end of
convolutional networks, it is better to divide rows and columns of all samples over the SPCs: each then loads a part
of the weights. What the one half leaves to the other lies in L2, a sample behind the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate

from birc.compiler.ir.plan import KernelStep, Plan, Step
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.region import region
from birc.compiler.passes.chunk import Cuts
from birc.compiler.passes.lifetimes import instances, touched
from birc.compiler.passes.per_sample import most_axes, on_each_spc, tensor_buffer_bytes, worthwhile_rounds
from birc.compiler.passes.rough_cycles import KERNEL_OVERHEAD_CYCLES
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK


def shared_tail(cuts: Cuts) -> Plan | None:
    """The plan that goes over from a sample an SPC to all SPCs together where estimates favour it; None if nowhere."""
    plan, machine = cuts.plan, cuts.machine
    rounds = worthwhile_rounds(cuts)
    one = cuts.into(rounds * machine.spcs_per_die) if rounds else None
    many = cuts.into(rounds) if rounds else None
    if one is None or many is None or most_axes(one) == MAX_BOX_RANK or len(one.steps) != len(many.steps):
        return None
    sizes = {b.name: dtype(b.dtype).bits // 8 for b in plan.buffers if b.role == "constant"}
    before = [0.0, *accumulate(_cycles(step, sizes, machine, 1) for step in one.steps)]
    after = [0.0, *accumulate(_cycles(step, sizes, machine, machine.spcs_per_die) for step in many.steps[::-1])][::-1]
    number = min(range(1, len(before)), key=lambda n: (before[n] + after[n], n))
    return _joined(one, many, number, machine) if number < len(one.steps) else None


def _cycles(step: Step, constants: Mapping[str, int], machine: Machine, spcs: int) -> float:
    """A rough count for a step whose multiply-adds and constants (bytes an element) so many SPCs share."""
    most = 0.0
    for kernel in instances(step) if isinstance(step, KernelStep) else ():
        format = kernel.contraction.format if kernel.contraction is not None else ""
        compute = 2.0 * kernel.macs / machine.format(format).macs_per_cycle_per_spc if format else 0.0
        read = {(a.view.buffer, region(a.view)) for a in accesses(kernel) if a.view.buffer in constants}
        loaded = sum(constants[name] * box.num_elements for name, box in read)
        most = max(most, compute / spcs, loaded / machine.noc_bytes_per_cycle / spcs)
    return most + (KERNEL_OVERHEAD_CYCLES if spcs > 1 else 0.0)


def _joined(one: Plan, many: Plan, number: int, machine: Machine) -> Plan | None:
    """The first `number` steps of a plan of one sample, on each SPC its own, and the others of a plan of a round.

    None when a tensor between the two is not one sample behind the other, or the memories are too small.
    """
    spcs = machine.spcs_per_die
    head, tail = one.steps[:number], many.steps[number:]
    of_head, of_tail = (set[str]().union(*map(touched, steps)) for steps in (head, tail))
    small, large = ({b.name: b for b in plan.buffers} for plan in (one, many))
    scratch = {name for name, buffer in large.items() if buffer.role == "scratch"}
    between = scratch & of_head & of_tail
    if any(large[name].num_bytes != spcs * small[name].num_bytes for name in between):
        return None
    moves = {**dict(one.advances), **{name: small[name].num_bytes for name in between}}
    strides = {name: num_bytes * 8 // dtype(large[name].dtype).bits for name, num_bytes in moves.items()}
    own = scratch & of_head - between
    inner = replace(one, steps=head, buffers=tuple(b for b in one.buffers if b.name in own))
    steps = (
        *(
            KernelStep(tuple(kernel and on_each_spc(kernel, spcs, strides) for kernel in step.kernels))
            for step in head
            if isinstance(step, KernelStep)
        ),
        *tail,
    )
    return replace(
        many,
        buffers=tuple(replace(small[b.name], space="tb") if b.name in own else b for b in many.buffers),
        steps=steps,
        tensor_buffer_bytes=tensor_buffer_bytes(inner),
    )
