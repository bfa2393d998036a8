"""Ops that only move data: concatenation, padding, and views that no strides can express."""

from __future__ import annotations

from dataclasses import replace

from birc.compiler.ir.attributes import element_type, integer, integers, number
from birc.compiler.ir.graph import Node
from birc.compiler.ir.plan import Access, Dimension, Index, Kernel, Phase, Statement, View
from birc.compiler.ir.table import row
from birc.compiler.passes.choose_layouts import IMAGE_OPS
from birc.compiler.passes.lower.environment import Environment
from birc.compiler.passes.lower.expression import Builder, Store, phases
from birc.compiler.passes.lower.frame import Frame, unit, word_of
from birc.compiler.passes.lower.group import node_name
from birc.compiler.passes.lower.integers import immediate, select
from birc.compiler.passes.lower.parts import WHOLE, Pattern, part_stores
from birc.compiler.passes.lower.ranges import LANE_BITS
from birc.compiler.passes.lower.views import narrow, order_for_reshape, reshape, transpose
from birc.compiler.passes.lower.wide import lane
from birc.runtime.dtypes import dtype
from birc.runtime.errors import InternalError, UnsupportedError

TAKES_IMAGES = IMAGE_OPS | {"concat", "pad"}
"""What reads images in any order of their dimensions, channels last for choice; element-wise ops do, too."""


def concat(env: Environment, node: Node) -> list[Kernel]:
    """One copy an operand, each into its slice of the result; none for what is made there."""
    kernels = []
    for number_of_input, (name, piece) in enumerate(zip(node.inputs, concat_pieces(env, node), strict=True)):
        if env.view(name) != piece:
            kernel_name = f"{node.name}.{number_of_input}"
            kernels.append(copy(env, kernel_name, env.view(name), piece, node.output.type.layout, node.sources))
    return kernels


def concat_pieces(env: Environment, node: Node) -> list[View]:
    """The slice of each operand in the result of a concatenation."""
    axis = integer(node.attributes, "axis")
    target = env.target(node.name, node.output.type)
    pieces, position = [], 0
    for name in node.inputs:
        shape = env.graph.type_of(name).sizes
        starts = [position if i == axis else 0 for i in range(len(shape))]
        pieces.append(narrow(target, starts, shape, (1,) * len(shape)))
        position += shape[axis]
    return pieces


def pad(env: Environment, node: Node) -> list[Kernel]:
    """A copy that reads outside its operand; where another value than zero is asked for, a mask reads along."""
    pads = integers(node.attributes, "pads")
    value = number(node.attributes, "value")
    frame = Frame.of(node.output.type.sizes, node.output.type.layout)
    target = env.target(node.name, node.output.type)
    source = frame.view_of_axes(env.view(node.inputs[0]))
    order = frame.order
    index = tuple(Index(((name, 1),), -pads[axis]) for name, axis in zip(frame.names, order, strict=True))
    builder = Builder()
    is_float = env.is_float(node.inputs[0])
    inside = builder.load(Access(env.splat(1, "i32", source.dims), index), is_float=False)
    stores = []
    for place, (read, written) in enumerate(_parts(env, source, Access(source, index), frame.access(target))):
        padded = builder.load(read, is_float)
        if value != 0.0 and is_float:
            padded = builder.op("vsel", inside, padded, value)
        elif value != 0.0:
            padded = select(builder, inside, padded, immediate(builder, lane(int(value) >> place * LANE_BITS)))
        stores.append(Store(padded, written))
    return [Kernel(node.name, frame.dimensions, phases(stores, lambda _: ()), None, 0, node.sources)]


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
    space: tuple[Dimension, ...] = frame.dimensions
    read, written = frame.access(source), frame.access(target)
    statements: list[Statement] = []
    for place, (one, other) in enumerate(_parts(env, source, read, written)):
        value = f"v{place}"
        statements += [Statement("vld", value, access=one), Statement("vst", arguments=(value,), access=other)]
    return Kernel(name, space, (Phase(tuple(statements)),), None, 0, sources)


