"""Segments: the best ones by trying all, what lives in them by walking through, and plans that have them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import Compiled, compile_graph, compiled_plans
from small_networks import wide_blocks

from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import (
    Access,
    Buffer,
    CopyStep,
    Dimension,
    ExchangeStep,
    Index,
    Kernel,
    KernelStep,
    Phase,
    Plan,
    Statement,
    View,
)
from birc.compiler.passes import partition as partition_phase
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.chunk import Cuts, cut_into
from birc.compiler.passes.fuse import fuse_for
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.restrict import restrict
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.segments import Segments, best_segments, has_segments, in_segments
from birc.compiler.passes.split_search import SplitSearch
from birc.compiler.passes.tile import tile
from birc.runtime.machine import load_machine

TINY, ONE_DIE = load_machine("tiny"), load_machine("br104")


def access(name: str) -> Access:
    return Access(View(name, 0, (1,), (1,)), (Index((("i", 1),)),))


def step(reads: Sequence[str], writes: Sequence[str]) -> KernelStep:
    loads = [Statement("vld", f"r{number}", access=access(name)) for number, name in enumerate(reads)]
    stores = [Statement("vst", arguments=(0.0,), access=access(name)) for name in writes]
    return KernelStep((Kernel("k", (Dimension("i", 1),), (Phase((*loads, *stores)),)),))


def random_chunk(seed: int, steps: int = 7) -> Plan:
    """A chain of steps that also read what was written long before, and a constant each, some of them again."""
    random = np.random.default_rng(seed)
    buffers = [Buffer(f"t{n}", "u8", int(random.integers(1, 20)), "scratch") for n in range(steps)]
    buffers += [Buffer(f"w{n}", "u8", int(random.integers(1, 40)), "constant") for n in range(steps)]
    made = []
    for number in range(steps):
        reads = {f"t{int(random.integers(max(0, number - 4), number))}" for _ in range(2) if number}
        weight = number if random.random() < 0.8 else int(random.integers(0, number + 1))
        made.append(step([*sorted(reads), f"w{weight}"], [f"t{number}"]))
    return Plan("p", "tiny", "model", 1, tuple(buffers), tuple(made), (), (), repeat=64)


def partitions_of(steps: int) -> Iterator[tuple[int, ...]]:
    for cuts in range(steps):
        for inner in combinations(range(1, steps), cuts):
            yield (*inner, steps)


def walked(chunk: Plan, count: int, ends: tuple[int, ...], constants: Collection[str]) -> list[int]:
    """The most bytes that live in each segment, by walking through it with every chunk.

    A copy of a buffer lives from its first use to its last; those of the constants through all segments between theirs.
    """
    sizes = {b.name: b.num_bytes if b.role == "scratch" or b.name in constants else 0 for b in chunk.buffers}
    order: list[tuple[int, list[str]]] = []
    for segment, (start, end) in enumerate(zip((0, *ends), ends, strict=False)):
        for number in range(count):
            for at in chunk.steps[start:end]:
                assert isinstance(at, KernelStep)
                names = [s.access.view.buffer for p in at.kernel.phases for s in p.statements if s.access]
                order.append((segment, [f"{name} {number}" if name[0] == "t" else name for name in names]))
    spans: dict[str, list[int]] = {}
    for time, (_, names) in enumerate(order):
        for name in names:
            spans.setdefault(name, [time, time])[1] = time
    times = [[t for t, (s, _) in enumerate(order) if s == segment] for segment in range(len(ends))]
    for name, span in spans.items():
        if name[0] == "w":
            span[:] = [times[order[span[0]][0]][0], times[order[span[1]][0]][-1]]
    live = [sum(sizes[n.split()[0]] for n, (a, b) in spans.items() if a <= t <= b) for t in range(len(order))]
    return [max(live[t] for t in inside) for inside in times]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_all_segments(seed: int, count: int) -> None:
    chunk = random_chunk(seed)
    for capacity in (24, 48, 80, 100, 160, 200, 320):
        there = {b.name for b in chunk.buffers if b.role == "constant" and 4 * b.num_bytes <= 3 * capacity}
        all_peaks = {ends: walked(chunk, count, ends, there) for ends in partitions_of(len(chunk.steps))}
        sums = {
            ends: sum(peak * (end - start) for peak, start, end in zip(peaks, (0, *ends), ends, strict=False))
            for ends, peaks in all_peaks.items()
            if max(peaks) <= capacity
        }
        found = best_segments(chunk, count, capacity)
        assert (found is None) == (not sums)
        assert count > 1 or has_segments(chunk, capacity) == bool(sums)
        if found is not None:
            assert found.peak_bytes == max(all_peaks[found.ends])
            assert sums[found.ends] == min(sums.values())


def test_weights_are_loaded_once_for_all_chunks() -> None:
    """Six weights that do not fit at once: each is copied to the chip once, and nothing spills."""
    make = GraphMaker()
    plans = compiled_plans(make.graph(wide_blocks(make)), "tiny")
    compiled = next(found for found in plans if not found.plan.tensor_buffer_bytes)
    copies = [s for s in compiled.plan.steps if isinstance(s, CopyStep)]
    assert compiled.plan.repeat == 1
    assert len(copies) == len({copy.source for copy in copies}) == 6
    assert len(compiled.kernels) == 2 * 4 * 6
    assert all(b.space == "l2" for b in compiled.plan.buffers if b.role == "scratch")


def compiled_in(together: int, monkeypatch: pytest.MonkeyPatch) -> Compiled:
    """The blocks in eight chunks, so many of them together."""

    def fixed(cuts: Cuts, _: bool) -> tuple[Plan]:
        cut = cuts.into(8)
        assert cut is not None
        return (in_segments(cut, together, Segments((1, 3, len(cut.steps)), 0)),)

    make = GraphMaker()
    monkeypatch.setattr(partition_phase, "chunks", fixed)
    monkeypatch.setattr(partition_phase, "per_sample", lambda *_: None)
    return compile_graph(make.graph(wide_blocks(make)), "tiny")


@pytest.mark.parametrize("together", [1, 2, 4])
def test_rounds_of_chunks_that_pass_segments_together(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight chunks, some of them together, in rounds: outputs as those of the graph."""
    compiled = compiled_in(together, monkeypatch)
    inputs = random_inputs(compiled.graph)
    assert compiled.plan.repeat == 8 // together
    compiled.verify()
    (expected,) = run_graph(compiled.graph, inputs).values()
    (actual,) = compiled.values(inputs).values()
    np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=2e-3)


