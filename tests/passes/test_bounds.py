"""The bounds of lowered graphs: against counts by brute force, figures by hand, and programs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from bound_checks import check_bounds
from graph_maker import GraphMaker
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline import compiled_plans
from timing_kernels import Gemm

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.bounds import bounds
from birc.compiler.passes.bounds_paths import Paths, latencies
from birc.compiler.passes.bounds_work import TcoreWork, tcore_work, traffic
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.runtime.machine import Machine, load_machine
from birc.runtime.timing import simulate

MACHINE = load_machine("br100")
RATE = MACHINE.format("bf16").macs_per_cycle_per_spc
TILE = MACHINE.tcore_rows * MACHINE.tcore_cols


def lowered(graph: Graph, machine: Machine = MACHINE) -> Lowered:
    return lower_graph(run_passes(graph, (*LEGALIZE, Fuse())), machine, "bf16")


def work_of(graph: Graph) -> tuple[Kernel, TcoreWork]:
    """The only contraction of a graph, and its least work."""
    (kernel,) = [k for k in lowered(graph).kernels if k.contraction is not None]
    assert kernel.contraction is not None
    return kernel, tcore_work(kernel, kernel.contraction, MACHINE)


def product(*shapes: tuple[int, ...]) -> Graph:
    make = GraphMaker()
    return make.graph(make("matmul", *(make.input(*shape) for shape in shapes)))


# --- the T-core ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "depths", "tiles"),
    [
        (((384, 1024), (1024, 1024)), 6 * 16 * 1024, 6 * 16),
        (((1, 1024), (1024, 1000)), 1000 / 64 * 1024, 1000 / 64),  # one row as well as 64
        (((64, 40), (40, 64)), 64, 1),  # the depth in units of 32
        (((65, 64), (64, 65)), 65 * 2, 65 * 2 / 64),  # each of 65 rows meets two tiles of columns
        (((3, 50, 64), (64, 64)), 3 * 64, 3),  # the rows of all batches follow one another
        (((3, 50, 64), (3, 64, 64)), 3 * 64, 3),  # other columns for every batch: tiles of their own
        (((64, 64), (3, 64, 20)), 64, 1),  # the columns of all batches in one tile
    ],
)
def test_least_operations_and_tiles_of_a_product(shapes, depths, tiles):
    """`depths`: the sum over operations of their depth."""
    _, work = work_of(product(*shapes))
    assert work.tiles == pytest.approx(tiles)
    assert work.operation_cycles == pytest.approx(depths * TILE / RATE)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 3), st.sampled_from((1, 3, 8, 40)), st.sampled_from((1, 5, 70))),
    image=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    pads=st.tuples(*(st.integers(0, 2) for _ in range(4))),
    dilation=st.integers(1, 2),
)
def test_products_outside_the_image_are_not_counted(sizes, image, kernel, stride, pads, dilation):
    (samples, channels, out), (height, width) = sizes, image
    spans = [(k - 1) * dilation + 1 for k in kernel]
    if height + pads[0] + pads[2] < spans[0] or width + pads[1] + pads[3] < spans[1]:
        return
    make = GraphMaker()
    weights = make.input(out, channels, *kernel)
    attributes = {"stride": (stride, stride), "pads": pads, "dilation": (dilation, dilation), "group": 1}
    graph = make.graph(make("conv2d", make.input(samples, channels, height, width), weights, **attributes))
    found = [k for k in lowered(graph).kernels if k.contraction is not None]
    if not found:  # of one channel in all: computed by the vector cores
        return
    work = tcore_work(found[0], found[0].contraction, MACHINE)
    out_y = (height + pads[0] + pads[2] - spans[0]) // stride + 1
    out_x = (width + pads[1] + pads[3] - spans[1]) // stride + 1
    pixels = itertools.product(range(samples), range(out_y), range(out_x))
    taps = list(itertools.product(range(kernel[0]), range(kernel[1])))
    inside = np.array(
        [
            [
                0 <= y * stride + r * dilation - pads[0] < height and 0 <= x * stride + s * dilation - pads[1] < width
                for r, s in taps
            ]
            for _, y, x in pixels
        ]
    )
    by_column = inside.sum() * channels * math.ceil(out / 64) / 64
    by_row = sum(math.ceil(rows / 64) for rows in inside.sum(axis=0)) * channels * out / 64
    by_output = sum(math.ceil(used * channels / 32) * 32 for used in inside.sum(axis=1)) * out / TILE
    assert work.operation_cycles == pytest.approx(max(by_column, by_row, by_output) * TILE / RATE)
    assert work.always == bool(inside.any(axis=1).all())


@pytest.mark.parametrize("widths", [(64, 64), (32, 100), (128, 256, 64)])
def test_panels_take_what_their_pixels_take_side_by_side(widths):
    """But of a tile only the operations of one panel are sure to come after it is there."""

    def work(pieces: tuple[int, ...]) -> TcoreWork:
        make = GraphMaker()
        images = [make.input(2, width, 9, 9) for width in pieces]
        x = make("concat", *images, axis=1) if len(images) > 1 else images[0]
        point = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "group": 1}
        return work_of(make.graph(make("conv2d", x, make.random(70, sum(pieces), 1, 1), **point)))[1]

    together, apart = work((sum(widths),)), work(widths)
    assert (apart.operation_cycles, apart.tiles) == (together.operation_cycles, together.tiles)
    assert apart.always
    assert apart.least_tile_cycles == min(widths) * TILE // RATE


@pytest.mark.parametrize(
    "changes", [{}, {"tcore_fill_cycles": 50}, {"semaphore_cycles": 3}, {"accumulator_drain_cycles": 40}]
)
def test_a_tile_more_takes_its_operations_and_the_gap(changes):
    """In a program whose operands are always there in time: no tile can follow another any sooner."""
    machine = MACHINE.with_values({"tb_to_gib_bytes_per_cycle": 65_536, **changes})

    def cycles(tiles: int) -> int:
        gemm = Gemm(
            spcs=1, row_blocks=1, column_blocks=tiles, mb=1, nb=1, kk=4, k=256, depth=3, epilogue=0,
            a_space="tb", b_space="tb", out_space="tb",
        )  # fmt: skip
        return simulate(gemm.program(machine), machine).latency_cycles

    one_tile = 4 * 256 * TILE // RATE + machine.tile_gap_cycles()
    assert cycles(20) - cycles(10) == 10 * one_tile
    kernel, _ = work_of(product((64, 1024), (1024, 64)))
    assert tcore_work(kernel, kernel.contraction, machine).cycles(machine) == one_tile


# --- vector work and bytes -----------------------------------------------------


def test_vector_operations_count_once_for_every_value_that_differs():
    make = GraphMaker()
    x, scale = make.input(4096, 64), make.input(64)
    graph = make.graph(make("mul", make("tanh", x), make("neg", scale)))
    alu, sfu = 4096 * 64 + 64, 4096 * 64
    cycles = max(alu / MACHINE.vector_lanes_per_spc, sfu / MACHINE.sfu_lanes_per_spc)
    assert bounds(lowered(graph), MACHINE).vector == math.floor(cycles / MACHINE.spcs)


def test_reductions_take_an_addition_for_each_element_that_disappears():
    make = GraphMaker()
    graph = make.graph(make("reduce_sum", make.input(640, 1024), axes=(1,), keepdims=1))
    cycles = 640 * 1023 / MACHINE.vector_lanes_per_spc / MACHINE.spcs
    assert bounds(lowered(graph), MACHINE).vector == math.floor(cycles)


def test_a_product_and_the_sum_that_takes_it_are_one_operation():
    make = GraphMaker()
    weights = make.random(64, 1, 3, 3)
    image = make.input(8, 64, 32, 32)
    attributes = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 64}
    graph = make.graph(make("conv2d", image, weights, **attributes))
    taps = (3 * 32 - 2) ** 2  # inside the image
    cycles = taps * 8 * 64 / MACHINE.vector_lanes_per_spc / MACHINE.spcs
    assert bounds(lowered(graph), MACHINE).vector == math.floor(cycles)


def test_a_sum_of_products_can_begin_with_what_is_added_to_it():
    make = GraphMaker()
    attributes = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "group": 64}
    operands = make.input(8, 64, 32, 32), make.random(64, 1, 3, 3), make.random(64)
    graph = make.graph(make("relu", make("conv2d", *operands, **attributes)))
    cycles = (9 + 1) * 8 * 64 * 30 * 30 / MACHINE.vector_lanes_per_spc / MACHINE.spcs
    assert bounds(lowered(graph), MACHINE).vector == math.floor(cycles)


def test_bytes_are_those_of_what_is_read_and_written():
    make = GraphMaker()
    x = make.input(100, 64)
    part = make("slice", x, starts=(0, 0), ends=(100, 16), steps=(1, 1))
    moved = traffic(lowered(make.graph(make("relu", part))))
    assert (moved.read, moved.written) == (100 * 16 * 2, 100 * 16 * 2)


def test_what_streams_from_hbm_does_so_behind_the_launch_and_not_at_the_raw_rate():
    make = GraphMaker()
    depth, columns = 4096, 8192
    graph = make.graph(make("matmul", make.input(1, depth), make.random(depth, columns)))
    streamed = (depth + depth * columns + columns) * 2 / (MACHINE.hbm_bytes_per_cycle() * MACHINE.hbm_efficiency)
    found = bounds(lowered(graph), MACHINE)
    assert found.stream == math.floor(MACHINE.launch_cycles + streamed)
    fastest = min(check_bounds(c)[1].latency_cycles for c in compiled_plans(graph, "br100", "bf16"))
    assert fastest < 1.2 * found.stream


# --- what has to follow what ---------------------------------------------------


def chain(layers: int, width: int, rows: int = 64) -> Graph:
    make = GraphMaker()
    value = make.input(rows, width)
    for _ in range(layers):
        value = make("relu", make("matmul", value, make.input(width, width)))
    return make.graph(value)


def one_operation(depth: int = 32) -> int:
    return depth * TILE // RATE


def test_a_narrow_chain_stays_on_one_spc():
    """Every layer is one tile: store, load, one operation and its sum come one after the other."""
    layers = 5
    paths = Paths(lowered(chain(layers, 64)), MACHINE).follow()
    latency = latencies(MACHINE)
    first = latency.start + latency.load + MACHINE.semaphore_cycles + one_operation() + latency.sums
    step = 2 * (1 + 100 + 10) + one_operation() + 32 + 10 + 16
    assert paths.last_output() == first + (layers - 1) * step + latency.output


def test_in_a_wide_chain_other_spcs_take_part():
    """One element of a layer needs 4096 of the layer before: by one SPC they take longer than to wait for others."""
    layers = 5
    paths = Paths(lowered(chain(layers, 4096)), MACHINE).follow()
    latency = latencies(MACHINE)
    first = latency.start + latency.load + MACHINE.semaphore_cycles + one_operation() + latency.sums
    meeting = (1 + 200) + 400 + (1 + 200) + 10 + one_operation() + 32 + 10 + 16
    whole = 2 * (1 + 100 + 10) + one_operation(4096) + 58
    split = 2 * (1 + 100 + 10) + one_operation() + 58 + (1 + 200) + 400 + (1 + 200)
    at_least = min(max(meeting, whole), split)
    assert paths.last_output() >= first + (layers - 1) * at_least + latency.output
    assert paths.last_output() <= first + (layers - 1) * split + latency.output + 2000


def test_padding_depends_on_nothing():
    make = GraphMaker()
    x = make("relu", make("matmul", make.input(64, 64), make.random(64, 64)))
    padded = make("pad", x, pads=(0, 0, 0, 64), value=0.0)
    lower = lowered(make.graph(make("relu", padded)))
    paths = Paths(lower, MACHINE).follow()
    assert paths.last_output() < latencies(MACHINE).start + 1000


def test_a_buffer_of_many_writers_is_as_early_as_the_earliest():
    make = GraphMaker()
    x = make.input(1, 64)
    late = x
    for _ in range(3):
        late = make("matmul", late, make.random(64, 64))
    for early in (1, 20):  # few are looked at one by one
        parts = [make("matmul", x, make.random(64, 64)) for _ in range(early)]
        joined = make("concat", *parts, late, axis=0)
        paths = Paths(lowered(make.graph(make("relu", joined))), MACHINE).follow()
        alone = Paths(lowered(make.graph(make("relu", parts[0]))), MACHINE).follow()
        assert paths.last_output() == alone.last_output()


def test_work_behind_a_barrier_is_added_to_the_way_there():
    """A long product behind a short one: it cannot begin before the first element of that."""
    make = GraphMaker()
    a = make("matmul", make.input(64, 64), make.random(64, 64))
    found = bounds(lowered(make.graph(make("matmul", a, make.random(64, 8192)))), MACHINE)
    tiles = 128
    assert found.dependency >= latencies(MACHINE).start + tiles * (16 + 68) // MACHINE.spcs + 300


# --- programs ------------------------------------------------------------------

QUICK = {
    "launch_cycles": 1,
    "bind_cycles": 1,
    "die_barrier_cycles": 1,
    "cross_spc_flag_cycles": 1,
    "spc_barrier_cycles": 1,
    "tb_latency_cycles": 1,
    "l2_remote_latency_cycles": 1,
    "hbm_latency_cycles": 1,
}


@settings(max_examples=12, deadline=None)
@given(
    layers=st.lists(st.sampled_from((8, 64, 96, 200)), min_size=1, max_size=3),
    rows=st.sampled_from((1, 32, 200)),
    target=st.sampled_from(("br100", "tiny")),
    quick=st.booleans(),
)
def test_no_program_of_a_chain_is_faster(layers, rows, target, quick):
    make = GraphMaker()
    value, width = make.input(rows, 64), 64
    for wide in layers:
        value = make("softmax", make("matmul", value, make.random(width, wide)), axis=1)
        width = wide
    machine = load_machine(target).with_values(QUICK if quick else {})
    for compiled in compiled_plans(make.graph(value), machine, "bf16"):
        check_bounds(compiled)


def test_a_product_that_fills_the_machine_comes_near_its_bound():
    """The bounds are worth something: a large product takes little more than they say."""
    make = GraphMaker()
    graph = make.graph(make("matmul", make.input(4096, 1024), make.random(1024, 2048)))
    checked = [check_bounds(compiled) for compiled in compiled_plans(graph, "br104", "bf16")]
    assert min(result.latency_cycles / least.largest for least, result in checked) < 1.6
