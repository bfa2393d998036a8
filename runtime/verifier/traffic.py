"""What a kernel moves as a whole, for the checks between commands."""

from __future__ import annotations

import numpy as np

from birc.runtime.verifier.access import Access
from birc.runtime.verifier.boxes import Boxes, concatenate, unique
from birc.runtime.verifier.byteset import ByteSet, bytes_of, empty
from birc.runtime.verifier.feed import unfed_boxes
from birc.runtime.verifier.kernels import KernelModel


class Traffic:
    """The bytes that a kernel reads and writes. All byte sets are for address 0 of the view."""

    def __init__(self, model: KernelModel) -> None:
        self.model = model
        self._written: dict[int, list[ByteSet]] = {}

    def read_hulls(self, access: Access) -> list[ByteSet | None]:
        """At least the bytes that a load reads: for each SPC in the tensor buffer, else of all SPCs together."""
        if access.descriptor.space == "tb":
            return [
                bytes_of(access.descriptor, access.hulls.take(np.array([spc])))
                for spc in range(self.model.spcs)
            ]
        return [bytes_of(access.descriptor, _joined(unique(access.hulls)))]

    def reads(self, access: Access) -> list[ByteSet | None]:
        """The bytes that a load reads and that the kernel itself has not written before; as `read_hulls`."""
        parts = [
            unfed_boxes(access, self.model.accesses, self.model.positions, self.model.variables, spc)
            for spc in range(self.model.spcs)
        ]
        if access.descriptor.space == "tb":
            return [bytes_of(access.descriptor, part) for part in parts]
        return [bytes_of(access.descriptor, _joined(unique(concatenate(parts))))]

    def writes(self, access: Access) -> list[ByteSet]:
        """The bytes that a store surely writes: for each SPC in the tensor buffer, else of all SPCs together."""
        known = self._written.get(access.place.index)
        if known is None:
            known = self._written[access.place.index] = self._surely_written(access)
        return known

    def _surely_written(self, access: Access) -> list[ByteSet]:
        parts = [self._dense_boxes(access, spc) for spc in range(self.model.spcs)]
        if access.descriptor.space != "tb":
            parts = [concatenate(parts)]
        return [bytes_of(access.descriptor, _joined(unique(part))) or empty() for part in parts]

    def _dense_boxes(self, access: Access, spc: int) -> Boxes:
        """Boxes without gaps: an axis with a step becomes one box an element."""
        variables = self.model.variables(access.place.index, spc)
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
