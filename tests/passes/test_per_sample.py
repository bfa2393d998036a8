"""A sample an SPC through networks whose weights do not all fit, and kernels that go part by part."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from compiled_checks import check_compiled
from graph_maker import GraphMaker
from pipeline import Compiled, compiled_plans
from small_networks import attention, wide_blocks

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import SPC, CopyStep, Kernel
from birc.compiler.passes import per_sample as per_sample_phase


def made(network: Callable[[GraphMaker], str]) -> Graph:
    make = GraphMaker()
    return make.graph(network(make))


def alone(graph: Graph, precision: str = "model") -> Compiled:
    """The graph compiled with a sample an SPC, all the way through."""
    plans = compiled_plans(graph, "tiny", precision)
    return next(found for found in plans if all(kernel.space[0].name == SPC for kernel in found.kernels))


def test_weights_that_do_not_all_fit_are_loaded_once_for_all_rounds() -> None:
    """Six weights, eight rounds of a sample an SPC: every weight is copied to the chip once, activations stay."""
    found = alone(made(wide_blocks))
    copies = [step for step in found.plan.steps if isinstance(step, CopyStep)]
    assert found.plan.repeat == 1
    assert len(copies) == len({copy.source for copy in copies}) == 6
    assert len(found.kernels) == 2 * 8 * 6
    assert {b.space for b in found.plan.buffers if b.role == "scratch" and not b.home} == {"tb"}
    check_compiled(found, 2e-3)


def scores_of(found: Compiled) -> list[Kernel]:
    """The kernels that divide by the sums of exponentials or make them, in order: those of an attention."""
    return [k for k in found.kernels if any(s.op == "vexp2" for phase in k.phases for s in phase.statements)]


@pytest.mark.parametrize(("share", "parts"), [(1.0, 1), (0.03, 3)])
def test_scores_go_head_by_head_where_they_are_large(share: float, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three heads of 20 x 20 scores in FP32 all fit, or one: then it is made and taken before the next."""
    monkeypatch.setattr(per_sample_phase, "BETWEEN", share)
    found = alone(made(attention), "bf16")
    of_one_die = scores_of(found)[: len(scores_of(found)) // found.plan.dies]
    assert len(of_one_die) == parts
    heads = 3 // parts
    stores = [s for k in of_one_die for phase in k.phases for s in phase.statements if s.op == "vst"]
    scores = {s.access.view.buffer for s in stores if s.access is not None}
    sizes = {b.name: b.num_elements for b in found.plan.buffers}
    assert max(sizes[name] for name in scores) == heads * 20 * 20
    check_compiled(found, 0.15)


def test_rows_that_would_read_weights_again_are_not_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two products with weights lie rows, of which any part would need all weights."""
    monkeypatch.setattr(per_sample_phase, "BETWEEN", 0.0)
    assert len(alone(made(wide_blocks)).kernels) == 2 * 8 * 6
