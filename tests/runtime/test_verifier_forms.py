"""The forms that code generation writes are proved and broken ones are not, in long kernels as in short."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from forms import Blocking, blocked_gemm, layers
from mutants import sample

from birc.runtime.machine import load_machine
from birc.runtime.program import Instruction, Program
from birc.runtime.verifier import VerificationError, kernels, verify_program
from birc.runtime.verifier.shorten import Shortener
from birc.runtime.verifier.unroll import most_events, spc_coordinates, unroll

BR100 = load_machine("br100")

CUTS = (
    Blocking(),
    Blocking(programs=1),
    Blocking(rows=1, columns=1, programs=1),
    Blocking(rows=1, columns=4, depth=1, programs=4),
    Blocking(rows=3, columns=3, chunks=1, depth=1, programs=3),
    Blocking(spc_rows=1, spc_columns=1, row_blocks=3, column_blocks=3, chunks=3),
    Blocking(spc_rows=16, spc_columns=1, row_blocks=1, column_blocks=5, chunks=2),
)


def found(program: Program) -> list[str]:
    try:
        verify_program(program, BR100)
    except VerificationError as error:
        return [str(finding) for finding in error.findings]
    return []


def with_instruction(program, mnemonic, change):
    """A program of one kernel with every instruction of a name changed."""

    def rebuild(item):
        if isinstance(item, Instruction):
            return change(item) if item.mnemonic == mnemonic else item
        return replace(item, body=tuple(rebuild(child) for child in item.body))

    (kernel,) = program.kernels
    nests = tuple(rebuild(nest) for nest in kernel.nests)
    return replace(program, kernels=(replace(kernel, nests=nests),))


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_blocked_products_are_proved(cut):
    assert found(layers(cut, 1, BR100)) == []


def test_programs_that_drain_in_turn_need_the_accumulator_to_be_free():
    """With a free accumulator for each program, the second product starts before the first is drained."""
    cut = Blocking()
    program = layers(cut, 1, BR100)
    free = 4 + cut.programs
    (kernel,) = program.kernels
    counts = (*kernel.semaphores[:free], 2)
    text = found(replace(program, kernels=(replace(kernel, semaphores=counts),)))
    assert any("overwrites the accumulator while it is read by vector program" in line for line in text)


def test_a_single_buffer_with_credits_for_two_is_a_race():
    def in_place(item):
        ring, *others = item.operands
        return replace(item, operands=(replace(ring, modulo=1), *others))

    program = with_instruction(layers(Blocking(), 1, BR100), "tlda", in_place)
    text = found(with_instruction(program, "tmma", in_place))
    assert any("overwrites the tile" in line and "while it is read by compute" in line for line in text)


def test_a_network_of_many_runs_is_quick():
    program = layers(Blocking(16, 1, 1, 4, 1, 1, 1, 1, 1), 300, BR100)
    begin = time.process_time()
    assert found(program) == []
    assert time.process_time() - begin < 5


def without_barriers(program):
    return replace(program, commands=tuple(item for item in program.commands if item.mnemonic != "barrier"))


def test_layers_need_barriers_where_spcs_read_each_other():
    program = layers(Blocking(2, 2, 1, 1, 2, 2, 1, 1, 1), 3, BR100)
    assert found(program) == []
    text = found(without_barriers(program))
    assert any("reads hbm bytes" in line and "writes" in line for line in text)
    # Here every SPC has its own rows and reads only what it wrote itself.
    assert found(without_barriers(layers(Blocking(16, 1, 1, 4, 1, 1, 1, 1, 1), 3, BR100))) == []


# --- long kernels

LONG = Blocking(spc_rows=1, spc_columns=2, row_blocks=7, column_blocks=6, chunks=5)


def test_long_kernels_are_shortened():
    kernel = blocked_gemm(LONG)
    coordinates = spc_coordinates(kernel)[0]
    whole, short = unroll(kernel, coordinates), unroll(kernel, coordinates, Shortener(kernel))
    assert whole.events == most_events(kernel)
    assert short.events < whole.events / 2
    for unrolled in (whole, short):
        load = unrolled.instances[0]
        tiles = load.ring(load.place.instruction.operands[0]).reshape(-1, LONG.rows * LONG.depth)
        # The chunks take turns in the two halves of the buffer, without a break where a loop is cut.
        assert set(np.diff(tiles[:, 0])) == {-tiles[1, 0], tiles[1, 0]}


def test_long_kernels_are_judged_as_short_ones(monkeypatch):
    program = layers(LONG, 1, BR100)
    assert found(program) == []
    monkeypatch.setattr(kernels, "WALKED_WHOLE", 0)
    assert found(program) == []
    for mutant in sample(program, 30):
        monkeypatch.setattr(kernels, "WALKED_WHOLE", 0)
        shortened = found(mutant.program)
        if shortened:
            continue  # doubts are settled by the whole walk
        monkeypatch.setattr(kernels, "WALKED_WHOLE", kernels.MOST_WALKED)
        assert found(mutant.program) == [], mutant.change


def test_kernels_beyond_all_bounds_are_refused():
    long = replace(LONG, row_blocks=1 << 12, column_blocks=1 << 8)
    kernel = blocked_gemm(long)
    program = layers(LONG, 1, BR100)
    assert any("too many to prove" in line for line in found(replace(program, kernels=(kernel,))))
