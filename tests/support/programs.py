"""Small programs written by hand, each with its inputs and what numpy computes from them.

`cases()` returns one of each. All run on the machine `tiny` (two dies of two SPCs); inputs are small
integers, so that every engine must give exactly the expected values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from program_cases import BOTH_DIES, SPCS, Case, Layout, integers, launch
from program_words import Term, box, command, i, op, par, red, row_major, sync, v

from birc.runtime.program import (
    Affine,
    Command,
    CommandLoop,
    Descriptor,
    Instruction,
    Kernel,
    Piece,
    Port,
    RingAddress,
    Window,
)

# --- the programs
# -------------------------------------------------------------------------------------------------


def gemm_kernel(rows: int, columns: int, depth: int, *, name: str = "gemm") -> Kernel:
    """relu(A @ B + bias + residual) in BF16, rows split over two SPCs, input buffers of two tiles each.

    Slots: 0 A [rows, depth], 1 B [depth, columns], 2 out, 3 bias [rows, columns] (stride 0), 4 residual.
    """
    a_full, a_free, b_full, b_free, acc_full, acc_free = range(6)
    row_tiles, column_tiles, chunks = (-(-size // 64) for size in (-(-rows // 2), columns, depth))
    row, column = i(0, 64 * row_tiles) + i(1, 64), i(2, 64)
    position = i(1, column_tiles * chunks) + i(2, chunks) + i(3)
    slot = RingAddress(Affine(), 8192, position, 2)
    chunk = 1 << 3
    tile = ((row, 64), (column, 64))
    nest = par(
        2,
        par(
            row_tiles,
            par(
                column_tiles,
                red(
                    chunks,
                    op("tlda", slot, box(0, (row, 64), (i(3, 64), 64)), 1, "bf16",
                       waits=(sync(a_free),), posts=(sync(a_full),)),
                    op("tldb", slot, box(1, (i(3, 64), 64), (column, 64)), 1, "bf16",
                       waits=(sync(b_free),), posts=(sync(b_full),)),
                    op("tmma", slot, slot, 64, 64, 64, "bf16", chunk,
                       waits=(sync(a_full), sync(b_full), sync(acc_free, first=chunk)),
                       posts=(sync(a_free), sync(b_free), sync(acc_full, last=chunk))),
                ),
                op("vacc", v(0), (64, 64), 0, waits=(sync(acc_full),), posts=(sync(acc_free),)),
                op("vld", v(1), box(3, *tile)),
                op("vadd", v(0), v(0), v(1)),
                op("vld", v(2), box(4, *tile)),
                op("vadd", v(0), v(0), v(2)),
                op("vmax", v(0), v(0), 0.0),
                op("vst", box(2, *tile), v(0)),
            ),
        ),
        level="spc",
    )  # fmt: skip
    return Kernel(name, (nest,), (0, 2, 0, 2, 0, 1))


def gemm(rows: int = 150, columns: int = 70, depth: int = 200) -> Case:
    """A matrix product with bias, residual and ReLU; no size is a multiple of a tile."""
    layout = Layout()
    a = layout.tensor((rows, depth), "bf16")
    b = layout.tensor((depth, columns), "bf16")
    bias = layout.tensor((columns,))
    residual = layout.tensor((rows, columns), "bf16")
    out = layout.tensor((rows, columns))
    vector = layout.descriptors[bias]
    bias_rows = layout.alias(Descriptor("hbm", vector.address, "f32", (rows, columns), (0, 1)))
    macs = rows * columns * depth
    program = layout.program(
        "gemm",
        (gemm_kernel(rows, columns, depth),),
        launch((0, a), (1, b), (2, out), (3, bias_rows), (4, residual), macs=macs),
        inputs=(
            layout.port("a", a), layout.port("b", b),
            layout.port("bias", bias), layout.port("residual", residual),
        ),
        outputs=(layout.port("out", out),),
        useful_macs=macs,
    )  # fmt: skip
    inputs = {
        "a": integers(1, (rows, depth)),
        "b": integers(2, (depth, columns)),
        "bias": integers(3, (columns,)),
        "residual": integers(4, (rows, columns)),
    }
    product = inputs["a"] @ inputs["b"] + inputs["bias"] + inputs["residual"]
    return Case("gemm", program, inputs, {"out": np.maximum(product, 0)})


def vector_add(length: int = 30_000, programs: int = 3) -> Case:
    """out = a + b, split over SPCs, vector programs and tiles; the last tiles are partly or wholly
    outside."""
    layout = Layout()
    a, b, out = (layout.tensor((length,)) for _ in range(3))
    tiles = -(-length // (2 * programs * 4096))
    where = (i(0, programs * tiles * 4096) + i(1, tiles * 4096) + i(2, 4096), 4096)
    left, right = v(i(1, 2)), v(i(1, 2) + 1)
    body = par(
        tiles,
        op("vld", left, box(0, where)),
        op("vld", right, box(1, where)),
        op("vadd", left, left, right),
        op("vst", box(2, where), left),
    )
    kernel = Kernel("add", (par(2, par(programs, body, level="program"), level="spc"),))
    program = layout.program(
        "vector_add",
        (kernel,),
        launch((0, a), (1, b), (2, out)),
        inputs=(layout.port("a", a), layout.port("b", b)),
        outputs=(layout.port("out", out),),
    )
    inputs = {"a": integers(5, (length,)), "b": integers(6, (length,))}
    return Case("vector_add", program, inputs, {"out": inputs["a"] + inputs["b"]})


def max_pool(channels: int = 12, height: int = 15, width: int = 14) -> Case:
    """A 3 x 3 maximum of stride 2 with a border of 1, BF16, channels in blocks of four over the SPCs."""
    out_height, out_width = (height + 1) // 2, (width + 1) // 2
    layout = Layout()
    x = layout.tensor((channels, height, width), "bf16")
    out = layout.tensor((channels, out_height, out_width), "bf16")
    blocks = -(-channels // 8)
    channel, row = i(0, 4 * blocks) + i(1, 4), i(2)
    window = box(0, (channel, 4), (i(2, 2) + i(3) + -1, 1, 2), (i(4) + -1, out_width, 2), fill="lowest")
    taps = red(3, red(3, op("vld", v(0), window), op("vfoldmax", v(1), v(0), 0b11000)))
    store = op("vst", box(1, (channel, 4), (row, 1), (0, out_width)), v(1))
    kernel = Kernel("max_pool", (par(2, par(blocks, par(out_height, taps, store)), level="spc"),))
    program = layout.program(
        "max_pool",
        (kernel,),
        launch((0, x), (1, out)),
        inputs=(layout.port("x", x),),
        outputs=(layout.port("out", out),),
    )
    values = integers(7, (channels, height, width), -100, 101)
    bordered = np.full((channels, 2 * out_height + 1, 2 * out_width + 1), -1000)
    bordered[:, 1 : height + 1, 1 : width + 1] = values
    taps_of = [bordered[:, y : y + 2 * out_height : 2, x_ : x_ + 2 * out_width : 2]
               for y in range(3) for x_ in range(3)]  # fmt: skip
    return Case("max_pool", program, {"x": values}, {"out": np.max(taps_of, axis=0)})


def convolution(height: int = 11, width: int = 13, channels: int = 40, filters: int = 24) -> Case:
    """2 x 3 taps at a dilation of 2 over an image with a border, BF16: each SPC loads a patch once for all taps."""
    taps, across, above, left = (2, 3), 2, 1, 2
    size = (height + 2 * above - across * (taps[0] - 1), width + 2 * left - across * (taps[1] - 1))
    layout = Layout()
    x = layout.tensor((height, width, channels), "bf16")
    w = layout.tensor((*taps, channels, filters), "bf16")
    out = layout.tensor((*size, filters))
    a_full, a_free, b_full, b_free, acc_full, acc_free = range(6)
    # Depths: 0 row tile of 8 (the SPC), 1 column tile of 8, 2 channel chunk of 32, 3 and 4 the tap.
    pitch = 8 + across * (taps[1] - 1)
    patch = box(0, (i(0, 8) + -above, 8 + across * (taps[0] - 1)), (i(1, 8) + -left, pitch), (i(2, 32), 32))
    window = Window(i(3, across), i(4, across), 8, 8, pitch)
    a_slot, b_slot = RingAddress(Affine(), 8192, i(1, 2) + i(2), 2), RingAddress(Affine(), 4096, i(3, 3) + i(4), 2)
    first_tap = last_tap = 0b11000
    body = red(
        2,
        op("tlda", a_slot, patch, 2, "bf16", waits=(sync(a_free),), posts=(sync(a_full),)),
        red(taps[0], red(
            taps[1],
            op("tldb", b_slot, box(1, (i(3), 1), (i(4), 1), (i(2, 32), 32), (0, filters)), 3, "bf16",
               waits=(sync(b_free),), posts=(sync(b_full),)),
            op("tconv", a_slot, window, b_slot, filters, 32, "bf16", 0b11100,
               waits=(sync(a_full, first=first_tap), sync(b_full), sync(acc_free, first=0b11100)),
               posts=(sync(a_free, last=last_tap), sync(b_free), sync(acc_full, last=0b11100))),
        )),
    )  # fmt: skip
    drain = op("vacc", v(0), (8, 8, filters), 0, waits=(sync(acc_full),), posts=(sync(acc_free),))
    store = op("vst", box(2, (i(0, 8), 8), (i(1, 8), 8), (0, filters)), v(0))
    kernel = Kernel("convolution", (par(2, par(2, body, drain, store), level="spc"),), (0, 2, 0, 2, 0, 1))
    macs = size[0] * size[1] * taps[0] * taps[1] * channels * filters
    program = layout.program(
        "convolution",
        (kernel,),
        launch((0, x), (1, w), (2, out), macs=macs),
        inputs=(layout.port("x", x), layout.port("w", w)),
        outputs=(layout.port("out", out),),
        useful_macs=macs,
    )
    inputs = {"x": integers(15, (height, width, channels)), "w": integers(16, (*taps, channels, filters))}
    padded = np.pad(inputs["x"], ((above, above), (left, left), (0, 0)))
    parts = [padded[across * r :, across * s :][: size[0], : size[1]] @ inputs["w"][r, s]
             for r in range(taps[0]) for s in range(taps[1])]  # fmt: skip
    return Case("convolution", program, inputs, {"out": sum(parts)})


def gather(rows: int = 50, width: int = 24, count: int = 100) -> Case:
    """out[n] = table[index[n]] with INT64 indices, 32 rows an instruction."""
    layout = Layout()
    table = layout.tensor((rows, width), "f16")
    index = layout.tensor((count, 1), "i64")
    out = layout.tensor((count, width), "f16")
    tiles = -(-count // 64)
    first = i(0, 32 * tiles) + i(1, 32)
    body = par(
        tiles,
        op("vld", v(0), box(1, (first, 32), (0, 1))),
        op("vldx", v(1), box(0, (0, 1), (0, width)), v(0), 0, rows),
        op("vst", box(2, (first, 32), (0, width)), v(1)),
    )
    program = layout.program(
        "gather",
        (Kernel("gather", (par(2, body, level="spc"),)),),
        launch((0, table), (1, index), (2, out)),
        inputs=(layout.port("table", table), layout.port("index", index)),
        outputs=(layout.port("out", out),),
    )
    inputs = {"table": integers(8, (rows, width)), "index": integers(9, (count, 1), 0, rows)}
    return Case("gather", program, inputs, {"out": inputs["table"][inputs["index"][:, 0]]})


def _elementwise_kernel(name: str, tiles: int, *body: Instruction) -> Kernel:
    """Over [2 * tiles, 64] elements, a row a tile; the body's boxes use `ROW`."""
    return Kernel(name, (par(2, par(tiles, *body), level="spc"),))


