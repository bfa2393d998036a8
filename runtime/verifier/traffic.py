"""What a kernel moves as a whole, for the checks between commands; computed once for all its runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.verifier.access import Access
from birc.runtime.verifier.boxes import Boxes, byte_hulls, concatenate, unique
from birc.runtime.verifier.byteset import ByteSet, bytes_of, empty
from birc.runtime.verifier.feed import unfed_boxes
from birc.runtime.verifier.kernels import KernelModel


@dataclass(frozen=True, slots=True)
class Touch:
    """Memory that loads or stores of one slot touch: a box for each SPC, and the bytes around all."""

    slot: int
    store: bool
    boxes: Boxes
    low: int
    high: int


class Traffic:
    """The bytes that a kernel reads and writes. All addresses are for address 0 of the view.

    Byte sets come as lists: of each SPC for views of the tensor buffer, else one of all SPCs together.
    """

    def __init__(self, model: KernelModel) -> None:
        self.model = model
        self._written: dict[int, list[ByteSet]] = {}
        self._hulls: dict[int, list[ByteSet | None]] = {}
        self._reads: dict[int, list[ByteSet | None]] = {}

    @cached_property
    def touches(self) -> tuple[Touch, ...]:
        """What the kernel touches in HBM and L2, each different hull once."""
        return _touches(self.model.accesses)

    @cached_property
    def in_buffers(self) -> tuple[Touch, ...]:
        """The same in tensor buffers, each SPC in its own."""
        return _touches(self.model.accesses, in_buffers=True)

    @cached_property
    def preloaded(self) -> tuple[Touch, ...]:
        """The same of the queue that loads B, which may begin before the kernel's run."""
        return _touches(self._loads_of_b)

    @property
    def preloads_buffer(self) -> bool:
        """Whether that queue loads from the tensor buffer."""
        return any(access.descriptor.space == "tb" for access in self._loads_of_b)

    @property
    def _loads_of_b(self) -> tuple[Access, ...]:
        kinds = [(access, access.place.instruction.mnemonic) for access in self.model.accesses]
        return tuple(access for access, mnemonic in kinds if BY_MNEMONIC[mnemonic].engine == "load_b")

    def read_hulls(self, access: Access) -> list[ByteSet | None]:
        """At least the bytes that a load reads."""
        key = access.place.index
        if key not in self._hulls:
            each = [access.hulls.take(np.array([spc])) for spc in range(self.model.spcs)]
            parts = each if access.descriptor.space == "tb" else [_joined(unique(access.hulls))]
            self._hulls[key] = [bytes_of(access.descriptor, part) for part in parts]
        return self._hulls[key]

    def reads(self, access: Access) -> list[ByteSet | None]:
        """The bytes that a load reads and that the kernel itself has not written before."""
        key = access.place.index
        if key not in self._reads:
            model = self.model
            parts = [
                unfed_boxes(access, model.accesses, model.positions, model.variables, spc) for spc in range(model.spcs)
            ]
            if access.descriptor.space != "tb":
                parts = [_joined(unique(concatenate(parts)))]
            self._reads[key] = [bytes_of(access.descriptor, part) for part in parts]
        return self._reads[key]

    def writes(self, access: Access) -> list[ByteSet]:
        """The bytes that a store surely writes."""
        key = access.place.index
        if key not in self._written:
            parts = [self._dense_boxes(access, spc) for spc in range(self.model.spcs)]
            if access.descriptor.space != "tb":
                parts = [concatenate(parts)]
            found = (bytes_of(access.descriptor, _joined(unique(part))) for part in parts)
            self._written[key] = [part or empty() for part in found]
        return self._written[key]

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


def _touches(accesses: tuple[Access, ...], *, in_buffers: bool = False) -> tuple[Touch, ...]:
    found: dict[tuple[object, ...], Touch] = {}
    for access in accesses:
        hulls = access.hulls
        present = hulls.present
        key = (access.slot, access.store, hulls.low.tobytes(), hulls.high.tobytes())
        if (access.descriptor.space == "tb") != in_buffers or key in found or not present.any():
            continue
        low, high = byte_hulls(access.descriptor, hulls, address=0)
        ends = int(low[present].min()), int(high[present].max())
        found[key] = Touch(access.slot, access.store, hulls, *ends)
    return tuple(found.values())


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
