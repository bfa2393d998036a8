"""Natural forms of generated kernels, larger than those of `programs.py`: the blocked matrix product.

Nothing here is executed by the tests of the engines; the verifier must prove these forms, and refuse them
when broken.
"""

from __future__ import annotations

from dataclasses import dataclass

from programs import box, command, i, op, par, red, sync, v

from birc.runtime.machine import Machine
from birc.runtime.program import (
    Affine,
    Command,
    Descriptor,
    Kernel,
    Piece,
    Port,
    Program,
    RingAddress,
    affine,
)

A_TILE_BYTES = B_TILE_BYTES = 64 * 256 * 2


@dataclass(frozen=True)
class Blocking:
    """How a product C[M, N] = A[M, K] @ B[K, N] is cut: all in tiles of 64 rows, 64 columns, 256 deep.

    `spc_rows` x `spc_columns` SPCs; each does `blocks` blocks of `rows` x `columns` tiles; the depth is
    `chunks` chunks of `depth` tiles; `programs` vector programs take the column tiles in turn.
    """

    spc_rows: int = 4
    spc_columns: int = 4
    row_blocks: int = 1
    column_blocks: int = 2
    rows: int = 2
    columns: int = 2
    chunks: int = 2
    depth: int = 2
    programs: int = 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """M, N, K in elements."""
        return (
            64 * self.spc_rows * self.row_blocks * self.rows,
            64 * self.spc_columns * self.column_blocks * self.columns,
            256 * self.chunks * self.depth,
        )


def blocked_gemm(cut: Blocking, name: str = "gemm") -> Kernel:
    """relu(A @ B + bias + residual); slots 0 A, 1 B, 2 out, 3 bias (stride 0), 4 residual.

    Both input buffers hold two chunks; partial sums over chunks stay in registers, one a tile of the block.
    The programs drain the one accumulator in turn: each is told of its tile by a semaphore of its own, all
    post one.
    """
    a_full, a_free, b_full, b_free, acc_full = 0, 1, 2, 3, 4
    acc_free = acc_full + cut.programs
    turns = cut.columns // cut.programs
    block = affine(0, {2: cut.column_blocks * cut.chunks, 3: cut.chunks, 4: 1})
    row_tile = affine(0, {0: cut.row_blocks * cut.rows, 2: cut.rows})
    column_tile = affine(0, {1: cut.column_blocks * cut.columns, 3: cut.columns})
    depth_start = affine(0, {4: 256 * cut.depth})
    load_a = par(cut.rows, red(cut.depth, op(
        "tlda", ring(affine(0, {5: cut.depth, 6: 1}), cut.rows * cut.depth, block, A_TILE_BYTES),
        box(0, ((row_tile + i(5)) * 64, 64), (depth_start + i(6, 256), 256)), 1, "bf16",
        waits=(sync(a_free),), posts=(sync(a_full),))))  # fmt: skip
    load_b = par(cut.columns, red(cut.depth, op(
        "tldb", ring(affine(0, {5: cut.depth, 6: 1}), cut.columns * cut.depth, block, B_TILE_BYTES),
        box(1, (depth_start + i(6, 256), 256), ((column_tile + i(5)) * 64, 64)), 1, "bf16",
        waits=(sync(b_free),), posts=(sync(b_full),))))  # fmt: skip
    # Loops of the product: 5 row tile, 6 turn, 7 program, 8 depth.
    column = affine(0, {6: cut.programs, 7: 1})
    first_column, last_column = {"first": 0b11000000}, {"last": 0b11000000}
    mma = red(cut.depth, op(
        "tmma", ring(affine(0, {5: cut.depth, 8: 1}), cut.rows * cut.depth, block, A_TILE_BYTES),
        ring(column * cut.depth + i(8), cut.columns * cut.depth, block, B_TILE_BYTES),
        64, 64, 256, "bf16", 1 << 8,
        waits=(sync(a_full, **first_column), sync(b_full, first=1 << 5),
               sync(acc_free, first=1 << 8)),
        posts=(sync(a_free, **last_column), sync(b_free, last=1 << 5),
               sync(i(7) + acc_full, last=1 << 8))))  # fmt: skip
    sums = v(affine(0, {5: cut.columns}) + column)
    drain = op("vacc", sums, (64, 64), 1 << 4, waits=(sync(i(7) + acc_full),), posts=(sync(acc_free),))
    product = par(cut.rows, par(turns, par(cut.programs, mma, drain, level="program")))
    chunks = red(cut.chunks, load_a, load_b, product)
    # Loops of the end: 4 row tile, 5 turn, 6 program.
    end_column = affine(0, {5: cut.programs, 6: 1})
    tile = (((row_tile + i(4)) * 64, 64), ((column_tile + end_column) * 64, 64))
    held = v(affine(0, {4: cut.columns}) + end_column)
    spare = v(i(6) + cut.rows * cut.columns)
    end = par(cut.rows, par(turns, par(
        cut.programs,
        op("vld", spare, box(3, *tile)), op("vadd", held, held, spare),
        op("vld", spare, box(4, *tile)), op("vadd", held, held, spare),
        op("vmax", held, held, 0.0), op("vst", box(2, *tile), held), level="program")))  # fmt: skip
    nest = par(cut.row_blocks, par(cut.column_blocks, chunks, end))
    spcs = par(cut.spc_rows, par(cut.spc_columns, nest, level="spc"), level="spc")
    tiles = (2 * cut.rows * cut.depth, 2 * cut.columns * cut.depth)
    return Kernel(name, (spcs,), (0, tiles[0], 0, tiles[1], *(0,) * cut.programs, 1))


