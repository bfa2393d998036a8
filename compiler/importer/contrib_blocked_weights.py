"""Lowering of MatMulNBits: weights of 2, 4 or 8 bits, packed in bytes, with a scale for each block of a row."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.importer.attention_heads import times
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.contrib_standard import DOMAIN
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.term import Term, constant, stacked
from birc.runtime.errors import BadModelError

_BYTE: Final = 8
_WIDTHS: Final = (2, 4, 8)


def _matmul_nbits(node: OnnxNode, build: GraphBuilder) -> Results:
    """x times the transposed weights, plus a bias; a weight is (its bits - zero point) * scale of its block."""
    x, scales = Term(build, node.input(0)), Term(build, node.input(2))
    rows, depth = node.int_attribute("N", 0), node.int_attribute("K", 0)
    bits, block = node.int_attribute("bits", 4), node.int_attribute("block_size", 0)
    _require_plain(node, bits, block)
    blocks = -(-depth // block)
    packed = Term(build, node.input(1))
    if packed.dtype.name != "u8" or packed.shape != (rows, blocks, block * bits // _BYTE):
        raise BadModelError(f"weights {packed.dtype.name} {list(packed.shape)} for {rows} x {depth}", where=node.where)
    whole = unpacked(packed, bits)
    by_block = scales.reshape(rows, blocks, 1)
    weights = _dequantised(node, build, whole, by_block, bits)
    matrix = weights.reshape(rows, blocks * block).part(1, 0, depth).transpose(1, 0)
    result = times(x, matrix)
    return (result + Term(build, node.input(5)) if node.optional(5) else result).name


def _require_plain(node: OnnxNode, bits: int, block: int) -> None:
    if bits not in _WIDTHS or block < 1 or block * bits % _BYTE:
        raise CannotLower(f"weights of {bits} bits in blocks of {block}")
    if node.optional(4):
        raise CannotLower("an order of the groups is given")
    if node.int_attribute("weight_prepacked", 0):
        raise CannotLower("weights are packed for a kernel of another device")


def unpacked(packed: Term, bits: int) -> Term:
    """The bytes of the last dimension as the integers in them, the lowest bits first."""
    if bits == _BYTE:
        return packed
    build = packed.build
    kept = constant(build, np.array((1 << bits) - 1, np.uint8))
    parts = []
    for shift in range(0, _BYTE, bits):
        amount = constant(build, np.array(shift, np.uint8))
        moved = Term(build, build.emit("shift_right", (packed.name, amount.name))) if shift else packed
        parts.append(Term(build, build.emit("bitwise_and", (moved.name, kept.name))))
    shape = packed.shape
    return stacked(parts, -1).reshape(*shape[:-1], shape[-1] * (_BYTE // bits))


def _dequantised(node: OnnxNode, build: GraphBuilder, whole: Term, scales: Term, bits: int) -> Term:
    """Weights (row, block, place) in the type of the scales; zero points are packed as weights are, or floats."""
    rows, blocks, _ = whole.shape
    if not node.optional(3):
        zero = constant(build, np.array(1 << (bits - 1), np.uint8))
    else:
        zero = Term(build, node.input(3))
        if zero.dtype.is_float:
            return (whole.to(scales.dtype.name) - zero.reshape(rows, blocks, 1)) * scales
        zero = unpacked(zero.reshape(rows, -(-blocks * bits // _BYTE)), bits).part(1, 0, blocks)
        zero = zero.reshape(rows, blocks, 1)
    return Term(build, build.emit("dequantize", (whole.name, scales.name, zero.name)))


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("MatMulNBits", _matmul_nbits, domain=DOMAIN),)
