"""The verifier across commands: runs, copies, transfers, barriers, events, and memory that nothing wrote."""

from __future__ import annotations

from dataclasses import replace

from programs import (
    BOTH_DIES,
    SPCS,
    Layout,
    box,
    command,
    command_loop,
    gemm,
    i,
    launch,
    op,
    par,
    preloaded,
    tensor_buffer_chain,
    two_die_transfer,
    v,
)
from verifying import (
    drop_command,
    findings,
    loops,
    refused,
    with_descriptor,
)

from birc.runtime.program import (
    Kernel,
)

# --- across commands


def test_runs_belong_to_a_launch_and_find_their_slots():
    program = gemm().program
    refused(drop_command(program, "launch"), "no launch before it")
    refused(drop_command(program, "bind", 2), "uses slots [2]")
    launched = lambda spcs: replace(program, commands=(command("launch", spcs, "x"), *program.commands[1:]))
    refused(launched(0b01), "spreads over 2 SPCs")
    refused(launched(0b111), "SPC mask 0x7")


def test_nothing_moves_before_the_launch():
    copied, sent = command_loop().program, two_die_transfer().program
    refused(drop_command(copied, "launch"), "no launch before it", "a copy belongs to a launch")
    refused(drop_command(sent, "launch"), "no launch before it", "a transfer belongs to a launch")


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


# Descriptors of `preloaded`, and where its commands stand.
B, RESIDUAL, HELD, DOUBLED = 1, 2, 4, 5
BIND_B, RUN, PRELOAD, WAIT, BARRIER, LAST_RUN = 2, 8, 9, 10, 11, 12


def with_order(*order):
    """The commands of `preloaded` in another order; an item may be a command of its own."""
    program = preloaded().program
    head, tail = range(RUN + 1), range(LAST_RUN + 1, len(program.commands))
    items = (*head, *order, *tail)
    return replace(program, commands=tuple(program.commands[n] if isinstance(n, int) else n for n in items))


def test_a_preload_reads_only_what_is_there():
    program = with_order(PRELOAD, WAIT, BARRIER, LAST_RUN)
    assert program == preloaded().program
    assert findings(program) == []
    # B is what the kernel before writes: there behind a barrier, not ahead of it.
    bind = replace(program.commands[BIND_B], operands=(1, DOUBLED, ()))
    changed = lambda p: replace(p, commands=(*p.commands[:BIND_B], bind, *p.commands[BIND_B + 1 :]))
    refused(changed(program), "preload", "reads l2 bytes", "writes", "barrier")
    assert findings(changed(with_order(WAIT, BARRIER, PRELOAD, LAST_RUN))) == []
    # B is what a copy brings.
    bind = replace(bind, operands=(1, HELD, ()))
    refused(changed(program), "preload", "reads l2 bytes", "copy")
    assert findings(changed(with_order(WAIT, PRELOAD, BARRIER, LAST_RUN))) == []


def test_a_preload_reads_nothing_that_the_kernel_before_writes_on_the_same_spc():
    """What those before that one write on an SPC is there: it has ended them."""

    def on_one_spc(program):
        kernels = (replace(k, nests=tuple(replace(nest, extent=1) for nest in k.nests)) for k in program.kernels)
        bind = replace(program.commands[BIND_B], operands=(1, DOUBLED, ()))
        commands = (*program.commands[:BIND_B], bind, *program.commands[BIND_B + 1 :])
        return replace(program, kernels=tuple(kernels), commands=commands)

    def of_preloads(program):
        return [text for text in map(str, findings(on_one_spc(program))) if "preload" in text]

    unordered = of_preloads(with_order(PRELOAD, WAIT, BARRIER, LAST_RUN))
    assert any("reads l2 bytes" in text and "writes" in text for text in unordered)
    again = of_preloads(with_order(command("run", 0, 0), PRELOAD, WAIT, BARRIER, LAST_RUN))
    assert len(again) == 1
    assert f"which command {RUN + 1} " in again[0]


def test_a_preload_reads_no_tensor_buffer():
    program = preloaded().program
    near = replace(program.descriptors[B], space="tb", address=0)
    bind = replace(program.commands[BIND_B], operands=(1, len(program.descriptors), ()))
    commands = (*program.commands[:BIND_B], bind, *program.commands[BIND_B + 1 :])
    found = findings(replace(program, descriptors=(*program.descriptors, near), commands=commands))
    assert any("preload" in text and "tensor buffer" in text for text in map(str, found))


