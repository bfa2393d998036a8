"""Packing small constants into one buffer an element type, so that one copy brings them all onto the chip."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from birc.compiler.ir.plan import Buffer, Kernel, View
from birc.compiler.ir.plan_access import accesses, accesses_of, moved, with_views
from birc.compiler.passes.lifetimes import tables
from birc.runtime.dtypes import dtype

LARGEST_PACKED_BYTES = 1 << 15
ALIGNMENT_BYTES = 128

Constants = Mapping[str, np.ndarray]


def pack_small(
    kernels: list[Kernel], buffers: Mapping[str, Buffer], data: Constants
) -> tuple[list[Kernel], dict[str, Buffer], dict[str, np.ndarray]]:
    """Kernels, buffers and data with the small constants of each element type in one buffer.

    Tables that are read at indices from data stay apart: they are not copied onto the chip. What products multiply
    comes first, so that what the vector cores read is one run, which may be copied nearer to them.
    """
    indexed = {name for kernel in kernels for name in tables(kernel)}
    used = {access.view.buffer for kernel in kernels for access in accesses(kernel)} - indexed
    by_vectors = {access.view.buffer for kernel in kernels for op, access in accesses_of(kernel) if op not in "ab"}
    small: dict[str, list[Buffer]] = {}
    for buffer in sorted(buffers.values(), key=lambda buffer: buffer.name in by_vectors):
        if buffer.role == "constant" and buffer.name in used and buffer.num_bytes <= LARGEST_PACKED_BYTES:
            small.setdefault(buffer.dtype, []).append(buffer)
    places: dict[str, tuple[str, int]] = {}
    result = dict(buffers)
    packed = dict(data)
    for element, members in small.items():
        if len(members) < 2:
            continue
        name = f"constants.{element}"
        step = max(1, ALIGNMENT_BYTES * 8 // dtype(element).bits)
        parts = []
        offset = 0
        for member in members:
            flat = np.ascontiguousarray(data[member.name]).reshape(-1)
            places[member.name] = (name, offset)
            length = -(-flat.size // step) * step
            parts.append(np.pad(flat, (0, length - flat.size)))
            offset += length
            del result[member.name], packed[member.name]
        packed[name] = np.concatenate(parts)
        result[name] = Buffer(name, element, offset * dtype(element).bits // 8, "constant")

    def in_its_place(view: View) -> View:
        name, offset = places.get(view.buffer, (view.buffer, 0))
        return moved(view, name, view.offset + offset)

    return [with_views(kernel, in_its_place) for kernel in kernels], result, packed