def _row(tiles: int) -> tuple[tuple[Term, int], tuple[Term, int]]:
    return ((i(0, tiles) + i(1), 1), (0, 64))


def two_die_transfer(tiles: int = 3) -> Case:
    """Each die doubles its half, sends the result to the other and adds what it receives: both hold 2 (x0 +
    x1)."""
    layout = Layout()
    dims = (2 * tiles, 64)
    x, doubled, received, out = (layout.tensor(dims) for _ in range(4))
    row = _row(tiles)
    double = _elementwise_kernel(
        "double",
        tiles,
        op("vld", v(0), box(0, *row)),
        op("vadd", v(0), v(0), v(0)),
        op("vst", box(1, *row), v(0)),
    )
    add = _elementwise_kernel(
        "add", tiles, op("vld", v(0), box(1, *row)), op("vld", v(1), box(2, *row)),
        op("vadd", v(0), v(0), v(1)), op("vst", box(3, *row), v(0)),
    )  # fmt: skip
    commands = (
        *launch((0, x), (1, doubled), (2, received), (3, out), dies=BOTH_DIES),
        command("transfer", received, doubled, 0, dies=0b01),
        command("transfer", received, doubled, 1, dies=0b10),
        command("wait", 0, dies=BOTH_DIES),
        command("wait", 1, dies=BOTH_DIES),
        command("run", 1, 0, dies=BOTH_DIES),
        command("barrier", "device", dies=BOTH_DIES),
    )
    return _sum_of_halves("two_die_transfer", layout, (double, add), commands, x, out)


