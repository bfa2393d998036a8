"""The walk through a kernel on one SPC: input buffers, accumulator and registers, event by event."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.runtime.machine import Machine
from birc.runtime.program import Box, Descriptor, Kernel, Register, RingAddress, Window
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.onchip import (
    LOAD_A,
    LOAD_B,
    Event,
    Hazards,
    Order,
    Shared,
    Step,
    numbers,
    program_order,
    queue_name,
    steps_of,
)
from birc.runtime.verifier.structure import product_extents, tile_bytes, tile_extents
from birc.runtime.verifier.unroll import Ints, Unrolled
from birc.runtime.verifier.values import (
    FOLDS,
    REDUCTIONS,
    TCORE_TYPES,
    Content,
    ContentError,
    check_size,
    check_store,
    computed,
    folded,
    indexed,
    loaded,
    reduced,
)

Bindings = Mapping[int, Descriptor]  # by slot
Action = Callable[[Event, int], None]

LIMIT_TILE: Final = "the loaded tile"
LIMIT_CONTENT: Final = "operands of one instruction go together"


@dataclass(slots=True)
class _Tile(Shared):
    """A tile in an input buffer: bytes start to `end`, `depth` x `wide` elements of a format."""

    end: int = 0
    wide: int = 0
    depth: int = 0
    form: str = ""
    valid: bool = False


@dataclass(slots=True)
class _Accumulator(Shared):
    rows: int = 0
    columns: int = 0
    drained: bool = True


@dataclass(slots=True)
class _Register(Shared):
    content: Content | None = None


class Walk:
    """One kernel on one SPC with its bindings. `clocks` [events, queues] is kept for the static instructions
    of `observed`, by static index: row i is what the i-th execution knew when it started, its own queue
    included.
    """

    def __init__(
        self, kernel: Kernel, bindings: Bindings, machine: Machine, unrolled: Unrolled, findings: Findings
    ) -> None:
        self.steps = steps_of(unrolled)
        self._program_order = program_order(unrolled)
        self._machine = machine
        self._bindings = bindings
        self._order = Order(kernel, machine, findings)
        self._hazards = Hazards(self._order, findings)
        self._buffers: tuple[dict[int, _Tile], ...] = ({}, {})
        self._accumulator = _Accumulator()
        self._registers = [_Register() for _ in range(machine.vector_registers)]
        self._results: dict[tuple[int, object], Content] = {}
        self._actions = [self._action(step) for step in self.steps]

    def run(self, observed: frozenset[int] = frozenset()) -> dict[int, Ints]:
        """Walk all events; returns the clocks of the observed static instructions."""
        clocks: dict[int, list[tuple[int, ...]]] = {index: [] for index in observed}
        order, steps, actions = self._order, self.steps, self._actions
        for static, iteration in zip(*self._program_order, strict=True):
            event = order.begin(steps[static], iteration)
            actions[static](event, iteration)
            if static in clocks:
                clocks[static].append(tuple(order.clocks[event.queue]))
            order.end(event)
        order.finish()
        return {index: np.array(rows, np.int64).reshape(-1, order.queues) for index, rows in clocks.items()}

    def _action(self, step: Step) -> Action:
        mnemonic = step.place.instruction.mnemonic
        if mnemonic in ("tlda", "tldb"):
            return self._load_tile(step)
        if step.place.row.pipe == "mma":
            return self._multiply(step)
        return self._vector(step)

    # The input buffers.

    def _load_tile(self, step: Step) -> Action:
        ring, box, _, form = step.place.instruction.operands
        if not isinstance(ring, RingAddress) or not isinstance(box, Box):
            raise TypeError(step.place.name())
        queue = LOAD_A if step.place.instruction.mnemonic == "tlda" else LOAD_B
        leading, trailing = tile_extents(step.place)
        wide, depth = (leading, trailing) if queue == LOAD_A else (trailing, leading)
        engine = step.place.row.engine
        num_bytes = tile_bytes(self._machine, engine, wide, depth, self._machine.formats[str(form)])
        tiles, hazards = self._buffers[queue], self._hazards
        addresses = numbers(step.instances, ring)
        element_type = self._bindings[box.slot].dtype
        legal = element_type in TCORE_TYPES[str(form)]

        def load(event: Event, iteration: int) -> None:
            if not legal:
                hazards.fault(event, f"loads {element_type} as {form}", "types of the format")
            start = addresses[iteration]
            end = start + num_bytes
            for address, other in tiles.items():
                if address < end and start < other.end and address != start:
                    hazards.displace(other, event, f"the tile at {address}")
                    other.valid = False
            tile = tiles.setdefault(start, _Tile())
            hazards.write(tile, event, f"the tile at {start}")
            tile.end, tile.wide, tile.depth, tile.form, tile.valid = end, wide, depth, str(form), True

        return load

    def _multiply(self, step: Step) -> Action:
        a, b, form, first = (step.place.operand(name) for name in ("a", "b", "format", "first"))
        if not isinstance(a, RingAddress) or not isinstance(b, RingAddress) or not isinstance(first, int):
            raise TypeError(step.place.name())
        m, n, k = product_extents(step.place)
        rows = _rows_taken(step, m)
        sides = (
            (LOAD_A, "A", numbers(step.instances, a), rows),
            (LOAD_B, "B", numbers(step.instances, b), [n] * len(rows)),
        )
        starts = step.instances.where(first).tolist()
        accumulator, hazards = self._accumulator, self._hazards

        def multiply(event: Event, iteration: int) -> None:
            for queue, side, addresses, wide in sides:
                self._read_tile(event, queue, side, addresses[iteration], wide[iteration], k, str(form))
            if not starts[iteration]:
                hazards.read(accumulator, event, "the accumulator")
                if (m, n) != (accumulator.rows, accumulator.columns):
                    held = f"{accumulator.rows} x {accumulator.columns}"
                    hazards.fault(event, f"adds {m} x {n} to an accumulator of {held}", "one shape a sum")
            elif not accumulator.drained:
                what = "starts a sum before the last one was drained"
                hazards.fault(event, what, "every sum is drained")
            hazards.write(accumulator, event, "the accumulator")
            accumulator.rows, accumulator.columns, accumulator.drained = m, n, False

        return multiply

    def _read_tile(self, event: Event, queue: int, side: str, address: int, wide: int, depth: int, form: str) -> None:
        tile = self._buffers[queue].get(address)
        if tile is None or not tile.valid:
            what = f"reads the {side} tile at {address}, where no tile begins"
            self._hazards.fault(event, what, "loaded before it is read")
            return
        self._hazards.read(tile, event, f"the {side} tile at {address}")
        if wide > tile.wide or depth > tile.depth or form != tile.form:
            what = f"uses {wide} x {depth} {form} of the {side} tile at {address}"
            self._hazards.fault(event, what, f"{LIMIT_TILE}: {tile.wide} x {tile.depth} {tile.form}")

    # Registers and accumulator as the vector programs see them.

    def _vector(self, step: Step) -> Action:
        """Reads of registers, the instruction's own rule for the result, the write."""
        instruction = step.place.instruction
        fields = [field.name for field in step.place.row.fields]
        named = dict(zip(fields, instruction.operands, strict=True))
        sources = [
            (numbers(step.instances, value.number) if isinstance(value, Register) else value)
            for name, value in named.items()
            if name != "dst" and isinstance(value, Register | int | float) and name in step.place.row.reads
        ]
        destination = named["dst"]
        targets = numbers(step.instances, destination.number) if isinstance(destination, Register) else None
        first = named.get("first")
        starts = step.instances.where(first).tolist() if isinstance(first, int) else None
        rule = self._rule(step)
        keeps = starts if instruction.mnemonic in FOLDS or instruction.mnemonic == "vacc" else None

        def execute(event: Event, iteration: int) -> None:
            contents: list[Content | float | None] = []
            for source in sources:
                contents.append(self._read(event, source[iteration]) if isinstance(source, list) else source)
            begins = keeps is None or keeps[iteration]
            if targets is not None and not begins:
                contents.insert(0, self._read(event, targets[iteration]))
            if instruction.mnemonic == "vacc":
                self._hazards.read(self._accumulator, event, "the accumulator")
                self._accumulator.drained = True
            result = self._result(event, rule, begins, tuple(contents))
            if targets is not None:
                register = self._registers[targets[iteration]]
                self._hazards.write(register, event, f"register {targets[iteration]}")
                register.content = result

        return execute

    def _read(self, event: Event, number: int) -> Content | None:
        register = self._registers[number]
        self._hazards.read(register, event, f"register {number}")
        if register.writer is not None and register.writer.queue != event.queue:
            what = f"reads register {number}, last written by {queue_name(register.writer.queue)}"
            self._hazards.fault(event, what, "a register is read by the program that wrote it")
        return register.content

    def _result(
        self,
        event: Event,
        rule: Callable[[bool, tuple[Content | float, ...]], Content | None],
        begins: bool,
        contents: tuple[Content | float | None, ...],
    ) -> Content | None:
        """The content of the destination; None where a source is unknown because of an earlier finding."""
        known = tuple(content for content in contents if content is not None)
        if len(known) < len(contents):
            return None
        place = event.step.place
        key = (place.index, (begins, known, self._accumulator.rows, self._accumulator.columns))
        if key in self._results:
            return self._results[key]
        try:
            result = rule(begins, known)
            if result is not None:
                check_size(result, self._machine.vector_tile_elements)
                self._results[key] = result
            return result
        except ContentError as error:
            self._hazards.fault(event, str(error), LIMIT_CONTENT)
            return None

    def _rule(self, step: Step) -> Callable[[bool, tuple[Content | float, ...]], Content | None]:
        """What the instruction makes of the contents of its sources."""
        instruction = step.place.instruction
        mnemonic, operands = instruction.mnemonic, instruction.operands
        box = next((value for value in operands if isinstance(value, Box)), None)
        if mnemonic == "vacc":
            return lambda begins, contents: self._drained(operands[1], begins, contents)
        if mnemonic == "vmovi":
            return lambda begins, contents: _filled(operands[2])
        if mnemonic in REDUCTIONS:
            return lambda begins, contents: _reduced(contents[0], operands[2])
        if mnemonic in FOLDS:
            return _folded
        if box is None:
            return lambda begins, contents: computed(instruction, contents)
        element_type = self._bindings[box.slot].dtype
        if mnemonic == "vld":
            return lambda begins, contents: loaded(box, element_type)
        if mnemonic == "vldx":
            return lambda begins, contents: _indexed(box, operands[3], element_type, contents[0])
        return lambda begins, contents: check_store(box, element_type, contents[0])

    def _drained(self, shape: object, begins: bool, contents: tuple[Content | float, ...]) -> Content:
        if not isinstance(shape, tuple):
            raise TypeError(shape)
        rows, columns = self._accumulator.rows, self._accumulator.columns
        if math.prod(shape) != rows * columns:
            raise ContentError(f"drains {shape} of an accumulator of {rows} x {columns}")
        if not begins and contents[0] != Content(shape, integer=False):
            raise ContentError(f"adds {shape} of FP32 to {contents[0]}")
        return Content(shape, integer=False)


