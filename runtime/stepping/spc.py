"""What one SPC holds while it executes a kernel: input buffers, accumulator, registers, semaphores.

Everything starts empty with each kernel, so a read of something that the kernel never wrote is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from birc.runtime.conversion import Array
from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.memory import Memory
from birc.runtime.program import MAX_BOX_RANK, Descriptor, Kernel
from birc.runtime.stepping.walk import Step


@dataclass(frozen=True, slots=True)
class Binding:
    """A descriptor in a slot, its address moved by `byte_offset`."""

    descriptor: Descriptor
    byte_offset: int = 0


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile in an input buffer: `values` are [rows, k] or [k, columns], rounded to `format`."""

    values: Array
    format: str
    num_bytes: int


class InputBuffer:
    """One of the two input buffers of the T-core: tiles by address."""

    __slots__ = ("_name", "_num_bytes", "_tiles")

    def __init__(self, name: str, num_bytes: int) -> None:
        self._name = name
        self._num_bytes = num_bytes
        self._tiles: dict[int, Tile] = {}

    def put(self, address: int, tile: Tile) -> None:
        """Load a tile; tiles that it overlaps are lost."""
        end = address + tile.num_bytes
        if address < 0 or end > self._num_bytes:
            raise MachineFault(f"a tile lies at {address}:{end} of {self._name}, which has {self._num_bytes} bytes")
        for start, old in list(self._tiles.items()):
            if start < end and address < start + old.num_bytes:
                del self._tiles[start]
        self._tiles[address] = tile

    def get(self, address: int, format_name: str, shape: tuple[int, int]) -> Array:
        """The upper left `shape` of the tile at `address`. Raises `MachineFault` unless it is all there."""
        tile = self._tiles.get(address)
        if tile is None:
            raise MachineFault(f"there is no tile at {address} of {self._name}: never loaded, or overwritten")
        if tile.format != format_name:
            raise MachineFault(f"the tile at {address} of {self._name} is {tile.format}, not {format_name}")
        rows, columns = shape
        if rows > tile.values.shape[0] or columns > tile.values.shape[1]:
            raise MachineFault(f"the tile at {address} of {self._name} has {tile.values.shape}, not {shape}")
        return tile.values[:rows, :columns]


class Accumulator:
    """The accumulator of the T-core: the sums of one tile, until they are drained."""

    __slots__ = ("_drained", "_sums")

    def __init__(self) -> None:
        self._sums: npt.NDArray[np.float32] | None = None
        self._drained = True

    def start(self, rows: int, columns: int) -> None:
        """Begin a new sum from zero."""
        if not self._drained:
            raise MachineFault("the accumulator starts a new tile before the last one was drained")
        self._sums = np.zeros((rows, columns), np.float32)

    def add(self, product: npt.NDArray[np.float32]) -> None:
        """Add one product to the sums."""
        if self._sums is None or self._sums.shape != product.shape:
            held = "nothing" if self._sums is None else self._sums.shape
            raise MachineFault(f"a product of {product.shape} is added to the accumulator, which holds {held}")
        self._sums = self._sums + product
        self._drained = False

    def drain(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """The sums, seen with `shape`."""
        if self._sums is None or self._sums.size != prod(shape):
            held = "nothing" if self._sums is None else self._sums.shape
            raise MachineFault(f"the accumulator holds {held}, drained as {shape}")
        self._drained = True
        return self._sums.reshape(shape)


class Registers:
    """The vector registers; the vector programs of the SPC share them."""

    __slots__ = ("_lanes", "_machine")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._lanes: dict[int, Array] = {}

    def read(self, number: int) -> Array:
        """The lanes of a register that was written before."""
        if number not in self._lanes:
            raise MachineFault(f"reads register v{number}, which was never written")
        return self._lanes[number]

    def write(self, number: int, lanes: Array) -> None:
        """Replace a register."""
        if not 0 <= number < self._machine.vector_registers:
            raise MachineFault(f"there are {self._machine.vector_registers} registers, v{number} is written")
        most = self._machine.vector_tile_elements
        if lanes.size > most or lanes.ndim > MAX_BOX_RANK:
            raise MachineFault(f"a register of shape {lanes.shape}: at most {most} lanes, {MAX_BOX_RANK} axes")
        self._lanes[number] = lanes


class Semaphores:
    """The counting semaphores of one kernel on one SPC. Only one queue may wait on each."""

    __slots__ = ("_counts", "_initial", "_waiters")

    def __init__(self, initial: tuple[int, ...]) -> None:
        self._initial = initial
        self._counts = list(initial)
        self._waiters: dict[int, str] = {}

    def missing(self, step: Step) -> tuple[int, ...]:
        """The semaphores that the step waits for and that are exhausted."""
        wanted = self._waits(step)
        return tuple(sorted({number for number in wanted if self._counts[number] < wanted.count(number)}))

    def take(self, step: Step) -> None:
        """Do the waits of a step; none may be missing."""
        for number in self._waits(step):
            waiter = self._waiters.setdefault(number, step.queue)
            if waiter != step.queue:
                raise MachineFault(f"semaphore {number} is waited on by {waiter} and by {step.queue}")
            self._counts[number] -= 1

    def post(self, step: Step) -> None:
        """Do the posts of a step."""
        for sync in step.instruction.posts:
            if step.selects(sync):
                self._counts[self._checked(sync.semaphore.at(step.variables))] += 1

    def check_restored(self) -> None:
        """At the end of a kernel every count must be what it was at its begin."""
        for number, (count, initial) in enumerate(zip(self._counts, self._initial, strict=True)):
            if count != initial:
                raise MachineFault(f"semaphore {number} ends at {count}, it began at {initial}")

    def _waits(self, step: Step) -> list[int]:
        syncs = (sync for sync in step.instruction.waits if step.selects(sync))
        return [self._checked(sync.semaphore.at(step.variables)) for sync in syncs]

    def _checked(self, number: int) -> int:
        if not 0 <= number < len(self._counts):
            raise MachineFault(f"semaphore {number} is used, the kernel declares {len(self._counts)}")
        return number


class Spc:
    """The state of one SPC during one kernel; `bindings` are the slots as they were when it was appended."""

    __slots__ = (
        "_views",
        "accumulator",
        "bindings",
        "buffers",
        "die",
        "machine",
        "memory",
        "registers",
        "semaphores",
        "spc",
    )

    def __init__(
        self,
        memory: Memory,
        machine: Machine,
        kernel: Kernel,
        bindings: Mapping[int, Binding],
        *,
        die: int,
        spc: int,
    ) -> None:
        self.memory = memory
        self.machine = machine
        self.bindings = bindings
        self.die = die
        self.spc = spc
        self.buffers = {
            "a": InputBuffer("input buffer A", machine.gib_a_bytes),
            "b": InputBuffer("input buffer B", machine.gib_b_bytes),
        }
        self.accumulator = Accumulator()
        self.registers = Registers(machine)
        self.semaphores = Semaphores(kernel.semaphores)
        self._views: dict[int, tuple[Array, Descriptor]] = {}

    def tensor(self, slot: int) -> tuple[Array, Descriptor]:
        """The array and descriptor bound in a slot."""
        if slot not in self._views:
            if slot not in self.bindings:
                raise MachineFault(f"nothing is bound in slot {slot}")
            binding = self.bindings[slot]
            view = self.memory.view(binding.descriptor, self.die, self.spc, binding.byte_offset)
            self._views[slot] = (view, binding.descriptor)
        return self._views[slot]
