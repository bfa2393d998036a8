"""Random small kernels of the forms that code generation writes: products, convolutions, windows, element-wise chains.

Each is a whole program with small integers in its inputs, so that every engine must give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st
from programs import (
    Layout,
    box,
    i,
    integers,
    launch,
    op,
    par,
    red,
    v,
)

from birc.runtime.machine import load_machine
from birc.runtime.memory import Memory
from birc.runtime.program import Affine, Descriptor, Kernel, Loop, Program, RingAddress, Window

Draw = Callable[[st.SearchStrategy], object]
# Room for all tiles of a block at once: what fits is not the subject here.
MACHINE = load_machine("tiny").with_values({"gib_a_bytes": 1 << 20, "gib_b_bytes": 1 << 20})
FORMATS = {"bf16": "bf16", "f32": "tf32p", "f16": "tf32p", "i8": "s8"}


@dataclass(frozen=True, repr=False)
class RandomProgram:
    """A program, and the tensors to fill with integers before it runs: (descriptor, low, high)."""

    program: Program
    inputs: tuple[tuple[int, int, int], ...]

    def memory(self) -> Memory:
        """A memory with the inputs in it."""
        memory = Memory(self.program, MACHINE)
        for seed, (number, low, high) in enumerate(self.inputs):
            descriptor = self.program.descriptors[number]
            memory.view(descriptor, 0)[...] = integers(seed, descriptor.dims, low, high)
        return memory


def _finish(
    layout: Layout, kernel: Kernel, slots: list[int], inputs: tuple[tuple[int, int, int], ...]
) -> RandomProgram:
    program = layout.program(kernel.name, (kernel,), launch(*enumerate(slots)), inputs=(), outputs=())
    return RandomProgram(program, inputs)


def ceil(size: int, tile: int) -> int:
    return -(-size // tile)


@st.composite
def products(draw: Draw) -> RandomProgram:
    """relu(A[b] @ B[b] + bias + residual) with ragged tiles, blocks of tiles, depth chunks, hoisted operands."""
    small = st.integers(1, 3)
    batch, m, n, k = draw(st.integers(1, 3)), *(draw(st.integers(1, 40)) for _ in range(3))
    tm, tn, tk = (draw(st.sampled_from([3, 4, 8])) for _ in range(3))
    dtype = draw(st.sampled_from(["bf16", "f32", "f16", "i8"]))
    kind = FORMATS[dtype]
    rows, columns = draw(small), draw(small)  # tiles of a block
    split = draw(st.booleans())  # rows over the SPCs
    partial = draw(st.booleans())  # partial sums in registers
    transposed = draw(st.booleans())
    row_blocks = ceil(ceil(m, tm), rows * (2 if split else 1))
    column_blocks = ceil(ceil(n, tn), columns)
    chunks = draw(st.integers(1, 3))
    steps = ceil(ceil(k, tk), chunks)
    layout = Layout()
    a = layout.tensor((batch, m, k), dtype)
    b = layout.tensor((batch, n, k) if transposed else (batch, k, n), dtype)
    out = layout.tensor((batch, m, n))
    bias = layout.tensor((n,))
    residual = layout.tensor((batch, m, n))
    vector = layout.descriptors[bias]
    bias_rows = layout.alias(Descriptor("hbm", vector.address, "f32", (1, m, n), (0, 0, 1)))
    # Depths: 0 spc, 1 batch, 2 row block, 3 column block, 4 chunk, 5 tile of the block, 6 tile or step, 7 step.
    slot_bytes = 64 * tk * 4
    ring = i(1, row_blocks * column_blocks * chunks) + i(2, column_blocks * chunks) + i(3, chunks) + i(4)

    def address(count: int, tile: Affine, step: Affine) -> RingAddress:
        base = tile * (steps * slot_bytes) + step * slot_bytes
        return RingAddress(base, count * steps * slot_bytes, ring, 2)

    def row(depth: int) -> Affine:
        return i(0, row_blocks * rows * tm) + i(2, rows * tm) + i(depth, tm)

    def column(depth: int) -> Affine:
        return i(3, columns * tn) + i(depth, tn)

    def k_start(depth: int) -> Affine:
        return i(4, steps * tk) + i(depth, tk)

    b_axes = [(k_start(6), tk), (column(5), tn)]
    b_load = op("tldb", address(columns, i(5), i(6)), box(1, (i(1), 1), *b_axes), 2, kind)
    if transposed:
        b_axes.reverse()
        # The first axes of a B tile are its depth, so columns come last whatever the memory: a view.
        descriptor = layout.descriptors[b]
        turned = Descriptor("hbm", descriptor.address, dtype, (batch, k, n), (n * k, 1, k))
        b_slot = layout.alias(turned)
    else:
        b_slot = b
    loads = (
        par(rows, red(steps, op("tlda", address(rows, i(5), i(6)),
                                box(0, (i(1), 1), (row(5), tm), (k_start(6), tk)), 2, kind))),
        par(columns, red(steps, b_load)),
    )  # fmt: skip
    chunk, step = 1 << 4, 1 << 7
    product = red(steps, op("tmma", address(rows, i(5), i(7)), address(columns, i(6), i(7)), tm, tn, tk, kind,
                            step if partial else step | chunk))  # fmt: skip
    tile_box = ((i(1), 1), (row(5), tm), (column(6), tn))
    number = i(5, columns) + i(6)
    epilogue = (
        op("vld", v(20), box(3, (0, 1), (row(5), tm), (column(6), tn))),
        op("vadd", v(23), v(23), v(20)),
        op("vld", v(24), box(4, *tile_box)),
        op("vadd", v(23), v(23), v(24)),
        op("vmax", v(23), v(23), 0.0),
        op("vst", box(2, *tile_box), v(23)),
    )
    if partial or rows * columns > 1:
        drain = op("vacc", v(number), (1, tm, tn), chunk)
        product = red(steps, op("tmma", address(rows, i(5), i(7)), address(columns, i(6), i(7)), tm, tn, tk, kind,
                                step))  # fmt: skip
        grid = par(rows, par(columns, product, drain))
        body = (
            red(chunks, *loads, grid),
            par(1, par(rows, par(columns, op("vmov", v(23), v(number)), *epilogue))),
        )
    else:
        inner = red(chunks, *loads, par(1, par(1, product)))
        drain = op("vacc", v(23), (1, tm, tn), 0)
        body = (inner, par(1, par(1, par(1, drain, *epilogue))))
    nest = par(2 if split else 1, par(batch, par(row_blocks, par(column_blocks, *body))), level="spc")
    low, high = (-2, 3)
    return _finish(
        layout,
        Kernel("product", (nest,)),
        [a, b_slot, out, bias_rows, residual],
        ((a, low, high), (b, low, high), (bias, -9, 9), (residual, -9, 9)),
    )


@st.composite
def convolutions(draw: Draw) -> RandomProgram:
    """A convolution by coordinates: kernel taps and channel chunks accumulate, borders read as zero."""
    batch, size, channels, filters = (draw(st.integers(1, high)) for high in (3, 9, 9, 9))
    taps, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    pad = draw(st.integers(0, 2))
    tile, tc, to = draw(st.integers(1, 4)), draw(st.sampled_from([2, 4])), draw(st.sampled_from([3, 4]))
    channels_last = draw(st.booleans())
    dtype = draw(st.sampled_from(["bf16", "f32", "i8"]))
    span = (taps - 1) * dilation + 1
    out_size = max(1, (size + 2 * pad - span) // stride + 1)
    layout = Layout()
    shape = (batch, size, size + 1, channels) if channels_last else (batch, channels, size, size + 1)
    x = layout.tensor(shape, dtype)
    w = layout.tensor((taps, taps, channels, filters), dtype)
    out_shape = (batch, out_size, out_size, filters)
    out = layout.tensor(out_shape if channels_last else (batch, filters, out_size, out_size), "f32")
    # Depths: 0 spc = sample, 1 row tile, 2 column tile, 3 filter tile, 4 ky, 5 kx, 6 channel chunk.
    y = (i(1, tile * stride) + i(4, dilation) + -pad, tile, stride)
    x_ = (i(2, tile * stride) + i(5, dilation) + -pad, tile, stride)
    sample, channel = (i(0), 1), (i(6, tc), tc)
    if channels_last:
        a = box(0, sample, y, x_, channel)
        rows = 3
    else:
        view = layout.descriptors[x]
        strides = (view.strides[0], view.strides[2], view.strides[3], view.strides[1])
        x_view = Descriptor("hbm", view.address, dtype, (batch, size, size + 1, channels), strides)
        a = box(0, sample, y, x_, channel)
        rows = 3
    b = box(1, (i(4), 1), (i(5), 1), channel, (i(3, to), to))
    slot = RingAddress(Affine(), 64 * tc * 4, i(6), 2)
    kind = FORMATS[dtype]
    taps_loop = red(
        taps,
        red(
            taps,
            red(
                ceil(channels, tc),
                op("tlda", slot, a, rows, kind),
                op("tldb", slot, b, 3, kind),
                op("tmma", slot, slot, tile * tile, to, tc, kind, 0b1110000),
            ),
        ),
    )
    tiles = ceil(out_size, tile)
    target = box(2, sample, (i(1, tile), tile), (i(2, tile), tile), (i(3, to), to))
    body = (taps_loop, op("vacc", v(0), (1, tile, tile, to), 0), op("vmax", v(0), v(0), -3.0),
            op("vst", target, v(0)))  # fmt: skip
    kernel = Kernel("convolution", (par(min(batch, 2), par(tiles, par(tiles, par(ceil(filters, to), *body))),
                                        level="spc"),))  # fmt: skip
    slots = [x, w, out]
    if not channels_last:
        result = layout.descriptors[out]
        strides = (result.strides[0], result.strides[2], result.strides[3], result.strides[1])
        slots[0] = layout.alias(x_view)
        slots[2] = layout.alias(Descriptor("hbm", result.address, "f32", out_shape, strides))
    return _finish(layout, kernel, slots, ((x, -2, 3), (w, -2, 3)))


@st.composite
def patches(draw: Draw) -> RandomProgram:
    """A convolution whose taps are windows of one patch: ragged tiles, kernels up to 7 x 7, channel chunks, borders."""
    height, width, channels, filters = (draw(st.integers(1, high)) for high in (12, 12, 9, 9))
    taps = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    across = draw(st.integers(1, 2))
    top, left = draw(st.integers(0, 3)), draw(st.integers(-1, 3))
    rows, columns = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    tc, to = draw(st.sampled_from([2, 4])), draw(st.sampled_from([3, 8]))
    dtype = draw(st.sampled_from(["bf16", "f32", "i8"]))
    kind, chunks, blocks = FORMATS[dtype], ceil(channels, tc), ceil(filters, to)
    reach = [across * (count - 1) for count in taps]
    size = max(1, height + 2 * top - reach[0]), max(1, width + 2 * left - reach[1])
    resident = draw(st.booleans())  # patches of all channels stay while the columns pass
    layout = Layout()
    x = layout.tensor((height, width, channels), dtype)
    w = layout.tensor((*taps, channels, filters), dtype)
    out = layout.tensor((*size, filters))
    # Depths: 0 spc = half of the rows, 1 row tile, 2 column tile, 3 column block, 4 chunk, 5 and 6 tap.
    row_tiles = ceil(ceil(size[0], rows), 2)
    column_tiles = ceil(size[1], columns)
    row = i(0, row_tiles * rows) + i(1, rows)
    pitch = columns + reach[1]
    slot_bytes = max(64, (rows + reach[0]) * pitch) * tc * 4
    chunk = 3 if resident else 4
    patch = box(0, (row + -top, rows + reach[0]), (i(2, columns) + -left, pitch), (i(chunk, tc), tc))

    def address(depth: int) -> RingAddress:
        base = i(depth, slot_bytes)
        return RingAddress(base, slot_bytes * chunks, i(1, column_tiles) + i(2), 2)

    weights = box(1, (i(5), 1), (i(6), 1), (i(4, tc), tc), (i(3, to), to))
    b_slot = RingAddress(Affine(), 64 * tc * 4, i(6), 2)
    load = op("tlda", address(chunk), patch, 2, kind)
    product = red(taps[0], red(
        taps[1],
        op("tldb", b_slot, weights, 3, kind),
        op("tconv", address(4), Window(i(5, across), i(6, across), rows, columns, pitch), b_slot, to, tc, kind,
           0b1110000),
    ))  # fmt: skip
    store = box(2, (row, rows), (i(2, columns), columns), (i(3, to), to))
    drain = (op("vacc", v(0), (rows, columns, to), 0), op("vst", store, v(0)))
    if resident:
        tile = (red(chunks, load), par(blocks, red(chunks, product), *drain))
    else:
        tile = (par(blocks, red(chunks, load, product), *drain),)
    nest = par(2, par(row_tiles, par(column_tiles, *tile)), level="spc")
    return _finish(layout, Kernel("patches", (nest,)), [x, w, out], ((x, -2, 3), (w, -2, 3)))


@st.composite
def windows(draw: Draw) -> RandomProgram:
    """Pooling or a depthwise convolution: folds, or multiply-adds carried in a register, over the taps."""
    channels, height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    taps, stride, pad = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    dtype = draw(st.sampled_from(["bf16", "f32", "i32"]))
    depthwise = draw(st.booleans()) and dtype != "i32"
    fill = draw(st.sampled_from(["zero", "lowest", "highest", "clamp"])) if not depthwise else "zero"
    fold = draw(st.sampled_from(["vfoldmax", "vfoldmin", "vfoldsum"]))
    if fold == "vfoldsum":
        fill = "clamp" if fill == "clamp" else "zero"
    tile_c, tile_y = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    layout = Layout()
    x = layout.tensor((channels, height, width), dtype)
    w = layout.tensor((channels, taps, taps))
    out_height, out_width = (max(1, (size + 2 * pad - taps) // stride + 1) for size in (height, width))
    out = layout.tensor((channels, out_height, out_width), "f32" if depthwise else dtype)
    blocks = ceil(channels, 2 * tile_c)
    channel = (i(0, blocks * tile_c) + i(1, tile_c), tile_c)
    y, x_ = i(2, tile_y * stride) + i(3) + -pad, i(4) + -pad
    load = op("vld", v(0), box(0, channel, (y, tile_y, stride), (x_, out_width, stride), fill=fill))
    if depthwise:
        taps_body = (load, op("vld", v(2), box(2, channel, (i(3), 1), (i(4), 1))),
                     op("vfma", v(1), v(0), v(2), v(1)))  # fmt: skip
        begin = (op("vmovi", v(1), 0.0, (tile_c, tile_y, out_width)),)
    else:
        taps_body, begin = (load, op(fold, v(1), v(0), 0b11000)), ()
    store = op("vst", box(1, channel, (i(2, tile_y), tile_y), (0, out_width)), v(1))
    nest = par(2, par(blocks, par(ceil(out_height, tile_y), *begin, red(taps, red(taps, *taps_body)), store)),
               level="spc")  # fmt: skip
    return _finish(layout, Kernel("window", (nest,)), [x, out, w], ((x, -9, 9), (w, -2, 3)))


@st.composite
def chains(draw: Draw) -> RandomProgram:
    """Element-wise chains over strided, transposed, broadcast and shifted operands, in any integer-safe types."""
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    tr, tc = draw(st.sampled_from([1, 3, 8])), draw(st.sampled_from([1, 4, 16]))
    dtypes = [draw(st.sampled_from(["f32", "bf16", "i32", "i64", "i8", "bool", "f16"])) for _ in range(3)]
    programs = draw(st.integers(1, 3))
    shift = draw(st.integers(-2, 2))
    layout = Layout()
    a = layout.tensor((rows, columns), dtypes[0])
    transposed = draw(st.booleans())
    b = layout.tensor((columns, rows) if transposed else (rows, columns), dtypes[1])
    c = layout.tensor((columns,), dtypes[2])
    out = layout.tensor((rows, columns))
    again = layout.tensor((rows, 1), "bf16")
    slots = [a, b, c, out, again]
    if transposed:
        slots[1] = layout.alias(Descriptor("hbm", layout.descriptors[b].address, dtypes[1], (rows, columns), (1, rows)))
    slots[2] = layout.alias(Descriptor("hbm", layout.descriptors[c].address, dtypes[2], (rows, columns), (0, 1)))
    row_tiles, column_tiles = ceil(rows, 2 * programs * tr), ceil(columns, tc)
    row = i(0, programs * row_tiles * tr) + i(1, row_tiles * tr) + i(2, tr)
    column = i(3, tc)
    base = i(1, 4)

    def reg(number: int) -> object:
        return v(base + number)

    fill = draw(st.sampled_from(["zero", "clamp"]))
    shape = draw(st.sampled_from(["vadd", "vsub", "vmul", "vmax", "vmin", "vlt", "veq", "vand", "vxor"]))
    second = draw(st.sampled_from(["vadd", "vmax", "vle", "vsel", "vor"]))
    tile = ((row, tr), (column, tc))
    finish = (reg(0), reg(0), reg(2)) if second != "vsel" else (reg(0), reg(1), reg(0), reg(2))
    one_row = draw(st.booleans())  # broadcast inside the instruction, not in memory
    bias = box(2, (0, 1), (column, tc)) if one_row else box(2, *tile)
    body = (
        op("vld", reg(0), box(0, *tile)),
        op("vld", reg(1), box(1, (row + shift, tr), (column, tc), fill=fill)),
        op("vld", reg(2), bias),
        op(shape, reg(0), reg(0), reg(1)),
        op(second, *finish),
        op("vmul", reg(3), reg(0), draw(st.sampled_from([2.0, 0.5, -1.0]))),
        op("vst", box(3, *tile), reg(3)),
    )
    nest = par(2, par(programs, par(row_tiles, par(column_tiles, *body)), level="program"), level="spc")
    inputs = tuple((t, 0, 2) if d == "bool" else (t, -4, 5) for t, d in zip((a, b, c), dtypes, strict=True))
    return _finish(layout, Kernel("chain", (nest,)), slots, inputs)


@st.composite
def reductions(draw: Draw) -> RandomProgram:
    """x - max(x) summed, over rows longer than a tile: folds over column tiles, then over lanes; then a second pass."""
    rows, columns = draw(st.integers(1, 30)), draw(st.integers(1, 50))
    tr, tc = draw(st.sampled_from([1, 3, 8])), draw(st.sampled_from([4, 16]))
    dtype = draw(st.sampled_from(["f32", "bf16", "i32"]))
    limited = draw(st.booleans())
    layout = Layout()
    x = layout.tensor((rows, columns), dtype)
    out = layout.tensor((rows, columns), "f32" if dtype != "i32" else "i32")
    sums = layout.tensor((rows,), "f32" if dtype != "i32" else "i32")
    share = ceil(ceil(rows, tr), 2)
    row = (i(0, share * tr) + i(1, tr), tr)
    column = (i(2, tc), tc)
    tiles = ceil(columns, tc)
    limit = i(0, -share) + ceil(rows, tr) if limited else None
    first = 0b100
    lanes_first = draw(st.booleans())
    load = op("vld", v(0), box(0, row, column, fill="lowest"))
    if lanes_first:
        largest = (red(tiles, load, op("vredmax", v(1), v(0), 0b10), op("vfoldmax", v(2), v(1), first)),)
    else:
        largest = (red(tiles, load, op("vfoldmax", v(1), v(0), first)), op("vredmax", v(2), v(1), 0b10))
    total = red(
        tiles,
        op("vld", v(0), box(0, row, column)),
        op("vredsum", v(3), v(0), 0b10),
        op("vfoldsum", v(4), v(3), first),
    )
    finish = par(
        tiles,
        op("vld", v(0), box(0, row, column)),
        op("vsub", v(5), v(0), v(2)),
        op("vst", box(1, row, column), v(5)),
    )
    keep = op("vst", box(2, row, (0, 1)), v(4))
    nest = par(2, par(share, *largest, total, finish, keep, limit=limit), level="spc")
    slots = [x, out, sums]
    slots[2] = layout.alias(
        Descriptor("hbm", layout.descriptors[sums].address, layout.descriptors[sums].dtype, (rows, 1), (1, 1))
    )
    return _finish(layout, Kernel("reduction", (nest,)), slots, ((x, -9, 9),))


@st.composite
def gathers(draw: Draw) -> RandomProgram:
    """Rows of a table per sample, by indices."""
    batch, rows, width, count = (draw(st.integers(1, high)) for high in (3, 20, 20, 30))
    dtype = draw(st.sampled_from(["f16", "f32", "i64", "bf16"]))
    tile, tw = draw(st.sampled_from([1, 4, 7])), draw(st.sampled_from([3, 8]))
    per_sample = draw(st.booleans())
    layout = Layout()
    table = layout.tensor((batch, rows, width) if per_sample else (1, rows, width), dtype)
    index = layout.tensor((batch, count, 1), draw(st.sampled_from(["i64", "i32"])))
    out = layout.tensor((batch, count, width), dtype)
    share = ceil(ceil(count, tile), 2)
    place = (i(0, share * tile) + i(2, tile), tile)
    sample = (i(1), 1)
    body = par(
        share,
        op("vld", v(0), box(1, sample, place, (0, 1))),
        par(
            ceil(width, tw),
            op("vldx", v(1), box(0, sample if per_sample else (0, 1), (0, 1), (i(3, tw), tw)), v(0), 1, rows),
            op("vst", box(2, sample, place, (i(3, tw), tw)), v(1)),
        ),
    )
    nest = par(2, par(batch, body), level="spc")
    inputs = ((table, -9, 9), (index, 0, rows))
    return _finish(layout, Kernel("gather", (nest,)), [table, index, out], inputs)


@st.composite
def running_sums(draw: Draw) -> RandomProgram:
    """An ordered loop that carries a register, and stores every state: out[t] = 2 * out[t - 1] + x[t]."""
    steps, rows = draw(st.integers(1, 6)), draw(st.integers(1, 20))
    tile = draw(st.sampled_from([2, 5]))
    through_memory = draw(st.booleans())
    layout = Layout()
    x = layout.tensor((steps, rows))
    out = layout.tensor((steps, rows))
    share = ceil(ceil(rows, tile), 2)
    row = (i(0, share * tile) + i(1, tile), tile)
    if through_memory:
        body = (
            op("vld", v(1), box(0, (i(2), 1), row)),
            op("vld", v(0), box(1, (i(2) + -1, 1), row)),
            op("vfma", v(0), v(0), 2.0, v(1)),
            op("vst", box(1, (i(2), 1), row), v(0)),
        )
    else:
        body = (
            op("vld", v(1), box(0, (i(2), 1), row)),
            op("vfma", v(0), v(0), 2.0, v(1)),
            op("vst", box(1, (i(2), 1), row), v(0)),
        )
    begin = op("vmovi", v(0), 0.0, (1, tile))
    nest = par(2, par(share, begin, Loop("seq", steps, body)), level="spc")
    return _finish(layout, Kernel("running_sum", (nest,)), [x, out], ((x, -4, 5),))


@st.composite
def attentions(draw: Draw) -> RandomProgram:
    """(Q @ K^T) * mask @ V through a scratch tensor, heads over the SPCs, causal or not."""
    heads, length, width = draw(st.integers(1, 3)), draw(st.integers(1, 12)), draw(st.integers(1, 6))
    tile = draw(st.sampled_from([2, 4]))
    causal = draw(st.booleans())
    space = draw(st.sampled_from(["hbm", "tb"]))
    layout = Layout()
    q, k, val = (layout.tensor((heads, length, width), "bf16") for _ in range(3))
    out = layout.tensor((heads, length, width))
    scores = layout.tensor((1, length, length) if space == "tb" else (heads, length, length), space=space)
    turned = [layout.descriptors[k], layout.descriptors[scores]]
    k_view = layout.alias(
        Descriptor("hbm", turned[0].address, "bf16", (heads, width, length), (length * width, 1, width))
    )
    tiles = ceil(length, tile)
    here = (0, 1) if space == "tb" else (i(0), 1)
    head = (i(0), 1)
    limit = i(1) + 1 if causal else None
    ring = RingAddress(Affine(), 64 * 16 * 4, i(2), 2)
    row, key = (i(1, tile), tile), (i(2, tile), tile)
    first = par(
        tiles,
        op("tlda", ring, box(0, head, row, (0, width)), 2, "bf16"),
        op("tldb", ring, box(1, head, (0, width), key), 2, "bf16"),
        op("tmma", ring, ring, tile, tile, width, "bf16", 0),
        op("vacc", v(0), (1, tile, tile), 0),
        op("vmul", v(0), v(0), 0.5),
        op("vst", box(3, here, row, key), v(0)),
        limit=limit,
    )
    second = red(
        tiles,
        op("tlda", ring, box(3, here, row, key), 2, "tf32p"),
        op("tldb", ring, box(2, head, key, (0, width)), 2, "tf32p"),
        op("tmma", ring, ring, tile, width, tile, "tf32p", 0b100),
        limit=limit,
    )
    last = (op("vacc", v(1), (1, tile, width), 0), op("vst", box(4, head, row, (0, width)), v(1)))
    nest = par(min(heads, 2), par(tiles, first, second, *last), level="spc")
    slots = [q, k_view, val, scores, out]
    return _finish(layout, Kernel("attention", (nest,)), slots, tuple((t, -2, 3) for t in (q, k, val)))


FAMILIES = {
    "products": products(),
    "convolutions": convolutions(),
    "patches": patches(),
    "windows": windows(),
    "chains": chains(),
    "reductions": reductions(),
    "gathers": gathers(),
    "running_sums": running_sums(),
    "attentions": attentions(),
}
