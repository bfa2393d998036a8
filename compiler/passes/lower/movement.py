"""Ops that only move data: gather, concatenation, padding, and views that no strides can express."""

from __future__ import annotations

from birc.compiler.ir.attributes import integer, integers, number
from birc.compiler.ir.graph import Node
from birc.compiler.ir.plan import Access, Dimension, Index, Kernel, Phase, Statement, View
from birc.compiler.passes.lower.environment import Environment
from birc.compiler.passes.lower.expression import Builder, Expression, Store, phases
from birc.compiler.passes.lower.frame import Frame, unit
from birc.compiler.passes.lower.group import GroupLowering
from birc.compiler.passes.lower.views import dense_view, narrow, reshape, transpose
from birc.runtime.errors import UnsupportedError


def gather(lowering: GroupLowering, node: Node) -> Expression:
    """Rows of a table picked by indices; negative indices count from the end."""
    axis = integer(node.attributes, "axis")
    table = lowering.view(node.inputs[0])
    index_shape = lowering.type_of(node.inputs[1]).sizes
    shape = lowering.type_of(node.inputs[0]).sizes
    out = node.output.type.sizes
    lowering.frame = Frame.of(out)
    names = lowering.frame.names
    rank = len(index_shape)
    if rank == 0:
        raise UnsupportedError("gather with a scalar index", where=node.name, hint="reshape the index to [1]")
    lead = (0,) * axis
    trail = (0,) * (len(shape) - axis - 1)
    picked = lowering.view(node.inputs[1])
    index_view = View(
        picked.buffer, picked.offset, (*(1 for _ in lead), *index_shape, *(1 for _ in trail)),
        (*lead, *picked.strides, *trail),
    )  # fmt: skip
    moving = tuple(
        unit(name) if axis <= i < axis + rank and extent > 1 else Index()
        for i, (name, extent) in enumerate(zip(names, index_view.dims, strict=True))
    )
    index = lowering.builder.load(Access(index_view, moving), is_float=False)
    count = shape[axis]
    negative = lowering.builder.op("vlt", index, 0.0, is_float=False)
    wrapped = lowering.builder.op("vadd", index, float(count), is_float=False)
    index = lowering.builder.op("vsel", negative, wrapped, index, is_float=False)
    dims = (*shape[:axis], count, *(1 for _ in range(rank - 1)), *shape[axis + 1 :])
    strides = (*table.strides[: axis + 1], *(0 for _ in range(rank - 1)), *table.strides[axis + 1 :])
    view = View(table.buffer, table.offset, dims, strides)
    where = tuple(
        Index() if axis <= i < axis + rank or extent == 1 else unit(name)
        for i, (name, extent) in enumerate(zip(names, dims, strict=True))
    )
    is_float = lowering.type_of(node.inputs[0]).dtype.kind == "float"
    return lowering.builder.gather(Access(view, where), index, axis, count, is_float)


def concat(env: Environment, node: Node) -> list[Kernel]:
    """One copy an operand, each into its slice of the result."""
    axis = integer(node.attributes, "axis")
    target = env.new_buffer(node.name, node.output.type)
    kernels = []
    position = 0
    for number_of_input, name in enumerate(node.inputs):
        shape = env.graph.type_of(name).sizes
        starts = [position if i == axis else 0 for i in range(len(shape))]
        piece = narrow(target, starts, shape, (1,) * len(shape))
        kernel_name = f"{node.name}.{number_of_input}"
        kernels.append(copy(env, kernel_name, env.view(name), piece, node.output.type.layout, node.sources))
        position += shape[axis]
    return kernels


def pad(env: Environment, node: Node) -> list[Kernel]:
    """A copy that reads outside its operand; another value than zero is filled in first."""
    pads = integers(node.attributes, "pads")
    value = number(node.attributes, "value")
    out = node.output.type.sizes
    rank = len(out)
    target = env.new_buffer(node.name, node.output.type)
    source = env.view(node.inputs[0])
    shape = env.graph.type_of(node.inputs[0]).sizes
    if value == 0.0:
        frame = Frame.of(out, node.output.type.layout)
        index = tuple(Index(((f"d{axis}", 1),), -pads[axis]) for axis in frame.order)
        seen = View(
            source.buffer, source.offset,
            tuple(source.dims[a] for a in frame.order), tuple(source.strides[a] for a in frame.order),
        )  # fmt: skip
        value_read = Builder().load(Access(seen, index), env.is_float(node.inputs[0]))
        stores = (Store(value_read, frame.access(target)),)
        return [Kernel(node.name, frame.dimensions, phases(stores, lambda _: ()), None, 0, node.sources)]
    inner = narrow(target, pads[:rank], shape, (1,) * rank)
    return [
        fill(env, f"{node.name}.fill", value, target, node),
        copy(env, node.name, source, inner, node.output.type.layout, node.sources),
    ]


def fill(env: Environment, name: str, value: float, target: View, node: Node) -> Kernel:
    """Sets every element of a view."""
    frame = Frame.of(target.dims, node.output.type.layout)
    return Kernel(
        name, frame.dimensions, phases((Store(value, frame.access(target)),), lambda _: ()), None, 0, node.sources
    )


def copy(
    env: Environment,
    name: str,
    source: View,
    target: View,
    layout: tuple[int, ...] | None = None,
    sources: tuple[str, ...] = (),
) -> Kernel:
    """Copies a view to another of equal dimensions."""
    frame = Frame.of(target.dims, layout)
    load = Statement("vld", "v0", access=frame.access(source))
    store = Statement("vst", arguments=("v0",), access=frame.access(target))
    space: tuple[Dimension, ...] = frame.dimensions
    return Kernel(name, space, (Phase((load, store)),), None, 0, sources)


def materialised_reshape(env: Environment, node: Node) -> View:
    """A reshape that needs a copy: into row-major order first, then seen with the new dimensions."""
    source = env.view(node.inputs[0])
    type = env.graph.type_of(node.inputs[0])
    plain = env.new_buffer(f"{node.name}.dense", type.logical)
    env.kernels.append(copy(env, f"{node.name}.copy", source, plain, None, node.sources))
    seen = reshape(dense_view(plain.buffer, type.sizes), node.output.type.sizes)
    if seen is None:
        raise UnsupportedError("reshape of a dense tensor", where=node.name, hint="report this model")
    return seen


def padded_pixels(name: str, source: View, target: View, left: int, sources: tuple[str, ...]) -> Kernel:
    """Copies an image [n, c, h, w] into one that is wider by zeros left and right.

    A tile spans all channels of a run of pixels, so that both images are walked in whole runs of memory.
    """
    order = (0, 2, 1, 3)
    names = ("n", "h", "c", "w")
    shifted = (*(unit(n) for n in names[:3]), Index((("w", 1),), -left))
    load = Statement("vld", "v0", access=Access(transpose(source, order), shifted))
    seen = transpose(target, order)
    store = Statement("vst", arguments=("v0",), access=Access(seen, tuple(unit(n) for n in names)))
    space = tuple(Dimension(n, extent) for n, extent in zip(names, seen.dims, strict=True))
    return Kernel(name, space, (Phase((load, store)),), None, 0, sources)
