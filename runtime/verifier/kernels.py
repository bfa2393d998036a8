"""One kernel with what is bound to its slots: all checks inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Final

import numpy as np

from birc.runtime.machine import Machine
from birc.runtime.program import OTHER_L2, Descriptor, Kernel
from birc.runtime.verifier.access import Access, Bindings, boxes_of, kernel_accesses
from birc.runtime.verifier.conflicts import (
    Conflict,
    Executions,
    check_between_spcs,
    check_on_spc,
    find_conflicts,
)
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.layout import byte_span
from birc.runtime.verifier.onchip import check_balance, queues_of
from birc.runtime.verifier.scope import places
from birc.runtime.verifier.shorten import Shortener
from birc.runtime.verifier.unroll import (
    Ints,
    Unrolled,
    most_events,
    spc_classes,
    spc_coordinates,
    unroll,
    whole,
)
from birc.runtime.verifier.walk import Walk

# Kernels with more executions on an SPC are walked with shortened loops.
WALKED_WHOLE: Final = 20_000
# The most executions on an SPC that are walked at all, and that are unrolled into arrays.
MOST_WALKED: Final = 400_000
MOST_UNROLLED: Final = 1 << 21


def used_slots(kernel: Kernel) -> tuple[int, ...]:
    """The slots that a kernel's boxes name, sorted."""
    return tuple(sorted({box.slot for place in places(kernel) for box in boxes_of(place)}))


def relative(bindings: Bindings) -> dict[int, Descriptor]:
    """The same views with addresses that keep only how they lie to each other.

    Views whose byte ranges overlap keep their distance; others lie apart. So kernels bound to other buffers
    of the same form are equal.
    """
    moved: dict[int, Descriptor] = {}
    order = sorted(bindings, key=lambda slot: (bindings[slot].space, byte_span(bindings[slot]), slot))
    space, reach, shift, top = "", 0, 0, 0
    for slot in order:
        descriptor = bindings[slot]
        low, high = byte_span(descriptor)
        if descriptor.space != space or low >= reach:
            shift = low - (0 if descriptor.space != space else top)
            space, reach = descriptor.space, high
        reach = max(reach, high)
        top = reach - shift
        moved[slot] = replace(descriptor, address=descriptor.address - shift)
    return moved


