"""No two buffers share bytes while both are in use."""

from __future__ import annotations

from collections.abc import Iterator

from birc.compiler.ir.affine import Range, variable
from birc.compiler.ir.plan import Buffer, CopyStep, ExchangeStep, FillStep, KernelStep, Plan, ShareStep, Step
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.plan_beside import spans
from birc.compiler.ir.polyhedra import example_point
from birc.compiler.ir.proof.flaw import Flaw, flaw


def memory_flaws(plan: Plan) -> Iterator[Flaw]:
    """Buffers used outside their lifetimes, and pairs that share bytes of their memory at some step.

    What is not scratch, or is filled in the first round only, is in use throughout.
    """
    always = {b.name for b in plan.buffers if b.role != "scratch"}
    always |= {step.target for step in plan.steps if isinstance(step, CopyStep) and (step.once or step.resident)}
    uses: dict[str, list[int]] = {}
    for number, step in enumerate(plan.steps):
        for name in _used(step):
            uses.setdefault(name, []).append(number)
    lives = spans(plan, uses)
    for buffer in plan.buffers:
        first, last = lives.get(buffer.name, (buffer.first, buffer.last))
        if first < buffer.first or last > buffer.last:
            outside = first if first < buffer.first else last
            what = f"is declared live in steps {buffer.first} to {buffer.last}, but used"
            yield flaw(f"%{buffer.name}", what, {"step": outside})
    lives = {b.name: lives[b.name] for b in plan.buffers if b.name in lives}
    lives |= dict.fromkeys(always, (0, max(len(plan.steps) - 1, 0)))
    for one, other in _neighbours(plan):
        if one.name in lives and other.name in lives:
            yield from _shared(one, other, lives[one.name], lives[other.name])


def _neighbours(plan: Plan) -> Iterator[tuple[Buffer, Buffer]]:
    """Pairs in one memory that share bytes at some time or other: a sweep over addresses."""
    spaces = dict.fromkeys(buffer.space for buffer in plan.buffers)
    for space in spaces:
        inside: list[Buffer] = []
        held = [b for b in plan.buffers if b.space == space and b.num_bytes]
        for buffer in sorted(held, key=lambda b: (b.address, b.name)):
            inside = [b for b in inside if b.address + b.num_bytes > buffer.address]
            yield from ((other, buffer) for other in inside)
            inside.append(buffer)


def _shared(one: Buffer, other: Buffer, life: tuple[int, int], other_life: tuple[int, int]) -> Iterator[Flaw]:
    step, byte = variable("step"), variable("byte")
    point = example_point(
        (
            Range(step, life[0], life[1] + 1),
            Range(step, other_life[0], other_life[1] + 1),
            Range(byte, one.address, one.address + one.num_bytes),
            Range(byte, other.address, other.address + other.num_bytes),
        )
    )
    if point is not None:
        yield flaw(f"%{one.name}", f"shares {one.space} with %{other.name}, both in use", point)


def _used(step: Step) -> set[str]:
    match step:
        case CopyStep(source, target):
            return {source, target}
        case FillStep(source, target, _):
            return {source.buffer, target.buffer}
        case ShareStep(name):
            return {name}
        case ExchangeStep(exchanges):
            return {exchange.view.buffer for exchange in exchanges}
        case KernelStep(kernels):
            return {access.view.buffer for kernel in kernels if kernel is not None for access in accesses(kernel)}
