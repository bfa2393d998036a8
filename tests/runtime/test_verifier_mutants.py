"""Mutants of whole programs: each is refused, or has the same outputs in every order of execution.

A mutant that the verifier accepts may be another program than the original, but it must be a sound one: it
ends in every order, gives the values of its own sequential order, and reads nothing that was never written.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from mutants import mutants, sample
from programs import BUILDERS, write_port
from verifying import CASES, TINY

from birc.runtime.faults import MachineFault
from birc.runtime.memory import Memory
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.verifier import VerificationError, verify_program

MUTANTS_A_PROGRAM = 70
RANDOM_ORDERS = 2
# What no verifier can see: the indices that an indexed load finds in memory.
FAULTS_OF_DATA = ("an indexed load has the index",)


def accepted(program):
    try:
        verify_program(program, TINY)
    except VerificationError:
        return False
    return True


def outputs(case, program, *, poison=True, **order):
    """The pieces of all outputs after an execution."""
    memory = Memory(program, TINY, poison=poison)
    for port in program.inputs:
        write_port(program, memory, port, case.inputs[port.name])
    StepEngine(program, TINY, **order).run(memory)
    pieces = [piece for port in program.outputs for piece in port.pieces]
    return [
        memory.view(program.descriptors[piece.descriptor], die).copy()
        for piece in pieces
        for die in range(program.dies)
        if piece.dies >> die & 1
    ]


def outputs_or_fault(case, program, **order):
    """The outputs, or None for a fault that depends on data."""
    try:
        return outputs(case, program, **order)
    except MachineFault as fault:
        if any(text in str(fault) for text in FAULTS_OF_DATA):
            return None
        raise


def check_sound(case, mutant):
    """Execute an accepted mutant in several orders and on memory of different content."""
    place = f"{case.name}: {mutant.kind}: {mutant.change}"
    try:
        expected = outputs_or_fault(case, mutant.program)
        for seed in range(RANDOM_ORDERS):
            found = outputs_or_fault(case, mutant.program, order="random", seed=seed, poison=bool(seed % 2))
            assert (expected is None) == (found is None), place
            for mine, theirs in zip(expected or (), found or (), strict=True):
                np.testing.assert_array_equal(mine, theirs, err_msg=place)
    except MachineFault as fault:
        pytest.fail(f"{place}: accepted, but {fault}")


def check_all(case, chosen):
    """Verify mutants and execute the accepted ones; returns how many of each kind were refused."""
    refused = Counter()
    for mutant in chosen:
        if accepted(mutant.program):
            check_sound(case, mutant)
        else:
            refused[mutant.kind] += 1
    return refused


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sampled_mutants_are_refused_or_sound(case):
    chosen = sample(case.program, MUTANTS_A_PROGRAM)
    assert len(chosen) >= 40
    refused = check_all(case, chosen)
    assert refused.total() >= len(chosen) // 3


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_mutants_are_refused_or_sound(case):
    assert check_all(case, mutants(case.program)).total()


def test_every_dropped_wait_and_post_is_refused():
    for case in CASES:
        for mutant in mutants(case.program):
            if mutant.kind in ("drop waits", "drop posts"):
                assert not accepted(mutant.program), f"{case.name}: {mutant.change}"


def test_mutants_reach_every_class_of_field():
    kinds = {mutant.kind for case in CASES for mutant in mutants(case.program)}
    wanted = {
        "drop waits", "drop posts", "waits mask", "posts mask", "waits semaphore", "posts semaphore",
        "initial count", "ring base", "ring stride", "ring modulo", "ring index", "loop extent",
        "loop kind", "loop level", "loop limit", "box start", "box extent", "box step", "box slot",
        "box fill", "box rank", "register", "program", "mask first", "u16", "enum", "descriptor address",
        "descriptor dims", "descriptor stride", "descriptor origin", "descriptor space", "drop barrier",
        "swap barrier", "twice barrier", "drop wait", "swap wait", "swap copy", "swap transfer",
        "wait event", "copy event", "copy dst", "copy src", "bind slot", "bind descriptor",
        "bind advance", "run kernel", "barrier scope", "launch spcs", "die mask", "command loop",
        "drop vector", "drop compute", "drop load_a", "drop load_b",
    }  # fmt: skip
    assert wanted <= kinds, wanted - kinds
    assert len(BUILDERS) == len(CASES)


def test_mutants_differ_from_their_program():
    for case in CASES:
        assert all(mutant.program != case.program for mutant in sample(case.program, 100))
