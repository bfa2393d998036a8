"""Products behind products whose tensors stay in the tensor buffers: an attention's shares, and other chains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from machines import with_input_buffers
from pairs import own, paired
from pipeline import Compiled

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import SPC, SPC_PRODUCTS, ExchangeStep, Kernel, KernelStep, View
from birc.compiler.ir.plan_access import with_views
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.lifetimes import instances, writes_of
from birc.compiler.passes.skip_masked import SkipMasked
from birc.compiler.prove import new_prover
from birc.runtime.machine import Machine

DEPTH = 16
WIDE = with_input_buffers()
MASKED = -1e9
LOWEST = float(np.finfo(np.float32).min)


def attention(batch: int, heads: int, rows: int, columns: int, mask: np.ndarray | None = None) -> Graph:
    """softmax(q @ k * 0.25 + mask) @ v"""
    make = GraphMaker()
    q, k, v = (make.input(batch, heads, *last) for last in ((rows, DEPTH), (DEPTH, columns), (columns, DEPTH)))
    scores = make("mul", make("matmul", q, k), make.constant(0.25))
    if mask is not None and mask.dtype == np.bool_:
        scores = make("where", make.constant(mask, element="bool"), scores, make.constant(LOWEST))
    elif mask is not None:
        scores = make("add", scores, make.constant(mask))
    return make.graph(make("matmul", make("softmax", scores, axis=3), v))


def expected(inputs: dict[str, np.ndarray], mask: np.ndarray | None) -> np.ndarray:
    """The same in double precision."""
    q, k, v = (inputs[name].astype(np.float64) for name in ("x0", "x1", "x2"))
    scores = q @ k * 0.25
    if mask is not None:
        scores = np.where(mask, scores, LOWEST) if mask.dtype == np.bool_ else scores + mask
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


def check(found: Compiled, mask: np.ndarray | None = None) -> None:
    """Proved, verified, and with the values of the attention."""
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    inputs = random_inputs(found.graph)
    (actual,) = found.values(inputs).values()
    np.testing.assert_allclose(actual, expected(inputs, mask), rtol=1e-3, atol=1e-4)


def padding(batch: int, columns: int) -> np.ndarray:
    """A mask to add, of another number of tokens in every sample."""
    return np.where(np.arange(columns) < columns - 2 * np.arange(batch)[:, None, None, None], 0, MASKED)


@pytest.mark.parametrize(
    ("target", "sizes", "parts"),
    [
        (WIDE, (2, 2, 20, 24), {SPC: 2}),
        (WIDE, (4, 3, 7, 9), {SPC: 2}),
        (WIDE, (1, 2, 70, 24), {SPC: 2}),
        ("br100", (8, 16, 20, 24), {SPC: 4, SPC_PRODUCTS: 4}),
        ("br100", (1, 12, 128, 36), {SPC: 6, SPC_PRODUCTS: 2}),
    ],
)
@pytest.mark.parametrize("is_masked", [False, True])
def test_shares_stay_on_the_spc_that_made_them(
    target: str | Machine, sizes: tuple[int, int, int, int], parts: dict[str, int], is_masked: bool
) -> None:
    """In parts of the samples and heads, else of the rows; sums of the shares stay with them."""
    mask = padding(sizes[0], sizes[3]) if is_masked else None
    found = paired(attention(*sizes, mask), target)
    assert found is not None
    pair = [step for step in found.plan.steps if isinstance(step, KernelStep) and own(step.kernel)]
    assert [own(step.kernel) for step in pair] == [parts] * 2
    assert all(step.kernel.contraction is not None for step in pair)
    local = sum(b.num_elements for b in found.plan.buffers if b.space == "tb")
    batch, heads, rows, columns = sizes
    dies = len([*instances(pair[0])])
    rows_of_an_spc = batch * heads * rows // dies // math.prod(parts.values())
    assert local in (rows_of_an_spc * columns, rows_of_an_spc * (columns + 1))
    check(found, mask)


def test_every_engine_finds_the_shares() -> None:
    found = paired(attention(2, 2, 20, 24), WIDE)
    assert found is not None
    inputs = random_inputs(found.graph)
    (actual,) = found.step(inputs, "random").values()
    np.testing.assert_allclose(actual, expected(inputs, None), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sizes", [(1, 3, 5, 7), (1, 1, 1, 33), (1, 1, 9, 9)])
def test_what_cannot_be_cut_evenly_stays_as_it_is(sizes: tuple[int, int, int, int]) -> None:
    assert paired(attention(*sizes), WIDE) is None


def test_groups_of_rows_are_followed_by_their_products() -> None:
    """Under a causal mask each group's shares are read right behind where they are made, and nothing else waits."""
    causal = np.tril(np.ones((1, 1, 16, 16), np.bool_))
    whole = canonicalize(attention(4, 2, 16, 16, causal))
    found = paired(SkipMasked(4, 4).run(whole).graph, WIDE)
    assert found is not None
    kernels = [step.kernel for step in found.plan.steps if isinstance(step, KernelStep)]
    assert len(kernels) == 8
    for made, read in zip(kernels[::2], kernels[1::2], strict=True):
        assert read.contraction is not None
        assert read.contraction.a.view.buffer in writes_of(made)
    assert "barrier" not in {name for command in found.program.commands if (name := getattr(command, "op", ""))}
    check(found, causal)


