"""Mutants of whole programs: each is refused, or has the same outputs in every order of execution.

A mutant that the verifier accepts may be another program than the original, but it must be a sound one: it
ends in every order, gives the values of its own sequential order, and reads nothing that was never written.
"""

from __future__ import annotations

import pytest
from mutants import mutants, sample
from programs import BUILDERS
from soundness import accepted, case_fill, check_all, check_sound, random_fill
from verifying import CASES, TINY

MUTANTS_A_PROGRAM = 70


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sampled_mutants_are_refused_or_sound(case):
    chosen = sample(case.program, MUTANTS_A_PROGRAM)
    assert len(chosen) >= 40
    refused = check_all(case.name, TINY, case_fill(case), chosen)
    assert refused.total() >= len(chosen) // 3


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_mutants_are_refused_or_sound(case):
    assert check_all(case.name, TINY, case_fill(case), mutants(case.program)).total()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_programs_are_sound_on_made_up_values(case):
    if case.name != "gather":  # whose indices must be in range
        check_sound(case.name, case.program, TINY, random_fill)


def test_every_dropped_wait_and_post_is_refused():
    for case in CASES:
        for mutant in mutants(case.program):
            if mutant.kind in ("drop waits", "drop posts"):
                assert not accepted(mutant.program, TINY), f"{case.name}: {mutant.change}"


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
        "bind advance", "run kernel", "barrier scope",
        "drop preload", "swap preload", "twice preload", "preload kernel", "launch spcs", "die mask", "command loop",
        "drop vector", "drop compute", "drop load_a", "drop load_b", "window start", "window rows",
        "window columns", "window pitch",
    }  # fmt: skip
    assert wanted <= kinds, wanted - kinds
    assert len(BUILDERS) == len(CASES)


def test_mutants_differ_from_their_program():
    for case in CASES:
        assert all(mutant.program != case.program for mutant in sample(case.program, 100))
