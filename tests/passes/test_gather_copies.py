"""Copies put off to begin together: still in time, on memory that is free, and with fewer waits for kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compile_graph

from birc.codegen.program_code import generate
from birc.compiler.ir.plan import CopyStep, KernelStep, Plan, Step
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.passes.gather_copies import PART_OF_TIME, gather_copies
from birc.compiler.passes.lifetimes import users
from birc.runtime.machine import Machine, load_machine
from birc.runtime.program import Command

SIZE, ROWS = 512, 64


def chip() -> Machine:
    """One die, with room for the weights of some ten products."""
    sizes = {"dies": 1, "spc_sram_bytes": 3 << 17, "l2_bytes": 3 << 16, "tensor_buffer_bytes": 3 << 16}
    return load_machine("br100").with_values(sizes)


@pytest.fixture(scope="module")
def chain() -> Compiled:
    make, result = GraphMaker(), ""
    result = make.input(ROWS, SIZE)
    for seed in range(24):
        weights = np.random.default_rng(seed).integers(-1, 2, (SIZE, SIZE)).astype(np.float32)
        result = make("relu", make("matmul", result, make.constant(weights)))
    return compile_graph(make.graph(result), chip(), "bf16")


def kernels_between(plan: Plan, copy: CopyStep) -> int:
    """Kernels from a copy to the first one that reads its target."""
    begin = plan.steps.index(copy)
    use = next(number for number in users(plan)[copy.target] if number > begin)
    return sum(isinstance(step, KernelStep) for step in plan.steps[begin:use])


def kernels(steps: tuple[Step, ...]) -> list[Step]:
    return [step for step in steps if not isinstance(step, CopyStep)]


def barriers(case: Compiled) -> int:
    commands = [item for item in case.program.commands if isinstance(item, Command)]
    return sum((item.mnemonic, item.operands) == ("barrier", ("die",)) for item in commands)


def test_copies_begin_later_and_in_time(chain: Compiled) -> None:
    plan = gather_copies(chain.plan)
    verify_plan(plan, "allocate", chain.machine)
    copies = [step for step in chain.plan.steps if isinstance(step, CopyStep)]
    assert [step for step in plan.steps if isinstance(step, CopyStep)] == copies
    assert kernels(plan.steps) == kernels(chain.plan.steps)
    before, after = ([kernels_between(p, copy) for copy in copies] for p in (chain.plan, plan))
    assert before != after
    for early, late in zip(before, after, strict=True):
        assert early - early // PART_OF_TIME <= late <= early


def test_kernels_are_waited_for_less_often_and_values_are_the_same(chain: Compiled) -> None:
    plan = gather_copies(chain.plan)
    other = replace(chain, plan=plan, program=generate(plan, chain.machine).program)
    other.verify()
    assert barriers(other) < barriers(chain)
    inputs = {"x0": np.random.default_rng(99).integers(-1, 2, (ROWS, SIZE)).astype(np.float32)}
    (name,) = chain.values(inputs)
    np.testing.assert_array_equal(other.values(inputs)[name], chain.values(inputs)[name])


def test_rounds_are_left_alone(chain: Compiled) -> None:
    rounds = replace(chain.plan, repeat=2)
    assert gather_copies(rounds) is rounds
