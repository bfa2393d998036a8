"""Results in the place of operands: which may be, and that values stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from compiled_checks import check_compiled
from graph_maker import GraphMaker
from pipeline import finished

from birc.compiler.ir.plan import Exchange, ExchangeStep, KernelStep, Plan, View
from birc.compiler.ir.plan_access import accesses, with_views
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.in_place import in_place
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lifetimes import instances
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.partition import partitions
from birc.runtime.machine import load_machine
from birc.runtime.verifier import VerificationError

TINY = load_machine("tiny")
WIDTH = 160


def product(make: GraphMaker, value: str) -> str:
    return make("matmul", value, make.random(WIDTH, WIDTH, low=-0.2, high=0.2))


def residual(make: GraphMaker) -> str:
    """What is added to the sums of a product is read for the last time."""
    x = make("relu", product(make, make.input(40, WIDTH)))
    return product(make, make("add", product(make, product(make, x)), x))


def read_later(make: GraphMaker) -> str:
    """The same, and its operand is read once more behind it."""
    x = make("relu", product(make, make.input(40, WIDTH)))
    added = make("add", product(make, product(make, x)), x)
    return make("add", product(make, product(make, added)), x)


def turned(make: GraphMaker) -> str:
    """The operand is read with its axes exchanged: what a tile writes another one may still have to read."""
    x = make("relu", product(make, make.input(WIDTH, WIDTH)))
    return product(make, make("add", product(make, product(make, x)), make("transpose", x, perm=(1, 0))))


def of_another_type(make: GraphMaker) -> str:
    """The operand is an input of the graph: that is not written."""
    x = make.input(40, WIDTH)
    return product(make, make("add", product(make, x), x))


def multiplied_too(make: GraphMaker) -> str:
    """The operand is multiplied as well: other tiles of the product need it to the end."""
    x = make("relu", product(make, make.input(40, WIDTH)))
    return product(make, make("add", product(make, x), x))


def planned(network: Callable[[GraphMaker], str]) -> tuple[Plan, Plan, Callable[[Plan], None]]:
    """The plan of a network, that plan in place, and a check of the values of a plan."""
    make = GraphMaker()
    graph = make.graph(network(make))
    fused = run_passes(graph, (*LEGALIZE, Fuse()))
    lowered = lower_graph(fused, TINY, "model")
    plan = next(plan for plan in partitions(fused, lowered, TINY) if not plan.tensor_buffer_bytes)

    def check(changed: Plan) -> None:
        check_compiled(finished(fused, lowered, changed, TINY), 2e-3)

    return plan, in_place(plan), check


@pytest.mark.parametrize(("network", "merged"), [(residual, 1), (read_later, 0)])
def test_what_is_read_for_the_last_time_is_written_over(network, merged) -> None:
    plan, changed, check = planned(network)
    assert len(plan.buffers) - len(changed.buffers) == merged
    check(changed)


@pytest.mark.parametrize("network", [turned, of_another_type, multiplied_too], ids=lambda network: network.__name__)
def test_what_may_still_be_needed_stays(network) -> None:
    plan, changed, _ = planned(network)
    assert changed == plan


def test_what_dies_send_each_other_keeps_its_own_buffer() -> None:
    plan, changed, _ = planned(residual)
    (merged,) = {b.name for b in plan.buffers} - {b.name for b in changed.buffers}
    kernels = [kernel for step in plan.steps if isinstance(step, KernelStep) for kernel in instances(step)]
    view = next(a.view for kernel in kernels for a in accesses(kernel) if a.view.buffer == merged)
    sent = replace(plan, steps=(*plan.steps[:-1], ExchangeStep((Exchange(view, 0),)), plan.steps[-1]))
    assert in_place(sent) == sent


def test_the_verifier_sees_what_is_written_over_too_early() -> None:
    """A result in the place of an operand that other tiles still read is refused."""
    plan, _, check = planned(multiplied_too)
    first, second = (b.name for b in plan.buffers if b.role == "scratch")

    def merged(view: View) -> View:
        return replace(view, buffer=first) if view.buffer == second else view

    steps = tuple(
        KernelStep(tuple(kernel and with_views(kernel, merged) for kernel in step.kernels))
        if isinstance(step, KernelStep)
        else step
        for step in plan.steps
    )
    with pytest.raises(VerificationError):
        check(replace(plan, buffers=tuple(b for b in plan.buffers if b.name != second), steps=steps))
