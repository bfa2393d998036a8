"""Loads of a contraction's operands: of whole blocks, of rows that are streamed, of what has to be there first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from birc.codegen.columns import Place
from birc.codegen.nest import NestBuilder, mask
from birc.codegen.operand_ring import Operand, Rounds, Steps, ring_address, running_address
from birc.codegen.slots import Slots
from birc.compiler.ir.plan import Access, Dimension, Tiling
from birc.compiler.ir.plan_panels import panel_span
from birc.compiler.ir.plan_verify_tiling import may_pass_columns
from birc.compiler.ir.tile_order import OPENING, OVERLAPPING
from birc.runtime.program import Affine, Box, Instruction, RingAddress, Sync, affine

MOST_ROWS_AHEAD = 4
"""With slots for so many rows there is no point in holding some of them back."""


@dataclass(frozen=True, slots=True)
class RowsPart:
    """The rows of a block that are written together: `count` of them from `first` on, counted from the end if `back`.

    The tiles of a block begin with those of the part that `opens` and end with those of the one that `closes` it. `at`
    is the number of the load of its first row among all loads of rows; None where blocks come one after the other. Its
    tiles wait for their rows unless these were used before, and give their slots back unless they are used again (with
    `until`: in the last iteration of that loop only).
    """

    first: int
    count: int
    opens: bool
    closes: bool
    back: bool = False
    at: Affine | None = None
    waits: bool = True
    frees: bool = True
    until: int | None = None


@dataclass(slots=True)
class OperandLoads:
    """Writes the loads of operands; the boxes of `a` have the `reach` of taps. Of several `panels` of `a` each load
    brings the one in which it stands.

    `rounds` is set in chunks of the depth of which the last is written apart, `part` in rows written apart.
    """

    a: Operand
    b: Operand
    tiling: Tiling
    tile: Mapping[str, int]
    nest: NestBuilder
    slots: Slots
    format: str
    reach: Mapping[str, int]
    panels: tuple[Access, ...] = ()
    rounds: Rounds | None = None
    part: RowsPart | None = None

    @property
    def edges(self) -> tuple[bool, bool]:
        """Whether the first and the last rows of the block are among those that are written now."""
        return self.part is None or self.part.opens, self.part is None or self.part.closes

    def steps(self, dimension: Dimension) -> int:
        """How many tiles there are along a dimension."""
        return -(-dimension.extent // self.tile[dimension.name])

    def depth_loops(self, loops: ExitStack, dimensions: Sequence[Dimension]) -> Steps:
        """Open the loops over the steps of reduced dimensions."""
        return {
            d.name: loops.enter_context(self.nest.loop(self.steps(d), self.tile[d.name], d.name, kind="red"))
            for d in dimensions
        }

    def block(self, operand: Operand) -> None:
        """Load a block's tiles of one operand, for the depth that is resident."""
        if self.tiling.stream and operand is self.a:
            return
        operand.scope = self.nest.inner_depths()
        if self.passes_columns and operand is self.b:
            return
        with ExitStack() as loops:
            extent = self.tile.get(operand.dimension, 1)
            tile = loops.enter_context(self.nest.loop(operand.count, extent, operand.dimension))
            self.load(operand, {tile: 1}, self.depth_loops(loops, operand.resident))

    @property
    def passes_columns(self) -> bool:
        """Whether tiles of columns are loaded one by one as the T-core takes them: there are not slots for a row."""
        tiles = self.b.count * math.prod(self.steps(d) for d in self.b.resident)
        return may_pass_columns(self.tiling) and self.b.slots < tiles

    def column(self, tile: Place, first: int) -> None:
        """Load a tile of columns, which `tile` numbers in its row from the `first` on, if they pass."""
        if self.passes_columns:
            with ExitStack() as loops:
                self.write(self.b, self.ring(self.b, tile, self.depth_loops(loops, self.b.resident), first))

    def row(self) -> None:
        """Load the current row tile of a streamed operand, for the depth that is resident."""
        self.a.scope = self.nest.inner_depths()
        self.rows(None)

    def rows(self, row: int | None) -> None:
        """Load the row tile of a streamed operand that the loop at depth `row` has come to."""
        with ExitStack() as loops:
            self.load(self.a, {row: 1}, self.depth_loops(loops, self.a.resident))

    def load(self, operand: Operand, tile: Mapping[int | None, int], steps: Steps) -> None:
        """Load the current tile of one operand, which `tile` numbers in its block."""
        more: tuple[Sync, ...] = ()
        if self._comes_first(operand):
            around = [depth for depth in self.nest.inner_depths() if depth not in steps.values()]
            more = (Sync(Affine(operand.free), first=mask([*around])),)
        self.write(operand, self.ring(operand, tile, steps), more)

    def write(self, operand: Operand, address: RingAddress, more: tuple[Sync, ...] = ()) -> None:
        """The load of the current tile of one operand to an address; it waits for a slot, and for `more`."""
        waits = (Sync(Affine(operand.free)), *more)
        for box, conditions in self._boxes(operand):
            with ExitStack() as loops:
                for number in conditions:
                    loops.enter_context(self.nest.where(number))
                operands = (address, box, operand.split, self.format)
                self.nest.append(Instruction(operand.mnemonic, operands, waits, (Sync(Affine(operand.full)),)))

    def _boxes(self, operand: Operand) -> Iterator[tuple[Box, list[Affine]]]:
        """What a load brings: a box, or one of those of several panels, each where some numbers are positive."""
        is_a = operand is self.a
        if not is_a or not self.panels:
            reach = self.reach if is_a else {}
            yield self.nest.box(self.slots.number(operand.access.view), operand.access, self.tile, reach), []
            return
        begins = [panel_span(panel)[0] for panel in self.panels]
        for panel, begin, end in zip(self.panels, begins, [*begins[1:], math.inf], strict=True):
            box = self.nest.box(self.slots.number(panel.view), panel, self.tile, {})
            depth = box.axes[-1].start  # from where the panel begins
            numbers = [depth + 1] if begin else []
            numbers += [depth * -1 + int(end - begin)] if end < math.inf else []
            if all(number.terms or number.constant > 0 for number in numbers):
                yield box, [number for number in numbers if number.terms]

    def given_back(self, operand: Operand, around: Sequence[int], others: Mapping[int | None, int]) -> tuple[Sync, ...]:
        """The second slot of a tile of an operand that comes first, when the last of its products is there.

        `around` are the loops around the product, `others` those over the tiles of the other operand in the block.
        """
        if not self._comes_first(operand):
            return ()
        first = [depth for depth in around if depth not in others]
        return (Sync(Affine(operand.free), first=mask([*first]), last=mask([*others])),)

    def _comes_first(self, operand: Operand) -> bool:
        """Whether loads of an operand's first row (or column) take two slots each.

        It is the operand that goes past several tiles of the other. With a slot for each load its queue would load
        the second row while the T-core still waits for the other tiles of the first, unless these are there already.
        """
        tiling, is_a = self.tiling, operand is self.a
        goes_past = self.b.count > 1 and (tiling.stream or (tiling.hoist == "b" and self.a.count == 1))
        if not is_a:
            goes_past = tiling.hoist == "a" and self.b.count == 1 and self.a.count > 1
        goes_past = goes_past and not (tiling.order in (OVERLAPPING, OPENING) or tiling.eager)
        is_first = (self.part is None or self.part.opens) and (self.rounds is None or self.rounds.number.constant == 0)
        tiles = math.prod(self.steps(d) for d in operand.resident)
        return goes_past and is_first and 2 * tiles <= operand.slots < MOST_ROWS_AHEAD * tiles

    def ring(self, operand: Operand, tile: Mapping[int | None, int], steps: Steps, first: int = 0) -> RingAddress:
        """Where a tile lies in its input buffer.

        `tile` numbers it in its block by the depths of loops, which begin at the `first` one.
        """
        inside = [(steps[d.name], self.steps(d)) for d in operand.resident]
        if operand is self.a and self.part is not None and self.part.at is not None:
            (row,) = tile
            number = self.part.at + affine(0, {} if row is None else {row: 1})
            return running_address(operand, number, inside)
        if operand is self.a and self.part is not None:
            rounds = None if self.tiling.hoist == "a" else self.rounds  # What stays is loaded before all rounds.
            return ring_address(operand, self.nest, tile, inside, rounds, self.part.first)
        if operand is self.a and self.tiling.stream:  # the scope of what is streamed is a row tile
            return ring_address(operand, self.nest, None, inside, self.rounds)
        return ring_address(operand, self.nest, tile, inside, self.rounds, first)
