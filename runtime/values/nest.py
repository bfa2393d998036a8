"""The static loops and instructions of a kernel, numbered, and which loops are better taken one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Final

from birc.runtime.program import Box, Instruction, Kernel, Loop

_MATRIX: Final = frozenset({"tlda", "tldb", "tmma", "tconv"})
# A window of more taps than this is reduced as an array axis after all.
_MOST_TAPS: Final = 128


@dataclass(frozen=True, slots=True)
class Leaf:
    """An instruction; `number` counts the kernel's instructions in text order."""

    number: int
    instruction: Instruction


@dataclass(frozen=True, slots=True)
class Node:
    """A loop; `number` counts the kernel's loops in text order, `depth` is its variable."""

    number: int
    depth: int
    loop: Loop
    body: tuple[Node | Leaf, ...]

    def leaves(self) -> Iterator[Leaf]:
        """Every instruction inside."""
        for item in self.body:
            if isinstance(item, Leaf):
                yield item
            else:
                yield from item.leaves()

    def nodes(self) -> Iterator[Node]:
        """This loop and every loop inside."""
        yield self
        for item in self.body:
            if isinstance(item, Node):
                yield from item.nodes()


def number_nests(kernel: Kernel) -> tuple[Node | Leaf, ...]:
    """The nests of a kernel as numbered trees; leading loops of level "spc" that all nests share are one."""
    counters = [0, 0]
    nests = tuple(_number(nest, 0, counters) for nest in kernel.nests)
    while len(nests) > 1:
        merged = _join_first(nests)
        if merged is None:
            break
        nests = merged
    return nests


def _number(item: Loop | Instruction, depth: int, counters: list[int]) -> Node | Leaf:
    kind = 0 if isinstance(item, Instruction) else 1
    number = counters[kind]
    counters[kind] += 1
    if isinstance(item, Instruction):
        return Leaf(number, item)
    return Node(number, depth, item, tuple(_number(child, depth + 1, counters) for child in item.body))


def _join_first(nests: tuple[Node | Leaf, ...]) -> tuple[Node | Leaf, ...] | None:
    """Nests that begin with the same SPC loops, under one set of these loops."""
    chains = [_spc_chain(nest) for nest in nests]
    shapes = {tuple((node.loop.extent, node.loop.limit) for node in chain) for chain in chains}
    if len(shapes) != 1 or not chains[0]:
        return None
    body = tuple(child for chain in chains for child in chain[-1].body)
    joined: Node = Node(chains[0][-1].number, chains[0][-1].depth, chains[0][-1].loop, body)
    for node in reversed(chains[0][:-1]):
        joined = Node(node.number, node.depth, node.loop, (joined,))
    return (joined,)


def _spc_chain(nest: Node | Leaf) -> list[Node]:
    chain = []
    while isinstance(nest, Node) and nest.loop.level == "spc":
        chain.append(nest)
        if len(nest.body) != 1:
            break
        nest = nest.body[0]
    return chain


def spc_extents(nest: Node | Leaf) -> tuple[int, ...]:
    """The extents of the leading loops of level "spc"."""
    return tuple(node.loop.extent for node in _spc_chain(nest))


def stepped_loops(nests: tuple[Node | Leaf, ...]) -> frozenset[int]:
    """The loops whose iterations are taken one by one from the start: ordered ones, and windows.

    A window is a reduction by vector instructions over overlapping parts of a tensor. As an array axis every
    element would be read as often as there are taps, with short inner loops.
    """
    numbers = set()
    for nest in nests:
        if isinstance(nest, Leaf):
            continue
        extents: dict[int, int] = {}
        numbers |= _stepped(nest, extents)
    return frozenset(numbers)


def _stepped(node: Node, extents: dict[int, int]) -> set[int]:
    """`extents` holds those of the loops around, by depth."""
    inside = {**extents, node.depth: node.loop.extent}
    found = set()
    for child in node.body:
        if isinstance(child, Node):
            found |= _stepped(child, inside)
    if node.loop.kind == "seq" or (node.loop.kind == "red" and _is_window(node, inside)):
        found.add(node.number)
    return found


def _is_window(node: Node, around: dict[int, int]) -> bool:
    leaves = tuple(node.leaves())
    if any(leaf.instruction.mnemonic in _MATRIX for leaf in leaves):
        return False
    taps = prod(inner.loop.extent for inner in node.nodes() if inner.loop.kind == "red")
    if taps > _MOST_TAPS:
        return False
    extents = {**around, **{inner.depth: inner.loop.extent for inner in node.nodes()}}
    boxes = (operand for leaf in leaves for operand in leaf.instruction.operands if isinstance(operand, Box))
    return any(_overlaps(box, node.depth, extents) for box in boxes)


def _overlaps(box: Box, depth: int, extents: dict[int, int]) -> bool:
    """Whether the loop at `depth` moves the box by less than what it, or another loop, covers."""
    for axis in box.axes:
        factor = abs(axis.start.coefficient(depth))
        if not factor:
            continue
        reach = factor * extents[depth]
        others = [(abs(axis.step), axis.extent)]
        others += [(abs(c), extents[d]) for d, c in axis.start.terms if d != depth]
        for step, extent in others:
            if extent > 1 and step < reach and factor < step * extent:
                return True
    return False
