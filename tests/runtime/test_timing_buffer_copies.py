"""Copies into tensor buffers in time: through the ports of the SPCs, beside what kernels load."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import SPCS, box, command, i, op, par, v
from timing_kernels import Gemm, dense
from timing_kernels import program as timed

from birc.runtime.machine import Machine, load_machine
from birc.runtime.program import Command, Descriptor, Kernel, Program
from birc.runtime.report import ReportMetadata, build_report
from birc.runtime.timing import TimingResult, simulate
from birc.runtime.timing.dma import Copies

TINY = load_machine("tiny")


def filling(*commands: Command, num_bytes: int = 1 << 14, kernel: Kernel | None = None, space: str = "l2") -> Program:
    """Descriptors: 0 the tensor buffers' words, 1 those for all SPCs, 2 what a kernel loads from L2."""
    count = num_bytes // 4
    descriptors = (dense((count,), space="tb"), dense((2, count), space=space), dense((2, 4096), space="l2"))
    idle = kernel or Kernel("idle", (op("vmovi", v(0), 0.0, (1,)),))
    return replace(timed(TINY, idle, descriptors), commands=commands)


START = (command("launch", SPCS, "main"), command("bind", 2, 2, ()))
FILL, WAIT, RUN = command("copy", 0, 1, (), (), 0), command("wait", 0), command("run", 0, 0)


def copy_cycles(result: TimingResult) -> int:
    return result.copies[0].end_cycles - result.copies[0].issued_cycles


TILE_BYTES, ROUNDS = 4096 * 4, 40


def loading(first: int, second: int, *, slot: int = 2, programs: int = 1) -> Kernel:
    """In every round an SPC loads so many tiles from L2, and there is some work behind them."""
    loads = par(
        max(first, second),
        op("vld", v(i(1, 8) + i(3)), box(slot, (i(0), 1), (0, 4096))),
        limit=i(0, second - first) + first,
    )
    last = v(i(1, 8) + 7)
    body = par(ROUNDS, loads, op("vmovi", last, 0.0, (4096,)), op("vadd", last, last, v(i(1, 8))))
    return Kernel("loading", (par(2, par(programs, body, level="program"), level="spc"),))


@pytest.mark.parametrize(("noc", "l2"), [(256, 256), (64, 256), (256, 128)])
def test_bytes_go_in_through_the_ports_of_all_spcs(noc: int, l2: int):
    machine = TINY.with_values({"noc_bytes_per_cycle": noc, "l2_to_gib_bytes_per_cycle": l2})
    program = replace(filling(*START, FILL, WAIT), machine_digest=machine.digest)
    result = simulate(program, machine)
    assert copy_cycles(result) == machine.dma_start_cycles + (1 << 14) // min(noc, l2)
    assert result.ledger["wait_l2_noc"] == 0  # nothing runs behind it
    assert result.traffic["noc in"] == result.traffic["l2"] == 2 << 14
    assert result.traffic.get("hbm", 0) == 0


@pytest.mark.parametrize("tiles", [(4, 4), (4, 1), (1, 4)], ids=["both", "the first", "the second"])
def test_a_copy_gets_what_the_busiest_spc_leaves(tiles: tuple[int, int]):
    result = simulate(filling(*START, RUN, FILL, WAIT, kernel=loading(*tiles)), TINY)
    (run,), (copy,) = result.runs, result.copies
    assert copy.end_cycles < min(end for *_, end in run.spans)
    spans = zip(tiles, run.spans, strict=True)
    rate = TINY.noc_bytes_per_cycle - max(n * ROUNDS * TILE_BYTES / (end - start) for n, (*_, start, end) in spans)
    assert 0.2 * TINY.noc_bytes_per_cycle < rate < 0.8 * TINY.noc_bytes_per_cycle
    assert copy_cycles(result) == TINY.dma_start_cycles + math.ceil((1 << 14) / rate)
    alone = simulate(filling(*START, FILL, WAIT, RUN, kernel=loading(*tiles)), TINY)
    assert run.end_cycles - run.start_cycles == alone.runs[0].end_cycles - alone.runs[0].start_cycles


def test_two_copies_go_one_after_the_other():
    """The second one begins when the first one has moved its last byte."""
    second = command("copy", 0, 1, (), (), 1), command("wait", 1)
    result = simulate(filling(*START, FILL, second[0], WAIT, second[1]), TINY)
    first, last = (copy.end_cycles - result.copies[0].issued_cycles for copy in result.copies)
    assert first == TINY.dma_start_cycles + (1 << 14) // TINY.noc_bytes_per_cycle
    assert last == 2 * first


def test_a_copy_into_tensor_buffers_goes_beside_those_of_the_engines():
    """However many of these there are: it is not theirs."""
    machine = TINY.with_values({"dma_engines_per_die": 1})
    constant = command("copy", 2, 3, (), (), 1)
    descriptors = (
        dense((1 << 12,), space="tb"),
        dense((2, 1 << 12), space="l2"),
        dense((1 << 12,), address=1 << 16, space="l2"),
        dense((1 << 12,)),
    )
    program = replace(
        filling(*START, constant, FILL, WAIT, command("wait", 1)),
        descriptors=descriptors,
        machine_digest=machine.digest,
        hbm_bytes=1 << 16,
        l2_bytes=1 << 17,
    )
    result = simulate(program, machine)
    alone = simulate(filling(*START, FILL, WAIT), TINY)
    (fill,) = (copy for copy in result.copies if not copy.in_hbm)
    assert fill.end_cycles - fill.issued_cycles == copy_cycles(alone)


