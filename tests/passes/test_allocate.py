"""Allocation: nothing overlaps that lives at the same time, and what finds no room on the chip is still right."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from graph_maker import GraphMaker, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import EXPORTED, example_module, exported_network, relative_error
from pipeline import Compiled, compile_graph, compile_network, compiled_plans
from plan_stages import plan_stages

from birc.codegen.program_code import generate
from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Buffer, ExchangeStep, KernelStep, Plan
from birc.compiler.ir.plan_verify_memory import memory_problems
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.allocation.blocks import Block
from birc.compiler.passes.allocation.l2 import L2
from birc.compiler.passes.allocation.room import Arena, LiveBytes
from birc.compiler.passes.allocation.stretch import stretch_of, stretched
from birc.compiler.passes.lifetimes import least_sram_bytes, lifetimes
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine, load_machine

POOL = {"kernel": (3, 3), "stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1)}


def check_places(plan: Plan, machine: Machine) -> None:
    """Every buffer lies inside its memory, and away from those that live while it does."""
    capacity = {
        "hbm": machine.hbm_bytes_per_die,
        "l2": machine.spcs_per_die * (machine.spc_sram_bytes - plan.tensor_buffer_bytes),
        "tb": plan.tensor_buffer_bytes,
    }
    spans = lifetimes(plan)
    forever = (0, len(plan.steps))
    for buffer in plan.buffers:
        assert 0 <= buffer.address <= capacity[buffer.space] - buffer.num_bytes
    for one, other in itertools.combinations(plan.buffers, 2):
        if one.space != other.space:
            continue
        apart = one.address + one.num_bytes <= other.address or other.address + other.num_bytes <= one.address
        first, second = (spans.get(b.name, forever) if b.role == "scratch" else forever for b in (one, other))
        assert apart or first[1] < second[0] or second[1] < first[0], (one, other)


@pytest.mark.parametrize("target", ["br100", "br104", "tiny"])
@pytest.mark.parametrize("name", EXPORTED)
def test_buffers_of_networks_do_not_overlap_nor_waste(name: str, target: str) -> None:
    graph = import_model(exported_network(name).model)
    for compiled in compiled_plans(graph, target):
        check_places(compiled.plan, compiled.machine)
        assert sram_bytes(compiled.plan, compiled.machine) <= 1.03 * most_live(compiled.plan, compiled.machine)


def sram_bytes(plan: Plan, machine: Machine) -> int:
    """The lines of L2 and tensor buffers up to the highest in use, over all SPCs."""
    ends = {"l2": 0, "tb": 0, "hbm": 0}
    for buffer in plan.buffers:
        lines = -(-(buffer.address + buffer.num_bytes) // machine.l2_line_bytes)
        ends[buffer.space] = max(ends[buffer.space], lines * machine.l2_line_bytes)
    return plan.dies * (ends["l2"] + machine.spcs_per_die * ends["tb"])


def most_live(plan: Plan, machine: Machine) -> int:
    """The most lines that live in any step, of L2 and of tensor buffers, step by step."""
    spans = lifetimes(plan)
    total = 0
    for space, copies in (("l2", plan.dies), ("tb", plan.dies * machine.spcs_per_die)):
        there = [b for b in plan.buffers if b.space == space]
        live = [
            sum(-(-b.num_bytes // 512) * 512 for b in there if spans[b.name][0] <= step <= spans[b.name][1])
            for step in range(len(plan.steps))
        ]
        total += copies * max(live)
    assert least_sram_bytes(plan, machine) == total
    return total


@pytest.mark.slow
@pytest.mark.parametrize("target", ["br100", "br104", "tiny"])
@pytest.mark.parametrize("precision", ["model", "bf16"])
@pytest.mark.parametrize(("name", "options"), [("resnet50", {"batch": 1}), ("resnet50", {"batch": 8}), ("bert", {})])
def test_real_networks_waste_nothing(name: str, options: dict[str, int], precision: str, target: str) -> None:
    graph = import_model(example_module(f"{name}.py").build(**options))
    for compiled in compiled_plans(graph, target, precision):
        assert sram_bytes(compiled.plan, compiled.machine) <= 1.03 * most_live(compiled.plan, compiled.machine)


SPILLS = {"bert_base": 0, "gpt2": 0, "llama2l": 0, "lstm": 0, "mobilenet_v2": 1, "resnet50": 0}
"""Tensors of the networks for which `tiny` has no room on the chip."""


@pytest.mark.parametrize("name", EXPORTED)
def test_no_more_spills_than_there_have_to_be(name: str) -> None:
    plan = plan_stages(name, "tiny").plans["allocate"]
    assert len([b for b in plan.buffers if b.role == "scratch" and b.space == "hbm"]) <= SPILLS[name]


@pytest.mark.parametrize("name", ["llama2l", "lstm", "bert_base"])
def test_shared_addresses_add_no_barriers(name: str) -> None:
    """A chip with room for every buffer at an address of its own needs as many barriers."""
    machine = load_machine("br100")
    plan = plan_stages(name, "br100").plans["allocate"]
    address, apart = 0, []
    for buffer in plan.buffers:
        apart.append(replace(buffer, address=address) if buffer.space == "l2" else buffer)
        address += -(-buffer.num_bytes // 512) * 512
    assert count_barriers(plan, machine) <= count_barriers(replace(plan, buffers=tuple(apart)), machine)


def count_barriers(plan: Plan, machine: Machine) -> int:
    return sum(command.mnemonic == "barrier" for command in generate(plan, machine).program.commands)


def test_a_thousand_steps_fill_the_chip_and_waste_nothing() -> None:
    """Layers whose weights do not all fit: each is filled as early as there is room."""
    steps, capacity = 1000, 1 << 27
    random = Random(0)
    spans = {f"a{step}": (step, min(steps - 1, step + random.choice((1, 1, 2, 8)))) for step in range(steps)}
    spans |= {f"w{step}": (step, step) for step in range(0, steps, 2)}
    homes = {name: "home" if name.startswith("w") else "" for name in spans}
    buffers = tuple(
        Buffer(name, "f32", random.choice((1, 2, 3, 4)) * (4_000_001 if home else 300_000), "scratch", home=home)
        for name, home in homes.items()
    )
    nothing = tuple(KernelStep((None,)) for _ in range(steps))
    plan = Plan("layers", "tiny", "model", 1, buffers, nothing, (), ())
    residence, placement = L2(plan, spans, capacity, 512, 16).place(stretch_of(plan))
    assert not residence.spilled and not residence.dropped
    stays = list(residence.stays.values())
    live = [sum(b.num_bytes for b in stays if b.start <= step < b.end) for step in range(steps)]
    assert 0.95 * capacity < max(live) <= placement.height_bytes <= min(capacity, 1.03 * max(live))
    weights = [name for name in spans if homes[name]]
    assert all(residence.stays[name].start < spans[name][0] for name in weights[1:])


@pytest.mark.parametrize("target", ["br100", "br104"])
def test_stretched_lives_are_longer_but_not_more_at_once(target: str) -> None:
    plan = plan_stages("lstm", target).plans["schedule"]
    stretch, steps = stretch_of(plan), len(plan.steps)
    spans = lifetimes(plan)
    scratch = [b for b in plan.buffers if b.role == "scratch"]
    lives = {b.name: Block(b.num_bytes, spans[b.name][0], spans[b.name][1] + 1) for b in scratch}
    longer = stretched(lives, stretch, steps)
    assert longer != lives and list(longer) == list(lives)
    most = max(sum(b.num_bytes for b in lives.values() if b.start <= step < b.end) for step in range(steps))
    for step in range(steps):
        assert sum(b.num_bytes for b in longer.values() if b.start <= step < b.end) <= most
    free = stretched(lives, stretch, steps, sum(b.num_bytes for b in lives.values()))
    assert free == {name: stretch.wanted(name, life) for name, life in lives.items()}
    for name, life in lives.items():
        assert free[name].start <= longer[name].start <= life.start < life.end <= longer[name].end <= free[name].end
        assert longer[name].start in (life.start, free[name].start) and longer[name].end in (life.end, free[name].end)


def test_what_is_exchanged_wants_its_place_since_the_exchange_before() -> None:
    plan = plan_stages("bert_base", "br100").plans["schedule"]
    steps = [number for number, step in enumerate(plan.steps) if isinstance(step, ExchangeStep)]
    assert len(steps) > 1
    stretch = stretch_of(plan)
    for before, number in itertools.pairwise(steps):
        step = plan.steps[number]
        assert isinstance(step, ExchangeStep)
        for exchange in step.exchanges:
            life = Block(1, number, number + 1)
            assert stretch.wanted(exchange.view.buffer, life).start <= before + 1


@pytest.mark.parametrize("name", ["resnet50", "bert_base", "lstm"])
def test_the_verifier_catches_buffers_that_were_moved(name: str) -> None:
    """Every buffer in the place of one that lives while it does, and every one beyond the end of its memory."""
    machine = load_machine("tiny")
    plan = plan_stages(name, "tiny").plans["allocate"]
    assert not [*memory_problems(plan, machine)]
    spans, always = lifetimes(plan), (0, len(plan.steps))
    capacities = {"hbm": machine.hbm_bytes_per_die, "l2": machine.spcs_per_die * machine.spc_sram_bytes}
    moved = 0
    for number, one in enumerate(plan.buffers):
        first, last = spans.get(one.name, always) if one.role == "scratch" else always
        for other in plan.buffers[:number]:
            other_first, other_last = spans.get(other.name, always) if other.role == "scratch" else always
            if one.space == other.space and first <= other_last and other_first <= last:
                assert [*memory_problems(moved_to(plan, number, other.address), machine)], (one, other)
                moved += 1
        assert [*memory_problems(moved_to(plan, number, capacities[one.space] - one.num_bytes + 1), machine)]
    assert moved > len(plan.buffers)


def moved_to(plan: Plan, number: int, address: int) -> Plan:
    """The plan with one buffer at another address."""
    moved = replace(plan.buffers[number], address=address)
    return replace(plan, buffers=(*plan.buffers[:number], moved, *plan.buffers[number + 1 :]))


def big_images(make: GraphMaker) -> str:
    """Activations of 400 KB: more than all the SRAM of `tiny`."""
    x = make.input(1, 64, 40, 40)
    pooled = make("max_pool2d", x, **POOL)
    deeper = make("conv2d", pooled, make.random(64, 64, 1, 1), stride=(1, 1), pads=(0,) * 4, dilation=(1, 1), group=1)
    return make("max_pool2d", make("relu", deeper), **POOL)


def long_sequence(make: GraphMaker) -> str:
    """Scores of 512 by 512."""
    x = make.input(512, 32)
    scores = make("matmul", x, make("transpose", make.input(512, 32), perm=(1, 0)))
    return make("matmul", make("softmax", scores, axis=1), x)


@pytest.mark.parametrize("build", [big_images, long_sequence], ids=lambda build: build.__name__)
def test_what_does_not_fit_the_chip_spills_and_is_right(build: Callable[[GraphMaker], str]) -> None:
    make = GraphMaker()
    graph = make.graph(build(make))
    on_tiny, on_br100 = compile_graph(graph, "tiny"), compile_graph(graph, "br100")
    assert not scratch_in_hbm(on_br100)
    assert scratch_in_hbm(on_tiny)
    inputs = random_inputs(graph)
    (expected,) = run_graph(graph, inputs).values()
    for compiled in (on_tiny, on_br100):
        check_places(compiled.plan, compiled.machine)
        compiled.verify()
        (actual,) = compiled.values(inputs).values()
        assert relative_error(actual, expected) <= 2e-3


def scratch_in_hbm(compiled: Compiled) -> list[str]:
    """Intermediate tensors that lie in HBM."""
    return [b.name for b in compiled.plan.buffers if b.role == "scratch" and b.space == "hbm"]


def test_weights_that_do_not_fit_are_read_from_hbm() -> None:
    make = GraphMaker()
    graph = make.graph(make("matmul", make.input(3, 300), make.random(300, 300)))
    compiled = compile_graph(graph, "tiny")
    assert not [b for b in compiled.plan.buffers if b.home]
    twins = [b for b in compile_graph(graph, "br100").plan.buffers if b.home]
    assert [b.space for b in twins] == ["l2"]


def test_too_little_hbm_is_an_error_with_names_and_sizes() -> None:
    make = GraphMaker()
    graph: Graph = make.graph(make("neg", make.input(1000, 1000)))
    machine = replace(load_machine("tiny"), hbm_bytes_per_die=3_000_000)
    compiled = compile_graph(graph, "tiny")
    with pytest.raises(DoesNotFitError) as caught:
        allocate(compiled.plan, machine)
    text = str(caught.value)
    assert "4000768 bytes must lie in HBM of a die, which has 3000000" in text  # two times 3,907 lines of 512 bytes
    assert "the largest hole beside the others is of 999616" in text
    assert "of 2000000 bytes (input)" in text and "of 2000000 bytes (node " in text


def test_too_little_tensor_buffer_is_an_error() -> None:
    make = GraphMaker()
    plan = compile_graph(make.graph(make("neg", make("relu", make.input(8, 64)))), "tiny", fuse=False).plan
    local = tuple(replace(b, space="tb") if b.role == "scratch" else b for b in plan.buffers)
    with pytest.raises(DoesNotFitError) as caught:
        allocate(replace(plan, buffers=local, tensor_buffer_bytes=0), load_machine("tiny"))
    text = str(caught.value)
    assert "the tensor buffer of an SPC, which has 0" in text
    assert "(node " in text


def test_compilation_is_deterministic() -> None:
    model = exported_network("mobilenet_v2").model
    assert compile_network(model, "tiny").program == compile_network(model, "tiny").program


blocks = st.builds(
    lambda size, one, other: Block(size, min(one, other), max(one, other) + 1),
    st.integers(1, 40),
    st.integers(0, 10),
    st.integers(0, 10),
)


@settings(deadline=None)
@given(st.lists(blocks, max_size=30), st.integers(40, 200))
def test_arena_keeps_blocks_apart(requests: list[Block], capacity: int) -> None:
    arena = Arena(capacity)
    placed: list[tuple[int, int, Block]] = []
    for block in requests:
        living = [(low, high) for low, high, other in placed if other.start < block.end and block.start < other.end]
        bytes_free = [all(not low <= byte < high for low, high in living) for byte in range(capacity)]
        runs = [len(list(run)) for is_free, run in itertools.groupby(bytes_free) if is_free]
        assert arena.largest_gap(block) == max(runs, default=0)
        if arena.take(block.num_bytes, block.start, block.end):
            address = arena.addresses[-1]
            assert all(bytes_free[address : address + block.num_bytes]) and address + block.num_bytes <= capacity
            placed.append((address, address + block.num_bytes, block))
        else:
            assert block.num_bytes > max(runs, default=0)


@given(st.lists(blocks, max_size=30), st.integers(40, 200))
def test_live_bytes_are_admitted_up_to_the_capacity(requests: list[Block], capacity: int) -> None:
    room = LiveBytes(capacity, 11)
    taken: list[Block] = []
    for block in requests:
        most = max(sum(b.num_bytes for b in taken if b.start <= step < b.end) for step in range(block.start, block.end))
        assert room.take(block.num_bytes, block.start, block.end) == (most + block.num_bytes <= capacity)
        if most + block.num_bytes <= capacity:
            taken.append(block)
