"""The loads of a phase stand in front or go some ahead, as long as enough vector programs find registers."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import compile_graph

from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.plan import Access, Contraction, Dimension, Index, Kernel, Phase, Statement, View
from birc.compiler.ir.registers import MOST_LOADS_AHEAD, assign
from birc.compiler.passes.lower.load_order import ENOUGH_PROGRAMS, loads_first

ACCESS = Access(View("t", 0, (8,), (1,)), (Index((("i", 1),)),))


def sum_of(count: int, phases: int = 1) -> Kernel:
    """A kernel that adds up so many operands, each loaded where it is used, in each of some phases."""
    made = []
    for phase in range(phases):
        statements = [Statement("vld", f"p{phase}v0", access=ACCESS)]
        total = f"p{phase}v0"
        for number in range(1, count):
            statements.append(Statement("vld", f"p{phase}v{number}", access=ACCESS))
            statements.append(Statement("vadd", f"p{phase}s{number}", (total, f"p{phase}v{number}")))
            total = f"p{phase}s{number}"
        made.append(Phase((*statements, Statement("vst", arguments=(total,), access=ACCESS))))
    return Kernel("sum", (Dimension("i", 8),), tuple(made))


def mnemonics(kernel: Kernel) -> list[list[str]]:
    return [[s.op for s in phase.statements] for phase in kernel.phases]


def test_loads_come_first_in_every_phase() -> None:
    kernel = loads_first(sum_of(3, phases=2), 32)
    assert mnemonics(kernel) == [["vld", "vld", "vld", "vadd", "vadd", "vst"]] * 2


def test_the_rest_keeps_its_order() -> None:
    before = sum_of(4)
    after = loads_first(before, 32)
    for op_is_load in (True, False):
        kept = [[s for s in k.phases[0].statements if (s.op == "vld") == op_is_load] for k in (before, after)]
        assert kept[0] == kept[1]


@pytest.mark.parametrize("registers", [8, 16, 32, 64])
@pytest.mark.parametrize("count", [3, 4, 5, 8, 9, 16, 17, 32])
def test_enough_programs_keep_their_registers(count: int, registers: int) -> None:
    """Where all loads in front would leave fewer programs than there were, and too few, some go ahead or none."""
    kernel = sum_of(count)
    after = loads_first(kernel, registers)
    assert assign(kernel.phases).count == 2
    enough = min(registers // 2, ENOUGH_PROGRAMS)
    assert registers // assign(after.phases).count >= enough
    if registers // count >= enough:
        assert mnemonics(after)[0][: count + 1] == ["vld"] * count + ["vadd"]
    elif registers // (MOST_LOADS_AHEAD + 2) >= enough:
        assert ahead(after) == [min(MOST_LOADS_AHEAD, count - 2 - number) for number in range(count - 1)]
    else:
        assert after == kernel


def ahead(kernel: Kernel) -> list[int]:
    """By how many loads those of a sum are ahead of each addition."""
    ops = mnemonics(kernel)[0]
    additions = [place for place, op in enumerate(ops) if op == "vadd"]
    return [ops[:place].count("vld") - number - 2 for number, place in enumerate(additions)]


def test_products_keep_theirs() -> None:
    contraction = Contraction(ACCESS, ACCESS, 0, 1, (), ("i",), "tf32p")
    kernel = Kernel("product", (Dimension("i", 8),), sum_of(3).phases, contraction)
    assert loads_first(kernel, 32) is kernel


def test_what_a_load_needs_stays_before_it() -> None:
    """An indexed load reads an index that was loaded; rows that do not fit into a tile are read again."""
    make = GraphMaker()
    rows = make("gather", make.random(7, 5), make.input(4, element="i64"), axis=0)
    scaled = make("mul", make("add", rows, make.input(4, 5)), make.input(4, 5))
    long = make("softmax", make("add", make.input(2, 4099), make.input(2, 4099)), axis=1)
    graph = make.graph(scaled, long)
    case = compile_graph(graph)
    case.verify()
    for kernel in case.kernels:
        for phase in kernel.phases:
            ops = [s.op for s in phase.statements]
            assert "vld" not in ops[ops.count("vld") :]
    inputs = random_inputs(graph)
    expected = run_graph(graph, inputs)
    for name, actual in case.step(inputs, "random").items():
        np.testing.assert_allclose(actual, expected[name], rtol=2e-5, atol=1e-6)
