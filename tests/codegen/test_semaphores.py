"""Machines with few semaphores: products have fewer vector programs, and follow each other where there are enough."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from followed import followed
from graph_maker import GraphMaker, random_inputs
from machines import with_input_buffers
from pipeline import compile_graph

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel, KernelStep
from birc.compiler.ir.plan_following import most_taken, pairs_of
from birc.compiler.ir.semaphores import of_pairs, of_product
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine, load_machine

HEADS, ROWS, DEPTH = 8, 128, 64


def attentions(count: int) -> Graph:
    """Some of softmax(q @ k) @ v, of operands of their own."""
    make = GraphMaker()
    results = []
    for _ in range(count):
        scores = make("matmul", make.input(HEADS, ROWS, DEPTH), make.input(HEADS, DEPTH, ROWS))
        results.append(make("matmul", make("softmax", scores, axis=2), make.input(HEADS, ROWS, DEPTH)))
    return make.graph(*results)


def expected(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """An attention in FP64."""
    scores = q.astype(np.float64) @ k.astype(np.float64)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v.astype(np.float64)


def with_semaphores(count: int, machine: Machine) -> Machine:
    return machine.with_values({"semaphores_tcore": count - 1, "semaphores_spc": 1})


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("there", [21, 9, 6])
def test_few_semaphores_are_enough(there: int, count: int) -> None:
    found = compile_graph(attentions(count), with_semaphores(there, load_machine("br100")), "bf16")
    found.verify()
    assert max(len(kernel.semaphores) for kernel in found.program.kernels) <= there
    inputs = {name: a.astype(ml_dtypes.bfloat16).astype(a.dtype) for name, a in random_inputs(found.graph).items()}
    arrays = list(inputs.values())
    for number, actual in enumerate(found.values(inputs).values()):
        np.testing.assert_allclose(actual, expected(*arrays[3 * number : 3 * number + 3]), rtol=0, atol=3e-2)


def test_too_few_semaphores_for_any_product_are_an_error() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        compile_graph(attentions(1), with_semaphores(5, load_machine("br100")), "bf16")
    assert f"a product needs {of_product(1)} semaphores, an SPC has 5" in str(caught.value)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_are_taken_than_pairs_are_said_to_need(count: int) -> None:
    """One pair takes all of them."""
    machine = with_input_buffers().with_values({"spc_sram_bytes": 1 << 22})
    plans = list(followed(attentions(count), machine, "bf16"))
    assert plans
    for found in plans:
        runs: list[list[Kernel]] = []
        for step in found.plan.steps:
            if isinstance(step, KernelStep):
                runs = [*runs[:-1], [*runs[-1], step.kernel]] if step.follows else [*runs, [step.kernel]]
        pairs = [pairs_of(run) for run in runs if len(run) > 1]
        said = [of_pairs(len(of), most_taken(of, machine).programs) for of in pairs]
        taken = [len(kernel.semaphores) for kernel in found.program.kernels]
        assert len(said) == len(runs)
        assert max(taken) <= max(said)
        assert count > 1 or set(taken) == set(said)
