"""The values engine gives what the stepping engine gives, bit for bit, on handmade and random programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import BUILDERS, Case
from random_kernels import FAMILIES, MACHINE, RandomProgram

from birc.runtime.machine import load_machine
from birc.runtime.memory import Memory
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.values import ValuesEngine
from birc.runtime.values.blocks import Blocking

TINY = load_machine("tiny")
WHOLE = Blocking()
# As many blocks as there can be, on two threads.
SMALL = Blocking(product_bytes=64, vector_bytes=64, least_rows=2, least_columns=3, least_shared_cost=0)


def assert_same_memory(one: Memory, other: Memory) -> None:
    for space in ("hbm", "l2", "tb"):
        for a, b in zip(getattr(one, space), getattr(other, space), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=space)


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_handmade_programs(build: object) -> None:
    case: Case = build()
    stepped, raised = case.memory(), case.memory()
    expected = StepEngine(case.program, TINY).run(stepped)
    engine = ValuesEngine(case.program, TINY)
    counts = engine.run(raised)
    case.check(raised)
    assert_same_memory(stepped, raised)
    assert counts == expected
    assert engine.fallbacks == ()


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_kernels(family: str, data: st.DataObject) -> None:
    case: RandomProgram = data.draw(FAMILIES[family])
    stepped = case.memory()
    expected = StepEngine(case.program, MACHINE).run(stepped)
    for blocking, threads in ((WHOLE, 1), (SMALL, 2)):
        raised = case.memory()
        engine = ValuesEngine(case.program, MACHINE, threads, blocking)
        counts = engine.run(raised)
        assert_same_memory(stepped, raised)
        assert counts == expected
        assert engine.fallbacks == ()
