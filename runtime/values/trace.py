"""Raises a kernel: walks its nests once, loops as whole indices, and notes an operation an instruction.

A loop is walked once with an index in place of its variable, or, if it is stepped, once an iteration with a
constant. What an instruction reads is found by the places that others wrote before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from birc.runtime.program import Affine, Descriptor, RingAddress
from birc.runtime.values.form import (
    Coordinate,
    LoopVariable,
    Operation,
    Product,
    Tile,
    Value,
    substitute,
)
from birc.runtime.values.index_space import CannotRaiseError, IndexSpace
from birc.runtime.values.limits import Limits
from birc.runtime.values.locations import (
    Place,
    Read,
    Write,
    find_writer,
    overlaps_over,
    place_of,
    ring_place,
)
from birc.runtime.values.nest import Leaf, Node, spc_extents

# A form of more operations than this is not raised: stepping its loops costs more than executing them.
_MOST_OPERATIONS: Final = 20_000


Visit = Callable[["Trace", Leaf], None]


class Trace:
    """The walk: where it stands, what was written where, and the operations so far."""

    def __init__(self, descriptors: Mapping[int, Descriptor], stepped: frozenset[int], visit: Visit) -> None:
        self.descriptors = descriptors
        self.space = IndexSpace()
        self.operations: list[Operation] = []
        self.limits = Limits(self.space)
        self.variables: tuple[LoopVariable, ...] = ()
        self.spc_number = Coordinate(0, ())
        self.reductions: set[int] = set()
        self.index_elements: dict[int, int] = {}  # rows an indexed load takes, by instruction
        self.time = 0
        self._stepped = stepped
        self._visit_instruction = visit
        self._loops: dict[int, int] = {}  # the static loop of each loop index
        self._products: list[tuple[Product, frozenset[int], int]] = []
        self._extents: dict[int, int] = {}
        self._writes: dict[str, list[Write]] = {"register": [], "a": [], "b": []}
        self._reads: dict[str, list[Read]] = {"register": [], "a": [], "b": []}
        self._sums: list[tuple[Place, Leaf, int, frozenset[int]]] = []
        self._paths: set[tuple[int, ...]] = set()

    @property
    def loops(self) -> tuple[int, ...]:
        """The loop indices around, outermost first."""
        return tuple(variable.index for variable in self.variables if variable.index is not None)

    def walk(self, nests: Sequence[Node | Leaf]) -> None:
        """Walk all nests of a kernel."""
        for nest in nests:
            spc_loops = spc_extents(nest)
            self._walk(nest, spc_loops)
        for path in self._paths:
            leaves = [leaf for index in path for leaf in self.space.leaves(index)]
            if len(set(leaves)) != len(leaves):
                raise CannotRaiseError("two loops around an instruction became one index")

    def _walk(self, item: Node | Leaf, spc_loops: tuple[int, ...]) -> None:
        if isinstance(item, Leaf):
            self._visit(item)
            return
        trips = self._trip_count(item)
        if item.number in self._stepped or trips <= 1:
            for step in range(trips):
                self._enter(item, LoopVariable(item.number, None, step, trips), spc_loops)
            return
        index = self.space.new(trips)
        self._extents[index] = trips
        if item.loop.kind == "red":
            self.reductions.add(index)
        self._loops[index] = item.number
        self.limits.enter(index, item, self.variables)
        begin, outside = self.time, frozenset(self.loops)
        self._enter(item, LoopVariable(item.number, index, 0, trips), spc_loops)
        self._check_carried(index, begin, outside)

    def _enter(self, node: Node, variable: LoopVariable, spc_loops: tuple[int, ...]) -> None:
        outer_number = self.spc_number
        self.variables = (*self.variables, variable)
        if node.depth < len(spc_loops):
            factor = 1
            for extent in spc_loops[node.depth + 1 :]:
                factor *= extent
            own = substitute(Affine(0, ((node.depth, factor),)), self.variables)
            self.spc_number = Coordinate(outer_number.constant + own.constant, outer_number.terms + own.terms)
        for child in node.body:
            self._walk(child, spc_loops)
        self.variables = self.variables[:-1]
        self.spc_number = outer_number

    def _trip_count(self, node: Node) -> int:
        """The iterations of a loop; its whole extent if `limits` says what the shorter ones may skip."""
        limit = node.loop.limit
        if limit is None:
            return node.loop.extent
        bound = substitute(limit, self.variables)
        low = self.lowest(bound)
        if low >= node.loop.extent:
            return node.loop.extent
        if not bound.terms:
            return max(0, low)
        if node.loop.extent == 1:
            outer = next(v.loop for v in self.variables if v.index == bound.terms[0][0])
            raise CannotRaiseError("a loop is left out in some iterations", outer, ordinary=True)
        return node.loop.extent

    def lowest(self, coordinate: Coordinate) -> int:
        """The least value over all iterations."""
        reach = (factor * (self._extents[index] - 1) for index, factor in coordinate.terms)
        return coordinate.constant + sum(min(0, distance) for distance in reach)

    def highest(self, coordinate: Coordinate) -> int:
        """The greatest value over all iterations."""
        reach = (factor * (self._extents[index] - 1) for index, factor in coordinate.terms)
        return coordinate.constant + sum(max(0, distance) for distance in reach)

    def _visit(self, leaf: Leaf) -> None:
        self._paths.add(self.loops)
        self._visit_instruction(self, leaf)
        self.time += 1
        if len(self.operations) > _MOST_OPERATIONS:
            raise CannotRaiseError("too many operations")

    def _check_carried(self, index: int, begin: int, outside: frozenset[int]) -> None:
        """Refuse what a later iteration of the loop would have left, read where an earlier write was taken."""
        for place, leaf, time, over in self._sums:
            if index in over and time >= begin:
                self._check_sum_kept(place, leaf, begin, index, outside)
        for kind, reads in self._reads.items():
            early = [read for read in reads if read.time >= begin and read.writer.time < begin]
            later = [write for write in self._writes[kind] if write.time >= begin]
            for read in early:
                for write in later:
                    if write.time >= read.time and overlaps_over(write.place, read.place, index, outside):
                        loop = self._loops[index]
                        raise CannotRaiseError("an iteration reads what the one before left", loop)

    def _check_sum_kept(self, place: Place, leaf: Leaf, begin: int, index: int, outside: frozenset[int]) -> None:
        """Refuse a sum over a loop in which another instruction writes the register of the sum."""
        for write in self._writes["register"]:
            other = write.time >= begin and write.instruction != leaf.number
            if other and overlaps_over(write.place, place, index, outside):
                raise CannotRaiseError("a sum is overwritten", self._loops[index])

    # Reading and writing places, for the instructions.

    def emit(self, operation: Operation) -> None:
        """Append an operation."""
        self.operations.append(operation)

    def register(self, number: Affine) -> Place:
        return place_of(substitute(number, self.variables), self.variables, self._extents)

    def ring(self, address: RingAddress) -> Place:
        return ring_place(address, self.variables, self._extents)

    def write(self, kind: str, place: Place, content: Value | Tile, leaf: Leaf, pending: Sequence[int] = ()) -> None:
        """Note that an instruction wrote a place; `pending` are the loops that it sums over."""
        if pending:
            self._sums.append((place, leaf, self.time, frozenset(pending)))
        self._writes[kind].append(Write(place, content, leaf.number, self.time, frozenset(pending)))

    def read(self, kind: str, place: Place, leaf: Leaf) -> tuple[Value | Tile, tuple[int, ...]]:
        """What a place holds, and the loops around the reader that it varies with."""
        write, pairs = find_writer(self._writes[kind], place, leaf.number)
        self._reads[kind].append(Read(place, self.time, write))
        self.limits.check_pairs(pairs)
        names = dict(pairs)
        for written, wanted in pairs:
            self.space.unite((written,), (wanted,))
        return write.content, tuple(names.get(index, index) for index in write.content.loops)

    def renamed(self, value: Value, loops: tuple[int, ...]) -> Value:
        """The value as it looks where its loops have other names."""
        return Value(loops, value.axes, value.integer, value.array)

    def accumulate(self, product: Product, leaf: Leaf, *, begins: bool, over: Sequence[int]) -> None:
        """Add a product, summed over loops, to the accumulator."""
        if begins:
            self._products.clear()
        elif not self._products:
            raise CannotRaiseError("adds to an accumulator that holds nothing")
        self._check_complete(leaf)
        self._products.append((product, frozenset(over), leaf.number))

    def accumulated(self, leaf: Leaf) -> tuple[Product, ...]:
        """The products in the accumulator. Raises `CannotRaiseError` where iterations see different sums."""
        if not self._products:
            raise CannotRaiseError("drains an accumulator that holds nothing")
        self._check_complete(leaf)
        return tuple(product for product, _, _ in self._products)

    def _check_complete(self, leaf: Leaf) -> None:
        for product, pending, writer in self._products:
            inside = next((index for index in self.loops if index in pending), None)
            if inside is not None and writer != leaf.number:
                raise CannotRaiseError("reads a sum before it is complete", self.loop_of(inside))
            lost = next((index for index in product.loops if index not in self.loops), None)
            if lost is not None:
                raise CannotRaiseError("a loop leaves only its last tile in the accumulator", self._loops[lost])

    def first(self, mask: int) -> tuple[bool, tuple[int, ...]]:
        """Whether all stepped loops of the mask are in their first iteration, and the indices of the others."""
        masked = [variable for depth, variable in enumerate(self.variables) if mask >> depth & 1]
        indices = tuple(variable.index for variable in masked if variable.index is not None)
        return all(variable.step == 0 for variable in masked if variable.index is None), indices

    def check_steps(self, over: Sequence[int], mask: int, number: Affine) -> None:
        """Refuse a sum over loops around a stepped one that adds to the same place again and again.

        `number` is the place that the sum is kept in, as an instruction names it.
        """
        if not over:
            return
        start = next(d for d, variable in enumerate(self.variables) if variable.index in over)
        for depth in range(start, len(self.variables)):
            variable = self.variables[depth]
            again = variable.index is None and variable.trips > 1 and not mask >> depth & 1
            if again and not number.coefficient(depth):
                raise CannotRaiseError("a sum goes on in another loop", self.variables[start].loop)

    def loop_of(self, index: int) -> int:
        """The static loop of an index around."""
        return next(variable.loop for variable in self.variables if variable.index == index)
