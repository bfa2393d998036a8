"""Ops that reduce whole dimensions on the vector cores: softmax, layer norm, sums and means."""

from __future__ import annotations

import math

from birc.compiler.ir.attributes import integer, integers, number
from birc.compiler.ir.graph import Node
from birc.compiler.passes.lower.expression import Expression, Store
from birc.compiler.passes.lower.frame import Frame
from birc.compiler.passes.lower.group import GroupLowering, node_name
from birc.compiler.passes.lower.integers import is_word, mean, register, turned
from birc.compiler.passes.lower.macros import LOG2_E, exp, log
from birc.compiler.passes.lower.powers import in_octaves, unscaled
from birc.compiler.passes.lower.ranges import LANE_BITS, Range
from birc.compiler.passes.lower.views import factorised
from birc.compiler.passes.lower.wide import Wide, divide, extreme, known, summed
from birc.runtime.dtypes import dtype
from birc.runtime.errors import DoesNotFitError, UnsupportedError

REDUCTIONS = {
    "reduce_sum": "vredsum",
    "reduce_mean": "vredsum",
    "reduce_max": "vredmax",
    "reduce_min": "vredmin",
    "reduce_prod": "vredprod",
}
SMALLER = frozenset({*REDUCTIONS, "logsumexp", "row_statistics"})
"""Ops whose results are smaller than the rows that they read."""


def softmax(lowering: GroupLowering, node: Node) -> Expression:
    """exp(x - max) / sum, along one axis; the division is left to the reader where the sums are kept for it."""
    return _softmax(lowering, node)[0]


def logsumexp(lowering: GroupLowering, node: Node) -> Expression:
    """max + log(sum(exp(x - max))), along one axis. With a softmax of the same it is stored beside that."""
    b = lowering.builder
    _, most, total = _softmax(lowering, node)
    result = b.op("vadd", most, log(b, total))
    view = lowering.env.target(node.name, node.output.type.logical)
    frame = kept_frame(lowering.frame, reduced_axes(node, len(lowering.frame.shape)))
    lowering.stores[node.name] = [Store(result, frame.access(view))]
    return result


def _softmax(lowering: GroupLowering, node: Node) -> tuple[Expression, Expression, Expression]:
    """The softmax of rows, their maxima, and the sums of the powers."""
    b = lowering.builder
    scores, octaves = _scores(lowering, node)
    shifted, dims, most = _shifted(lowering, node, scores)
    shares = b.op("vexp2", shifted if octaves == 1.0 else b.op("vmul", shifted, octaves))
    total = lowering.reduce("vredsum", shares, dims)
    most = b.op("vmul", most, octaves / LOG2_E)
    if lowering.keeps_sums:
        lowering.row_sums = total
        return shares, most, total
    return b.op("vmul", shares, b.op("vrcp", total)), most, total


def log_softmax(lowering: GroupLowering, node: Node) -> Expression:
    """x - max - log(sum(exp(x - max))), along one axis."""
    shifted, dims, _ = _shifted(lowering, node, lowering.expression(node.inputs[0]))
    total = lowering.reduce("vredsum", exp(lowering.builder, shifted), dims)
    return lowering.builder.op("vsub", shifted, log(lowering.builder, total))


