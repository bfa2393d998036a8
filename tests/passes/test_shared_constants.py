"""Constants that the dies share: what crosses HBM and the link, that values stay, and what plans may not leave out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from graph_maker import GraphMaker, random_inputs
from machines import with_quick_link
from onnx import TensorProto, helper, numpy_helper
from pipeline import Compiled

from birc.codegen.program_code import generate
from birc.compiler import driver, plan_search
from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import CopyStep, ExchangeStep, KernelStep, Plan, ShareStep
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.passes.allocate import allocate, sent_at
from birc.compiler.passes.early_shares import KERNELS_AHEAD, early_shares
from birc.compiler.passes.lifetimes import users
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.shared_constants import first_uses, settled, share_constants
from birc.compiler.passes.tile import tile
from birc.compiler.prove import new_prover
from birc.runtime import load
from birc.runtime.machine import Machine, load_machine
from birc.runtime.timing import simulate

TINY, SMALL, MACHINE = (with_quick_link("tiny").with_values({"spc_sram_bytes": 1 << bits}) for bits in (17, 18, 19))
ROWS, WIDTH = 384, 128
WEIGHT_BYTES = WIDTH * WIDTH * 4


def by_rows(graph: Graph, lowered: Lowered, planner: Machine = MACHINE, *, rounds: bool = False) -> Plan:
    """The plan in which each die has half of the rows, in one round or several."""
    return next(
        p
        for p in partitions(graph, lowered, planner)
        if p.dies == 2
        and (p.repeat > 1) == rounds
        and all(isinstance(s, KernelStep) and None not in s.kernels for s in p.steps)
    )


def planned(
    count: int, first_use: int | None = 0, machine: Machine = MACHINE, *, rows: int = ROWS, rounds: bool = False
) -> Compiled:
    """Products of rows that the dies have halves of, with weights that both need; placed on `machine`."""
    make = GraphMaker()
    x = make.input(rows, WIDTH)
    rng = np.random.default_rng(5)
    for _ in range(count):
        x = make("tanh", make("matmul", x, make.constant(rng.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)))))
    graph = make.graph(x)
    planner = machine if rounds else MACHINE
    lowered = lower_graph(graph, planner, "model")
    plan = by_rows(graph, lowered, planner, rounds=rounds)
    if first_use is not None:
        plan = share_constants(plan, planner, first_use)
    for phase, step in (("tile", tile), ("schedule", schedule), ("allocate", allocate)):
        plan = step(plan, machine)
        verify_plan(plan, phase, machine)
    generated = generate(plan, machine)
    return Compiled(graph, lowered, plan, generated.program, generated.weights(lowered.data), machine)


def network() -> onnx.ModelProto:
    """Such products as an ONNX model, four layers deep."""
    rng = np.random.default_rng(3)
    layers = range(4)
    weights = [rng.normal(0, 0.1, (256, 256)).astype(np.float32) for _ in layers]
    nodes = [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in layers]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [768, 256]) for name in ("x0", "x4")]
    held = [numpy_helper.from_array(array, f"w{number}") for number, array in enumerate(weights)]
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def shares(plan: Plan) -> list[str]:
    return [step.buffer for step in plan.steps if isinstance(step, ShareStep)]


def check(case: Compiled) -> None:
    case.verify()
    inputs = random_inputs(case.graph)
    for values in (case.step(inputs, "random", 1), case.step(inputs, "random", 2), case.values(inputs)):
        for name, expected in run_graph(case.graph, inputs).items():
            np.testing.assert_allclose(values[name], expected, rtol=0, atol=4e-3 * np.abs(expected).max())


@pytest.fixture(scope="module")
def two() -> Compiled:
    return planned(2)


def test_each_byte_crosses_hbm_once(two: Compiled) -> None:
    apart = planned(2, first_use=None)
    check(two)
    assert len(shares(two.plan)) == 2
    assert not shares(apart.plan)
    moved, whole = (simulate(case.program, MACHINE).traffic for case in (two, apart))
    assert whole["hbm"] - moved["hbm"] == 2 * WEIGHT_BYTES
    assert (moved["d2d"], whole["d2d"]) == (2 * WEIGHT_BYTES, 0)


def test_each_die_holds_one_half(two: Compiled) -> None:
    constants = {image.key: image for image in two.program.constants}
    for buffer in (b for b in two.plan.buffers if b.shared):
        whole = two.lowered.data[buffer.name].reshape(-1)
        for die in range(2):
            image = constants[f"{buffer.name}.{die}"]
            assert (image.dies, image.num_bytes) == (1 << die, WEIGHT_BYTES // 2)
            np.testing.assert_array_equal(two.data[image.key], np.array_split(whole, 2)[die])


def test_memory_that_was_used_before_is_shared_into() -> None:
    """Ten weights take turns in the room of fewer: the dies must know of each other what is over."""
    case = planned(10, machine=SMALL)
    assert len(shares(case.plan)) == 10
    assert sum(b.num_bytes for b in case.plan.buffers if b.home) > SMALL.spcs_per_die * SMALL.spc_sram_bytes
    check(case)


def test_what_the_first_steps_need_comes_whole() -> None:
    case = planned(3, first_use=1)
    assert len(shares(case.plan)) == 2
    check(case)
    assert first_uses(planned(3, first_use=None).plan, MACHINE) == []  # twins are read, not the constants


def test_constants_without_twins_are_whole() -> None:
    """Kernels read them where they are, so each die needs all of them."""
    plan = planned(2, first_use=None).plan
    plan = replace(plan, buffers=tuple(replace(b, shared=b.role == "constant") for b in plan.buffers))
    first, second = (b.name for b in plan.buffers if b.home)
    assert not any(b.shared or b.part_offsets for b in settled(plan, set()).buffers)
    (kept,) = (b for b in settled(plan, {second}).buffers if b.shared)
    assert (kept.name + ".l2", kept.part_offsets) == (second, (0, WIDTH * WIDTH // 2))
    assert first != second


def test_weights_of_many_rounds_are_shared_in_the_first() -> None:
    """Those that stay through all rounds; what each round brings again comes whole."""
    for rows, count, expected in ((4096, 2, 2), (1024, 6, 0)):
        case = planned(count, machine=TINY, rows=rows, rounds=True)
        once = [step.target for step in case.plan.steps if isinstance(step, CopyStep) and step.once]
        assert len(once) == expected
        assert sorted(shares(case.plan)) == sorted(once)
        case.verify()


def test_texts_keep_what_is_shared(two: Compiled) -> None:
    assert parse_plan(print_plan(two.plan)) == two.plan
    make = share_constants(two.plan, MACHINE)
    assert parse_plan(print_plan(make)) == make


@pytest.mark.parametrize("kind", [ShareStep, CopyStep])
def test_a_half_alone_is_not_the_whole(two: Compiled, kind: type) -> None:
    place = next(number for number, step in enumerate(two.plan.steps) if isinstance(step, kind))
    broken = replace(two.plan, steps=(*two.plan.steps[:place], *two.plan.steps[place + 1 :]))
    with pytest.raises(InvalidIRError, match="not written there yet"):
        verify_plan(broken, "allocate", MACHINE)


def test_it_is_proved(two: Compiled) -> None:
    new_prover().prove(two.plan, MACHINE)
    unshared = tuple(step for step in two.plan.steps if not isinstance(step, ShareStep))
    with pytest.raises(InvalidIRError):
        new_prover().prove(replace(two.plan, steps=unshared), MACHINE)


def test_the_compiler_shares_what_costs_hardly_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = load_machine("tiny").with_values({"spc_sram_bytes": 1 << 19})
    model = network()
    # With chains there is no time to spare, with weights near the SPCs no room.
    monkeypatch.setattr(plan_search, "local_chains", lambda *_: None)
    monkeypatch.setattr(plan_search, "near_offers", lambda *_: [])
    found = driver.compile_model(model, machine, precision="bf16", opt_level=2)
    monkeypatch.setattr(plan_search, "SHARING_TRIALS", ())
    apart = driver.compile_model(model, machine, precision="bf16", opt_level=2)
    assert found is not None
    assert apart is not None
    one, other = (simulate(package.program, machine) for package in (found, apart))
    assert one.latency_cycles <= (1 + plan_search.HARDLY) * other.latency_cycles
    assert one.traffic["hbm"] < other.traffic["hbm"]
    assert found.program.hbm_bytes < apart.program.hbm_bytes
    inputs = {"x0": np.random.default_rng(1).normal(size=(768, 256)).astype(np.float32)}
    np.testing.assert_array_equal(load(found).run(inputs)["x4"], load(apart).run(inputs)["x4"])


def test_halves_are_sent_right_after_an_exchange_that_leaves_time() -> None:
    link = MACHINE.with_values({"d2d_bytes_per_cycle": WEIGHT_BYTES // 2 / 2500})
    plan = planned(9).plan
    kernels = [step for step in plan.steps if isinstance(step, KernelStep)]
    exchange = ExchangeStep(())
    steps = (*kernels[:3], exchange, *kernels[3:7], exchange, *kernels[7:])
    assert sent_at(steps, 9, WEIGHT_BYTES // 2, link) == 4
    assert sent_at(steps, 10, WEIGHT_BYTES // 2, link) == 4
    assert sent_at(steps, 11, WEIGHT_BYTES // 2, link) == 9
    assert sent_at(steps, 2, WEIGHT_BYTES // 2, link) == 0


def test_a_product_with_more_weights_than_activations_divides_its_weights() -> None:
    make = GraphMaker()
    x = make.input(1024, WIDTH)
    for width in (WIDTH, WIDTH, 8 * WIDTH):
        x = make("matmul", make("tanh", x), make.constant(np.zeros((WIDTH, width)) + WIDTH**-0.5))
    graph = make.graph(x)
    lowered = lower_graph(graph, MACHINE, "model")
    (plan, *_) = (p for p in partitions(graph, lowered, MACHINE) if p.dies == 2)
    last = next(step for step in reversed(plan.steps) if isinstance(step, KernelStep))
    columns = [kernel.contraction.b.view for kernel in last.kernels if kernel is not None and kernel.contraction]
    assert [view.dims[-1] for view in columns] == [4 * WIDTH, 4 * WIDTH]


def test_halves_are_sent_when_it_is_time_where_no_exchange_is_near() -> None:
    """Right after an exchange of long before they are not there yet, and the dies would wait for them."""
    plan = planned(9).plan
    kernel = next(step for step in plan.steps if isinstance(step, KernelStep))
    steps = (kernel, ExchangeStep(()), *[kernel] * 40)
    assert sent_at(steps, 40, WEIGHT_BYTES // 2, MACHINE) == 38
    assert sent_at(steps, 5, WEIGHT_BYTES // 2, MACHINE) == 2


def test_halves_that_queue_for_the_link_are_sent_longer_ahead() -> None:
    """They take longer than kernels do; while the first kernels use weights that are not shared, the link is idle."""
    link = MACHINE.with_values(
        {"d2d_bytes_per_cycle": WEIGHT_BYTES / 2 / 8000, "hbm_bytes_per_cycle_per_section": 200.0}
    )
    case = planned(16, 8, machine=link)
    plan = early_shares(case.plan)
    verify_plan(plan, "allocate", link)
    assert early_shares(plan) is plan
    kept, others = ([s for s in p.steps if not isinstance(s, ShareStep)] for p in (case.plan, plan))
    assert kept == others
    for number, step in enumerate(plan.steps):
        if isinstance(step, ShareStep):
            copied = next(n for n, s in enumerate(plan.steps) if isinstance(s, CopyStep) and s.target == step.buffer)
            use = next(n for n in users(plan)[step.buffer] if n > number)
            ahead, most = (sum(isinstance(s, KernelStep) for s in plan.steps[n:use]) for n in (number, copied))
            assert ahead >= min(KERNELS_AHEAD, most)
    other = replace(case, plan=plan, program=generate(plan, link).program)
    check(other)
    late, early = (simulate(c.program, link) for c in (case, other))
    assert early.latency_cycles < 0.97 * late.latency_cycles
    assert early.traffic == late.traffic


def test_more_is_shared_where_halves_are_sent_longer_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    link = MACHINE.with_values({"d2d_bytes_per_cycle": WEIGHT_BYTES / 2 / 6000})
    case = planned(16, None, machine=link)
    plan = by_rows(case.graph, case.lowered)

    def found() -> int:
        finished = plan_search.PlanSearch(link, "model", 2).shared(plan_search.Found(case.lowered, plan, None)).finished
        return len(shares(finished.phases["allocate"])) if finished is not None else 0

    count = found()
    monkeypatch.setattr(plan_search, "early_shares", lambda plan: plan)
    assert count > found()


def test_rounds_are_left_alone() -> None:
    rounds = planned(2, machine=TINY, rows=4096, rounds=True).plan
    assert early_shares(rounds) is rounds
