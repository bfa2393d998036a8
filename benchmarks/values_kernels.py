"""How fast the values engine is on single kernels: a matrix product and convolutions, beside plain numpy.

    python benchmarks/values_kernels.py

Both sides use all cores and are measured in turns; the best of each counts. The aim is at most 1.5 times numpy's
own matmul (for a convolution: numpy's im2col and matmul) with the same bias and ReLU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from birc.runtime.machine import load_machine
from birc.runtime.memory import Memory
from birc.runtime.program import (
    Affine,
    Axis,
    Box,
    Command,
    ConstantImage,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    Program,
    Register,
    RingAddress,
    affine,
)
from birc.runtime.values import ValuesEngine

MACHINE = load_machine("br100")
REPEATS = 20
ITEM_BYTES = 4
TILE = 64

Dims = tuple[int, ...]
Axes = tuple[tuple[Affine, int] | tuple[Affine, int, int], ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """A kernel with its operands, and what numpy does for it. Slots: input, weights, bias, output."""

    name: str
    kernel: Kernel
    dims: tuple[Dims, Dims, Dims, Dims]
    reference: Callable[[list[np.ndarray]], Callable[[], np.ndarray]]


def at(*terms: tuple[int, int]) -> Affine:
    """The sum of factor * variable, from (depth, factor) pairs."""
    return affine(0, dict(terms))


def box(slot: int, *axes: tuple[Affine, int] | tuple[Affine, int, int]) -> Box:
    return Box(slot, tuple(Axis(*axis) for axis in axes))


def loops(kinds: str, extents: Dims, *body: Loop | Instruction) -> tuple[Loop | Instruction, ...]:
    """Nested loops, outermost first: p(arallel) or r(eduction) of each extent."""
    for kind, extent in zip(reversed(kinds), reversed(extents), strict=True):
        body = (Loop({"p": "par", "r": "red"}[kind], extent, body),)
    return body


def tiled(load_a: Box, load_b: Box, rows: int, columns: int, depth: int, reductions: Dims, first: int) -> Loop:
    """The loads and products of one output tile, summed over some loops."""
    a = Instruction("tlda", (RingAddress(Affine()), load_a, rows, "tf32p"))
    b = Instruction("tldb", (RingAddress(Affine()), load_b, len(load_b.axes) - 1, "tf32p"))
    operands = (RingAddress(Affine()), RingAddress(Affine()), TILE, columns, depth, "tf32p", first)
    (loop,) = loops("r" * len(reductions), reductions, a, b, Instruction("tmma", operands))
    if isinstance(loop, Instruction):
        raise TypeError("a product without a loop")
    return loop


def epilogue(shape: Dims, where: Axes) -> tuple[Instruction, ...]:
    """Drain, bias, ReLU, store."""
    value, bias = Register(Affine(0)), Register(Affine(1))
    return (
        Instruction("vacc", (value, shape, 0)),
        Instruction("vld", (bias, box(2, *where))),
        Instruction("vadd", (value, value, bias)),
        Instruction("vmax", (value, value, 0.0)),
        Instruction("vst", (box(3, *where), value)),
    )


def product(m: int, n: int, k: int) -> Workload:
    """relu(A @ B + bias) in tiles of 64 x 64 x 128."""
    row, column, depth = (at((0, TILE)), TILE), (at((1, TILE)), TILE), (at((2, 128)), 128)
    body = tiled(box(0, row, depth), box(1, depth, column), 1, TILE, 128, (-(-k // 128),), 0b100)
    nest = loops("pp", (-(-m // TILE), -(-n // TILE)), body, *epilogue((TILE, TILE), (row, column)))

    def reference(arrays: list[np.ndarray]) -> Callable[[], np.ndarray]:
        a, b, bias = arrays
        out = np.empty((m, n), np.float32)

        def run() -> np.ndarray:
            np.matmul(a, b, out=out)
            np.add(out, bias, out=out)
            return np.maximum(out, 0, out=out)

        return run

    return Workload(f"product {m} x {n} x {k}", Kernel("product", nest), ((m, k), (k, n), (m, n), (m, n)), reference)


def convolution(batch: int, size: int, channels: int, filters: int, taps: int = 3) -> Workload:
    """A padded convolution of stride 1 with bias and ReLU, channels last, in tiles of 8 x 8 pixels."""
    chunk, pad = min(channels, 128), taps // 2
    sample, channel, columns = (at((0, 1)), 1), (at((6, chunk)), chunk), (at((3, TILE)), TILE)
    y, x = ((at((depth, 8), (depth + 3, 1)) + -pad, 8) for depth in (1, 2))
    a = box(0, sample, y, x, channel)
    b = box(1, (at((4, 1)), 1), (at((5, 1)), 1), channel, columns)
    body = tiled(a, b, 3, TILE, chunk, (taps, taps, -(-channels // chunk)), 0b1110000)
    where = (sample, (at((1, 8)), 8), (at((2, 8)), 8), columns)
    tiles = -(-size // 8)
    nest = loops("pppp", (batch, tiles, tiles, -(-filters // TILE)), body, *epilogue((1, 8, 8, TILE), where))

    def reference(arrays: list[np.ndarray]) -> Callable[[], np.ndarray]:
        image, weights, bias = arrays
        padded = np.zeros((batch, size + 2 * pad, size + 2 * pad, channels), np.float32)
        unfolded = np.empty((batch, size, size, taps, taps, channels), np.float32)
        out = np.empty((batch * size * size, filters), np.float32)
        row = bias.reshape(-1, filters)[0]

        def run() -> np.ndarray:
            padded[:, pad : pad + size, pad : pad + size] = image
            windows = np.lib.stride_tricks.sliding_window_view(padded, (taps, taps), axis=(1, 2))
            unfolded[...] = windows.transpose(0, 1, 2, 4, 5, 3)
            np.matmul(unfolded.reshape(len(out), -1), weights.reshape(-1, filters), out=out)
            np.add(out, row, out=out)
            return np.maximum(out, 0, out=out).reshape(batch, size, size, filters)

        return run

    name = f"convolution {taps} x {taps}, batch {batch}, {size} x {size}, {channels} to {filters} channels"
    output = (batch, size, size, filters)
    return Workload(
        name,
        Kernel("convolution", nest),
        ((batch, size, size, channels), (taps, taps, channels, filters), output, output),
        reference,
    )


def program_of(workload: Workload) -> Program:
    """The kernel as a program; weights and bias are constants."""
    descriptors, address = [], 0
    for slot, dims in enumerate(workload.dims):
        strides = tuple(int(np.prod(dims[axis + 1 :])) for axis in range(len(dims)))
        is_bias = slot == 2
        if is_bias:
            strides = (*(0 for _ in dims[1:]), 1)
        descriptors.append(Descriptor("hbm", address, "f32", dims, strides))
        address += ITEM_BYTES * (dims[-1] if is_bias else int(np.prod(dims)))
    commands = (
        Command("launch", (1, "main")),
        *(Command("bind", (slot, slot, ())) for slot in range(4)),
        Command("run", (0, 0)),
    )
    weights = ConstantImage("weights", descriptors[3].address - descriptors[1].address, descriptors[1].address, 1)
    return Program(
        name=workload.name,
        machine=MACHINE.name,
        machine_digest=MACHINE.digest,
        dies=1,
        l2_bytes=MACHINE.l2_bytes,
        tensor_buffer_bytes=MACHINE.tensor_buffer_bytes,
        hbm_bytes=address,
        descriptors=tuple(descriptors),
        kernels=(workload.kernel,),
        commands=commands,
        inputs=(),
        outputs=(),
        constants=(weights,),
    )


def seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def measure(workload: Workload) -> None:
    """Print the times of one workload and how far the results are apart."""
    program = program_of(workload)
    memory = Memory(program, MACHINE, poison=False)
    rng = np.random.default_rng(0)
    arrays = []
    for descriptor in program.descriptors[:3]:
        view = memory.view(descriptor, 0)
        view[...] = rng.standard_normal(view.shape, np.float32)
        arrays.append(view.copy())
    engine, reference = ValuesEngine(program, MACHINE), workload.reference(arrays)
    engine.run(memory)
    result = memory.view(program.descriptors[3], 0)
    error = np.abs(result - reference()).max() / np.abs(result).max()
    ours, numpys = [], []
    for _ in range(REPEATS):
        ours.append(seconds(lambda: engine.run(memory)))
        numpys.append(seconds(reference))
    ratio = min(ours) / min(numpys)
    print(
        f"{workload.name:62} {1e3 * min(ours):8.2f} ms  numpy {1e3 * min(numpys):8.2f} ms"
        f"  {ratio:5.2f} x  error {error:.0e}  fallbacks {len(engine.fallbacks)}"
    )


def main() -> None:
    """Measure everything."""
    for workload in (
        product(1024, 1024, 1024),
        product(128, 3072, 768),
        product(1, 1000, 2048),
        convolution(8, 56, 64, 64),
        convolution(8, 28, 128, 128),
        convolution(1, 14, 256, 256),
        convolution(8, 56, 64, 256, taps=1),
    ):
        measure(workload)


if __name__ == "__main__":
    main()