@pytest.mark.parametrize(("target", "rows", "spcs"), [(WIDE, 64, 2), ("br100", 512, 4)])
def test_values_of_the_other_die_come_before_the_shares(target: str | Machine, rows: int, spcs: int) -> None:
    """Each die has some of the rows, and needs the values of all: their exchange does not part the pair."""
    make = GraphMaker()
    x = make.input(rows, DEPTH)
    weights = [make.random(DEPTH, DEPTH) for _ in range(3)]
    q, k, v = (make("matmul", x, w) for w in weights)
    shares = make("softmax", make("matmul", q, make("transpose", k, perm=(1, 0))), axis=1)
    found = paired(make.graph(make("matmul", shares, v)), target)
    assert found is not None
    steps = [step for step in found.plan.steps if isinstance(step, KernelStep | ExchangeStep)]
    assert [own(step.kernel) for step in steps[-2:] if isinstance(step, KernelStep)] == [{SPC: spcs}] * 2
    (exchange,) = (step for step in steps if isinstance(step, ExchangeStep))
    assert {sent.view.buffer for sent in exchange.exchanges} == {v}
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    inputs = random_inputs(found.graph)
    a, b, c = (
        inputs["x0"].astype(np.float64) @ found.graph.constants[name].data.astype(np.float64) for name in weights
    )
    powers = np.exp(a @ b.T - (a @ b.T).max(axis=1, keepdims=True))
    (actual,) = found.values(inputs).values()
    np.testing.assert_allclose(actual, powers / powers.sum(axis=1, keepdims=True) @ c, rtol=1e-2, atol=1e-2)


def test_shares_that_are_an_output_stay_in_shared_memory() -> None:
    make = GraphMaker()
    q, k, v = make.input(2, 4, DEPTH), make.input(2, DEPTH, 6), make.input(2, 6, DEPTH)
    shares = make("softmax", make("matmul", q, k), axis=2)
    found = paired(make.graph(shares, make("matmul", shares, v)), WIDE)
    assert found is None or found.plan.buffer(shares).space != "tb"


def test_shares_that_all_spcs_need_stay_in_shared_memory() -> None:
    """As values of a second attention they are read by all rows of it."""
    make = GraphMaker()
    q, k, v = make.input(4, DEPTH), make.input(DEPTH, 6), make.input(8, 4)
    found = paired(make.graph(make("matmul", v, make("softmax", make("matmul", q, k), axis=1))), WIDE)
    assert found is None or not own(found.kernels[-1])


