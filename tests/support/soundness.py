"""Whether a program gives the same outputs in every order of execution, and on memory of any content.

`fill` puts inputs and constants into a fresh memory: a `Case` has values for them, `random_fill` makes some.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from mutants import Mutant
from program_cases import Case, write_port

from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.memory import Memory
from birc.runtime.program import Program
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.verifier import VerificationError, verify_program

Fill = Callable[[Program, Memory], None]

RANDOM_ORDERS = 2
# What no verifier can see: the indices that an indexed load finds in memory.
FAULTS_OF_DATA = ("an indexed load has the index",)
# -2, -1, -0.5, 0.5, 1 and 2 in BF16; two of them make an FP32 of nearly the same value.
FEW_VALUES = np.array([0xC000, 0xBF80, 0xBF00, 0x3F00, 0x3F80, 0x4000], np.uint16)


def case_fill(case: Case) -> Fill:
    """The inputs of a program written by hand."""

    def fill(program: Program, memory: Memory) -> None:
        for port in program.inputs:
            write_port(program, memory, port, case.inputs[port.name])

    return fill


def random_fill(program: Program, memory: Memory) -> None:
    """Small values in all constants and inputs, the same each time."""
    rng = np.random.default_rng(1)
    for image in program.constants:
        values = rng.choice(FEW_VALUES, -(-image.num_bytes // 2)).view(np.uint8)[: image.num_bytes]
        for die in _dies(program, image.dies):
            memory.hbm[die][image.address : image.address + image.num_bytes] = values
    for port in program.inputs:
        for piece in port.pieces:
            values = rng.integers(-3, 4, program.descriptors[piece.descriptor].dims)
            for die in _dies(program, piece.dies):
                memory.view(program.descriptors[piece.descriptor], die)[...] = values


def accepted(program: Program, machine: Machine) -> bool:
    try:
        verify_program(program, machine)
    except VerificationError:
        return False
    return True


def check_all(program_name: str, machine: Machine, fill: Fill, chosen: Iterable[Mutant]) -> Counter[str]:
    """Verify mutants and execute the accepted ones; returns how many of each kind were refused."""
    refused: Counter[str] = Counter()
    for mutant in chosen:
        if accepted(mutant.program, machine):
            check_sound(f"{program_name}: {mutant.kind}: {mutant.change}", mutant.program, machine, fill)
        else:
            refused[mutant.kind] += 1
    return refused


def check_sound(name: str, program: Program, machine: Machine, fill: Fill) -> None:
    """Execute an accepted program in several orders and on memory of different content."""
    try:
        expected = _outputs_or_fault(program, machine, fill)
        for seed in range(RANDOM_ORDERS):
            found = _outputs_or_fault(program, machine, fill, seed)
            assert (expected is None) == (found is None), name
            for mine, theirs in zip(expected or (), found or (), strict=True):
                np.testing.assert_array_equal(mine, theirs, err_msg=name)
    except MachineFault as fault:
        pytest.fail(f"{name}: accepted, but {fault}")


def _outputs_or_fault(program: Program, machine: Machine, fill: Fill, seed: int | None = None) -> list | None:
    """The pieces of all outputs, or None for a fault of the data; without a seed in sequential order."""
    memory = Memory(program, machine, poison=seed is None or bool(seed % 2))
    fill(program, memory)
    order = "sequential" if seed is None else "random"
    try:
        StepEngine(program, machine, seed=seed or 0, order=order).run(memory)
    except MachineFault as fault:
        if any(text in str(fault) for text in FAULTS_OF_DATA):
            return None
        raise
    return [
        memory.view(program.descriptors[piece.descriptor], die).copy()
        for port in program.outputs
        for piece in port.pieces
        for die in _dies(program, piece.dies)
    ]


def _dies(program: Program, mask: int) -> list[int]:
    return [die for die in range(program.dies) if mask >> die & 1]
