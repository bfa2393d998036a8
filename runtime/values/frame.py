"""What an executing part of a kernel has at hand: its tensors, the region it computes, values and buffers."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Region = tuple[tuple[int, int], ...]  # half-open range of each axis, outermost axis first


@dataclass(frozen=True, slots=True)
class Tensor:
    """A bound tensor: the bytes of its memory, and the address of the element at its lower bounds."""

    memory: npt.NDArray[np.uint8]
    address: int


class Workspace:
    """The buffers of one thread, kept from one block to the next: fresh memory would cost page faults."""

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        self._blocks: dict[int, npt.NDArray[np.uint8]] = {}

    def array(self, buffer: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array in a numbered buffer, its elements undefined."""
        num_bytes = prod(shape) * dtype.itemsize
        block = self._blocks.get(buffer)
        if block is None or block.size < num_bytes:
            block = np.empty(max(num_bytes, 64), np.uint8)
            self._blocks[buffer] = block
        return np.ndarray(shape, dtype, block)


@dataclass(slots=True)
class Frame:
    """The state of one block: `values` by number, `shared` what all blocks of this run have in common."""

    tensors: dict[int, Tensor]
    region: Region
    workspace: Workspace
    values: list[Array]
    shared: dict[int, Array] = field(default_factory=dict)
