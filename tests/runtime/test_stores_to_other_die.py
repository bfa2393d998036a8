"""Kernels that store to the L2 of the other die: what is ordered, what is not, and what it takes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from programs import BOTH_DIES, Case, box, command, i, op, par, stored_over, two_die_transfer, v
from verifying import findings, refused

from birc.runtime.machine import load_machine
from birc.runtime.program import Command, Descriptor, Program
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.timing import simulate

TINY = load_machine("tiny")
MEET_ALL = command("barrier", "all_spcs", dies=BOTH_DIES)


def instead(case: Case, *commands: Command) -> Program:
    """The program with other commands where all SPCs wait for each other."""
    found = [[*commands] if item == MEET_ALL else [item] for item in case.program.commands]
    return replace(case.program, commands=tuple(item for items in found for item in items))


def with_space(case: Case, slot: int, space: str) -> Program:
    """The program with the tensor in a slot elsewhere."""
    numbers = [c.operands[1] for c in case.program.commands if c.mnemonic == "bind" and c.operands[0] == slot]
    descriptors = list(case.program.descriptors)
    for number in numbers:
        descriptors[number] = replace(descriptors[number], space=space)
    return replace(case.program, descriptors=tuple(descriptors))


def test_what_a_die_stores_the_other_one_reads() -> None:
    assert findings(stored_over().program) == []


@pytest.mark.parametrize("seed", range(6))
def test_values_are_right_in_every_order(seed: int) -> None:
    case = stored_over(tiles=6)
    memory = case.memory()
    StepEngine(case.program, TINY, seed, "random").run(memory)
    case.check(memory)


def test_it_has_to_be_waited_for() -> None:
    """The SPCs of one die, or its processor, know nothing of the kernels of the other one."""
    refused(instead(stored_over()), "reads l2 bytes", "writes", "barrier")
    for scope in ("spcs", "die"):
        refused(instead(stored_over(), command("barrier", scope, dies=BOTH_DIES)), "reads l2 bytes", "writes")
    assert findings(instead(stored_over(), command("barrier", "device", dies=BOTH_DIES))) == []


def test_all_dies_take_part() -> None:
    refused(instead(stored_over(), command("barrier", "all_spcs", dies=1)), "barrier of scope all_spcs", "every die")


def test_copies_do_not_know_of_it() -> None:
    """A processor knows what the other die stored when it has waited for a kernel of its own that came after."""
    number = next(n for n, d in enumerate(stored_over().program.descriptors) if d.space == "other_l2")
    received = number - 1
    copy = command("copy", received, received - 1, (), (), 0, dies=BOTH_DIES), command("wait", 0, dies=BOTH_DIES)
    die, device = (command("barrier", scope, dies=BOTH_DIES) for scope in ("die", "device"))
    refused(instead(stored_over(), MEET_ALL, die, *copy), "writes l2 bytes", "writes")
    add = command("run", 1, 0, dies=BOTH_DIES)
    assert findings(instead(stored_over(), MEET_ALL, device, *copy)) == []
    assert findings(instead(stored_over(), MEET_ALL, add, die, *copy)) == []


def test_what_the_other_die_still_reads_is_not_overwritten() -> None:
    """The second `double` stores where `add` of the other die may still read."""
    double = command("run", 0, 0, dies=BOTH_DIES)
    case = stored_over()
    *commands, end = case.program.commands
    refused(replace(case.program, commands=(*commands, double, end)), "writes l2 bytes", "reads")
    assert findings(replace(case.program, commands=(*commands, MEET_ALL, double, end))) == []


def test_a_kernel_may_store_rows_between_each_other() -> None:
    """Each SPC has every second row, by two instructions: what these reach at most overlaps, what they store not."""
    case = stored_over(tiles=4)
    work = []
    for first in (0, 2):
        rows = ((i(0) + i(1, 4) + first, 1), (0, 64))
        work += [op("vld", v(0), box(0, *rows)), op("vadd", v(0), v(0), v(0))]
        work += [op("vst", box(1, *rows), v(0)), op("vst", box(2, *rows), v(0))]
    double = replace(case.program.kernels[0], nests=(par(2, par(2, *work), level="spc"),))
    program = replace(case.program, kernels=(double, case.program.kernels[1]))
    assert findings(program) == []
    memory = replace(case, program=program).memory()
    StepEngine(program, TINY, 1, "random").run(memory)
    case.check(memory)


def test_kernels_load_from_their_own_die() -> None:
    refused(with_space(stored_over(), 3, "other_l2"), "slot 3", "load from their own die")


def test_a_program_for_one_die_has_no_other() -> None:
    refused(replace(stored_over().program, dies=1), "lies on the other die")


def test_copies_go_between_views_of_the_dies() -> None:
    case = two_die_transfer()
    descriptors = tuple(replace(d, space="other_l2") if n == 2 else d for n, d in enumerate(case.program.descriptors))
    refused(replace(case.program, descriptors=descriptors), "L2 of the other die")


@pytest.mark.parametrize("flag", [500, 900, 1_700])
def test_the_next_kernel_starts_when_the_flags_of_both_dies_were_seen(flag: int) -> None:
    machine = TINY.with_values({"cross_die_flag_cycles": flag})
    first, second = simulate(stored_over().program, machine).runs
    assert {start for _, _, start, _ in second.spans} == {first.end_cycles + flag}


def test_the_slower_die_is_waited_for_and_the_wait_is_accounted_for() -> None:
    """Die 0 doubles once more, alone: die 1 waits for it."""
    once = simulate(stored_over().program, TINY)
    more = simulate(instead(stored_over(), command("run", 0, 0, dies=1), MEET_ALL), TINY)
    assert once.ledger["wait_other_die"] == 0 < more.ledger["wait_other_die"]
    assert sum(more.ledger.values()) == TINY.spcs * more.latency_cycles


def test_stores_go_at_the_rate_of_the_link() -> None:
    case = stored_over(tiles=64)
    num_bytes = 2 * 64 * 64 * 4
    result = simulate(case.program, TINY)
    assert result.traffic["d2d"] == 2 * num_bytes
    assert result.traffic["d2d one way"] == num_bytes
    slow = TINY.with_values({"d2d_bytes_per_cycle": 0.5})
    kernel = simulate(case.program, slow).runs[0]
    assert (
        kernel.end_cycles - kernel.start_cycles
        >= 2 * num_bytes
        > result.runs[0].end_cycles - result.runs[0].start_cycles
    )


def test_one_that_stores_little_leaves_the_link_to_the_others() -> None:
    """Of the rows stored over all are those of one SPC: it has the link for itself."""
    case = stored_over(tiles=64)
    away = next(number for number, d in enumerate(case.program.descriptors) if d.space == "other_l2")

    def sent(rows: int) -> Program:
        view: Descriptor = replace(case.program.descriptors[away], dims=(rows, 64))
        descriptors = (*case.program.descriptors[:away], view, *case.program.descriptors[away + 1 :])
        return replace(case.program, descriptors=descriptors)

    slow = TINY.with_values({"d2d_bytes_per_cycle": 0.5})
    whole, half = (simulate(sent(rows), slow).runs[0] for rows in (128, 64))
    taken = [run.end_cycles - run.start_cycles for run in (half, whole)]
    assert Fraction(taken[0], taken[1]) < Fraction(11, 20)


def test_an_spc_that_stores_nothing_over_between_others_has_no_share() -> None:
    """The rows stored over lie between two of the other SPC's tiles: the link is as if that one was not there."""
    tiles, num_bytes = 2, 64 * 4
    case = stored_over(tiles)
    away = next(number for number, d in enumerate(case.program.descriptors) if d.space == "other_l2")
    view: Descriptor = replace(case.program.descriptors[away], dims=(1, 64), origin=(1, 0))
    row = (i(0) + i(1) * 2, 1), (0, 64)
    work = [op("vld", v(0), box(0, *row)), *(op("vst", box(slot, *row), v(0)) for slot in (1, 2))]
    first, *others = case.program.kernels
    program = replace(
        case.program,
        kernels=(replace(first, nests=(par(2, par(tiles, *work), level="spc"),)), *others),
        descriptors=(*case.program.descriptors[:away], view, *case.program.descriptors[away + 1 :]),
    )
    runs = [simulate(program, TINY.with_values({"d2d_bytes_per_cycle": rate})).runs[0] for rate in (0.1, 0.05)]
    fast, slow = (run.end_cycles - run.start_cycles for run in runs)
    assert slow - fast == num_bytes / 0.05 - num_bytes / 0.1


def test_transfers_have_what_kernels_leave_of_the_link() -> None:
    """A transfer beside the stores takes longer than one behind them."""
    case = stored_over(tiles=64)
    doubled = 2
    swap = command("transfer", doubled, doubled, 0, dies=0b01), command("wait", 0, dies=BOTH_DIES)
    die = command("barrier", "die", dies=BOTH_DIES)
    slow = TINY.with_values({"d2d_bytes_per_cycle": 8.0})
    beside, behind = (simulate(instead(case, *order), slow).copies[0] for order in ((*swap, die), (die, *swap)))
    lengths = [copy.end_cycles - copy.issued_cycles for copy in (beside, behind)]
    assert lengths[0] > lengths[1]
