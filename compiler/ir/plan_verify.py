"""The verifier of plans: every broken rule at once, each with the step and the kernel."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Final

from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.kernel_form import form_of
from birc.compiler.ir.plan import (
    Boundary,
    Buffer,
    CopyStep,
    ExchangeStep,
    FillStep,
    Kernel,
    KernelStep,
    Plan,
    ShareStep,
    Step,
)
from birc.compiler.ir.plan_access import accesses_of
from birc.compiler.ir.plan_beside import together
from birc.compiler.ir.plan_continuing import continuing_problems
from birc.compiler.ir.plan_following import group_problems
from birc.compiler.ir.plan_verify_fills import fill_problems, reader_problems
from birc.compiler.ir.plan_verify_kernel import kernel_problems, view_problems
from birc.compiler.ir.plan_verify_memory import memory_problems
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.runtime.dtypes import DTYPES
from birc.runtime.errors import InternalError
from birc.runtime.machine import Machine, load_machine
from birc.runtime.variant import RESOURCE_BOUNDS

PHASES: Final = ("partition", "tile", "schedule", "allocate")
"""The phases after which a plan can be checked; each adds rules to those of the one before it."""

ROLES: Final = ("input", "output", "constant", "scratch")
MOST_CYCLES: Final = 1 << 63
_ELEMENT_TYPES: Final = frozenset(entry.name for entry in DTYPES)
_READ_ONLY: Final = ("input", "constant")


@dataclass(frozen=True, slots=True)
class PlanProblem:
    """One broken rule and where it is broken."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify_plan(plan: Plan, phase: str, machine: Machine | None = None) -> None:
    """Check what must hold after `phase`, within the limits of `machine`.

    The machine is by default the shipped one that the plan names. Raises `InvalidIRError` with every problem.
    """
    if phase not in PHASES:
        raise InternalError(f"there is no plan after the phase {phase!r}", hint=f"one of {', '.join(PHASES)}")
    problems = list(find_plan_problems(plan, phase, machine or load_machine(plan.target)))
    if not problems:
        return
    more = f" and {len(problems) - 1} more problems" if len(problems) > 1 else ""
    texts = tuple(map(str, problems))
    where = f"plan {plan.name!r} after {phase}, {problems[0].where}"
    raise InvalidIRError(problems[0].what + more, where=where, problems=texts, report="\n".join(texts))


def find_plan_problems(plan: Plan, phase: str, machine: Machine) -> Iterator[PlanProblem]:
    """Every broken rule of `plan`. Limits that need a correct kernel are checked only on correct kernels."""
    buffers = {buffer.name: buffer for buffer in plan.buffers}
    yield from _buffer_problems(plan, buffers)
    yield from (PlanProblem("rounds", what) for what in _round_problems(plan, buffers))
    yield from (PlanProblem("bounds", what) for what in _bound_problems(plan))
    for kind, boundaries in (("input", plan.inputs), ("output", plan.outputs)):
        for boundary in boundaries:
            where = f"{kind} {boundary.name!r}"
            yield from (PlanProblem(where, what) for what in _boundary_problems(boundary, plan, buffers))
    is_tiled = PHASES.index(phase) >= PHASES.index("tile")
    rules = _Rules(machine, is_tiled, _in_first_round(plan))
    has_right_steps = True
    for number, step in enumerate(plan.steps):
        found = list(_step_problems(f"step {number}", step, plan, rules))
        has_right_steps = has_right_steps and not found
        yield from found
    if has_right_steps:
        yield from _group_problems(plan, machine)
    if has_right_steps and is_tiled:
        yield from (PlanProblem(f"step {number}", what) for number, what in reader_problems(plan.steps))
    is_allocated = phase == "allocate"
    yield from _flow_problems(plan, buffers, is_allocated)
    if is_allocated:
        yield from (PlanProblem(where, what) for where, what in memory_problems(plan, machine))


def _buffer_problems(plan: Plan, buffers: Mapping[str, Buffer]) -> Iterator[PlanProblem]:
    seen: set[str] = set()
    for buffer in plan.buffers:
        where = f"buffer %{buffer.name}"
        if buffer.name in seen or not buffer.name:
            yield PlanProblem(where, "is declared twice" if buffer.name else "has no name")
        seen.add(buffer.name)
        if buffer.dtype not in _ELEMENT_TYPES:
            yield PlanProblem(where, f"has the unknown element type {buffer.dtype!r}")
        if buffer.role not in ROLES:
            yield PlanProblem(where, f"has the unknown role {buffer.role!r} (one of {', '.join(ROLES)})")
        if buffer.num_bytes < 0:
            yield PlanProblem(where, f"has {buffer.num_bytes} bytes")
        if buffer.shared and (buffer.role != "constant" or plan.dies != 2):
            yield PlanProblem(where, "is shared, but not a constant of two dies")
        if buffer.home:
            yield from (PlanProblem(where, what) for what in _twin_problems(buffer, buffers.get(buffer.home)))