def layer_norm(lowering: GroupLowering, node: Node) -> Expression:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the axes from `axis` on."""
    b = lowering.builder
    x = lowering.expression(node.inputs[0])
    dims, count = _from_axis(lowering, node)
    centred = b.op("vsub", x, b.op("vmul", lowering.reduce("vredsum", x, dims), 1.0 / count))
    variance = lowering.reduce("vredsum", b.op("vmul", centred, centred), dims)
    factor = b.op("vrsqrt", b.op("vfma", variance, 1.0 / count, number(node.attributes, "epsilon")))
    return _scaled(lowering, node, b.op("vmul", centred, factor))


def rms_norm(lowering: GroupLowering, node: Node) -> Expression:
    """x / sqrt(mean(x^2) + epsilon) * scale over the axes from `axis` on."""
    b = lowering.builder
    x = lowering.expression(node.inputs[0])
    dims, count = _from_axis(lowering, node)
    squares = lowering.reduce("vredsum", b.op("vmul", x, x), dims)
    factor = b.op("vrsqrt", b.op("vfma", squares, 1.0 / count, number(node.attributes, "epsilon")))
    return _scaled(lowering, node, b.op("vmul", x, factor))


def reduction(lowering: GroupLowering, node: Node) -> Expression | Wide:
    """A sum, mean, maximum, minimum or product over axes; the space is that of the input."""
    axes = integers(node.attributes, "axes")
    dims = tuple(name for axis in axes for name in lowering.frame.names_of_axis(axis))
    type = lowering.type_of(node.inputs[0])
    count = math.prod(type.sizes[axis] for axis in axes)
    b, mnemonic = lowering.builder, REDUCTIONS[node.op]
    if type.dtype.is_integer and dims and _needs_words(lowering, node, count):
        return _of_words(lowering, node, dims, count)
    x = lowering.expression(node.inputs[0])
    is_unsigned = is_word(type.dtype) and node.op in ("reduce_max", "reduce_min")
    result = lowering.reduce(mnemonic, turned(b, x) if is_unsigned else x, dims) if dims else x
    if is_unsigned and dims:
        return turned(b, result)
    if node.op == "reduce_mean":
        if type.dtype.is_integer:
            return mean(b, result, count, type.dtype)
        result = b.op("vmul", result, 1.0 / count)
    return result


def _needs_words(lowering: GroupLowering, node: Node, count: int) -> bool:
    """Whether what is reduced, its sum or the result may not fit a lane."""
    x = lowering.ranges[node.inputs[0]]
    of_sum = Range(x.low * count, x.high * count)
    is_mean = node.op == "reduce_mean" and not of_sum.fits_lane
    return is_mean or any(lowering.is_wide(name) for name in (node.inputs[0], node.name))


def _of_words(lowering: GroupLowering, node: Node, dims: tuple[str, ...], count: int) -> Expression | Wide:
    """A reduction of 64-bit integers."""
    b, mnemonic, type = lowering.builder, REDUCTIONS[node.op], lowering.type_of(node.inputs[0]).dtype
    x = lowering.wide(node.inputs[0])

    def reduce(lanes: Expression, mnemonic: str = mnemonic) -> Expression:
        return lowering.reduce(mnemonic, lanes, dims)

    if node.op in ("reduce_max", "reduce_min"):
        result = extreme(b, x, type, mnemonic, reduce)
    else:
        total = summed(b, x, count, reduce) if mnemonic == "vredsum" else None
        if total is None:
            raise UnsupportedError(f"{node.op} of {count} {type}, which 32 bits may not hold", where=node_name(node))
        # The sum of narrower numbers without a sign has none either, and fits 63 bits.
        is_unsigned = type.kind == "uint" and type.bits > LANE_BITS
        divisor = known(count)
        result = divide(b, total, divisor, type if is_unsigned else dtype("i64")) if node.op == "reduce_mean" else total
    return result if lowering.is_wide(node.name) else register(b, result.low)


def reduced_axes(node: Node, rank: int) -> tuple[int, ...]:
    """The axes that an op of this module reduces."""
    if node.op in REDUCTIONS:
        return integers(node.attributes, "axes")
    axis = rank - 1 if node.op == "row_statistics" else integer(node.attributes, "axis")
    return tuple(range(axis, rank)) if node.op in ("layer_norm", "rms_norm") else (axis,)


def with_small_factors(frame: Frame, axes: tuple[int, ...], limit: int, where: str) -> Frame:
    """The frame with those of the axes that are larger than a descriptor dimension may be as two dimensions."""
    for axis in axes:
        factors = factorised(frame.shape[axis], limit)
        if factors is None:
            message = f"an axis of {frame.shape[axis]} has no factors of at most {limit}"
            raise DoesNotFitError(message, where=where, hint="pad the axis that is reduced")
        if len(factors) > 1:
            frame = frame.split(axis, factors)
    return frame


def kept_frame(frame: Frame, axes: tuple[int, ...]) -> Frame:
    """The frame of the result of a reduction that keeps its axes with extent 1."""
    shape = tuple(1 if axis in axes else extent for axis, extent in enumerate(frame.shape))
    factors = tuple((1,) * len(f) if axis in axes else f for axis, f in enumerate(frame.factors))
    return Frame(shape, factors, frame.order, frame.names)


def _scores(lowering: GroupLowering, node: Node) -> tuple[Expression, float]:
    """What is as much more or less for each score, and by how much the power of two rises with it.

    Masks that are added are scaled in BF16 alone: a sum of larger numbers has fewer digits behind the point.
    """
    x = lowering.expression(node.inputs[0])
    if lowering.contraction is not None and lowering.env.storage(node.output.type) == "bf16":
        scaled = in_octaves(lowering.builder, x, lowering.contraction.row_dims)
        if scaled is not None:
            return scaled, 1.0
    scores, factor = unscaled(lowering.builder, x)
    return scores, factor * LOG2_E


def _shifted(lowering: GroupLowering, node: Node, x: Expression) -> tuple[Expression, tuple[str, ...], Expression]:
    """Scores without the maximum of their row, the dimensions along which that runs, and the maximum."""
    (axis,) = reduced_axes(node, len(lowering.frame.shape))
    dims = lowering.frame.names_of_axis(axis)
    most = lowering.reduce("vredmax", x, dims)
    return lowering.builder.op("vsub", x, most), dims, most


def _from_axis(lowering: GroupLowering, node: Node) -> tuple[tuple[str, ...], int]:
    axis = integer(node.attributes, "axis")
    shape = lowering.type_of(node.inputs[0]).sizes
    dims = tuple(name for i in range(axis, len(shape)) for name in lowering.frame.names_of_axis(i))
    return dims, math.prod(shape[axis:])


def _scaled(lowering: GroupLowering, node: Node, value: Expression) -> Expression:
    """value * scale + bias, where the optional operands are given."""
    b = lowering.builder
    scale, bias = (lowering.operand(name) if name else None for name in (*node.inputs[1:3], "", "")[:2])
    if scale is None:
        return value if bias is None else b.op("vadd", value, bias)
    return b.op("vmul", value, scale) if bias is None else b.op("vfma", value, scale, bias)
