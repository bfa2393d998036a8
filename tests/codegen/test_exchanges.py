"""Exchanges between the dies of more boxes than the machine has events."""

from __future__ import annotations

from birc.codegen.program_code import EVENTS, generate
from birc.compiler.ir.plan import Buffer, Exchange, ExchangeStep, Plan, View
from birc.runtime.machine import load_machine
from birc.runtime.timing import simulate

ROW = 16


def test_transfers_wait_for_each_other_when_all_events_are_in_use() -> None:
    count = EVENTS + 10
    boxes = tuple(Exchange(View("t", row * ROW, (ROW,), (1,)), row % 2) for row in range(count))
    buffer = Buffer("t", "f32", count * ROW * 4, "scratch", address=0, first=0, last=0)
    machine = load_machine("tiny")
    plan = Plan("exchange", "tiny", "model", 2, (buffer,), (ExchangeStep(boxes),), (), ())
    program = generate(plan, machine).program
    commands = [(command.mnemonic, command.operands) for command in program.commands]
    transfers = [operands[2] for mnemonic, operands in commands if mnemonic == "transfer"]
    waits = [operands[0] for mnemonic, operands in commands if mnemonic == "wait"]
    assert len(transfers) == count
    assert sorted(transfers) == sorted(waits)
    assert simulate(program, machine).latency_cycles > 0
