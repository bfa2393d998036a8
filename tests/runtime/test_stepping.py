"""The stepping engine: right programs give numpy's values in every order, wrong ones are caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from programs import (
    BOTH_DIES,
    SPCS,
    Case,
    Layout,
    box,
    cases,
    command,
    convolution,
    gemm,
    i,
    integers,
    launch,
    op,
    par,
    sync,
    two_die_transfer,
    v,
    vector_add,
)

from birc.runtime.counts import InstructionCounts, static_commands
from birc.runtime.errors import UsageError
from birc.runtime.faults import MachineFault
from birc.runtime.isa import INSTRUCTIONS
from birc.runtime.machine import Machine, load_machine
from birc.runtime.memory import Memory
from birc.runtime.program import (
    Affine,
    Command,
    CommandLoop,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    Program,
    RingAddress,
    Window,
)
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.stepping.instructions import EXECUTE
from birc.runtime.stepping.walk import KernelWalk

TINY: Machine = load_machine("tiny")


def run(program: Program, memory: Memory | None = None, seed: int | None = None) -> Memory:
    """Execute in sequential order, or with a seed in a random one."""
    target = Memory(program, TINY) if memory is None else memory
    order = "sequential" if seed is None else "random"
    StepEngine(program, TINY, seed or 0, order).run(target)
    return target


def with_kernel(case: Case, change: object, number: int = 0) -> Case:
    """The case with one kernel's instructions changed one by one: `change` maps an instruction to another."""

    def changed(item: Loop | Instruction) -> Loop | Instruction:
        if isinstance(item, Instruction):
            return change(item)  # type: ignore[operator]
        return replace(item, body=tuple(changed(child) for child in item.body))

    kernels = list(case.program.kernels)
    kernel = kernels[number]
    kernels[number] = replace(kernel, nests=tuple(changed(nest) for nest in kernel.nests))
    return replace(case, program=replace(case.program, kernels=tuple(kernels)))


def survives(case: Case, seeds: int) -> bool:
    """Whether the program gives the expected values in so many random orders."""
    try:
        for seed in range(seeds):
            case.check(run(case.program, case.memory(), seed))
    except (MachineFault, AssertionError):
        return False
    return True


def test_every_instruction_has_a_meaning() -> None:
    assert set(EXECUTE) == {row.mnemonic for row in INSTRUCTIONS}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_order_gives_the_values_of_numpy(case: Case) -> None:
    memory = case.memory()
    counts = StepEngine(case.program, TINY).run(memory)
    case.check(memory)
    for seed in range(6):
        memory = case.memory()
        assert StepEngine(case.program, TINY, seed, "random").run(memory) == counts
        case.check(memory)


def test_the_same_seed_gives_the_same_order() -> None:
    """A program with a race: the values depend on the order, and the order on the seed alone."""
    case = without_sync(gemm(), "tmma", "waits", 0)
    # Without a fault only when the loads happen to be early enough: compare the errors too.
    results = {seed: [outcome(case, seed) for _ in range(2)] for seed in range(4)}
    assert all(first == second for first, second in results.values())


def outcome(case: Case, seed: int) -> str:
    try:
        memory = run(case.program, case.memory(), seed)
    except MachineFault as fault:
        return str(fault)
    return str(case.outputs(memory)["out"].sum())


def without_sync(case: Case, mnemonic: str, kind: str, number: int) -> Case:
    def change(item: Instruction) -> Instruction:
        if item.mnemonic != mnemonic:
            return item
        syncs = getattr(item, kind)
        return replace(item, **{kind: syncs[:number] + syncs[number + 1 :]})

    return with_kernel(case, change)


SYNCS = [
    ("tlda", "waits", 0),
    ("tldb", "waits", 0),
    ("tmma", "waits", 0),
    ("tmma", "waits", 1),
    ("tmma", "waits", 2),
    ("vacc", "waits", 0),
    ("tlda", "posts", 0),
    ("tldb", "posts", 0),
    ("tmma", "posts", 0),
    ("tmma", "posts", 1),
    ("tmma", "posts", 2),
    ("vacc", "posts", 0),
]


@pytest.mark.parametrize("which", SYNCS, ids=lambda which: "-".join(map(str, which)))
def test_no_wait_and_no_post_of_the_matrix_product_can_be_missing(which: tuple[str, str, int]) -> None:
    assert survives(gemm(), 2)
    assert not survives(without_sync(gemm(), *which), 12)


