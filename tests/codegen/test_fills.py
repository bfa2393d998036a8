"""Copies into tensor buffers: what they wait for, who waits for them, and that the verifier misses none of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from filled_plan import FILL, FILLED, PRODUCT, changed
from graph_maker import GraphMaker
from machines import with_quick_link
from mutants import mutants
from near import Planned, fills, planned, whole_numbers
from pipeline import Compiled, Values

from birc.codegen.program_code import generate
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import ExchangeStep
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.passes.lifetimes import lifetimes
from birc.compiler.passes.stored_exchanges import stored_exchanges
from birc.compiler.prove import new_prover
from birc.runtime.boundary import read_port, write_port
from birc.runtime.errors import BircError
from birc.runtime.machine import load_machine
from birc.runtime.memory import Memory
from birc.runtime.program import Command, Program
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.values.engine import ValuesEngine
from birc.runtime.verifier.findings import VerificationError
from birc.runtime.verifier.verify import verify_program

TINY = load_machine("tiny")
FOUR = TINY.with_values({"spcs_per_die": 4})
X, W = whole_numbers(16, 16), whole_numbers(16, 16, seed=1)
Y = np.maximum(X, 0) @ W


def program_of(text: str) -> Program:
    """The program of a plan in text form, whose lifetimes become right."""
    plan = parse_plan(text)
    lives = lifetimes(plan)
    buffers = (replace(b, first=lives[b.name][0], last=lives[b.name][1]) for b in plan.buffers)
    return generate(replace(plan, buffers=tuple(buffers)), TINY).program


def result(program: Program, seed: int | None = None) -> np.ndarray:
    """What the program computes of `X` and `W`, step by step in an order, or at once."""
    memory = Memory(program, TINY)
    for image in program.constants:
        for die in range(program.dies):
            memory.hbm[die][image.address : image.address + image.num_bytes] = W.reshape(-1).view(np.uint8)
    write_port(program, memory, program.inputs[0], X)
    engine = ValuesEngine(program, TINY) if seed is None else StepEngine(program, TINY, seed, "random")
    engine.run(memory)
    return read_port(program, memory, program.outputs[0])


def commands(program: Program, die: int) -> list[Command]:
    """The commands that a die executes."""
    return [c for c in program.commands if isinstance(c, Command) and c.dies >> die & 1]


def enters_spcs(program: Program, command: Command) -> bool:
    if command.mnemonic != "copy":
        return False
    return program.descriptors[int(str(command.operands[0]))].space == "tb"


def filling(program: Program, die: int) -> list[int]:
    """The places of a die's commands that fill its tensor buffers."""
    return [n for n, command in enumerate(commands(program, die)) if enters_spcs(program, command)]


def places(program: Program, die: int, mnemonic: str) -> list[int]:
    return [n for n, command in enumerate(commands(program, die)) if command.mnemonic == mnemonic]


def without(program: Program, number: int) -> Program:
    return replace(program, commands=(*program.commands[:number], *program.commands[number + 1 :]))


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_every_spc_gets_its_part(seed: int | None) -> None:
    program = program_of(FILLED)
    verify_program(program, TINY)
    np.testing.assert_array_equal(result(program, seed), Y)


@pytest.mark.parametrize("source", ["%w.l2", "%w"])
def test_what_is_filled_from_may_lie_anywhere_else(source: str) -> None:
    program = program_of(changed((FILL, FILL.replace("%w.l2", source))))
    verify_program(program, TINY)
    np.testing.assert_array_equal(result(program), Y)


def test_a_fill_waits_for_the_copy_that_brings_its_source() -> None:
    """On each die; what lies in HBM from the beginning is not waited for."""
    program = program_of(FILLED)
    for die in range(2):
        (begin,) = filling(program, die)
        brought = next(c for c in commands(program, die) if c.mnemonic == "copy")
        before = [commands(program, die)[n] for n in places(program, die, "wait") if n < begin]
        assert [command.operands for command in before] == [(brought.operands[-1],)]
    program = program_of(changed((FILL, FILL.replace("%w.l2", "%w"))))
    for die in range(2):
        (begin,) = filling(program, die)
        assert not [n for n in places(program, die, "wait") if n < begin]


def test_the_kernel_that_reads_what_is_filled_waits_for_it() -> None:
    """And no kernel before: that is at work meanwhile."""
    program = program_of(FILLED)
    for die in range(2):
        (begin,) = filling(program, die)
        event = commands(program, die)[begin].operands[-1]
        first, second = places(program, die, "run")
        (awaited,) = (n for n in places(program, die, "wait") if commands(program, die)[n].operands == (event,))
        assert begin < first < awaited < second


def test_a_program_without_one_wait_is_refused() -> None:
    """For the source, or for what is filled, on either die."""
    program = program_of(FILLED)
    waits = [n for n, c in enumerate(program.commands) if isinstance(c, Command) and c.mnemonic == "wait"]
    assert len(waits) == 4
    for number in waits:
        with pytest.raises(VerificationError):
            verify_program(without(program, number), TINY)


def test_a_program_without_the_fill_is_refused() -> None:
    program = program_of(FILLED)
    (number,) = (n for n, c in enumerate(program.commands) if isinstance(c, Command) and enters_spcs(program, c))
    with pytest.raises(VerificationError):
        verify_program(without(program, number), TINY)


@cache
def filled_mutants() -> tuple[tuple[str, str, Program], ...]:
    """Programs with one fault in their commands or descriptors."""
    found = mutants(program_of(FILLED))
    return tuple((m.kind, m.change, m.program) for m in found if not m.change.startswith("kernel"))


