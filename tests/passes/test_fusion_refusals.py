"""Every reason for which nodes do not share a kernel fires, with its figures, and for no pair that does share one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from graph_maker import GraphMaker
from hypothesis import given, settings
from random_graphs import graphs

from birc.compiler.ir.graph import Graph, Node, Value
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.fuse import LARGEST_GROUP, LARGEST_WIDE_GROUP, MOST_BEFORE_SOFTMAX, Fuse
from birc.compiler.passes.refusal import MOST_LISTED, OF_PLANS, Reason, listed
from birc.runtime.dtypes import dtype

WHOLE_ROWS = Fuse(tile_columns=64, row_tiles=16, operand_bytes=1 << 18)
Pair = tuple[Graph, str, str]
"""A graph, a node and the operand whose kernel it does not join."""


def view() -> Pair:
    make = GraphMaker()
    y = make("relu", make.input(3, 4))
    moved = make("transpose", y, perm=(1, 0))
    return make.graph(make("exp", moved)), moved, y


def behind_a_view() -> Pair:
    make = GraphMaker()
    moved = make("transpose", make("relu", make.input(3, 4)), perm=(1, 0))
    result = make("exp", moved)
    return make.graph(result), result, moved


def movement() -> Pair:
    make = GraphMaker()
    padded = make("pad", make.input(3, 4), pads=(0, 0, 1, 1), value=0.0)
    result = make("exp", padded)
    return make.graph(result), result, padded


def own_anchor() -> Pair:
    make = GraphMaker()
    y = make("exp", make.input(4, 4))
    product = make("matmul", y, make.input(4, 4))
    return make.graph(product), product, y


def parameter() -> Pair:
    make = GraphMaker()
    scale = make("exp", make.input(8))
    norm = make("layer_norm", make.input(4, 8), scale, make.random(8), axis=1, epsilon=1e-5)
    return make.graph(norm), norm, scale


def reduction() -> Pair:
    make = GraphMaker()
    total = make("reduce_sum", make.input(3, 4), axes=(1,), keepdims=1)
    result = make("log", total)
    return make.graph(result), result, total


def anchors() -> Pair:
    make = GraphMaker()
    first = make("matmul", make.input(4, 4), make.input(4, 4))
    second = make("softmax", make("neg", make.input(4, 4)), axis=1)
    total = make("add", first, second)
    return make.graph(total), total, first


def anchor_after_anchor() -> Pair:
    make = GraphMaker()
    product = make("matmul", make.input(4, 4), make.input(4, 4))
    result = make("log_softmax", product, axis=1)
    return make.graph(result), result, product


def given_out() -> Pair:
    make = GraphMaker()
    y = make("softmax", make.input(4, 4), axis=1)
    result = make("neg", y)
    return make.graph(y, result), result, y


def readers() -> Pair:
    make = GraphMaker()
    y = make("softmax", make.input(4, 4), axis=1)
    first, second = make("neg", y), make("relu", y)
    return make.graph(first, second), second, y


def readers_that_would_wait() -> Pair:
    make = GraphMaker()
    y = make("exp", make.input(4, 4))
    total = make("add", y, make("matmul", y, make.random(4, 4)))
    return make.graph(total), total, y


def readers_of_what_would_come_along() -> Pair:
    """Deeper than the product that the sum joins."""
    make = GraphMaker()
    x = make.input(4, 4)
    y = make("exp", make("transpose", make("matmul", x, make.random(4, 4)), perm=(1, 0)))
    total = make("add", y, make("matmul", x, make.random(4, 4)))
    return make.graph(total, y), total, y


def not_last() -> Pair:
    """No op has two results today; of one that does a group would have to store the other."""
    holder = TensorType(dtype("f32"), (4,))
    two = Node("softmax", ("x",), (Value("first", holder), Value("second", holder)))
    result = Node("exp", ("second",), (Value("y", holder),))
    return Graph("two", (Value("x", holder),), ("y",), (two, result)), "y", "second"


def shapes() -> Pair:
    make = GraphMaker()
    y = make("exp", make.input(1, 4))
    total = make("add", y, make.input(3, 4))
    return make.graph(total), total, y


def wraps() -> Pair:
    make = GraphMaker()
    total = make("add", make.input(4, element="i8"), make.constant(100, "i8"))
    result = make("neg", total)
    return make.graph(result), result, total


def wide() -> Pair:
    make = GraphMaker()
    y = make.input(4, element="i64")
    for _ in range(LARGEST_WIDE_GROUP):
        y = make("neg", y)
    result = make("neg", y)
    return make.graph(result), result, y


def full() -> Pair:
    make = GraphMaker()
    y = make.input(4, 4)
    for _ in range(LARGEST_GROUP):
        y = make("neg", y)
    result = make("neg", y)
    return make.graph(result), result, y


def full_with_the_other_operand() -> Pair:
    make = GraphMaker()
    first, second = make.input(4, 4), make.input(4, 4)
    for _ in range(LARGEST_GROUP // 2):
        first, second = make("neg", first), make("neg", second)
    total = make("add", first, second)
    return make.graph(total), total, first


def unread() -> Pair:
    make = GraphMaker()
    y = make("exp", make.input(4, 4))
    result = make("neg", y)
    return make.graph(make.constant(1.0)), result, y


def other_tensors() -> Pair:
    make = GraphMaker()
    x, y, z = make.input(4, 4), make.input(4, 4), make.input(4, 4)
    product, factor = make("matmul", x, y), make("mul", y, z)
    total = make("add", product, factor)
    return make.graph(total), total, factor


def scores(columns: int, depth: int = 16, before: int = 0, axis: int = 1) -> Pair:
    make = GraphMaker()
    product = make("matmul", make.input(5, depth), make.input(depth, columns))
    for _ in range(before):
        product = make("neg", product)
    result = make("softmax", product, axis=axis)
    return make.graph(result), result, product


@pytest.mark.parametrize(
    ("pair", "reason", "words"),
    [
        (view(), Reason.VIEW, "%v1 is a view (transpose), which no kernel computes"),
        (behind_a_view(), Reason.VIEW, "%v1 is a view (transpose), which no kernel computes"),
        (movement(), Reason.MOVEMENT, "%v0 is moved by a kernel of its own (pad)"),
        (own_anchor(), Reason.OWN_ANCHOR, "matmul is an anchor that reads its operands from memory"),
        (parameter(), Reason.PARAMETER, "%v0 is a parameter of layer_norm"),
        (reduction(), Reason.REDUCTION, "nothing follows a reduction (reduce_sum) in its kernel"),
        (anchors(), Reason.ANCHORS, "matmul and softmax are both anchors, and a group has one"),
        (anchor_after_anchor(), Reason.ANCHORS, "matmul and log_softmax are both anchors, and a group has one"),
        (given_out(), Reason.GIVEN_OUT, "%v0 is an output of the graph"),
        (readers(), Reason.READERS, "%v0 has 2 readers: %v1, %v2"),
        (
            readers_that_would_wait(),
            Reason.READERS,
            "others read of the group of %v0, and would wait for %v1",
        ),
        (
            readers_of_what_would_come_along(),
            Reason.READERS,
            "others read of the group of %v2, and would wait",
        ),
        (not_last(), Reason.NOT_LAST, "%second is not the result of its group, which is %first"),
        (shapes(), Reason.SHAPES, "shapes differ: [1, 4] in, [3, 4] out"),
        (wraps(), Reason.WRAPS, "i8 wraps around when it is stored, not in a register of 32 bits"),
        (wide(), Reason.WIDE, "i64 takes two registers: 4 nodes, 4 at most"),
        (full(), Reason.FULL, "the group is full: 24 nodes, 24 at most"),
        (full_with_the_other_operand(), Reason.FULL, "the group is full: 25 nodes together, 24 at most"),
        (unread(), Reason.UNREAD, "nothing reads %v1, and a group needs an output"),
        (
            other_tensors(),
            Reason.OTHER_TENSORS,
            "what makes it reads 2 tensors (%x1, %x2); from one it would come along",
        ),
        (
            scores(128, before=MOST_BEFORE_SOFTMAX),
            Reason.BEFORE_SOFTMAX,
            "7 nodes before the softmax, 6 leave registers for its rows",
        ),
        (scores(128, axis=0), Reason.SOFTMAX_AXIS, "softmax over axis 0 of 2, not over the columns"),
        (scores(193), Reason.UNEVEN_TILES, "softmax over 193 columns: 4 tiles in a row are not of one width"),
        (
            scores(2048),
            Reason.REGISTERS,
            "softmax over 2,048 columns: 32 tiles in a row, the vector registers hold 16",
        ),
        (
            # 8 tiles of 64 columns, 128 deep and 64 more for the step, in 4 bytes.
            scores(1024, depth=128),
            Reason.INPUT_BUFFER,
            "softmax over 1,024 columns, products 128 deep: 393,216 bytes of the other operand for 8 tiles of a row, "
            "the input buffer holds 262,144",
        ),
    ],
    ids=lambda entry: str(entry) if isinstance(entry, Reason) else "",
)
def test_the_reason_is_told_with_its_figures(pair: Pair, reason: Reason, words: str) -> None:
    graph, node, operand = pair
    refusal = WHOLE_ROWS.decide(graph).refusals[node, operand]
    assert (refusal.reason, str(refusal)) == (reason, words)
    assert not any({node, operand} <= names for names in groups(WHOLE_ROWS, graph))


def groups(fuse: Fuse, graph: Graph) -> list[set[str]]:
    return [{node.name for node in nodes} for nodes in fuse.decide(graph).groups]


def test_every_reason_is_tested() -> None:
    mark = next(iter(test_the_reason_is_told_with_its_figures.pytestmark))  # type: ignore[attr-defined]
    assert {case[1] for case in mark.args[1]} == set(Reason) - OF_PLANS


def test_every_reason_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "debugging.md").read_text(encoding="utf-8")
    assert [reason for reason in Reason if f"`{reason}`" not in text] == []


@pytest.mark.parametrize("build", [scores, lambda columns: scores(columns, before=MOST_BEFORE_SOFTMAX - 1)])
def test_what_joins_has_no_refusal(build: Callable[[int], Pair]) -> None:
    graph, node, operand = build(128)
    fusion = WHOLE_ROWS.decide(graph)
    assert (node, operand) not in fusion.refusals
    assert len(fusion.groups) == 1


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "%a, %b"
    assert listed([f"n{number}" for number in range(MOST_LISTED + 2)]) == "%n0, %n1, %n2, %n3 and 2 more"


@settings(max_examples=150, deadline=None)
@given(graph=graphs(max_nodes=12))
def test_every_pair_shares_a_kernel_or_has_a_reason(graph: Graph) -> None:
    fuse = Fuse(tile_columns=4, row_tiles=2, operand_bytes=1 << 18)
    shared = groups(fuse, graph)
    pairs = {
        (node.name, name) for node in graph.nodes for name in node.present_inputs if graph.producer(name) is not None
    }
    together = {pair for pair in pairs if any(set(pair) <= names for names in shared)}
    assert fuse.decide(graph).refusals.keys() == pairs - together
