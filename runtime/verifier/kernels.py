"""One kernel with what is bound to its slots: all checks inside it, and what it reads and writes as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Final

import numpy as np

from birc.runtime.machine import Machine
from birc.runtime.program import Descriptor, Kernel
from birc.runtime.verifier.access import Access, Bindings, boxes_of, kernel_accesses
from birc.runtime.verifier.boxes import Boxes, concatenate, unique
from birc.runtime.verifier.byteset import ByteSet, bytes_of, empty
from birc.runtime.verifier.conflicts import (
    Conflict,
    Executions,
    check_between_spcs,
    check_on_spc,
    find_conflicts,
)
from birc.runtime.verifier.feed import unfed_boxes
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.layout import byte_span
from birc.runtime.verifier.onchip import queues_of
from birc.runtime.verifier.scope import places
from birc.runtime.verifier.shorten import Shortener, most_events
from birc.runtime.verifier.unroll import Ints, Unrolled, spc_classes, spc_coordinates, unroll, whole
from birc.runtime.verifier.walk import Walk

# Kernels with more executions on an SPC are walked with shortened loops.
WALKED_WHOLE: Final = 20_000
# The most executions on an SPC that are unrolled at all.
MOST_EVENTS: Final = 1 << 20


def used_slots(kernel: Kernel) -> tuple[int, ...]:
    """The slots that a kernel's boxes name, sorted."""
    return tuple(sorted({box.slot for place in places(kernel) for box in boxes_of(place)}))


