"""One sample an SPC: when there are enough, every SPC takes samples of its own through the whole network.

Then activations never leave the SPC: they lie in its tensor buffer, which is nearer and wider than L2, and no barrier
is needed between kernels. Constants are read from L2 by all; where they do not all fit, the rounds of samples go
through the network segment by segment (`segments.py`), and each constant is still loaded once. (The vendor maps BERT
and convolutional networks to the chip in this way in its MLPerf Inference v2.1 submission.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from birc.compiler.ir.plan import PAR, SPC, Access, Dimension, ExchangeStep, Index, Kernel, KernelStep, Phase, Plan
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.region import region
from birc.compiler.passes.chunk import MOST_STEPS, Cuts, constant_bytes, peak_bytes
from birc.compiler.passes.depth_first import depth_first
from birc.compiler.passes.lower.frame import unit
from birc.compiler.passes.rough_cycles import KERNEL_OVERHEAD_CYCLES
from birc.compiler.passes.segments import best_segments, in_segments, streamed_constants
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine
from birc.runtime.program import MAX_BOX_RANK

SLACK = 1.1
"""Room for the gaps that placing buffers leaves."""
BETWEEN = 1 / 6
"""Share of an SPC's memory that what lies between two kernels alone may take, if they can go part by part."""
ALIGNMENT_BYTES = 1 << 10
MOST_ROUNDS = 64
"""More rounds are no batch of samples any more, and too many commands to prove one by one."""


def per_sample(cuts: Cuts, resident_weights: bool = False) -> Plan | None:
    """The plan with a sample an SPC, in as many rounds as it takes; None when batch or memories do not allow it.

    With `resident_weights` all constants have to fit.
    """
    machine = cuts.machine
    rounds = worthwhile_rounds(cuts)
    cut = cuts.into(rounds * machine.spcs_per_die) if rounds else None
    if cut is None or most_axes(cut) == MAX_BOX_RANK:
        return None
    spread = _spread(depth_first(cut, BETWEEN * machine.spc_sram_bytes), machine.spcs_per_die, rounds)
    share = constant_bytes(spread) // machine.spcs_per_die
    if tensor_buffer_bytes(spread) + _aligned(share) > machine.spc_sram_bytes:
        few = rounds * len(spread.steps) <= MOST_STEPS and not resident_weights
        room = machine.spc_sram_bytes / SLACK
        segments = best_segments(_of_one_spc(spread, machine), rounds, room) if few else None
        if segments is None:
            return None
        spread = in_segments(spread, rounds, segments)
    return replace(spread, tensor_buffer_bytes=tensor_buffer_bytes(spread))


