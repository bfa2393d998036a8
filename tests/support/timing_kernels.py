"""Kernels for tests of the timing engine, in the shapes that the compiler emits, with every size a parameter.

They are only timed: input buffer addresses and values do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

from programs import box, command, i, op, par, red, row_major, sync, v

from birc.runtime.machine import Machine
from birc.runtime.program import (
    Affine,
    Command,
    CommandLoop,
    Descriptor,
    Kernel,
    Loop,
    Program,
    RingAddress,
    Sync,
)


@dataclass(frozen=True)
class Gemm:
    """C = A @ B over `spcs` SPCs (rows split), blocks of `mb` x `nb` tiles, `kk` matrix operations a tile.

    `depth` is the number of blocks that the input buffers hold, `programs` the vector programs that the
    column tiles alternate over, `epilogue` the arithmetic instructions on each tile.
    """

    spcs: int = 2
    row_blocks: int = 3
    column_blocks: int = 2
    mb: int = 2
    nb: int = 2
    kk: int = 2
    k: int = 128
    depth: int = 2
    programs: int = 1
    epilogue: int = 2
    ragged: int = 0
    a_space: str = "hbm"
    b_space: str = "hbm"
    out_space: str = "hbm"
    multicast: str = "none"

    @property
    def rows(self) -> int:
        return self.spcs * self.row_blocks * self.mb * 64 - self.ragged

    @property
    def columns(self) -> int:
        return self.column_blocks * self.nb * 64

    @property
    def inner(self) -> int:
        return self.kk * self.k

    @property
    def macs(self) -> int:
        return self.rows * self.columns * self.inner

    def descriptors(self) -> tuple[Descriptor, ...]:
        a, b, out = (self.rows, self.inner), (self.inner, self.columns), (self.rows, self.columns)
        return (
            dense(a, "bf16", self.a_space),
            dense(b, "bf16", self.b_space),
            dense(out, "bf16", self.out_space),
        )

    def kernel(self) -> Kernel:
        a_full, a_free, b_full, b_free, acc_free, acc_full = range(6)
        row = i(0, self.row_blocks * self.mb * 64) + i(1, self.mb * 64) + i(3, 64)
        column = i(2, self.nb * 64)
        ring = RingAddress(Affine())
        load_a = op("tlda", ring, box(0, (row, 64), (i(4, self.k), self.k)), 1, "bf16",
                    waits=(sync(a_free),), posts=(sync(a_full),))  # fmt: skip
        load_b = op("tldb", ring, box(1, (i(4, self.k), self.k), (column + i(3, 64), 64)), 1, "bf16",
                    waits=(sync(b_free),), posts=(sync(b_full),))  # fmt: skip
        block = par(
            self.column_blocks,
            par(self.mb, red(self.kk, load_a)),
            par(self.nb, red(self.kk, load_b)),
            self._tiles(row, column, acc_full, acc_free),
        )
        nest = par(self.spcs, par(self.row_blocks, block), level="spc")
        free = (self.mb * self.kk * self.depth, self.nb * self.kk * self.depth)
        counts = (0, free[0], 0, free[1], 1, *(0,) * self.programs)
        return Kernel("gemm", (nest,), counts, self.multicast)

    def _tiles(self, row: Affine, column: Affine, acc_full: int, acc_free: int) -> Loop:
        """Row tiles, column tiles, matrix operations and epilogue."""
        a_full, a_free, b_full, b_free = range(4)
        row_tile, column_tile, chunk = 1 << 3, 1 << 4, 1 << 5
        spread = self.programs > 1
        ring = RingAddress(Affine())
        full = sync(i(4) + acc_full if spread else acc_full)
        multiply = op(
            "tmma", ring, ring, 64, 64, self.k, "bf16", chunk,
            waits=(sync(a_full, first=column_tile), sync(b_full, first=row_tile),
                   sync(acc_free, first=chunk)),
            posts=(sync(a_free, last=column_tile), sync(b_free, last=row_tile),
                   Sync(full.semaphore, last=chunk)),
        )  # fmt: skip
        register = v(i(4) if spread else 0)
        body = (
            red(self.kk, multiply),
            op("vacc", register, (64, 64), 0, waits=(full,), posts=(sync(acc_free),)),
            *(op("vmax", register, register, 0.0) for _ in range(self.epilogue)),
            op("vst", box(2, (row, 64), (column + i(4, 64), 64)), register),
        )
        columns = par(self.nb, *body, level="program" if spread else "tile")
        return par(self.mb, columns)

    def program(self, machine: Machine, repeats: int = 1) -> Program:
        """The kernel in one launch, run `repeats` times, its tensors dense and at address 0."""
        return program(machine, self.kernel(), self.descriptors(), macs=self.macs, repeats=repeats)


def dense(
    dims: tuple[int, ...], dtype: str = "f32", space: str = "hbm", *, address: int = 0, mapping: str = "uma16"
) -> Descriptor:
    """A descriptor of a dense tensor."""
    return Descriptor(space, address, dtype, dims, row_major(dims), mapping=mapping)


def program(
    machine: Machine,
    kernel: Kernel,
    descriptors: tuple[Descriptor, ...],
    *,
    macs: int = 0,
    repeats: int = 1,
    dies: int = 1,
    before: tuple[Command, ...] = (),
    after: tuple[Command, ...] = (),
) -> Program:
    """A program of one launch of one kernel; descriptor i is bound to slot i."""
    mask = (1 << dies) - 1
    run: Command | CommandLoop = command("run", 0, macs, dies=mask)
    commands = (
        command("launch", (1 << machine.spcs_per_die) - 1, "main", dies=mask),
        *(command("bind", slot, slot, (), dies=mask) for slot in range(len(descriptors))),
        *before,
        run if repeats == 1 else CommandLoop(repeats, (run,)),
        *after,
    )
    return Program(
        name=kernel.name,
        machine=machine.name,
        machine_digest=machine.digest,
        dies=dies,
        l2_bytes=machine.l2_bytes,
        tensor_buffer_bytes=machine.tensor_buffer_bytes,
        hbm_bytes=machine.hbm_bytes_per_die,
        descriptors=descriptors,
        kernels=(kernel,),
        commands=commands,
        inputs=(),
        outputs=(),
        constants=(),
        useful_macs=macs * repeats,
    )


def streaming(tiles: int, *, outstanding: int = 2, spcs: int = 1, space: str = "hbm") -> Kernel:
    """Loads tiles of 4096 FP32 elements, `outstanding` registers in turn, and adds up; one vector program."""
    where = i(0, tiles * outstanding * 4096) + i(1, outstanding * 4096)
    loads = (op("vld", v(1 + n), box(0, (where + n * 4096, 4096))) for n in range(outstanding))
    adds = (op("vadd", v(0), v(0), v(1 + n)) for n in range(outstanding))
    zero = op("vmovi", v(0), 0.0, (4096,))
    return Kernel("streaming", (par(spcs, zero, par(tiles, *loads, *adds), level="spc"),))