def test_columns_that_an_spc_made() -> None:
    """A product may have them on its right, where its rows come from all."""
    make = GraphMaker()
    a, b, c = make.input(8, DEPTH), make.input(DEPTH, 32), make.input(64, 8)
    found = paired(make.graph(make("matmul", c, make("relu", make("matmul", a, b)))))
    assert found is not None
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    inputs = random_inputs(found.graph)
    x, y, z = (inputs[name].astype(np.float64) for name in ("x0", "x1", "x2"))
    (actual,) = found.values(inputs).values()
    np.testing.assert_allclose(actual, z @ np.maximum(x @ y, 0), rtol=1e-3, atol=1e-3)


def test_a_product_of_rows_that_an_spc_made() -> None:
    make = GraphMaker()
    x, a, b = make.input(64, DEPTH), make.random(DEPTH, 32), make.random(32, 8)
    found = paired(make.graph(make("matmul", make("relu", make("matmul", x, a)), b)))
    assert found is not None
    assert {*map(str, map(own, found.kernels))} == {str({SPC: 2})}
    found.verify()
    inputs = random_inputs(found.graph)
    weights = [found.graph.constants[name].data.astype(np.float64) for name in (a, b)]
    (actual,) = found.values(inputs).values()
    wanted = np.maximum(inputs["x0"].astype(np.float64) @ weights[0], 0) @ weights[1]
    np.testing.assert_allclose(actual, wanted, rtol=1e-3, atol=1e-3)


def test_rows_that_others_read_too_are_stored_twice() -> None:
    """Once for them, once where the next product finds them."""
    make = GraphMaker()
    x, a, b = make.input(64, DEPTH), make.random(DEPTH, 32), make.random(32, 8)
    wide = make("relu", make("matmul", x, a))
    found = paired(make.graph(wide, make("matmul", wide, b)))
    assert found is not None
    assert [b.name for b in found.plan.buffers if b.space == "tb"] == [f"{wide}.own"]
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    inputs = random_inputs(found.graph)
    first, second = (found.graph.constants[name].data.astype(np.float64) for name in (a, b))
    expected_wide = np.maximum(inputs["x0"].astype(np.float64) @ first, 0)
    for outputs in (found.values(inputs), found.step(inputs, "random")):
        np.testing.assert_allclose(outputs[wide], expected_wide, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(outputs[found.graph.outputs[1]], expected_wide @ second, rtol=1e-3, atol=1e-3)


def with_reader(found: Compiled, change: Callable[[Kernel], Kernel]) -> list[object]:
    """What the prover says when the second kernel of a pair is another."""
    _, second = (n for n, step in enumerate(found.plan.steps) if isinstance(step, KernelStep) and own(step.kernel))
    step = found.plan.steps[second]
    assert isinstance(step, KernelStep)
    steps = list(found.plan.steps)
    steps[second] = KernelStep(tuple(kernel and change(kernel) for kernel in step.kernels))
    return list(new_prover().flaws(replace(found.plan, steps=tuple(steps)), found.machine))


def test_reading_of_another_part_is_a_flaw() -> None:
    """A row too far, and on an SPC that made nothing."""
    found = paired(attention(4, 2, 20, 24), WIDE)
    assert found is not None
    local = {b.name for b in found.plan.buffers if b.space == "tb"}

    def a_row_on(view: View) -> View:
        return replace(view, offset=view.offset + view.strides[-2]) if view.buffer in local else view

    def on_one_more(kernel: Kernel) -> Kernel:
        assert kernel.tiling is not None
        space = tuple(replace(d, extent=d.extent + 1) if d.name == SPC else d for d in kernel.space)
        spcs = tuple((name, count + (name == SPC)) for name, count in kernel.tiling.spcs)
        return replace(kernel, space=space, tiling=replace(kernel.tiling, spcs=spcs))

    assert not with_reader(found, lambda kernel: kernel)
    assert with_reader(found, lambda kernel: with_views(kernel, a_row_on))
    assert with_reader(found, on_one_more)
