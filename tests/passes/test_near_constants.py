"""Weights of windows in the tensor buffers, beside what the SPCs have of their own."""

from __future__ import annotations

import numpy as np
import pytest
from depthwise_blocks import expected, network, pixels_of
from pipeline import Compiled, finished, fusing

from birc.compiler.ir.plan import Kernel
from birc.compiler.ir.plan_access import accesses_of
from birc.compiler.ir.region import Region, region
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.local_chains import local_chains
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.near_constants import LEAST_WINDOWS, near_constants
from birc.compiler.passes.partition import partitions
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine


def local_is_faster(_: Kernel, memories: Memories) -> int:
    """Cycles by which every pair pays."""
    return 1 if memories.local else 10


def near(blocks: int, samples: int) -> list[Compiled]:
    """The network by every plan with constants near SPCs' own parts."""
    machine = load_machine("tiny")
    fused = run_passes(canonicalize(network(blocks, samples)), (*LEGALIZE, *fusing(machine, "model")))
    lowered = lower_graph(fused, machine, "model")
    plans = list(partitions(fused, lowered, machine))
    plans += [pairs for plan in plans if (pairs := local_chains(plan, machine, local_is_faster))]
    nearer = [plan for each in plans if (plan := near_constants(each, machine))]
    return [finished(fused, lowered, plan, machine) for plan in nearer]


@pytest.mark.parametrize("samples", [1, 4])
def test_windows_read_their_weights_from_the_tensor_buffer(samples: int) -> None:
    """One kernel brings them there; proved, verified, and with the values of the network."""
    found = near(LEAST_WINDOWS, samples)
    assert found
    for compiled in found:
        homes = {b.name for b in compiled.plan.buffers if b.role == "constant"}
        buffers = {b.name: b.space for b in compiled.plan.buffers}
        for kernel in compiled.kernels:
            loads = [s.access.view.buffer for p in kernel.phases for s in p.statements if s.op == "vld" and s.access]
            if kernel.contraction is None and len(loads) > 1:
                assert not homes & set(loads)
                assert "tb" in {buffers[name] for name in loads}
        compiled.verify()
        assert not list(new_prover().flaws(compiled.plan, compiled.machine))
        pixels = pixels_of(samples)
        (actual,) = compiled.values({"x0": pixels}).values()
        np.testing.assert_array_equal(actual, expected(pixels, LEAST_WINDOWS))


def test_what_they_read_of_a_buffer_is_one_run() -> None:
    """Small constants of one type are one buffer: what products multiply lies in front of it, and is not copied."""
    (compiled, *_) = near(LEAST_WINDOWS, 4)
    multiplied, read = set[Region](), set[Region]()
    for operand, access in (pair for kernel in compiled.lowered.kernels for pair in accesses_of(kernel)):
        if access.view.buffer in compiled.lowered.data:
            (multiplied if operand == "b" else read).add(region(access.view))
    assert {box.buffer for box in multiplied} == {box.buffer for box in read}
    assert max(box.end for box in multiplied) <= min(box.offset for box in read)


def test_few_windows_read_them_where_they_are() -> None:
    assert not near(LEAST_WINDOWS - 1, 4)
