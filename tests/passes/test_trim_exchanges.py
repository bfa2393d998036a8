"""What exchanges send: all that is read on the other side, nothing else than before, and less where it can be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_views import NAME, elements, views

from birc.compiler.ir.plan import (
    Access,
    Boundary,
    Buffer,
    Dimension,
    Exchange,
    ExchangeStep,
    Index,
    Kernel,
    KernelStep,
    Phase,
    Plan,
    Statement,
    Step,
    View,
)
from birc.compiler.passes.trim_exchanges import trim_exchanges


def reading(view: View) -> Kernel:
    """A kernel that reads a view."""
    names = [f"d{axis}" for axis in range(len(view.dims))]
    access = Access(view, tuple(Index(((name, 1),)) for name in names))
    load = Statement("vld", "x", access=access)
    dims = tuple(Dimension(name, extent) for name, extent in zip(names, view.dims, strict=True))
    return Kernel("reads", dims, (Phase((load,)),))


def plan_of(sent: View, *reads: View, output: Boundary | None = None) -> Plan:
    """Die 0 sends a view of a buffer, of which die 1 reads others later on; die 0 itself reads all."""
    everything = View(NAME, 0, (1 << 12,), (1,))
    steps: list[Step] = [KernelStep((reading(everything), reading(everything)))]
    steps += [ExchangeStep((Exchange(sent, 0),)), KernelStep((reading(everything), None))]
    steps += [KernelStep((None, reading(view))) for view in reads]
    buffer = Buffer(NAME, "f32", 4 << 12, "scratch")
    return Plan("p", "br100", "fp32", 2, (buffer,), tuple(steps), (), (output,) if output else ())


def sent_by(plan: Plan) -> list[View]:
    return [exchange.view for step in plan.steps if isinstance(step, ExchangeStep) for exchange in step.exchanges]


@settings(max_examples=300, deadline=None)
@given(views(), st.lists(views(), max_size=3))
def test_all_that_is_read_is_sent_and_nothing_new(sent: View, reads: list[View]):
    needed = set().union(*map(elements, reads)) & elements(sent)
    found = sent_by(trim_exchanges(plan_of(sent, *reads)))
    moved = set().union(*map(elements, found))
    assert needed <= moved <= elements(sent)
    assert bool(found) >= bool(needed)
    assert not any(set(view.dims) == {0} or min(view.strides) < 1 for view in found)


@pytest.mark.parametrize(
    ("sent", "reads", "wanted"),
    [
        # Rows 0 to 31 of [64, 96] are written; read are columns 32 to 95 of all rows.
        (View(NAME, 0, (32 * 96,), (1,)), [View(NAME, 32, (64, 64), (96, 1))], View(NAME, 32, (32, 64), (96, 1))),
        # Of queries, keys and values, 32 columns each, half of the columns of each.
        (
            View(NAME, 0, (32 * 96,), (1,)),
            [View(NAME, first, (64, 16), (96, 1)) for first in (0, 32, 64)],
            View(NAME, 0, (32, 3, 16), (96, 32, 1)),
        ),
        # Columns 0 to 15 of all rows were written; read are the whole rows 32 to 63.
        (View(NAME, 0, (64, 16), (32, 1)), [View(NAME, 1024, (1024,), (1,))], View(NAME, 1024, (32, 16), (32, 1))),
        # All of it, and what was not written.
        (View(NAME, 0, (64, 16), (32, 1)), [View(NAME, 0, (2048,), (1,))], View(NAME, 0, (64, 16), (32, 1))),
    ],
)  # fmt: skip
def test_boxes_are_as_small_as_what_is_read(sent: View, reads: list[View], wanted: View):
    (found,) = sent_by(trim_exchanges(plan_of(sent, *reads)))
    assert elements(found) == elements(wanted)


def test_what_nobody_reads_is_not_sent():
    sent, other = View(NAME, 0, (16,), (1,)), View(NAME, 16, (16,), (1,))
    trimmed = trim_exchanges(plan_of(sent, other))
    assert not any(isinstance(step, ExchangeStep) for step in trimmed.steps)


def test_outputs_are_read():
    sent = View(NAME, 0, (4, 16), (16, 1))
    given_out = View(NAME, 16, (2, 16), (16, 1))
    for dies, expected in ((2, [given_out]), (1, [])):
        output = Boundary("y", "f32", (2, 16), ((dies, (0, 0), given_out),))
        found = sent_by(trim_exchanges(plan_of(sent, output=output)))
        assert [elements(view) for view in found] == [elements(view) for view in expected]


def test_reads_before_the_exchange_do_not_count():
    sent = View(NAME, 0, (16,), (1,))
    plan = plan_of(sent, sent)
    early = replace(plan, steps=(plan.steps[-1], *plan.steps[:-1]))
    assert sent_by(trim_exchanges(early)) == []


def test_boxes_that_cannot_be_told_apart_stay_as_they_are():
    """Two kernels wrote a half each, of which other parts are read."""
    halves = [View(NAME, 0, (512,), (1,)), View(NAME, 512, (512,), (1,))]
    plan = plan_of(halves[0], View(NAME, 0, (8, 4), (64, 1)), View(NAME, 512, (512,), (1,)))
    both = ExchangeStep((Exchange(halves[0], 0), Exchange(halves[1], 0)))
    plan = replace(plan, steps=(plan.steps[0], both, *plan.steps[2:]))
    assert sent_by(trim_exchanges(plan)) == halves
