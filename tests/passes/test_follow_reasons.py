"""Why products do not follow those whose rows they read: in words, with figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from followed import one_is_faster
from graph_maker import GraphMaker
from machines import with_input_buffers
from pairs import paired_plan
from pipeline import compiled_plans

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import ExchangeStep, Kernel, KernelStep, Plan
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.follow import Clock, following
from birc.compiler.passes.follow_reasons import FollowReasons
from birc.compiler.passes.tile import tile
from birc.runtime.machine import Machine

WIDE = with_input_buffers().with_values({"spc_sram_bytes": 1 << 20})


def attention(heads: int = 8) -> Graph:
    """softmax(q @ k) @ v"""
    make = GraphMaker()
    scores = make("matmul", make.input(heads, 128, 64), make.input(heads, 64, 128))
    return make.graph(make("matmul", make("softmax", scores, axis=2), make.input(heads, 128, 64)))


def tiled_plan() -> Plan:
    """The plan of an attention whose shares stay on their SPC."""
    found = paired_plan(attention(), WIDE)
    assert found is not None
    return tile(found[2], WIDE)


def words(plan: Plan, clock: Clock = one_is_faster, machine: Machine = WIDE) -> list[str]:
    return [pair.words for pair in FollowReasons(plan, machine, clock).pairs()]


def as_long(kernels: Sequence[Kernel], _: Memories, __: Machine) -> int:
    """Cycles by which one kernel saves nothing."""
    return 1000 if len(kernels) == 1 else 2000 + WIDE.spc_barrier_cycles


def test_a_product_that_follows_needs_no_words() -> None:
    assert words(following(tiled_plan(), WIDE, one_is_faster, {})) == [""]


def test_the_clock_has_its_cycles() -> None:
    plan = following(tiled_plan(), WIDE, as_long, {})
    cycles = f"{2000 + WIDE.spc_barrier_cycles:,}"
    assert words(plan, as_long) == [f"as one kernel they take {cycles} cycles on a die, apart {cycles}"]


def test_what_the_first_product_leaves_may_be_too_little() -> None:
    small = replace(WIDE, digest="small", vector_registers=4)
    (said,) = words(following(tiled_plan(), small, one_is_faster, {}), machine=small)
    assert said.startswith("is followed: needs ")
    assert said.endswith(" vector registers, there are 2")


def test_steps_between_them_part_two_products() -> None:
    first, second = tiled_plan().steps
    assert words(replace(tiled_plan(), steps=(first, ExchangeStep(()), second))) == ["other steps come between them"]


@pytest.mark.parametrize("side", [0, 1])
def test_what_is_beside_others_is_one_kernel_with_these(side: int) -> None:
    plan = tiled_plan()
    steps = list(plan.steps)
    step = steps[side]
    assert isinstance(step, KernelStep)
    steps[side] = replace(step, beside=True)
    assert words(replace(plan, steps=tuple(steps))) == ["one of them is one kernel of the machine with others"]


def test_shares_that_all_spcs_read_are_not_kept() -> None:
    """Without pairs that keep tensors to SPCs there is nothing to follow."""
    (compiled, *_) = compiled_plans(attention(heads=1), WIDE)
    (said,) = words(compiled.plan)
    assert said.startswith("SPCs do not keep what lies between them")


def test_a_plan_says_so_where_there_would_be_no_room() -> None:
    """By the clock they are faster as one kernel, and yet two."""
    assert words(tiled_plan()) == ["as one kernel they would keep more in the tensor buffers than there is room for"]