def _rows_taken(step: Step, rows: int) -> list[int]:
    """How many rows of its A tile a product reaches in every iteration; for a window, its last pixel counts."""
    window = next((value for value in step.place.instruction.operands if isinstance(value, Window)), None)
    if window is None:
        return [rows] * len(step.queue)
    top, left = numbers(step.instances, window.top), numbers(step.instances, window.left)
    last = window.rows - 1
    return [(y + last) * window.pitch + x + window.columns for y, x in zip(top, left, strict=True)]


def _filled(shape: object) -> Content:
    if not isinstance(shape, tuple):
        raise TypeError(shape)
    return Content(shape, integer=False)


def _reduced(source: Content | float, axes: object) -> Content:
    if not isinstance(source, Content) or not isinstance(axes, int):
        raise ContentError("reduces an immediate")
    return reduced(source, axes)


def _folded(begins: bool, contents: tuple[Content | float, ...]) -> Content:
    if begins:
        return folded(None, contents[0], first=True)
    old = contents[0]
    return folded(old if isinstance(old, Content) else None, contents[1], first=False)


def _indexed(box: Box, axis: object, element_type: str, index: Content | float) -> Content:
    if not isinstance(axis, int) or not isinstance(index, Content):
        raise ContentError("an index that is no register")
    return indexed(box, axis, element_type, index)