def relative(bindings: Bindings) -> dict[int, Descriptor]:
    """The same views with addresses that keep only how they lie to each other.

    Views whose byte ranges overlap keep their distance; others lie apart. So kernels bound to other buffers of the same
    form are equal.
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
    """A kernel bound to views. `check` looks for faults; the other members describe its traffic.

    Addresses of the views count only relative to each other (see `relative`).
    """

    def __init__(self, kernel: Kernel, bindings: Mapping[int, Descriptor], machine: Machine) -> None:
        self.kernel = kernel
        self.bindings = bindings
        self.machine = machine
        self.coordinates = spc_coordinates(kernel)
        self.events = most_events(kernel)
        self._shortener = Shortener(kernel)
        self._classes = spc_classes(kernel, self.coordinates)
        self._class_of = {spc: first for first, members in self._classes for spc in members}
        self._unrolled: dict[int, Unrolled] = {}
        self._written: dict[int, list[ByteSet]] = {}

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

    def check(self, findings: Findings) -> None:
        """Find everything that is wrong inside the kernel."""
        before = len(findings.found)
        self._check_bindings(findings)
        if len(findings.found) > before:
            return
        conflicts = tuple(find_conflicts(self.accesses))
        meeting = [conflict for conflict in conflicts if len(conflict.spcs)]
        if self.events > MOST_EVENTS and (conflicts or most_events(self.kernel, self._shortener) > MOST_EVENTS):
            what = f"{self.events} executions on an SPC are too many to prove it"
            findings.add(f"kernel {self.kernel.name}", what, f"{MOST_EVENTS}")
            return
        for conflict in conflicts:
            check_between_spcs(conflict, self.variables, findings)
        observed = frozenset(access.place.index for pair in meeting for access in (pair.left, pair.right))
        for spc, members in self._classes:
            self._walk(spc, members, meeting, observed, findings)

    def _walk(
        self,
        spc: int,
        members: tuple[int, ...],
        meeting: list[Conflict],
        observed: frozenset[int],
        findings: Findings,
    ) -> None:
        long = self.events > WALKED_WHOLE and not observed
        unrolled = unroll(self.kernel, self.coordinates[spc], self._shortener) if long else self._whole(spc)
        clocks = Walk(self.kernel, self.bindings, self.machine, unrolled, findings).run(observed)
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

    def _check_bindings(self, findings: Findings) -> None:
        """Ranks, sizes and `refuse` boxes against the bound views."""
        for place in places(self.kernel):
            for box in boxes_of(place):
                descriptor = self.bindings[box.slot]
                if len(descriptor.dims) != len(box.axes):
                    what = f"a box of {len(box.axes)} axes on a tensor of {len(descriptor.dims)} in slot {box.slot}"
                    findings.add(place.name(), what, "one axis a dimension")
                    return
        for access in self.accesses:
            self._check_dims(access, findings)
            if access.box.fill == "refuse":
                self._check_inside(access, findings)

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
        if self.events > MOST_EVENTS:
            findings.add(access.place.name(), "cannot prove the box inside its tensor", "fill is refuse")
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

    # What the kernel moves, for the checks between commands. Byte sets are for address 0 of the view.

    def spc_boxes(self, access: Access, spc: int) -> Boxes:
        """The different boxes in bounds of an instruction on one SPC."""
        return unique(access.boxes(self.variables(access.place.index, spc)))

    def read_hulls(self, access: Access) -> list[ByteSet | None]:
        """At least the bytes that a load reads: for each SPC in the tensor buffer, else of all SPCs together."""
        if access.descriptor.space == "tb":
            return [bytes_of(access.descriptor, access.hulls.take(np.array([spc]))) for spc in range(self.spcs)]
        return [bytes_of(access.descriptor, _joined(unique(access.hulls)))]

    def reads(self, access: Access) -> list[ByteSet | None]:
        """The bytes that a load reads and that the kernel itself has not written before; as `read_hulls`."""
        if self.events > MOST_EVENTS:
            return self.read_hulls(access)
        parts = [
            unfed_boxes(access, self.accesses, self.positions, self.variables, spc) for spc in range(self.spcs)
        ]
        if access.descriptor.space == "tb":
            return [bytes_of(access.descriptor, part) for part in parts]
        return [bytes_of(access.descriptor, _joined(unique(concatenate(parts))))]

    def positions(self, static: int, spc: int) -> Ints:
        """The places in sequential order of all executions of a static instruction on an SPC."""
        return self._whole(spc).instances[static].position

    def writes(self, access: Access) -> list[ByteSet]:
        """The bytes that a store surely writes: for each SPC in the tensor buffer, else of all SPCs together."""
        known = self._written.get(access.place.index)
        if known is None:
            known = self._written[access.place.index] = self._surely_written(access)
        return known

    def _surely_written(self, access: Access) -> list[ByteSet]:
        if self.events > MOST_EVENTS:
            return [empty() for _ in range(self.spcs if access.descriptor.space == "tb" else 1)]
        parts = [self._dense_boxes(access, spc) for spc in range(self.spcs)]
        if access.descriptor.space != "tb":
            parts = [concatenate(parts)]
        return [bytes_of(access.descriptor, _joined(unique(part))) or empty() for part in parts]

    def _dense_boxes(self, access: Access, spc: int) -> Boxes:
        """Boxes without gaps: an axis with a step becomes one box an element."""
        variables = self.variables(access.place.index, spc)
        boxes = access.boxes(variables)
        for number, axis in enumerate(access.box.axes):
            if abs(axis.step) == 1 or axis.extent == 1:
                continue
            exact = access.exact(variables)
            elements = exact.low[:, number, None] + abs(axis.step) * np.arange(axis.extent)
            inside = (elements >= boxes.low[:, number, None]) & (elements < boxes.high[:, number, None])
            which, _ = np.nonzero(inside)
            boxes = boxes.take(which)
            variables = variables[which]
            boxes.low[:, number] = elements[inside]
            boxes.high[:, number] = elements[inside] + 1
        return boxes


def _joined(boxes: Boxes) -> Boxes:
    """One box instead of many that fill it like a grid; else the boxes as they are."""
    if len(boxes) <= 1:
        return boxes
    cells = 1
    for axis in range(boxes.low.shape[1]):
        sides = np.unique(np.stack([boxes.low[:, axis], boxes.high[:, axis]], axis=1), axis=0)
        if np.any(sides[1:, 0] != sides[:-1, 1]):
            return boxes
        cells *= len(sides)
    return boxes.hull() if cells == len(boxes) else boxes