def _parts(env: Environment, source: View, read: Access, written: Access) -> list[tuple[Access, Access]]:
    """What a copy loads and stores: elements as they are, or both words of those that no lane holds."""
    if dtype(env.buffers[source.buffer].dtype).bits <= LANE_BITS:
        return [(read, written)]
    return [(word_of(read, word), word_of(written, word)) for word in (0, 1)]


def bitcast(env: Environment, node: Node) -> list[Kernel]:
    """A copy that sees its operand's bits as elements of the result's type."""
    source_type, target_type = env.graph.type_of(node.inputs[0]), element_type(node.attributes, "to")
    for type in (source_type, node.output.type):
        if env.storage(type) != type.dtype.name:
            message = f"a {env.precision} package keeps {type.dtype} as {env.storage(type)}, its bits are not there"
            raise UnsupportedError(message, where=node_name(node), hint="compile with another precision")
    target = env.target(node.name, node.output.type)
    frame = Frame.of(node.output.type.sizes, node.output.type.layout)
    read = frame.access(env.view(node.inputs[0]))
    written = frame.access(target)
    if target_type.bits > LANE_BITS:
        return [copy(env, node.name, env.view(node.inputs[0]), target, node.output.type.layout, node.sources)]
    load = Statement("vld", "v0", access=replace(read, view=replace(read.view, seen=target_type.name)))
    store = Statement("vst", arguments=("v0",), access=written)
    return [Kernel(node.name, frame.dimensions, (Phase((load, store)),), None, 0, node.sources)]


def materialised_reshape(env: Environment, node: Node) -> View:
    """A reshape that needs a copy, which is then seen with the new dimensions.

    It is row-major, or lies as much as it can as what it copies does where only images and their like read it.
    """
    source, sizes = env.view(node.inputs[0]), node.output.type.sizes
    order = order_for_reshape(source, sizes) if _is_image(env, node.name) else None
    plain = dense_copy(env, f"{node.name}.dense", node.inputs[0], source, node.sources, order)
    seen = reshape(plain, sizes)
    if seen is None:
        raise InternalError("a dense tensor cannot be reshaped", where=node.name)
    return seen


def dense_copy(
    env: Environment,
    copy_name: str,
    name: str,
    source: View,
    sources: tuple[str, ...],
    order: tuple[int, ...] | None = None,
) -> View:
    """A copy of a value that `source` shows, row-major or with its dimensions in some `order`."""
    target = env.copied(copy_name, name, order)
    env.kernels.append(copy(env, copy_name, source, target, order, sources))
    return target


def _is_image(env: Environment, name: str) -> bool:
    """Whether a value is read, also through views, by what takes images in any order alone."""
    users = env.graph.users(name)
    inside = [node for user in users for node in (user.body.nodes if user.body is not None else (user,))]
    views = [user.name for user in users if user.body is None and row(user.op).category == "view"]
    taken = all(node.op in TAKES_IMAGES or row(node.op).category in ("view", "elementwise") for node in inside)
    return name not in env.graph.outputs and taken and all(_is_image(env, view) for view in views)


def padded_pixels(
    name: str, source: View, target: View, corner: tuple[int, int], sources: tuple[str, ...], pattern: Pattern = WHOLE
) -> Kernel:
    """Copies an image [n, c, h, w] into one that is larger by zeros on all sides: `corner` are those above and left.

    A tile spans all channels of a run of pixels, so that both images are walked in whole runs of memory. With a
    `pattern` the target has the channels of each of its parts.
    """
    order = (0, 2, 1, 3)
    top, left = corner
    frame = Frame.of((*source.dims[:2], *target.dims[2:]), order, ("n", "h", "c", "w"))
    shifted = (unit("n"), Index((("h", 1),), -top), unit("c"), Index((("w", 1),), -left))
    builder = Builder()
    pixels = builder.load(Access(transpose(source, order), shifted))
    if pattern:
        stores = part_stores(builder, pixels, frame, target, 1, pattern)
    else:
        seen = transpose(target, order)
        stores = (Store(pixels, Access(seen, tuple(unit(n) for n in frame.names))),)
    return Kernel(name, frame.dimensions, phases(stores, lambda _: ()), None, 0, sources)
