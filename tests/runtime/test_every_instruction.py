"""Every row of the instruction table has a meaning, a vectorised form and a cost."""

from __future__ import annotations

import pytest

from birc.runtime.isa import INSTRUCTIONS, PIPES
from birc.runtime.stepping.instructions import EXECUTE
from birc.runtime.values.trace_instructions import TRACERS

MNEMONICS = [row.mnemonic for row in INSTRUCTIONS]


@pytest.mark.parametrize("mnemonic", MNEMONICS)
def test_the_stepping_engine_executes_it(mnemonic: str) -> None:
    assert mnemonic in EXECUTE


@pytest.mark.parametrize("mnemonic", MNEMONICS)
def test_the_values_engine_raises_it(mnemonic: str) -> None:
    assert mnemonic in TRACERS


def test_pipes_are_those_that_the_timing_engine_costs() -> None:
    assert {row.pipe for row in INSTRUCTIONS} <= set(PIPES)


def test_engines_know_nothing_else() -> None:
    assert set(TRACERS) == set(MNEMONICS)
