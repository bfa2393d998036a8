"""Weights of windows in the tensor buffers, beside what the SPCs have of their own."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, finished, fusing

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.local_pairs import local_pairs
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.near_constants import LEAST_READERS, near_constants
from birc.compiler.passes.partition import partitions
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine

WIDTH, SIDE, MOST = 16, 6, 6.0


def weights(block: int) -> tuple[np.ndarray, np.ndarray]:
    """Those of a block, small integers: a product over the channels, and a window on each."""
    generator = np.random.default_rng(block)
    product = generator.integers(-1, 2, (WIDTH, WIDTH, 1, 1))
    return product.astype(np.float32), generator.integers(-1, 2, (WIDTH, 1, 3, 3)).astype(np.float32)


def network(blocks: int, samples: int) -> Graph:
    """Blocks of a product and a depthwise convolution, both clamped: every value is an integer of a few bits."""
    make = GraphMaker()
    x = make.input(samples, WIDTH, SIDE, SIDE)
    common = {"stride": (1, 1), "dilation": (1, 1)}
    for block in range(blocks):
        product, window = weights(block)
        for filters, pad, group in ((product, 0, 1), (window, 1, WIDTH)):
            x = make("conv2d", x, make.constant(filters), pads=(pad,) * 4, group=group, **common)
            x = make("clip", x, minimum=0.0, maximum=MOST)
    return make.graph(x)


def expected(x: np.ndarray, blocks: int) -> np.ndarray:
    """The same in double precision."""
    x = x.astype(np.float64)
    for block in range(blocks):
        product, window = weights(block)
        x = np.clip(np.einsum("ncyx,oc->noyx", x, product[:, :, 0, 0]), 0, MOST)
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        taps = [
            padded[:, :, r : r + SIDE, s : s + SIDE] * window[:, 0, r, s][:, None, None]
            for r in range(3)
            for s in range(3)
        ]
        x = np.clip(np.sum(taps, axis=0), 0, MOST)
    return x


def local_is_faster(_: Kernel, memories: Memories) -> int:
    """Cycles by which every pair pays."""
    return 1 if memories.local else 10


def near(blocks: int, samples: int) -> list[Compiled]:
    """The network by every plan with constants near SPCs' own parts."""
    machine = load_machine("tiny")
    fused = run_passes(canonicalize(network(blocks, samples)), (*LEGALIZE, *fusing(machine, "model")))
    lowered = lower_graph(fused, machine, "model")
    plans = list(partitions(fused, lowered, machine))
    plans += [pairs for plan in plans if (pairs := local_pairs(plan, machine, local_is_faster))]
    nearer = [plan for each in plans if (plan := near_constants(each, machine))]
    return [finished(fused, lowered, plan, machine) for plan in nearer]


@pytest.mark.parametrize("samples", [1, 4])
def test_windows_read_their_weights_from_the_tensor_buffer(samples: int) -> None:
    """One kernel brings them there; proved, verified, and with the values of the network."""
    found = near(LEAST_READERS, samples)
    assert found
    for compiled in found:
        homes = {b.name for b in compiled.plan.buffers if b.role == "constant"}
        buffers = {b.name: b.space for b in compiled.plan.buffers}
        for kernel in compiled.kernels:
            loads = [s.access.view.buffer for p in kernel.phases for s in p.statements if s.op == "vld" and s.access]
            if kernel.contraction is None and len(loads) > 1:
                assert not homes & set(loads)
                assert {buffers[name] for name in loads} == {"tb"}
        compiled.verify()
        assert not list(new_prover().flaws(compiled.plan, compiled.machine))
        pixels = np.random.default_rng(9).integers(-2, 3, (samples, WIDTH, SIDE, SIDE)).astype(np.float32)
        (actual,) = compiled.values({"x0": pixels}).values()
        np.testing.assert_array_equal(actual, expected(pixels, LEAST_READERS))


def test_few_windows_read_them_where_they_are() -> None:
    assert not near(LEAST_READERS - 1, 4)
