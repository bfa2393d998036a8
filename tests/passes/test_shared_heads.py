"""Keys and values that several heads share are not copied for each, where only products read the copies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from machines import with_input_buffers
from networks import relative_error
from pipeline import compiled_plans

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Kernel
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.fuse import fuse_for
from birc.compiler.passes.lower.lower import lower_graph
from birc.compiler.passes.skip_masked import SkipMasked
from birc.runtime.machine import load_machine

TOLERANCE = {"model": 2e-4, "fp32": 2e-6, "bf16": 2e-2}
TINY = with_input_buffers()
SHARING, GROUPS, TOKENS, SIZE = 3, 2, 48, 16
HEADS = GROUPS * SHARING


def repeated(make: GraphMaker, x: str, batch: int = 1) -> str:
    """(batch, group, token, element) with a copy for each head, as exporters make it."""
    seen = make("reshape", x, shape=(batch, GROUPS, 1, TOKENS, SIZE))
    whole = make("expand", seen, shape=(batch, GROUPS, SHARING, TOKENS, SIZE))
    return make("reshape", whole, shape=(batch, HEADS, TOKENS, SIZE))


def attention(
    make: GraphMaker, batch: int = 1, keys: Callable[[GraphMaker, str], str] | None = None, *, masked: bool = False
) -> str:
    """Heads of which some share keys and values."""
    q, k, v = make.input(batch, HEADS, TOKENS, SIZE), *(make.input(batch, GROUPS, TOKENS, SIZE) for _ in range(2))
    k = repeated(make, k, batch)
    k = keys(make, k) if keys is not None else k
    scores = make("matmul", q, make("transpose", k, perm=(0, 1, 3, 2)))
    scores = make("mul", scores, make.constant(SIZE**-0.5))
    if masked:
        mask = np.triu(np.full((TOKENS, TOKENS), -1e9), 1)
        scores = make("add", scores, make.constant(mask[None, None]))
    return make("matmul", make("softmax", scores, axis=3), repeated(make, v, batch))


def kernels(graph: Graph) -> tuple[Kernel, ...]:
    machine = load_machine("br100")
    return lower_graph(fuse_for(machine, "model").run(canonicalize(graph)).graph, machine, "model").kernels


def copies(graph: Graph) -> int:
    return sum(kernel.contraction is None for kernel in kernels(graph))


def check_values(graph: Graph, target: str, precision: str, *, steps: bool = True) -> None:
    """By every plan the engines agree with the numpy meaning of the graph."""
    inputs = random_inputs(graph)
    (wanted,) = run_graph(graph, inputs).values()
    machine = TINY if target == "tiny" else load_machine(target)
    for compiled in compiled_plans(graph, machine, precision):
        compiled.verify()
        for run in (compiled.values, compiled.step) if steps else (compiled.values,):
            (value,) = run(inputs).values()
            assert relative_error(value, wanted) <= TOLERANCE[precision]


@pytest.mark.parametrize("target", ["tiny", "br100"])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_two_products_are_all(target: str, precision: str) -> None:
    make = GraphMaker()
    graph = make.graph(attention(make))
    assert [kernel.contraction is not None for kernel in kernels(graph)] == [True, True]
    check_values(graph, target, precision, steps=target == "tiny")


@pytest.mark.parametrize("precision", TOLERANCE)
def test_what_a_mask_leaves_of_them_is_read_where_it_lies(precision: str) -> None:
    """Slices of the keys and of the values, for each group of rows."""
    make = GraphMaker()
    whole = make.graph(attention(make, masked=True))
    graph = run_passes(canonicalize(whole), (SkipMasked(16),))
    assert sum(node.op == "softmax" for node in graph.nodes) == TOKENS // 16
    assert all(kernel.contraction is not None for kernel in kernels(graph))
    check_values(graph, "tiny", precision)


def test_a_sequence_of_each_sample_is_copied() -> None:
    """With samples, SPCs could no longer have heads of their own: an instruction addresses so many dimensions."""
    make = GraphMaker()
    graph = make.graph(attention(make, batch=2))
    assert copies(graph) == 2
    check_values(graph, "tiny", "model")


def changed(make: GraphMaker, k: str) -> str:
    """Element by element."""
    return make("relu", k)


def taken_apart(make: GraphMaker, k: str) -> str:
    """Some of the heads in another order."""
    sizes = (1, HEADS, TOKENS, SIZE)
    parts = [
        make("slice", k, starts=(0, start, 0, 0), ends=(1, end, *sizes[2:]), steps=(1,) * 4)
        for start, end in ((2, HEADS), (0, 2))
    ]
    return make("concat", *parts, axis=1)


def turned(make: GraphMaker, k: str) -> str:
    """Heads behind tokens, and back."""
    return make("transpose", make("relu", make("transpose", k, perm=(0, 2, 1, 3))), perm=(0, 2, 1, 3))


@pytest.mark.parametrize("keys", [changed, taken_apart, turned])
def test_other_readers_get_a_copy(keys: Callable[[GraphMaker, str], str]) -> None:
    make = GraphMaker()
    graph = make.graph(attention(make, keys=keys))
    assert copies(graph) > 0
    check_values(graph, "tiny", "model")


def test_an_output_is_a_tensor_of_its_own() -> None:
    make = GraphMaker()
    k = repeated(make, make.input(1, GROUPS, TOKENS, SIZE))
    product = make("matmul", make.input(1, HEADS, 8, TOKENS), k)
    graph = make.graph(product, k)
    assert copies(graph) > 0
    inputs = random_inputs(graph)
    for compiled in compiled_plans(graph, TINY):
        found = compiled.values(inputs)
        for name, wanted in run_graph(graph, inputs).items():
            assert relative_error(found[name], wanted) <= TOLERANCE["model"]


def test_the_first_operand_is_copied() -> None:
    make = GraphMaker()
    k = repeated(make, make.input(1, GROUPS, TOKENS, SIZE))
    graph = make.graph(make("matmul", k, make.input(1, HEADS, SIZE, 8)))
    assert copies(graph) == 1
    check_values(graph, "tiny", "model")
