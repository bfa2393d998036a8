"""Convolutions over few channels: one load brings all kernel rows where an operation takes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compile_graph

from birc.compiler.ir.plan import SPC, Access, Dimension, Index, Kernel, Phase, Statement, View
from birc.compiler.passes.tile_vector import tile_vector_kernel
from birc.runtime.machine import load_machine


def stem(
    channels: int, window: int, batch: int = 2, size: int = 17, **attributes: object
) -> tuple[Compiled, np.ndarray]:
    """A convolution of small integers, compiled in BF16, and its weights."""
    weights = np.random.default_rng(0).integers(-2, 3, (12, channels, window, window)).astype(np.float32)
    make = GraphMaker()
    form = {"stride": (2, 2), "pads": (3, 2, 1, 0), "dilation": (1, 1), "group": 1, **attributes}
    graph = make.graph(make("conv2d", make.input(batch, channels, size, size), make.constant(weights), **form))
    return compile_graph(graph, "br100", "bf16"), weights


def convolved(x: np.ndarray, weights: np.ndarray, stride: int, pads: tuple[int, ...], dilation: int) -> np.ndarray:
    """The convolution in double precision, tap by tap."""
    top, left, bottom, right = pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = dilation * (weights.shape[2] - 1)
    rows, columns = ((padded.shape[axis] - reach - 1) // stride + 1 for axis in (2, 3))
    total = np.zeros((len(x), len(weights), rows, columns))
    for r in range(weights.shape[2]):
        for s in range(weights.shape[3]):
            y, z = r * dilation, s * dilation
            taken = padded[:, :, y : y + stride * (rows - 1) + 1 : stride, z : z + stride * (columns - 1) + 1 : stride]
            total += np.einsum("nchw,oc->nohw", taken, weights[:, :, r, s].astype(np.float64))
    return total


def product(case: Compiled) -> Kernel:
    return next(kernel for kernel in case.kernels if kernel.contraction is not None)


def depth(kernel: Kernel) -> int:
    tile = dict(kernel.tiling.tile) if kernel.tiling is not None else {}
    return math.prod(tile.get(d.name, 1) for d in kernel.red_dims)


@pytest.mark.parametrize(
    ("channels", "window", "stride", "pads", "dilation"),
    [
        (3, 7, 2, (3, 3, 3, 3), 1),
        (3, 7, 2, (0, 3, 2, 1), 1),
        (1, 5, 1, (2, 2, 2, 2), 1),
        (4, 3, 3, (1, 0, 0, 2), 1),
        (3, 3, 1, (0, 0, 0, 0), 1),
    ],
)
def test_one_operation_takes_all_kernel_rows(
    channels: int, window: int, stride: int, pads: tuple[int, ...], dilation: int
) -> None:
    case, weights = stem(channels, window, stride=(stride, stride), pads=pads, dilation=(dilation, dilation))
    assert depth(product(case)) == window * window * channels
    case.verify()
    x = np.random.default_rng(1).integers(-2, 3, (2, channels, 17, 17)).astype(np.float32)
    ((name,), expected) = ([v.name for v in case.graph.inputs], convolved(x, weights, stride, pads, dilation))
    (actual,) = case.step({name: x}, "random").values()
    np.testing.assert_allclose(actual, expected, rtol=2**-8)  # small integers: only the result is rounded


def test_what_is_too_deep_for_one_operation_goes_row_by_row() -> None:
    """A window of 11 rows of 11 pixels of 4 channels."""
    case, weights = stem(4, 11, size=25, pads=(5, 5, 5, 5))
    assert depth(product(case)) == 11 * 4
    x = np.random.default_rng(1).integers(-1, 2, (2, 4, 25, 25)).astype(np.float32)
    (name,) = [v.name for v in case.graph.inputs]
    (actual,) = case.step({name: x}).values()
    np.testing.assert_allclose(actual, convolved(x, weights, 2, (5, 5, 5, 5), 1), rtol=2**-8)


def test_rows_on_one_axis_with_the_pixels_stay_apart() -> None:
    """With many channels a box cannot move with the pixels and with the taps along one axis."""
    make = GraphMaker()
    form = {"stride": (2, 2), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}
    case = compile_graph(make.graph(make("conv2d", make.input(1, 8, 9, 9), make.random(8, 8, 3, 3), **form)))
    tile = dict(product(case).tiling.tile)  # type: ignore[union-attr]
    assert tile.get("r", 1) == tile.get("s", 1) == 1


@pytest.mark.parametrize(("rows", "height", "programs"), [(230, 3, 7), (224, 5, 5), (210, 5, 7)])
def test_tiles_are_shorter_where_more_programs_share_them(rows: int, height: int, programs: int) -> None:
    """Of rows of 690 elements a register holds five; 46 such tiles are shared by 2 programs, 77 of three rows by 7."""
    access = Access(View("t", 0, (rows, 690), (690, 1)), (Index((("h", 1),)), Index((("w", 1),))))
    statements = (Statement("vld", "a", access=access), Statement("vst", "", ("a",), access=access))
    space = (Dimension(SPC, 2), Dimension("h", rows), Dimension("w", 690))
    tiling = tile_vector_kernel(Kernel("copy", space, (Phase(statements),)), load_machine("tiny"))
    assert (dict(tiling.tile)["h"], tiling.programs) == (height, programs)


@pytest.mark.parametrize("size", [1, 2])
def test_taps_that_move_rows_stay_one_by_one(size: int) -> None:
    """On a map of one pixel the tiles do not move, the taps do: they choose the rows that an operation takes."""
    make = GraphMaker()
    form = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}
    weights = np.random.default_rng(1).integers(-2, 3, (64, 64, 3, 3)).astype(np.float32)
    graph = make.graph(make("conv2d", make.input(2, 64, size, size), make.constant(weights), **form))
    case = compile_graph(graph, "br100", "bf16")
    x = np.random.default_rng(2).integers(-3, 4, (2, 64, size, size)).astype(np.float32)
    (found,) = case.values({"x0": x}).values()
    np.testing.assert_array_equal(found, convolved(x, weights, 1, (1, 1, 1, 1), 1))
