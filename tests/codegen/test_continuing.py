"""Parts of a product that continue each other as one kernel: the same values, one run, and less time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline import Compiled, compile_graph

from birc.codegen.program_code import generate
from birc.compiler.ir.plan import Kernel, KernelStep, Plan, Tiling
from birc.compiler.ir.plan_continuing import continuing_problems
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.passes.continuing import continuing
from birc.compiler.plan_search import PlanSearch
from birc.runtime.machine import Machine, load_machine
from birc.runtime.program import Command
from birc.runtime.program import Kernel as KernelCode
from birc.runtime.timing import simulate


def narrow(target: str) -> Machine:
    """A machine of one die whose descriptors are small: wide products have parts."""
    return load_machine(target).with_values({"dies": 1, "max_dim": 256})


def product(machine: Machine, rows: int, depth: int, columns: int, *, biased: bool = False) -> Compiled:
    """x @ weights, perhaps with a bias, each part a kernel of its own."""
    make = GraphMaker()
    generator = np.random.default_rng(1)
    x = make.input(rows, depth)
    result = make("matmul", x, make.constant(generator.integers(-2, 3, (depth, columns)).astype(np.float32)))
    if biased:
        result = make("add", result, make.constant(generator.integers(-9, 9, (1, columns)).astype(np.float32)))
    return compile_graph(make.graph(result), machine)


def as_one(case: Compiled) -> Compiled:
    plan = continuing(case.plan)
    verify_plan(plan, "allocate", case.machine)
    generated = generate(plan, case.machine)
    return replace(case, plan=plan, program=generated.program, data=generated.weights(case.lowered.data))


def parts(plan: Plan) -> list[KernelStep]:
    return [step for step in plan.steps if isinstance(step, KernelStep) and step.kernel.contraction is not None]


def runs(case: Compiled) -> int:
    return sum(isinstance(c, Command) and c.mnemonic == "run" for c in case.program.commands)


def with_tiling(case: Compiled, tiling: Tiling) -> Compiled:
    """The case with another tiling of all its products."""

    def of(kernel: Kernel | None) -> Kernel | None:
        return kernel and (replace(kernel, tiling=tiling) if kernel.contraction is not None else kernel)

    steps = [replace(s, kernels=tuple(map(of, s.kernels))) if isinstance(s, KernelStep) else s for s in case.plan.steps]
    return replace(case, plan=replace(case.plan, steps=tuple(steps)))


def check_values(apart: Compiled, one: Compiled) -> None:
    """What both compute, by all engines and orders, is the same."""
    one.verify()
    (port,) = one.program.inputs
    inputs = {port.name: np.random.default_rng(2).integers(-2, 3, port.shape).astype(np.float32)}
    (name, expected), *_ = apart.values(inputs).items()
    for values in (one.values(inputs), *(one.step(inputs, "random", seed) for seed in range(3))):
        np.testing.assert_array_equal(values[name], expected)


def test_a_part_stays_apart_from_one_before_the_life_of_what_it_touches() -> None:
    """Where that has its place, something else may lie until then."""
    plan = product(narrow("tiny"), 8, 8, 768).plan
    _, second, *_ = [number for number, step in enumerate(plan.steps) if step in parts(plan)]
    result = {s.access.view.buffer for s in parts(plan)[0].kernel.phases[-1].statements if s.op == "vst" and s.access}
    later = tuple(replace(b, first=second) if b.name in result else b for b in plan.buffers)
    assert [step.continues for step in parts(continuing(plan))] == [False, True, True]
    assert [step.continues for step in parts(continuing(replace(plan, buffers=later)))] == [False, False, True]


@pytest.mark.parametrize(("rows", "depth", "columns"), [(64, 96, 768), (64, 64, 512), (32, 224, 960)])
@pytest.mark.parametrize("biased", [False, True])
def test_parts_are_one_kernel_with_the_same_values(rows: int, depth: int, columns: int, biased: bool) -> None:
    apart = product(narrow("tiny"), rows, depth, columns, biased=biased)
    one = as_one(apart)
    assert len(parts(one.plan)) == runs(apart) > 1
    assert [step.continues for step in parts(one.plan)] == [False, *(True for _ in parts(one.plan)[1:])]
    assert runs(one) == 1
    check_values(apart, one)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.sampled_from([32, 96, 224]), st.integers(257, 1100), st.booleans())
def test_the_last_part_may_have_fewer_columns(rows: int, depth: int, columns: int, biased: bool) -> None:
    """Whatever is left for it: it goes on if it has the tiling of the others."""
    apart = product(narrow("tiny"), rows, depth, columns, biased=biased)
    check_values(apart, as_one(apart))


@pytest.mark.parametrize("hoist", ["", "a", "b"])
@pytest.mark.parametrize("slots", [(5, 5), (7, 5), (3, 7)])
def test_rings_go_on_where_the_part_before_left_them(hoist: str, slots: tuple[int, int]) -> None:
    """Numbers of slots of which no number of loads is a multiple, in all orders of blocks."""
    machine = load_machine("br100").with_values({"dies": 1, "max_dim": 256})
    tile, spcs = (("m", 64), ("n", 64), ("k0", 64)), (("n", 2),)
    tiling = Tiling(tile, spcs, resident=1, hoist=hoist, a_slots=slots[0], b_slots=slots[1], programs=1)
    case = with_tiling(product(machine, 200, 128, 700), tiling)
    verify_plan(case.plan, "allocate", machine)
    case = replace(case, program=generate(case.plan, machine).program)
    one = as_one(case)
    assert runs(one) == 1
    assert len(parts(one.plan)) == runs(case) == 3
    check_values(case, one)


@pytest.mark.parametrize(("columns", "last"), [(8192, 2048), (7936, 1792)])
def test_what_stays_is_loaded_once_and_all_takes_less(columns: int, last: int) -> None:
    machine = load_machine("br100").with_values({"dies": 1, "max_dim": 2048})
    make = GraphMaker()
    x = make.input(1024, 128)
    weights = np.random.default_rng(0).integers(-2, 3, (128, columns)).astype(np.float32)
    apart = compile_graph(make.graph(make("matmul", x, make.constant(weights))), machine, "bf16")
    assert [step.kernel.dimension("n").extent for step in parts(apart.plan)] == [2048, 2048, 2048, last]
    one = as_one(apart)
    one.verify()
    inputs = {"x0": np.random.default_rng(2).integers(-2, 3, (1024, 128)).astype(np.float32)}
    (expected,), (found,) = (case.values(inputs).values() for case in (apart, one))
    np.testing.assert_array_equal(found, expected)
    before, after = simulate(apart.program, machine), simulate(one.program, machine)
    assert runs(apart) == 4
    assert runs(one) == 1
    assert after.latency_cycles < before.latency_cycles
    (code,) = one.program.kernels
    assert loads_of_a(code) == loads_of_a(apart.program.kernels[0])


@pytest.mark.parametrize(("depth", "is_one"), [(128, True), (512, False)])
def test_parts_that_each_wait_for_weights_of_their_own_stay_apart(depth: int, is_one: bool) -> None:
    """Few weights are there at once, many come piece by piece, and the first part need not wait for the last piece."""
    machine = load_machine("br100").with_values({"dies": 1, "max_dim": 2048})
    make = GraphMaker()
    weights = np.zeros((depth, 8192), np.float32)
    case = compile_graph(make.graph(make("matmul", make.input(1024, depth), make.constant(weights))), machine, "bf16")
    search = PlanSearch(machine, "bf16", 2)
    plan = search.plan(case.graph).plan
    for _, step in search.steps:
        plan = step(plan, machine)
    assert [step.continues for step in parts(plan)] == [False, is_one, is_one, is_one]


def loads_of_a(code: KernelCode) -> int:
    return sum(instruction.mnemonic == "tlda" for instruction in code.instructions())


def test_the_text_of_a_plan_says_what_continues() -> None:
    plan = continuing(product(narrow("tiny"), 64, 96, 640).plan)
    assert "continues true" in print_plan(plan)
    assert parse_plan(print_plan(plan)) == plan


def test_products_that_read_or_write_what_others_write_stay_apart() -> None:
    make = GraphMaker()
    weights = make.constant(np.ones((128, 128), np.float32))
    first = make("matmul", make.input(64, 128), weights)
    plan = compile_graph(make.graph(make("matmul", first, weights)), narrow("tiny")).plan
    assert continuing(plan) is plan


def test_what_cannot_be_one_kernel_is_refused() -> None:
    plan = continuing(product(narrow("tiny"), 64, 96, 640).plan)
    first, second, *_ = parts(plan)
    assert not list(continuing_problems([first, second]))
    assert "no step of one kernel" in next(continuing_problems([second, first]))
    assert "which one of them writes" in next(continuing_problems([first, replace(first, continues=True)]))
    tiling = replace(second.kernel.tiling or Tiling(()), b_slots=1)
    other = replace(second, kernels=(replace(second.kernel, tiling=tiling),))
    assert "other tiles" in next(continuing_problems([first, other]))
    alone = replace(second, kernels=(replace(second.kernel, contraction=None),))
    assert "not both are products" in next(continuing_problems([first, alone]))
