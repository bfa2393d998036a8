"""The allocate phase: which buffers lie on the chip, and at which addresses.

Activations take L2 first, the largest first; then the twins of constants, each filled as early as there is room for
it. What finds no room stays in, or moves to, HBM: that is how tensors spill.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from birc.compiler.ir.plan import Buffer, CopyStep, KernelStep, Plan, Step
from birc.compiler.passes.lifetimes import lifetimes
from birc.compiler.passes.schedule import redirect
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine

ALIGNMENT_BYTES = 512
PREFETCH_DISTANCES = (1 << 30, 64, 16, 8, 4, 2, 1, 0)


@dataclass(slots=True)
class Arena:
    """A memory in which blocks with lifetimes are placed, each at the lowest address that is free throughout."""

    capacity_bytes: int
    placed: list[tuple[int, int, int, int]] = field(default_factory=list)

    def place(self, num_bytes: int, first: int, last: int) -> int | None:
        """Place a block that lives in steps [first, last]; None when there is no room."""
        address = 0
        for start, end, other_first, other_last in self.placed:
            if other_first > last or other_last < first:
                continue
            if start - address >= num_bytes:
                break
            address = max(address, end)
        if address + num_bytes > self.capacity_bytes:
            return None
        insort(self.placed, (address, address + num_bytes, first, last))
        return address

    @property
    def peak_bytes(self) -> int:
        """The highest address in use."""
        return max((end for _, end, _, _ in self.placed), default=0)


def allocate(plan: Plan, machine: Machine) -> Plan:
    """The plan with the space and address of every buffer, and the copies that fill on-chip twins.

    Raises `DoesNotFitError` when HBM is too small.
    """
    spans = lifetimes(plan)
    l2 = Arena(machine.spcs_per_die * (machine.spc_sram_bytes - plan.tensor_buffer_bytes))
    tensor_buffer = Arena(plan.tensor_buffer_bytes)
    placed: dict[str, Buffer] = {}
    spilled: list[Buffer] = []
    dropped: dict[str, str] = {}
    copies: dict[int, list[CopyStep]] = defaultdict(list)
    scratch = [b for b in plan.buffers if b.role == "scratch" and not b.home and b.name in spans]
    for buffer in sorted(scratch, key=lambda b: (-b.num_bytes, spans[b.name], b.name)):
        first, last = spans[buffer.name]
        arena, space = (tensor_buffer, "tb") if buffer.space == "tb" else (l2, "l2")
        address = arena.place(_aligned(buffer.num_bytes), first, last)
        if address is None and space == "tb":
            raise DoesNotFitError(
                f"{buffer.name} needs {buffer.num_bytes} B of {plan.tensor_buffer_bytes} B of tensor buffer",
                where=plan.name,
                hint="another batch",
            )
        if address is None:
            spilled.append(buffer)
        else:
            placed[buffer.name] = replace(buffer, space=space, address=address, first=first, last=last)
    twins = [b for b in plan.buffers if b.home and b.name in spans]
    for twin in sorted(twins, key=lambda b: spans[b.name]):
        for first, last in _stays(spans[twin.name], plan):
            address = l2.place(_aligned(twin.num_bytes), first, last)
            if address is not None:
                placed[twin.name] = replace(twin, space="l2", address=address, first=first, last=last)
                once = plan.repeat > 1 and (first, last) == (0, len(plan.steps) - 1)
                copies[0 if once else first].append(CopyStep(twin.home, twin.name, once))
                break
        else:
            dropped[twin.name] = twin.home
    steps = _with_copies(plan.steps, copies, dropped)
    placed |= _place_in_hbm(plan, [*spilled], machine)
    buffers = tuple(placed[b.name] for b in plan.buffers if b.name in placed)
    result = replace(plan, buffers=buffers, steps=steps)
    renumbered = lifetimes(result)
    buffers = tuple(
        replace(b, first=renumbered[b.name][0], last=renumbered[b.name][1]) if b.name in renumbered else b
        for b in buffers
    )
    return replace(result, buffers=buffers)


def _stays(span: tuple[int, int], plan: Plan) -> Iterator[tuple[int, int]]:
    """Lifetimes to try for a twin: through all rounds of a repeated plan, then from ever later before its first use."""
    use, last = span
    if plan.repeat > 1:
        yield 0, len(plan.steps) - 1
    for distance in PREFETCH_DISTANCES:
        yield max(0, use - distance), last


def _with_copies(
    steps: tuple[Step, ...], copies: dict[int, list[CopyStep]], dropped: dict[str, str]
) -> tuple[Step, ...]:
    result: list[Step] = []
    for number, step in enumerate(steps):
        result.extend(copies.get(number, ()))
        if isinstance(step, KernelStep) and dropped:
            result.append(KernelStep(tuple(kernel and redirect(kernel, dropped) for kernel in step.kernels)))
        else:
            result.append(step)
    return tuple(result)


def _place_in_hbm(plan: Plan, spilled: Iterable[Buffer], machine: Machine) -> dict[str, Buffer]:
    """Boundary tensors and constants one after the other, then spilled buffers by lifetime."""
    spans = lifetimes(plan)
    hbm = Arena(machine.hbm_bytes_per_die)
    placed = {}
    forever = (0, len(plan.steps))
    residents = [b for b in plan.buffers if b.role in ("input", "output", "constant")]
    for buffer in [*residents, *sorted(spilled, key=lambda b: (-b.num_bytes, b.name))]:
        first, last = spans[buffer.name] if buffer.role == "scratch" else forever
        address = hbm.place(_aligned(buffer.num_bytes), first, last)
        if address is None:
            raise DoesNotFitError(
                f"{buffer.name} needs {buffer.num_bytes} B of HBM beside {hbm.peak_bytes} B already placed",
                where=f"{machine.name}, {machine.hbm_bytes_per_die} B a die",
                hint="a smaller batch, or --precision bf16",
            )
        placed[buffer.name] = replace(buffer, space="hbm", address=address, first=first, last=last)
    return placed


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
