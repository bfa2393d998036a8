"""Two rounds of samples at a time: products of the one beside the windows of the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from depthwise_blocks import expected, network, pixels_of
from hypothesis import given
from hypothesis import strategies as st
from pipeline import Compiled, finished, fusing

from birc.compiler.ir.plan import Kernel, KernelStep
from birc.compiler.ir.plan_beside import products_share, together
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.side_by_side import Turn, Work, side_by_side, turns
from birc.compiler.prove import new_prover
from birc.runtime.errors import InternalError
from birc.runtime.machine import load_machine
from birc.runtime.program import Command, Instruction, Register

BLOCKS = 3
TINY = load_machine("tiny")


def half_busy(_: Kernel, __: Memories) -> tuple[int, int]:
    """Cycles of which the ALU works so few that two kernels together take no longer than one."""
    return 1000, 400


def two_rounds(samples: int) -> Iterator[Compiled]:
    """The network by every plan with two rounds at a time."""
    fused = run_passes(canonicalize(network(BLOCKS, samples)), (*LEGALIZE, *fusing(TINY, "model")))
    lowered = lower_graph(fused, TINY, "model")
    for plan in partitions(fused, lowered, TINY):
        both = side_by_side(plan, TINY, half_busy)
        if both is not None:
            yield finished(fused, lowered, both, TINY)


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    """Two rounds of a sample an SPC."""
    return next(two_rounds(8))


@pytest.mark.parametrize("samples", [8, 16])
def test_values_are_right_in_every_order_of_execution(samples: int) -> None:
    """Verified, proved, and exact: by whole arrays, and step by step as the semaphores allow."""
    found = list(two_rounds(samples))
    assert found
    pixels = pixels_of(samples)
    for each in found:
        assert each.plan.repeat == samples // 8
        each.verify()
        assert not list(new_prover().flaws(each.plan, TINY))
        inputs = {"x0": pixels}
        for values in (each.values(inputs), each.step(inputs, "random", seed=samples)):
            np.testing.assert_array_equal(values["v11"], expected(pixels, BLOCKS))


def register_of(instruction: Instruction) -> int:
    """The first register that an instruction writes."""
    return next(operand.number.constant for operand in instruction.operands if isinstance(operand, Register))


def test_kernels_side_by_side_are_one_of_the_machine(compiled: Compiled) -> None:
    """A product and a window run as one kernel, on vector programs and registers of their own."""
    groups = [group for group in together(compiled.plan.steps) if len(group) > 1]
    steps = [step for step in compiled.plan.steps if isinstance(step, KernelStep)]
    assert len(groups) == 2 * BLOCKS - 1  # each window of a round but one beside a product of the other
    runs = [c for c in compiled.program.commands if isinstance(c, Command) and c.mnemonic == "run"]
    assert len(runs) == len(steps) - len(groups)
    first_program, first_register = products_share(TINY)
    code = next(k for k in compiled.program.kernels if len(k.nests) > 1)
    drains, folds = ([i for i in code.instructions() if i.mnemonic == name] for name in ("vacc", "vfma"))
    assert max(i.program for i in drains) < first_program <= min(i.program for i in folds)
    assert max(map(register_of, drains)) < first_register <= min(map(register_of, folds))


def test_the_text_of_a_plan_says_what_runs_side_by_side(compiled: Compiled) -> None:
    text = print_plan(compiled.plan)
    assert "run beside true {" in text
    assert parse_plan(text) == compiled.plan


def test_what_runs_side_by_side_shares_no_memory(compiled: Compiled) -> None:
    """A buffer that one of two kernels reads last may not lie where the other one stores."""
    group = next(group for group in together(compiled.plan.steps) if len(group) > 1)
    ends = {b.name for b in compiled.plan.buffers if b.space == "tb" and b.last == group.stop - 1}
    begins = {b.name for b in compiled.plan.buffers if b.space == "tb" and b.first == group.start}
    one, other = min(ends - begins), min(begins - ends)
    address = compiled.plan.buffer(one).address
    buffers = (replace(b, address=address) if b.name == other else b for b in compiled.plan.buffers)
    with pytest.raises(InternalError, match="overlaps"):
        verify_plan(replace(compiled.plan, buffers=tuple(buffers)), "allocate", TINY)


@pytest.mark.parametrize("samples", [4, 12])
def test_one_round_or_three_stay_as_they_are(samples: int) -> None:
    assert not list(two_rounds(samples))


def test_without_room_for_two_rounds_there_is_one_at_a_time(compiled: Compiled) -> None:
    fused, lowered = compiled.graph, compiled.lowered
    room = compiled.plan.tensor_buffer_bytes
    small = replace(TINY, digest="small", spc_sram_bytes=room + 1024)
    assert not [side for plan in partitions(fused, lowered, small) if (side := side_by_side(plan, small, half_busy))]


def cycles_of(order: tuple[Turn, ...], works: list[Work]) -> float:
    """What an order takes."""
    total = 0
    for one, other in order:
        pair = [works[n] for n in (one, other) if n is not None]
        total += max(*(w.cycles for w in pair), sum(w.alu_cycles for w in pair)) + TINY.spc_barrier_cycles
    return total


def may_go_beside(one: Work, other: Work) -> bool:
    """Whether each SPC has its own part of both, and one alone multiplies."""
    return one.is_own and other.is_own and one.multiplies != other.multiplies


def orders(one: int, other: int, works: list[Work]) -> Iterator[tuple[Turn, ...]]:
    """All orders of the remaining steps of two rounds."""
    count = len(works)
    if one == other == count:
        yield ()
    for first, second in itertools.product((0, 1), repeat=2):
        if not first + second or one + first > count or other + second > count:
            continue
        if first and second and not may_go_beside(works[one], works[other]):
            continue
        head = (one if first else None, other if second else None)
        yield from ((head, *rest) for rest in orders(one + first, other + second, works))


STEPS = st.lists(st.builds(Work, st.integers(1, 900), st.integers(0, 900), st.booleans(), st.booleans()), max_size=4)


@given(STEPS)
def test_no_order_of_two_rounds_is_estimated_faster(works: list[Work]) -> None:
    works = [replace(work, cycles=max(work.cycles, work.alu_cycles)) for work in works]
    assert cycles_of(tuple(turns(works, TINY)), works) == min(cycles_of(order, works) for order in orders(0, 0, works))
