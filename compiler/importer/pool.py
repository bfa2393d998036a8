"""Lowering of pooling over windows and over whole images."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.window import ceil_ends, read_window, resolve_pads
from birc.compiler.ir.attributes import AttributeValue


def _max_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    if node.uses_output(1):
        raise CannotLower("its second output, the indices of the maxima, is asked for")
    return _pool("max_pool2d", node, build)


def _average_pool(node: OnnxNode, build: GraphBuilder) -> Results:
    return _pool("avg_pool2d", node, build)


def _pool(op: str, node: OnnxNode, build: GraphBuilder) -> str:
    """Two spatial dimensions are the core row; one becomes two, of which the first has size 1."""
    x = node.input(0)
    shape = build.shape(x)
    spatial = len(shape) - 2
    if spatial not in (1, 2):
        raise CannotLower(f"pooling over {spatial} spatial dimensions; 1 and 2 are supported")
    window = read_window(node, node.ints_attribute("kernel_shape"))
    begins, ends = resolve_pads(node, window, shape[2:])
    counted = ends
    if node.int_attribute("ceil_mode", 0):
        ends = ceil_ends(window, shape[2:], begins, ends)
    missing = 2 - spatial
    ones, zeros = (1,) * missing, (0,) * missing
    attributes: dict[str, AttributeValue] = {
        "kernel": ones + window.kernel,
        "stride": ones + window.stride,
        "pads": zeros + begins + zeros + ends,
    }
    if op == "max_pool2d":
        attributes["dilation"] = ones + window.dilation
    else:
        if set(window.dilation) != {1}:
            raise CannotLower(f"an average over a window dilated by {list(window.dilation)}")
        attributes["count_include_pad"] = node.int_attribute("count_include_pad", 0)
        attributes["divisor_pads"] = zeros + begins + zeros + counted
    if spatial == 1:
        x = build.emit("reshape", (x,), {"shape": (*shape[:2], 1, *shape[2:])})
    result = build.emit(op, (x,), attributes)
    made = build.shape(result)
    return result if spatial == 2 else build.emit("reshape", (result,), {"shape": (*made[:2], *made[3:])})


def _global_pool(op: str) -> Lower:
    """Pooling over all spatial dimensions is a reduction."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        rank = len(build.shape(node.input(0)))
        return build.emit(op, (node.input(0),), {"axes": tuple(range(2, rank)), "keepdims": 1})

    return lower


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("AveragePool", _average_pool),
    OpType("GlobalAveragePool", _global_pool("reduce_mean")),
    OpType("GlobalMaxPool", _global_pool("reduce_max")),
    OpType("MaxPool", _max_pool),
)
