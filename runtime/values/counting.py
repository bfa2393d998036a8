"""What a raised kernel executes: executions, bytes and multiply-adds of each static instruction.

Loops are affine, so all of it follows from the extents of loops and boxes: a sum over iterations of products of
what is in bounds on each axis, evaluated factor by factor over only those loops that a factor depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from birc.runtime.conversion import memory_type
from birc.runtime.counts import InstructionCounts
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.program import Affine, Box, Descriptor, Kernel, Loop
from birc.runtime.values.nest import Leaf, Node, number_nests

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Factor:
    """A number for each iteration of some loops, given by depth; axes of `values` are these loops in order."""

    depths: tuple[int, ...]
    values: Ints


def count_kernel(
    kernel: Kernel, descriptors: Mapping[int, Descriptor], index_elements: Mapping[int, int]
) -> dict[int, InstructionCounts]:
    """The counts of one run, by instruction number.

    `index_elements` tells how many rows an indexed load takes that its box does not show.
    """
    counts: dict[int, InstructionCounts] = {}
    for nest in number_nests(kernel):
        _count(nest, (), descriptors, index_elements, counts)
    return counts


def _count(
    item: Node | Leaf,
    loops: tuple[Loop, ...],
    descriptors: Mapping[int, Descriptor],
    index_elements: Mapping[int, int],
    counts: dict[int, InstructionCounts],
) -> None:
    if isinstance(item, Node):
        for child in item.body:
            _count(child, (*loops, item.loop), descriptors, index_elements, counts)
        return
    limits = _limit_factors(loops)
    executions = _total(limits, loops)
    if not executions:
        return
    entry = InstructionCounts(executions)
    row = BY_MNEMONIC[item.instruction.mnemonic]
    fields: dict[str, Any] = dict(zip((field.name for field in row.fields), item.instruction.operands, strict=True))
    if row.pipe == "mma":
        rows = fields["m"] if row.mnemonic == "tmma" else fields["window"].pixels
        entry.macs = executions * rows * fields["n"] * fields["k"]
    box = next((operand for operand in fields.values() if isinstance(operand, Box)), None)
    if box is not None:
        descriptor = descriptors[box.slot]
        elements = _total([*limits, *_inside_factors(box, descriptor, loops)], loops)
        elements *= index_elements.get(item.number, 1)
        num_bytes = elements * memory_type(descriptor.dtype).itemsize
        if row.mnemonic == "vst":
            entry.bytes_written = num_bytes
        else:
            entry.bytes_read = num_bytes
    counts[item.number] = entry


def _limit_factors(loops: tuple[Loop, ...]) -> list[Factor]:
    """1 for the iterations that the loops' limits leave, else 0."""
    factors = []
    for depth, loop in enumerate(loops):
        if loop.limit is not None:
            depths = tuple(sorted({depth, *(other for other, _ in loop.limit.terms)}))
            bound = _values(loop.limit, depths, loops)
            own = _values(Affine(0, ((depth, 1),)), depths, loops)
            factors.append(Factor(depths, np.asarray(own < bound).astype(np.int64)))
    return factors


def _inside_factors(box: Box, descriptor: Descriptor, loops: tuple[Loop, ...]) -> list[Factor]:
    """For each axis of a box: how many of its elements are in bounds."""
    factors = []
    for axis, low, dim in zip(box.axes, descriptor.lower, descriptor.dims, strict=True):
        depths = tuple(depth for depth, _ in axis.start.terms)
        start = _values(axis.start, depths, loops) - low
        step = axis.step
        if step < 0:
            start, step = dim - 1 - start, -step
        first = np.maximum(0, -(start // step))
        end = np.minimum(axis.extent, -((start - dim) // step))
        factors.append(Factor(depths, np.maximum(0, end - first)))
    return factors


def _values(affine: Affine, depths: tuple[int, ...], loops: tuple[Loop, ...]) -> Ints:
    """An affine number over the iterations of some loops."""
    shape = tuple(loops[depth].extent for depth in depths)
    result = np.full(shape, affine.constant, np.int64)
    for depth, coefficient in affine.terms:
        place = [1] * len(depths)
        place[depths.index(depth)] = -1
        result += coefficient * np.arange(loops[depth].extent, dtype=np.int64).reshape(place)
    return result


def _total(factors: Iterable[Factor], loops: tuple[Loop, ...]) -> int:
    """The sum over all iterations of the product of the factors.

    Factors without a loop in common are summed apart: the sum of their product is the product of their sums.
    """
    groups: list[tuple[set[int], list[Factor]]] = []
    for factor in factors:
        depths, members = set(factor.depths), [factor]
        apart = []
        for group in groups:
            if group[0] & depths:
                depths |= group[0]
                members += group[1]
            else:
                apart.append(group)
        groups = [*apart, (depths, members)]
    free = set(range(len(loops))).difference(*(depths for depths, _ in groups))
    return prod(loops[depth].extent for depth in free) * prod(_sum(members) for _, members in groups)


def _sum(factors: list[Factor]) -> int:
    """The sum of a product of factors over all loops that these depend on."""
    operands: list[Any] = []
    for factor in factors:
        operands += [factor.values, list(factor.depths)]
    return int(np.einsum(*operands, [], optimize=len(factors) > 2))