def _of_one_spc(spread: Plan, machine: Machine) -> Plan:
    """The plan with the share of an SPC of each constant."""
    shares = (
        replace(b, num_bytes=-(-b.num_bytes // machine.spcs_per_die)) if b.role == "constant" else b
        for b in spread.buffers
    )
    return replace(spread, buffers=tuple(shares))


def rounds_of(plan: Plan, machine: Machine) -> int:
    """The rounds that it takes with a sample an SPC; 0 when that does not work out evenly."""
    spcs = machine.spcs_per_die
    if any(isinstance(step, ExchangeStep) for step in plan.steps):
        return 0
    samples = _samples(plan)
    if (
        samples % spcs
        or samples // spcs > MOST_ROUNDS
        or any(d is None for step in plan.steps if isinstance(step, KernelStep) for d in step.kernels)
    ):
        return 0
    return samples // spcs


def worthwhile_rounds(cuts: Cuts) -> int:
    """The same; 0, too, when that is sure to take long, before anything is cut.

    In every round all SPCs load all weights, or begin a kernel together. Where that alone takes longer than the whole
    plan by estimate, which is generous, nothing is gained.
    """
    rounds = rounds_of(cuts.plan, cuts.machine)
    return rounds if rounds and rounds * _loading_cycles(cuts.plan, cuts.machine) <= cuts.cycles(1) else 0


def _loading_cycles(plan: Plan, machine: Machine) -> float:
    """The least that loading the weights takes, an SPC its own or all together, on the die that takes longest."""
    weights = streamed_constants(plan)
    sizes = {b.name: dtype(b.dtype).bits // 8 for b in plan.buffers if b.name in weights}
    total = 0.0
    for step in plan.steps:
        most = 0.0
        for kernel in step.distinct if isinstance(step, KernelStep) else ():
            read = {(a.view.buffer, region(a.view)) for a in accesses(kernel) if a.view.buffer in sizes}
            alone = sum(sizes[name] * box.num_elements for name, box in read) / machine.noc_bytes_per_cycle
            most = max(most, min(alone, alone / machine.spcs_per_die + KERNEL_OVERHEAD_CYCLES))
        total += most
    return total


def tensor_buffer_bytes(cut: Plan) -> int:
    """What the scratch buffers of a plan of one sample take in an SPC."""
    return _aligned(int(SLACK * peak_bytes(cut)))


def _samples(plan: Plan) -> int:
    """The samples of one die: the first dimension of its part of the first input."""
    view = next((view for boundary in plan.inputs for _, _, view in boundary.pieces), None)
    return view.dims[0] if view is not None and view.dims else 1


def most_axes(plan: Plan) -> int:
    """The dimensions of the operand that has the most: the one over SPCs is added to them."""
    kernels = [k for step in plan.steps if isinstance(step, KernelStep) for k in step.kernels if k is not None]
    return max((len(access.index) for kernel in kernels for access in accesses(kernel)), default=0)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _spread(cut: Plan, spcs: int, rounds: int) -> Plan:
    """The plan of one sample, run on all SPCs at once; boundary tensors advance from SPC to SPC and round to round."""
    sizes = {b.name: dtype(b.dtype).bits // 8 for b in cut.buffers}
    strides = {name: num_bytes // sizes[name] for name, num_bytes in cut.advances}
    steps = tuple(
        KernelStep(tuple(kernel and on_each_spc(kernel, spcs, strides) for kernel in step.kernels))
        for step in cut.steps
        if isinstance(step, KernelStep)
    )
    return replace(
        cut,
        buffers=tuple(replace(b, space="tb") if b.role == "scratch" else b for b in cut.buffers),
        steps=steps,
        repeat=rounds,
        advances=tuple((name, num_bytes * spcs) for name, num_bytes in cut.advances) if rounds > 1 else (),
    )


def on_each_spc(kernel: Kernel, spcs: int, strides: Mapping[str, int]) -> Kernel:
    """The kernel with an outermost dimension over SPCs, along which only the buffers in `strides` move (elements)."""

    def moved(access: Access) -> Access:
        return _with_axis(access, strides.get(access.view.buffer, 0), spcs)

    phases = tuple(
        Phase(
            tuple(
                s if s.access is None else replace(s, access=moved(s.access), index_axis=s.index_axis + 1)
                for s in phase.statements
            ),
            phase.loops,
        )
        for phase in kernel.phases
    )
    contraction = kernel.contraction
    if contraction is not None:
        moves_a = any(panel.view.buffer in strides for panel in contraction.panels)
        moves_b = contraction.b.view.buffer in strides
        contraction = replace(
            contraction,
            a=moved(contraction.a) if moves_a else contraction.a,
            b=moved(contraction.b) if moves_b else contraction.b,
            further=tuple(map(moved, contraction.further)) if moves_a else contraction.further,
            rows=contraction.rows + moves_a,
            depth=contraction.depth + moves_b,
        )
    space = (Dimension(SPC, spcs, PAR), *kernel.space)
    return replace(kernel, space=space, phases=phases, contraction=contraction, macs=kernel.macs * spcs)


def _with_axis(access: Access, stride: int, spcs: int) -> Access:
    """The access with an outermost axis over SPCs, still when the operand does not move."""
    view = access.view
    wider = replace(
        view,
        dims=(spcs if stride else 1, *view.dims),
        strides=(stride, *view.strides),
        lower=(0, *view.lower) if view.lower else (),
    )
    return Access(wider, (unit(SPC) if stride else Index(), *access.index), access.fill)
