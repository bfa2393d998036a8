"""Copies into tensor buffers: what each SPC gets, and what they have to be ordered with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from programs import BOTH_DIES, SPCS, Layout, box, buffers_filled, command, i, launch, op, par, v
from verifying import drop_command, findings, refused, with_descriptor

from birc.runtime.assembly import program_text
from birc.runtime.assembly_parser import parse_program
from birc.runtime.errors import BircError
from birc.runtime.machine import load_machine
from birc.runtime.memory import Memory
from birc.runtime.program import Command, CommandLoop, ConstantImage, Descriptor, Kernel, Program
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.timing import simulate
from birc.runtime.values import ValuesEngine
from birc.runtime.values.actions import TakeResults

TINY = load_machine("tiny")

# Descriptors of `buffers_filled`.
DOUBLED, OWN, NEAR, PARTS, BIAS_OF_EACH, NEAR_ROWS = 4, 5, 6, 7, 8, 9


def commands_of(program: Program, change) -> Program:
    """The program with each command replaced by what `change` gives for it."""

    def changed(item: Command | CommandLoop) -> Command | CommandLoop:
        return replace(item, body=tuple(map(changed, item.body))) if isinstance(item, CommandLoop) else change(item)

    return replace(program, commands=tuple(map(changed, program.commands)))


# --- values


def parts(source: Descriptor, target: Descriptor, *, dies: int = 1) -> Program:
    """The words 0, 1, 2... in HBM, of which a copy brings parts into the tensor buffers."""
    layout = Layout()
    layout.tensor((1024,))
    numbers = layout.alias(target), layout.alias(source)
    mask = (1 << dies) - 1
    commands = (
        command("launch", SPCS, "x", dies=mask),
        command("copy", *numbers, (), (), 0, dies=mask),
        command("wait", 0, dies=mask),
    )
    return layout.program("parts", (), commands, inputs=(), outputs=(), dies=dies)


@pytest.mark.parametrize(
    ("dims", "strides", "first"),
    [
        ((2, 4), (4, 1), (0, 4)),
        ((2, 4), (0, 2), (0, 0)),
        ((1, 2, 4), (7, 3, 5), (0, 3)),
        ((2, 1, 4), (9, 1, 1), (0, 9)),
    ],
    ids=["behind each other", "the same", "two axes", "the first of two axes"],
)
@pytest.mark.parametrize("engine", [StepEngine, ValuesEngine], ids=["stepping", "values"])
def test_every_spc_gets_its_part(engine, dims, strides, first):
    program = parts(Descriptor("hbm", 0, "f32", dims, strides), Descriptor("tb", 64, "f32", (4,), (2,)))
    assert findings(replace(program, inputs=())) != []  # nobody wrote the words
    memory = Memory(program, TINY)
    memory.hbm[0].view(np.float32)[:] = np.arange(1024)
    counts = engine(program, TINY).run(memory)
    for spc, start in enumerate(first):
        got = memory.view(program.descriptors[1], 0, spc)
        np.testing.assert_array_equal(got, start + strides[-1] * np.arange(4))
        untouched = np.delete(memory.tb[0][spc].view(np.float32), 16 + 2 * np.arange(4))
        assert np.isnan(untouched).all()
    assert counts.copies == simulate(program, TINY).counts.copies == {1: 2 * 4 * 4}


@pytest.mark.parametrize("engine", [StepEngine, ValuesEngine], ids=["stepping", "values"])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        (Descriptor("hbm", 0, "f32", (4,), (1,)), Descriptor("tb", 0, "f32", (4,), (1,))),
        (Descriptor("hbm", 0, "f32", (3, 4), (4, 1)), Descriptor("tb", 0, "f32", (4,), (1,))),
        (Descriptor("hbm", 0, "f32", (3, 5), (5, 1)), Descriptor("tb", 0, "f32", (5,), (1,))),
        (Descriptor("hbm", 0, "f32", (4,), (1,)), Descriptor("tb", 0, "f32", (2, 4), (4, 1))),
        (Descriptor("hbm", 0, "f32", (2, 2, 2), (4, 2, 1)), Descriptor("tb", 0, "f32", (4,), (1,))),
        (Descriptor("hbm", 0, "f32", (2, 4), (4, 1)), Descriptor("tb", 0, "i32", (4,), (1,))),
        (Descriptor("tb", 0, "f32", (4,), (1,)), Descriptor("tb", 0, "f32", (4,), (1,))),
        (Descriptor("tb", 0, "f32", (2, 4), (4, 1)), Descriptor("hbm", 0, "f32", (2, 4), (4, 1))),
    ],
)
def test_what_does_not_fit_is_refused_by_the_engines_too(engine, source, target):
    program = parts(source, target)
    with pytest.raises(BircError, match=r"copies|cannot read"):
        engine(program, TINY).run(Memory(program, TINY))
    assert findings(program) != []


def test_it_is_written_and_read_back_as_text():
    case = buffers_filled()
    text = program_text(case.program)
    program = parse_program(text)
    assert f"copy d{OWN}, d{PARTS}, dst_advance=[0], src_advance=[16384], event=1" in text
    memory = replace(case, program=program).memory()
    StepEngine(program, TINY, 3, "random").run(memory)
    case.check(memory)


def shown(*commands: Command) -> Program:
    """On two dies: what the tensor buffers hold in the end, a row of `out` by each SPC.

    Descriptors: 0 x of two rows, 1 out, 2 the tensor buffer's row. Kernel 1 makes that of SPC 0 all ones.
    """
    layout = Layout()
    x, out = (layout.tensor((2, 64)) for _ in range(2))
    kept = layout.tensor((64,), space="tb")
    show = par(2, op("vld", v(0), box(1, (0, 64))), op("vst", box(0, (i(0), 1), (0, 64)), v(0)), level="spc")
    mark = par(1, op("vmovi", v(0), 1.0, (64,)), op("vst", box(1, (0, 64)), v(0)), level="spc")
    start = launch((0, out), (1, kept), dies=BOTH_DIES)
    fill = command("copy", kept, x, (), (), 0, dies=BOTH_DIES), command("wait", 0, dies=BOTH_DIES)
    return layout.program(
        "shown",
        (Kernel("show", (show,)), Kernel("mark", (mark,))),
        (*start[:-2], *fill, *commands, *start[-2:]),
        inputs=(layout.port("x", x, BOTH_DIES),),
        outputs=(layout.port("out", out, BOTH_DIES),),
        dies=2,
    )


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_dies_of_which_one_has_other_parts_are_both_computed(marked, same):
    """Also where an SPC has something else in its buffer by then, the same on both dies."""
    program = shown(*[command("run", 1, 0, dies=BOTH_DIES)] * marked)
    if not same:  # what the two hold as x is their own
        program = replace(program, inputs=())
    memory = Memory(program, TINY)
    values = [np.arange(128).reshape(2, 64) + (0 if same else 1000 * die) for die in range(2)]
    for die in range(2):
        memory.view(program.descriptors[0], die)[...] = values[die]
    engine = ValuesEngine(program, TINY)
    engine.run(memory)
    for die in range(2):
        expected = np.concatenate([np.ones((int(marked), 64)), values[die][int(marked) :]])
        np.testing.assert_array_equal(memory.view(program.descriptors[1], die), expected)
    taken = [type(action) for action in engine._prepared.actions].count(TakeResults)
    assert taken == (marked or same)


def test_constants_are_copied_again_in_every_run():
    """What others left in the tensor buffers since is not the constant."""
    program = shown(command("run", 1, 0, dies=BOTH_DIES))
    *start, last, barrier = program.commands
    program = replace(program, commands=(*start[:-1], last, start[-1], barrier), inputs=())
    assert [c.operands[0] for c in program.commands if c.mnemonic == "run"] == [0, 1]
    program = replace(program, constants=(ConstantImage("x", 512, program.descriptors[0].address, BOTH_DIES),))
    memory = Memory(program, TINY)
    for die in range(2):
        memory.view(program.descriptors[0], die)[...] = np.arange(128).reshape(2, 64)
    engine = ValuesEngine(program, TINY)
    for _ in range(3):
        memory.view(program.descriptors[1], 0)[...] = -1
        engine.run(memory)
        np.testing.assert_array_equal(memory.view(program.descriptors[1], 0), np.arange(128).reshape(2, 64))


# --- the verifier


def test_a_copy_into_buffers_is_waited_for():
    program = buffers_filled().program
    assert findings(program) == []
    refused(drop_command(program, "wait", 0), "reads tb bytes", "copy", "writes", "wait")
    refused(drop_command(program, "wait", 1), "reads tb bytes", "copy", "writes", "wait")


def test_what_a_kernel_still_reads_is_not_overwritten():
    """The barrier at the end of a round; one of the SPCs alone orders no copy."""
    program = buffers_filled().program
    refused(drop_command(program, "barrier", 1), "copy", "writes tb bytes", "run k1", "reads")
    among = lambda c: replace(c, operands=("spcs",)) if c.mnemonic == "barrier" else c
    refused(commands_of(program, among), "copy", "writes tb bytes", "reads")


def test_what_a_kernel_still_writes_is_not_overwritten():
    layout = Layout()
    x, kept = layout.tensor((2, 64)), layout.tensor((64,), space="tb")
    store = par(2, op("vmovi", v(0), 1.0, (64,)), op("vst", box(0, (0, 64)), v(0)), level="spc")
    start, barrier = launch((0, kept))[:-1], command("barrier", "die")
    copied = command("copy", kept, x, (), (), 0), command("wait", 0)

    def stored(*commands: Command) -> Program:
        kernel = Kernel("store", (store,))
        return layout.program("stored", (kernel,), commands, inputs=(layout.port("x", x),), outputs=())

    refused(stored(*start, *copied, barrier), "copy", "writes tb bytes", "writes")
    assert findings(stored(*start, barrier, *copied)) == []
    # The other way round: the kernel waits for the copy.
    refused(stored(*start[:-1], copied[0], start[-1], copied[1], barrier), "writes tb bytes", "copy")
    assert findings(stored(*start[:-1], *copied, start[-1], barrier)) == []


def test_copies_into_the_same_bytes_are_ordered():
    layout = Layout()
    x, kept = layout.tensor((2, 64)), layout.tensor((64,), space="tb")
    beside = layout.tensor((64,), space="tb")

    def twice(first: int, *between: Command) -> Program:
        copies = (command("copy", first, x, (), (), 0), *between, command("copy", kept, x, (), (), 1))
        waits = tuple(command("wait", n) for n in range(2) if command("wait", n) not in between)
        commands = (command("launch", SPCS, "x"), *copies, *waits)
        return layout.program("twice", (), commands, inputs=(layout.port("x", x),), outputs=())

    refused(twice(kept), "writes tb bytes", "copy", "writes")
    assert findings(twice(kept, command("wait", 0))) == []
    assert findings(twice(beside)) == []


def test_there_is_a_part_for_every_spc():
    program = buffers_filled().program
    refused(with_descriptor(program, BIAS_OF_EACH, dims=(3, 64)), "3 parts", "each of 2 SPCs")
    refused(with_descriptor(program, BIAS_OF_EACH, dims=(64,), strides=(1,)), "1 parts", "each of 2 SPCs")
    refused(with_descriptor(program, BIAS_OF_EACH, dims=(2, 32)), "(2, 32) to f32 (64,)", "the same dims behind")
    refused(with_descriptor(program, BIAS_OF_EACH, dtype="i32"), "copies i32", "the same type")


def test_no_copy_reads_a_buffer_and_no_transfer_reaches_one():
    program = buffers_filled().program
    refused(with_descriptor(program, PARTS, space="tb", address=0), "reads from a tensor buffer")
    swapped = lambda c: replace(c, operands=(c.operands[1], c.operands[0], *c.operands[2:])) if is_copy(c) else c
    is_copy = lambda c: c.mnemonic == "copy"
    refused(commands_of(program, swapped), "reads from a tensor buffer")
    sent = lambda c: replace(c, mnemonic="transfer", operands=(*c.operands[:2], c.operands[4])) if is_copy(c) else c
    both = replace(commands_of(program, sent), dies=2)
    refused(both, "reaches into tensor buffers of the other die")


def test_a_buffer_holds_what_was_copied_and_no_more():
    program = buffers_filled().program
    moved = replace(program.descriptors[OWN], address=512)
    other = lambda c: replace(c, operands=(5, len(program.descriptors), ())) if c.operands[:2] == (5, OWN) else c
    bound = commands_of(replace(program, descriptors=(*program.descriptors, moved)), other)
    refused(bound, "reads tb bytes", "not written by then")
    refused(drop_command(drop_command(program, "copy", 1), "wait", 1), "reads tb bytes", "not written by then")


def test_the_first_call_alone_fills_no_buffers():
    program = buffers_filled().program
    once = lambda c: replace(c, once=True) if c.operands[:2] == (NEAR, BIAS_OF_EACH) else c
    refused(commands_of(program, once), "in the first call only", "not from HBM to L2")
