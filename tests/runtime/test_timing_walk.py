"""The walk of one SPC: extrapolation equals the full walk, shared ports, limits in flight, overlap."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import Case, box, cases, i, op, par, red, sync, v
from timing_kernels import Gemm, dense, program, streaming

from birc.runtime.errors import BadPackageError
from birc.runtime.machine import Machine, load_machine
from birc.runtime.program import Affine, Kernel, Program, RingAddress, Window
from birc.runtime.timing import TimingResult, simulate
from birc.runtime.timing.ports import Port, Route, SharedPorts, fair_rates
from birc.runtime.timing.traffic import count_in_bounds, touched_bytes

MACHINE = load_machine("tiny")
LAUNCH = MACHINE.launch_cycles


def without_walked(result: TimingResult) -> TimingResult:
    return replace(result, walked=0)


def run(kernel: Kernel, *descriptors, machine: Machine = MACHINE) -> TimingResult:
    return simulate(program(machine, kernel, descriptors), machine)


def kernel_cycles(result: TimingResult) -> int:
    return sum(timing.end_cycles - timing.start_cycles for timing in result.runs)


# --- extrapolation ----------------------------------------------------------------


GEMMS = st.builds(
    Gemm,
    spcs=st.integers(1, 2),
    row_blocks=st.integers(1, 7),
    column_blocks=st.integers(1, 7),
    mb=st.integers(1, 3),
    nb=st.integers(1, 4),
    kk=st.integers(1, 3),
    k=st.sampled_from((32, 96, 128, 256)),
    depth=st.integers(1, 3),
    programs=st.just(1),
    epilogue=st.integers(0, 3),
    ragged=st.integers(0, 63),
    a_space=st.sampled_from(("hbm", "l2", "tb")),
    b_space=st.sampled_from(("hbm", "l2")),
    out_space=st.sampled_from(("hbm", "l2", "tb")),
    multicast=st.sampled_from(("none", "dtg")),
)


@settings(max_examples=40, deadline=None)
@given(GEMMS, st.integers(1, 3))
def test_extrapolation_of_matrix_products_is_exact(gemm, programs):
    if programs > 1:
        gemm = replace(gemm, programs=programs, nb=programs)
    whole = gemm.program(MACHINE)
    full = simulate(whole, MACHINE, extrapolate=False)
    assert without_walked(simulate(whole, MACHINE)) == without_walked(full)
    assert full.counts.total().macs >= gemm.macs


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from(((4096,), (1000,), (64, 64))),
    st.booleans(),
)
def test_extrapolation_of_vector_kernels_is_exact(rows, taps, pad, programs, shape, bounded):
    """Windows that leave the tensor at both ends, folds, a triangular loop, several programs."""
    length = shape[-1]
    window = box(0, (i(1) + i(2) + -pad, 1), (0, length), fill="lowest")
    fold = (op("vld", v(i(0, 2)), window), op("vfoldmax", v(i(0, 2) + 1), v(i(0, 2)), 1 << 2))
    limit = i(1) + 1 if bounded else None
    body = par(
        rows,
        red(taps, *fold, limit=limit),
        op("vexp2", v(i(0, 2)), v(i(0, 2) + 1)),
        op("vst", box(1, (i(1), 1), (0, length)), v(i(0, 2))),
    )
    kernel = Kernel("window", (par(programs, body, level="program"),))
    whole = program(MACHINE, kernel, (dense((rows, length)), dense((rows, length))))
    full = simulate(whole, MACHINE, extrapolate=False)
    assert without_walked(simulate(whole, MACHINE)) == without_walked(full)


def test_a_long_loop_is_not_walked():
    short = simulate(Gemm(row_blocks=20).program(MACHINE), MACHINE)
    long = simulate(Gemm(row_blocks=2000).program(MACHINE), MACHINE)
    assert long.walked < 2 * short.walked
    assert long.executed == 100 * short.executed


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_handmade_programs_extrapolate_exactly(case: Case):
    full = simulate(case.program, MACHINE, extrapolate=False)
    assert without_walked(simulate(case.program, MACHINE)) == without_walked(full)


# --- ports ----------------------------------------------------------------


def route(*ports: Port, latency: int = 0) -> Route:
    return Route("l2", False, tuple((port, Fraction(1)) for port in ports), latency)


WIDE, NARROW = Port("wide", Fraction(256)), Port("narrow", Fraction(40))


def test_what_a_narrow_route_cannot_use_goes_to_the_others():
    rates = fair_rates([route(WIDE), route(NARROW, WIDE)], [2, 1])
    assert rates == [Fraction(108), Fraction(40)]


def test_a_multicast_loads_the_memory_with_its_part():
    shared = Route("hbm", False, ((NARROW, Fraction(1, 4)), (WIDE, Fraction(1))), 0, 4)
    assert fair_rates([shared], [1]) == [Fraction(160)]


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True), min_size=1, max_size=4),
    st.lists(st.integers(1, 400), min_size=4, max_size=4),
    st.data(),
)
def test_shares_are_max_min_fair(route_ports, widths, data):
    """No port is overloaded, and every route is held back by a full port on which nobody gets more."""
    ports = [Port(str(number), Fraction(width)) for number, width in enumerate(widths)]
    routes = [route(*(ports[number] for number in numbers)) for numbers in route_ports]
    active = data.draw(st.lists(st.integers(1, 3), min_size=len(routes), max_size=len(routes)))
    rates = fair_rates(routes, active)
    used = {port: Fraction(0) for port in ports}
    for entry, rate, count in zip(routes, rates, active, strict=True):
        for port, _ in entry.usage:
            used[port] += rate * count
    assert all(used[port] <= port.bytes_per_cycle for port in ports)
    for entry, rate in zip(routes, rates, strict=True):
        full = [port for port, _ in entry.usage if used[port] == port.bytes_per_cycle]
        highest = [
            max(r for e, r in zip(routes, rates, strict=True) if any(p == port for p, _ in e.usage)) for port in full
        ]
        assert rate in highest


def test_transfers_share_a_port_and_then_have_it_alone():
    ports = SharedPorts([route(Port("p", Fraction(100)))], flows=2)
    ports.submit(0, 0, 1000, "short", 0)
    ports.submit(1, 0, 3000, "long", 0)
    assert ports.next_time == 20  # 1000 bytes at half of 100 a cycle
    assert ports.finish(20) == [(0, "short")]
    assert ports.next_time == 40  # the other 2000 at the whole rate
    assert ports.finish(40) == [(0, "long")]


# --- traffic ----------------------------------------------------------------


@given(
    st.integers(-20, 20),
    st.integers(-3, 3).filter(bool),
    st.integers(1, 12),
    st.integers(-5, 5),
    st.integers(1, 9),
)
def test_elements_in_bounds(start, step, extent, low, size):
    inside = [c for c in range(start, start + extent * step, step) if low <= c < low + size]
    assert count_in_bounds(start, step, extent, low, low + size) == len(inside)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 700)), min_size=1, max_size=4),
    st.sampled_from((1, 2, 4)),
)
def test_traffic_is_never_less_than_the_distinct_elements(axes, element_bytes):
    """At least one granule for every 128 distinct bytes, at most one for each element."""
    counts, strides = [count for count, _ in axes], [stride for _, stride in axes]
    offsets = {0}
    for count, stride in axes:
        offsets = {offset + n * stride for offset in offsets for n in range(count)}
    traffic = touched_bytes(counts, [stride * element_bytes for stride in strides], element_bytes, 128)
    assert traffic % 128 == 0
    assert traffic >= len(offsets) * element_bytes
    assert traffic <= 128 * math.prod(counts)


@pytest.mark.parametrize(
    ("counts", "pitches", "expected"),
    [
        ((64, 64), (8192, 2), 64 * 128),  # 64 rows of one granule
        ((64, 256), (512, 2), 64 * 512),  # adjacent rows
        ((64, 4096), (0, 4), 4096 * 4),  # a broadcast row
        ((1, 1), (4, 4), 128),  # one element
        ((8, 3, 3, 32), (4096, 4096, 64, 2), 10 * 256),  # overlapping rows of a window
        ((0, 5), (4, 4), 0),
    ],
)
def test_traffic_of_typical_boxes(counts, pitches, expected):
    assert touched_bytes(counts, pitches, 2, 128) == expected


# --- what moves latency which way ----------------------------------------------------------------


BIG = Gemm(spcs=2, row_blocks=4, column_blocks=4, mb=2, nb=2, kk=2, k=256)


def gemm_latency(machine: Machine = MACHINE, **sizes) -> int:
    return simulate(replace(BIG, **sizes).program(machine), machine).latency_cycles


def test_a_missing_double_buffer_costs_time():
    near = {"a_space": "tb", "b_space": "l2", "out_space": "tb"}
    assert gemm_latency(**near, depth=1) > gemm_latency(**near, depth=2)


@pytest.mark.parametrize(
    ("figure", "spaces"),
    [
        ("tb_to_gib_bytes_per_cycle", {"a_space": "tb", "b_space": "tb", "out_space": "tb"}),
        ("l2_to_gib_bytes_per_cycle", {"a_space": "l2", "b_space": "l2", "out_space": "tb"}),
        ("noc_bytes_per_cycle", {"a_space": "l2", "b_space": "l2", "out_space": "l2"}),
        ("hbm_bytes_per_cycle_per_section", {}),
        ("hbm_efficiency", {}),
    ],
)
def test_a_slower_port_or_memory_costs_time(figure, spaces):
    slower = MACHINE.with_values({figure: MACHINE.figures[figure].value / 2})
    assert gemm_latency(slower, **spaces) > gemm_latency(**spaces)


@pytest.mark.parametrize(
    "figure",
    [
        "semaphore_cycles",
        "hbm_latency_cycles",
        "accumulator_drain_cycles",
        "tcore_fill_cycles",
        "launch_cycles",
    ],
)
def test_a_longer_latency_costs_time(figure):
    slower = MACHINE.with_values({figure: 10 * MACHINE.figures[figure].value})
    assert gemm_latency(slower) > gemm_latency()


def numa_kernel() -> Kernel:
    """Each SPC loads its own half of the tensor, 32 tiles."""
    where = i(0, 32 * 4096) + i(1, 4096)
    return Kernel("numa", (par(2, par(32, op("vld", v(i(1)), box(0, (where, 4096)))), level="spc"),))


def numa_cycles(halves_apart: bool) -> int:
    section = MACHINE.hbm_bytes_per_die // MACHINE.hbm_sections_per_die
    half = 32 * 4096 * 4
    tensor = dense((2 * 32 * 4096,), mapping="numa", address=section - half if halves_apart else 0)
    return kernel_cycles(run(numa_kernel(), tensor))


def test_two_spcs_on_one_hbm_section_take_twice_as_long():
    alone, together = numa_cycles(halves_apart=True), numa_cycles(halves_apart=False)
    latency = MACHINE.hbm_latency_cycles
    assert together - latency == pytest.approx(2 * (alone - latency), rel=0.001)
    num_bytes = 32 * 4096 * 4
    rate = MACHINE.hbm_bytes_per_cycle_per_section * MACHINE.hbm_efficiency
    assert alone == pytest.approx(num_bytes / rate + latency, rel=0.01)


def test_loads_in_flight_hide_latency_up_to_the_limit():
    """With n loads in flight a tile costs a latency over n; beyond the limit nothing is won."""
    machine = MACHINE.with_values({"hbm_latency_cycles": 50_000})
    tiles = 48

    def cycles(outstanding: int) -> int:
        kernel = streaming(tiles // outstanding, outstanding=outstanding)
        return kernel_cycles(run(kernel, dense((tiles * 4096,)), machine=machine))

    assert cycles(1) == pytest.approx(2 * cycles(2), rel=0.05)
    assert cycles(2) == pytest.approx(2 * cycles(4), rel=0.05)
    assert cycles(8) >= 0.95 * cycles(4)


def test_vector_work_hides_under_matrix_work():
    """The accumulator is free after the drain: the rest of the epilogue runs beside the next tile."""
    near = {"a_space": "tb", "b_space": "tb", "out_space": "tb", "kk": 4, "nb": 8}
    bare, busy = (gemm_latency(**near, epilogue=epilogue) for epilogue in (0, 8))
    arithmetic = 8 * 16 * BIG.row_blocks * BIG.column_blocks * BIG.mb * 8
    assert busy - bare < 0.05 * arithmetic


def test_a_multicast_reads_the_memory_once():
    """B is the same for both SPCs: with multicast half of its bytes leave the HBM."""
    plain = simulate(BIG.program(MACHINE), MACHINE)
    merged = simulate(replace(BIG, multicast="dtg").program(MACHINE), MACHINE)
    b_bytes = BIG.row_blocks * BIG.inner * BIG.columns * 2
    assert plain.traffic["hbm"] - merged.traffic["hbm"] == b_bytes
    assert plain.traffic["noc in"] == merged.traffic["noc in"]
    assert plain.counts == merged.counts
    assert merged.latency_cycles < plain.latency_cycles


def test_the_drain_of_the_accumulator_stands_between_tiles():
    """One bank: a tile's matrix work, its fill, the drain and two semaphores follow one after the other."""
    gemm = Gemm(spcs=1, row_blocks=1, column_blocks=1, mb=1, nb=20, kk=1, k=256, epilogue=0,
                a_space="tb", b_space="tb", out_space="tb")  # fmt: skip
    short = replace(gemm, nb=10)
    machine = MACHINE.with_values({"tb_to_gib_bytes_per_cycle": 4096.0})
    cycles = [kernel_cycles(simulate(g.program(machine), machine)) for g in (short, gemm)]
    tile = 64 + machine.tcore_fill_cycles + machine.accumulator_drain_cycles + 2 * machine.semaphore_cycles
    assert cycles[1] - cycles[0] == 10 * tile


