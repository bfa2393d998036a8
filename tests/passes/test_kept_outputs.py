"""Outputs that products read: on the chip as well, made once, and read from HBM by nobody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from onnx import TensorProto, helper, numpy_helper
from pipeline import Compiled

from birc.codegen.program_code import generate
from birc.compiler import compile_model, plan_search
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Exchange, ExchangeStep, KernelStep, Plan
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.kept_outputs import KEPT_SUFFIX, kept_outputs
from birc.compiler.passes.lifetimes import instances, reads_of, writes_of
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.tile import tile
from birc.runtime import load
from birc.runtime.machine import Machine, load_machine
from birc.runtime.timing import simulate

ROWS, WIDTH = 256, 256
MACHINE = load_machine("tiny").with_values({"spc_sram_bytes": 1 << 20})


def memory() -> Graph:
    """What an encoder gives back is read by several products of a decoder."""
    make = GraphMaker()
    rng = np.random.default_rng(1)
    weights = [make.constant(rng.normal(0, WIDTH**-0.5, (WIDTH, WIDTH))) for _ in range(3)]
    state = make("tanh", make("matmul", make.input(ROWS, WIDTH), weights[0]))
    keys, values = (make("tanh", make("matmul", state, weight)) for weight in weights[1:])
    return make.graph(state, keys, values)


def finished(graph: Graph, plan: Plan, machine: Machine = MACHINE) -> Compiled:
    lowered = lower_graph(graph, machine, "model")
    for phase, step in (("tile", tile), ("schedule", schedule), ("allocate", allocate)):
        plan = step(plan, machine)
        verify_plan(plan, phase, machine)
    generated = generate(plan, machine)
    return Compiled(graph, lowered, plan, generated.program, generated.weights(lowered.data), machine)


def plans(graph: Graph, machine: Machine = MACHINE) -> tuple[Plan, ...]:
    return partitions(graph, lower_graph(graph, machine, "model"), machine)


def output_reads(plan: Plan) -> set[str]:
    outputs = {b.name for b in plan.buffers if b.role == "output"}
    kernels = (k for step in plan.steps if isinstance(step, KernelStep) for k in instances(step))
    return outputs & set[str]().union(*map(reads_of, kernels))


@pytest.mark.parametrize("dies", [1, 2])
def test_products_read_it_on_the_chip(dies: int) -> None:
    graph = memory()
    plan = next(p for p in plans(graph, MACHINE.with_dies(dies)) if p.dies == dies and output_reads(p))
    kept = kept_outputs(plan)
    assert not output_reads(kept)
    assert kept_outputs(kept) is kept
    machine = MACHINE.with_dies(dies)
    plain, other = finished(graph, plan, machine), finished(graph, kept, machine)
    assert [b.space for b in other.plan.buffers if b.name.endswith(KEPT_SUFFIX)] == ["l2"]
    other.verify()
    inputs = random_inputs(graph)
    expected = run_graph(graph, inputs)
    for values in (other.values(inputs), other.step(inputs, "random", 1)):
        for name, array in values.items():
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=4e-3 * np.abs(expected[name]).max())
    before, after = (simulate(case.program, machine) for case in (plain, other))
    assert before.traffic["hbm"] - after.traffic["hbm"] >= ROWS * WIDTH * 4
    assert after.latency_cycles < before.latency_cycles


def test_what_is_sent_read_too_early_or_made_in_rounds_stays() -> None:
    graph = memory()
    plan = next(p for p in plans(graph, MACHINE.with_dies(1)) if output_reads(p))
    (name,) = output_reads(plan)
    rounds = replace(plan, repeat=2)
    assert kept_outputs(rounds) is rounds
    made = next(n for n, s in enumerate(plan.steps) if isinstance(s, KernelStep) and name in writes_of(s.kernel))
    (view,) = {a.view for a in accesses(plan.steps[made].kernel) if a.view.buffer == name}
    sent = replace(plan, steps=(*plan.steps, ExchangeStep((Exchange(view, 0),))))
    assert kept_outputs(sent) is sent
    again = replace(plan, steps=(*plan.steps, plan.steps[made]))
    assert kept_outputs(again) is again


def test_the_compiler_keeps_them_where_that_is_no_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    held = [rng.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32) for _ in range(3)]
    nodes = [
        helper.make_node("MatMul", [source, f"w{number}"], [target])
        for number, (source, target) in enumerate((("x", "s"), ("t", "keys"), ("t", "values")))
    ]
    nodes.insert(1, helper.make_node("Tanh", ["s"], ["t"]))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [ROWS, WIDTH]) for n in ("x", "t", "keys", "values")]
    weights = [numpy_helper.from_array(array, f"w{number}") for number, array in enumerate(held)]
    model = helper.make_model(
        helper.make_graph(nodes, "memory", ends[:1], ends[1:], weights),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    kept = compile_model(model, MACHINE, "bf16")
    monkeypatch.setattr(plan_search, "kept_outputs", lambda plan: plan)
    plain = compile_model(model, MACHINE, "bf16")
    before, after = (simulate(package.program, MACHINE) for package in (plain, kept))
    assert after.traffic["hbm"] < before.traffic["hbm"]
    assert after.latency_cycles <= before.latency_cycles
    inputs = {"x": rng.normal(size=(ROWS, WIDTH)).astype(np.float32)}
    one, other = (load(package).run(inputs) for package in (plain, kept))
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