class KernelModel:
    """A kernel bound to views, unrolled on demand; `check` looks for faults.

    Addresses of the views count only relative to each other (see `relative`).
    """

    def __init__(self, kernel: Kernel, bindings: Mapping[int, Descriptor], machine: Machine) -> None:
        self.kernel = kernel
        self.bindings = bindings
        self.machine = machine
        self.coordinates = spc_coordinates(kernel)
        self._classes = spc_classes(kernel, self.coordinates)
        self._class_of = {spc: first for first, members in self._classes for spc in members}
        self._unrolled: dict[int, Unrolled] = {}

    @property
    def spcs(self) -> int:
        """How many SPCs take part, counted from SPC 0."""
        return len(self.coordinates)

    @cached_property
    def accesses(self) -> tuple[Access, ...]:
        return kernel_accesses(self.kernel, self.bindings, self.coordinates)

    def variables(self, static: int, spc: int) -> Ints:
        """The loop variables of all executions of a static instruction on an SPC, [n, depth]."""
        return self._of_spc(self._whole(spc).instances[static].variables, spc)

    def positions(self, static: int, spc: int) -> Ints:
        """The places in sequential order of all executions of a static instruction on an SPC."""
        return self._whole(spc).instances[static].position

    def check(self, findings: Findings) -> bool:
        """Find everything that is wrong inside the kernel; False when it cannot be looked at further."""
        events = most_events(self.kernel)
        if events > MOST_UNROLLED:
            what = f"up to {events} executions on an SPC are too many to prove it"
            findings.add(f"kernel {self.kernel.name}", what, f"{MOST_UNROLLED}; split the kernel")
            return False
        if not self._check_ranks(findings):
            return False
        for access in self.accesses:
            self._check_dims(access, findings)
            if access.descriptor.space == OTHER_L2 and not access.store:
                what = f"slot {access.slot} lies in the L2 of the other die"
                findings.add(access.place.name(), what, "kernels load from their own die")
            if access.box.fill == "refuse":
                self._check_inside(access, findings)
        conflicts = tuple(find_conflicts(self.accesses))
        for conflict in conflicts:
            check_between_spcs(conflict, self.variables, findings)
        meeting = [conflict for conflict in conflicts if len(conflict.spcs)]
        for spc, members in self._classes:
            self._check_class(spc, members, meeting, findings)
        return True

    def _check_class(self, spc: int, members: tuple[int, ...], meeting: list[Conflict], findings: Findings) -> None:
        """Walk the kernel for SPCs that execute the same, by shortened loops if it is long."""
        unrolled = self._whole(spc)
        observed = frozenset(access.place.index for pair in meeting for access in (pair.left, pair.right))
        if unrolled.events <= WALKED_WHOLE or observed:
            if unrolled.events > MOST_WALKED:
                what = f"{unrolled.events} executions, some of which meet in memory, are too many to prove it"
                findings.add(f"kernel {self.kernel.name}", what, f"{MOST_WALKED}; split the kernel")
                return
            clocks = self._walk(unrolled, findings, observed)
            self._check_meeting(meeting, members, unrolled, clocks, findings)
            return
        check_balance(self.kernel, unrolled, findings)
        doubts = Findings()
        self._walk(unroll(self.kernel, self.coordinates[spc], Shortener(self.kernel)), doubts)
        if doubts and unrolled.events <= MOST_WALKED:
            self._walk(unrolled, findings)
        elif doubts:
            findings.extend(doubts)

    def _walk(self, unrolled: Unrolled, findings: Findings, observed: frozenset[int] = frozenset()) -> dict[int, Ints]:
        return Walk(self.kernel, self.bindings, self.machine, unrolled, findings).run(observed)

    def _check_meeting(
        self,
        meeting: list[Conflict],
        members: tuple[int, ...],
        unrolled: Unrolled,
        clocks: dict[int, Ints],
        findings: Findings,
    ) -> None:
        for conflict in meeting:
            for member in conflict.spcs:
                if member in members:
                    left = self._executions(conflict.left, int(member), unrolled, clocks)
                    right = self._executions(conflict.right, int(member), unrolled, clocks)
                    check_on_spc(conflict, left, right, findings)

    def _executions(self, access: Access, spc: int, unrolled: Unrolled, clocks: dict[int, Ints]) -> Executions:
        instances = unrolled.instances[access.place.index]
        variables = self._of_spc(instances.variables, spc)
        return Executions(variables, instances.position, queues_of(instances), clocks[access.place.index])

    def _whole(self, spc: int) -> Unrolled:
        first = self._class_of[spc]
        if first not in self._unrolled:
            self._unrolled[first] = unroll(self.kernel, self.coordinates[first], whole)
        return self._unrolled[first]

    def _of_spc(self, variables: Ints, spc: int) -> Ints:
        depth = self.coordinates.shape[1]
        if spc == self._class_of[spc] or not depth:
            return variables
        moved = variables.copy()
        moved[:, :depth] = self.coordinates[spc]
        return moved

    def _check_ranks(self, findings: Findings) -> bool:
        """Whether every box has one axis a dimension of what is bound to its slot."""
        for place in places(self.kernel):
            for box in boxes_of(place):
                rank = len(self.bindings[box.slot].dims)
                if rank != len(box.axes):
                    what = f"a box of {len(box.axes)} axes on a tensor of {rank} in slot {box.slot}"
                    findings.add(place.name(), what, "one axis a dimension")
                    return False
        return True

    def _check_dims(self, access: Access, findings: Findings) -> None:
        free = access.indexed[0] if access.indexed else None
        limit = self.machine.max_dim
        dims = access.descriptor.dims
        if any(extent > limit for axis, extent in enumerate(dims) if axis != free):
            findings.add(access.place.name(), f"slot {access.slot} has dims {dims}", f"max_dim = {limit}")

    def _check_inside(self, access: Access, findings: Findings) -> None:
        lower = np.array(access.descriptor.lower)
        upper = lower + np.array(access.descriptor.dims)
        present = access.unclipped.present
        hulls = access.unclipped.take(present)
        if np.all(hulls.low >= lower) and np.all(hulls.high <= upper):
            return
        for spc in np.flatnonzero(present):
            variables = self.variables(access.place.index, int(spc))
            boxes = access.exact(variables)
            outside = np.any((boxes.low < lower) | (boxes.high > upper), axis=1)
            if outside.any():
                iteration = tuple(int(value) for value in variables[int(np.argmax(outside))])
                what = f"a box leaves its tensor {access.descriptor.dims}"
                findings.add(access.place.name(iteration), what, "fill is refuse")
                return