def test_a_convolution_by_windows_moves_its_patch_once():
    """One tile of 3 x 3 taps and 64 channels inside an image: the taps' products cost the same, their loads do not."""
    a_full, a_free, b_full, b_free, full = range(5)
    ring, taps = RingAddress(Affine()), 0b11
    weights = op("tldb", ring, box(1, (i(0), 1), (i(1), 1), (0, 64), (0, 64)), 3, "bf16",
                 waits=(sync(b_free),), posts=(sync(b_full),))  # fmt: skip
    pixels = lambda y, x, side: box(0, (y, side), (x, side), (0, 64))

    def load(*where, first=0):
        return op("tlda", ring, pixels(*where), 2, "bf16", waits=(sync(a_free),), posts=(sync(a_full),))

    def multiply(mnemonic, rows, mask):
        operands = (ring, rows, ring) if mnemonic == "tconv" else (ring, ring, rows)
        return op(mnemonic, *operands, 64, 64, "bf16", taps, waits=(sync(a_full, first=mask), sync(b_full)),
                  posts=(sync(a_free, last=mask), sync(b_free), sync(full, last=taps)))  # fmt: skip

    tap_by_tap = (red(3, red(3, load(i(0) + 4, i(1) + 4, 8), weights, multiply("tmma", 64, 0))),)
    window = Window(i(0), i(1), 8, 8, 10)
    by_windows = (load(4, 4, 10), red(3, red(3, weights, multiply("tconv", window, taps))))
    image, kernel = dense((20, 20, 64), "bf16", "l2"), dense((3, 3, 64, 64), "bf16", "l2")
    drain = op("vacc", v(0), (64, 64), 0, waits=(sync(full),))
    results = [run(Kernel("taps", (*body, drain), (0, 2, 0, 9, 0)), image, kernel) for body in (tap_by_tap, by_windows)]
    weight_bytes = 9 * 64 * 64 * 2
    assert [result.traffic["l2"] - weight_bytes for result in results] == [9 * 64 * 128, 100 * 128]
    assert [result.counts.total().macs for result in results] == [9 * 64**3] * 2
    assert results[0].ledger["tcore_useful"] == results[1].ledger["tcore_useful"]
    assert kernel_cycles(results[1]) < kernel_cycles(results[0]) - (9 * 64 - 100) * 128 // 256 // 2