def _sum_of_halves(
    name: str, layout: Layout, kernels: tuple[Kernel, ...], commands: tuple[Command, ...], x: int, out: int
) -> Case:
    """Each die has its half of `x`, and both hold twice the sum of the halves in `out`."""
    dims = rows, columns = layout.descriptors[x].dims
    halves = (Piece(0b01, x, (0, 0), dims), Piece(0b10, x, (rows, 0), dims))
    program = layout.program(
        name,
        kernels,
        commands,
        inputs=(Port("x", "f32", (2 * rows, columns), halves),),
        outputs=(layout.port("out", out, BOTH_DIES),),
        dies=2,
    )
    values = integers(10, (2 * rows, columns))
    return Case(name, program, {"x": values}, {"out": 2 * (values[:rows] + values[rows:])})


def stored_over(tiles: int = 3) -> Case:
    """As two_die_transfer, but the kernel that doubles stores its result on the other die, too."""
    layout = Layout()
    dims = (2 * tiles, 64)
    x, out = layout.tensor(dims), layout.tensor(dims)
    doubled, received = (layout.tensor(dims, space="l2") for _ in range(2))
    away = layout.alias(replace(layout.descriptors[received], space="other_l2"))
    row = _row(tiles)
    double = _elementwise_kernel(
        "double", tiles, op("vld", v(0), box(0, *row)), op("vadd", v(0), v(0), v(0)),
        op("vst", box(1, *row), v(0)), op("vst", box(2, *row), v(0)),
    )  # fmt: skip
    add = _elementwise_kernel(
        "add", tiles, op("vld", v(0), box(1, *row)), op("vld", v(1), box(3, *row)),
        op("vadd", v(0), v(0), v(1)), op("vst", box(4, *row), v(0)),
    )  # fmt: skip
    *start, _ = launch((0, x), (1, doubled), (2, away), (3, received), (4, out), dies=BOTH_DIES)
    commands = (
        *start,
        command("barrier", "all_spcs", dies=BOTH_DIES),
        command("run", 1, 0, dies=BOTH_DIES),
        command("barrier", "device", dies=BOTH_DIES),
    )
    return _sum_of_halves("stored_over", layout, (double, add), commands, x, out)


