"""Chains of kernels over images: each SPC makes the rows that it reads, from the first kernel to the last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from graph_maker import GraphMaker
from pairs import own, paired
from pipeline import Compiled

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import SPC, SPC_BANDS, SPC_COLUMNS, Kernel, KernelStep
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.prove import new_prover

CHANNELS = 16


def integers(*shape: int) -> np.ndarray:
    """Integers of which every precision gives the same sums."""
    return np.random.default_rng(list(shape)).integers(-1, 2, shape).astype(np.float32)


def weights(kind: str, number: int) -> np.ndarray:
    shape = {"point": (CHANNELS, CHANNELS, 1, 1), "window": (CHANNELS, 1, 3, 3), "conv": (CHANNELS, CHANNELS, 3, 3)}
    generator = np.random.default_rng(number)
    return generator.integers(-1, 2, shape[kind.removesuffix("2")]).astype(np.float32)


def network(kinds: Sequence[str], samples: int, side: int, residual: bool = False) -> Graph:
    """Convolutions one behind the other, clamped; the last one adds what the first one made, if there is a residual."""
    make = GraphMaker()
    x = make.input(samples, CHANNELS, side, side)
    first = x
    for number, kind in enumerate(kinds):
        filters, stride = weights(kind, number), 2 if kind.endswith("2") else 1
        pad, group = filters.shape[2] // 2, CHANNELS // filters.shape[1]
        x = make(
            "conv2d",
            x,
            make.constant(filters),
            stride=(stride, stride),
            pads=(pad,) * 4,
            dilation=(1, 1),
            group=group,
        )
        if residual and number == len(kinds) - 1:
            x = make("add", x, first)
        x = make("clip", x, minimum=0.0, maximum=3.0)
        first = x if number == 0 else first
    return make.graph(x)


def expected(x: np.ndarray, kinds: Sequence[str], residual: bool = False) -> np.ndarray:
    """The same in double precision."""
    x = x.astype(np.float64)
    first = x
    for number, kind in enumerate(kinds):
        filters, stride = weights(kind, number).astype(np.float64), 2 if kind.endswith("2") else 1
        if filters.shape[1] == 1:
            filters = filters * np.eye(CHANNELS)[:, :, None, None]
        pad, side = filters.shape[2] // 2, x.shape[2]
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        taps = [
            np.einsum("ncyx,oc->noyx", padded[:, :, r : r + side : stride, s : s + side : stride], filters[:, :, r, s])
            for r in range(filters.shape[2])
            for s in range(filters.shape[3])
        ]
        x = np.sum(taps, axis=0)
        x = np.clip(x + first if residual and number == len(kinds) - 1 else x, 0, 3)
        first = x if number == 0 else first
    return x


def rows_are_faster(kernel: Kernel, memories: Memories) -> int:
    """Cycles by which chains pay, columns less."""
    return 1 if memories.local and SPC_COLUMNS not in own(kernel) else 1000


def in_chains(found: Compiled) -> list[dict[str, int]]:
    """The parts that SPCs have of the kernels of the first die; {} for kernels of the die."""
    steps = [step for step in found.plan.steps if isinstance(step, KernelStep)]
    return [own(step.kernel) for step in steps]


def check(found: Compiled, pixels: np.ndarray, wanted: np.ndarray) -> None:
    """Proved, verified, and with these values, whatever the order of the SPCs."""
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    for outputs in (found.values({"x0": pixels}), found.step({"x0": pixels}, "random")):
        (actual,) = outputs.values()
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize(
    ("kinds", "samples", "side"),
    [
        (("point", "conv", "point", "point"), 2, 12),
        (("point", "conv", "point"), 2, 12),
        (("point", "window", "point"), 2, 12),
        (("point", "window2", "point", "point"), 2, 12),
        (("point", "window", "point", "window", "point"), 2, 16),
        (("point", "window", "point"), 4, 6),
    ],
)
def test_all_kernels_of_a_chain_take_the_same_rows(kinds: tuple[str, ...], samples: int, side: int) -> None:
    """Of the only sample of a die bands, else samples; what windows reach is made on both SPCs."""
    found = paired(network(kinds, samples, side), cycles=rows_are_faster)
    assert found is not None
    assert in_chains(found) == [{SPC_BANDS if samples == 2 else SPC: 2}] * len(kinds)
    pixels = integers(samples, CHANNELS, side, side)
    check(found, pixels, expected(pixels, kinds))


def test_bands_of_several_samples() -> None:
    kinds = ("point", "window", "point")
    found = paired(network(kinds, 8, 16), "br100", cycles=rows_are_faster)
    assert found is not None
    assert in_chains(found)[1:] == [{SPC: 4, SPC_BANDS: 4}] * 2
    pixels = integers(8, CHANNELS, 16, 16)
    check(found, pixels, expected(pixels, kinds))


def test_a_residual_stays_for_the_last_kernel_too() -> None:
    """The first kernel makes rows for the windows, of which the last one adds its own."""
    kinds = ("point", "point", "window", "point")
    found = paired(network(kinds, 2, 12, residual=True), cycles=rows_are_faster)
    assert found is not None
    assert in_chains(found) == [{SPC_BANDS: 2}] * len(kinds)
    assert sum(b.space == "tb" for b in found.plan.buffers) == len(kinds) - 1
    pixels = integers(2, CHANNELS, 12, 12)
    check(found, pixels, expected(pixels, kinds, residual=True))


def test_rows_that_would_be_made_too_often_are_not() -> None:
    """Two rows for each row of its own would an SPC make."""
    kinds = ("point", "window", "window")
    found = paired(network(kinds, 2, 4), cycles=rows_are_faster)
    pixels = integers(2, CHANNELS, 4, 4)
    assert found is None or not all(SPC_BANDS in parts for parts in in_chains(found))
    if found is not None:
        check(found, pixels, expected(pixels, kinds))
