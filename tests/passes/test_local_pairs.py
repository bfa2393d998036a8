"""Pairs of kernels between which a tensor stays in the tensor buffers."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker
from pairs import local_is_faster, own, paired, paired_plan
from pipeline import finished, fusing

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import SPC, SPC_BANDS, SPC_COLUMNS, Kernel
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.depth_first import with_less_room
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.local_chains import local_chains
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.partition import partitions
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine

DEPTH, WIDTH, SIDE = 8, 16, 6
BANDED_SIDE = 20


def integers(*shape: int) -> np.ndarray:
    """Small integers, of which every precision gives the same sums."""
    return np.random.default_rng(list(shape)).integers(-2, 3, shape).astype(np.float32)


def block(samples: int, stride: int, pooled: bool = False, side: int = SIDE) -> Graph:
    """A product over the channels, and a window on each of them."""
    make = GraphMaker()
    pixels = make.input(samples, DEPTH, side, side)
    point = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "group": 1}
    wide = make("relu", make("conv2d", pixels, make.constant(integers(WIDTH, DEPTH, 1, 1)), **point))
    window = {"stride": (stride, stride), "pads": (1, 1, 1, 1), "dilation": (1, 1)}
    if pooled:
        return make.graph(make("max_pool2d", wide, kernel=(3, 3), **window))
    filters = make.constant(integers(WIDTH, 1, 3, 3))
    return make.graph(make("relu", make("conv2d", wide, filters, group=WIDTH, **window)))


def expected(pixels: np.ndarray, stride: int, pooled: bool) -> np.ndarray:
    """The same in double precision."""
    side = pixels.shape[2]
    products = np.einsum("ncyx,oc->noyx", pixels.astype(np.float64), integers(WIDTH, pixels.shape[1], 1, 1)[:, :, 0, 0])
    padded = np.pad(np.maximum(products, 0), ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = [
        padded[:, :, r : r + side : stride, s : s + side : stride]
        * (1.0 if pooled else integers(WIDTH, 1, 3, 3)[:, 0, r, s][:, None, None])
        for r in range(3)
        for s in range(3)
    ]
    return np.max(taps, axis=0) if pooled else np.maximum(np.sum(taps, axis=0), 0)


def bands_are_faster(kernel: Kernel, memories: Memories) -> int:
    """Cycles by which bands of rows pay most."""
    return 0 if any(d.name == SPC_BANDS for d in kernel.space) else local_is_faster(kernel, memories)


@pytest.mark.parametrize(
    ("target", "samples", "parts"),
    [("tiny", 1, {SPC_COLUMNS: 2}), ("tiny", 4, {SPC: 2}), ("br100", 8, {SPC: 4, SPC_COLUMNS: 4})],
)
@pytest.mark.parametrize(("stride", "pooled"), [(1, False), (2, False), (2, True)])
def test_every_spc_reads_what_it_made(
    target: str, samples: int, parts: dict[str, int], stride: int, pooled: bool
) -> None:
    """In samples as far as there are, else in columns; proved, verified, and with the values of the network."""
    found = paired(block(samples, stride, pooled), target)
    assert found is not None
    assert [own(kernel) for kernel in found.kernels if own(kernel)] == [parts] * 2 * found.plan.dies
    (between,) = (b for b in found.plan.buffers if b.space == "tb")
    assert between.num_elements == samples * WIDTH * SIDE * SIDE // found.plan.dies // found.machine.spcs_per_die
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    pixels = integers(samples, DEPTH, SIDE, SIDE)
    for outputs in (found.step({"x0": pixels}, "random"), found.values({"x0": pixels})):
        (actual,) = outputs.values()
        np.testing.assert_array_equal(actual, expected(pixels, stride, pooled))


@pytest.mark.parametrize(("stride", "pooled"), [(1, False), (1, True), (2, False), (2, True)])
def test_bands_of_rows_hold_what_windows_reach(stride: int, pooled: bool) -> None:
    """Rows at their edges are made on both SPCs; what lies beside the image is not read."""
    found = paired(block(2, stride, pooled, BANDED_SIDE), cycles=bands_are_faster)
    assert found is not None
    assert [own(kernel) for kernel in found.kernels if own(kernel)] == [{SPC_BANDS: 2}] * 4
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    pixels = integers(2, DEPTH, BANDED_SIDE, BANDED_SIDE)
    (actual,) = found.values({"x0": pixels}).values()
    np.testing.assert_array_equal(actual, expected(pixels, stride, pooled))


def test_a_tensor_that_two_kernels_read_stays_for_both() -> None:
    make = GraphMaker()
    x = make.input(4, DEPTH, SIDE, SIDE)
    point = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "group": 1}
    wide = make("conv2d", x, make.constant(integers(WIDTH, DEPTH, 1, 1)), **point)
    window = {"kernel": (3, 3), "stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1)}
    pooled = make("max_pool2d", wide, **window)
    again = make("conv2d", wide, make.constant(integers(DEPTH, WIDTH, 1, 1)), **point)
    found = paired(make.graph(pooled, again))
    assert found is not None
    assert [b.name for b in found.plan.buffers if b.space == "tb"] == [wide]
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    pixels = integers(4, DEPTH, SIDE, SIDE)
    values = found.values({"x0": pixels})
    products = np.einsum("ncyx,oc->noyx", pixels.astype(np.float64), integers(WIDTH, DEPTH, 1, 1)[:, :, 0, 0])
    padded = np.pad(products, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    largest = np.max([padded[:, :, r : r + SIDE, s : s + SIDE] for r in range(3) for s in range(3)], axis=0)
    np.testing.assert_array_equal(values[found.graph.outputs[0]], largest)
    sums = np.einsum("ncyx,oc->noyx", products, integers(DEPTH, WIDTH, 1, 1)[:, :, 0, 0])
    np.testing.assert_array_equal(values[found.graph.outputs[1]], sums)


def test_pairs_that_take_longer_stay_apart() -> None:
    machine = load_machine("tiny")
    fused = run_passes(canonicalize(block(4, 1)), (*LEGALIZE, *fusing(machine, "model")))
    lowered = lower_graph(fused, machine, "model")
    barrier = machine.spcs_meet_cycles
    for plan in partitions(fused, lowered, machine):
        assert local_chains(plan, machine, lambda _, memories: barrier if memories.local else 0) is None


@pytest.mark.parametrize("pooled", [False, True])
def test_a_pair_goes_sample_by_sample_where_that_needs_less_room(pooled: bool) -> None:
    """Of four samples an SPC has two: made and read one after the other they need half of the tensor buffer."""
    machine = load_machine("tiny")
    found = paired_plan(block(8, 2, pooled), machine)
    assert found is not None
    fused, lowered, whole = found
    (plan,) = with_less_room(whole, machine)
    assert plan.tensor_buffer_bytes < whole.tensor_buffer_bytes
    (half,), (all_of_it,) = ([b.num_bytes for b in p.buffers if b.space == "tb"] for p in (plan, whole))
    assert 2 * half == all_of_it
    assert len(plan.steps) == 2 * len(whole.steps)
    parted = finished(fused, lowered, plan, machine)
    parted.verify()
    assert not list(new_prover().flaws(parted.plan, parted.machine))
    pixels = integers(8, DEPTH, SIDE, SIDE)
    (actual,) = parted.values({"x0": pixels}).values()
    np.testing.assert_array_equal(actual, expected(pixels, 2, pooled))
