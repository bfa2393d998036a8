"""Lowering of reductions over axes."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.axes import axes_of, positive_axes
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.elementwise import cast
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.ir.attributes import AttributeValue
from birc.runtime.dtypes import dtype


def _over(node: OnnxNode, build: GraphBuilder) -> dict[str, AttributeValue] | None:
    """The attributes of the reduction; None when the node asks to reduce nothing at all."""
    rank = len(build.shape(node.input(0)))
    axes = axes_of(node, build, 1)
    if not axes:
        if node.int_attribute("noop_with_empty_axes", 0):
            return None
        axes = tuple(range(rank))
    return {"axes": positive_axes(node, axes, rank), "keepdims": node.int_attribute("keepdims", 1)}


def _reduce(op: str, before: str = "", after: str = "") -> Lower:
    """A reduction row between two element-wise rows; `before` may be "square"."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        x, over = node.input(0), _over(node, build)
        kept = build.type_of(x).dtype
        if kept == dtype("bool"):
            x = cast(build, x, dtype("i32"))
        if before:
            x = build.emit("mul", (x, x)) if before == "square" else build.emit(before, (x,))
        result = x if over is None else build.emit(op, (x,), over)
        result = build.emit(after, (result,)) if after else result
        return cast(build, result, kept)

    return lower


def _reduce_log_sum_exp(node: OnnxNode, build: GraphBuilder) -> Results:
    """max + log(sum(exp(x - max))): no overflow where the result is finite."""
    x, over = node.input(0), _over(node, build)
    if over is None:
        return x
    kept = {**over, "keepdims": 1}
    peak = build.emit("reduce_max", (x,), kept)
    total = build.emit("reduce_sum", (build.emit("exp", (build.emit("sub", (x, peak)),)),), over)
    peak = build.emit("reshape", (peak,), {"shape": build.shape(total)})
    return build.emit("add", (build.emit("log", (total,)), peak))


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("ReduceL1", _reduce("reduce_sum", before="abs")),
    OpType("ReduceL2", _reduce("reduce_sum", before="square", after="sqrt")),
    OpType("ReduceLogSum", _reduce("reduce_sum", after="log")),
    OpType("ReduceLogSumExp", _reduce_log_sum_exp),
    OpType("ReduceMax", _reduce("reduce_max")),
    OpType("ReduceMean", _reduce("reduce_mean")),
    OpType("ReduceMin", _reduce("reduce_min")),
    OpType("ReduceProd", _reduce("reduce_prod")),
    OpType("ReduceSum", _reduce("reduce_sum")),
    OpType("ReduceSumSquare", _reduce("reduce_sum", before="square")),
)
