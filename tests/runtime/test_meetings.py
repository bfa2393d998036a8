"""SPCs that wait for each other alone: what is ordered, what is not, and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from programs import Layout, box, command, i, integers, launch, op, par, preloaded, v
from verifying import findings, refused

from birc.runtime.boundary import read_port, write_port
from birc.runtime.conversion import memory_type
from birc.runtime.machine import load_machine
from birc.runtime.memory import Memory
from birc.runtime.program import Command, Kernel, Program
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.timing import simulate
from birc.runtime.verifier.verify import verify_program

TINY = load_machine("tiny")
DIMS = (4, 64)
OWN = ((i(0, 2) + i(1), 1), (0, 64))
OTHER = ((i(0, -2) + i(1) + 2, 1), (0, 64))
MEET, DIE = command("barrier", "spcs"), command("barrier", "die")


def moving(name: str, rows: tuple, source: int, target: int, wait: int = 1) -> Kernel:
    """Each SPC doubles two rows, its own or the other one's, into its own; the first SPC does it `wait` times."""
    again = par(wait, op("vld", v(0), box(source, *rows)), limit=i(0, 1 - wait) + wait)
    work = op("vld", v(0), box(source, *rows)), op("vadd", v(0), v(0), v(0)), op("vst", box(target, *OWN), v(0))
    return Kernel(name, (par(2, par(2, again, *work), level="spc"),))


def rows_there_and_back(*behind: Command, wait: int = 1) -> Program:
    """x doubled, then each SPC doubles what the other one made, twice; commands stand `behind` the first run."""
    layout = Layout()
    x, one, two, out = (layout.tensor(DIMS) for _ in range(4))
    kernels = (moving("own", OWN, 0, 1, wait), moving("across", OTHER, 1, 2), moving("back", OTHER, 2, 3))
    *start, run, end = launch((0, x), (1, one), (2, two), (3, out))
    commands = (*start, run, *behind, command("run", 1, 0), MEET, command("run", 2, 0), end)
    return layout.program(
        "meetings", kernels, commands, inputs=(layout.port("x", x),), outputs=(layout.port("out", out),)
    )


def stepped(program: Program, inputs: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    """The output by the stepping engine, in a random order."""
    memory = Memory(program, TINY)
    for port in program.inputs:
        write_port(program, memory, port, inputs[port.name].astype(memory_type(port.dtype)))
    StepEngine(program, TINY, seed, "random").run(memory)
    return read_port(program, memory, program.outputs[0])


def test_kernels_are_ordered_and_read_what_other_spcs_wrote() -> None:
    assert findings(rows_there_and_back(MEET)) == []
    refused(rows_there_and_back(), "reads hbm bytes", "writes", "barrier")


@pytest.mark.parametrize("seed", range(6))
def test_values_are_right_in_every_order(seed: int) -> None:
    program = rows_there_and_back(MEET, wait=40)
    x = integers(3, DIMS)
    np.testing.assert_array_equal(stepped(program, {"x": x}, seed), 8 * x)


def test_copies_are_not_ordered() -> None:
    """To copy what the first kernel wrote the command processor has to know of its end."""
    copied = lambda barrier: rows_there_and_back(barrier, command("copy", 3, 1, (), (), 0), command("wait", 0))
    assert findings(copied(DIE)) == []
    refused(copied(MEET), "reads hbm bytes", "writes")


def test_what_a_preload_loads_may_come_from_before_the_last_meeting() -> None:
    """B is an input, and A what other SPCs make before the meeting that the preload does not wait for."""
    case = preloaded()
    *commands, end = case.program.commands
    met = replace(case.program, commands=(*(MEET if item == DIE else item for item in commands), end))
    verify_program(met, TINY)
    for seed in range(3):
        np.testing.assert_array_equal(stepped(met, case.inputs, seed), case.expected["out"])


def test_a_preload_loads_beside_the_kernel_before() -> None:
    """Also on the same SPC: of B, which that doubles in its place, it has more or less. Such programs are refused."""
    case = preloaded()
    doubled, b = command("bind", 0, 5, ()), command("bind", 1, 1, ())
    in_place = {doubled: command("bind", 0, 0, ()), b: command("bind", 1, 0, ())}
    kernels = [replace(k, nests=tuple(replace(nest, extent=1) for nest in k.nests)) for k in case.program.kernels]
    commands = tuple(in_place.get(item, item) for item in case.program.commands)
    program = replace(case.program, kernels=tuple(kernels), commands=commands)
    refused(program, "preload", "reads hbm bytes", "writes")
    rows = [stepped(program, case.inputs, seed)[:64] for seed in range(6)]
    assert any((other != rows[0]).any() for other in rows)


@pytest.mark.parametrize("flag", [250, 400, 700])
def test_the_next_kernel_starts_when_the_last_flag_was_seen(flag: int) -> None:
    machine = TINY.with_values({"cross_spc_flag_cycles": flag})
    first, second, _ = simulate(rows_there_and_back(MEET, wait=40), machine).runs
    assert first.spans[0][3] > first.spans[1][3]  # one SPC waits for the other
    assert {start for _, _, start, _ in second.spans} == {first.end_cycles + flag}


def test_waiting_is_accounted_for() -> None:
    """The time until the slower SPC has ended is a wait for its kernel, the rest what the flags take."""
    met, apart = (simulate(rows_there_and_back(barrier, wait=40), TINY) for barrier in (MEET, DIE))
    saved = TINY.die_barrier_cycles - TINY.cross_spc_flag_cycles
    assert met.latency_cycles == apart.latency_cycles - saved
    assert sum(met.ledger.values()) == TINY.spcs * met.latency_cycles
    assert met.ledger["wait_dependency"] == apart.ledger["wait_dependency"] > 0
    assert met.ledger["launch_barrier"] == apart.ledger["launch_barrier"] - 2 * saved


def test_the_command_processor_goes_on() -> None:
    """A copy behind the meeting begins while the first kernel is at work."""
    copied = rows_there_and_back(MEET, command("copy", 3, 0, (), (), 0), command("wait", 0), wait=400)
    result = simulate(copied, TINY)
    assert result.copies[0].issued_cycles < result.runs[0].end_cycles