CONVOLUTION_SYNCS = [
    *(("tlda", kind, 0) for kind in ("waits", "posts")),
    *(("tldb", kind, 0) for kind in ("waits", "posts")),
    *(("tconv", kind, number) for kind in ("waits", "posts") for number in range(3)),
]


@pytest.mark.parametrize("which", CONVOLUTION_SYNCS, ids=lambda which: "-".join(map(str, which)))
def test_no_wait_and_no_post_of_the_convolution_can_be_missing(which: tuple[str, str, int]) -> None:
    assert survives(convolution(), 2)
    assert not survives(without_sync(convolution(), *which), 12)


def test_a_missing_barrier_shows() -> None:
    case = two_die_transfer()
    assert case.program.commands[6].mnemonic == "barrier"  # type: ignore[union-attr]
    commands = case.program.commands[:6] + case.program.commands[7:]
    assert not survives(replace(case, program=replace(case.program, commands=commands)), 12)


def test_a_missing_wait_for_an_event_shows() -> None:
    case = two_die_transfer()
    commands = tuple(c for c in case.program.commands if isinstance(c, Command) and c.mnemonic != "wait")
    assert not survives(replace(case, program=replace(case.program, commands=commands)), 12)


def test_counts_are_those_of_the_matrix_product() -> None:
    case = gemm(rows=150, columns=70, depth=200)
    counts = StepEngine(case.program, TINY).run(case.memory())
    tiles, chunks = 2 * 2 * 2, 4
    mnemonics = [instruction.mnemonic for instruction in case.program.kernels[0].instructions()]
    names = ("tlda", "tldb", "tmma", "vst")
    assert {name: counts.instructions[0, mnemonics.index(name)] for name in names} == {
        "tlda": InstructionCounts(tiles * chunks, bytes_read=2 * 2 * 150 * 200),  # once for each column tile
        "tldb": InstructionCounts(tiles * chunks, bytes_read=2 * 4 * 200 * 70),  # once for each row tile
        "tmma": InstructionCounts(tiles * chunks, macs=tiles * chunks * 64**3),
        "vst": InstructionCounts(tiles, bytes_written=4 * 150 * 70),
    }
    assert counts.copies == {}


def test_a_convolution_loads_its_patch_once_for_all_taps() -> None:
    case = convolution(height=11, width=13, channels=40, filters=24)
    counts = StepEngine(case.program, TINY).run(case.memory())
    mnemonics = [instruction.mnemonic for instruction in case.program.kernels[0].instructions()]
    tiles, chunks, taps = 4, 2, 6
    rows = 9 + 4  # of the image: the two patches begin in rows -1 and 7 and are 10 high
    columns = 10 + 7  # they begin in columns -2 and 6 and are 12 wide
    assert counts.instructions[0, mnemonics.index("tlda")] == InstructionCounts(
        tiles * chunks, bytes_read=2 * rows * columns * 40
    )
    assert counts.instructions[0, mnemonics.index("tconv")] == InstructionCounts(
        tiles * chunks * taps, macs=tiles * chunks * taps * 64 * 24 * 32
    )


def test_copies_are_counted_by_command() -> None:
    case = next(case for case in cases() if case.name == "command_loop")
    counts = StepEngine(case.program, TINY).run(case.memory())
    assert [c.mnemonic for c in static_commands(case.program)][2] == "copy"
    assert counts.copies == {2: 4 * 4 * 4 * 64}


def test_a_transfer_of_both_dies_sets_its_event_when_both_have_arrived() -> None:
    case = two_die_transfer()
    transfer, wait = case.program.commands[7], case.program.commands[9]
    assert isinstance(transfer, Command)
    assert isinstance(wait, Command)
    commands = (
        *case.program.commands[:7],
        replace(transfer, dies=BOTH_DIES),
        wait,
        *case.program.commands[11:],
    )
    assert survives(replace(case, program=replace(case.program, commands=commands)), 12)


# --- single faults ------------------------------------------------------------------


def small(*nests: Loop | Instruction, semaphores: tuple[int, ...] = ()) -> Program:
    """A program of one kernel; slot 0 holds an FP32 [8, 8], slot 1 an INT64 [8, 1]."""
    layout = Layout()
    floats, whole = layout.tensor((8, 8)), layout.tensor((8, 1), "i64")
    kernel = Kernel("k", nests, semaphores)
    return layout.program("small", (kernel,), launch((0, floats), (1, whole)), inputs=(), outputs=())


