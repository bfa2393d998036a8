"""The verifier accepts correct programs and names what is wrong with broken ones."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
from programs import (
    BOTH_DIES,
    SPCS,
    Layout,
    box,
    cases,
    command,
    command_loop,
    gather,
    gemm,
    i,
    launch,
    max_pool,
    op,
    par,
    red,
    sync,
    tensor_buffer_chain,
    two_die_transfer,
    v,
    vector_add,
)

from birc.runtime.errors import BadPackageError
from birc.runtime.machine import load_machine
from birc.runtime.program import (
    Affine,
    CommandLoop,
    ConstantImage,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    RingAddress,
    affine,
)
from birc.runtime.verifier import VerificationError, verify_program

TINY = load_machine("tiny")
# As the others, but its tensors are within the machine's limit of a dimension.
CASES = [vector_add(8000) if case.name == "vector_add" else case for case in cases()]


def findings(program, machine=TINY):
    """The text of what the verifier finds."""
    try:
        verify_program(program, machine)
    except VerificationError as error:
        return [str(finding) for finding in error.findings]
    return []


def refused(program, *words, machine=TINY):
    """Fail unless some finding contains all the words."""
    found = findings(program, machine)
    assert any(all(word in text for word in words) for text in found), found


def edited(program, index, change, kernel=0):
    """A program with one instruction of a kernel changed; `change` gives None to drop it."""
    counter = itertools.count()

    def rebuild(item):
        if isinstance(item, Instruction):
            return change(item) if next(counter) == index else item
        body = tuple(new for child in item.body if (new := rebuild(child)) is not None)
        return replace(item, body=body)

    nests = tuple(rebuild(nest) for nest in program.kernels[kernel].nests)
    return with_kernel(program, replace(program.kernels[kernel], nests=nests), kernel)


def with_kernel(program, changed, index=0):
    kernels = list(program.kernels)
    kernels[index] = changed
    return replace(program, kernels=tuple(kernels))


def with_descriptor(program, index, **changes):
    descriptors = list(program.descriptors)
    descriptors[index] = replace(descriptors[index], **changes)
    return replace(program, descriptors=tuple(descriptors))


def operand(number, value):
    return lambda item: replace(item, operands=(*item.operands[:number], value, *item.operands[number + 1 :]))


def loops(program, change, kernel=0):
    """A program with `change` applied to every loop of a kernel, innermost first."""

    def rebuild(item):
        if isinstance(item, Instruction):
            return item
        return change(replace(item, body=tuple(rebuild(child) for child in item.body)))

    nests = tuple(rebuild(nest) for nest in program.kernels[kernel].nests)
    return with_kernel(program, replace(program.kernels[kernel], nests=nests), kernel)


def single(*nests, semaphores=(), rows=8, spaces=("hbm", "hbm"), loop_commands=None):
    """A program of one kernel; slot 0 the input [rows, 64], slot 1 the output [rows, 64], FP32."""
    layout = Layout()
    x = layout.tensor((rows, 64), space=spaces[0])
    out = layout.tensor((rows, 64), space=spaces[1])
    return layout.program(
        "single",
        (Kernel("single", nests, semaphores),),
        launch((0, x), (1, out)),
        inputs=(layout.port("x", x),),
        outputs=(layout.port("out", out),),
    )


ROW = ((i(0), 1), (0, 64))


# --- correct programs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_handmade_programs_are_accepted(case):
    assert findings(case.program) == []


def test_an_elementwise_kernel_may_work_in_place():
    own = v(i(0))
    rows = par(7, op("vld", own, box(0, *ROW)), op("vadd", own, own, 1.0), op("vst", box(0, *ROW), own),
               op("vst", box(1, *ROW), own), level="program")  # fmt: skip
    rest = (op("vmovi", v(0), 0.0, (1, 64)), op("vst", box(1, (7, 1), (0, 64)), v(0)))
    assert findings(single(rows, *rest)) == []
    ahead = box(0, (i(0) + 1, 1), (0, 64))
    broken = replace(rows, body=(op("vld", own, ahead), *rows.body[1:]))
    refused(single(broken, *rest), "vector program 0 and vector program 1 meet in slot 0")


def through_scratch(space, waits=True, kind="seq"):
    """Vector program 0 stores to scratch memory, program 1 loads it again: a queue in memory."""
    layout = Layout()
    x, out = layout.tensor((8, 64)), layout.tensor((8, 64))
    scratch = layout.tensor((1, 64), space=space)
    own = box(2, (0, 1), (0, 64))
    body = (
        op("vld", v(0), box(0, *ROW)),
        op("vst", own, v(0), waits=(sync(1),), posts=(sync(0),)),
        op("vld", v(1), own, waits=(sync(0),) if waits else (), posts=(sync(1),), program=1),
        op("vst", box(1, *ROW), v(1), program=1),
    )
    return layout.program(
        "scratch",
        (Kernel("scratch", (Loop(kind, 8, body),), (0, 1)),),
        launch((0, x), (1, out), (2, scratch)),
        inputs=(layout.port("x", x),),
        outputs=(layout.port("out", out),),
    )


@pytest.mark.parametrize("space", ["tb", "l2", "hbm"])
def test_scratch_memory_passes_values_between_programs_under_semaphores(space):
    assert findings(through_scratch(space)) == []
    refused(through_scratch(space, kind="par"), "another iteration of the par loop")


def test_scratch_memory_needs_the_semaphores():
    program = through_scratch("tb", waits=False)
    found = findings(program)
    assert any("vector program 0 and vector program 1 meet in slot 2" in text for text in found)
    assert any("semaphore 0 ends at 8, it began at 0" in text for text in found)


def test_a_kernel_may_read_what_it_stored_before_but_not_after():
    store = par(8, op("vld", v(0), box(0, *ROW)), op("vst", box(1, *ROW), v(0)))
    load = par(8, op("vld", v(1), box(1, *ROW)), op("vst", box(0, *ROW), v(1)))
    assert findings(single(store, load)) == []
    refused(single(load, store), "not written by then")


def test_a_kernel_is_checked_once_for_each_form_of_its_views(monkeypatch):
    checked = []
    original = Layout.program
    monkeypatch.setattr(
        "birc.runtime.verifier.kernels.KernelModel.check",
        lambda model, findings: checked.append(model.kernel.name) or True,
    )
    assert original is Layout.program
    assert findings(command_loop(steps=50).program) == []
    assert len(checked) == 1


# --- the form


def test_the_machine_must_be_the_one():
    program = gemm().program
    refused(program, "is for machine tiny", machine=load_machine("br100"))
    refused(replace(program, machine_digest="0" * 64), "another description of the machine")
    refused(replace(program, dies=3), "3 dies")
    split = replace(program, tensor_buffer_bytes=TINY.spc_sram_bytes)
    refused(split, f"spc_sram_bytes = {TINY.spc_sram_bytes}")
    refused(replace(program, hbm_bytes=TINY.hbm_bytes_per_die + 1), "hbm_bytes_per_die")
    refused(replace(program, hbm_bytes=1000), "reaches bytes")


@pytest.mark.parametrize(
    ("index", "change", "words"),
    [
        (0, operand(0, RingAddress(Affine(), 8192, i(3), 4)), ("input buffer bytes 0 to", "16384 B")),
        (0, operand(0, RingAddress(Affine(100))), ("multiples of 512",)),
        (1, operand(0, RingAddress(Affine(512))), ("multiples of 1024",)),
        (0, operand(0, RingAddress(Affine(), 512, i(0), 0)), ("modulo 0",)),
        (0, operand(1, box(0, (i(4), 64), (0, 64))), ("depth 4", "4 loops")),
        (0, operand(1, box(0, (0, 65), (0, 64))), ("65 rows or columns", "64")),
        (0, operand(1, box(0, (0, 16), (0, 300))), ("depth 300", "k_max of bf16 = 256")),
        (0, operand(1, box(300, (0, 16), (0, 64))), ("slot 300",)),
        (0, operand(1, box(0, (0, 64), (0, 0))), ("extent 0",)),
        (0, operand(1, box(0, (0, 64), (0, 64, 0))), ("step 0",)),
        (0, operand(1, box(0, (0, 64), (0, 64), fill="ones")), ("fills with 'ones'",)),
        (0, operand(2, 9), ("rows is 9",)),
        (0, operand(3, "fp64"), ("format is 'fp64'", "bf16, tf32p, s8")),
        (2, operand(2, 65), ("m is 65",)),
        (2, operand(4, 300), ("depth 300",)),
        (2, operand(6, 1 << 4), ("mask first", "4 loops are around")),
        (2, lambda item: replace(item, waits=(sync(6),)), ("semaphore numbers 6 to 6", "declares 6")),
        (2, lambda item: replace(item, waits=(sync(0, first=32),)), ("masks first 0b100000",)),
        (2, lambda item: replace(item, program=1), ("programs 1 to 1",)),
        (4, lambda item: replace(item, program=7), ("programs 7 to 7", "vector_programs = 7")),
        (4, operand(0, v(32)), ("register dst runs from 32 to 32", "vector_registers = 32")),
        (4, operand(0, v(i(2, -1))), ("runs from -1 to 0",)),
        (4, operand(1, box(3, (0, 128), (0, 64))), ("8192 elements", "vector_tile_elements = 4096")),
        (3, operand(1, (65, 64)), ("4160 elements",)),
        (3, operand(1, ()), ("a shape of 1 to 6 axes",)),
        (5, lambda item: replace(item, operands=item.operands[:2]), ("2 operands", "3 fields")),
        (5, lambda item: replace(item, mnemonic="bind"), ("'bind' in a kernel",)),
    ],
)
def test_operands_are_checked_against_the_table(index, change, words):
    refused(edited(gemm().program, index, change), *words)


def test_loops_are_checked():
    program = vector_add(8000).program
    refused(loops(program, lambda loop: replace(loop, extent=0)), "extent 0")
    refused(loops(program, lambda loop: replace(loop, kind="any")), "loop kind 'any'")
    refused(loops(program, lambda loop: replace(loop, level="vmc")), "loop level 'vmc'")
    refused(loops(program, lambda loop: replace(loop, kind="red")), "a red loop of level")
    refused(loops(program, lambda loop: replace(loop, level="spc", extent=2)), "8 iterations", "2 SPCs a die")
    refused(loops(program, lambda loop: replace(loop, level="program")), "two loops of level program")
    refused(loops(program, lambda loop: replace(loop, limit=i(5))), "the limit refers to a loop at depth 5")
    many = loops(program, lambda loop: replace(loop, extent=8) if loop.level == "program" else loop)
    refused(many, "programs 0 to 7", "vector_programs = 7")
    deep = op("vmovi", v(0), 0.0, (1, 1))
    for _ in range(13):
        deep = par(1, deep)
    refused(single(deep), "nested too deeply")


def test_nests_must_spread_alike():
    store = op("vst", box(1, *ROW), v(0))
    clear = op("vmovi", v(0), 0.0, (1, 64))
    refused(single(par(2, clear, store, level="spc"), par(8, clear, store)), "different spc loops")
    refused(single(par(4, par(2, clear, store, level="spc"))), "level spc inside another")


def test_kernels_are_checked():
    program = gemm().program
    kernel = program.kernels[0]
    refused(with_kernel(program, replace(kernel, multicast="all")), "multicast mode 'all'")
    refused(with_kernel(program, replace(kernel, semaphores=(0,) * 80)), "80 semaphores", "79")
    refused(with_kernel(program, replace(kernel, semaphores=(-1, *kernel.semaphores[1:]))), "at least 0")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": "gib"}, ("space 'gib'",)),
        ({"mapping": "uma2"}, ("mapping 'uma2'",)),
        ({"dtype": "i4"}, ("element type 'i4'",)),
        ({"dims": (150, 0)}, ("at least 1",)),
        ({"strides": (1,)}, ("1 strides",)),
        ({"origin": (1, 2, 3)}, ("3 origins",)),
        ({"address": -4}, ("reaches bytes -4",)),
        ({"strides": (1 << 30, 1)}, ("reaches bytes",)),
        ({"space": "tb"}, ("tb", f"{TINY.tensor_buffer_bytes} B")),
    ],
)
def test_descriptors_are_checked(changes, words):
    refused(with_descriptor(gemm().program, 0, **changes), *words)


def test_constants_and_ports_lie_apart_and_inside():
    program = gemm().program
    inside = ConstantImage("w", 64, program.hbm_bytes - 64, 1)
    assert "overlaps" in findings(replace(program, constants=(replace(inside, address=0),)))[0]
    outside = replace(inside, address=program.hbm_bytes)
    refused(replace(program, constants=(outside,)), "constant w", "hbm_bytes")
    port = program.inputs[0]
    moved = replace(port, pieces=(replace(port.pieces[0], start=(1, 0)),))
    refused(replace(program, inputs=(moved, *program.inputs[1:])), "a piece at (1, 0)")


def test_constants_are_never_written():
    layout = Layout()
    x, out, weights = (layout.tensor((8, 64)) for _ in range(3))
    image = ConstantImage("w", 8 * 64 * 4, layout.descriptors[weights].address, 1)
    body = (op("vld", v(0), box(0, *ROW)), op("vld", v(1), box(2, *ROW)), op("vadd", v(0), v(0), v(1)))

    def storing(slot):
        program = layout.program(
            "constants", (Kernel("k", (par(8, *body, op("vst", box(slot, *ROW), v(0))),)),),
            launch((0, x), (1, out), (2, weights)),
            inputs=(layout.port("x", x),), outputs=(layout.port("out", out),),
        )  # fmt: skip
        return replace(program, constants=(image,))

    assert findings(storing(1)) == []
    refused(storing(2), "may write constant w")


# --- inside a kernel


def test_a_missing_wait_is_a_race():
    program = gemm().program
    drop = lambda number: lambda item: replace(item, waits=(*item.waits[:number], *item.waits[number + 1 :]))
    refused(edited(program, 2, drop(0)), "reads the A tile", "while it is written by load A")
    refused(edited(program, 0, drop(0)), "overwrites the tile", "while it is read by compute")
    refused(edited(program, 2, drop(2)), "overwrites the accumulator", "read by vector program 0")
    refused(edited(program, 3, drop(0)), "reads the accumulator while it is written by compute")


def test_a_missing_post_is_a_deadlock():
    program = gemm().program
    refused(edited(program, 0, lambda item: replace(item, posts=())), "deadlock: waits for semaphore 0")
    refused(edited(program, 3, lambda item: replace(item, posts=())), "deadlock: waits for semaphore 5")


def test_semaphores_return_to_their_counts():
    kernel = Kernel("k", (op("vmovi", v(0), 0.0, (1, 64), posts=(sync(0),)),), (0,))
    program = with_kernel(single(), kernel)
    refused(program, "semaphore 0 ends at 1, it began at 0")


def test_too_many_credits_are_a_race():
    program = gemm().program
    counts = (0, 3, 0, 2, 0, 1)
    refused(
        with_kernel(program, replace(program.kernels[0], semaphores=counts)), "overwrites the tile", "compute"
    )


def test_a_semaphore_has_one_waiting_queue():
    turn = {"waits": (sync(0),), "posts": (sync(0),)}
    body = tuple(op("vmovi", v(p), 0.0, (1, 64), program=p, **turn) for p in (0, 1))
    refused(single(*body, semaphores=(1,)), "vector program 0 and vector program 1", "one waiting queue")


def test_posts_are_ordered():
    fill = lambda p: op("vmovi", v(p), 0.0, (1, 64), posts=(sync(0),), program=p)
    take = op("vmovi", v(2), 0.0, (1, 64), waits=(sync(0), sync(0)), program=2)
    refused(single(fill(0), fill(1), take, semaphores=(0,)), "in no fixed order")


def test_registers_belong_to_a_program():
    fill = op("vmovi", v(0), 0.0, (1, 64), posts=(sync(0),))
    store = op("vst", box(1, (0, 1), (0, 64)), v(0), waits=(sync(0),), program=1)
    refused(single(fill, store, semaphores=(0,)), "last written by vector program 0")
    again = op("vmovi", v(0), 1.0, (1, 64), program=1)
    refused(single(op("vmovi", v(0), 0.0, (1, 64)), again), "overwrites register 0 while it is written")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ((op("vmov", v(0), v(1)),), ("reads register 1", "never written")),
        ((op("vfoldsum", v(0), 1.0, 0),), ("immediate has no shape",)),
        ((op("vacc", v(0), (64, 64), 0),), ("reads the accumulator, which was never written",)),
        ((op("vmovi", v(0), 0.0, (2, 3)), op("vmovi", v(1), 0.0, (3, 2)), op("vadd", v(0), v(0), v(1))),
         ("(2, 3) and (3, 2) do not go together",)),
        ((op("vmovi", v(0), 0.0, (2, 3)), op("vmovi", v(1), 0.0, (3,)), op("vadd", v(0), v(0), v(1))),
         ("of different rank",)),
        ((op("vmovi", v(0), 0.0, (64, 1)), op("vmovi", v(1), 0.0, (1, 65)), op("vadd", v(0), v(0), v(1))),
         ("4160 elements in a register of 4096",)),
        ((op("vmovi", v(0), 0.0, (2, 3)), op("vredsum", v(0), v(0), 0b100)), ("reduces axes 0b100",)),
        ((op("vmovi", v(0), 0.0, (2, 64)), op("vst", box(1, (0, 1), (0, 64)), v(0))),
         ("a store of (2, 64)",)),
        ((op("vmovi", v(0), 0.0, (2, 64)), op("vmovi", v(1), 0.0, (4, 64)),
          red(2, op("vfoldsum", v(0), v(1), 0))), ()),
    ],
)  # fmt: skip
def test_contents_of_registers_go_together(body, words):
    if words:
        refused(single(*body), *words)
    else:
        found = findings(single(*body))
        assert all("is never written" in text or "are never written" in text for text in found)


def test_a_par_loop_does_not_pass_values_on():
    program = max_pool().program
    refused(
        loops(program, lambda loop: replace(loop, kind="par")),
        "reads register 1 of another iteration of the par loop",
    )


def test_stores_convert_only_what_they_may():
    program = with_descriptor(gemm().program, 4, dtype="i32")
    refused(program, "a store of FP32 as i32; it takes vtoint first")
    program = with_descriptor(gather().program, 1, dtype="f32")
    refused(program, "the index register holds FP32")


def test_tiles_hold_what_the_product_takes():
    program = gemm().program
    refused(edited(program, 0, operand(1, box(0, (0, 32), (0, 64)))), "the loaded tile: 32 x 64 bf16")
    refused(edited(program, 0, operand(3, "s8")), "uses 64 x 64 bf16")
    refused(edited(program, 3, operand(1, (32, 64))), "drains (32, 64) of an accumulator of 64 x 64")
    refused(edited(program, 2, operand(6, 0)), "starts a sum before the last one was drained")
    refused(edited(program, 0, operand(1, box(0, (0, 64), (0, 64), (0, 1)))), "3 axes on a tensor of 2")
    refused(with_descriptor(program, 0, dtype="i8"), "loads i8 as bf16")


def test_spcs_write_apart():
    program = vector_add(8000).program
    shifted = box(2, (i(0, 4000) + i(1, 4096) + i(2, 4096), 4096))
    refused(edited(program, 3, operand(0, shifted)), "SPC 0 and SPC 1", "share bytes")


def test_spcs_may_interleave():
    """Rows dealt out in turn: the hulls of the SPCs overlap, their rows do not."""
    row = ((i(0) + i(1, 2), 1), (0, 64))
    nest = par(2, par(4, op("vld", v(0), box(0, *row)), op("vst", box(1, *row), v(0))), level="spc")
    assert findings(single(nest)) == []
    clash = ((i(0) + i(1), 1), (0, 64))
    nest = par(2, par(4, op("vld", v(0), box(0, *row)), op("vst", box(1, *clash), v(0))), level="spc")
    refused(single(nest), "share bytes")


def test_refuse_boxes_are_inside():
    inside = par(8, op("vld", v(0), box(0, *ROW, fill="refuse")), op("vst", box(1, *ROW), v(0)))
    assert findings(single(inside)) == []
    row = ((i(0) + 1, 1), (0, 64))
    outside = par(8, op("vld", v(0), box(0, *row, fill="refuse")), op("vst", box(1, *ROW), v(0)))
    refused(single(outside), "at iteration (7)", "leaves its tensor (8, 64)")
    below = op("vld", v(0), box(0, (i(0, -1) + i(1) + 7, 1), (0, 64), fill="refuse"))
    clear = (op("vmovi", v(0), 0.0, (1, 64)), op("vst", box(1, *ROW), v(0)))
    limited = par(8, *clear, red(8, below, limit=i(0) + 1))
    assert findings(single(limited)) == []


def test_dims_are_limited_but_for_an_indexed_axis():
    long = with_descriptor(gather(rows=9000).program, 0)
    assert findings(long) == []
    refused(vector_add().program, "dims (30000,)", "max_dim = 8192")


# --- across commands


def drop_command(program, mnemonic, occurrence=0):
    """A program without one of the commands of a name."""
    counter = itertools.count()

    def keep(items):
        kept = []
        for item in items:
            if isinstance(item, CommandLoop):
                kept.append(replace(item, body=keep(item.body)))
            elif item.mnemonic != mnemonic or next(counter) != occurrence:
                kept.append(item)
        return tuple(kept)

    return replace(program, commands=keep(program.commands))


def test_runs_belong_to_a_launch_and_find_their_slots():
    program = gemm().program
    refused(drop_command(program, "launch"), "no launch before it")
    refused(drop_command(program, "bind", 2), "uses slots [2]")
    launched = lambda spcs: replace(program, commands=(command("launch", spcs, "x"), *program.commands[1:]))
    refused(launched(0b01), "spreads over 2 SPCs")
    refused(launched(0b111), "SPC mask 0x7")


def chain(*between, last_slot=1):
    """Two runs: the first writes a buffer block by block, the second reads it with rows of the other SPC."""
    layout = Layout()
    dims = (4, 64)
    x, kept, out = (layout.tensor(dims) for _ in range(3))
    own = ((i(0, 2) + i(1), 1), (0, 64))
    other = ((i(0, -2) + i(1) + 2, 1), (0, 64))
    first = par(2, par(2, op("vld", v(0), box(0, *own)), op("vst", box(1, *own), v(0))), level="spc")
    second = par(2, par(2, op("vld", v(0), box(1, *other)), op("vst", box(2, *other), v(0))), level="spc")
    same = par(2, par(2, op("vld", v(0), box(1, *own)), op("vst", box(2, *own), v(0))), level="spc")
    commands = launch((0, x), (1, kept), (2, out))
    return layout.program(
        "chain",
        (Kernel("first", (first,)), Kernel("second", (second,)), Kernel("same", (same,))),
        (*commands[:-1], *between, command("run", last_slot, 0), commands[-1]),
        inputs=(layout.port("x", x),),
        outputs=(layout.port("out", out),),
    )


def test_values_between_spcs_need_a_barrier():
    assert findings(chain(command("barrier", "die"))) == []
    refused(chain(), "reads hbm bytes", "writes", "barrier")
    assert findings(chain(last_slot=2)) == []  # every SPC reads its own rows


def test_tensor_buffers_need_no_barrier():
    program = tensor_buffer_chain().program
    assert findings(program) == []
    refused(with_descriptor(program, 2, space="l2"), "share bytes")


def test_copies_need_a_wait():
    program = command_loop().program
    assert findings(program) == []
    found = findings(drop_command(program, "wait"))
    assert any("reads l2 bytes" in text for text in found)
    assert any("set again before it was waited for" in text for text in found)
    refused(drop_command(program, "copy"), "waits for event 3, which nothing before sets")
    refused(drop_command(program, "barrier"), "writes l2 bytes", "reads")


def test_command_loops_stay_inside_their_buffers():
    program = command_loop(steps=4).program
    refused(replace(program, commands=command_loop(steps=5).program.commands), "reaches bytes")


def test_transfers_need_device_wide_order():
    program = two_die_transfer().program
    assert findings(program) == []
    refused(drop_command(program, "wait", 0), "reads hbm bytes", "on die 1")
    refused(drop_command(program, "barrier", 0), "transfer", "reads hbm bytes", "writes")
    events = [item for item in program.commands if item.mnemonic != "wait"]
    refused(replace(program, commands=tuple(events)), "event 0 of die 0 is set and never waited for")
    late = command("barrier", "device", dies=0b01)
    refused(replace(program, commands=(*program.commands, late)), "every die takes part")


def test_what_is_read_was_written():
    program = gemm().program
    refused(replace(program, inputs=program.inputs[1:]), "reads hbm bytes", "not written by then")
    narrow = loops(program, lambda loop: replace(loop, extent=1) if loop.level == "spc" else loop)
    refused(narrow, "output out", "are never written")
    unknown = replace(program, outputs=(*program.outputs, replace(program.outputs[0], name="again")))
    assert findings(unknown) == []


def test_copies_match_and_stay_out_of_tensor_buffers():
    layout = Layout()
    x, out, other = layout.tensor((4, 64)), layout.tensor((4, 64)), layout.tensor((64, 4), space="l2")
    inside = layout.tensor((4, 64), space="tb")

    def copied(target):
        return layout.program(
            "copy", (), (command("copy", target, x, (), (), 0), command("wait", 0)),
            inputs=(layout.port("x", x),), outputs=(layout.port("out", out),),
        )  # fmt: skip

    assert findings(copied(out)) == []
    refused(copied(other), "to f32 (64, 4)")
    refused(copied(inside), "reaches into a tensor buffer")


def test_a_program_for_one_die_has_no_transfers():
    program = replace(gemm().program, commands=(command("transfer", 0, 0, 0), *gemm().program.commands))
    refused(program, "a transfer in a program for 1 dies")
    refused(replace(program, commands=(command("launch", SPCS, "x", dies=BOTH_DIES),)), "die mask 0b11")


# --- the error


def test_the_error_is_one_line_with_at_most_twenty_findings():
    broken = tuple(Descriptor("hbm", -4 * index - 4, "f32", (1,), (1,)) for index in range(30))
    with pytest.raises(VerificationError) as caught:
        verify_program(replace(gemm().program, descriptors=broken), TINY)
    error = caught.value
    assert isinstance(error, BadPackageError)
    assert error.exit_code == 6
    assert len(error.findings) == 30
    assert "\n" not in str(error)
    assert str(error).count("reaches bytes") == 20
    assert str(error).endswith("and 10 more")
    again = copy.copy(error)  # by __reduce__, as between processes
    assert again.findings == error.findings


def test_findings_name_kernel_instruction_and_iteration():
    program = gemm().program
    change = lambda item: replace(item, waits=item.waits[1:])
    text = findings(edited(program, 2, change))[0]
    assert text.startswith("kernel gemm, instruction 2 `tmma ring(8192*((8*i1 + 4*i2 + i3) mod 2))")
    assert "at iteration (0, 0, 0, 0)" in text


def test_a_repeated_fault_is_told_twice_at_most():
    program = gemm().program
    found = findings(edited(program, 2, lambda item: replace(item, waits=item.waits[1:])))
    assert sum("reads the A tile" in text for text in found) == 2


def test_affine_numbers_are_canonical():
    raw = Affine(0, ((1, 1), (0, 1)))
    refused(edited(gemm().program, 4, operand(0, v(raw))), "not sorted, unique and nonzero")
    assert affine(0, {1: 1, 0: 1}).terms == ((0, 1), (1, 1))
