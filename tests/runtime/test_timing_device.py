"""The device in time: counts against the stepping engine, ledger, commands, copies, the report."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import Case, box, cases, command, i, op, par, v
from timing_kernels import Gemm, dense, program

from birc.runtime.errors import BadPackageError
from birc.runtime.machine import Machine, load_machine
from birc.runtime.package_sources import RunSource
from birc.runtime.program import Command, CommandLoop, Kernel, Program
from birc.runtime.report import Report, ReportMetadata, build_report, compulsory_bytes
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.timing import TimingResult, simulate
from birc.runtime.timing.result import LEDGER_CLASSES

MACHINE = load_machine("tiny")
CASES = pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
BOTH = 0b11


def check_invariants(result: TimingResult, machine: Machine) -> None:
    """What holds for every execution."""
    ledger, latency = result.ledger, result.latency_cycles
    assert tuple(ledger) == LEDGER_CLASSES
    assert sum(ledger.values()) == machine.spcs * latency
    assert min(ledger.values()) >= 0
    traffic = {name: float(num_bytes) for name, num_bytes in result.traffic.items()}
    assert traffic.get("hbm", 0) <= machine.hbm_bytes_per_cycle() * latency
    for port in ("noc in", "noc out"):
        assert traffic.get(port, 0) <= machine.spcs * machine.noc_bytes_per_cycle * latency
    assert traffic.get("tb", 0) <= machine.spcs * machine.tb_to_gib_bytes_per_cycle * latency
    assert traffic.get("l2", 0) <= machine.spcs * machine.l2_to_gib_bytes_per_cycle * latency
    assert traffic["d2d one way"] <= machine.d2d_bytes_per_cycle * latency
    assert result.tcore_cycles <= machine.spcs * latency
    assert result.alu_cycles <= machine.spcs * latency
    assert result.sfu_cycles <= machine.spcs * latency


def check_bounds(report: Report) -> None:
    for figures in (report.bound_us, report.load_us):
        for name, value in figures.items():
            assert value is None or value <= report.latency_us, name


@CASES
def test_counts_are_those_of_the_stepping_engine(case: Case):
    counts = simulate(case.program, MACHINE).counts
    assert counts == StepEngine(case.program, MACHINE).run(case.memory())


@CASES
def test_invariants_of_handmade_programs(case: Case):
    result = simulate(case.program, MACHINE)
    check_invariants(result, MACHINE)
    check_bounds(build_report(case.program, MACHINE, result, ReportMetadata(case.name)))


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        Gemm,
        spcs=st.integers(1, 2),
        row_blocks=st.integers(1, 3),
        column_blocks=st.integers(1, 3),
        nb=st.integers(1, 3),
        k=st.sampled_from((100, 256)),
        ragged=st.integers(0, 40),
        a_space=st.sampled_from(("hbm", "l2", "tb")),
        multicast=st.sampled_from(("none", "dtg", "vtg", "peer")),
    ),
    st.integers(1, 3),
    st.sampled_from((1, 2)),
)
def test_invariants_of_matrix_products(gemm, repeats, dies):
    whole = program(MACHINE, gemm.kernel(), gemm.descriptors(), macs=gemm.macs * dies, repeats=repeats, dies=dies)
    result = simulate(whole, MACHINE)
    check_invariants(result, MACHINE)
    rate = MACHINE.format("bf16").macs_per_cycle_per_spc
    assert result.ledger["tcore_useful"] * rate == result.useful_macs == gemm.macs * dies * repeats
    check_bounds(build_report(whole, MACHINE, result, ReportMetadata("gemm")))


# --- the ledger ----------------------------------------------------------------


def test_matrix_cycles_without_useful_work_are_padding():
    gemm = Gemm()
    useful = simulate(program(MACHINE, gemm.kernel(), gemm.descriptors(), macs=gemm.macs), MACHINE).ledger
    half = simulate(program(MACHINE, gemm.kernel(), gemm.descriptors(), macs=gemm.macs // 2), MACHINE).ledger
    assert half["tcore_useful"] * 2 == useful["tcore_useful"]
    assert half["tcore_padding"] - useful["tcore_padding"] == half["tcore_useful"]


def test_more_multiply_adds_than_the_tcore_executed_were_vector_work():
    gemm = Gemm()
    result = simulate(program(MACHINE, gemm.kernel(), gemm.descriptors(), macs=10 * gemm.macs), MACHINE)
    rate = MACHINE.format("bf16").macs_per_cycle_per_spc
    assert result.ledger["tcore_useful"] == Fraction(gemm.macs, rate)


def test_idle_spcs_are_masked_off():
    """One SPC of four works; the others are idle for the whole time."""
    gemm = Gemm(spcs=1)
    result = simulate(gemm.program(MACHINE), MACHINE)
    assert result.ledger["finished_masked"] == 3 * result.latency_cycles


def test_a_dependency_names_its_producer():
    near = Gemm(spcs=1, kk=4, a_space="tb", b_space="tb", out_space="tb")
    machine = MACHINE.with_values({"semaphore_cycles": 2_000})
    result = simulate(near.program(machine), machine)
    assert result.runs[0].bound_by == "wait_dependency"
    assert {name for name, _ in result.runs[0].awaited} <= {"tlda", "tldb", "vacc", "tmma", "pipeline"}


def test_barriers_wait_for_the_slowest_spc():
    """SPC 0 has ten times the work of SPC 1, which waits at the barrier for the next kernel."""
    body = par(10, op("vmovi", v(0), 0.0, (4096,)), limit=i(0, -9) + 10)
    uneven = Kernel("uneven", (par(2, body, level="spc"),))
    barrier = (command("barrier", "die"), command("run", 0, 0))
    result = simulate(program(MACHINE, uneven, (), after=barrier), MACHINE)
    tile = 4096 // MACHINE.vector_lanes_per_spc
    assert result.ledger["wait_dependency"] == 9 * tile - MACHINE.spc_barrier_cycles
    assert result.ledger["vector"] == 22 * tile
    chain = 2 * 10 * tile + MACHINE.launch_cycles + MACHINE.die_barrier_cycles
    assert result.latency_cycles == chain


def test_kernels_of_an_spc_follow_after_its_own_barrier():
    whole = Gemm().program(MACHINE, repeats=4)
    once = simulate(Gemm().program(MACHINE), MACHINE).latency_cycles - MACHINE.launch_cycles
    start = MACHINE.launch_cycles
    binds = 3 * MACHINE.bind_cycles
    expected = start + binds + 4 * (once - binds) + 3 * MACHINE.spc_barrier_cycles
    assert simulate(whole, MACHINE).latency_cycles == expected


def test_a_change_of_multicast_mode_takes_a_die_barrier():
    gemm = Gemm()
    plain, merged = gemm.kernel(), replace(gemm, multicast="dtg").kernel()
    first = program(MACHINE, plain, gemm.descriptors(), after=(command("run", 1, 0),))
    same = replace(first, kernels=(merged, merged))
    mixed = replace(first, kernels=(plain, merged))

    def pause(whole: Program) -> int:
        runs = simulate(whole, MACHINE).runs
        return runs[1].start_cycles - runs[0].end_cycles

    assert pause(same) == MACHINE.spc_barrier_cycles
    assert pause(mixed) == MACHINE.multicast_switch_cycles


# --- copies ----------------------------------------------------------------


def copying(num_bytes: int, *commands: Command | CommandLoop, dies: int = 1, kernel: Kernel | None = None) -> Program:
    """Descriptors: 0 and 1 in HBM, 2 in L2; a kernel that reads HBM may run beside the copy."""
    count = num_bytes // 4
    descriptors = (dense((count,)), dense((count,), address=num_bytes), dense((count,), space="l2"))
    empty = kernel or Kernel("nothing", (op("vmovi", v(0), 0.0, (1,)),))
    whole = program(MACHINE, empty, descriptors, dies=dies)
    return replace(whole, commands=commands)


def copy_cycles(result: TimingResult) -> int:
    return result.copies[0].end_cycles - result.copies[0].issued_cycles


def hbm_rate(machine: Machine) -> float:
    return machine.hbm_bytes_per_cycle() / machine.dies * machine.hbm_efficiency


def test_a_copy_inside_hbm_reads_and_writes():
    num_bytes = 1 << 16
    into_l2 = copying(num_bytes, command("copy", 2, 0, (), (), 0), command("wait", 0))
    in_hbm = copying(num_bytes, command("copy", 1, 0, (), (), 0), command("wait", 0))
    once, twice = (copy_cycles(simulate(p, MACHINE)) - MACHINE.dma_start_cycles for p in (into_l2, in_hbm))
    assert once == pytest.approx(num_bytes / hbm_rate(MACHINE), abs=1)
    assert twice == pytest.approx(2 * once, abs=2)
    assert simulate(in_hbm, MACHINE).traffic["hbm"] == 2 * num_bytes


def test_copies_take_turns_on_the_engines():
    num_bytes = 1 << 16
    engines = MACHINE.dma_engines_per_die
    starts = [command("copy", 2, 0, (), (), event) for event in range(engines + 1)]
    waits = [command("wait", event) for event in range(engines + 1)]
    result = simulate(copying(num_bytes, *starts, *waits), MACHINE)
    ends = sorted(copy.end_cycles for copy in result.copies)
    # The engines share the HBM; the last copy starts when the first has ended.
    assert ends[-1] >= ends[0] + MACHINE.dma_start_cycles
    assert ends[-1] >= (engines + 1) * num_bytes / hbm_rate(MACHINE)
    check_invariants(result, MACHINE)


def test_a_copy_gets_what_kernels_leave_of_hbm():
    num_bytes = 1 << 20
    where = i(0, 32 * 4096) + i(1, 4096)
    reader = Kernel("r", (par(2, par(32, op("vld", v(i(1)), box(0, (where, 4096)))), level="spc"),))
    start = (command("launch", 0b11, "main"), command("bind", 0, 0, ()))
    copy, wait, go = command("copy", 2, 1, (), (), 0), command("wait", 0), command("run", 0, 0)
    alone = simulate(copying(num_bytes, *start, copy, wait, kernel=reader), MACHINE)
    beside = simulate(copying(num_bytes, *start, go, copy, wait, kernel=reader), MACHINE)
    check_invariants(beside, MACHINE)
    assert copy_cycles(beside) > 1.5 * copy_cycles(alone)
    total = num_bytes + 2 * 32 * 4096 * 4
    assert beside.latency_cycles >= total / hbm_rate(MACHINE)


@pytest.mark.parametrize("num_bytes", [1 << 10, 1 << 20])
def test_transfers_take_the_link_and_a_flag(num_bytes):
    swap = copying(num_bytes, command("transfer", 1, 0, 0, dies=BOTH), command("wait", 0, dies=BOTH), dies=2)
    result = simulate(swap, MACHINE)
    fixed = MACHINE.dma_start_cycles + MACHINE.cross_die_flag_cycles
    # Each die reads what it sends and writes what it receives.
    slowest = max(num_bytes / MACHINE.d2d_bytes_per_cycle, 2 * num_bytes / hbm_rate(MACHINE))
    assert result.latency_cycles == pytest.approx(fixed + slowest, abs=3)
    assert result.traffic["d2d"] == 2 * num_bytes
    assert result.traffic["d2d one way"] == num_bytes
    check_invariants(result, MACHINE)


def test_transfers_go_in_the_order_of_issue_whichever_is_waited_for_first():
    sends = [command("transfer", 1, 0, event, dies=BOTH) for event in range(3)]
    in_order = [command("wait", event, dies=BOTH) for event in range(3)]
    expected, *others = (
        simulate(copying(1 << 16, *sends, *(in_order[n] for n in waits), dies=2), MACHINE)
        for waits in itertools.permutations(range(3))
    )
    ends = [copy.end_cycles for copy in expected.copies]
    assert ends == sorted(ends)
    for result in others:
        assert [copy.end_cycles for copy in result.copies] == ends


def test_a_slower_link_costs_time():
    slower = MACHINE.with_values({"d2d_bytes_per_cycle": 10})
    swap = copying(1 << 20, command("transfer", 1, 0, 0, dies=BOTH), command("wait", 0, dies=BOTH), dies=2)
    assert simulate(swap, slower).latency_cycles > 2 * simulate(swap, MACHINE).latency_cycles


def test_waiting_for_the_other_die_is_a_class_of_its_own():
    start = command("launch", 0b11, "main", dies=BOTH)
    go = command("run", 0, 0, dies=BOTH)
    swap = (command("transfer", 1, 0, 0, dies=BOTH), command("wait", 0, dies=BOTH))
    result = simulate(copying(1 << 16, start, go, *swap, go, dies=2), MACHINE)
    assert result.ledger["wait_other_die"] > 0
    check_invariants(result, MACHINE)


def test_an_event_that_nothing_sets_is_refused():
    with pytest.raises(BadPackageError, match="event 3"):
        simulate(copying(512, command("wait", 3)), MACHINE)


# --- the report ----------------------------------------------------------------

KEYS = [
    *("schema", "model", "target", "precision", "batch", "latency_us", "latency_range_us", "end_to_end_us"),
    *("throughput_per_s", "energy_j", "utilization", "ledger", "sram", "traffic", "bound_us", "load_us"),
    *("warm", "placement", "per_op"),
]


def report_of(case: Case, **metadata) -> Report:
    result = simulate(case.program, MACHINE)
    return build_report(case.program, MACHINE, result, ReportMetadata(case.name, **metadata))


def test_the_report_is_the_published_object():
    sources = (RunSource("layer 1", ("Gemm_0", "Relu_1")),)
    report = report_of(cases()[0], batch=8, runs=sources, sram_lower_bound_bytes=5, device_nodes=2).to_json()
    assert json.loads(json.dumps(report)) == report
    assert list(report) == KEYS
    assert set(report["utilization"]) == {"tcore", "vcore", "hbm", "d2d"}
    assert tuple(report["ledger"]) == LEDGER_CLASSES
    assert set(report["sram"]) == {"peak_bytes", "capacity_bytes", "lower_bound_bytes"}
    assert set(report["traffic"]) == {"hbm_bytes", "compulsory_bytes", "d2d_bytes"}
    bounds = {"tcore", "vector", "hbm", "stream", "l2", "noc", "d2d", "dependency", "roofline", "max"}
    assert set(report["bound_us"]) == bounds
    assert set(report["load_us"]) == bounds - {"roofline", "max"}
    assert report["bound_us"]["max"] == report["bound_us"]["roofline"], "hand-written: the compiler derived none"
    assert all(report["bound_us"][name] is None for name in report["load_us"])
    assert set(report["placement"]) == {"device_nodes", "host_nodes", "host"}
    (operation,) = report["per_op"]
    assert operation["name"] == "layer 1"
    assert operation["onnx_nodes"] == ["Gemm_0", "Relu_1"]
    fields = {
        "name",
        "onnx_nodes",
        "engine",
        "start_us",
        "end_us",
        "flops",
        "bytes",
        "utilization",
        "bound_by",
    }
    assert set(operation) == fields
    assert report["throughput_per_s"] == pytest.approx(8 / report["latency_us"] * 1e6)


@CASES
def test_the_text_names_every_class_and_bound(case: Case):
    report = report_of(case)
    text = report.render_text()
    assert case.name in text
    assert all(name in text for name in report.bound_us)
    assert len(text.splitlines()) < 60
    assert max(len(line) for line in text.splitlines()) <= 120


@CASES
def test_compulsory_bytes_count_ports_once(case: Case):
    sizes = {"f32": 4, "bf16": 2, "f16": 2, "i64": 8}
    ports = (*case.program.inputs, *case.program.outputs)
    assert compulsory_bytes(case.program) == sum(sizes[port.dtype] * math.prod(port.shape) for port in ports)


def test_runs_in_command_loops_are_operations_of_their_own():
    case = next(case for case in cases() if case.name == "command_loop")
    names = [operation.name for operation in report_of(case).per_op]
    assert len(names) == len(set(names))
    assert any(name.endswith("[1]") for name in names)


def test_the_result_does_not_depend_on_addresses_of_interleaved_tensors():
    gemm = Gemm(spcs=1)
    moved = tuple(replace(d, address=d.address + 4096) for d in gemm.descriptors())
    here = simulate(gemm.program(MACHINE), MACHINE)
    there = simulate(program(MACHINE, gemm.kernel(), moved, macs=gemm.macs), MACHINE)
    assert here == there