def test_what_is_loaded_ahead_counts_while_it_is():
    """B enters the SPCs from the preload on, and the copy moves the slower."""
    gemm = Gemm(row_blocks=1, column_blocks=8, b_space="l2", depth=8)
    descriptors = (*gemm.descriptors(), dense((1 << 12,), space="tb"), dense((2, 1 << 12), space="l2"))
    base = timed(TINY, gemm.kernel(), descriptors)
    *start, run = base.commands
    fill, wait = command("copy", 3, 4, (), (), 0), command("wait", 0)

    def cycles(*commands: Command) -> int:
        return copy_cycles(simulate(replace(base, commands=(*start, *commands, run)), TINY))

    assert cycles(command("preload", 0), fill, wait) > cycles(fill, wait)


RUN_GEMM, RUN_LOADING, PRELOAD = command("run", 0, 0), command("run", 1, 0), command("preload", 0)
FILL_AT_LAST = command("copy", 3, 4, (), (), 99), command("wait", 99)


def stream(machine: Machine, gemm: Gemm, loads: Kernel, words: Descriptor, *commands: Command) -> Program:
    """A product and a kernel that loads from slot 5, beside copies of the words of all SPCs to the tensor buffers."""
    buffers = dense(words.dims[1:], space="tb")
    whole = timed(machine, gemm.kernel(), (*gemm.descriptors(), buffers, words, dense((2, 4096), space="l2")))
    *start, _ = whole.commands
    return replace(whole, kernels=(gemm.kernel(), loads), commands=(*start, *commands))


def check_ports(program: Program, machine: Machine) -> TimingResult:
    """Kernels and copies together take in no more than the ports let through."""
    result = simulate(program, machine)
    assert sum(result.ledger.values()) == machine.spcs * result.latency_cycles
    spc_cycles = machine.spcs_per_die * (result.latency_cycles - machine.launch_cycles)
    assert result.traffic["noc in"] <= spc_cycles * machine.noc_bytes_per_cycle
    assert result.traffic["l2"] <= spc_cycles * machine.l2_to_gib_bytes_per_cycle
    copied = sum(copy.num_bytes for copy in result.copies)
    assert result.traffic["noc in"] == sum(run.traffic.get("noc in", 0) for run in result.runs) + copied
    return result


def test_a_kernel_has_loaded_when_b_of_the_next_is():
    """Two copies last from the first kernel to behind the last, and get all that these leave."""
    machine = TINY.with_values({"dma_start_cycles": 1})
    gemm = Gemm(row_blocks=1, a_space="l2", b_space="l2")
    other = command("copy", 3, 4, (), (), 0), command("wait", 0)
    order = RUN_GEMM, RUN_GEMM, other[0], PRELOAD, RUN_GEMM, *FILL_AT_LAST, other[1]
    check_ports(stream(machine, gemm, loading(1, 1, slot=5), dense((2, 1 << 18), space="l2"), *order), machine)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Program, Machine]:
    """Kernels and copies in any order."""
    gemm = Gemm(
        row_blocks=draw(st.integers(1, 3)),
        column_blocks=draw(st.integers(1, 3)),
        a_space=draw(st.sampled_from(("hbm", "l2", "tb"))),
        b_space=draw(st.sampled_from(("hbm", "l2"))),
    )
    tiles = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    count = draw(st.sampled_from((1 << 10, 1 << 14, 1 << 18)))  # more than the buffers hold: that is not asked here
    words = dense((2, count), space=draw(st.sampled_from(("hbm", "l2"))))
    noc, l2 = draw(st.sampled_from(((256, 256), (64, 256), (256, 64))))
    machine = TINY.with_values({"noc_bytes_per_cycle": noc, "l2_to_gib_bytes_per_cycle": l2, "dma_start_cycles": 1})
    # A preload finds the port to the NoC free, and that to L2 with it where it is no slower.
    ahead = ((PRELOAD, RUN_GEMM),) if noc <= l2 else ()
    barriers = command("barrier", "die"), command("barrier", "spcs")
    parts = (RUN_GEMM, RUN_LOADING, *(4 * ("fill",)), "wait", *barriers, *ahead)
    commands, events = list[Command](), list[int]()
    for number, part in enumerate(draw(st.lists(st.sampled_from(parts), min_size=4, max_size=30))):
        if part == "fill":
            events.append(number)
            commands.append(command("copy", 3, 4, (), (), number))
        elif part == "wait":
            commands += [command("wait", events.pop(0))] if events else []
        else:
            commands += part if isinstance(part, tuple) else (part,)
    commands += [*FILL_AT_LAST, *(command("wait", number) for number in events)]
    loads = loading(*tiles, slot=5, programs=draw(st.sampled_from((1, 4))))
    return stream(machine, gemm, loads, words, *commands), machine


@settings(max_examples=60, deadline=None)
@given(streams())
def test_what_enters_the_spcs_takes_its_time(drawn):
    """And nothing is forgotten too soon."""
    program, machine = drawn
    result = check_ports(program, machine)
    report = build_report(program, machine, result, ReportMetadata("stream"))
    assert all(value <= report.latency_us for value in report.load_us.values())
    assert result.counts.copies == {copy.command: copy.num_bytes for copy in result.copies}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Copies, "forget", lambda copies, time: None)
        assert simulate(program, machine, extrapolate=False).copies == result.copies
