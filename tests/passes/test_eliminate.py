"""Dead and common values."""

from __future__ import annotations

import numpy as np
from graph_maker import GraphMaker, sources_of

from birc.compiler.passes.base import run_pass
from birc.compiler.passes.eliminate_common import EliminateCommon
from birc.compiler.passes.eliminate_dead import EliminateDead


def test_dead_chain_goes_with_its_constants() -> None:
    make = GraphMaker()
    x = make.input(3)
    make("mul", make("add", x, make.constant(1.0)), make.constant(2.0))
    graph = make.graph(make("neg", x))
    result = run_pass(EliminateDead(), graph)
    assert [node.op for node in result.graph.nodes] == ["neg"]
    assert not result.graph.constants
    assert result.stats == {"nodes": 2, "constants": 2}
    assert sources_of(result.graph)[1] == {"n0": "removed", "n1": "removed"}
    assert not run_pass(EliminateDead(), result.graph).changed


def test_common_nodes_merge_in_cascade() -> None:
    make = GraphMaker()
    x, z = make.input(3), make.input(3)
    left = make("exp", make("add", x, z))
    right = make("exp", make("add", z, x))
    result = run_pass(EliminateCommon(), make.graph(make("mul", left, right)))
    assert [node.op for node in result.graph.nodes] == ["add", "exp", "mul"]
    assert result.stats["nodes"] == 2


def test_order_attributes_and_types_tell_nodes_apart() -> None:
    make = GraphMaker()
    x, z = make.input(3, 3), make.input(3, 3)
    one, two = make("sub", x, z), make("sub", z, x)
    three = make("transpose", x, perm=(1, 0))
    four = make("transpose", x, perm=(0, 1))
    graph = make.graph(one, two, three, four)
    assert not run_pass(EliminateCommon(), graph).changed


def test_constants_merge_by_their_bits() -> None:
    make = GraphMaker()
    same, again = make.random(4, 4), make.constant(np.zeros((4, 4)))
    copies = [make.splat(0.0, 4, 4), make.splat(0.0, 4, 4), make.splat(-0.0, 4, 4)]
    total = same
    for constant in (again, *copies):
        total = make("add", total, constant)
    result = run_pass(EliminateCommon(), make.graph(total))
    assert result.stats["constants"] == 1
    assert len(result.graph.constants) == 4


def test_two_outputs_stay_two_values() -> None:
    make = GraphMaker()
    x = make.input(3)
    graph = make.graph(make("exp", x), make("exp", x))
    assert not run_pass(EliminateCommon(), graph).changed
