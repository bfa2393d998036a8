"""Which products are offered with their weights near, where the copies of these begin, and that there is room."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker
from near import LONG, Preferring, behind_others, fills, planned, whole_numbers
from pairs import paired_plan

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import SPC, FillStep, Kernel, KernelStep, Plan
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.near_weights import LEAST_SAVED, MOST_ROOM, SPARE, Offer, near_offers, with_near_weights
from birc.compiler.passes.own_parts import cut
from birc.runtime.machine import load_machine

TINY = load_machine("tiny")
FOUR = TINY.with_values({"spcs_per_die": 4})


def chain(count: int = 6) -> Graph:
    """So many products with weights of their own, one behind the other."""
    make = GraphMaker()
    return make.graph(behind_others(make, make.input(16, 16), count))


def plan_of(graph: Graph) -> Plan:
    """The one in which each die has a part of all."""
    return next(one.plan for one in planned(graph, FOUR) if one.plan.repeat == 1)


def numbers(offers: list[Offer]) -> list[int]:
    return sorted(offer.number for offer in offers)


def offers_of(plan: Plan, cycles: Callable[[Kernel, Memories], int] | None = None) -> list[Offer]:
    return near_offers(plan, FOUR, cycles or Preferring())


def where_near(cycles: int, others: int = LONG) -> Callable[[Kernel, Memories], int]:
    """Kernels with weights near take so many cycles, others as many."""

    def of(kernel: Kernel, memories: Memories) -> int:
        return cycles if kernel.contraction is not None and memories.is_local(kernel.contraction.b) else others

    return of


def with_own_parts(plan: Plan, *of: int) -> Plan:
    """The plan in which every SPC has rows of its own in some steps."""
    steps = list(plan.steps)
    for number in of:
        step = steps[number]
        assert isinstance(step, KernelStep)
        steps[number] = replace(step, kernels=tuple(kernel and cut(kernel, "m", 4, SPC) for kernel in step.kernels))
    return replace(plan, steps=tuple(steps))


def test_those_that_gain_most_come_first() -> None:
    plan = plan_of(chain())
    names = [step.kernel.name for step in plan.steps if isinstance(step, KernelStep)]

    def cycles(kernel: Kernel, memories: Memories) -> int:
        saved = 100_000 * (1 + names.index(kernel.name) % 3)
        return where_near(LONG - saved)(kernel, memories)

    apart = replace(
        plan,
        steps=tuple(
            KernelStep(tuple(k and replace(k, macs=number) for k in step.kernels))
            for number, step in enumerate(plan.steps)
            if isinstance(step, KernelStep)
        ),
    )
    found = offers_of(apart, cycles)
    assert numbers(found) == [2, 3, 4, 5]
    assert [offer.saved_cycles for offer in found] == sorted((o.saved_cycles for o in found), reverse=True)
    for one, other in itertools.pairwise(found):
        assert one.saved_cycles > other.saved_cycles or one.number < other.number


def test_only_constants_are_weights() -> None:
    make = GraphMaker()
    x, weights = behind_others(make, make.input(16, 16)), make.input(16, 32)
    for one in planned(make.graph(make("matmul", x, weights)), FOUR):
        assert not one.offers()


def test_weights_computed_on_the_way_are_none() -> None:
    make = GraphMaker()
    x = behind_others(make, make.input(16, 16))
    computed = make("sin", make.input(16, 16))
    assert not offers_of(plan_of(make.graph(make("matmul", x, computed))))


def test_kernels_without_a_product_have_none() -> None:
    make = GraphMaker()
    x = make.input(16, 16)
    for _ in range(4):
        x = make("sub", x, make("mul", make("reduce_max", x, axes=(1,), keepdims=1), make.random(1, 16)))
    for one in planned(make.graph(x), FOUR):
        assert not one.offers()


@pytest.mark.parametrize("own", [(3,), (2, 3), (2, 3, 4)])
def test_kernels_on_own_parts_keep_their_weights_where_they_are(own: tuple[int, ...]) -> None:
    plan = plan_of(chain())
    assert numbers(offers_of(plan)) == [2, 3, 4, 5]
    found = numbers(offers_of(with_own_parts(plan, *own)))
    assert set(found) <= {2, 3, 4, 5} - {*own}
    assert found


def test_pairs_in_tensor_buffers_keep_their_weights_where_they_are() -> None:
    found = paired_plan(chain(), FOUR)
    assert found is not None
    plan = found[2]
    own = {n for n, step in enumerate(plan.steps) if isinstance(step, KernelStep) and step.kernel.has_own_parts}
    assert own
    assert own.isdisjoint(numbers(offers_of(plan)))


def test_steps_that_are_repeated_have_no_offers() -> None:
    """In the first round copies would be waited for, in others the weights would be there: what is near is not kept."""
    plan = plan_of(chain())
    assert offers_of(plan)
    assert not offers_of(replace(plan, repeat=2))


def test_kernels_that_are_one_have_no_offers() -> None:
    plan = plan_of(chain())
    steps = list(plan.steps)
    assert isinstance(steps[3], KernelStep)
    steps[3] = replace(steps[3], continues=True)
    assert {2, 3}.isdisjoint(numbers(offers_of(replace(plan, steps=tuple(steps)))))


@pytest.mark.parametrize(("spare", "is_offered"), [(-1, True), (0, False), (1, False)])
def test_little_gain_is_none(spare: int, is_offered: bool) -> None:
    before = 1_200_000
    near = round(before * (1 - LEAST_SAVED)) + spare
    assert bool(offers_of(plan_of(chain()), where_near(near, before))) == is_offered


def test_what_is_slower_near_stays() -> None:
    assert not offers_of(plan_of(chain()), where_near(LONG + 1))


def test_weights_that_come_just_in_time_are_not_copied_on() -> None:
    """All lie in one buffer, which HBM brings for the first kernel: copies that would begin before are not offered."""
    plan = plan_of(chain())
    num_bytes = sum(b.num_bytes for b in plan.buffers if b.role == "constant")
    kernels = math.ceil(num_bytes / FOUR.streamed_hbm_bytes_per_cycle() / 3)
    found = {offer.number: offer.begin for offer in offers_of(plan, where_near(0, kernels))}
    assert found == {4: 3, 5: 4}
    assert not offers_of(plan, where_near(0, 1))


def test_the_first_kernels_have_no_time_for_copies() -> None:
    """Nothing is at work while their weights would be copied."""
    assert numbers(offers_of(plan_of(chain(3)))) == [2]
    assert not offers_of(plan_of(chain(2)))


def before(plan: Plan, number: int) -> KernelStep | None:
    """The kernel in front of a step."""
    return next((step for step in reversed(plan.steps[:number]) if isinstance(step, KernelStep)), None)


def behind(plan: Plan, number: int) -> KernelStep:
    """The kernel behind a step."""
    return next(step for step in plan.steps[number:] if isinstance(step, KernelStep))


def applied(plan: Plan, offers: list[Offer]) -> Plan:
    found = with_near_weights(plan, offers, FOUR)
    assert found is not None
    return found


def names_of(plan: Plan) -> list[str]:
    return [step.kernel.name for step in plan.steps if isinstance(step, KernelStep)]


@pytest.mark.parametrize("own", [(2, 3), (2, 3, 4), (1, 2, 3)])
def test_nothing_comes_between_kernels_on_own_parts(own: tuple[int, ...]) -> None:
    """They may become one."""
    plan = with_own_parts(plan_of(chain(7)), *own)
    offers = offers_of(plan)
    assert own[-1] + 1 in numbers(offers) or own[0] == 1
    for offer in offers:
        assert offer.begin not in own[1:]
    near = applied(plan, offers)
    for number, step in enumerate(near.steps):
        if isinstance(step, FillStep):
            first, second = before(near, number), behind(near, number)
            assert first is None or not (is_own(plan, first) and is_own(plan, second))


def is_own(plan: Plan, step: KernelStep) -> bool:
    """Whether the step was one on own parts before."""
    return any(step == other and step.kernel.has_own_parts for other in plan.steps)


def test_a_copy_does_not_begin_right_behind_a_kernel_with_weights_near() -> None:
    """It would wait for the end of that one, to take the place of its weights."""
    plan = plan_of(chain())
    by_number = {offer.number: offer for offer in offers_of(plan)}
    alone = applied(plan, [by_number[5]])
    (number, *_) = (number for number, step in enumerate(alone.steps) if isinstance(step, FillStep))
    assert behind(alone, number).kernel.name == names_of(plan)[by_number[5].begin] == names_of(plan)[4]
    both = applied(plan, [by_number[3], by_number[5]])
    targets = {step.target.buffer: number for number, step in enumerate(both.steps) if isinstance(step, FillStep)}
    assert len(targets) == 2
    assert [behind(both, number).kernel.name for number in targets.values()] == [
        names_of(plan)[by_number[3].begin],
        names_of(plan)[3],
    ]


@pytest.mark.parametrize("short", [1, 3, 20, 1000])
def test_a_copy_begins_early_enough_and_no_earlier(short: int) -> None:
    """Kernels between take at least as long as it does, by the share of the port that is left to it."""
    plan = plan_of(chain(8))
    first = names_of(plan)[0]

    def cycles(kernel: Kernel, memories: Memories) -> int:
        return where_near(0, LONG if kernel.name == first else short)(kernel, memories)

    offers = offers_of(plan, cycles)
    assert 7 in numbers(offers)
    for offer in offers:
        (near, *_) = (one for one in offer.kernels if one is not None)
        needed_cycles = 4 * math.prod(near.target.dims) / (SPARE * FOUR.noc_bytes_per_cycle)
        kernels = range(offer.begin, offer.number)
        assert len(kernels) * short >= needed_cycles or offer.begin == 0
        assert (len(kernels) - 1) * short < needed_cycles


@pytest.mark.parametrize("is_enough", [True, False])
def test_there_is_room_or_nothing_is_near(is_enough: bool) -> None:
    plan = plan_of(chain())
    offers = offers_of(plan)
    needed = applied(plan, offers).tensor_buffer_bytes
    least = math.ceil(needed / MOST_ROOM)
    machine = replace(FOUR, spc_sram_bytes=least - (not is_enough))
    assert (with_near_weights(plan, offers, machine) is not None) == is_enough


def test_weights_that_are_near_at_the_same_time_need_room_together() -> None:
    plan = plan_of(chain())
    offers = sorted(offers_of(plan), key=lambda offer: offer.number)
    one = applied(plan, offers[:1]).tensor_buffer_bytes
    assert one == FOUR.l2_line_bytes  # Each takes less than one line.
    apart = applied(plan, [offers[0], replace(offers[3], begin=offers[3].number)])
    together = applied(plan, [replace(offer, begin=1) for offer in offers])
    assert apart.tensor_buffer_bytes == one
    assert together.tensor_buffer_bytes == len(offers) * one


def test_tensor_buffers_keep_the_room_that_they_have() -> None:
    plan = replace(plan_of(chain()), tensor_buffer_bytes=40_000)
    assert applied(plan, offers_of(plan)).tensor_buffer_bytes == 40_000


def test_nothing_else_of_the_plan_changes() -> None:
    plan = plan_of(chain())
    offers = offers_of(plan)
    near = applied(plan, offers[:1])
    kept = [step for step in near.steps if not isinstance(step, FillStep)]
    assert [n for n, step in enumerate(plan.steps) if step != kept[n]] == [offers[0].number]
    assert near.buffers[: len(plan.buffers)] == plan.buffers
    assert [b.space for b in near.buffers[len(plan.buffers) :]] == ["tb"]
    assert len(fills(near)) <= 2


def test_names_of_what_is_near_are_new() -> None:
    """The same weights twice have two places, and no name that there is already."""
    make = GraphMaker()
    weights = make.constant(np.sign(whole_numbers(16, 16)))
    x = behind_others(make, make.input(16, 16))
    for _ in range(3):
        x = make("relu", make("matmul", x, weights))
    plan = plan_of(make.graph(x))
    near = applied(plan, offers_of(plan))
    names = [b.name for b in near.buffers]
    assert len(set(names)) == len(names)
    assert len({step.target.buffer for step in fills(near)}) == 3
