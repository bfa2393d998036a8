"""Inputs that products load again and again are brought to the chip first, others are read where they lie."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import Compiled, compile_graph, compiled_plans

from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import CopyStep
from birc.compiler.passes.lifetimes import compulsory_bytes
from birc.runtime.timing import simulate


def product(rows: int, depth: int, columns: int, target: str = "br100") -> list[Compiled]:
    make = GraphMaker()
    graph = make.graph(make("matmul", make.input(rows, depth), make.input(depth, columns)))
    return list(compiled_plans(graph, target, "bf16"))


def copied(compiled: Compiled) -> set[str]:
    inputs = {b.name for b in compiled.plan.buffers if b.role == "input"}
    return {step.source for step in compiled.plan.steps if isinstance(step, CopyStep)} & inputs


@pytest.mark.parametrize("target", ["br100", "br104"])
def test_operands_of_many_tiles_are_copied(target: str) -> None:
    """Every plan in one round then moves each of them over HBM about once a die."""
    plans = [compiled for compiled in product(2048, 2048, 2048, target) if compiled.plan.repeat == 1]
    assert plans
    for compiled in plans:
        compiled.verify()
        assert copied(compiled)
        traffic = simulate(compiled.program, compiled.machine).traffic
        assert traffic["hbm"] <= 2.5 * 3 * 2048 * 2048 * 2


def test_a_small_operand_is_read_where_it_lies() -> None:
    assert not any(copied(compiled) for compiled in product(64, 64, 64))


def test_values_stay() -> None:
    make = GraphMaker()
    graph = make.graph(make("matmul", make.input(520, 700), make.input(700, 900)))
    inputs = random_inputs(graph)
    ((name, expected),) = run_graph(graph, inputs).items()
    found = [compiled for compiled in compiled_plans(graph, "br100", "bf16") if copied(compiled)]
    assert found
    for compiled in found:
        compiled.verify()
        error = np.abs(compiled.values(inputs)[name] - expected).max() / np.abs(expected).max()
        assert error <= 2e-2


@pytest.mark.parametrize(("rows", "is_copied"), [(2, True), (63, True), (65, False)])
def test_tables_of_fewer_rows_than_are_looked_up_are_copied(rows: int, is_copied: bool) -> None:
    rng = np.random.default_rng(2)
    make = GraphMaker()
    table = make.constant(rng.normal(size=(rows, 256)))
    indices = rng.integers(0, rows, 64)
    graph = make.graph(make("tanh", make("gather", table, make.input(64, element="i32"), axis=0)))
    compiled = compile_graph(graph, "br100", "bf16")
    compiled.verify()
    assert any(isinstance(step, CopyStep) for step in compiled.plan.steps) == is_copied
    ((name, found),) = compiled.values({graph.inputs[0].name: indices.astype(np.int32)}).items()
    ((_, expected),) = run_graph(graph, {graph.inputs[0].name: indices.astype(np.int32)}).items()
    np.testing.assert_allclose(found, expected, atol=1e-2, err_msg=name)
    assert compulsory_bytes(compiled.plan) == min(rows, 64) * 256 * 4 + 64 * 4 + 64 * 256 * 2
