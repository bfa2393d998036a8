"""Turns a part with its axes into steps that compute one block, and decides what the blocks are.

Values get numbers, buffers are shared by values that are not alive together, results overwrite operands that nobody
needs any more, and the last operation before a store writes to memory itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from birc.runtime.alu import FLOAT_RESULT
from birc.runtime.conversion import FLOAT, INT, register_type
from birc.runtime.program import Descriptor
from birc.runtime.values.axes import Part, Reach, accesses, sources
from birc.runtime.values.blocks import Blocking, Sides, Work, block_lengths, cut
from birc.runtime.values.boxes import BoxView, is_plain
from birc.runtime.values.contraction import Contracting, Packing
from birc.runtime.values.form import (
    Access,
    Compute,
    Contract,
    Fill,
    Load,
    Operation,
    Reduce,
    Source,
    Store,
    Value,
)
from birc.runtime.values.frame import Region
from birc.runtime.values.products import ProductPlanner
from birc.runtime.values.trace_instructions import computes_in_integers
from birc.runtime.values.vector import (
    Computing,
    Filling,
    Gathering,
    Loading,
    Operand,
    Output,
    Reducing,
    Step,
    Storing,
    constant_operand,
    function_of,
    reduction_of,
    stored_constant,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the schedule of a part depends on beside the part itself.

    `overlaps` are pairs (slot loaded, slot stored) whose memory overlaps, `constants` slots whose memory never
    changes; `product_threads` may compute products
    at the same time, `threads` anything else.
    """

    descriptors: Mapping[int, Descriptor]
    spc_bytes: int
    overlaps: frozenset[tuple[int, int]]
    constants: frozenset[int]
    threads: int
    product_threads: int
    blocking: Blocking


@dataclass(frozen=True, slots=True)
class PartPlan:
    """A part ready to be executed: the steps of a block, the blocks, and operands packed before them."""

    steps: tuple[Step, ...]
    shared: tuple[Packing, ...]
    whole: Region
    blocks: tuple[Region, ...]
    num_values: int
    threads: int
    constants: frozenset[int]
    cost: float  # in multiply-adds


def schedule(part: Part, setting: Setting) -> PartPlan:
    """The plan of a part."""
    return _Scheduler(part, setting).plan()


