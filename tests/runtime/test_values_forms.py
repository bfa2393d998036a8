"""What the values engine does with programs out of the ordinary: odd nests, faults, constants, equal dies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from programs import (
    BOTH_DIES,
    SPCS,
    Layout,
    box,
    command,
    i,
    launch,
    op,
    par,
    red,
    v,
)
from random_kernels import MACHINE, RandomProgram
from random_nests import nests

from birc.runtime.errors import BircError
from birc.runtime.faults import MachineFault
from birc.runtime.memory import Memory
from birc.runtime.program import (
    Affine,
    ConstantImage,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    Program,
    RingAddress,
)
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.values import ValuesEngine
from birc.runtime.values.actions import MakeCopy, TakeResults
from birc.runtime.values.blocks import Blocking

SMALL = Blocking(product_bytes=64, vector_bytes=64, least_rows=2, least_columns=3, least_shared_cost=0)


def run_both(program: Program, fill: dict[int, np.ndarray]) -> tuple[Memory, Memory, ValuesEngine]:
    """The memories after the stepping and the values engine."""
    stepped, raised = Memory(program, MACHINE), Memory(program, MACHINE)
    for memory in (stepped, raised):
        for number, values in fill.items():
            for die in range(program.dies):
                memory.view(program.descriptors[number], die)[...] = values
    expected = StepEngine(program, MACHINE).run(stepped)
    engine = ValuesEngine(program, MACHINE, 2)
    assert engine.run(raised) == expected
    for one, other in zip(stepped.hbm, raised.hbm, strict=True):
        np.testing.assert_array_equal(one, other)
    return stepped, raised, engine


@given(case=nests())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_nest_gives_what_stepping_it_gives(case: RandomProgram):
    stepped, raised = case.memory(), case.memory()
    try:
        expected = StepEngine(case.program, MACHINE).run(stepped)
    except MachineFault:
        assume(False)
    assert ValuesEngine(case.program, MACHINE, 2, SMALL).run(raised) == expected
    np.testing.assert_array_equal(stepped.hbm[0], raised.hbm[0])


def simple(*body: Loop | Instruction, tensors: int = 2, dtype: str = "f32") -> Program:
    """A kernel on vectors of 64 elements: slot n is tensor n."""
    layout = Layout()
    slots = [layout.tensor((64,), dtype) for _ in range(tensors)]
    kernel = Kernel("simple", body)
    return layout.program("simple", (kernel,), launch(*enumerate(slots)), inputs=(), outputs=())


def test_in_place_keeps_what_is_read_later():
    """x is loaded, overwritten, and the loaded value used again: the load must not be a view."""
    where = box(0, (i(0, 8), 8))
    program = simple(
        par(
            8,
            op("vld", v(0), where),
            op("vadd", v(1), v(0), 1.0),
            op("vst", where, v(1)),
            op("vmul", v(2), v(0), 3.0),
            op("vst", box(1, (i(0, 8), 8)), v(2)),
        )
    )
    _, _, engine = run_both(program, {0: np.arange(64), 1: np.zeros(64)})
    assert engine.fallbacks == ()


@pytest.mark.parametrize("begins", [False, True])
def test_what_only_some_iterations_execute(begins: bool):
    """A loop of one iteration at most, which is left out behind the first three of eight, or in front of the last."""
    limit = i(0) + -4 if begins else i(0, -1) + 3
    where = (i(0, 8), 8)
    program = simple(
        par(
            8,
            op("vld", v(0), box(0, where)),
            par(1, op("vmul", v(0), v(0), 3.0), limit=limit),
            op("vst", box(1, where), v(0)),
        )
    )
    _, raised, engine = run_both(program, {0: np.arange(64), 1: np.zeros(64)})
    part = np.arange(64) >= 40 if begins else np.arange(64) < 24
    np.testing.assert_array_equal(raised.view(program.descriptors[1], 0), np.arange(64) * np.where(part, 3, 1))
    assert engine.fallbacks == ()


def test_a_scratch_that_iterations_share_is_stepped():
    scratch, result = box(1, (0, 8)), box(2, (i(0, 8), 8))
    program = simple(
        par(
            8,
            op("vld", v(0), box(0, (i(0, 8), 8))),
            op("vst", scratch, v(0)),
            op("vld", v(1), box(1, (0, 8))),
            op("vst", result, v(1)),
        ),
        tensors=3,
    )
    _, _, engine = run_both(program, {0: np.arange(64)})
    assert [fallback.raised for fallback in engine.fallbacks] == [True]


def test_a_tile_loaded_before_a_store_is_not_loaded_again():
    """The tile is loaded, then its memory overwritten, then it is multiplied."""
    layout = Layout()
    a, out = layout.tensor((4, 4), "bf16"), layout.tensor((4, 4))
    matrix = box(0, (0, 4), (0, 4))
    from_zero = op("vmovi", v(0), 0.0, (4, 4))
    ring = RingAddress(Affine())
    body = (
        op("tlda", ring, matrix, 1, "bf16"),
        op("tldb", ring, matrix, 1, "bf16"),
        from_zero,
        op("vst", matrix, v(0)),
        op("tmma", ring, ring, 4, 4, 4, "bf16", 0),
        op("vacc", v(1), (4, 4), 0),
        op("vst", box(1, (0, 4), (0, 4)), v(1)),
    )
    kernel = Kernel("overwritten", body)
    program = layout.program("overwritten", (kernel,), launch((0, a), (1, out)), inputs=(), outputs=())
    _, _, engine = run_both(program, {a: np.arange(16).reshape(4, 4) % 5})
    assert [fallback.raised for fallback in engine.fallbacks] == [False]


def test_registers_that_kernel_nests_share():
    """Two nests of one kernel: the second reads what the first left in a register of its SPC."""
    layout = Layout()
    x, out = layout.tensor((8,)), layout.tensor((8,))
    part = (i(0, 4), 4)
    first = par(2, op("vld", v(3), box(0, part)), level="spc")
    second = par(2, op("vadd", v(4), v(3), 2.0), op("vst", box(1, part), v(4)), level="spc")
    kernel = Kernel("two nests", (first, second))
    program = layout.program("two", (kernel,), launch((0, x), (1, out)), inputs=(), outputs=())
    _, _, engine = run_both(program, {x: np.arange(8)})
    assert engine.fallbacks == ()


def test_a_launch_without_all_spcs_leaves_out_their_iterations():
    layout = Layout()
    x, out = layout.tensor((8,)), layout.tensor((8,))
    body = (op("vld", v(0), box(0, (i(0, 4), 4))), op("vst", box(1, (i(0, 4), 4)), v(0)))
    kernel = Kernel("half", (par(2, *body, level="spc"),))
    commands = (command("launch", 0b10, "main"), *launch((0, x), (1, out))[1:])
    program = layout.program("half", (kernel,), commands, inputs=(), outputs=())
    _, raised, _ = run_both(program, {x: np.arange(8), out: np.zeros(8)})
    np.testing.assert_array_equal(raised.view(program.descriptors[out], 0), [0, 0, 0, 0, 4, 5, 6, 7])


@pytest.mark.parametrize(
    ("body", "dtype"),
    [
        ((op("vld", v(0), box(0, (60, 8), fill="refuse")), op("vst", box(1, (0, 8)), v(0))), "f32"),
        ((op("vld", v(0), box(0, (0, 8))), op("vst", box(1, (0, 8)), 0.5)), "i32"),
        ((op("vadd", v(0), v(1), v(1)), op("vst", box(1, (0, 8)), v(0))), "f32"),
        (
            (
                op("vld", v(0), box(0, (0, 8))),
                op("vldx", v(1), box(0, (0, 1)), v(0), 0, 3),
                op("vst", box(1, (0, 8)), v(1)),
            ),
            "i32",
        ),
        ((op("vld", v(0), box(0, (0, 8))), op("vst", box(1, (0, 8)), v(0))), "i64"),
    ],
    ids=["leaves its tensor", "floats to integers", "never written", "index too large", "beyond 32 bits"],
)
def test_faults_are_those_of_the_stepping_engine(body: tuple[Instruction, ...], dtype: str):
    program = simple(*body, dtype=dtype)
    for engine in (StepEngine(program, MACHINE), ValuesEngine(program, MACHINE)):
        memory = Memory(program, MACHINE, poison=False)
        memory.view(program.descriptors[0], 0)[...] = 2**40 if dtype == "i64" else 5
        with pytest.raises(BircError):
            engine.run(memory)


def test_wide_elements_of_an_s8_tile_are_refused():
    layout = Layout()
    a, b, out = layout.tensor((4, 4), "i32"), layout.tensor((4, 4), "i8"), layout.tensor((4, 4))
    ring = RingAddress(Affine())
    matrix = ((0, 4), (0, 4))
    body = (
        op("tlda", ring, box(0, *matrix), 1, "s8"),
        op("tldb", ring, box(1, *matrix), 1, "s8"),
        op("tmma", ring, ring, 4, 4, 4, "s8", 0),
        op("vacc", v(0), (4, 4), 0),
        op("vst", box(2, *matrix), v(0)),
    )
    kernel = Kernel("s8", body)
    bindings = launch((0, a), (1, b), (2, out))
    program = layout.program("s8", (kernel,), bindings, inputs=(), outputs=())
    memory = Memory(program, MACHINE, poison=False)
    memory.view(program.descriptors[a], 0)[1, 2] = 200
    with pytest.raises(MachineFault, match="8 bits"):
        ValuesEngine(program, MACHINE).run(memory)


# --- what is known before a run


def constant_product() -> tuple[Program, int, int, int]:
    """Weights of the constants, brought to the L2 of both dies, times x: (program, x, weights, out)."""
    layout = Layout()
    x, weights, out = layout.tensor((6, 8)), layout.tensor((8, 5)), layout.tensor((6, 5))
    near = layout.tensor((8, 5), space="l2")
    ring = RingAddress(Affine())
    body = (
        red(2, op("tlda", ring, box(0, (0, 6), (i(0, 4), 4)), 1, "tf32p"),
            op("tldb", ring, box(1, (i(0, 4), 4), (0, 5)), 1, "tf32p"),
            op("tmma", ring, ring, 6, 5, 4, "tf32p", 1)),
        op("vacc", v(0), (6, 5), 0),
        op("vst", box(2, (0, 6), (0, 5)), v(0)),
    )  # fmt: skip
    commands = (
        command("launch", SPCS, "main", dies=BOTH_DIES),
        command("copy", near, weights, (), (), 0, dies=BOTH_DIES),
        command("wait", 0, dies=BOTH_DIES),
        *(command("bind", slot, number, (), dies=BOTH_DIES) for slot, number in enumerate((x, near, out))),
        command("run", 0, 0, dies=BOTH_DIES),
        command("barrier", "device", dies=BOTH_DIES),
    )
    inputs = (layout.port("x", x, BOTH_DIES),)
    outputs = (layout.port("out", out, BOTH_DIES),)
    kernel = Kernel("product", body)
    program = layout.program("constant", (kernel,), commands, inputs=inputs, outputs=outputs, dies=2)
    image = ConstantImage("weights", 8 * 5 * 4, layout.descriptors[weights].address, BOTH_DIES)
    return replace(program, constants=(image,)), x, weights, out


def test_constants_are_packed_and_copied_once_and_equal_dies_computed_once():
    program, x, weights, out = constant_product()
    memory = Memory(program, MACHINE, poison=False)
    values, matrix = np.arange(48).reshape(6, 8) % 7, np.arange(40).reshape(8, 5) % 5
    for die in range(2):
        memory.view(program.descriptors[weights], die)[...] = matrix
    engine = ValuesEngine(program, MACHINE)
    results = []
    for run in range(3):
        for die in range(2):
            memory.view(program.descriptors[x], die)[...] = values + run
        results.append(engine.run(memory))
        for die in range(2):
            got = memory.view(program.descriptors[out], die)
            np.testing.assert_array_equal(got, (values + run) @ matrix)
    assert results[0] == results[1] == results[2]
    kinds = [type(action) for action in engine._prepared.actions]
    assert kinds.count(TakeResults) == 1
    assert all(action.once for action in engine._prepared.actions if isinstance(action, MakeCopy))
    # Another memory has constants of its own.
    other = Memory(program, MACHINE, poison=False)
    for die in range(2):
        other.view(program.descriptors[weights], die)[...] = matrix + 1
        other.view(program.descriptors[x], die)[...] = values
    engine.run(other)
    np.testing.assert_array_equal(other.view(program.descriptors[out], 1), values @ (matrix + 1))


def test_a_copy_of_constants_that_is_changed_is_made_in_every_run():
    """The copy is incremented in place: each run must begin from the constants again."""
    layout = Layout()
    weights, near, out = layout.tensor((64,)), layout.tensor((64,), space="l2"), layout.tensor((64,))
    where, result = box(0, (0, 64)), box(1, (0, 64))
    body = (
        op("vld", v(0), where),
        op("vadd", v(0), v(0), 1.0),
        op("vst", where, v(0)),
        op("vst", result, v(0)),
    )
    commands = (
        command("launch", SPCS, "main"),
        command("copy", near, weights, (), (), 0),
        command("wait", 0),
        *launch((0, near), (1, out))[1:],
    )
    program = layout.program("again", (Kernel("again", body),), commands, inputs=(), outputs=())
    image = ConstantImage("weights", 256, layout.descriptors[weights].address, 1)
    program = replace(program, constants=(image,))
    memory = Memory(program, MACHINE, poison=False)
    memory.view(program.descriptors[weights], 0)[...] = np.arange(64)
    engine = ValuesEngine(program, MACHINE)
    for _ in range(3):
        engine.run(memory)
        np.testing.assert_array_equal(memory.view(program.descriptors[out], 0), np.arange(64) + 1)


def test_dies_with_different_inputs_are_both_computed():
    layout = Layout()
    x, out = layout.tensor((64,)), layout.tensor((64,))
    body = (op("vld", v(0), box(0, (0, 64))), op("vst", box(1, (0, 64)), v(0)))
    program = layout.program(
        "different",
        (Kernel("copy", body),),
        launch((0, x), (1, out), dies=BOTH_DIES),
        inputs=(),
        outputs=(layout.port("out", out, 0b01),),
        dies=2,
    )
    memory = Memory(program, MACHINE)
    for die in range(2):
        memory.view(program.descriptors[x], die)[...] = die + 1
    ValuesEngine(program, MACHINE).run(memory)
    for die in range(2):
        np.testing.assert_array_equal(memory.view(program.descriptors[out], die), np.full(64, die + 1))


def test_the_same_kernel_at_other_addresses_is_raised_once():
    layout = Layout()
    tensors = [layout.tensor((64,)) for _ in range(4)]
    body = (op("vld", v(0), box(0, (0, 64))), op("vst", box(1, (0, 64)), v(0)))
    commands = launch((0, tensors[0]), (1, tensors[1])) + launch((0, tensors[2]), (1, tensors[3]))[1:]
    program = layout.program("twice", (Kernel("copy", body),), commands, inputs=(), outputs=())
    run_both(program, {tensors[0]: np.arange(64), tensors[2]: np.ones(64)})
    engine = ValuesEngine(program, MACHINE)
    engine.run(Memory(program, MACHINE))
    assert len(engine._prepared._raised) == 1


def test_float_results_are_within_rounding_of_the_stepping_engine():
    """Sums in another order: 1e-5 of the magnitude of what is summed."""
    layout = Layout()
    a, b, out = layout.tensor((60, 300)), layout.tensor((300, 50)), layout.tensor((60, 50))
    ring = RingAddress(Affine())
    row, column, depth = (i(0, 16), 16), (i(1, 16), 16), (i(2, 32), 32)
    nest = par(
        4,
        par(
            4,
            red(10, op("tlda", ring, box(0, row, depth), 1, "tf32p"),
                op("tldb", ring, box(1, depth, column), 1, "tf32p"),
                op("tmma", ring, ring, 16, 16, 32, "tf32p", 0b100)),
            op("vacc", v(0), (16, 16), 0),
            op("vtanh", v(0), v(0)),
            op("vst", box(2, row, column), v(0)),
        ),
    )  # fmt: skip
    bindings = launch((0, a), (1, b), (2, out))
    program = layout.program("floats", (Kernel("floats", (nest,)),), bindings, inputs=(), outputs=())
    rng = np.random.default_rng(5)
    memories = [Memory(program, MACHINE), Memory(program, MACHINE)]
    inputs = rng.standard_normal((60, 300)), rng.standard_normal((300, 50)) / 17
    for memory in memories:
        for number, values in zip((a, b), inputs, strict=True):
            memory.view(program.descriptors[number], 0)[...] = values
    StepEngine(program, MACHINE).run(memories[0])
    ValuesEngine(program, MACHINE).run(memories[1])
    one, other = (memory.view(program.descriptors[out], 0) for memory in memories)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_descriptors_beyond_the_memory_are_refused():
    program = simple(op("vld", v(0), box(0, (0, 64))), op("vst", box(1, (0, 64)), v(0)))
    far = Descriptor("hbm", program.hbm_bytes, "f32", (64,), (1,))
    program = replace(program, descriptors=(program.descriptors[0], far))
    with pytest.raises(MachineFault, match="reaches bytes"):
        ValuesEngine(program, MACHINE).run(Memory(program, MACHINE))
