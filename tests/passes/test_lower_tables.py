"""Constants that are read at indices and as a whole: where each reader finds them, and that values stay."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from machines import with_quick_link
from pipeline import compile_graph

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.passes.lifetimes import reads_of, tables
from birc.runtime.machine import Machine, load_machine

WORDS, FEATURES = 200, 48
ERRORS = {"model": 2e-3, "fp32": 1e-5, "bf16": 2e-2}


def tied_embedding(count: int = WORDS) -> tuple[Graph, str]:
    """Words become rows of a table, and what comes of them is compared with every row.

    Graphs stay as they are made: of a small table another one, transposed, would be folded.
    """
    make = GraphMaker()
    table = make.random(count, FEATURES)
    words = make("gather", table, make.input(3, element="i64"), axis=0)
    hidden = make("tanh", make("matmul", words, make.random(FEATURES, FEATURES)))
    return make.graph(make("matmul", hidden, make("transpose", table, perm=(1, 0)))), table


@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("machine", [load_machine("br100"), with_quick_link("tiny")], ids=lambda m: m.name)
def test_a_tied_embedding(machine: Machine, precision: str) -> None:
    graph, _ = tied_embedding()
    case = compile_graph(graph, machine, precision, clean=False)
    case.verify()
    generator = np.random.default_rng(4)
    for _ in range(2):
        inputs = {"x0": generator.integers(0, WORDS, 3)}
        ((name, expected),) = run_graph(graph, inputs).items()
        by_steps = [case.step(inputs, "random", 1)] if machine.name == "tiny" else []
        for values in (*by_steps, case.values(inputs)):
            error = np.abs(values[name] - expected).max() / np.abs(expected).max()
            assert error <= ERRORS[precision]


def test_the_table_and_the_whole_lie_apart() -> None:
    """Rows are read from the memory of the die; the whole comes onto the chip, and each die has its half of it."""
    graph, table = tied_embedding()
    case = compile_graph(graph, with_quick_link("br100"), clean=False)
    at_indices = {name for kernel in case.kernels for name in tables(kernel)}
    assert at_indices == {table}
    readers = [kernel for kernel in case.kernels if kernel.contraction is not None]
    assert not any(table in reads_of(kernel) for kernel in readers)
    buffers = {buffer.name: buffer for buffer in case.plan.buffers}
    assert buffers[table].space == "hbm"
    assert not buffers[table].part_offsets
    assert buffers[f"{table}.whole"].part_dims == (WORDS // 2 * FEATURES,)
    assert any(buffer.home == f"{table}.whole" for buffer in buffers.values())


def test_a_table_that_is_only_read_at_indices_is_one_buffer() -> None:
    make = GraphMaker()
    table = make.random(WORDS, FEATURES)
    words = (make("gather", table, make.input(3, element="i64"), axis=0) for _ in range(2))
    case = compile_graph(make.graph(*words), "br100")
    assert [buffer.name for buffer in case.plan.buffers if buffer.role == "constant"] == [table]
    inputs = {name: values % WORDS for name, values in random_inputs(case.graph).items()}
    expected = run_graph(case.graph, inputs)
    for name, actual in case.step(inputs).items():
        np.testing.assert_array_equal(actual, expected[name])


def test_both_hold_the_same_data() -> None:
    """A package stores equal constants once."""
    graph, table = tied_embedding()
    case = compile_graph(graph, "br104", clean=False)
    assert case.lowered.data[f"{table}.whole"] is case.lowered.data[table]
    assert case.data[f"{table}.whole"].tobytes() == case.data[table].tobytes()


def test_several_tables_stand_in_the_order_of_the_model() -> None:
    """Not in that of a set, which another run may walk differently: the same model gives the same bytes."""
    make = GraphMaker()
    names = [make.random(64, 160) for _ in range(7)]
    outputs = []
    for name in names:
        words = make("gather", name, make.input(2, element="i64"), axis=0)
        outputs.append(make("matmul", words, make("transpose", name, perm=(1, 0))))
    case = compile_graph(make.graph(*outputs), "br104", clean=False)
    whole = [buffer.name for buffer in case.plan.buffers if buffer.name.endswith(".whole")]
    assert whole == [f"{name}.whole" for name in names]


def test_a_constant_called_like_the_whole_of_a_table_keeps_its_data() -> None:
    """The names of constants are those of the model: they may be any."""
    make = GraphMaker()
    table, other = (make.random(WORDS, FEATURES) for _ in range(2))
    words = make("gather", table, make.input(3, element="i64"), axis=0)
    products = [make("matmul", words, make("transpose", name, perm=(1, 0))) for name in (table, other)]
    graph = renamed(make.graph(*products), {other: f"{table}.whole"})
    case = compile_graph(graph, "br104", clean=False)
    inputs = {"x0": np.array([1, 5, 7])}
    expected = run_graph(graph, inputs)
    for name, actual in case.values(inputs).items():
        np.testing.assert_allclose(actual, expected[name], rtol=0, atol=2e-3 * np.abs(expected[name]).max())


def renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph with other names for some constants."""
    nodes = (node.replace(inputs=tuple(names.get(name, name) for name in node.inputs)) for node in graph.nodes)
    constants = {names.get(name, name): constant for name, constant in graph.constants.items()}
    return graph.replace(nodes=tuple(nodes), constants=constants)


@pytest.mark.parametrize(("precision", "element"), [("bf16", "bf16"), ("model", "f32"), ("fp32", "f32")])
def test_what_is_used_as_bf16_alone_is_kept_as_bf16(precision: str, element: str) -> None:
    """What products read, and rows that are stored: each number is the nearest of BF16."""
    graph, table = tied_embedding(2 * WORDS)
    case = compile_graph(graph, "br100", precision, clean=False)
    (whole,) = (b for b in case.plan.buffers if b.name == f"{table}.whole")
    rows = next(b for b in case.plan.buffers if b.name == table)
    assert (whole.dtype, rows.dtype) == (element, element)
    held = [array for key, array in case.data.items() if key.startswith(whole.name)]
    wanted = graph.constants[table].data.astype(ml_dtypes.bfloat16 if element == "bf16" else np.float32)
    assert np.array_equal(np.sort(np.concatenate([array.reshape(-1) for array in held])), np.sort(wanted.reshape(-1)))


def test_rows_of_a_table_are_as_they_were_rounded_when_stored() -> None:
    """Also those that have no number in BF16 near them."""
    make = GraphMaker()
    special = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 2.0**-126]
    table = make.constant(np.array(special, np.float32).repeat(64).reshape(len(special), 64))
    graph = make.graph(make("gather", table, make.input(len(special), element="i64"), axis=0))
    case = compile_graph(graph, "tiny", "bf16", clean=False)
    assert next(b for b in case.plan.buffers if b.role == "constant").dtype == "bf16"
    inputs = {"x0": np.arange(len(special))}
    expected = np.array(special, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)
    for outputs in (case.step(inputs), case.values(inputs)):
        (actual,) = outputs.values()
        np.testing.assert_array_equal(actual, expected.repeat(64).reshape(-1, 64))
        np.testing.assert_array_equal(np.signbit(actual[:, 0]), np.signbit(expected))


def test_rows_of_a_table_with_which_something_is_computed_stay() -> None:
    make = GraphMaker()
    table = make.random(WORDS, FEATURES)
    words = make("gather", table, make.input(3, element="i64"), axis=0)
    case = compile_graph(make.graph(make("mul", words, make.input(3, FEATURES))), "br100", "bf16", clean=False)
    assert next(b for b in case.plan.buffers if b.name == table).dtype == "f32"
