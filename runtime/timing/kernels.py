"""A kernel on all SPCs of a die: classes of SPCs that behave alike, each walked once, and remembered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from birc.runtime.machine import Machine
from birc.runtime.program import Box, Descriptor, Kernel
from birc.runtime.timing.result import Lead, WalkResult
from birc.runtime.timing.routes import RoutePlan, sections_of
from birc.runtime.timing.specialise import spc_variables, specialise
from birc.runtime.timing.steps import SpcKernel
from birc.runtime.timing.walk import lead, walk

Bindings = Mapping[int, Descriptor]


@dataclass(frozen=True, slots=True)
class SpcClass:
    """SPCs of a die that behave alike in a kernel."""

    spcs: tuple[int, ...]
    kernel: SpcKernel
    result: WalkResult


@dataclass(slots=True)
class KernelTimer:
    """Times kernels; what was walked once is looked up.

    A walk depends on the kernel, on shapes, strides, types and spaces of the descriptors bound to its
    slots, and on which SPCs share the memory; addresses only matter where the mapping is narrower than the
    die.
    """

    machine: Machine
    extrapolate: bool = True
    _kernels: dict[tuple, tuple[SpcClass, ...]] = field(default_factory=dict)
    _walks: dict[tuple[SpcKernel, int], WalkResult] = field(default_factory=dict)
    _leads: dict[SpcKernel, Lead] = field(default_factory=dict)
    _ahead: dict[tuple[int, int], SpcClass] = field(default_factory=dict)
    walked: int = 0

    def classes(
        self, kernel: Kernel, bindings: Bindings, spcs: tuple[int, ...], ahead: int = 0
    ) -> tuple[SpcClass, ...]:
        """The classes of the SPCs among `spcs` that have something to do, with their walks.

        B is loaded from `ahead` cycles before the start on.
        """
        used = {slot: self._normal(bindings[slot]) for slot in _slots(kernel) if slot in bindings}
        key = (kernel, tuple(sorted(used.items(), key=lambda entry: entry[0])), spcs, ahead)
        known = self._kernels.get(key)
        if known is None:
            known = self._kernels[key] = self._classify(kernel, used, spcs, ahead)
        return known

    def _normal(self, descriptor: Descriptor) -> Descriptor:
        """The descriptor without its address where that does not matter."""
        everywhere = sections_of(descriptor.mapping, self.machine) == self.machine.hbm_sections_per_die
        return replace(descriptor, address=0) if everywhere or descriptor.space != "hbm" else descriptor

    def _classify(self, kernel: Kernel, bindings: Bindings, spcs: tuple[int, ...], ahead: int) -> tuple[SpcClass, ...]:
        variables = {spc: spc_variables(kernel, spc) for spc in spcs}
        active = {spc: values for spc, values in variables.items() if values is not None}
        boxes = [(box, bindings[box.slot]) for box in _boxes(kernel) if box.slot in bindings]
        plan = RoutePlan(self.machine, kernel.multicast, active, boxes)
        alike: defaultdict[SpcKernel, list[int]] = defaultdict(list)
        for spc in active:
            alike[specialise(kernel, spc, bindings, self.machine, plan)].append(spc)
        return tuple(
            SpcClass(tuple(members), spec, self._walk(spec, min(ahead, self._lead(spec).cycles) if ahead else 0))
            for spec, members in alike.items()
        )

    def lead(self, member: SpcClass) -> Lead:
        """What each SPC of a class loads of B while its kernel has not started."""
        return self._lead(member.kernel)

    def _lead(self, kernel: SpcKernel) -> Lead:
        known = self._leads.get(kernel)
        if known is None:
            known = self._leads[kernel] = lead(kernel, self.machine)
        return known

    def ahead(self, member: SpcClass, cycles: int) -> SpcClass:
        """A class of `classes` when its B is loaded from `cycles` before its start on."""
        cycles = min(cycles, self.lead(member).cycles)  # Nothing more happens until the start.
        if not cycles:
            return member
        key = (id(member), cycles)  # All that `classes` gives is kept.
        known = self._ahead.get(key)
        if known is None:
            known = self._ahead[key] = replace(member, result=self._walk(member.kernel, cycles))
        return known

    def _walk(self, kernel: SpcKernel, ahead: int = 0) -> WalkResult:
        result = self._walks.get((kernel, ahead))
        if result is None:
            result = walk(kernel, self.machine, ahead=ahead, extrapolate=self.extrapolate)
            self._walks[kernel, ahead] = result
            self.walked += result.walked
        return result


def _boxes(kernel: Kernel) -> list[Box]:
    operands = (operand for instruction in kernel.instructions() for operand in instruction.operands)
    return [operand for operand in operands if isinstance(operand, Box)]


def _slots(kernel: Kernel) -> list[int]:
    return sorted({box.slot for box in _boxes(kernel)})
