"""Windows of which every SPC has a part of its own, with taps side by side in registers."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker
from pairs import local_is_faster, own, paired
from window_ways import choose_taps_beside, joins_taps

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import SPC, SPC_BANDS, SPC_COLUMNS, Kernel
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.prove import new_prover
from birc.runtime.program import MAX_BOX_RANK

CHANNELS, TAPS = 16, 5


def integers(*shape: int) -> np.ndarray:
    """Small integers, of which every precision gives the same sums."""
    return np.random.default_rng(list(shape)).integers(-2, 3, shape).astype(np.float32)


def block(samples: int, side: int, stride: int) -> Graph:
    """A product over the channels, and 5 x 5 taps on each of them."""
    make = GraphMaker()
    pixels = make.input(samples, CHANNELS, side, side)
    weights, taps = integers(CHANNELS, CHANNELS, 1, 1), integers(CHANNELS, 1, TAPS, TAPS)
    common = {"dilation": (1, 1)}
    made = make("conv2d", pixels, make.constant(weights), stride=(1, 1), pads=(0,) * 4, group=1, **common)
    filters = make.constant(taps)
    window = {"stride": (stride, stride), "pads": (TAPS // 2,) * 4, "group": CHANNELS}
    return make.graph(make("conv2d", made, filters, **window, **common))


def expected(pixels: np.ndarray, stride: int) -> np.ndarray:
    """The same in double precision."""
    side = pixels.shape[2]
    weights, taps = integers(CHANNELS, CHANNELS, 1, 1), integers(CHANNELS, 1, TAPS, TAPS)
    made = np.einsum("ncyx,oc->noyx", pixels.astype(np.float64), weights[:, :, 0, 0])
    padded = np.pad(made, ((0, 0), (0, 0), (TAPS // 2,) * 2, (TAPS // 2,) * 2))
    seen = [
        padded[:, :, r : r + side : stride, s : s + side : stride] * taps[:, 0, r, s][:, None, None]
        for r in range(TAPS)
        for s in range(TAPS)
    ]
    return np.sum(seen, axis=0)


def bands_are_faster(kernel: Kernel, memories: Memories) -> int:
    """Cycles by which bands of rows pay most."""
    return 0 if SPC_BANDS in own(kernel) else local_is_faster(kernel, memories)


@pytest.mark.parametrize(
    ("target", "samples", "side", "parts"),
    [
        ("tiny", 1, 6, {SPC_COLUMNS: 2}),
        ("tiny", 4, 6, {SPC: 2}),
        ("tiny", 2, 20, {SPC_BANDS: 2}),
        ("br100", 16, 16, {SPC: 8, SPC_BANDS: 2}),
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_own_parts_of_windows(
    monkeypatch: pytest.MonkeyPatch, target: str, samples: int, side: int, parts: dict[str, int], stride: int
) -> None:
    """They have an axis for their parts: of a band of one of several samples there is none left for the taps."""
    choose_taps_beside(monkeypatch)
    found = paired(block(samples, side, stride), target, bands_are_faster if SPC_BANDS in parts else local_is_faster)
    assert found is not None
    windows = [kernel for kernel in found.kernels if kernel.contraction is None]
    assert windows
    for kernel in windows:
        assert own(kernel) == parts
        assert joins_taps(kernel) == (len(parts) == 1)
        assert len(kernel.par_dims) <= MAX_BOX_RANK
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    pixels = integers(samples, CHANNELS, side, side)
    for outputs in (found.values({"x0": pixels}), found.step({"x0": pixels}, "random")):
        (actual,) = outputs.values()
        np.testing.assert_array_equal(actual, expected(pixels, stride))
