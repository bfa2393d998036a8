"""What kernels store on the other die: exactly what is exchanged, where nothing else touches it until then."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plan_views import NAME, elements, views

from birc.compiler.ir.plan import (
    Access,
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
from birc.compiler.ir.region import region
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.stored_exchanges import stored_exchanges, transferred
from birc.compiler.passes.tile import tile
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine

ROWS = View(NAME, 0, (8, 12), (12, 1))
OTHERS = replace(ROWS, offset=96)
HEADS = View(NAME, 3, (24, 2), (4, 1))
"""Of each row, columns 3 and 4, 7 and 8, 11 and, of the next one, 0: it is no part of `ROWS`."""
COLUMNS = View(NAME, 4, (8, 2), (12, 1))


def touching(view: View, op: str = "vst") -> Kernel:
    """A kernel that stores a view, or loads it."""
    names = [f"d{axis}" for axis in range(len(view.dims))]
    access = Access(view, tuple(Index(((name, 1),)) for name in names))
    statement = Statement(op, "" if op == "vst" else "x", (1.0,) if op == "vst" else (), access)
    dims = tuple(Dimension(name, extent) for name, extent in zip(names, view.dims, strict=True))
    return Kernel("touches", dims, (Phase((statement,)),))


def plan_of(sent: View, *steps: Step, space: str = "l2") -> Plan:
    """Steps, then die 0 sends a view."""
    buffer = Buffer(NAME, "f32", 4 << 12, "scratch", space)
    return Plan("p", "br100", "fp32", 2, (buffer,), (*steps, ExchangeStep((Exchange(sent, 0),))), (), ())


def stored_away(plan: Plan, die: int = 0) -> list[View]:
    """What a die's kernels store on the other one."""
    kernels = [step.kernels[die] for step in plan.steps if isinstance(step, KernelStep)]
    statements = [s for kernel in kernels if kernel is not None for phase in kernel.phases for s in phase.statements]
    return [s.access.view for s in statements if s.access is not None and s.access.view.away]


