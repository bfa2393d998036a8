"""B loaded ahead of a kernel's run, in time: what is won, from when on, and that all of it is counted once."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import box, command, i, op, par, preloaded, v
from timing_kernels import Gemm, program

from birc.runtime.machine import Machine, load_machine
from birc.runtime.program import Command, Kernel, Program
from birc.runtime.timing import TimingResult, simulate

MACHINE = load_machine("tiny")
BARRIER = command("barrier", "die")
# One tile a SPC: its A is near, its B comes from HBM.
TILE = Gemm(row_blocks=1, column_blocks=1, mb=1, nb=1, kk=1, k=256, a_space="tb", out_space="tb")


def follows(machine: Machine, gemm: Gemm, first: Kernel, *, ahead: bool) -> Program:
    """`first`, a barrier and the product, whose B is loaded ahead or not."""
    whole = program(machine, first, gemm.descriptors(), after=(BARRIER, command("run", 1, gemm.macs)))
    *start, run, barrier, last = whole.commands
    preload = (command("preload", 1),) if ahead else ()
    return replace(whole, kernels=(first, gemm.kernel()), commands=(*start, run, *preload, barrier, last))


def work(*tiles: int, multicast: str = "none") -> Kernel:
    """Vector work on two SPCs, so many tiles of 4096 elements on each."""
    first, second = tiles
    body = par(max(tiles), op("vmovi", v(0), 0.0, (4096,)), limit=i(0, second - first) + first)
    return Kernel("work", (par(2, body, level="spc"),), multicast=multicast)


def durations(result: TimingResult) -> list[int]:
    """The cycles of the second kernel on each SPC."""
    assert sum(result.ledger.values()) == MACHINE.spcs * result.latency_cycles
    return [end - start for _, _, start, end in result.runs[1].spans]


def won(machine: Machine, gemm: Gemm, first: Kernel) -> list[int]:
    """How many cycles sooner the second kernel has ended on each SPC. It does not start sooner."""
    plain, early = (simulate(follows(machine, gemm, first, ahead=ahead), machine) for ahead in (False, True))
    assert [span[2] for span in plain.runs[1].spans] == [span[2] for span in early.runs[1].spans]
    assert plain.ledger["launch_barrier"] == early.ledger["launch_barrier"]
    assert plain.traffic == early.traffic
    assert plain.counts == early.counts
    return [before - after for before, after in zip(durations(plain), durations(early), strict=True)]


def later_than_a() -> int:
    """By how much B comes later than A: the first at its share of HBM, the other from the tensor buffer."""
    num_bytes = 64 * 256 * 2
    share = min(Fraction(MACHINE.hbm_bytes_per_cycle()) / MACHINE.dies / 2, Fraction(MACHINE.noc_bytes_per_cycle))
    if share < MACHINE.noc_bytes_per_cycle:
        share *= Fraction(MACHINE.hbm_efficiency)
    b = -(-num_bytes // share) + MACHINE.hbm_latency_cycles
    return int(b - num_bytes // MACHINE.tb_to_gib_bytes_per_cycle - MACHINE.tb_latency_cycles)


def first_cycles(machine: Machine, gemm: Gemm, first: Kernel) -> int:
    """The cycles of the kernel in front."""
    run = simulate(follows(machine, gemm, first, ahead=False), machine).runs[0]
    return run.end_cycles - run.start_cycles


@pytest.mark.parametrize("pause", [0, 1, 60, 250, 600, 5_000, 50_000])
def test_what_is_won_is_the_time_until_b_is_there(pause):
    """B has the cycles of a kernel without a T-core, and `pause` cycles until the barrier opens."""
    machine = MACHINE.with_values({"die_barrier_cycles": MACHINE.spc_barrier_cycles + pause})
    expected = min(pause + first_cycles(machine, TILE, work(3, 3)), later_than_a())
    assert won(machine, TILE, work(3, 3)) == [pytest.approx(expected, abs=1)] * 2


def test_each_spc_begins_by_itself():
    machine = MACHINE.with_values({"die_barrier_cycles": MACHINE.spc_barrier_cycles})
    slow, fast = won(machine, TILE, work(5, 1))
    whole = first_cycles(machine, TILE, work(5, 1))
    assert [slow, fast] == [pytest.approx(min(whole, later_than_a()), abs=1)] * 2


@pytest.mark.parametrize("epilogue", [0, 1, 2, 5, 60])
def test_b_comes_while_the_vector_cores_finish_the_product_before(epilogue):
    """Each instruction of that one's epilogue is time for B, until it is there as soon as A."""
    machine = MACHINE.with_values({"die_barrier_cycles": MACHINE.spc_barrier_cycles})
    near = replace(TILE, b_space="l2", k=128)
    least, most = (won(machine, near, replace(near, epilogue=n).kernel())[0] for n in (0, 1_000))
    assert 0 < least < most
    instruction_cycles = 64 * 64 // machine.vector_lanes_per_spc
    found = won(machine, near, replace(near, epilogue=epilogue).kernel())
    assert found == [pytest.approx(min(most, least + epilogue * instruction_cycles), abs=1)] * 2