def test_what_is_preloaded_stays_until_its_run():
    """Nothing overwrites B behind the preload: a copy would, before the run or beside it."""
    overwrite = command("copy", B, RESIDUAL, (), (), 7), command("wait", 7)
    refused(with_order(PRELOAD, WAIT, *overwrite, BARRIER, LAST_RUN), "copy", "writes hbm bytes", "preload")
    refused(with_order(PRELOAD, WAIT, BARRIER, *overwrite, LAST_RUN), "copy", "writes hbm bytes", "preload")
    refused(with_order(PRELOAD, WAIT, BARRIER, LAST_RUN, *overwrite), "copy", "writes hbm bytes", "preload")
    late = command("barrier", "die"), *overwrite
    assert findings(with_order(PRELOAD, WAIT, BARRIER, LAST_RUN, *late)) == []


def test_a_preload_is_no_barrier():
    refused(with_order(PRELOAD, WAIT, LAST_RUN), "reads l2 bytes", "writes", "barrier")
    refused(with_order(PRELOAD, BARRIER, LAST_RUN, WAIT), "reads l2 bytes", "copy")


def test_nothing_comes_between_a_preload_and_its_run():
    other = command("run", 0, 0)
    refused(with_order(PRELOAD, WAIT, BARRIER, other, LAST_RUN), "runs kernel 0", "preload was of kernel 1")
    refused(with_order(PRELOAD, PRELOAD, WAIT, BARRIER, LAST_RUN), "comes on die 0 between")
    refused(with_order(PRELOAD, WAIT, command("bind", 7, B, ()), BARRIER, LAST_RUN), "comes on die 0 between")
    refused(with_order(PRELOAD, WAIT, command("launch", SPCS, "x"), BARRIER, LAST_RUN), "comes on die 0 between")
    refused(with_order(WAIT, BARRIER, LAST_RUN, PRELOAD), "preloaded on die 0 and never run")
    once = replace(preloaded().program.commands[PRELOAD], once=True)
    refused(with_order(once, WAIT, BARRIER, LAST_RUN), "preload in the first call only")


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


def test_dies_use_an_event_again_in_a_known_order():
    """Die 0 may send while die 1 still waits for its own copy, by the same event."""
    layout = Layout()
    x, own, sent = (layout.tensor((4, 64)) for _ in range(3))

    def exchanged(*between):
        copied = (command("copy", own, x, (), (), 0, dies=0b10), command("wait", 0, dies=0b10))
        transferred = (command("transfer", sent, x, 0, dies=0b01), command("wait", 0, dies=BOTH_DIES))
        return layout.program(
            "exchange",
            (),
            (command("launch", SPCS, "x", dies=BOTH_DIES), *copied, *between, *transferred),
            inputs=(layout.port("x", x, BOTH_DIES),),
            outputs=(layout.port("own", own, 0b10), layout.port("sent", sent, 0b10)),
            dies=2,
        )

    assert findings(exchanged(command("barrier", "device", dies=BOTH_DIES))) == []
    refused(exchanged(), "may set event 0 of die 1 before")


def test_what_is_read_was_written():
    program = gemm().program
    refused(replace(program, inputs=program.inputs[1:]), "reads hbm bytes", "not written by then")
    narrow = loops(program, lambda loop: replace(loop, extent=1) if loop.level == "spc" else loop)
    refused(narrow, "output out", "are never written")
    unknown = replace(program, outputs=(*program.outputs, replace(program.outputs[0], name="again")))
    assert findings(unknown) == []


def test_copies_match():
    layout = Layout()
    x, out, other = layout.tensor((4, 64)), layout.tensor((4, 64)), layout.tensor((64, 4), space="l2")

    def copied(target):
        return layout.program(
            "copy", (), (command("launch", SPCS, "x"), command("copy", target, x, (), (), 0), command("wait", 0)),
            inputs=(layout.port("x", x),), outputs=(layout.port("out", out),),
        )  # fmt: skip

    assert findings(copied(out)) == []
    refused(copied(other), "to f32 (64, 4)")


def test_a_program_for_one_die_has_no_transfers():
    program = replace(gemm().program, commands=(command("transfer", 0, 0, 0), *gemm().program.commands))
    refused(program, "a transfer in a program for 1 dies")
    refused(replace(program, commands=(command("launch", SPCS, "x", dies=BOTH_DIES),)), "die mask 0b11")
