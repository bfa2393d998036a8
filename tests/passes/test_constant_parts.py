"""Constants that the dies read in parts: which parts those are, that values stay, and what no longer crosses HBM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from machines import with_quick_link
from onnx import TensorProto, helper, numpy_helper
from pipeline import Compiled, compile_graph

from birc.codegen.program_code import generate
from birc.compiler.driver import compile_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Access, Buffer, Dimension, Index, Kernel, KernelStep, Phase, Plan, Statement, View
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.passes.constant_parts import divide_constants
from birc.compiler.passes.restrict import restrict
from birc.runtime import load
from birc.runtime.timing import simulate

MACHINE = with_quick_link("tiny")
ROWS = 4
WIDTH = 91
"""An odd one: rows are what is divided."""


def by_columns(make: GraphMaker, x: str, columns: int) -> tuple[str, str]:
    """A product of which each die computes half of the columns."""
    weights = make.random(96, columns)
    return make("matmul", x, weights), weights


def by_rows(make: GraphMaker, x: str, rows: int) -> tuple[str, str]:
    """A table as large as the tensor to which it is added; each die has half of the rows."""
    table = make.random(rows, WIDTH)
    return make("tanh", make("add", make.input(rows, WIDTH), table)), table


def compiled(build: Callable[[GraphMaker, str, int], tuple[str, str]], size: int) -> tuple[Compiled, np.ndarray]:
    """The plan on two dies, and the values of its constant."""
    make = GraphMaker()
    y, constant = build(make, make.input(ROWS, 96), size)
    graph = make.graph(y)
    return compile_graph(graph, MACHINE), np.asarray(graph.constants[constant].data)


def divided(case: Compiled) -> list[Buffer]:
    return [buffer for buffer in case.plan.buffers if buffer.part_offsets]


def check(case: Compiled) -> None:
    case.verify()
    inputs = random_inputs(case.graph)
    for values in (case.step(inputs, "random", 1), case.values(inputs)):
        for name, expected in run_graph(case.graph, inputs).items():
            np.testing.assert_allclose(values[name], expected, rtol=0, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("columns", "starts", "count"), [(96, (0, 48), 48), (97, (0, 48), 49), (101, (0, 50), 51), (194, (0, 97), 97)]
)
def test_halves_of_columns(columns: int, starts: tuple[int, ...], count: int) -> None:
    """The smaller half of an odd number of columns begins one earlier: parts have one shape."""
    case, weights = compiled(by_columns, columns)
    (buffer,) = divided(case)
    assert (buffer.part_offsets, buffer.part_dims, buffer.part_strides) == (starts, (96, count), (columns, 1))
    assert buffer.num_bytes == 96 * count * 4
    for die, start in enumerate(starts):
        np.testing.assert_array_equal(case.data[f"{buffer.name}.{die}"], weights[:, start : start + count])
    check(case)


@pytest.mark.parametrize(("rows", "starts", "count"), [(100, (0, 50), 50), (103, (0, 51), 52)])
def test_halves_of_rows(rows: int, starts: tuple[int, ...], count: int) -> None:
    case, table = compiled(by_rows, rows)
    (buffer,) = divided(case)
    assert buffer.part_offsets == tuple(WIDTH * start for start in starts)
    assert (buffer.part_dims, buffer.part_strides) == ((WIDTH * count,), (1,))
    for die, start in enumerate(starts):
        held = case.data[f"{buffer.name}.{die}"]
        np.testing.assert_array_equal(held.reshape(count, WIDTH), table[start : start + count])
    check(case)


def test_each_die_has_the_part_that_it_reads() -> None:
    case, weights = compiled(by_columns, 96)
    (buffer,) = divided(case)
    first, second = (image for image in case.program.constants if image.key.startswith(f"{buffer.name}."))
    assert (first.dies, second.dies) == (1, 2)
    assert first.address == second.address
    assert first.num_bytes == second.num_bytes == weights.nbytes // 2
    generated = generate(case.plan, MACHINE)
    assert generated.parts.keys() == {first.key, second.key}
    held = generated.weights({buffer.name: weights})
    assert {key: array.nbytes for key, array in held.items()} == dict.fromkeys((first.key, second.key), 96 * 48 * 4)
    whole = generated.with_parts({buffer.name: weights})[buffer.name]
    assert whole is weights


def test_a_table_is_not_divided() -> None:
    """Which rows a die reads of it, the data tells."""
    make = GraphMaker()
    table = make.random(400, 96)
    case = compile_graph(make.graph(make("gather", table, make.input(200, element="i64"), axis=0)), MACHINE)
    assert case.plan.buffer(table).role == "constant"
    assert not divided(case)
    check(case)


def reading(dimension: str, count: int, first: int = 0) -> KernelStep:
    """Kernels that read a matrix [8, 6] in two parts along one of its dimensions, or all of it on both dies.

    Its rows are counted from `first`.
    """
    row, column = Index((("r", 1),)), Index((("c", 1),))
    load = Access(View("weights", -6 * first, (8, 6), (6, 1), (first, 0)), (replace(row, constant=first), column))
    store = Access(View(f"made{count}", 0, (8, 6), (6, 1)), (row, column))
    statements = (Statement("vld", "v0", access=load), Statement("vst", arguments=("v0",), access=store))
    kernel = Kernel("reading", (Dimension("r", 8), Dimension("c", 6)), (Phase(statements),))
    if not dimension:
        return KernelStep((kernel, kernel))
    half = kernel.dimension(dimension).extent // 2
    return KernelStep((restrict(kernel, dimension, 0, half), restrict(kernel, dimension, half, half)))


@pytest.mark.parametrize(
    ("ways", "offsets"),
    [("r", (0, 24)), ("c", (0, 3)), ("rrr", (0, 24)), ("cc", (0, 3)), ("rc", ()), ("cr", ()), ("r ", ()), (" ", ())],
)
def test_a_constant_is_divided_when_all_its_readers_agree(ways: str, offsets: tuple[int, ...]) -> None:
    steps = tuple(reading(way.strip(), count, first=count) for count, way in enumerate(ways))
    made = (Buffer(f"made{count}", "f32", 192, "scratch") for count in range(len(ways)))
    plan = Plan("p", "tiny", "model", 2, (Buffer("weights", "f32", 192, "constant"), *made), steps, (), ())
    result = divide_constants(plan)
    assert result.buffer("weights").part_offsets == offsets
    if not offsets:
        assert result == plan
        return
    weights = np.arange(48)
    buffer = result.buffer("weights")
    for before, after in zip(plan.steps, result.steps, strict=True):
        for die, (one, other) in enumerate(zip(before.kernels, after.kernels, strict=True)):
            part = strided(weights, View("", offsets[die], buffer.part_dims, buffer.part_strides)).reshape(-1)
            views = (next(accesses(kernel)).view for kernel in (one, other))
            expected, actual = (strided(data, view) for data, view in zip((weights, part), views, strict=True))
            np.testing.assert_array_equal(actual, expected)


def test_what_both_dies_read_of_a_constant_is_no_part() -> None:
    (step,) = (KernelStep((half, half)) for half in reading("r", 0).kernels[1:])
    buffers = (Buffer("weights", "f32", 192, "constant"), Buffer("made0", "f32", 192, "scratch"))
    plan = Plan("p", "tiny", "model", 2, buffers, (step,), (), ())
    assert divide_constants(plan) == plan


def strided(data: np.ndarray, view: View) -> np.ndarray:
    """The elements of a view, one by one."""
    lower = view.lower or (0,) * len(view.dims)
    found = np.empty(view.dims, data.dtype)
    for place in np.ndindex(*view.dims):
        found[place] = data[
            view.offset + sum((i + low) * s for i, low, s in zip(place, lower, view.strides, strict=True))
        ]
    return found


def test_several_kernels_read_one_half() -> None:
    """Two products with the same weights have the same halves."""
    make = GraphMaker()
    weights = make.random(96, 96)
    x = make.input(ROWS, 96)
    graph = make.graph(make("tanh", make("matmul", x, weights)), make("exp", make("matmul", make("neg", x), weights)))
    case = compile_graph(graph, MACHINE)
    assert len(divided(case)) == 1
    check(case)


def chain(layers: int) -> Graph:
    make = GraphMaker()
    x = make.input(ROWS, 96)
    for _ in range(layers):
        x = make("tanh", make("matmul", x, make.random(96, 96, low=-0.2, high=0.2)))
    return make.graph(x)


def test_half_of_the_weights_crosses_the_memory_of_each_die() -> None:
    """Against the plan on one die, which brings all of them."""
    graph = chain(3)
    whole = 3 * 96 * 96 * 4
    for machine in (MACHINE, MACHINE.with_values({"dies": 1})):
        case = compile_graph(graph, machine)
        traffic = simulate(case.program, machine).traffic["hbm"]
        assert whole <= traffic <= 1.1 * whole  # input and output are small
        check(case)


def test_the_text_of_a_plan_keeps_the_parts() -> None:
    case = compile_graph(chain(2), MACHINE)
    assert len(divided(case)) == 2
    text = print_plan(case.plan)
    assert "parts" in text
    assert parse_plan(text, "plan") == case.plan
    assert print_plan(parse_plan(text, "plan")) == text


@pytest.mark.parametrize(
    "change",
    [{"part_offsets": (0, 49)}, {"part_dims": (96, 49)}, {"part_strides": (97, 1)}, {"part_offsets": (0,)}],
    ids=str,
)
def test_other_parts_are_other_weights(change: dict[str, tuple[int, ...]]) -> None:
    """A changed plan is refused, or its program holds other bytes: what the text says counts."""
    case, weights = compiled(by_columns, 96)
    (buffer,) = divided(case)
    changed = tuple(replace(b, **change) if b == buffer else b for b in case.plan.buffers)
    plan = replace(case.plan, buffers=changed)
    try:
        verify_plan(plan, "allocate", MACHINE)
        held = generate(plan, MACHINE).weights({buffer.name: weights})
    except Exception as error:
        assert type(error).__name__ in ("PlanError", "InternalError", "BadModelError"), error
    else:
        assert any(not np.array_equal(held.get(key), case.data[key]) for key in case.data)


def test_a_constant_called_like_a_part_keeps_its_data() -> None:
    """ONNX names of constants may be any: "t.0" is also what the first part of "t" is called."""
    generator = np.random.default_rng(3)
    arrays = {name: generator.uniform(-1, 1, (100, WIDTH)).astype(np.float32) for name in ("t", "t.0")}
    nodes = [
        helper.make_node("Mul", ["x", "t"], ["p"]),
        helper.make_node("Tanh", ["p"], ["y"]),
        helper.make_node("Gather", ["t.0", "ids"], ["z"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (100, WIDTH)),
        helper.make_tensor_value_info("ids", TensorProto.INT64, (4,)),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, (100, WIDTH)),
        helper.make_tensor_value_info("z", TensorProto.FLOAT, (4, WIDTH)),
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "names", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    package = compile_model(model, target=MACHINE)
    assert package is not None
    x, ids = generator.uniform(-1, 1, (100, WIDTH)).astype(np.float32), np.array([0, 7, 50, 99])
    found = load(package).run({"x": x, "ids": ids})
    np.testing.assert_array_equal(found["z"], arrays["t.0"][ids])
    np.testing.assert_allclose(found["y"], np.tanh(x * arrays["t"]), rtol=1e-5, atol=1e-6)
