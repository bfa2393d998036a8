"""A rotary position embedding is one kernel that loads both elements of a pair once, whoever spelled it out how."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import rotary_forms
from graph_maker import GraphMaker, random_inputs
from networks import relative_error
from pipeline import compile_graph

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Kernel
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.fuse import fuse_for
from birc.compiler.passes.lower.lower import lower_graph
from birc.runtime.machine import load_machine

TINY = load_machine("tiny")
TOLERANCE = {"model": 2e-5, "bf16": 1e-2}  # products are of TF32+
HEADS, TOKENS, SIZE = 4, 6, 16

Body = Callable[[GraphMaker], str]
SPELLED: dict[str, Body] = {
    "halves": rotary_forms.turned_copy,
    "halves in another order": lambda make: rotary_forms.turned_copy(make, order=1),
    "neighbours": lambda make: rotary_forms.turned_copy(make, neighbours=True),
    "a part of what was merged": rotary_forms.turned_copy_of_a_part,
    "pairs of halves": rotary_forms.turned_pairs,
    "pairs of every second": lambda make: rotary_forms.turned_pairs(make, form="strided"),
    "pairs taken": lambda make: rotary_forms.turned_pairs(make, form="taken"),
}


def graph_of(body: Body) -> Graph:
    make = GraphMaker()
    return make.graph(body(make))


def kernels(graph: Graph) -> tuple[Kernel, ...]:
    """The kernels of a graph, with what exporters spell out recognised, and fused."""
    return lower_graph(fuse_for(TINY, "model").run(canonicalize(graph)).graph, TINY, "model").kernels


def count(kernel: Kernel, op: str) -> int:
    return sum(statement.op == op for phase in kernel.phases for statement in phase.statements)


def check_values(graph: Graph, precision: str = "model") -> None:
    """The engines agree, and with the numpy meaning of the graph as it was before any pass."""
    inputs = random_inputs(graph)
    compiled = compile_graph(graph, "tiny", precision)
    compiled.verify()
    (expected,) = run_graph(graph, inputs).values()
    for found in (compiled.step(inputs, "random", 3), compiled.values(inputs)):
        (value,) = found.values()
        assert relative_error(value, expected) <= TOLERANCE[precision]


def rotated_heads(make: GraphMaker) -> str:
    """A product split into heads and turned as Llama turns it, by tables with an angle an element."""
    product = make("matmul", make.input(1, TOKENS, 8), make.random(8, HEADS * SIZE))
    heads = make("reshape", product, shape=(1, TOKENS, HEADS, SIZE))
    x = make("transpose", heads, perm=(0, 2, 1, 3))
    return turned(make, x, make.random(TOKENS, SIZE), make.random(TOKENS, SIZE))


def turned(make: GraphMaker, x: str, cosine: str, sine: str) -> str:
    sizes = (1, HEADS, TOKENS, SIZE)
    first, second = (rotary_forms.part(make, x, sizes, at, at + SIZE // 2) for at in (0, SIZE // 2))
    across = make("concat", make("neg", second), first, axis=3)
    return make("add", make("mul", x, cosine), make("mul", across, sine))


@pytest.mark.parametrize("form", SPELLED)
def test_what_exporters_write_is_one_kernel(form: str) -> None:
    """It loads both elements of a pair, a cosine and a sine for both, and stores both."""
    (kernel,) = kernels(graph_of(SPELLED[form]))
    assert (count(kernel, "vld"), count(kernel, "vst")) == (4, 2)


@pytest.mark.parametrize("form", SPELLED)
@pytest.mark.parametrize("precision", TOLERANCE)
def test_values(form: str, precision: str) -> None:
    check_values(graph_of(SPELLED[form]), precision)


def test_heads_of_a_product_are_turned_where_they_lie() -> None:
    make = GraphMaker()
    graph = make.graph(rotated_heads(make))
    product, rotation = kernels(graph)
    assert product.contraction is not None
    assert rotation.contraction is None
    assert (count(rotation, "vld"), count(rotation, "vst")) == (6, 2)
    check_values(graph)


def test_what_follows_is_in_the_kernel_of_the_rotation() -> None:
    """With operands of the whole shape, of a row, and a single number."""
    make = GraphMaker()
    y = rotated_heads(make)
    y = make("tanh", make("mul", make("add", y, make.input(1, HEADS, TOKENS, SIZE)), make.constant(0.25)))
    graph = make.graph(make("mul", y, make.random(SIZE)))
    _, rotation = kernels(graph)
    assert count(rotation, "vtanh") == count(rotation, "vst") == 2
    check_values(graph)


def test_a_part_of_each_head_is_turned_in_its_place() -> None:
    """The concatenation copies what is not turned, and nothing else."""
    graph = graph_of(rotary_forms.turned_first_half)
    rotation, copied = kernels(graph)
    assert count(rotation, "vst") == 2
    assert (count(copied, "vld"), count(copied, "vst")) == (1, 1)
    check_values(graph)


def test_tables_that_are_computed() -> None:
    """Positions that come with the input: an angle an element, from frequencies of which there is one a pair."""
    make = GraphMaker()
    positions = make.input(TOKENS, 1)
    angles = make("mul", positions, make.constant(10.0 ** -np.linspace(0, 1, SIZE // 2)))
    angles = make("concat", angles, angles, axis=1)
    x = make.input(1, HEADS, TOKENS, SIZE)
    graph = make.graph(turned(make, x, make("cos", angles), make("sin", angles)))
    *_, rotation = kernels(graph)
    assert (count(rotation, "vld"), count(rotation, "vst")) == (6, 2)
    check_values(graph)