def test_faults_in_commands_are_found_or_computed_alike() -> None:
    """In random order, too: what the verifier lets pass, no order of work shows."""
    refused, different = 0, []
    for kind, change, program in filled_mutants():
        try:
            verify_program(program, TINY)
        except (VerificationError, BircError):
            refused += 1
            continue
        if kind.endswith(" bind") or not kind.startswith(("drop", "twice", "swap")):
            continue  # Another part of the right memory: what is computed of it is no question of order.
        for seed in (None, 0, 1):
            if not np.array_equal(result(program, seed), Y):
                different.append(change)
    assert refused > 50
    assert not different


def twice() -> Program:
    end = FILLED.rindex("}\n")
    product = FILLED[FILLED.index(PRODUCT) : end]
    return program_of(FILLED[:end] + "  " + FILL + product + "}\n")


def test_a_place_in_use_is_filled_when_kernels_have_ended() -> None:
    """The command processor waits for the kernels of the die, and only in front of the second copy."""
    program = twice()
    verify_program(program, TINY)
    for die in range(2):
        first, second = filling(program, die)
        ends = [n for n in places(program, die, "barrier") if commands(program, die)[n].operands == ("die",)]
        assert not [n for n in ends if n < first]
        (end,) = (n for n in ends if first < n < second)
        assert [n for n in places(program, die, "run") if n < end][-1] > first
    np.testing.assert_array_equal(result(program, 0), Y)


def test_without_that_barrier_a_program_is_refused() -> None:
    program = twice()
    found = [n for n, c in enumerate(program.commands) if c == Command("barrier", ("die",), 3)]
    assert found
    with pytest.raises(VerificationError):
        verify_program(without(program, found[0]), TINY)


def chain(count: int = 6, width: int = 64) -> Graph:
    make = GraphMaker()
    x = make.input(width, width)
    for number in range(count):
        weights = make.constant(np.roll(np.eye(width), number, axis=1) * (1 + number % 2))
        x = make("relu", make("matmul", x, weights))
    return make.graph(x)


def check(found: Compiled, graph: Graph) -> None:
    found.verify()
    assert not [*new_prover().flaws(found.plan, found.machine)]
    inputs: Values = {value.name: whole_numbers(*value.type.sizes) for value in graph.inputs}
    (expected,) = run_graph(graph, inputs).values()
    for outputs in (found.values(inputs), *(found.step(inputs, "random", seed) for seed in range(2))):
        (value,) = outputs.values()
        np.testing.assert_array_equal(value, expected)


def reused(found: Compiled, die: int) -> Iterator[tuple[int, int]]:
    """The copies of a die into places that another one filled before, and those."""
    program = found.program
    of_die = commands(program, die)
    targets = {n: program.descriptors[int(str(of_die[n].operands[0]))] for n in filling(program, die)}
    for second, target in targets.items():
        for first, other in targets.items():
            if first < second and other.address == target.address:
                yield first, second


def plans_of(graph: Graph, *, quick: bool = False) -> list[Planned]:
    machine = with_quick_link("tiny").with_values({"spcs_per_die": 4}) if quick else FOUR
    return [one for one in planned(graph, machine) if one.plan.repeat == 1]


def test_places_of_weights_are_taken_in_turn() -> None:
    """In a chain few weights are near at a time: who comes later waits for the end of who was there."""
    graph = chain(8)
    count = 0
    for one in plans_of(graph):
        found = one.near(one.offers())
        assert len({step.target.buffer for step in fills(found.plan)}) >= 5
        assert found.plan.tensor_buffer_bytes < sum(b.num_bytes for b in found.plan.buffers if b.space == "tb")
        for die in range(2):
            for first, second in reused(found, die):
                of_die = commands(found.program, die)
                event = of_die[first].operands[-1]
                reader = next(n for n in places(found.program, die, "wait") if of_die[n].operands == (event,))
                run = next(n for n in places(found.program, die, "run") if n > reader)
                ends = [n for n in places(found.program, die, "barrier") if of_die[n].operands != ("spcs",)]
                assert any(run < n < second for n in ends)
                count += 1
        check(found, graph)
    assert count


def test_dies_that_store_on_each_other_fill_meanwhile() -> None:
    """The SPCs of both meet; then the command processor of each knows that its own have ended, for the next copies."""
    graph = chain()
    (one, *_) = plans_of(graph, quick=True)
    one = replace(one, plan=stored_exchanges(one.plan))
    meetings = [step for step in one.plan.steps if isinstance(step, ExchangeStep)]
    assert meetings
    assert all(step.stored for step in meetings)
    offers = one.offers()
    assert len(offers) == 4
    found = one.near(offers)
    check(found, graph)
    for die in range(2):
        of_die = commands(found.program, die)
        met = [n for n in places(found.program, die, "barrier") if of_die[n].operands == ("all_spcs",)]
        assert len(met) == len(meetings)
        for number in met:
            assert of_die[number + 1].operands == ("die",)


def test_dies_that_send_to_each_other_fill_meanwhile() -> None:
    """Exchanges by transfers."""
    graph = chain()
    (one, *_) = plans_of(graph, quick=True)
    assert [step.stored for step in one.plan.steps if isinstance(step, ExchangeStep)] == [False] * 5
    check(one.near(one.offers()), graph)


def test_without_fills_a_plan_is_written_as_before() -> None:
    """No command processor waits where SPCs meet if nothing is copied to them."""
    (one, *_) = plans_of(chain(), quick=True)
    program = replace(one, plan=stored_exchanges(one.plan)).compiled().program
    for die in range(2):
        of_die = commands(program, die)
        assert ("die",) not in [c.operands for c in of_die if c.mnemonic == "barrier"]
        assert not filling(program, die)
