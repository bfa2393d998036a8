"""The verifier accepts correct programs, and names broken forms of programs and kernels."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from programs import (
    Layout,
    box,
    command_loop,
    convolution,
    gemm,
    i,
    launch,
    op,
    par,
    red,
    sync,
    v,
    vector_add,
)
from verifying import (
    CASES,
    ROW,
    TINY,
    edited,
    findings,
    loops,
    operand,
    refused,
    single,
    with_descriptor,
    with_kernel,
)

from birc.runtime.errors import BadPackageError
from birc.runtime.machine import load_machine
from birc.runtime.program import (
    Affine,
    ConstantImage,
    Descriptor,
    Kernel,
    Loop,
    RingAddress,
    Window,
    affine,
)
from birc.runtime.verifier import VerificationError, verify_program

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
        (0, operand(1, box(0, (0, 401), (0, 1))), ("401 rows or columns", "400")),
        (0, operand(1, box(0, (0, 65), (0, 64))), ("input buffer bytes 0 to 16512", "16384 B")),
        (1, operand(1, box(1, (0, 64), (0, 65))), ("65 rows or columns", "64")),
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


WINDOW = Window(i(3, 2), i(4, 2), 8, 8, 12)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (8, ("operand window is 8", "a window")),
        (replace(WINDOW, rows=9), ("a window of 9 x 8 pixels", "conv_tile_side = 8")),
        (replace(WINDOW, columns=0), ("a window of 8 x 0 pixels",)),
        (replace(WINDOW, top=i(5)), ("top of window", "depth 5", "5 loops")),
        (replace(WINDOW, left=Affine(0, ((4, 0),))), ("left of window", "nonzero")),
        (replace(WINDOW, top=i(3) + -1), ("top -1 to 0",)),
        (replace(WINDOW, top=Affine(13)), ("top 13 to 13", "0 to 12", "conv_dilation_max")),
        (replace(WINDOW, left=i(4, 7), pitch=40), ("left 0 to 14", "0 to 12")),
        (replace(WINDOW, left=i(4, 3)), ("columns up to 14", "12 in the patch")),
        (replace(WINDOW, top=i(3, 3)), ("uses 128 x 32 bf16 of the A tile", "the loaded tile: 120 x 32")),
        (replace(WINDOW, pitch=13), ("uses 125 x 32", "loaded tile")),
        (replace(WINDOW, rows=7), ("drains (8, 8, 24) of an accumulator of 56 x 24",)),
    ],
)
def test_windows_are_inside_their_patch(window, words):
    refused(edited(convolution().program, 2, operand(1, window)), *words)


def test_a_window_that_leaves_its_patch_in_the_last_of_many_taps_is_seen():
    """Loops that move a window are walked whole, however many iterations are alike."""
    taps = 7
    single_row = Window(i(1), Affine(), 1, 8, 8)
    layout = Layout()
    x, w, out = layout.tensor((taps, 8, 32), "bf16"), layout.tensor((taps, 32, 16), "bf16"), layout.tensor((1, 8, 16))
    ring = RingAddress(Affine())

    def program(rows):
        body = (
            op("tlda", ring, box(0, (0, rows), (0, 8), (0, 32)), 2, "bf16", posts=(sync(0),), waits=(sync(1),)),
            red(taps, op("tldb", ring, box(1, (i(1), 1), (0, 32), (0, 16)), 2, "bf16", waits=(sync(3),),
                         posts=(sync(2),)),
                op("tconv", ring, single_row, ring, 16, 32, "bf16", 0b10,
                   waits=(sync(0, first=0b10), sync(2), sync(4, first=0b10)),
                   posts=(sync(1, last=0b10), sync(3), sync(5, last=0b10)))),
            op("vacc", v(0), (1, 8, 16), 0, waits=(sync(5),), posts=(sync(4),)),
            op("vst", box(2, (0, 1), (0, 8), (0, 16)), v(0)),
        )  # fmt: skip
        return layout.program(
            "taps", (Kernel("taps", (par(1, *body),), (0, 1, 0, 1, 1, 0)),), launch((0, x), (1, w), (2, out)),
            inputs=(layout.port("x", x), layout.port("w", w)), outputs=(layout.port("out", out),),
        )  # fmt: skip

    assert findings(program(taps)) == []
    refused(program(taps - 1), "uses 56 x 32 bf16 of the A tile", "48 x 32")


def test_a_patch_is_free_after_its_last_tap():
    early = lambda item: replace(item, posts=(replace(item.posts[0], last=0b10000), *item.posts[1:]))
    found = findings(edited(convolution().program, 2, early))
    assert any("overwrites the tile" in text and "while it is read by compute" in text for text in found)


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
    assert text.startswith("kernel gemm, instruction 2 `tmma @0 ring 8192*(8*i1+4*i2+i3 % 2), ")
    assert "at iteration (0, 0, 0, 0)" in text


def test_a_repeated_fault_is_told_twice_at_most():
    program = gemm().program
    found = findings(edited(program, 2, lambda item: replace(item, waits=item.waits[1:])))
    assert sum("reads the A tile" in text for text in found) == 2


def test_affine_numbers_are_canonical():
    raw = Affine(0, ((1, 1), (0, 1)))
    refused(edited(gemm().program, 4, operand(0, v(raw))), "not sorted, unique and nonzero")
    assert affine(0, {1: 1, 0: 1}).terms == ((0, 1), (1, 1))
