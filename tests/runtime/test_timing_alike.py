"""What timing leaves out: SPCs that are told to be alike are, and what takes too long is given up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import Case, cases
from timing_kernels import Gemm

from birc.runtime.machine import load_machine
from birc.runtime.program import Descriptor, Kernel, Program
from birc.runtime.timing import simulate
from birc.runtime.timing.alike import alike
from birc.runtime.timing.engine import latency_and_hbm_bytes
from birc.runtime.timing.issues import issues
from birc.runtime.timing.kernels import KernelTimer
from birc.runtime.timing.routes import RoutePlan, boxes_in
from birc.runtime.timing.specialise import spc_variables, specialise
from birc.runtime.timing.walk import walk

MACHINE = load_machine("tiny")
CASES = pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
GEMMS = st.builds(
    Gemm,
    spcs=st.integers(1, 4),
    row_blocks=st.integers(1, 3),
    column_blocks=st.integers(1, 3),
    nb=st.integers(1, 3),
    k=st.sampled_from((100, 256)),
    ragged=st.integers(0, 40),
    a_space=st.sampled_from(("hbm", "l2", "tb")),
    multicast=st.sampled_from(("none", "dtg", "vtg", "peer")),
)


def bound_kernels(program: Program) -> list[tuple[Kernel, dict[int, Descriptor]]]:
    """The kernels of a program with what is bound when they are run."""
    slots: dict[int, Descriptor] = {}
    found = []
    for issue in issues(program):
        if issue.command.mnemonic == "bind":
            slots[issue.operand("slot")] = program.descriptors[issue.operand("descriptor")]
        elif issue.command.mnemonic == "run":
            found.append((program.kernels[issue.operand("kernel")], dict(slots)))
    return found


def check_groups(kernel: Kernel, bindings: dict[int, Descriptor]) -> int:
    """Every SPC does what the first one of its group does; returns the number of groups."""
    variables = {spc: spc_variables(kernel, spc) for spc in range(MACHINE.spcs_per_die)}
    active = {spc: values for spc, values in variables.items() if values is not None}
    boxes = [(box, bindings[box.slot], trips) for box, trips in boxes_in(kernel)]
    plan = RoutePlan(MACHINE, kernel.multicast, active, boxes)
    groups = alike(kernel, bindings, plan)
    assert sorted(spc for group in groups for spc in group) == sorted(active)
    for group in groups:
        assert len({specialise(kernel, spc, bindings, MACHINE, plan) for spc in group}) == 1
    return len(groups)


@CASES
def test_spcs_of_a_group_do_the_same(case: Case) -> None:
    for kernel, bindings in bound_kernels(case.program):
        check_groups(kernel, bindings)


@settings(max_examples=40, deadline=None)
@given(GEMMS, st.sampled_from(("uma16", "uma4", "numa")))
def test_spcs_of_a_group_do_the_same_in_products(gemm: Gemm, mapping: str) -> None:
    for kernel, bindings in bound_kernels(gemm.program(MACHINE)):
        check_groups(kernel, {slot: replace(bound, mapping=mapping) for slot, bound in bindings.items()})


def test_spcs_with_even_shares_are_one_group() -> None:
    ((kernel, bindings), *_) = bound_kernels(Gemm(spcs=2, row_blocks=2, column_blocks=2, nb=2, k=256).program(MACHINE))
    assert check_groups(kernel, bindings) == 1


@CASES
def test_latency_and_bytes_are_those_of_the_whole_result(case: Case) -> None:
    result = simulate(case.program, MACHINE)
    expected = result.latency_cycles, result.traffic["hbm"]
    timer = KernelTimer(MACHINE)
    assert latency_and_hbm_bytes(case.program, MACHINE, timer=timer) == expected
    limits = result.latency_cycles, result.latency_cycles - 1
    found = [latency_and_hbm_bytes(case.program, MACHINE, timer=timer, most_cycles=most) for most in limits]
    assert found == [expected, None]


@CASES
def test_a_walk_that_takes_longer_is_given_up(case: Case) -> None:
    for kernel, bindings in bound_kernels(case.program):
        spcs = tuple(range(MACHINE.spcs_per_die))
        classes = KernelTimer(MACHINE).classes(kernel, bindings, spcs)
        for known in classes:
            assert walk(known.kernel, MACHINE, most=known.result.cycles) == known.result
            short = walk(known.kernel, MACHINE, most=known.result.cycles // 2)
            assert short is None
        longest = max(known.result.cycles for known in classes)
        timer = KernelTimer(MACHINE)
        assert timer.cycles(kernel, bindings, spcs, most=longest // 2) > longest // 2
        assert timer.cycles(kernel, bindings, spcs, most=longest) == longest


def test_kernels_that_differ_in_names_are_walked_once() -> None:
    ((kernel, bindings), *_) = bound_kernels(Gemm(spcs=1, row_blocks=1, column_blocks=1, nb=1, k=256).program(MACHINE))
    timer = KernelTimer(MACHINE)
    first = timer.classes(kernel, bindings, (0,))
    assert timer.classes(replace(kernel, name="another"), bindings, (0,)) is first