def ring(tile: Affine, tiles: int, index: Affine, tile_bytes: int) -> RingAddress:
    """A tile of the block whose turn it is, of two blocks."""
    return RingAddress(tile * tile_bytes, tiles * tile_bytes, index, 2)


def layers(cut: Blocking, count: int, machine: Machine) -> Program:
    """`count` square products in a row, each with weights of its own, all of one kernel; a barrier after
    each.
    """
    rows, columns, depth = cut.shape
    descriptors: list[Descriptor] = []
    address = 0

    def tensor(dims: tuple[int, int], dtype: str, strides: tuple[int, int] | None = None) -> int:
        nonlocal address
        descriptors.append(Descriptor("hbm", address, dtype, dims, strides or (dims[1], 1)))
        address += (dims[1] if strides else dims[0] * dims[1]) * (2 if dtype == "bf16" else 4)
        return len(descriptors) - 1

    states = [tensor((rows, depth), "bf16"), tensor((rows, columns), "bf16"), tensor((rows, columns), "bf16")]
    weights = [tensor((depth, columns), "bf16") for _ in range(count)]
    biases = [tensor((rows, columns), "f32", (0, 1)) for _ in range(count)]
    commands: list[Command] = [command("launch", (1 << cut.spc_rows * cut.spc_columns) - 1, "layers")]
    for layer in range(count):
        source = states[0] if layer == 0 else states[2 - layer % 2]
        target = states[1 + layer % 2]
        slots = (source, weights[layer], target, biases[layer], source)
        commands += [command("bind", slot, descriptor, ()) for slot, descriptor in enumerate(slots)]
        commands += [command("run", 0, 0), command("barrier", "die")]
    given = [states[0], *weights]
    ports = [_port(f"in{index}", index, descriptors[index].dims, descriptors[index].dtype) for index in given]
    vectors = [len(descriptors) + index for index in range(count)]
    for index in biases:
        descriptors.append(Descriptor("hbm", descriptors[index].address, "f32", (columns,), (1,)))
    ports += [_port(f"bias{index}", index, (columns,), "f32") for index in vectors]
    out = states[2 - count % 2]
    return Program(
        name="layers",
        machine=machine.name,
        machine_digest=machine.digest,
        dies=1,
        l2_bytes=machine.l2_bytes,
        tensor_buffer_bytes=machine.tensor_buffer_bytes,
        hbm_bytes=address,
        descriptors=tuple(descriptors),
        kernels=(blocked_gemm(cut),),
        commands=tuple(commands),
        inputs=tuple(ports),
        outputs=(_port("out", out, descriptors[out].dims, "bf16"),),
        constants=(),
    )


def _port(name: str, descriptor: int, shape: tuple[int, ...], dtype: str) -> Port:
    return Port(name, dtype, shape, (Piece(1, descriptor, (0,) * len(shape), shape),))
