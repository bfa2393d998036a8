"""Exchanges between the dies: events and barriers are as many as it takes for the verifier to prove the order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from hypothesis import assume, given, settings
from machines import with_quick_link
from networks import exported_network, relative_error
from pipeline import Compiled, compile_graph
from random_graphs import graphs

from birc.codegen import command_log
from birc.codegen.command_log import EVENTS
from birc.codegen.program_code import generate
from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import (
    Access,
    Boundary,
    Buffer,
    CopyStep,
    Dimension,
    Exchange,
    ExchangeStep,
    Index,
    Kernel,
    KernelStep,
    Phase,
    Plan,
    Statement,
    Step,
    Tiling,
    View,
)
from birc.runtime.machine import load_machine
from birc.runtime.program import Command, Program
from birc.runtime.timing import simulate
from birc.runtime.verifier.verify import verify_program

ROW = 16
BOTH = 2
QUICK = with_quick_link("tiny")


def commands_of(program: Program) -> list[tuple[str, tuple[object, ...]]]:
    return [(c.mnemonic, c.operands) for c in program.commands if isinstance(c, Command)]


def device_barriers(program: Program) -> int:
    """Those between the first command and the one at the end."""
    return sum(command == ("barrier", ("device",)) for command in commands_of(program)) - 1


def exchanges(case: Compiled) -> int:
    return sum(isinstance(step, ExchangeStep) for step in case.plan.steps)


def halves(buffer: str, senders: Sequence[int] = (0, 1)) -> ExchangeStep:
    """Each sender sends its row of a buffer of two rows."""
    return ExchangeStep(tuple(Exchange(row_of(buffer, die), die) for die in senders))


def copying(source: View, target: View) -> Kernel:
    """A kernel that copies a row."""
    index = (Index((("i", 1),)),)
    statements = (
        Statement("vld", "v0", access=Access(source, index)),
        Statement("vst", arguments=("v0",), access=Access(target, index)),
    )
    return Kernel("copying", (Dimension("i", ROW),), (Phase(statements),), tiling=Tiling((("i", ROW),)))


def filling(target: View) -> Kernel:
    """A kernel that copies the input to every row of a matrix."""
    column = Index((("i", 1),))
    source = Access(View("x", 0, (1, ROW), (0, 1)), (Index(), column))
    statements = (
        Statement("vld", "v0", access=source),
        Statement("vst", arguments=("v0",), access=Access(target, (Index((("r", 1),)), column))),
    )
    space = (Dimension("r", target.dims[0]), Dimension("i", ROW))
    return Kernel("filling", space, (Phase(statements),), tiling=Tiling((("i", ROW),)))


def row_of(buffer: str, number: int = 0) -> View:
    return View(buffer, number * ROW, (ROW,), (1,))


def plan_of(buffers: Sequence[Buffer], steps: Sequence[Step]) -> Plan:
    """A plan on two dies with an input of a row, and an output of two that die 0 has."""
    boundary = (
        Buffer("x", "f32", ROW * 4, "input", address=0),
        Buffer("y", "f32", 2 * ROW * 4, "output", address=4096),
    )
    inputs = (Boundary("x", "f32", (ROW,), ((3, (0,), row_of("x")),)),)
    outputs = (Boundary("y", "f32", (2, ROW), ((1, (0, 0), View("y", 0, (2, ROW), (ROW, 1))),)),)
    return Plan("exchange", "tiny", "model", BOTH, (*boundary, *buffers), tuple(steps), inputs, outputs)


def scratch(name: str, address: int) -> Buffer:
    return Buffer(name, "f32", 2 * ROW * 4, "scratch", "l2", address)


def each(source: str, target: str) -> KernelStep:
    """Die n writes row n of the target from the input or from the whole of another buffer."""
    return KernelStep(tuple(copying(row_of(source, 0), row_of(target, die)) for die in range(BOTH)))


def finish(source: str, rows: Sequence[int] = (0, 1)) -> list[KernelStep]:
    """Two rows to the output, by die 0."""
    return [KernelStep((copying(row_of(source, row), row_of("y", place)), None)) for place, row in enumerate(rows)]


def on(die: int, kernel: Kernel) -> KernelStep:
    """A kernel of one die."""
    return KernelStep(tuple(kernel if number == die else None for number in range(BOTH)))


def test_transfers_wait_for_each_other_when_all_events_are_in_use() -> None:
    count = EVENTS + 10
    boxes = tuple(Exchange(View("t", row * ROW, (ROW,), (1,)), row % 2) for row in range(count))
    buffer = Buffer("t", "f32", count * ROW * 4, "scratch", address=8192, first=0, last=0)
    writes = KernelStep(tuple(filling(View("t", die * ROW, (count // 2, ROW), (2 * ROW, 1))) for die in range(BOTH)))
    machine = load_machine("tiny")
    plan = plan_of((buffer,), (writes, ExchangeStep(boxes), *finish("t")))
    program = generate(plan, machine).program
    transfers = [operands[2] for mnemonic, operands in commands_of(program) if mnemonic == "transfer"]
    waits = [operands[0] for mnemonic, operands in commands_of(program) if mnemonic == "wait"]
    assert len(transfers) == count
    assert sorted(transfers) == sorted(waits)
    verify_program(program, machine)
    assert simulate(program, machine).latency_cycles > 0


def test_halves_need_no_device_barrier() -> None:
    steps = [each("x", "t"), halves("t"), *finish("t")]
    program = generate(plan_of((scratch("t", 0),), steps), load_machine("tiny")).program
    verify_program(program, load_machine("tiny"))
    assert device_barriers(program) == 0


@pytest.mark.parametrize(("address", "barriers"), [(0, 1), (2 * ROW * 4, 0)])
def test_memory_that_the_other_die_may_still_read_needs_one(address: int, barriers: int) -> None:
    """Die 1 reads `s`, then `t` comes to where that lay: or beside it."""
    steps = [each("x", "s"), on(1, copying(row_of("s", 1), row_of("u"))), each("x", "t"), halves("t"), *finish("t")]
    buffers = (scratch("s", 0), scratch("u", 4 * ROW * 4), scratch("t", address))
    program = generate(plan_of(buffers, steps), load_machine("tiny")).program
    verify_program(program, load_machine("tiny"))
    assert device_barriers(program) == barriers


@pytest.mark.parametrize("sender", [0, 1])
def test_who_only_receives_is_not_heard(sender: int) -> None:
    """What one die sends tells nothing of the other: that one may still read what is overwritten next."""
    receiver = 1 - sender
    steps = [
        on(receiver, copying(row_of("x"), row_of("r", sender))),
        on(receiver, copying(row_of("r", sender), row_of("u"))),
        each("x", "s"),
        halves("s", (sender,)),
        each("x", "t"),
        halves("t", (sender,)),
        *finish("x", (0, 0)),
    ]
    buffers = (scratch("r", 0), scratch("s", 4 * ROW * 4), scratch("u", 8 * ROW * 4), scratch("t", 0))
    program = generate(plan_of(buffers, steps), load_machine("tiny")).program
    verify_program(program, load_machine("tiny"))
    assert device_barriers(program) == 1


def chain(layers: int) -> Graph:
    """Layers whose columns the dies divide; each needs the whole result of the one before."""
    make = GraphMaker()
    x = make.input(2, 96)
    for _ in range(layers):
        x = make("tanh", make("matmul", x, make.random(96, 96, low=-0.2, high=0.2)))
    return make.graph(x)


@pytest.mark.parametrize("events", [5, 6, 8, 9, 12])
def test_events_are_used_again_in_an_order_that_both_dies_know(events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are on their way while exchanges come and go, and take events again that copies have set."""
    monkeypatch.setattr(command_log, "EVENTS", events)
    case = compile_graph(chain(8), QUICK.with_values({"spc_sram_bytes": 1 << 20}))
    assert exchanges(case) == 7
    copies = sum(mnemonic == "copy" for mnemonic, _ in commands_of(case.program))
    assert copies == 8
    case.verify()
    inputs = random_inputs(case.graph)
    (expected,) = run_graph(case.graph, inputs).values()
    for values in (case.step(inputs, "random", 3), case.values(inputs)):
        np.testing.assert_allclose(next(iter(values.values())), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["bert_base", "gpt2", "llama2l"])