def test_a_kernel_that_waits_for_ever_is_refused():
    kernel = Kernel("stuck", (op("vmovi", v(0), 0.0, (8,), waits=(sync(0),)),), (0,))
    whole: Program = program(MACHINE, kernel, ())
    with pytest.raises(BadPackageError, match="never ends"):
        simulate(whole, MACHINE)


def test_reductions_pay_for_the_whole_input():
    def cycles(*body) -> int:
        return kernel_cycles(run(Kernel("r", (op("vmovi", v(0), 1.0, (64, 64)), *body))))

    one_add = cycles(op("vadd", v(0), v(0), v(0)))
    reduced = cycles(op("vredsum", v(1), v(0), 0b10))
    then_small = cycles(op("vredsum", v(1), v(0), 0b10), op("vadd", v(1), v(1), v(1)))
    lanes = MACHINE.vector_lanes_per_spc
    assert one_add == 2 * 4096 // lanes
    assert reduced == (1 + 2) * 4096 // lanes
    assert then_small == reduced + 32 + 1


def test_loops_bounded_by_outer_variables_are_shorter():
    body = par(8, red(8, op("vmovi", v(0), 1.0, (4096,)), limit=i(0) + 1))
    triangle = run(Kernel("t", (body,)))
    assert triangle.executed == 36
    assert kernel_cycles(triangle) == 36 * 4096 // MACHINE.vector_lanes_per_spc