def command_loop(steps: int = 4, tiles: int = 2) -> Case:
    """out[step] = x[step] * w[step]; each step copies its `w` into L2, `bind` moves `x` and `out`."""
    layout = Layout()
    dims = (2 * tiles, 64)
    step_bytes = 4 * 64 * 2 * tiles
    whole = (steps, *dims)
    x, w, out = (layout.tensor(whole) for _ in range(3))
    first = [layout.alias(Descriptor("hbm", layout.descriptors[entry].address, "f32", dims, row_major(dims)))
             for entry in (x, w, out)]  # fmt: skip
    buffer = layout.tensor(dims, space="l2")
    row = _row(tiles)
    kernel = _elementwise_kernel(
        "multiply", tiles, op("vld", v(0), box(0, *row)), op("vld", v(1), box(1, *row)),
        op("vmul", v(0), v(0), v(1)), op("vst", box(2, *row), v(0)),
    )  # fmt: skip
    step = (
        command("copy", buffer, first[1], (0,), (step_bytes,), 3),
        command("bind", 0, first[0], (step_bytes,)),
        command("bind", 2, first[2], (step_bytes,)),
        command("wait", 3),
        command("run", 0, 0),
        command("barrier", "die"),
    )
    program = layout.program(
        "command_loop",
        (kernel,),
        (command("launch", SPCS, "main"), command("bind", 1, buffer, ()), CommandLoop(steps, step)),
        inputs=(layout.port("x", x), layout.port("w", w)),
        outputs=(layout.port("out", out),),
    )
    inputs = {"x": integers(11, whole), "w": integers(12, whole)}
    return Case("command_loop", program, inputs, {"out": inputs["x"] * inputs["w"]})


