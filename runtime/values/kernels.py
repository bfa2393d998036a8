"""Kernels as the engine executes them: raised, or, where that is not possible, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from birc.runtime.conversion import FLOAT, memory_type
from birc.runtime.counts import InstructionCounts
from birc.runtime.program import Kernel
from birc.runtime.values.axes import parts_of
from birc.runtime.values.contraction import Packing
from birc.runtime.values.counting import count_kernel
from birc.runtime.values.form import Contract, Operation, Store
from birc.runtime.values.frame import Array, Frame, Region, Tensor, Workspace
from birc.runtime.values.index_space import CannotRaiseError
from birc.runtime.values.nest import number_nests, spc_extents
from birc.runtime.values.raise_kernel import raise_kernel
from birc.runtime.values.schedule import PartPlan, Setting, schedule
from birc.runtime.values.workers import Lane

_NOTHING = np.empty(0, FLOAT)


@dataclass(frozen=True, slots=True)
class RaisedKernel:
    """A kernel ready to be executed on whole arrays, and what one run of it counts.

    `reasons` tell why loops over tiles are stepped that are not meant to be; usually there are none.
    """

    parts: tuple[PartPlan, ...]
    counts: Mapping[int, InstructionCounts]
    spcs: int
    reasons: tuple[str, ...]

    @property
    def cost(self) -> float:
        """The work of one run, in multiply-adds."""
        return sum(part.cost for part in self.parts)


def prepare(kernel: Kernel, setting: Setting) -> RaisedKernel:
    """Raise a kernel for what is bound to its slots.

    Raises `CannotRaiseError` when it has to be executed step by step.
    """
    trace, reasons = raise_kernel(kernel, setting.descriptors)
    for descriptor in setting.descriptors.values():
        memory_type(descriptor.dtype)
    _check_order(trace.operations, setting)
    parts = parts_of(trace.operations, trace.space, setting.descriptors)
    counts = count_kernel(kernel, setting.descriptors, trace.index_elements)
    spcs = max((prod(spc_extents(nest)) for nest in number_nests(kernel)), default=1)
    return RaisedKernel(tuple(schedule(part, setting) for part in parts), counts, spcs, reasons)


def _check_order(operations: Sequence[Operation], setting: Setting) -> None:
    """Tiles are loaded when they are multiplied: nothing may be stored to them in between."""
    for at, operation in enumerate(operations):
        if not isinstance(operation, Contract):
            continue
        tiles = [tile for product in operation.products for tile in (product.a, product.b)]
        for tile in tiles:
            stores = (op for op in operations[tile.time : at] if isinstance(op, Store))
            if any((tile.access.slot, store.access.slot) in setting.overlaps for store in stores):
                raise CannotRaiseError("a tile is overwritten before it is multiplied")


def execute(raised: RaisedKernel, tensors: dict[int, Tensor], lane: Lane, constants: ConstantOperands) -> None:
    """Run a raised kernel once."""
    for part in raised.parts:
        shared = {
            number: _pack(packing, number, part, tensors, lane, constants) for number, packing in enumerate(part.shared)
        }
        lane.each(part.blocks, _block_function(part, tensors, shared), part.threads)


def _block_function(
    part: PartPlan, tensors: dict[int, Tensor], shared: dict[int, Array]
) -> Callable[[Region, Workspace], None]:
    def compute(block: Region, workspace: Workspace) -> None:
        frame = Frame(tensors, block, workspace, [_NOTHING] * part.num_values, shared)
        for step in part.steps:
            step(frame)

    return compute


def _pack(
    packing: Packing,
    number: int,
    part: PartPlan,
    tensors: dict[int, Tensor],
    lane: Lane,
    constants: ConstantOperands,
) -> Array:
    """An operand for all blocks of a part."""
    tensor = tensors[packing.box.slot]
    constant = packing.box.slot in part.constants
    kept = constants.get(packing, tensor) if constant else None
    if kept is not None:
        return kept
    shape = packing.shape(part.whole)
    # Buffers of blocks have numbers from 0.
    workspace = lane.workspace
    out = np.empty(shape, FLOAT) if constant else workspace.array(-1 - number, shape, FLOAT)
    frame = Frame(tensors, part.whole, workspace, [])
    packing.pack(frame, out)
    if constant:
        constants.keep(packing, tensor, out)
    return out


class ConstantOperands:
    """Packed operands of constant data, kept from one run to the next; those of one die of one memory."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], Array] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def get(self, packing: Packing, tensor: Tensor) -> Array | None:
        """What was packed from an address."""
        return self._kept.get((id(packing), tensor.address))

    def keep(self, packing: Packing, tensor: Tensor, packed: Array) -> None:
        """Remember a packed operand."""
        self._kept[id(packing), tensor.address] = packed
