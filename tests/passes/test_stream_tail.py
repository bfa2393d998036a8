"""Weights that the last product waits for: it is cut in pieces, and each waits for its own weights alone."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compile_graph

from birc.codegen import constant_pieces
from birc.codegen.constant_pieces import pieces_of
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import KernelStep, View
from birc.compiler.ir.plan_access import views_by_buffer
from birc.compiler.passes import stream_tail
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine
from birc.runtime.program import Command
from birc.runtime.timing import simulate

DEPTH, WIDTH, ROWS = 512, 1024, 4
SLOW = load_machine("tiny").with_values({"hbm_bytes_per_cycle_per_section": 16, "spc_sram_bytes": 1 << 22})
QUICK = load_machine("tiny").with_values({"hbm_bytes_per_cycle_per_section": 400, "spc_sram_bytes": 1 << 22})


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of 1 MB a die are many."""
    monkeypatch.setattr(stream_tail, "PIECE_BYTES", 1 << 18)
    monkeypatch.setattr(constant_pieces, "LEAST_BYTES", 1 << 14)


def wide_end(*, softmax: bool = False) -> Graph:
    """A small product, and one with many columns behind it."""
    rng = np.random.default_rng(4)
    make = GraphMaker()
    x = make(
        "tanh", make("matmul", make.input(ROWS, DEPTH), make.constant(rng.normal(size=(DEPTH, DEPTH), scale=0.02)))
    )
    y = make("matmul", x, make.constant(rng.normal(size=(DEPTH, WIDTH), scale=0.02)))
    return make.graph(make("softmax", y, axis=1) if softmax else make("tanh", y))


def ends(case: Compiled) -> list[KernelStep]:
    """The steps of the wide product."""
    steps = [step for step in case.plan.steps if isinstance(step, KernelStep)]
    return [
        step for step in steps if step.kernel.contraction and step.kernel.name.split(".")[0] == case.graph.outputs[0]
    ]


def copies(case: Compiled) -> int:
    return sum(isinstance(c, Command) and c.mnemonic == "copy" for c in case.program.commands)


def test_it_goes_on_while_weights_arrive(monkeypatch: pytest.MonkeyPatch):
    graph = wide_end()
    case = compile_graph(graph, SLOW)
    case.verify()
    new_prover().prove(case.plan, SLOW)
    assert len(ends(case)) == 4
    inputs = {graph.inputs[0].name: np.random.default_rng(1).normal(size=(ROWS, DEPTH)).astype(np.float32)}
    small, wide = (value.astype(np.float64) for value in case.lowered.data.values())
    first, second = sorted((small, wide), key=lambda value: value.size)
    expected = np.tanh(np.tanh(inputs[graph.inputs[0].name].astype(np.float64) @ first.reshape(DEPTH, DEPTH)) @ second)
    for found in (case.values(inputs), case.step(inputs, "random", 3)):
        np.testing.assert_allclose(found[graph.outputs[0]], expected, atol=2e-2)
    monkeypatch.setattr(stream_tail, "PIECE_BYTES", 1 << 30)
    whole = compile_graph(graph, SLOW)
    assert len(ends(whole)) == 1
    assert copies(case) == copies(whole) + 3
    pieced_cycles, whole_cycles = (simulate(c.program, SLOW).latency_cycles for c in (case, whole))
    assert pieced_cycles < whole_cycles


def test_what_does_not_wait_stays_whole():
    assert len(ends(compile_graph(wide_end(), QUICK))) == 1


def test_sums_over_the_columns_stay_whole():
    case = compile_graph(wide_end(softmax=True), SLOW)
    case.verify()
    assert not any(step.kernel.name.endswith(".1") for step in ends(case))


def test_pieces_are_all_of_a_run_of_the_constant_or_none(monkeypatch: pytest.MonkeyPatch):
    case = compile_graph(wide_end(), SLOW)
    (name,) = {step.kernel.contraction.b.view.buffer for step in ends(case) if step.kernel.contraction}
    twin, views = case.plan.buffer(name), views_by_buffer(case.plan)[name]
    for die in range(2):
        found = pieces_of(twin, views[die], SLOW)
        assert len(found) == 4
        touched = np.zeros(twin.num_elements, int)
        for view in found:
            assert max(view.dims) <= SLOW.max_dim
            np.lib.stride_tricks.as_strided(
                touched[view.offset :], view.dims, [stride * touched.itemsize for stride in view.strides]
            )[...] += 1
        assert (touched == 1).all()
    first, second, *rest = views[0]
    assert len(pieces_of(twin, [second, *rest], SLOW)) == 3  # What nobody reads at an end is not copied.
    assert pieces_of(twin, [first, *rest], SLOW) == ()
    monkeypatch.setattr(constant_pieces, "LEAST_BYTES", twin.num_bytes)
    assert pieces_of(twin, views[0], SLOW) == ()
    assert isinstance(found[0], View)