X = box(0, (0, 8), (0, 8))
A_TILE = op("tlda", RingAddress(Affine(0)), X, 1, "bf16")
B_TILE = op("tldb", RingAddress(Affine(0)), X, 1, "bf16")
MULTIPLY = op("tmma", RingAddress(Affine(0)), RingAddress(Affine(0)), 8, 8, 8, "bf16", 0)


def convolve(window: Window) -> Instruction:
    return op("tconv", RingAddress(Affine(0)), window, RingAddress(Affine(0)), 8, 8, "bf16", 0)


DRAIN = op("vacc", v(0), (8, 8), 0)

FAULTS = {
    "reads register v3, which was never written": (op("vmov", v(0), v(3)),),
    "there are 32 registers, v32 is written": (op("vmovi", v(32), 0.0, (1,)),),
    "at most 4096 lanes": (op("vmovi", v(0), 0.0, (65, 64)),),
    "different ranks": (op("vmovi", v(0), 0.0, (8,)), op("vld", v(1), X), op("vadd", v(2), v(0), v(1))),
    "do not broadcast": (
        op("vmovi", v(0), 0.0, (8,)), op("vmovi", v(1), 0.0, (7,)), op("vadd", v(2), v(0), v(1)),
    ),
    "shape from (8, 1) to (8, 8)": (
        op("vmovi", v(0), 0.0, (8, 1)), op("vld", v(1), X),
        Loop("red", 2, (op("vfoldsum", v(2), v(0), 1), op("vfoldsum", v(2), v(1), 3))),
    ),
    "nothing is bound in slot 7": (op("vld", v(0), box(7, (0, 1))),),
    "loads the i64 value -38654705664": (op("vld", v(0), box(1, (0, 1), (0, 1))),),
    "there is no tile at 0 of input buffer A": (MULTIPLY,),
    "there is no tile at 0 of input buffer B": (A_TILE, MULTIPLY),
    "is bf16, not tf32p": (A_TILE, B_TILE, op("tmma", *MULTIPLY.operands[:5], "tf32p", 0)),
    "has (8, 8), not (9, 8)": (A_TILE, B_TILE, op("tmma", *MULTIPLY.operands[:2], 9, 8, 8, "bf16", 0)),
    "before the last one was drained": (A_TILE, B_TILE, MULTIPLY, MULTIPLY),
    "the accumulator holds (8, 8), drained as (4, 4)": (
        A_TILE, B_TILE, MULTIPLY, op("vacc", v(0), (4, 4), 0),
    ),
    "the accumulator holds nothing": (DRAIN,),
    "input buffer A, which has 16384 bytes": (op("tlda", RingAddress(Affine(16_000)), X, 1, "bf16"),),
    "a tile of 512 by depth 1, at most 400": (
        op("tlda", RingAddress(Affine(0)), box(0, (0, 64), (0, 8)), 2, "bf16"),
    ),
    "a tile of 512 by depth 1, at most 64": (
        op("tldb", RingAddress(Affine(0)), box(0, (0, 64), (0, 8)), 0, "bf16"),
    ),
    "a window of 9 x 1 pixels, at most 8 x 8": (A_TILE, B_TILE, convolve(Window(Affine(), Affine(), 9, 1, 1))),
    "a window from (0, 3) of a patch of 4 pixels in a row": (
        A_TILE, B_TILE, convolve(Window(Affine(), Affine(3), 2, 2, 4)),
    ),
    "a window from (-1, 0)": (A_TILE, B_TILE, convolve(Window(Affine(-1), Affine(), 2, 2, 4))),
    "has (8, 8), not (10, 8)": (A_TILE, B_TILE, convolve(Window(Affine(1), Affine(), 2, 2, 4))),
    "8 bits do not hold": (op("tlda", RingAddress(Affine(0)), X, 1, "s8"),),
    "semaphore 2 is used, the kernel declares 1": (op("vmovi", v(0), 0.0, (1,), posts=(sync(2),)),),
    "semaphore 0 ends at 1, it began at 0": (op("vmovi", v(0), 0.0, (1,), posts=(sync(0),)),),
    "inside another loop": (par(1, par(1, op("vmovi", v(0), 0.0, (1,)), level="spc")),),
}  # fmt: skip


@pytest.mark.parametrize("message", FAULTS)
def test_faults_say_what_is_wrong(message: str) -> None:
    program = small(*FAULTS[message], semaphores=(0,))
    memory = Memory(program, TINY)
    memory.view(program.descriptors[0], 0)[...] = 0.5
    memory.view(program.descriptors[1], 0)[...] = -9 << 32
    with pytest.raises(MachineFault) as caught:
        run(program, memory)
    assert message in str(caught.value)
    assert caught.value.exit_code == 6
    with pytest.raises(MachineFault):  # which one comes first depends on the order
        run(program, memory, 1)


