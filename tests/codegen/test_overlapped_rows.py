"""Rows of an attention's shares that overlap, and masks that begin at a late column: values beside FP64."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from machines import with_input_buffers
from pipeline import Compiled, compile_graph

from birc.codegen.program_code import generate
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel, KernelStep, Tiling
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.passes.tile_orders import overlapped
from birc.compiler.prove import new_prover
from birc.runtime.machine import Machine, load_machine
from birc.runtime.program import Instruction, Loop
from birc.runtime.timing import simulate

LOWEST = float(np.finfo(np.float32).min)
WIDE = with_input_buffers()
DEPTH = 16


def attention(
    keeps: np.ndarray | None, heads: int, rows: int, columns: int, *, low: float = LOWEST, inverted: bool = False
) -> Graph:
    """softmax(where(keeps, q @ k * 0.3, low)) @ v"""
    make = GraphMaker()
    scores = make(
        "mul", make("matmul", make.input(heads, rows, DEPTH), make.input(heads, DEPTH, columns)), make.constant(0.3)
    )
    if keeps is not None:
        mask, number = make.constant(~keeps if inverted else keeps, element="bool"), make.constant(low)
        scores = make("where", mask, *((number, scores) if inverted else (scores, number)))
    return make.graph(make("matmul", make("softmax", scores, axis=2), make.input(heads, columns, 24)))


def expected(graph: Graph, inputs: dict[str, np.ndarray], keeps: np.ndarray | None) -> np.ndarray:
    """The attention in FP64."""
    q, k, v = (inputs[value.name].astype(np.float64) for value in graph.inputs)
    scores = q @ k * 0.3
    if keeps is not None:
        scores = np.where(keeps, scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


def causal(rows: int, columns: int) -> np.ndarray:
    """The last rows of a causal mask."""
    return np.tril(np.ones((rows, columns), bool), columns - rows)


def with_overlap(compiled: Compiled, b_slots: int = 0) -> Compiled:
    """The same with the rows of the first kernel overlapping, and slots for so many of its columns, or for all."""

    def changed(kernel: Kernel | None) -> Kernel | None:
        if kernel is None or kernel.tiling is None or kernel.name != compiled.kernels[0].name:
            return kernel
        tiling = overlapped(kernel, _plain(kernel.tiling), compiled.machine)
        assert tiling is not None
        return replace(kernel, tiling=replace(tiling, b_slots=b_slots or tiling.b_slots))

    steps = tuple(
        KernelStep(tuple(changed(kernel) for kernel in step.kernels)) if isinstance(step, KernelStep) else step
        for step in compiled.plan.steps
    )
    plan = replace(compiled.plan, steps=steps)
    verify_plan(plan, "allocate", compiled.machine)
    generated = generate(plan, compiled.machine)
    return replace(compiled, plan=plan, program=generated.program, data=generated.weights(compiled.lowered.data))


def _plain(tiling: Tiling) -> Tiling:
    """Loads of both operands for each row of tiles."""
    return replace(tiling, hoist="", stream=False, a_slots=2, b_slots=tiling.columns + 1)


def check(compiled: Compiled, keeps: np.ndarray | None, error: float) -> None:
    """All engines beside FP64, and that they executed the same."""
    compiled.verify()
    new_prover().prove(compiled.plan, compiled.machine)
    inputs = random_inputs(compiled.graph)
    wanted = expected(compiled.graph, inputs, keeps)
    stepped, counts = compiled.step_counted(inputs, "random", 5)
    values, counts_of_values = compiled.values_counted(inputs)
    assert counts == counts_of_values == simulate(compiled.program, compiled.machine).counts
    for (actual,) in (stepped.values(), values.values()):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=error)


CASES = {
    "plain": (None, 3, 150, 256),
    "two tiles": (None, 5, 64, 128),
    "late": (causal(128, 320), 3, 128, 320),
    "a tile of mask": (causal(64, 256), 6, 64, 256),
    "half": (causal(192, 384), 2, 192, 384),
    "from the first": (causal(256, 256), 2, 256, 256),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", ["wide", "br100"])
def test_values(case: str, target: str) -> None:
    keeps, heads, rows, columns = CASES[case]
    machine: Machine = (
        WIDE
        if target == "wide"
        else load_machine(target).with_values({"dies": 1, "spcs_per_die": 1, "vmcs_per_die": 1})
    )
    graph = attention(keeps, heads, rows, columns)
    compiled = compile_graph(graph, machine, "bf16" if target == "br100" else "model")
    error = 2e-2 if target == "br100" else 2e-3
    check(compiled, keeps, error)
    check(with_overlap(compiled), keeps, error)
    check(with_overlap(compiled, b_slots=1), keeps, error)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("low", [-math.inf, LOWEST, -1e4])
def test_tiles_that_a_mask_lets_through_have_no_choice(low: float, inverted: bool) -> None:
    heads, keeps = 24, causal(64, 320)
    compiled = compile_graph(attention(keeps, heads, 64, 320, low=low, inverted=inverted), WIDE)
    for each in (compiled, with_overlap(compiled)):
        check(each, keeps, 2e-3)
        counts = each.step_counted(random_inputs(each.graph))[1]
        kernels = [list(kernel.instructions()) for kernel in each.program.kernels]
        chosen = [entry.executions for (k, n), entry in counts.instructions.items() if kernels[k][n].mnemonic == "vsel"]
        tiling = each.kernels[0].tiling
        assert tiling is not None
        blocks = heads * 64 // dict(tiling.tile)["m"]
        assert sum(chosen) == blocks, "one of five tiles is masked"


def of_first_program(items: Iterable[Loop | Instruction]) -> Iterator[str]:
    """The vector instructions of the first program, and of those that do the same, in the order of execution."""
    for item in items:
        if isinstance(item, Loop):
            for _ in range(item.extent if item.level == "tile" else 1):
                yield from of_first_program(item.body)
        elif item.mnemonic.startswith("v"):
            yield item.mnemonic


LATE = {"late": causal(384, 768), "from the first": causal(512, 512)}


@pytest.mark.parametrize("case", LATE)
def test_masks_hold_up_no_tile(case: str) -> None:
    """No more loads stand before the first sum of a row than are in flight, and none before powers of another one."""
    keeps = LATE[case]
    rows, columns = keeps.shape
    compiled = compile_graph(attention(keeps, 2, rows, columns), WIDE)
    check(compiled, keeps, 2e-3)
    most = load_machine("br100").outstanding_loads_per_warp
    assert runs_before(compiled, "vacc") <= {*range(most + 1)}
    overlapping = with_overlap(compiled)
    check(overlapping, keeps, 2e-3)
    if case == "late":
        assert runs_before(overlapping, "vacc") <= {0, 1}
        assert runs_before(overlapping, "vexp2") == {0}


def runs_before(compiled: Compiled, mnemonic: str) -> set[int]:
    """How many loads of masks stand in a row right before instructions of the product, other than loads."""
    found, loads = set(), 0
    for name in of_first_program(compiled.program.kernels[0].nests):
        if name == "vld":
            loads += 1
            continue
        if name == mnemonic:
            found.add(loads)
        loads = 0
    return found