def _twin_problems(twin: Buffer, home: Buffer | None) -> Iterator[str]:
    if home is None:
        yield f"mirrors %{twin.home}, which is not declared"
    elif home.role not in _READ_ONLY or (home.dtype, home.twin_bytes) != (twin.dtype, twin.num_bytes):
        yield f"mirrors %{twin.home}, which is not a constant or input of the same type and size"


def _round_problems(plan: Plan, buffers: Mapping[str, Buffer]) -> Iterator[str]:
    if plan.repeat < 1:
        yield f"the steps are run {plan.repeat} times"
    for name, step_bytes in plan.advances:
        if name not in buffers:
            yield f"%{name} moves on, which is not declared"
        elif buffers[name].role not in ("input", "output") or step_bytes < 0:
            yield f"%{name} moves on by {step_bytes} bytes, only inputs and outputs do, and forward"


def _bound_problems(plan: Plan) -> Iterator[str]:
    names = tuple(name for name, _ in plan.bounds)
    if names not in ((), RESOURCE_BOUNDS):
        yield f"are of {', '.join(names)}, not of {', '.join(RESOURCE_BOUNDS)}"
    for name, cycles in plan.bounds:
        if not 0 <= cycles < MOST_CYCLES:
            yield f"{name} is {cycles} cycles"


def _in_first_round(plan: Plan) -> dict[str, Buffer]:
    """The buffers by name, without what only later rounds may reach."""
    later_bytes = {name: (plan.repeat - 1) * step_bytes for name, step_bytes in plan.advances}
    return {
        b.name: replace(b, num_bytes=b.num_bytes - later_bytes[b.name]) if b.name in later_bytes else b
        for b in plan.buffers
    }


def _boundary_problems(boundary: Boundary, plan: Plan, buffers: Mapping[str, Buffer]) -> Iterator[str]:
    if boundary.dtype not in _ELEMENT_TYPES:
        yield f"has the unknown element type {boundary.dtype!r}"
    if not boundary.pieces and 0 not in boundary.shape:
        yield "has no piece"
    for dies, start, view in boundary.pieces:
        if not 0 < dies < 1 << plan.dies:
            yield f"has a piece on the dies {dies:#x}, there are {plan.dies}"
        yield from view_problems(view, buffers)
        extents = boundary.part(view)
        if not len(start) == len(extents) == len(boundary.shape) or math.prod(extents) != math.prod(view.dims):
            yield f"has a piece {list(view.dims)} from {list(start)} of the shape {list(boundary.shape)}"
            continue
        ends = (first + extent for first, extent in zip(start, extents, strict=True))
        if min(start, default=0) < 0 or any(end > size for end, size in zip(ends, boundary.shape, strict=True)):
            yield f"has a piece {list(view.dims)} from {list(start)} outside {list(boundary.shape)}"


@dataclass(frozen=True, slots=True)
class _Rules:
    """Checks kernels on buffers. Of those of one form, on buffers of the same types and sizes, one is enough."""

    machine: Machine
    is_tiled: bool
    buffers: Mapping[str, Buffer]
    right: set[Hashable] = field(default_factory=set)

    def problems(self, kernel: Kernel) -> list[str]:
        """Every broken rule of a kernel, and of its tiling when it has one."""
        form = form_of(kernel)
        known = (self.buffers.get(name) for name in form.buffers)
        key = form.key, kernel.macs, tuple(buffer and (buffer.dtype, buffer.num_bytes) for buffer in known)
        if key in self.right:
            return []
        problems = list(kernel_problems(kernel, self.buffers, self.machine))
        if self.is_tiled and not problems:
            problems = list(tiling_problems(kernel, self.machine))
        if not problems:
            self.right.add(key)
        return problems


def _step_problems(where: str, step: Step, plan: Plan, rules: _Rules) -> Iterator[PlanProblem]:
    match step:
        case KernelStep():
            yield from _kernel_step_problems(where, step, plan.dies, rules)
        case CopyStep():
            yield from (PlanProblem(where, what) for what in _copy_problems(step, rules.buffers))
        case FillStep():
            problems = fill_problems(step, rules.buffers, plan.dies, rules.machine)
            yield from (PlanProblem(where, what) for what in problems)
        case ShareStep(name):
            if name not in rules.buffers or plan.dies != 2:
                yield PlanProblem(where, f"shares %{name}, which is not declared, or not for two dies")
        case ExchangeStep():
            for exchange in step.exchanges:
                yield from (PlanProblem(where, what) for what in view_problems(exchange.view, rules.buffers))
                if not 0 <= exchange.sender < plan.dies:
                    yield PlanProblem(where, f"is sent by die {exchange.sender}, there are {plan.dies}")


