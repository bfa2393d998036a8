"""Plans that begin with a sample an SPC and end with all SPCs together."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compiled_plans
from small_networks import CONV

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import SPC, Kernel
from birc.compiler.prove import new_prover

WIDTH = 640
SIDE = 12


def classifier(samples: int) -> tuple[Graph, list[np.ndarray]]:
    """Large images through small weights, then their means through large ones; with the weights, small integers."""
    generator = np.random.default_rng(0)
    shapes = ((16, 3, 3, 3), (16, WIDTH), (WIDTH, WIDTH))
    weights = [generator.integers(-2, 3, shape).astype(np.float32) for shape in shapes]
    make = GraphMaker()
    pixels = make.input(samples, 3, SIDE, SIDE)
    image = make("relu", make("conv2d", pixels, make.constant(weights[0]), **CONV))
    sums = make("reduce_sum", image, axes=(2, 3), keepdims=0)
    wide = make("relu", make("matmul", sums, make.constant(weights[1])))
    return make.graph(make("matmul", wide, make.constant(weights[2]))), weights


def expected(pixels: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """The same in double precision."""
    conv, first, second = (weight.astype(np.float64) for weight in weights)
    padded = np.pad(pixels.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    image = sum(
        np.einsum("nchw,oc->nohw", padded[:, :, r : r + SIDE, s : s + SIDE], conv[:, :, r, s])
        for r in range(3)
        for s in range(3)
    )
    return np.maximum(np.maximum(image, 0).sum(axis=(2, 3)) @ first, 0) @ second


def is_alone(kernel: Kernel) -> bool:
    """Whether each SPC has a sample of its own."""
    return any(d.name == SPC for d in kernel.space)


def with_tail(samples: int) -> tuple[Compiled, list[np.ndarray]]:
    graph, weights = classifier(samples)
    plans = list(compiled_plans(graph, "tiny"))
    return next(c for c in plans if len({is_alone(kernel) for kernel in c.kernels}) == 2), weights


@pytest.mark.parametrize("samples", [2, 6])
def test_the_deep_end_is_shared(samples: int) -> None:
    """The products with the large weights take the samples of a round together; values are those of the network."""
    found, weights = with_tail(samples)
    assert found.plan.repeat == samples // found.machine.spcs_per_die
    alone = [is_alone(kernel) for kernel in found.kernels]
    assert alone == sorted(alone, reverse=True)
    assert is_alone(found.kernels[0])
    assert not is_alone(found.kernels[-1])
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    pixels = np.random.default_rng(1).integers(-2, 3, (samples, 3, SIDE, SIDE)).astype(np.float32)
    (name,) = found.graph.inputs
    (actual,) = found.step({name.name: pixels}, "random").values()
    np.testing.assert_allclose(actual, expected(pixels, weights), rtol=1e-4)


def test_what_crosses_over_lies_in_shared_memory() -> None:
    found, _ = with_tail(6)
    buffers = {buffer.name: buffer for buffer in found.plan.buffers}

    def spaces(mnemonic: str, alone: bool) -> set[str]:
        statements = (s for k in found.kernels if is_alone(k) == alone for phase in k.phases for s in phase.statements)
        return {buffers[s.access.view.buffer].space for s in statements if s.op == mnemonic and s.access is not None}

    assert spaces("vst", alone=True) == {"tb", "l2"}
    assert "tb" not in spaces("vst", alone=False) | spaces("vld", alone=False)


@pytest.mark.parametrize("samples", [1, 5])
def test_samples_that_do_not_fill_the_spcs_have_no_tail(samples: int) -> None:
    graph, _ = classifier(samples)
    assert not any(is_alone(kernel) for plan in compiled_plans(graph, "tiny") for kernel in plan.kernels)
