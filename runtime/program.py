"""A program as data: commands, kernels, loop nests, instructions, boxes and descriptors.

Two conventions carry the whole machine model:

* **One sequential order.** A program is one list of commands and a kernel is one list of loop nests. Read top to
  bottom, one instruction of one iteration after the other, they define every value. Each hardware queue (load A,
  load B, compute, each vector program, each die, each DMA engine) executes its own *projection* of that list, in
  order and asynchronously to the others; semaphores, barriers and events must make every such execution give the
  values of the sequential one. The verifier refuses a program in which they do not.
* **Loop variables are depths.** Inside a nest the outermost loop is variable 0. An instruction refers to the loops
  around it by depth; sibling loops reuse depths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

MAX_LOOP_DEPTH = 12
MAX_BOX_RANK = 6

LOOP_KINDS = ("par", "red", "seq")
LOOP_LEVELS = ("tile", "spc", "program")
FILLS = ("zero", "lowest", "highest", "clamp", "refuse")
OTHER_L2 = "other_l2"
"""The L2 of the other die, to which kernels can store."""
SPACES = ("hbm", "l2", "tb", OTHER_L2)
MAPPINGS = ("uma16", "uma8", "uma4", "numa")
MULTICAST_MODES = ("none", "dtg", "vtg", "peer")


@dataclass(frozen=True, slots=True)
class Affine:
    """`constant + sum(coefficient * variable)`; `terms` are (depth, coefficient), sorted, without zeros."""

    constant: int = 0
    terms: tuple[tuple[int, int], ...] = ()

    def at(self, variables: tuple[int, ...]) -> int:
        """The value for the given loop variables, outermost first."""
        return self.constant + sum(coefficient * variables[depth] for depth, coefficient in self.terms)

    def coefficient(self, depth: int) -> int:
        """The factor of the loop variable at `depth`, 0 when it does not occur."""
        return next((c for d, c in self.terms if d == depth), 0)

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.constant + other, self.terms)
        sums = dict(self.terms)
        for depth, coefficient in other.terms:
            sums[depth] = sums.get(depth, 0) + coefficient
        return affine(self.constant + other.constant, sums)

    def __mul__(self, factor: int) -> Affine:
        return affine(self.constant * factor, {d: c * factor for d, c in self.terms})


def affine(constant: int = 0, terms: dict[int, int] | None = None) -> Affine:
    """An `Affine` in its canonical form from a constant and {depth: coefficient}."""
    return Affine(constant, tuple(sorted((d, c) for d, c in (terms or {}).items() if c)))


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of a box: coordinates `start, start + step, ...`, `extent` of them."""

    start: Affine
    extent: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class Box:
    """The elements that one instruction touches of the tensor bound in `slot`: one axis a descriptor dimension.

    Coordinates outside the descriptor's bounds are dropped by a store; a load replaces them as `fill` says:
    zero, the lowest or highest value of the type, the nearest element (clamp); `refuse` makes the verifier prove
    that there are none.
    """

    slot: int
    axes: tuple[Axis, ...]
    fill: str = "zero"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.extent for axis in self.axes)


@dataclass(frozen=True, slots=True)
class RingAddress:
    """A byte address in an input buffer: `base + stride * (index mod modulo)`."""

    base: Affine
    stride: int = 0
    index: Affine = field(default_factory=Affine)
    modulo: int = 1

    def at(self, variables: tuple[int, ...]) -> int:
        """The byte address for the given loop variables."""
        return self.base.at(variables) + self.stride * (self.index.at(variables) % self.modulo)


@dataclass(frozen=True, slots=True)
class Window:
    """The pixels of a patch that one tap of a convolution takes: `rows` x `columns` from (`top`, `left`).

    A patch is an A tile whose rows are the pixels of an image's part, row by row, `pitch` pixels in each.
    """

    top: Affine
    left: Affine
    rows: int
    columns: int
    pitch: int

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Sync:
    """A wait for, or a post to, one count of a semaphore.

    It happens only in iterations in which every loop in the bit mask `first` (bit d = depth d) is in its first
    iteration and every loop in `last` in its last one.
    """

    semaphore: Affine
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Register:
    """A vector register: `vector_tile_elements` lanes of 32 bits; the number is affine in loop variables."""

    number: Affine