def _kernel_step_problems(where: str, step: KernelStep, dies: int, rules: _Rules) -> Iterator[PlanProblem]:
    if len(step.kernels) != dies:
        yield PlanProblem(where, f"has kernels for {len(step.kernels)} dies, there are {dies}")
    if all(kernel is None for kernel in step.kernels):
        yield PlanProblem(where, "runs no kernel")
    for kernel in step.distinct:
        yield from (PlanProblem(f"{where}, kernel {kernel.name!r}", what) for what in rules.problems(kernel))


def _group_problems(plan: Plan, machine: Machine) -> Iterator[PlanProblem]:
    """What is wrong with steps that follow or continue others."""
    for group in together(plan.steps):
        steps = plan.steps[group.start : group.stop]
        if any(isinstance(step, KernelStep) and step.follows for step in steps):
            yield from (PlanProblem(f"step {group.stop - 1}", what) for what in group_problems(steps, machine))
        if any(isinstance(step, KernelStep) and step.continues for step in steps):
            yield from (PlanProblem(f"step {group.stop - 1}", what) for what in continuing_problems(steps))


def _copy_problems(step: CopyStep, buffers: Mapping[str, Buffer]) -> Iterator[str]:
    missing = [name for name in (step.source, step.target) if name not in buffers]
    yield from (f"copies %{name}, which is not declared" for name in missing)
    if not missing and buffers[step.source].twin_bytes != buffers[step.target].num_bytes:
        yield f"copies %{step.source} to %{step.target}, which is of another size"


def _flow_problems(plan: Plan, buffers: Mapping[str, Buffer], is_allocated: bool) -> Iterator[PlanProblem]:
    """Buffers that a die reads before they are written there, and writes to what only the host may write."""
    held = {b.name for b in plan.buffers if b.role in _READ_ONLY or (b.home and not is_allocated)}
    written = [set(held) for _ in range(plan.dies)]
    shared = {b.name for b in plan.buffers if b.shared}
    known = {*buffers, *map(_half, buffers)}
    for number, step in enumerate(plan.steps):
        traffic = [_traffic(step, die, shared) for die in range(plan.dies)]
        for die, (reads, writes) in enumerate(traffic):
            for name in sorted(name for name in reads - written[die] if name in known):
                yield PlanProblem(f"step {number}, die {die}", f"reads %{name}, which is not written there yet")
            for name in sorted(name for name in writes if name in buffers):
                if buffers[name].role in _READ_ONLY:
                    yield PlanProblem(f"step {number}, die {die}", f"writes %{name}, of role {buffers[name].role}")
        for die, (_, writes) in enumerate(traffic):
            written[die] |= writes
    for boundary in plan.outputs:
        for dies, _, view in boundary.pieces:
            missing = [die for die in range(plan.dies) if dies >> die & 1 and view.buffer not in written[die]]
            if missing:
                yield PlanProblem(
                    f"output {boundary.name!r}",
                    f"lies in %{view.buffer}, which die {missing[0]} never writes",
                )


def _half(name: str) -> str:
    """What stands for a die's own half of a buffer."""
    return f"half of %{name}"


def _traffic(step: Step, die: int, shared: Set[str]) -> tuple[set[str], set[str]]:
    """The buffers that a step reads and writes in the memories of a die; `shared` are constants held in halves."""
    match step:
        case CopyStep():
            return {step.source}, {_half(step.target) if step.source in shared else step.target}
        case FillStep(source, target, dies):
            return ({source.buffer}, {target.buffer}) if dies >> die & 1 else (set(), set())
        case ShareStep(name):
            return {_half(name)}, {name}
        case ExchangeStep(exchanges):
            sent = {exchange.view.buffer for exchange in exchanges if exchange.sender == die}
            return sent, {exchange.view.buffer for exchange in exchanges if exchange.sender != die}
        case KernelStep(kernels):
            kernel = kernels[die] if die < len(kernels) else None
            found = list(accesses_of(kernel)) if kernel is not None else []
            reads = {access.view.buffer for op, access in found if op != "vst"}
            return reads, {access.view.buffer for op, access in found if op == "vst"}