def test_most_exchanges_of_a_network_need_no_device_barrier(name: str) -> None:
    network = exported_network(name)
    case = compile_graph(import_model(network.model), QUICK)
    case.verify()
    assert exchanges(case) >= 12
    assert 4 * device_barriers(case.program) <= exchanges(case)
    for key, actual in case.values(network.inputs).items():
        assert relative_error(actual, network.outputs[key]) <= 2e-3


@settings(max_examples=40, deadline=None)
@given(graph=graphs())
def test_random_graphs_on_two_dies(graph: Graph) -> None:
    inputs = random_inputs(graph)
    expected = run_graph(graph, inputs)
    assume(all(np.isfinite(array).all() for array in expected.values()))
    case = compile_graph(graph, QUICK)
    case.verify()
    for values in (case.step(inputs, "random", 7), case.values(inputs)):
        for name, reference in expected.items():
            scale = float(np.abs(reference).max(initial=0.0)) + 1.0
            np.testing.assert_allclose(values[name], reference, atol=2e-3 * scale, rtol=2e-3)


def sending(source: View, target: View) -> Kernel:
    """A kernel that copies a row, and stores it on the other die as well."""
    kernel = copying(source, target)
    ((load, store),) = (phase.statements for phase in kernel.phases)
    assert store.access is not None
    over = replace(store, access=replace(store.access, view=replace(target, away=True)))
    return replace(kernel, name="sending", phases=(Phase((load, store, over)),))


def test_spcs_of_both_dies_meet_before_a_copy_waits_for_kernels_of_its_own_die() -> None:
    """The copy comes to where this die's kernels read; what the other die stores here lies elsewhere."""
    constant = Buffer("c", "f32", 2 * ROW * 4, "constant", address=8192)
    twin = Buffer("t", "f32", 2 * ROW * 4, "scratch", "l2", 1024, home="c")
    steps = (
        each("x", "u"),
        KernelStep(tuple(sending(row_of("u", die), row_of("s", die)) for die in range(BOTH))),
        CopyStep("c", "t"),
        replace(halves("s"), stored=True),
        on(0, copying(row_of("s", 1), row_of("y", 0))),
        on(0, copying(row_of("t", 1), row_of("y", 1))),
    )
    program = generate(plan_of((scratch("u", 1024), scratch("s", 2048), constant, twin), steps), QUICK).program
    verify_program(program, QUICK)
    commands = [command for command in commands_of(program) if command[0] in ("run", "barrier", "copy")]
    copied = next(place for place, (mnemonic, _) in enumerate(commands) if mnemonic == "copy")
    assert [operands for _, operands in commands[copied - 2 : copied]] == [("all_spcs",), ("die",)]
    assert device_barriers(program) == 0
