"""Lowering of GatherBlockQuantized: rows of a table of 2, 4 or 8 bits with a scale for each block, as floats."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contrib_blocked_weights import unpacked
from birc.compiler.importer.contrib_standard import DOMAIN
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.term import Term, as_term, constant, where
from birc.runtime.errors import BadModelError

_BYTE: Final = 8


def _gather_block_quantized(node: OnnxNode, build: GraphBuilder) -> Results:
    """What the indices name along one axis, dequantised in blocks along another; 0 for indices out of range."""
    data, indices, scales = (Term(build, node.input(place)) for place in (0, 1, 2))
    rank = len(data.shape)
    axis = positive_axis(node, node.int_attribute("gather_axis", 0), rank)
    blocked = positive_axis(node, node.int_attribute("quantize_axis", 1), rank)
    bits, block = node.int_attribute("bits", 4), node.int_attribute("block_size", 128)
    if not data.dtype.is_integer or axis == blocked or block < 1:
        raise CannotLower(f"{data.dtype.name} in blocks of {block} along axis {blocked}, gathered along {axis}")
    is_packed = data.dtype.name == "u8" and bits < _BYTE
    if is_packed and blocked != rank - 1:
        raise CannotLower(f"bytes that hold several integers are scaled along axis {blocked}, not the last")
    count = data.shape[axis]
    inside = (indices < count) & (indices >= -count)
    zero_index = constant(build, np.zeros((), indices.dtype.numpy))
    rows = as_term(build, where(inside, indices, zero_index))
    zero = Term(build, node.input(3)) if node.optional(3) else None
    held, factors = data.gather(rows, axis), scales.gather(rows, axis)
    zeros = zero.gather(rows, axis) if zero is not None else None
    if is_packed:
        held = unpacked(held, bits)
        zeros = unpacked(zeros, bits) if zeros is not None else None
    if zeros is None and data.dtype.name == "u8":
        zeros = constant(build, np.full((1,) * len(held.shape), 1 << (bits - 1), np.uint8))
    place = blocked + len(indices.shape) - 1 if blocked > axis else blocked
    wanted = -(-held.shape[place] // block)
    if factors.shape[place] != wanted:
        raise BadModelError(f"{factors.shape[place]} scales for {wanted} blocks", where=node.where)
    spread = [_spread(each, place, block, held.shape[place]) for each in (factors, zeros) if each is not None]
    names = (held.name, *(each.name for each in spread))
    result = Term(build, build.emit("dequantize", names))
    apart = (*inside.shape, *(1 for _ in range(rank - axis - 1)))
    return as_term(build, where(inside.reshape(*apart), result, 0.0)).name


def _spread(x: Term, axis: int, block: int, size: int) -> Term:
    """A scale or zero point for each element of the blocks along an axis; one for all stays so."""
    shape = x.shape
    if shape[axis] == 1:
        return x.part(axis, 0, 1)
    if shape[axis] * block < size:
        raise BadModelError(f"{shape[axis]} blocks of {block} for {size} elements")
    apart = x.reshape(*shape[: axis + 1], 1, *shape[axis + 1 :])
    whole = apart.row("expand", shape=(*shape[: axis + 1], block, *shape[axis + 1 :]))
    return whole.reshape(*shape[:axis], shape[axis] * block, *shape[axis + 1 :]).part(axis, 0, size)


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("GatherBlockQuantized", _gather_block_quantized, domain=DOMAIN),)