Operand = int | float | str | Affine | Box | RingAddress | Window | Register | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: operands in the order of the fields of its row in `isa.INSTRUCTIONS`.

    `program` is the vector program that executes it (vector instructions only); inside a loop of level "program"
    iteration i runs on program `program + i`.
    """

    mnemonic: str
    operands: tuple[Operand, ...]
    waits: tuple[Sync, ...] = ()
    posts: tuple[Sync, ...] = ()
    program: int = 0


@dataclass(frozen=True, slots=True)
class Loop:
    """`kind` par (independent iterations), red (accumulates) or seq (ordered), `extent` iterations at most.

    `limit`, affine in outer variables, shortens it: the trip count is `min(extent, max(0, limit))`. Level "spc"
    distributes iterations over the SPCs of every die of the launch: the outermost loops of a nest may be of this
    level, and iteration (i, j, ...) of extents (I, J, ...) runs on SPC `i * J * ... + j * ... + ...`. Level
    "program" runs iteration i on vector program i; "tile" stays in place.
    """

    kind: str
    extent: int
    body: tuple[Loop | Instruction, ...]
    level: str = "tile"
    limit: Affine | None = None

    def trip_count(self, outer: tuple[int, ...]) -> int:
        """Iterations for the given outer loop variables."""
        if self.limit is None:
            return self.extent
        return min(self.extent, max(0, self.limit.at(outer)))


@dataclass(frozen=True, slots=True)
class Kernel:
    """Loop nests that run on every SPC of a launch, and the initial counts of the semaphores they use.

    All nests of a kernel begin with the same loops of level "spc", and the product of their extents is at most the
    number of SPCs of a die. SPCs beyond it, or with an empty trip, stay idle.
    """

    name: str
    nests: tuple[Loop | Instruction, ...]
    semaphores: tuple[int, ...] = ()
    multicast: str = "none"

    def instructions(self) -> Iterator[Instruction]:
        """Every static instruction, in text order."""
        pending = list(reversed(self.nests))
        while pending:
            item = pending.pop()
            if isinstance(item, Instruction):
                yield item
            else:
                pending.extend(reversed(item.body))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A strided view of memory. The element at coordinates c lies at `address + sum(c * strides) * element size`.

    Coordinate i is inside for `origin[i] <= c[i] < origin[i] + dims[i]`. Addresses are local to a die (hbm, l2, and
    other_l2: the L2 of the other one, for stores alone) or to an SPC (tb). `mapping` says over how many sections of a
    die the bytes are interleaved.
    """

    space: str
    address: int
    dtype: str
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    origin: tuple[int, ...] = ()
    mapping: str = "uma16"

    @property
    def lower(self) -> tuple[int, ...]:
        """The first coordinate of each dimension."""
        return self.origin or (0,) * len(self.dims)

    def at_home(self, die: int) -> tuple[Descriptor, int]:
        """The die in whose memory the view of a die lies, and the view as that die has it."""
        return (replace(self, space="l2"), 1 - die) if self.space == OTHER_L2 else (self, die)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the stream; `dies` is the bit mask of the dies whose command processor executes it.

    Operands as declared in `isa.COMMANDS`. What is marked `once` is executed in the first call only: later ones find
    what it left on the chip (see `residents.py`).
    """

    mnemonic: str
    operands: tuple[Operand, ...] = ()
    dies: int = 1
    once: bool = False


@dataclass(frozen=True, slots=True)
class CommandLoop:
    """Repeats its body `count` times; bound descriptors may advance with the iteration (see `bind`)."""

    count: int
    body: tuple[Command | CommandLoop, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a boundary tensor as it lies in one memory: the box `start .. start + shape` of the logical tensor.

    `descriptor` indexes `Program.descriptors` and has the shape of the part; `dies` lists the dies that hold it.
    """

    dies: int
    descriptor: int
    start: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the program: logical type and shape, and the pieces it is made of."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class ConstantImage:
    """A block of constant data, copied to `address` in the HBM of `dies` before the first call."""

    key: str
    num_bytes: int
    address: int
    dies: int


@dataclass(frozen=True, slots=True)
class Program:
    """Everything the machine executes for one variant of a model.

    `l2_bytes` and `tensor_buffer_bytes` are the split of each SPC's SRAM; `hbm_bytes` is what the program uses of
    each die's HBM.
    """

    name: str
    machine: str
    machine_digest: str
    dies: int
    l2_bytes: int
    tensor_buffer_bytes: int
    hbm_bytes: int
    descriptors: tuple[Descriptor, ...]
    kernels: tuple[Kernel, ...]
    commands: tuple[Command | CommandLoop, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    constants: tuple[ConstantImage, ...]
    useful_macs: int = 0