class _Scheduler:
    def __init__(self, part: Part, setting: Setting) -> None:
        self.part = part
        self.setting = setting
        self.constants = setting.constants
        self.order = part.order
        self.places = part.places
        self.rank = max(part.places, default=-1) + 1
        self.whole: Region = tuple(part.ranges[axis] for axis in part.order)
        self.producers = {id(op.result): op for op in part.operations if not isinstance(op, Store)}
        self.numbers: dict[int, int] = {}
        self.last_use: dict[int, int] = {}
        self.buffers: dict[int, int] = {}  # of values alive, by id
        self.free: list[int] = []
        self.num_buffers = 0
        self.steps: list[Step] = []
        self.sinks = self._find_sinks()
        self.conflict = self._has_conflict()

    def plan(self) -> PartPlan:
        """Everything, in the order of the operations."""
        setting = self.setting
        for at, operation in enumerate(self.part.operations):
            for value in sources(operation):
                self.last_use[id(value)] = at
        work = self._work()
        threads = setting.product_threads if work.macs else setting.threads
        lengths = {}
        if not self.conflict:
            lengths = block_lengths(self.whole, self._sides(), work, threads, setting.blocking)
        products = ProductPlanner(self.part, self, lengths)
        dropped = {id(store) for store in self.sinks.values()}
        for at, operation in enumerate(self.part.operations):
            if id(operation) not in dropped:
                self.steps.append(self._step(operation, at, products))
            self._release(operation, at)
        blocks = tuple(cut(self.whole, lengths))
        return PartPlan(
            tuple(self.steps),
            tuple(products.shared),
            self.whole,
            blocks,
            len(self.numbers),
            threads,
            self.constants,
            work.cost,
        )

    # What the part looks like.

    def positions(self, axes: set[int]) -> frozenset[int]:
        """The positions of axes in the order."""
        return frozenset(position for position, axis in enumerate(self.order) if axis in axes)

    def placed(self, axes: set[int]) -> tuple[tuple[int, int], ...]:
        """The positions of axes, each with the dimension of the arrays that it is."""
        return tuple((position, self.places[position]) for position in sorted(self.positions(axes)))

    def box(self, access: Access) -> BoxView:
        """The view of an access."""
        reach = self.part.reach(access)
        descriptor = self.setting.descriptors[access.slot]
        return BoxView(reach, descriptor, self.order, self.places, self.whole, self.setting.spc_bytes)

    def length(self, positions: frozenset[int]) -> int:
        """Elements of an array over these axes."""
        return prod(self.whole[position][1] - self.whole[position][0] for position in positions)

    def _work(self) -> Work:
        largest, macs, elements = 0, 0, 0
        for operation in self.part.operations:
            if isinstance(operation, Store):
                axes = self.part.reach(operation.access).axes
            elif isinstance(operation, Reduce):
                axes = self.part.axes_of(operation.result) | self.part.summed(operation)
            else:
                axes = self.part.axes_of(operation.result)
            count = self.length(self.positions(axes))
            if not isinstance(operation, Load):
                elements += count
            largest = max(largest, count)
            if isinstance(operation, Contract):
                for product in operation.products:
                    tiles = (product.a, product.b)
                    a, b = (self.part.axes_of_tile(tile) for tile in tiles)
                    macs += self.length(self.positions(a | b | self.part.summed(product)))
                    packed = [
                        self.length(self.positions(axes))
                        for tile, axes in zip(tiles, (a, b), strict=True)
                        if tile.access.slot not in self.constants
                    ]
                    largest = max(largest, *packed) if packed else largest
        return Work(4 * largest, macs, elements)

    def _sides(self) -> Sides:
        """The axes that may be cut: in every store, and summed over nowhere."""
        axes = set(self.order)
        for operation in self.part.operations:
            match operation:
                case Store():
                    axes &= self.part.reach(operation.access).axes
                case Reduce():
                    axes -= self.part.summed(operation)
                case Contract():
                    axes = axes.difference(*map(self.part.summed, operation.products))
        batch, rows, columns = set(axes), set(), set()
        for operation in self.part.operations:
            if isinstance(operation, Contract):
                for product in operation.products:
                    a, b = (self.part.axes_of_tile(tile) for tile in (product.a, product.b))
                    batch &= a & b
                    rows |= a - b
                    columns |= b - a
        rows &= axes - batch
        columns &= axes - batch - rows
        return Sides(*(tuple(sorted(self.positions(side))) for side in (batch, rows, columns)))

    def _has_conflict(self) -> bool:
        """Whether the part loads what it stores elsewhere: then its operations are done one after the other."""
        stores = [op.access for op in self.part.operations if isinstance(op, Store)]
        loads = [a for op in self.part.operations if not isinstance(op, Store) for a in accesses(op)]
        return any(
            (load.slot, store.slot) in self.setting.overlaps and not self._same(load, store)
            for load in loads
            for store in stores
        )

    def _same(self, load: Access, store: Access) -> bool:
        """Whether a load and a store of a slot touch the same elements in the same iterations."""
        one, other = self.part.reach(load), self.part.reach(store)
        return (one.slot, one.constants, one.factors) == (other.slot, other.constants, other.factors)

    def _is_overwritten(self, access: Access) -> bool:
        return any(
            isinstance(op, Store) and (access.slot, op.access.slot) in self.setting.overlaps
            for op in self.part.operations
        )

    def _find_sinks(self) -> dict[int, Store]:
        """Operations whose result only the next store takes, as it is: by id of the operation."""
        operations = self.part.operations
        uses: dict[int, int] = {}
        for operation in operations:
            for value in sources(operation):
                uses[id(value)] = uses.get(id(value), 0) + 1
        found: dict[int, Store] = {}
        for operation, following in pairwise(operations):
            if not isinstance(operation, Compute) or not isinstance(following, Store):
                continue
            if uses.get(id(operation.result)) == 1 and operation.result in sources(following):
                name = self.setting.descriptors[following.access.slot].dtype
                same_type = is_plain(name) and register_type(name) == _type(operation.result)
                reach: Reach = self.part.reach(following.access)
                if same_type and reach.axes == self.part.axes_of(operation.result):
                    found[id(operation)] = following
        return found

    # Numbers and buffers.

    def number(self, value: Value) -> int:
        return self.numbers.setdefault(id(value.array), len(self.numbers))

    def new_buffer(self) -> int:
        """A buffer that no value alive uses."""
        if self.free:
            return self.free.pop()
        self.num_buffers += 1
        return self.num_buffers - 1

    def output(self, value: Value, reuse: int | None = None, buffer: int | None = None) -> Output:
        """Where a value goes: into `buffer`, or a new one."""
        axes = self.placed(self.part.axes_of(value))
        taken = self.new_buffer() if buffer is None else buffer
        self.buffers[id(value)] = taken
        return Output(self.number(value), _type(value), taken, axes, self.rank, reuse)

    def _release(self, operation: Operation, at: int) -> None:
        """Give back the buffers of values that were used for the last time."""
        ended = [value for value in sources(operation) if self.last_use[id(value)] == at]
        if not isinstance(operation, Store) and id(operation.result) not in self.last_use:
            ended.append(operation.result)
        for value in ended:
            buffer = self.buffers.pop(id(value), None)
            if buffer is not None:
                self.free.append(buffer)

    def _reusable(self, result: Value, operation: Operation, at: int) -> Value | None:
        """An operand that dies here and whose array can take the result."""
        axes = self.part.axes_of(result)
        for value in sources(operation):
            alike = _type(value) == _type(result) and self.part.axes_of(value) == axes
            if alike and self.last_use[id(value)] == at and self._is_own(value):
                return value
        return None

    def _is_own(self, value: Value) -> bool:
        """Whether a value's array is its own: loads may be views of memory, constants are kept."""
        return isinstance(self.producers[id(value)], Compute | Reduce | Contract)

    # Steps.

    def _step(self, operation: Operation, at: int, products: ProductPlanner) -> Step:
        match operation:
            case Load():
                return self._load(operation)
            case Store():
                return Storing(self.box(operation.access), self._stored(operation))
            case Fill():
                constant = np.full((1,) * self.rank, operation.constant, FLOAT)
                return Filling(self.number(operation.result), constant)
            case Compute():
                return self._compute(operation, at)
            case Reduce():
                over = self.placed(self.part.summed(operation))
                operand = self._operand(operation.source, to_float=False)
                function = reduction_of(operation.mnemonic)
                return Reducing(function, operand, over, self.output(operation.result))
            case Contract():
                return self._contract(operation, products)

    def _stored(self, operation: Store) -> int | np.ndarray:
        if isinstance(operation.source, Value):
            return self.number(operation.source)
        name = self.setting.descriptors[operation.access.slot].dtype
        return stored_constant(operation.source, name)

    def _load(self, operation: Load) -> Step:
        output = self.output(operation.result)
        if operation.index is None:
            copied = self._is_overwritten(operation.access)
            return Loading(output, self.box(operation.access), copied)
        reach = self.part.reach(operation.access)
        row = -1  # no index has this number
        factors = [dict(factors) for factors in reach.factors]
        factors[operation.axis][row] = 1
        table = Reach(reach.slot, reach.fill, reach.constants, factors)
        descriptor = self.setting.descriptors[reach.slot]
        whole = (*self.whole, (0, operation.count))
        order, places = (*self.order, row), (*self.places, self.rank)
        box = BoxView(table, descriptor, order, places, whole, self.setting.spc_bytes)
        index = self.number(operation.index)
        return Gathering(output, box, index, operation.count)

    def _operand(self, source: Source, *, to_float: bool) -> Operand:
        if isinstance(source, Value):
            return Operand(self.number(source), to_float and source.integer)
        return constant_operand(source, integer=not to_float)

    def _compute(self, operation: Compute, at: int) -> Step:
        chosen = operation.sources[1:] if operation.mnemonic == "vsel" else operation.sources
        to_float = not computes_in_integers(chosen) or operation.mnemonic in FLOAT_RESULT
        operands = [self._operand(source, to_float=to_float) for source in chosen]
        if operation.mnemonic == "vsel":
            operands.insert(0, self._operand(operation.sources[0], to_float=True))
        reused = self._reusable(operation.result, operation, at)
        if reused is not None:
            buffer = self.buffers.pop(id(reused))
            output = self.output(operation.result, self.number(reused), buffer)
        else:
            output = self.output(operation.result)
        store = self.sinks.get(id(operation))
        sink = self.box(store.access) if store is not None else None
        return Computing(function_of(operation.mnemonic), tuple(operands), output, sink)

    def _contract(self, operation: Contract, products: ProductPlanner) -> Step:
        output = self.output(operation.result)
        multiplying = tuple(products.plan(product) for product in operation.products)
        extra = self.new_buffer()
        self.free.append(extra)
        for packing in (side for product in multiplying for side in (product.a, product.b)):
            if isinstance(packing, Packing):
                self.free += (packing.buffer, packing.span_buffer)
        last = max(self.positions(self.part.axes_of(operation.result)), default=-1)
        rows_last = any(last in product.rows for product in multiplying)
        return Contracting(multiplying, output, extra, rows_last, self.places)


def _type(value: Value) -> np.dtype:
    return INT if value.integer else FLOAT