def test_rounds_whose_weights_do_not_all_fit_copy_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first weights do not stay through all rounds at the expense of the last, which each tile would load anew."""
    compiled = compiled_in(1, monkeypatch)
    copies = [s for s in compiled.plan.steps if isinstance(s, CopyStep)]
    assert len({copy.source for copy in copies}) == 6
    assert not any(copy.once for copy in copies)


@pytest.mark.parametrize(("resident", "rounds"), [(False, 2), (True, 4)])
def test_weights_that_stay_between_calls_leave_room_for_less(resident: bool, rounds: int) -> None:
    """Two halves of the batch fit beside one weight at a time, a quarter beside both."""
    make = GraphMaker()
    fused = run_passes(make.graph(wide_blocks(make, blocks=1, rows=4)), (*LEGALIZE, fuse_for(TINY, "model")))
    plans = partitions(fused, lower_graph(fused, TINY, "model"), TINY, resident)
    plan = next(plan for plan in plans if not plan.tensor_buffer_bytes)
    assert plan.repeat == rounds
    allocated = allocate(schedule(tile(plan, TINY), TINY), TINY, resident_weights=resident)
    assert all(b.space == "l2" for b in allocated.buffers if b.role == "scratch")


def test_a_table_is_read_row_by_row() -> None:
    """Each die looks up its samples, and not half of each row: what it loads is not the table, but the rows."""
    make = GraphMaker()
    rows = make("gather", make.random(60000, 256), make.input(8, 16, element="i64"), axis=0)
    norm = make("layer_norm", rows, make.random(256), make.random(256), axis=2, epsilon=1e-5)
    compiled = compile_graph(make.graph(norm), "br100")
    assert not any(isinstance(step, ExchangeStep) for step in compiled.plan.steps)
    assert compiled.kernels[0].dimension("d0").extent == 4


@pytest.mark.parametrize(("rows", "pads", "is_cut"), [(8, (0, 0, 0, 1), True), (7, (0, 0, 1, 0), False)])
def test_chunks_are_alike_up_to_the_last(rows: int, pads: tuple[int, ...], is_cut: bool) -> None:
    """A padded row is in the last chunk alone: its kernel is another one than that of the first and the second."""
    make = GraphMaker()
    graph = make.graph(make("pad", make.input(rows, 23), pads=pads, value=1.5))
    plan = next(p for p in partitions(graph, lower_graph(graph, ONE_DIE, "model"), ONE_DIE) if p.repeat == 1)
    assert (cut_into(plan, ONE_DIE, 4) is not None) == is_cut


@pytest.mark.parametrize(("rows", "alone"), [(64, True), (32768, False)])
def test_one_die_alone_is_tried_where_two_might_not_pay(rows: int, alone: bool) -> None:
    machine = load_machine("br100")
    make = GraphMaker()
    graph = make.graph(make("matmul", make.input(rows, 512), make.random(512, 512)))
    plans = partitions(graph, lower_graph(graph, machine, "bf16"), machine)
    assert any(None in step.kernels for plan in plans for step in plan.steps if isinstance(step, KernelStep)) == alone


@pytest.mark.parametrize("exchange", [False, True])
def test_layers_of_one_form_are_divided_alike(exchange: bool) -> None:
    """Every layer has a weight and a bias of its own, and parts that are those of its own kernel."""
    make = GraphMaker()
    x = make.input(32, 64)
    for _ in range(3):
        x = make("relu", make("add", make("matmul", x, make.random(64, 64)), make.random(64)))
    fused = run_passes(make.graph(x), (*LEGALIZE, fuse_for(TINY, "model")))
    lowered = lower_graph(fused, TINY, "model")
    buffers = {b.name: b for b in lowered.buffers}
    found = SplitSearch(lowered.kernels, buffers, TINY, 4 if not exchange else 2, exchange).best()
    assert found is not None
    assert len(found) == 3
    assert any(choice.dimension for choice in found)
    for kernel, choice in zip(lowered.kernels, found, strict=True):
        if not choice.dimension:
            assert choice.parts is None
            continue
        extent = kernel.dimension(choice.dimension).extent // (2 if exchange else 4)
        starts = (0, extent) if exchange else (0, extent, 3 * extent)
        assert choice.parts == tuple(restrict(kernel, choice.dimension, start, extent) for start in starts)
