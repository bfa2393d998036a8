"""A kernel as one SPC executes it: the loops without level "spc", and what each instruction costs.

Two SPCs with equal trees behave alike: they are one class, and are simulated once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from birc.runtime.program import Affine, Instruction, Loop
from birc.runtime.timing.ports import Route

_NOWHERE = Affine()

# What an instruction occupies.
TILE_LOAD, MULTIPLY, LOAD, STORE, DRAIN, ALU, SFU, CROSS = range(8)

# The queues of an SPC; vector program p is queue VECTOR + p.
LOAD_A, LOAD_B, COMPUTE, VECTOR = range(4)


@dataclass(frozen=True, slots=True)
class SyncSpec:
    """A wait or post; `first` and `last` are the depths of the loops that must be in that iteration."""

    semaphore: Affine
    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()

    @property
    def is_fixed(self) -> bool:
        return not (self.semaphore.terms or self.first or self.last)


@dataclass(frozen=True, slots=True)
class AxisSpec:
    """An axis of a box: `fixed` elements in bounds in every iteration, or None when it depends on loops."""

    fixed: int | None
    start: Affine = _NOWHERE
    step: int = 1
    extent: int = 1
    low: int = 0
    high: int = 1


@dataclass(frozen=True, slots=True)
class AccessSpec:
    """What a memory instruction moves, by which route; `pitches`: bytes between neighbours on an axis."""

    route: Route
    axes: tuple[AxisSpec, ...]
    pitches: tuple[int, ...]
    element_bytes: int
    shape: tuple[int, ...]
    indexed: bool = False


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One instruction: `index` counts as `Kernel.instructions()`, `pipe` is what it occupies.

    `reads` and `writes` are registers; `shape` is that of the result where the instruction states it,
    `axes` those of a reduction; `first` the loops whose first iteration replaces the register; `cycles` and
    `macs` are those of a matrix operation, `format` its format.
    """

    index: int
    mnemonic: str
    queue: int
    pipe: int
    waits: tuple[SyncSpec, ...] = ()
    posts: tuple[SyncSpec, ...] = ()
    access: AccessSpec | None = None
    reads: tuple[Affine, ...] = ()
    writes: Affine | None = None
    shape: tuple[int, ...] | None = None
    axes: tuple[int, ...] = ()
    first: tuple[int, ...] | None = None
    cycles: int = 0
    macs: int = 0
    format: str = ""


@dataclass(frozen=True, slots=True)
class LoopSpec:
    """A loop of an SPC. `number` counts the loops of the kernel in text order."""

    number: int
    depth: int
    extent: int
    limit: Affine | None
    spread: bool  # level "program": iteration i runs on vector program i
    body: tuple[LoopSpec | StepSpec, ...]


@dataclass(frozen=True, slots=True)
class SpcKernel:
    """What one SPC does in a kernel."""

    nests: tuple[LoopSpec | StepSpec, ...]
    semaphores: tuple[int, ...]

    def steps(self) -> Iterator[tuple[StepSpec, tuple[LoopSpec, ...]]]:
        """Every instruction with the loops around it, in text order."""
        return steps_below(self.nests, ())


def steps_below(
    items: tuple[LoopSpec | StepSpec, ...], loops: tuple[LoopSpec, ...]
) -> Iterator[tuple[StepSpec, tuple[LoopSpec, ...]]]:
    """Every instruction in `items` with the loops around it; `loops` stand around all of them."""
    for item in items:
        if isinstance(item, StepSpec):
            yield item, loops
        else:
            yield from steps_below(item.body, (*loops, item))


def instructions_in(
    items: Sequence[Loop | Instruction], extents: tuple[int, ...] = ()
) -> Iterator[tuple[Instruction, tuple[int, ...]]]:
    """Every instruction of a program's kernel with the extents of the loops around it, outermost first."""
    for item in items:
        if isinstance(item, Instruction):
            yield item, extents
        else:
            yield from instructions_in(item.body, (*extents, item.extent))


def affine_range(affine: Affine, trips: Mapping[int, int]) -> tuple[int, int]:
    """The smallest and largest value while the variable at depth d runs through `trips[d]` iterations."""
    reach = [coefficient * (trips[depth] - 1) for depth, coefficient in affine.terms]
    return affine.constant + sum(min(0, r) for r in reach), affine.constant + sum(max(0, r) for r in reach)
