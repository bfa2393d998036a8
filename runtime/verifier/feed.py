"""Loads that read what the same kernel stored before: they need no initialised memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from birc.runtime.program import Descriptor
from birc.runtime.verifier.access import Access
from birc.runtime.verifier.boxes import Boxes, byte_hulls
from birc.runtime.verifier.layout import ELEMENT_BYTES, byte_span
from birc.runtime.verifier.unroll import Ints

# The largest part of memory that is followed element by element.
MOST_UNITS: Final = 1 << 25
_NEVER: Final = np.iinfo(np.int64).max

PerSpc = Callable[[int, int], Ints]  # (static index, SPC)


def unfed_boxes(load: Access, accesses: tuple[Access, ...], positions: PerSpc, variables: PerSpc, spc: int) -> Boxes:
    """The boxes of a load on an SPC that read something which the kernel has not stored there before."""
    boxes = load.boxes(variables(load.place.index, spc))
    stores = [access for access in accesses if access.store and _may_feed(access, load, spc)]
    if not stores or not len(boxes):
        return boxes
    views = [load.descriptor, *(store.descriptor for store in stores)]
    unit = math.gcd(*(ELEMENT_BYTES[view.dtype] for view in views), *(view.address for view in views))
    base = min(byte_span(view)[0] for view in views)
    length = max(byte_span(view)[1] for view in views) - base
    if length // unit > MOST_UNITS or any(min(view.strides) < 0 for view in views):
        return boxes
    first_written = np.full(length // unit, _NEVER)
    for store in stores:
        if any(abs(axis.step) != 1 and axis.extent > 1 for axis in store.box.axes):
            continue
        view = _as_view(first_written, store.descriptor, base, unit)
        written = store.boxes(variables(store.place.index, spc))
        for index in np.flatnonzero(written.present):
            part = _slices(written, int(index), store.descriptor)
            view[part] = np.minimum(view[part], positions(store.place.index, spc)[index])
    view = _as_view(first_written, load.descriptor, base, unit)
    own = positions(load.place.index, spc)
    unfed = [
        int(index)
        for index in np.flatnonzero(boxes.present)
        if view[_slices(boxes, int(index), load.descriptor)].max() >= own[index]
    ]
    return boxes.take(np.array(unfed, np.int64))


def _may_feed(store: Access, load: Access, spc: int) -> bool:
    if store.descriptor.space != load.descriptor.space:
        return False
    which = np.array([spc])
    low, high = byte_hulls(store.descriptor, store.hulls.take(which))
    other_low, other_high = byte_hulls(load.descriptor, load.hulls.take(which))
    return bool(low[0] < other_high[0] and other_low[0] < high[0])


def _as_view(units: Ints, descriptor: Descriptor, base: int, unit: int) -> Ints:
    """The times of a tensor's elements; the last axis runs over the units of an element."""
    size = ELEMENT_BYTES[descriptor.dtype]
    start = (byte_span(descriptor)[0] - base) // unit
    shape = (*descriptor.dims, size // unit)
    strides = (*(stride * (size // unit) * 8 for stride in descriptor.strides), 8)
    return np.lib.stride_tricks.as_strided(units[start:], shape, strides)


def _slices(boxes: Boxes, index: int, descriptor: Descriptor) -> tuple[slice, ...]:
    sides = zip(boxes.low[index].tolist(), boxes.high[index].tolist(), descriptor.lower, strict=True)
    return tuple(slice(low - lower, high - lower) for low, high, lower in sides)
