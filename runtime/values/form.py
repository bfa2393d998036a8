"""The raised form of a kernel: a list of operations on whole arrays.

A value is a register, an input tile or an accumulator for all iterations at once: an array over the indices that
it varies with. Operations read and write values in the program's order; `trace` builds them, later steps choose
axes, blocks and buffers.
"""

from __future__ import annotations

from dataclasses import dataclass

from birc.runtime.program import Affine

Terms = tuple[tuple[int, int], ...]  # (index, coefficient)


@dataclass(frozen=True, slots=True)
class Coordinate:
    """One coordinate of an access: `constant + sum(coefficient * index)`."""

    constant: int
    terms: Terms


@dataclass(frozen=True, slots=True)
class Access:
    """The elements of a bound tensor that an operation touches: a coordinate for each of its dimensions.

    The last coordinate of a tensor in the tensor buffers is the number of the SPC.
    """

    slot: int
    coordinates: tuple[Coordinate, ...]
    fill: str


@dataclass(slots=True, eq=False)
class Value:
    """What an instruction writes in all iterations.

    `axes` are the indices of the register's shape (None for extent 1), `loops` those of the loops around that
    it varies with. `integer` tells INT32 from FP32 lanes. A value read in other loops than it was written in
    is the array of `base` under other names.
    """

    loops: tuple[int, ...]
    axes: tuple[int | None, ...]
    integer: bool = False
    base: Value | None = None

    @property
    def array(self) -> Value:
        """The value that stands for the array."""
        return self if self.base is None else self.base


@dataclass(slots=True, eq=False)
class Tile:
    """A tile in an input buffer: how its elements are loaded, its width (rows or columns) and depth indices.

    `time` counts the operations before the load.
    """

    loops: tuple[int, ...]
    access: Access
    width: tuple[int, ...]
    depth: tuple[int, ...]
    format: str
    time: int


Source = Value | float


@dataclass(slots=True)
class Load:
    """Load a box, or with `index` the rows that it names on the coordinate `axis`."""

    result: Value
    access: Access
    index: Value | None = None
    axis: int = 0
    count: int = 0


@dataclass(slots=True)
class Store:
    """Store a source to a box."""

    access: Access
    source: Source


@dataclass(slots=True)
class Fill:
    """A constant."""

    result: Value
    constant: float


@dataclass(slots=True)
class Compute:
    """An elementwise instruction."""

    mnemonic: str
    result: Value
    sources: tuple[Source, ...]


@dataclass(slots=True)
class Reduce:
    """Reduce over indices with one of the functions of `alu.REDUCTIONS`."""

    mnemonic: str
    result: Value
    source: Source
    over: tuple[int, ...]


@dataclass(slots=True)
class Product:
    """A matrix product of two tiles, summed over the indices `over`."""

    a: Tile
    b: Tile
    over: tuple[int, ...]
    loops: tuple[int, ...]  # what is not summed


@dataclass(slots=True)
class Contract:
    """The sum of products, drained into a register."""

    result: Value
    products: tuple[Product, ...]


Operation = Load | Store | Fill | Compute | Reduce | Contract


@dataclass(frozen=True, slots=True)
class LoopVariable:
    """A loop around an instruction: an array index, or stepped and at the iteration `step` of `trips`."""

    loop: int  # number of the static loop
    index: int | None
    step: int
    trips: int


def substitute(affine: Affine, variables: tuple[LoopVariable, ...]) -> Coordinate:
    """An affine number in which stepped loops are constants."""
    constant = affine.constant
    terms = []
    for depth, coefficient in affine.terms:
        variable = variables[depth]
        if variable.index is None:
            constant += coefficient * variable.step
        else:
            terms.append((variable.index, coefficient))
    return Coordinate(constant, tuple(terms))