def is_stored(plan: Plan) -> bool:
    return any(isinstance(step, ExchangeStep) and step.stored for step in plan.steps)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[View, View]:
    """A dense tensor's view, and a strided box of it, seen with axes of its own."""
    dims = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    strides = tuple(int(s) for s in itertools.accumulate((1, *dims[:0:-1]), lambda a, b: a * b))[::-1]
    starts = [draw(st.integers(0, extent - 1)) for extent in dims]
    extents = [draw(st.integers(1, extent - start)) for start, extent in zip(starts, dims, strict=True)]
    offset = 5 + sum(start * stride for start, stride in zip(starts, strides, strict=True))
    every = draw(st.sampled_from([1, 1, 2, 3]))
    inner = (-(-extents[-1] // every),)
    box = View(NAME, offset, (*extents[:-1], *inner), (*strides[:-1], every))
    order = draw(st.permutations(range(len(dims))))
    view = View(NAME, 5, tuple(dims[n] for n in order), tuple(strides[n] for n in order))
    return view, box


@settings(max_examples=300, deadline=None)
@given(boxes())
def test_what_is_exchanged_is_stored_and_nothing_else(case: tuple[View, View]):
    view, box = case
    plan = stored_exchanges(plan_of(box, KernelStep((touching(view), None))))
    away = stored_away(plan)
    assume(is_stored(plan))
    assert set().union(*map(elements, away)) == elements(box)
    assert sum(len(elements(part)) for part in away) == len(elements(box))


def test_boxes_of_a_tensor_are_stored():
    for sent, count in ((ROWS, 1), (COLUMNS, 1), (View(NAME, 0, (8, 3, 2), (12, 4, 1)), 3)):
        plan = stored_exchanges(plan_of(sent, KernelStep((touching(ROWS), touching(OTHERS)))))
        assert is_stored(plan)
        assert len(stored_away(plan)) == count
        assert not stored_away(plan, die=1)


@pytest.mark.parametrize("sent", [ROWS, COLUMNS], ids=["rows", "columns"])
def test_the_plan_is_proved(sent: View):
    """What is stored over lies in the other die's memory, and of a tile the other die gets no more than that."""
    machine = load_machine("br100")
    plan = stored_exchanges(plan_of(sent, KernelStep((touching(ROWS), touching(OTHERS)))))
    assert stored_away(plan)
    for step in (tile, schedule, allocate):
        plan = step(plan, machine)
    assert not list(new_prover().flaws(plan, machine))


def test_what_is_no_few_boxes_of_a_store_is_transferred():
    for sent in (HEADS, View(NAME, 0, (8, 6), (12, 2)), View(NAME, 90, (12,), (1,))):
        assert not is_stored(stored_exchanges(plan_of(sent, KernelStep((touching(ROWS), touching(OTHERS))))))


def test_it_may_be_made_a_few_steps_before():
    elsewhere = KernelStep((touching(OTHERS), touching(OTHERS, "vld")))
    plan = stored_exchanges(plan_of(ROWS, KernelStep((touching(ROWS), None)), elsewhere))
    assert stored_away(plan) == [replace(ROWS, lower=(0, 0), away=True)]


def test_another_exchange_may_come_between():
    """Of another buffer: what is stored on the other die lies there already when that one is over."""
    other = "other"
    makes_other = KernelStep((touching(replace(OTHERS, buffer=other)), None))
    exchange = ExchangeStep((Exchange(replace(OTHERS, buffer=other), 0),))
    plan = plan_of(ROWS, KernelStep((touching(ROWS), touching(OTHERS))), makes_other, exchange)
    plan = stored_exchanges(replace(plan, buffers=(*plan.buffers, replace(plan.buffers[0], name=other))))
    assert [step.stored for step in plan.steps if isinstance(step, ExchangeStep)] == [True, True]
    assert [view.buffer for view in stored_away(plan)] == [NAME, other]
    machine = load_machine("br100")
    for step in (tile, schedule, allocate):
        plan = step(plan, machine)
    assert not list(new_prover().flaws(plan, machine))


def test_what_has_the_longer_way_is_stored_first():
    step = stored_exchanges(plan_of(ROWS, KernelStep((touching(ROWS), None)))).steps[0]
    assert isinstance(step, KernelStep)
    (phase,) = step.kernel.phases
    assert [statement.access.view.away for statement in phase.statements] == [True, False]


def test_what_the_other_die_still_uses_there_is_transferred():
    reads = touching(COLUMNS, "vld")
    make = KernelStep((touching(ROWS), None))
    for steps in ((KernelStep((touching(ROWS), reads)),), (make, KernelStep((None, reads)))):
        assert not is_stored(stored_exchanges(plan_of(ROWS, *steps)))
    assert is_stored(stored_exchanges(plan_of(ROWS, KernelStep((None, reads)), make)))


def test_what_the_verifier_cannot_tell_from_work_of_the_other_die_is_transferred():
    """It tells columns of the same rows apart, but not where one die sees pairs of rows."""
    left, right = View(NAME, 0, (8, 6), (12, 1)), View(NAME, 6, (8, 6), (12, 1))
    pairs = View(NAME, 6, (4, 2, 6), (24, 12, 1))
    for others, expected in ((right, True), (pairs, False)):
        plan = stored_exchanges(plan_of(left, KernelStep((touching(left), touching(others)))))
        assert is_stored(plan) is expected


def test_the_last_of_several_stores_counts():
    twice = KernelStep((touching(COLUMNS), None))
    assert not is_stored(stored_exchanges(plan_of(ROWS, KernelStep((touching(ROWS), None)), twice)))


def test_what_was_exchanged_before_is_transferred():
    make, exchange = KernelStep((touching(ROWS), None)), ExchangeStep((Exchange(ROWS, 0),))
    plan = stored_exchanges(plan_of(ROWS, make, exchange))
    assert [step.stored for step in plan.steps if isinstance(step, ExchangeStep)] == [True, False]


def test_what_does_not_lie_in_l2_is_transferred():
    plan = plan_of(ROWS, KernelStep((touching(ROWS), None)))
    stored = stored_exchanges(plan)
    assert transferred(stored) == stored
    spilled = replace(stored, buffers=tuple(replace(b, space="hbm") for b in stored.buffers))
    assert transferred(spilled).steps == plan.steps


@settings(max_examples=500, deadline=None)
@given(views(), views())
def test_regions_apart_have_no_element_in_common(one: View, other: View):
    if region(one).is_apart(region(other)):
        assert not elements(one) & elements(other)


def test_halves_of_rows_are_apart():
    left, right = View(NAME, 0, (8, 6), (12, 1)), View(NAME, 6, (8, 6), (12, 1))
    assert region(left).is_apart(region(right)) and region(right).is_apart(region(left))
    assert not region(left).is_apart(region(replace(right, offset=5)))
