"""Plans that fill tensor buffers with one fault: found by the plan's verifier, the proof or the program's verifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from graph_maker import GraphMaker
from near import Planned, planned, whole_numbers
from pipeline import Compiled, Values
from plan_mutants import Mutant, mutants

from birc.codegen.program_code import generate
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import FillStep, KernelStep, Plan, Step
from birc.compiler.ir.plan_verify import find_plan_problems
from birc.compiler.passes.lifetimes import in_order, lifetimes
from birc.compiler.prove import new_prover
from birc.runtime.errors import BircError
from birc.runtime.machine import load_machine

FOUR = load_machine("tiny").with_values({"spcs_per_die": 4})
PARTS = ("fill source",)
"""Other parts of the right memory: what is computed of them is not a matter of proofs."""
WIDTH = 32


@cache
def case(is_on_two_dies: bool) -> tuple[Compiled, Values, Values]:
    """A chain of products with weights near, on one die or two; its inputs and what it computes."""
    make = GraphMaker()
    x = make.input(WIDTH, WIDTH)
    for number in range(5):
        x = make("relu", make("matmul", x, make.constant(np.roll(np.eye(WIDTH), number, axis=1) * 2)))
    graph = make.graph(x)
    plans: list[Planned] = [one for one in planned(graph, FOUR) if one.plan.repeat == 1]
    one = next(one for one in plans if is_divided(one.plan) == is_on_two_dies)
    inputs = {"x0": whole_numbers(WIDTH, WIDTH)}
    return one.near(one.offers()), inputs, run_graph(graph, inputs)


def is_divided(plan: Plan) -> bool:
    return all(None not in step.kernels for step in plan.steps if isinstance(step, KernelStep))


def is_found(plan: Plan, compiled: Compiled) -> bool:
    """Whether the verifier of plans or the proof reports something."""
    if any(True for _ in find_plan_problems(plan, "allocate", compiled.machine)):
        return True
    return any(True for _ in new_prover().flaws(plan, compiled.machine))


def is_refused(plan: Plan, compiled: Compiled) -> bool:
    """Whether no program is made of it, or none that the verifier lets pass."""
    try:
        replace(compiled, plan=plan, program=generate(plan, compiled.machine).program).verify()
    except BircError:
        return True
    return False


def computes(plan: Plan, compiled: Compiled, inputs: Values) -> Values:
    program = generate(plan, compiled.machine).program
    return replace(compiled, plan=plan, program=program).values(inputs)


def of_fills(plan: Plan) -> Iterator[Mutant]:
    """The mutants of the steps that fill, and of what these fill and fill from."""
    numbers = {n for n, step in enumerate(plan.steps) if isinstance(step, FillStep)}
    names = {v.buffer for step in plan.steps if isinstance(step, FillStep) for v in (step.source, step.target)}
    for mutant in mutants(plan):
        place = mutant.change.split(":")[0]
        if place in {f"step {number}" for number in numbers} | {f"%{name}" for name in names}:
            yield mutant


@pytest.mark.parametrize("is_on_two_dies", [False, True], ids=["one die", "two dies"])
def test_mutants_are_found_or_compute_the_same(is_on_two_dies: bool) -> None:
    compiled, inputs, expected = case(is_on_two_dies)
    assert not is_found(compiled.plan, compiled)
    found: Counter[str] = Counter()
    wrong = []
    for mutant in of_fills(compiled.plan):
        if is_found(mutant.plan, compiled) or is_refused(mutant.plan, compiled):
            found[mutant.kind] += 1
        elif not mutant.kind.startswith(PARTS):
            values = computes(mutant.plan, compiled, inputs)
            if not all(np.array_equal(values[name], value) for name, value in expected.items()):
                wrong.append(mutant.change)
    assert not wrong
    for kind in ("drop FillStep", "fill target offset", "fill target view extent", "fill target stride", "lifetime",
                 "fill source view extent", "address", "size"):  # fmt: skip
        assert found[kind], kind
    assert found["fill dies"] or not is_on_two_dies


@pytest.mark.parametrize("is_on_two_dies", [False, True], ids=["one die", "two dies"])
def test_a_fill_that_comes_too_late_is_found(is_on_two_dies: bool) -> None:
    """Right behind the kernel that reads what it fills, with lifetimes that are right there; not in front of it."""
    compiled, inputs, expected = case(is_on_two_dies)
    for number, step in enumerate(compiled.plan.steps):
        if not isinstance(step, FillStep):
            continue
        reader = next(n for n, other in enumerate(compiled.plan.steps) if reads(other, step.target.buffer))
        for place in (reader - 1, reader):
            order = [n for n in range(len(compiled.plan.steps)) if n != number]
            order.insert(place, number)
            plan = living(in_order(compiled.plan, order))
            if place == reader:
                assert is_found(plan, compiled)
                assert is_refused(plan, compiled)
            elif not is_found(plan, compiled):  # Else its source, or its place, is not free there.
                values = computes(plan, compiled, inputs)
                assert all(np.array_equal(values[name], value) for name, value in expected.items())


def reads(step: Step, name: str) -> bool:
    if not isinstance(step, KernelStep):
        return False
    return any(
        k is not None and k.contraction is not None and k.contraction.b.view.buffer == name for k in step.kernels
    )


def living(plan: Plan) -> Plan:
    """The plan with lifetimes that are right."""
    lives = lifetimes(plan)
    buffers = (
        replace(b, first=lives[b.name][0], last=lives[b.name][1]) if b.name in lives else b for b in plan.buffers
    )
    return replace(plan, buffers=tuple(buffers))