def tensor_buffer_chain(tiles: int = 4) -> Case:
    """Two kernels without a barrier between: the first leaves its result in each SPC's tensor buffer."""
    layout = Layout()
    dims = (2 * tiles, 64)
    x, out = layout.tensor(dims), layout.tensor(dims)
    kept = layout.tensor((tiles, 64), space="tb")
    row, own = _row(tiles), ((i(1), 1), (0, 64))
    square = _elementwise_kernel(
        "square",
        tiles,
        op("vld", v(0), box(0, *row)),
        op("vmul", v(0), v(0), v(0)),
        op("vst", box(1, *own), v(0)),
    )
    shift = _elementwise_kernel(
        "shift",
        tiles,
        op("vld", v(0), box(1, *own)),
        op("vsub", v(0), v(0), 1.0),
        op("vst", box(2, *row), v(0)),
    )
    first, last = launch((0, x), (1, kept), (2, out))[:-1], command("barrier", "die")
    program = layout.program(
        "tensor_buffer_chain",
        (square, shift),
        (*first, command("run", 1, 0), last),
        inputs=(layout.port("x", x),),
        outputs=(layout.port("out", out),),
    )
    values = integers(13, dims)
    return Case("tensor_buffer_chain", program, {"x": values}, {"out": values**2 - 1})


def preloaded(size: int = 128) -> Case:
    """relu(2x @ b + residual): the product loads b while other SPCs may still double x, and a copy brings the residual.

    Descriptors: 0 x, 1 b, 2 its residual, 3 out, 4 `held` in L2, 5 `doubled` in L2.
    """
    layout = Layout()
    dims = (size, size)
    x, b, residual = (layout.tensor(dims, "bf16") for _ in range(3))
    out = layout.tensor(dims)
    held, doubled = (layout.tensor(dims, "bf16", space="l2") for _ in range(2))
    half = size // 2
    row = ((i(0, -half) + i(1) + half, 1), (0, size))  # each SPC doubles what the other one multiplies
    double = _elementwise_kernel(
        "double", half, op("vld", v(0), box(5, *row)), op("vadd", v(0), v(0), v(0)), op("vst", box(0, *row), v(0))
    )
    slots = (doubled, b, out, held, held, x)
    macs = size**3
    first = launch(*enumerate(slots))[:-2]
    commands = (
        *first,
        command("copy", held, residual, (), (), 1),
        command("run", 0, 0),
        command("preload", 1),
        command("wait", 1),
        command("barrier", "die"),
        command("run", 1, macs),
        command("barrier", "die"),
    )
    program = layout.program(
        "preloaded",
        (double, gemm_kernel(size, size, size)),
        commands,
        inputs=(layout.port("x", x), layout.port("b", b), layout.port("residual", residual)),
        outputs=(layout.port("out", out),),
        useful_macs=macs,
    )
    inputs = {"x": integers(15, dims, -2, 3), "b": integers(16, dims, -2, 3), "residual": integers(17, dims)}
    result = np.maximum(2 * inputs["x"] @ inputs["b"] + 2 * inputs["residual"], 0)
    return Case("preloaded", program, inputs, {"out": result})