def test_b_comes_behind_what_the_kernel_before_still_loads():
    """From where B comes from, too: the port to the NoC is one."""
    machine = MACHINE.with_values({"die_barrier_cycles": MACHINE.spc_barrier_cycles})
    near = replace(TILE, b_space="l2")
    load = op("vld", v(0), box(1, (0, 64), (0, 64)))
    first = Kernel("loads", (par(2, load, op("vmovi", v(1), 0.0, (4096,)), level="spc"),))
    cycles = first_cycles(machine, near, first)
    loading = -(-64 * 64 * 2 // machine.noc_bytes_per_cycle)
    most = won(machine, near, work(500, 500))[0]
    assert loading < cycles
    assert won(machine, near, first) == [pytest.approx(min(most, cycles - loading), abs=1)] * 2


def test_an_spc_without_a_part_in_the_kernel_before_has_ended_those_in_front_of_it():
    """The first kernel is a product with a long epilogue, the second a cycle's work of one SPC alone."""
    machine = MACHINE.with_values({"die_barrier_cycles": MACHINE.spc_barrier_cycles})
    near = replace(TILE, b_space="l2", k=128)
    first, alone = replace(near, epilogue=60).kernel(), Kernel("alone", (par(1, op("vmovi", v(0), 0.0, (64,))),))
    whole = program(machine, first, near.descriptors(), after=(command("run", 1, 0), BARRIER))

    def cycles(*between: Command) -> list[int]:
        *start, barrier = whole.commands
        commands = (*start, *between, barrier, command("run", 2, near.macs))
        last = simulate(replace(whole, kernels=(first, alone, near.kernel()), commands=commands), machine).runs[2]
        return [end - begin for _, _, begin, end in last.spans]

    gained = [before - after for before, after in zip(cycles(), cycles(command("preload", 2)), strict=True)]
    assert gained == [1, 1 + machine.spc_barrier_cycles]
    assert gained[1] < won(machine, near, first)[1]


def test_kernels_that_load_from_hbm_do_so_one_after_the_other():
    machine = MACHINE.with_values({"die_barrier_cycles": MACHINE.spc_barrier_cycles})
    load = op("vld", v(0), box(1, (0, 64), (0, 64)))
    first = Kernel("loads", (par(2, load, level="spc"),))
    assert won(machine, TILE, first) == [0, 0]


def test_partners_of_a_multicast_begin_together():
    machine = MACHINE.with_values({"die_barrier_cycles": MACHINE.spc_barrier_cycles})
    shared = replace(TILE, multicast="dtg")
    assert won(machine, shared, work(200, 1, multicast="dtg")) == [0, 0]
    # Another mode than that of the kernel before costs its barrier first.
    longer = machine.with_values({"die_barrier_cycles": 50_000})
    assert min(won(longer, shared, work(200, 1, multicast="dtg"))) > 0
    assert won(longer, shared, work(200, 1)) == [0, 0]


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        Gemm,
        row_blocks=st.integers(1, 5),
        column_blocks=st.integers(1, 5),
        nb=st.integers(1, 3),
        kk=st.integers(1, 3),
        depth=st.integers(1, 40),
        a_space=st.sampled_from(("hbm", "l2", "tb")),
        b_space=st.sampled_from(("hbm", "l2")),
        multicast=st.sampled_from(("none", "dtg")),
    ),
    st.integers(0, 3_000),
)
def test_extrapolation_is_exact(gemm, pause):
    machine = MACHINE.with_values({"die_barrier_cycles": MACHINE.spc_barrier_cycles + pause})
    whole = follows(machine, gemm, work(5, 1), ahead=True)
    full = simulate(whole, machine, extrapolate=False)
    assert replace(simulate(whole, machine), walked=0) == replace(full, walked=0)
    assert sum(full.ledger.values()) == machine.spcs * full.latency_cycles


def test_a_copy_gets_what_the_loads_ahead_leave_of_hbm():
    """A copy that begins with the preload, and is waited for before the run."""

    def copy_cycles(*, ahead: bool) -> int:
        gemm = replace(TILE, column_blocks=8, nb=2, depth=8)
        whole = follows(MACHINE, gemm, work(1, 1), ahead=ahead)
        *start, barrier, last = whole.commands
        commands = (*start[:-1], command("copy", 0, 1, (), (), 0), *start[-1:], command("wait", 0), barrier, last)
        target = replace(whole.descriptors[1], address=1 << 24)
        descriptors = (target, *whole.descriptors[1:])
        (copy,) = simulate(replace(whole, commands=commands, descriptors=descriptors), MACHINE).copies
        return copy.end_cycles - copy.issued_cycles

    assert copy_cycles(ahead=True) > copy_cycles(ahead=False)


def test_the_product_that_follows_a_barrier_ends_sooner():
    case = preloaded()
    commands = case.program.commands
    plain = replace(case.program, commands=tuple(item for item in commands if item.mnemonic != "preload"))
    before, after = simulate(plain, MACHINE), simulate(case.program, MACHINE)
    assert after.runs[1].start_cycles == before.runs[1].start_cycles
    assert after.latency_cycles < before.latency_cycles
