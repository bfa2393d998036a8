"""Walks the loop nests of a kernel as one SPC executes them, whole or as one queue sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from birc.runtime.faults import MachineFault
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import Instruction, Kernel, Loop, Sync


@dataclass(frozen=True, slots=True)
class Step:
    """One execution of an instruction: its loop variables, and which loops are in their first and last
    iteration.

    `index` counts the kernel's static instructions in text order; `queue` names the hardware queue.
    """

    index: int
    instruction: Instruction
    variables: tuple[int, ...]
    first: int
    last: int
    queue: str

    def selects(self, sync: Sync) -> bool:
        """Whether the wait or post happens in this iteration."""
        return self.in_first(sync.first) and sync.last & ~self.last == 0

    def in_first(self, mask: int) -> bool:
        """Whether every loop of the mask is in its first iteration."""
        return mask & ~self.first == 0


@dataclass(frozen=True, slots=True)
class _Leaf:
    index: int
    instruction: Instruction
    queues: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Branch:
    loop: Loop
    children: tuple[_Branch | _Leaf, ...]
    queues: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Position:
    """Where a walk stands: the loops around it."""

    variables: tuple[int, ...] = ()
    first: int = 0
    last: int = 0
    program: int = 0

    def enter(self, loop: Loop, variable: int, trip_count: int) -> _Position:
        bit = 1 << len(self.variables)
        return _Position(
            (*self.variables, variable),
            self.first | (bit if variable == 0 else 0),
            self.last | (bit if variable == trip_count - 1 else 0),
            self.program + (variable if loop.level == "program" else 0),
        )


class KernelWalk:
    """A kernel prepared for walking."""

    __slots__ = ("_nests", "queues")

    def __init__(self, kernel: Kernel) -> None:
        numbers = iter(range(sum(1 for _ in kernel.instructions())))
        self._nests = tuple(_prepare(nest, numbers, 1) for nest in kernel.nests)
        self.queues: tuple[str, ...] = tuple(sorted(frozenset().union(*(nest.queues for nest in self._nests))))

    def steps(self, spc: int, queue: str | None = None) -> Iterator[Step]:
        """What SPC number `spc` of a die executes, in text order; only one queue's part of it if `queue` is
        given."""
        for nest in self._nests:
            fixed = _spc_variables(nest, spc)
            if fixed is not None and (queue is None or queue in nest.queues):
                yield from _walk(nest, fixed, queue, _Position())


def _prepare(item: Loop | Instruction, numbers: Iterator[int], programs: int) -> _Branch | _Leaf:
    """Number the instructions and note which queues a part of a nest concerns."""
    if isinstance(item, Instruction):
        return _Leaf(next(numbers), item, frozenset(_queues(item, programs)))
    inner = programs + item.extent - 1 if item.level == "program" else programs
    children = tuple(_prepare(child, numbers, inner) for child in item.body)
    return _Branch(item, children, frozenset().union(*(child.queues for child in children)))


def _queues(instruction: Instruction, programs: int) -> list[str]:
    engine = BY_MNEMONIC[instruction.mnemonic].engine
    if engine != "vector":
        return [engine]
    return [_vector_queue(instruction.program + number) for number in range(programs)]


def _vector_queue(program: int) -> str:
    return f"vector {program}"


def _spc_variables(nest: _Branch | _Leaf, spc: int) -> tuple[int, ...] | None:
    """The values of the outermost loops of level "spc" on this SPC, or None when it has no iteration."""
    extents = []
    while isinstance(nest, _Branch) and nest.loop.level == "spc":
        extents.append(nest.loop.extent)
        if len(nest.children) != 1:
            break
        nest = nest.children[0]
    if spc >= prod(extents):
        return None
    variables = []
    for extent in reversed(extents):
        spc, variable = divmod(spc, extent)
        variables.append(variable)
    return tuple(reversed(variables))


def _walk(node: _Branch | _Leaf, fixed: tuple[int, ...], queue: str | None, at: _Position) -> Iterator[Step]:
    if isinstance(node, _Leaf):
        step = _step(node, at)
        if queue is None or step.queue == queue:
            yield step
        return
    trip_count = node.loop.trip_count(at.variables)
    depth = len(at.variables)
    if node.loop.level == "spc":
        if depth >= len(fixed):
            raise MachineFault("a loop of level spc stands inside another loop")
        variables = range(fixed[depth], min(fixed[depth] + 1, trip_count))
    else:
        variables = range(trip_count)
    children = [child for child in node.children if queue is None or queue in child.queues]
    for variable in variables:
        inside = at.enter(node.loop, variable, trip_count)
        for child in children:
            yield from _walk(child, fixed, queue, inside)


def _step(leaf: _Leaf, at: _Position) -> Step:
    engine = BY_MNEMONIC[leaf.instruction.mnemonic].engine
    queue = _vector_queue(leaf.instruction.program + at.program) if engine == "vector" else engine
    return Step(leaf.index, leaf.instruction, at.variables, at.first, at.last, queue)
