"""Matrix products and convolutions as contractions on the T-core."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from birc.compiler.ir.attributes import integer, integers
from birc.compiler.ir.graph import Node
from birc.compiler.ir.plan import RED, Access, Contraction, Dimension, Index, View
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.lower.expression import Expression
from birc.compiler.passes.lower.frame import Frame, unit
from birc.compiler.passes.lower.group import GroupLowering, node_name
from birc.compiler.passes.lower.moments import with_parts
from birc.compiler.passes.lower.movement import padded_pixels
from birc.compiler.passes.lower.panels import panelled_conv2d
from birc.compiler.passes.lower.parts import Pattern, constant_parts, parted, patterns
from birc.compiler.passes.lower.views import broadcast, channel_view, factorised
from birc.runtime.errors import DoesNotFitError

STEM_CHANNELS = 4


def matmul(lowering: GroupLowering, node: Node) -> Expression:
    """Batched matrix product. Batch dimensions over which b repeats are rows like any other, but for parts of them."""
    out = node.output.type.sizes
    rank = len(out)
    a_shape, b_shape = (lowering.type_of(name).sizes for name in node.inputs[:2])
    if len(a_shape) == 1 or len(b_shape) == 1:
        raise DoesNotFitError("a matrix product with a vector", where=node.name, hint="reshape the vector to a matrix")
    batch = rank - 2
    outer = tuple(lowering.outer[name] for name in node.inputs[:2])
    a_pattern, b_pattern = patterns(lowering.env, *outer)
    a = _matrix(lowering, node, node.inputs[0], len(a_shape) - 1, a_pattern, packed=bool(a_pattern))
    b = _matrix(lowering, node, node.inputs[1], len(b_shape) - 2, b_pattern, packed=True)
    a = broadcast(a, (*out[:-1], a.dims[-1]))
    lowering.frame = Frame.of(out, None, (*(f"b{i}" for i in range(batch)), "m", "n"))
    shared = lowering.env.shared.get(outer[1])
    if shared is not None:
        lowering.frame = lowering.frame.split(shared.axis, shared.factors)
        a = _split_axis(a, shared.axis, shared.factors)
    names = lowering.frame.names
    batch = len(names) - 2
    b = broadcast(b, (*a.dims[:-2], *b.dims[-2:]))
    depth = _factors(lowering, node, a.dims[-1])
    reds = tuple(Dimension(f"k{i}", extent, RED) for i, extent in enumerate(depth))
    lowering.red_dims = reds
    lowering.frame = with_parts(lowering, lowering.frame)
    columns = lowering.frame.names[len(names) - 1 :]
    inner = shared.axis + 1 if shared is not None else batch
    rows = tuple(
        name for i, name in enumerate(names[:-1]) if i == batch or (b.strides[i] == 0 and a.strides[i] and i != inner)
    )
    a_view = _split_axis(a, len(a.dims) - 1, depth)
    widths = tuple(d.extent for d in lowering.frame.dimensions[len(names) - 1 :])
    b_view = _split_axis(_split_axis(b, len(b.dims) - 1, widths), len(b.dims) - 2, depth)
    k_index = tuple(unit(d.name) for d in reds)
    a_access = _moving(a_view, (*(unit(name) for name in names[:-1]), *k_index), batch)
    b_access = _moving(b_view, (*(unit(name) for name in names[:batch]), *k_index, *map(unit, columns)), batch)
    lowering.contraction = Contraction(
        a_access,
        b_access,
        len(a_access.index) - len(reds),
        len(b_access.index) - len(columns),
        rows,
        columns,
        lowering.env.tcore_format(*outer),
    )
    lowering.macs = math.prod(out) * a_shape[-1]
    return _divided(lowering, outer[0], _accumulator(lowering, node))


def conv2d(lowering: GroupLowering, node: Node) -> Expression:
    """Convolution as an implicit matrix product: rows are output pixels, depth is (kernel row, column, channel).

    Without strides a tiling may load the pixels once for all taps (plan_patch.py); else it does for each.
    """
    stride_y, stride_x = integers(node.attributes, "stride")
    top, left = integers(node.attributes, "pads")[:2]
    dilation_y, dilation_x = integers(node.attributes, "dilation")
    groups = integer(node.attributes, "group")
    panels = lowering.env.panels.get(lowering.outer[node.inputs[0]])
    if panels is not None:
        panelled_conv2d(lowering, node, panels)
        return _with_bias(lowering, node)
    if is_stem(lowering, node):
        return stem_conv2d(lowering, node)
    x = lowering.view(node.inputs[0])
    n, _, height, width = lowering.type_of(node.inputs[0]).sizes
    o, c, kernel_y, kernel_x = lowering.type_of(node.inputs[1]).sizes
    _, _, out_y, out_x = node.output.type.sizes
    lowering.frame = Frame(
        node.output.type.sizes,
        ((n,), (groups, o // groups), (out_y,), (out_x,)),
        (0, 1, 3, 4, 2),
        ("n", "g", "y", "x", "o"),
    )
    sn, sc, sh, sw = x.strides
    names = tuple(lowering.outer[name] for name in node.inputs[:2])
    x_pattern, w_pattern = patterns(lowering.env, *names)
    x_view = View(x.buffer, x.offset, (n, groups, height, width, c), (sn, sc * c, sh, sw, sc))
    x_view = parted(lowering.env, names[0], x_view, 4, x_pattern, node.sources)
    w_view = _weights(lowering, node, (groups, o // groups, c, kernel_y, kernel_x), w_pattern)
    channels = _factors(lowering, node, x_view.dims[4])
    c_dims = tuple(Dimension("c" if len(channels) == 1 else f"c{i}", e, RED) for i, e in enumerate(channels))
    c_index = tuple(unit(d.name) for d in c_dims)
    x_index = (
        unit("n"),
        unit("g"),
        Index((("y", stride_y), ("r", dilation_y)), -top),
        Index((("x", stride_x), ("s", dilation_x)), -left),
        *c_index,
    )
    w_index = (unit("g"), unit("r"), unit("s"), *c_index, unit("o"))
    lowering.red_dims = (Dimension("r", kernel_y, RED), Dimension("s", kernel_x, RED), *c_dims)
    lowering.contraction = Contraction(
        Access(_split_axis(x_view, 4, channels), x_index),
        Access(_split_axis(w_view, 3, channels), w_index),
        4,
        len(w_index) - 1,
        ("n", "y", "x"),
        ("o",),
        lowering.env.tcore_format(*names),
    )
    lowering.neighbours = ("g", "x")
    lowering.macs = n * o * out_y * out_x * c * kernel_y * kernel_x
    return _with_bias(lowering, node)


def is_stem(lowering: GroupLowering, node: Node) -> bool:
    """Whether a convolution has so few input channels that a kernel row of pixels makes a better depth."""
    channels = lowering.type_of(node.inputs[0]).sizes[1]
    constant = lowering.outer[node.inputs[1]] in lowering.env.graph.constants
    plain = integer(node.attributes, "group") == 1 and integers(node.attributes, "dilation")[1] == 1
    x_pattern, _ = patterns(lowering.env, *(lowering.outer[name] for name in node.inputs[:2]))
    run = lowering.type_of(node.inputs[1]).sizes[3] * channels * max(1, len(x_pattern))
    return constant and plain and channels <= STEM_CHANNELS and run <= lowering.env.max_dim


def stem_conv2d(lowering: GroupLowering, node: Node) -> Expression:
    """A convolution over few channels: depth is (kernel row, pixel and channel of that row).

    The input is first copied, channels last and padded, so that the pixels under a kernel row lie in one run of memory;
    rows of output pixels then read overlapping runs, and nothing outside the copy: one load can bring all kernel rows.
    """
    stride_y, stride_x = integers(node.attributes, "stride")
    top, left, bottom, right = integers(node.attributes, "pads")
    dilation_y, _ = integers(node.attributes, "dilation")
    n, channels, height, width = lowering.type_of(node.inputs[0]).sizes
    o, _, kernel_y, kernel_x = lowering.type_of(node.inputs[1]).sizes
    _, _, out_y, out_x = node.output.type.sizes
    env = lowering.env
    names = tuple(lowering.outer[name] for name in node.inputs[:2])
    x_pattern, w_pattern = patterns(env, *names)
    run = channels * max(1, len(x_pattern))
    padded = (n, run, top + height + bottom, left + width + right)
    copy_name = f"{node.name}.pixels"
    type = TensorType(lowering.type_of(node.inputs[0]).dtype, padded, (0, 2, 3, 1))
    target = env.new_buffer(copy_name, type)
    env.kernels.append(
        padded_pixels(copy_name, lowering.view(node.inputs[0]), target, (top, left), node.sources, x_pattern)
    )
    row = padded[3] * run
    taps = (kernel_y, kernel_x * run), (dilation_y * row, 1)
    dims, strides = (n, out_y, out_x, *taps[0]), (padded[2] * row, stride_y * row, stride_x * run, *taps[1])
    pixels = View(target.buffer, 0, dims, strides)
    constant = env.graph.constants[names[1]]
    data = constant_parts(np.asarray(constant.data).transpose(2, 3, 1, 0), 2, w_pattern)
    data = data.reshape(kernel_y, kernel_x * run, o)
    weights = env.packed_constant(names[1], ("stem", w_pattern), data, env.storage(constant.type))
    lowering.frame = Frame(node.output.type.sizes, ((n,), (o,), (out_y,), (out_x,)), (0, 2, 3, 1), ("n", "y", "x", "o"))
    lowering.red_dims = (Dimension("r", kernel_y, RED), Dimension("c", kernel_x * run, RED))
    lowering.contraction = Contraction(
        Access(pixels, tuple(unit(name) for name in ("n", "y", "x", "r", "c"))),
        Access(weights, (unit("r"), unit("c"), unit("o"))),
        3,
        2,
        ("n", "y", "x"),
        ("o",),
        env.tcore_format(*names),
    )
    lowering.neighbours = ("x",)
    lowering.macs = n * o * out_y * out_x * channels * kernel_y * kernel_x
    return _with_bias(lowering, node)


def _accumulator(lowering: GroupLowering, node: Node) -> Expression:
    """The accumulator, which is FP32 for every format, in the kind of number of the result."""
    sums = lowering.builder.op("vacc")
    return sums if node.output.type.dtype.is_float else lowering.builder.op("vtoint", sums, is_float=False)


def _divided(lowering: GroupLowering, name: str, value: Expression) -> Expression:
    """A product by the sums of the rows of its first operand, where these are not divided yet."""
    sums = lowering.env.row_sums.get(name)
    if sums is None:
        return value
    b = lowering.builder
    return b.op("vmul", value, b.op("vrcp", b.load(lowering.frame.access(sums))))


def _with_bias(lowering: GroupLowering, node: Node) -> Expression:
    """The accumulator, plus the bias when there is one."""
    result = _accumulator(lowering, node)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = lowering.frame.access(channel_view(lowering.view(node.inputs[2]), len(node.output.type.sizes)))
        loaded = lowering.builder.load(bias, result.is_float)
        result = lowering.builder.op("vadd", result, loaded, is_float=result.is_float)
    return result


def _weights(lowering: GroupLowering, node: Node, shape: tuple[int, int, int, int, int], pattern: Pattern) -> View:
    """The weights [group, out, in, row, column] seen as [group, row, column, in, out].

    The channels that go in are those of the parts in `pattern`. Constants are stored with them innermost: then a tile
    of few columns still loads whole granules.
    """
    outer = lowering.outer[node.inputs[1]]
    order = (0, 3, 4, 2, 1)
    constant = lowering.env.graph.constants.get(outer)
    if constant is not None:
        data = constant_parts(np.asarray(constant.data).reshape(shape).transpose(order), 3, pattern).swapaxes(3, 4)
        stored = lowering.env.packed_constant(
            outer, ("conv", shape, pattern), data, lowering.env.storage(constant.type)
        )
        return View(stored.buffer, stored.offset, _last_swapped(stored.dims), _last_swapped(stored.strides))
    view = lowering.view(node.inputs[1])
    so, sc, sr, ss = view.strides
    seen = View(view.buffer, view.offset, tuple(shape[i] for i in order), (so * shape[1], sr, ss, sc, so))
    return parted(lowering.env, outer, seen, 3, pattern, node.sources)


def _last_swapped(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return (*sizes[:-2], sizes[-1], sizes[-2])


def _matrix(lowering: GroupLowering, node: Node, name: str, axis: int, pattern: Pattern, packed: bool) -> View:
    """An operand of a matrix product with the parts in `pattern` along its depth, `axis`.

    A constant that is `packed` is stored in the T-core's element type.
    """
    outer = lowering.outer[name]
    constant = lowering.env.graph.constants.get(outer)
    if outer in lowering.env.shared:
        return parted(lowering.env, outer, lowering.env.shared[outer].view, axis + 1, pattern, node.sources)
    if constant is None or not packed:
        return parted(lowering.env, outer, lowering.view(name), axis, pattern, node.sources)
    data = constant_parts(np.asarray(constant.data), axis, pattern)
    return lowering.env.packed_constant(outer, ("matmul", axis, pattern), data, lowering.env.storage(constant.type))


def _factors(lowering: GroupLowering, node: Node, depth: int) -> tuple[int, ...]:
    """The depth as factors that a descriptor dimension takes."""
    factors = factorised(depth, lowering.env.max_dim)
    if factors is None:
        raise DoesNotFitError(
            f"depth {depth} has no factors of at most {lowering.env.max_dim}",
            where=node_name(node),
            hint="pad the depth of the product",
        )
    return factors


def _split_axis(view: View, axis: int, factors: Sequence[int]) -> View:
    """The view with one axis split into `factors`."""
    strides, step = [], view.strides[axis]
    for extent in reversed(factors):
        strides.append(step)
        step *= extent
    return View(
        view.buffer,
        view.offset,
        (*view.dims[:axis], *factors, *view.dims[axis + 1 :]),
        (*view.strides[:axis], *reversed(strides), *view.strides[axis + 1 :]),
    )


def _moving(view: View, index: Sequence[Index], optional: int) -> Access:
    """The access without those of the first `optional` axes along which the operand repeats."""
    kept = [axis for axis, stride in enumerate(view.strides) if stride or axis >= optional]
    dims = tuple(view.dims[axis] for axis in kept)
    strides = tuple(view.strides[axis] for axis in kept)
    return Access(View(view.buffer, view.offset, dims, strides), tuple(index[axis] for axis in kept))
