"""A kernel on all SPCs of a die: classes of SPCs that behave alike, each walked once, and remembered."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import NamedTuple

from birc.runtime.errors import InternalError
from birc.runtime.machine import Machine
from birc.runtime.program import Descriptor, Kernel
from birc.runtime.timing.alike import alike
from birc.runtime.timing.result import Lead, WalkResult
from birc.runtime.timing.routes import RoutePlan, boxes_in, sections_of
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


class Moved(NamedTuple):
    """What each SPC of a class moves in a kernel: of HBM, over the link, and in from the NoC."""

    hbm_bytes: Fraction
    sent_bytes: Fraction
    noc_bytes: Fraction


@dataclass(frozen=True, slots=True)
class _Form:
    """A kernel, its slots, and a number that is the same for kernels which differ in their names alone."""

    kernel: Kernel
    slots: tuple[int, ...]
    number: int


@dataclass(slots=True)
class KernelTimer:
    """Times kernels; what was walked once is looked up.

    A walk depends on the kernel, on shapes, strides, types and spaces of the descriptors bound to its
    slots, and on which SPCs share the memory; addresses only matter where the mapping is narrower than the
    die.
    """

    machine: Machine
    extrapolate: bool = True
    _forms: dict[int, _Form] = field(default_factory=dict)  # by identity: each holds its kernel
    _numbers: dict[tuple, int] = field(default_factory=dict)
    _normals: dict[Descriptor, int] = field(default_factory=dict)
    _kernels: dict[tuple, tuple[SpcClass, ...]] = field(default_factory=dict)
    _walks: dict[tuple[SpcKernel, int], WalkResult] = field(default_factory=dict)
    _leads: dict[SpcKernel, Lead] = field(default_factory=dict)
    _leads_of: dict[int, Lead] = field(default_factory=dict)  # by identity of a class: all that is given out is kept
    _ahead: dict[tuple[int, int], SpcClass] = field(default_factory=dict)
    _moved_bytes: dict[int, Moved] = field(default_factory=dict)  # likewise
    walked: int = 0

    def classes(
        self, kernel: Kernel, bindings: Bindings, spcs: tuple[int, ...], ahead: int = 0
    ) -> tuple[SpcClass, ...]:
        """The classes of the SPCs among `spcs` that have something to do, with their walks.

        B is loaded from `ahead` cycles before the start on.
        """
        key = self._key(kernel, bindings, spcs, ahead)
        known = self._kernels.get(key)
        if known is None:
            known = self._kernels[key] = tuple(
                SpcClass(members, spec, self._walk(spec, self._ahead_of(spec, ahead)))
                for spec, members in self._specialised(kernel, bindings, spcs).items()
            )
        return known

    def cycles(
        self, kernel: Kernel, bindings: Bindings, spcs: tuple[int, ...], ahead: int = 0, most: float = math.inf
    ) -> int:
        """The cycles of the SPC that takes longest; some number above `most` when they are more."""
        key = self._key(kernel, bindings, spcs, ahead)
        if key not in self._kernels:
            classes = []
            for spec, members in self._specialised(kernel, bindings, spcs).items():
                result = self._walk_within(spec, self._ahead_of(spec, ahead), most)
                if result is None:
                    return int(most) + 1
                classes.append(SpcClass(members, spec, result))
            self._kernels[key] = tuple(classes)
        return max((known.result.cycles for known in self._kernels[key]), default=0)

    def _key(self, kernel: Kernel, bindings: Bindings, spcs: tuple[int, ...], ahead: int) -> tuple:
        """What decides about the walks of a kernel."""
        form = self._form(kernel)
        bound = tuple((slot, self._place(bindings[slot])) for slot in form.slots if slot in bindings)
        return form.number, bound, spcs, ahead

    def _form(self, kernel: Kernel) -> _Form:
        known = self._forms.get(id(kernel))
        if known is None:
            content = (kernel.nests, kernel.semaphores, kernel.multicast)
            number = self._numbers.setdefault(content, len(self._numbers))
            known = self._forms[id(kernel)] = _Form(kernel, _slots(kernel), number)
        return known

    def _place(self, descriptor: Descriptor) -> int:
        """A number that is the same for descriptors between which a walk cannot tell."""
        known = self._normals.get(descriptor)
        if known is None:
            normal = self._normal(descriptor)
            known = self._normals[descriptor] = self._normals.setdefault(normal, len(self._normals))
        return known

    def _normal(self, descriptor: Descriptor) -> Descriptor:
        """The descriptor without its address where that does not matter."""
        everywhere = sections_of(descriptor.mapping, self.machine) == self.machine.hbm_sections_per_die
        return replace(descriptor, address=0) if everywhere or descriptor.space != "hbm" else descriptor

    def _specialised(
        self, kernel: Kernel, bindings: Bindings, spcs: tuple[int, ...]
    ) -> dict[SpcKernel, tuple[int, ...]]:
        """What the SPCs do in a kernel, each with those that do so."""
        used = {slot: self._normal(bindings[slot]) for slot in self._form(kernel).slots if slot in bindings}
        variables = {spc: spc_variables(kernel, spc) for spc in spcs}
        active = {spc: values for spc, values in variables.items() if values is not None}
        boxes = [(box, used[box.slot], trips) for box, trips in boxes_in(kernel) if box.slot in used]
        plan = RoutePlan(self.machine, kernel.multicast, active, boxes)
        found: defaultdict[SpcKernel, list[int]] = defaultdict(list)
        for group in alike(kernel, used, plan):
            found[specialise(kernel, group[0], used, self.machine, plan)] += group
        return {spec: tuple(sorted(members)) for spec, members in found.items()}

    def _ahead_of(self, kernel: SpcKernel, cycles: int) -> int:
        """How long before its start B is loaded; nothing more happens until the start."""
        return min(cycles, self._lead(kernel).cycles) if cycles else 0

    def lead(self, member: SpcClass) -> Lead:
        """What each SPC of a class loads of B while its kernel has not started."""
        known = self._leads_of.get(id(member))
        if known is None:
            known = self._leads_of[id(member)] = self._lead(member.kernel)
        return known

    def moved_bytes(self, member: SpcClass) -> Moved:
        """What each SPC of a class moves in the kernel."""
        known = self._moved_bytes.get(id(member))
        if known is None:
            traffic = member.result.traffic()
            known = Moved(*(traffic.get(name, Fraction(0)) for name in ("hbm", "d2d", "noc in")))
            self._moved_bytes[id(member)] = known
        return known

    def _lead(self, kernel: SpcKernel) -> Lead:
        known = self._leads.get(kernel)
        if known is None:
            known = self._leads[kernel] = lead(kernel, self.machine)
        return known

    def ahead(self, member: SpcClass, cycles: int) -> SpcClass:
        """A class of `classes` when its B is loaded from `cycles` before its start on."""
        cycles = min(cycles, self.lead(member).cycles) if cycles else 0
        if not cycles:
            return member
        key = (id(member), cycles)  # All that `classes` gives is kept.
        known = self._ahead.get(key)
        if known is None:
            known = self._ahead[key] = replace(member, result=self._walk(member.kernel, cycles))
        return known

    def _walk(self, kernel: SpcKernel, ahead: int = 0) -> WalkResult:
        result = self._walk_within(kernel, ahead, math.inf)
        if result is None:
            raise InternalError("a walk takes longer than there is time")
        return result

    def _walk_within(self, kernel: SpcKernel, ahead: int, most: float) -> WalkResult | None:
        """A walk; None when it takes more than so many cycles."""
        result = self._walks.get((kernel, ahead))
        if result is None:
            result = walk(kernel, self.machine, ahead=ahead, extrapolate=self.extrapolate, most=most)
            if result is None:
                return None
            self._walks[kernel, ahead] = result
            self.walked += result.walked
        return result if result.cycles <= most else None


def _slots(kernel: Kernel) -> tuple[int, ...]:
    return tuple(sorted({box.slot for box, _ in boxes_in(kernel)}))