def test_a_tile_that_another_overlaps_is_lost() -> None:
    overlapping = op("tlda", RingAddress(Affine(512)), X, 1, "bf16")  # a tile takes 64 * 8 * 2 = 1024 bytes
    beside = op("tlda", RingAddress(Affine(1024)), X, 1, "bf16")
    run(small(A_TILE, beside, B_TILE, MULTIPLY, DRAIN))
    with pytest.raises(MachineFault, match="never loaded, or overwritten"):
        run(small(A_TILE, overlapping, B_TILE, MULTIPLY, DRAIN))


def test_faults_name_the_place() -> None:
    program = small(par(2, par(3, op("vmov", v(0), v(3))), level="spc"))
    place = r"die 0, SPC 0, kernel k, instruction 0 vmov, iteration \(0, 0\): reads"
    with pytest.raises(MachineFault, match=place):
        run(program)


def test_a_deadlock_names_the_queues_and_their_semaphores() -> None:
    first = op("vmovi", v(0), 0.0, (1,), waits=(sync(0),), posts=(sync(1),))
    second = op("vmovi", v(1), 0.0, (1,), waits=(sync(1),), posts=(sync(0),), program=1)
    program = small(first, second, semaphores=(0, 0))
    with pytest.raises(MachineFault) as caught:
        run(program, seed=0)
    assert "deadlock" in str(caught.value)
    assert "vector 0 at vmovi () waits for semaphore 0" in str(caught.value)
    assert "vector 1 at vmovi () waits for semaphore 1" in str(caught.value)
    assert "die 0: command 4, barrier die" in str(caught.value)
    with pytest.raises(MachineFault, match=r"in sequential order iteration .* waits for semaphore 0 for ever"):
        run(program)


def test_only_one_queue_may_wait_on_a_semaphore() -> None:
    waits = (op("vmovi", v(n), 0.0, (1,), waits=(sync(0),), posts=(sync(0),), program=n) for n in range(2))
    with pytest.raises(MachineFault, match="semaphore 0 is waited on by vector 0 and by vector 1"):
        run(small(*waits, semaphores=(2,)))


def with_commands(*commands: Command | CommandLoop, dies: int = 1) -> Program:
    layout = Layout()
    a, b = layout.tensor((4, 8)), layout.tensor((4, 8))
    layout.tensor((4, 8), space="tb")
    layout.tensor((2, 8))
    assert (a, b) == (0, 1)
    kernel = Kernel("k", (op("vmovi", v(0), 0.0, (1,)),))
    return layout.program("commands", (kernel,), commands, inputs=(), outputs=(), dies=dies)


COMMAND_FAULTS = {
    "event 5 of die 0 is set again": (command("copy", 0, 1, (), (), 5), command("copy", 0, 1, (), (), 5)),
    "cannot read a tensor buffer": (command("copy", 1, 2, (), (), 0),),
    "copies [4, 8] to [4, 8] on each of 2 SPCs": (command("copy", 2, 1, (), (), 0),),
    "copies float32 [2, 8] to float32 [4, 8]": (command("copy", 0, 3, (), (), 0),),
    "a transfer needs two dies": (command("transfer", 0, 1, 0),),
    "runs on the SPCs 0x0": (command("run", 0, 0),),
    "runs on the SPCs 0x4": (command("launch", 4, "x"), command("run", 0, 0)),
    "1 advances inside 0 command loops": (command("bind", 0, 1, (4,)),),
}


@pytest.mark.parametrize("message", COMMAND_FAULTS)
def test_faults_of_commands(message: str) -> None:
    for seed in (None, 0):
        with pytest.raises(MachineFault) as caught:
            run(with_commands(*COMMAND_FAULTS[message]), seed=seed)
        assert message in str(caught.value)


def test_an_event_that_nothing_sets() -> None:
    program = with_commands(command("wait", 3))
    with pytest.raises(MachineFault, match="event 3, which nothing before it sets"):
        run(program)
    with pytest.raises(MachineFault, match="deadlock: die 0: command 0, wait 3"):
        run(program, seed=0)