def buffers_filled(rounds: int = 2, size: int = 64) -> Case:
    """out[round] = a @ 2 w[round] + (bias, bias): each SPC has its columns of 2 w, and the bias, in its tensor buffer.

    Descriptors: 0 a, 1 w, 2 out, 3 the bias, 4 `doubled` in L2, 5 `own` and 6 `near` in the tensor buffer; then views:
    7 `parts` of `doubled` by SPC, 8 the bias for each SPC, 9 `near` for every row, 10 and 11 w and out of a round.
    """
    layout = Layout()
    whole = (rounds, size, 2 * size)
    a, w = layout.tensor((size, size), "bf16"), layout.tensor(whole, "bf16")
    out, bias = layout.tensor(whole), layout.tensor((size,))
    doubled = layout.tensor(whole, "bf16", space="l2")
    own, near = layout.tensor((size, size), "bf16", space="tb"), layout.tensor((size,), space="tb")

    def seen(tensor: int, dims: tuple[int, ...], strides: tuple[int, ...]) -> int:
        return layout.alias(replace(layout.descriptors[tensor], dims=dims, strides=strides))

    parts = seen(doubled, (2, size, size), (size, 2 * size, 1))
    bias_of_each = seen(bias, (2, size), (0, 1))
    near_rows = seen(near, (size, size), (0, 1))
    outs = seen(out, (size, 2 * size), (2 * size, 1))
    block = ((0, rounds), (i(1), 1), (i(0, size), size))
    double = _elementwise_kernel(
        "double", size, op("vld", v(0), box(1, *block)), op("vadd", v(0), v(0), v(0)), op("vst", box(4, *block), v(0))
    )
    half, slot = size // 2, RingAddress(Affine(), 4096, i(1), 2)
    product = par(
        2,
        red(
            2,
            op("tlda", slot, box(0, (0, size), (i(1, half), half)), 1, "bf16", posts=(sync(0),)),
            op("tldb", slot, box(5, (i(1, half), half), (0, size)), 1, "bf16", posts=(sync(1),)),
            op("tmma", slot, slot, size, size, half, "bf16", 0b10,
               waits=(sync(0), sync(1)), posts=(sync(2, last=0b10),)),
        ),
        op("vacc", v(0), (size, size), 0, waits=(sync(2),)),
        op("vld", v(1), box(6, (0, size), (0, size))),
        op("vadd", v(0), v(0), v(1)),
        op("vst", box(2, (0, size), (i(0, size), size)), v(0)),
        level="spc",
    )  # fmt: skip
    macs = 2 * size**3
    commands = (
        *launch((0, a), (1, w), (4, doubled), (5, own), (6, near_rows)),
        command("copy", near, bias_of_each, (), (), 0),
        CommandLoop(
            rounds,
            (
                command("copy", own, parts, (0,), (size * 2 * size * 2,), 1),
                command("bind", 2, outs, (size * 2 * size * 4,)),
                command("wait", 1),
                command("run", 1, macs),
                command("barrier", "die"),
            ),
        ),
    )
    commands = (*commands[:-1], command("wait", 0), commands[-1])
    program = layout.program(
        "buffers_filled",
        (double, Kernel("product", (product,), (0, 0, 0))),
        commands,
        inputs=(layout.port("a", a), layout.port("w", w), layout.port("bias", bias)),
        outputs=(layout.port("out", out),),
        useful_macs=rounds * macs,
    )
    inputs = {"a": integers(18, (size, size)), "w": integers(19, whole), "bias": integers(20, (size,))}
    result = inputs["a"] @ (2 * inputs["w"]) + np.tile(inputs["bias"], 2)
    return Case("buffers_filled", program, inputs, {"out": result})


def causal_sums(rows: int = 6) -> Case:
    """out[r] = sum of the blocks 0..r of row r: a reduction whose length depends on an outer loop."""
    layout = Layout()
    x = layout.tensor((2, rows, 16 * rows))
    out = layout.tensor((2, rows, 1))
    block = box(0, (i(0), 1), (i(1), 1), (i(2, 16), 16))
    row = par(
        rows,
        red(rows, op("vld", v(0), block), op("vfoldsum", v(1), v(0), 0b100), limit=i(1) + 1),
        op("vredsum", v(2), v(1), 0b100),
        op("vst", box(1, (i(0), 1), (i(1), 1), (0, 1)), v(2)),
    )
    program = layout.program(
        "causal_sums",
        (Kernel("causal_sums", (par(2, row, level="spc"),)),),
        launch((0, x), (1, out)),
        inputs=(layout.port("x", x),),
        outputs=(layout.port("out", out),),
    )
    values = integers(14, (2, rows, 16 * rows))
    expected = [[[values[d, r, : 16 * (r + 1)].sum()] for r in range(rows)] for d in range(2)]
    return Case("causal_sums", program, {"x": values}, {"out": np.array(expected)})


BUILDERS: tuple[Callable[[], Case], ...] = (
    gemm,
    vector_add,
    max_pool,
    convolution,
    gather,
    two_die_transfer,
    stored_over,
    command_loop,
    tensor_buffer_chain,
    preloaded,
    buffers_filled,
    causal_sums,
)


def cases() -> tuple[Case, ...]:
    """One case of every program here."""
    return tuple(build() for build in BUILDERS)