def test_a_device_barrier_waits_for_every_die() -> None:
    program = with_commands(command("barrier", "device", dies=0b01), dies=2)
    with pytest.raises(MachineFault, match="die 0: command 0, barrier device"):
        run(program, seed=0)
    run(with_commands(*[command("barrier", "device", dies=0b11)] * 3, dies=2), seed=0)


def test_a_program_needs_a_machine_of_its_size() -> None:
    with pytest.raises(UsageError, match="needs 3 dies"):
        StepEngine(with_commands(dies=3), TINY)


# --- small meanings -----------------------------------------------------------------


def test_distribution_over_spcs_and_programs() -> None:
    """Iteration (i, j) of loops over 2 x 3 SPCs runs on SPC 3 i + j; program loops choose the queue."""
    leaf = op("vmovi", v(i(2)), 0.0, (1,), program=1)
    nest = par(2, par(3, par(2, leaf, level="program"), level="spc"), level="spc")
    walk = KernelWalk(Kernel("k", (nest,)))
    assert walk.queues == ("vector 1", "vector 2")
    for spc in range(8):
        steps = list(walk.steps(spc))
        expected = [(spc // 3, spc % 3, n) for n in range(2)] if spc < 6 else []
        assert [step.variables for step in steps] == expected
        assert [step.queue for step in steps] == ["vector 1", "vector 2"][: len(expected)]
        assert [step for name in walk.queues for step in walk.steps(spc, name)] == steps


def test_projections_are_parts_of_the_sequence() -> None:
    """What all queues execute together is what the sequential order executes, each queue in that order."""
    for case in cases():
        for kernel in case.program.kernels:
            walk = KernelWalk(kernel)
            whole = list(walk.steps(1))
            for name in walk.queues:
                assert list(walk.steps(1, name)) == [step for step in whole if step.queue == name]
            assert {step.queue for step in whole} <= set(walk.queues)


def test_partial_sums_go_on_in_a_register() -> None:
    """vacc adds where `first` says it is not the first time."""
    values = integers(20, (8, 8))
    program = small(
        Loop("red", 3, (A_TILE, B_TILE, MULTIPLY, op("vacc", v(0), (64,), 1))),
        op("vst", box(0, (0, 8), (0, 8)), v(1)),
    )
    reshaped = replace(program.kernels[0].nests[0].body[3], operands=(v(1), (8, 8), 1))  # type: ignore[union-attr]
    loop = replace(program.kernels[0].nests[0], body=(A_TILE, B_TILE, MULTIPLY, reshaped))
    kernel = replace(program.kernels[0], nests=(loop, program.kernels[0].nests[1]))
    program = replace(program, kernels=(kernel,))
    memory = Memory(program, TINY)
    view = memory.view(program.descriptors[0], 0)
    view[...] = values
    run(program, memory)
    np.testing.assert_array_equal(view, 3 * (values @ values))


def test_each_format_rounds_its_inputs() -> None:
    """One product of 1 + 2^-8 + 2^-16 by 1, through tiles of each float format."""
    value = 1 + 2.0**-8 + 2.0**-16
    for name, kept in (("bf16", 1 + 2.0**-7), ("tf32p", value - 2.0**-16)):
        tile = (op("tlda", RingAddress(Affine(0)), box(0, (0, 1), (0, 1)), 1, name),
                op("tldb", RingAddress(Affine(0)), box(0, (1, 1), (0, 1)), 1, name))  # fmt: skip
        product = op("tmma", *MULTIPLY.operands[:2], 1, 1, 1, name, 0)
        store = op("vst", box(0, (2, 1), (0, 1)), v(0))
        program = small(*tile, product, op("vacc", v(0), (1, 1), 0), store)
        memory = Memory(program, TINY)
        view = memory.view(program.descriptors[0], 0)
        view[:2, 0] = value, 1
        run(program, memory)
        assert view[2, 0] == kept


def test_bind_lasts_and_is_taken_when_the_kernel_is_appended() -> None:
    case = vector_add(length=8)
    x, y, out = 0, 1, 2
    commands = (
        command("launch", SPCS, "main"),
        *(command("bind", slot, descriptor, ()) for slot, descriptor in ((0, x), (1, y), (2, out))),
        command("run", 0, 0),  # out = x + y
        command("bind", 0, out, ()),
        command("barrier", "die"),
        command("run", 0, 0),  # out = out + y
    )
    changed = replace(case, program=replace(case.program, commands=commands))
    expected = {"out": case.inputs["a"] + 2 * case.inputs["b"]}
    assert survives(replace(changed, expected=expected), 8)
    assert isinstance(case.program.descriptors[0], Descriptor)
