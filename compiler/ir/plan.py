"""The plan: what is computed in which order, in which loops, from which buffers (the scheduled IR).

A plan is a list of steps over buffers. A kernel step is a loop nest given by its *iteration space*; every operand is
an affine access of that space, and the body is a short list of vector statements, optionally after a contraction on
the T-core. Tile extents, the mapping to SPCs and dies and the addresses of buffers are filled in by later phases; the
same classes describe the plan before and after.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from birc.compiler.ir.tile_order import IN_TURN, TileOrder
from birc.runtime.dtypes import dtype

PAR = "par"
RED = "red"
WHOLE = "whole"
"""The kind of a dimension that no loop walks: statements see all of it, along the last axis of registers."""
TILE, BLOCK = "tile", "block"
"""What the vector programs of a contraction take in turn."""
SPC = "spc"
"""The name of a dimension that is spread over SPCs, one iteration each, when every SPC has its own sample."""
SPC_COLUMNS = "spc_columns"
"""The same, when every SPC has its own columns of a tensor; it comes behind the one over samples."""
SPC_BANDS = "spc_bands"
"""The same, when every SPC has its own rows of an image, and those beside them that windows reach."""
SPC_PRODUCTS = "spc_products"
"""The same, when every SPC has its own products of matrices, or rows of them; it comes behind the one over samples."""
OWN_DIMENSIONS = frozenset({SPC, SPC_BANDS, SPC_COLUMNS, SPC_PRODUCTS})


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension of an iteration space: independent (`par`), reduced over (`red`), or seen as a `whole`."""

    name: str
    extent: int
    kind: str = PAR


@dataclass(frozen=True, slots=True)
class View:
    """A strided window on a buffer, in elements: coordinates c lie at `offset + sum(c * strides)`.

    Coordinates are inside for `lower <= c < lower + dims`; `lower` is empty when it is zero everywhere. Elements are
    those of the buffer; an access may see the bits of each as another type of the same width, or as one of half its
    width, namely word number `word` (0 is the low one): `seen` is that type. Of a view `away` the buffer is that of the
    other die, to which kernels can store.
    """

    buffer: str
    offset: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    lower: tuple[int, ...] = ()
    seen: str = ""
    word: int = 0
    away: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """A coordinate: `constant + sum(factor * dimension)`, by dimension name."""

    terms: tuple[tuple[str, int], ...] = ()
    constant: int = 0


@dataclass(frozen=True, slots=True)
class Access:
    """How an operand is read or written at a point of the iteration space: one index a view dimension."""

    view: View
    index: tuple[Index, ...]
    fill: str = "zero"


@dataclass(frozen=True, slots=True)
class Contraction:
    """`accumulator = sum over the red dimensions of a * b` on the T-core, operands rounded to `format`.

    The axes of `a` are rows then depth, those of `b` depth then columns; `rows` and `depth` count them.
    `row_dims` and `column_dims` name the iteration dimensions that make up the rows and columns of a tile; the other
    par dimensions select independent products. Tiles of columns form blocks along the first of their dimensions, and
    each has all of the others. Where the left operand is several panels side by side along the depth, `further` are
    those behind `a`: each is zero outside of its view, and the operand is their sum (plan_panels.py).
    """

    a: Access
    b: Access
    rows: int
    depth: int
    row_dims: tuple[str, ...]
    column_dims: tuple[str, ...]
    format: str
    further: tuple[Access, ...] = ()

    @property
    def panels(self) -> tuple[Access, ...]:
        """The panels of the left operand, in the order of the depth."""
        return (self.a, *self.further)

    @property
    def operands(self) -> tuple[Access, ...]:
        """Every operand: the panels of the left one, then `b`."""
        return (self.a, *self.further, self.b)

    def changed(self, change: Callable[[Access], Access]) -> Contraction:
        """The contraction with every operand changed; the same one when none is."""
        a, *further, b = changed = [change(access) for access in self.operands]
        if all(one is other for one, other in zip(changed, self.operands, strict=True)):
            return self
        return replace(self, a=a, b=b, further=tuple(further))

    @property
    def column(self) -> str:
        """The dimension along which tiles of columns form blocks."""
        return self.column_dims[0]


@dataclass(frozen=True, slots=True)
class Statement:
    """One vector operation on register values, which have one axis per par dimension of the kernel (SSA).

    `op` is a vector mnemonic of the instruction table: `vld` and `vst` use `access`, `vldx` also `index_axis` and
    `index_count`; reductions (`vred...`) name the dimensions they collapse in `dims`; folds (`vfold...`) accumulate
    over the loops of their phase. `vacc` is the finished accumulator. Arguments are value names or immediates.
    """

    op: str
    result: str = ""
    arguments: tuple[str | float, ...] = ()
    access: Access | None = None
    dims: tuple[str, ...] = ()
    index_axis: int = 0
    index_count: int = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """Statements executed for every tile of the dimensions `loops`, inside the kernel's outer tile loops."""

    statements: tuple[Statement, ...]
    loops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the iteration space is cut.

    `tile`: extent of a tile per dimension (missing = 1). `spcs`: SPCs per dimension. `rows`/`columns`: row and column
    tiles computed from one load of the other operand; `resident`: how many of the innermost depth loops stay in the
    input buffers at once (the others are streamed in chunks); `hoist`: the operand kept over the loop of the other one
    ("a", "b" or ""); `stream`: a tiles are loaded one by one as the T-core takes them, instead of block by block (with
    several columns a row's tiles stay until the last of them); `a_slots` and `b_slots`: tiles that each input buffer
    holds, a ring in the order of their loads (where b has fewer than a single row has columns, these pass: they are
    loaded one by one as the T-core takes them; where a hoisted b has fewer than the depth has steps, rows go through it
    there and back, plan_winding.py); `programs`: vector programs that take tiles in turn, or (`turns` is "block") whole
    blocks, whose sums wait in registers until the last is there; `taps`: the innermost depth loops, which move a window
    over a patch that an a tile brings for all of them (plan_patch.py); `once`: each vector program executes the first
    phase of a vector kernel, loads all, once for all of its tiles; `ahead`: it loads what is the same for all of them
    once, and of a tile the rest while it works on the tile before; `order`: in which tiles go (tile_order.py);
    `eager`: what goes past tiles of the other operand is loaded as far ahead as there are slots from the first tile on,
    as the other is there by then; `deals`: so often the column tiles are dealt out, each time as many in a row to every
    SPC. Of a vector kernel whose phases have no loops `rows` are the tiles that a program has under way together.
    """

    tile: tuple[tuple[str, int], ...]
    spcs: tuple[tuple[str, int], ...] = ()
    rows: int = 1
    columns: int = 1
    resident: int = 0
    hoist: str = ""
    stream: bool = False
    a_slots: int = 1
    b_slots: int = 1
    programs: int = 1
    turns: str = TILE
    taps: tuple[str, ...] = ()
    once: bool = False
    order: TileOrder = IN_TURN
    eager: bool = False
    ahead: bool = False
    deals: int = 1


@dataclass(frozen=True, slots=True)
class Kernel:
    """One fused kernel: iteration space, optional contraction, phases of vector statements.

    `macs` are the model's own multiply-adds. `outer` lists the par dimensions that are looped outside all phases
    (the others are tiled whole or looped by phases). `sources` are the ONNX nodes it computes.
    """

    name: str
    space: tuple[Dimension, ...]
    phases: tuple[Phase, ...]
    contraction: Contraction | None = None
    macs: int = 0
    sources: tuple[str, ...] = ()
    tiling: Tiling | None = None

    @property
    def has_own_parts(self) -> bool:
        """Whether each SPC has a part of its own: samples, rows, columns or products."""
        return any(d.name in OWN_DIMENSIONS for d in self.space)

    def dimension(self, name: str) -> Dimension:
        """The dimension called `name`."""
        return next(d for d in self.space if d.name == name)

    def blocked_row(self, tile: Mapping[str, int]) -> Dimension | None:
        """The row dimension whose tiles form blocks: the innermost with more than one tile; None without rows."""
        rows = [self.dimension(name) for name in self.contraction.row_dims] if self.contraction is not None else []
        return next((d for d in reversed(rows) if d.extent > tile[d.name]), rows[-1] if rows else None)

    @property
    def par_dims(self) -> tuple[Dimension, ...]:
        """The independent dimensions, outermost first: the axes of every register."""
        return tuple(d for d in self.space if d.kind == PAR)

    @property
    def red_dims(self) -> tuple[Dimension, ...]:
        """The reduced dimensions, outermost first."""
        return tuple(d for d in self.space if d.kind == RED)

    @property
    def whole_extent(self) -> int:
        """What registers hold along their last axis at least: the largest dimension that is seen as a whole."""
        return max((d.extent for d in self.space if d.kind == WHOLE), default=1)

    def tile_extents(self, tile: Iterable[tuple[str, int]]) -> dict[str, int]:
        """The extent of a tile along every dimension, by those that a tiling gives."""
        return {d.name: d.extent if d.kind == WHOLE else 1 for d in self.space} | dict(tile)

    def register_axis(self, name: str) -> int:
        """The axis of registers along which they hold a dimension."""
        axes = [d.name for d in self.par_dims]
        return len(axes) - 1 if self.dimension(name).kind == WHOLE else axes.index(name)


@dataclass(frozen=True, slots=True)
class Buffer:
    """A block of memory with a lifetime in steps [first, last].

    `role`: input, output, constant or scratch; `home` names the constant that an on-chip copy mirrors. `space` is
    hbm, l2 or tb (one in the tensor buffer of each SPC); `address` is assigned by allocation. Of a constant of which
    each die holds a part of its own, `part_offsets` tells by die where in the whole that begins (in elements), the
    others its extents and strides there. Of a `shared` constant each die holds one half, which it brings onto the chip
    and sends to the other die.
    """

    name: str
    dtype: str
    num_bytes: int
    role: str
    space: str = "hbm"
    address: int = -1
    first: int = -1
    last: int = -1
    home: str = ""
    part_offsets: tuple[int, ...] = ()
    part_dims: tuple[int, ...] = ()
    part_strides: tuple[int, ...] = ()
    shared: bool = False

    @property
    def num_elements(self) -> int:
        """How many elements it holds. Raises `BircError` for an element type that is not known."""
        return self.num_bytes * 8 // dtype(self.dtype).bits

    @property
    def twin_bytes(self) -> int:
        """The bytes of an on-chip copy, which has all parts of a shared constant."""
        return self.num_bytes * (len(self.part_offsets) or 1) if self.shared else self.num_bytes


@dataclass(frozen=True, slots=True)
class KernelStep:
    """Runs the kernel once per die of `dies`, each with its own kernel instance when the split is ragged.

    One that runs `beside` the step before is one kernel of the machine with it (plan_beside.py), and so is a product
    that `follows` the product of the step before (plan_following.py), or is a part of the same product and `continues`
    it (plan_continuing.py).
    """

    kernels: tuple[Kernel | None, ...]
    beside: bool = False
    follows: bool = False
    continues: bool = False

    @property
    def kernel(self) -> Kernel:
        """The instance of the first die that takes part."""
        return next(kernel for kernel in self.kernels if kernel is not None)

    @property
    def distinct(self) -> tuple[Kernel, ...]:
        """The kernels of the dies that take part, equal ones once."""
        found: list[Kernel] = []
        for kernel in self.kernels:
            if kernel is not None and kernel not in found:  # Looking for one is faster than its hash.
                found.append(kernel)
        return tuple(found)

    @property
    def is_divided(self) -> bool:
        """Whether not all dies run the same kernel."""
        return any(kernel != self.kernels[0] for kernel in self.kernels)


@dataclass(frozen=True, slots=True)
class CopyStep:
    """Starts a DMA copy of a whole buffer into another on each die; whoever needs it waits for it.

    When the plan is repeated, a copy made `once` is made in the first round only. What a `resident` one brings stays
    for the calls that follow: it is made in the first call only. Of a shared constant each die copies its half to
    where that lies in the whole.
    """

    source: str
    target: str
    once: bool = False
    resident: bool = False


@dataclass(frozen=True, slots=True)
class Exchange:
    """Sends a box of a buffer from one die to the same place on the other one."""

    view: View
    sender: int


@dataclass(frozen=True, slots=True)
class ExchangeStep:
    """Transfers over the die-to-die link between two barriers.

    What is `stored` the kernels before have stored on the other die as well: there is nothing left to transfer.
    """

    exchanges: tuple[Exchange, ...]
    stored: bool = False


@dataclass(frozen=True, slots=True)
class ShareStep:
    """Starts sending each die's half of a shared constant, in the on-chip `buffer`, to the other die.

    Whoever needs the buffer waits for it. When the plan is repeated, this is done in the first round only.
    """

    buffer: str


@dataclass(frozen=True, slots=True)
class FillStep:
    """Starts a DMA copy into the tensor buffer of every SPC of the dies in a mask; whoever needs it waits for it.

    The first dimensions of `source`, which `target` lacks, number the SPCs of a die: each gets its part.
    """

    source: View
    target: View
    dies: int

    @property
    def grid(self) -> tuple[int, ...]:
        """The dimensions that number the SPCs."""
        return self.source.dims[: len(self.source.dims) - len(self.target.dims)]

    @property
    def spcs(self) -> int:
        """How many SPCs get a part."""
        return math.prod(self.grid)


Step = KernelStep | CopyStep | FillStep | ExchangeStep | ShareStep


@dataclass(frozen=True, slots=True)
class Boundary:
    """A graph input or output: its logical type, and for each die the view that holds its part (from `start`).

    A tensor without elements has no pieces: it lies nowhere.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[int, tuple[int, ...], View], ...]

    def part(self, view: View) -> tuple[int, ...]:
        """The extents of the part that a piece's view holds.

        A view of a tensor of more dimensions than an instruction addresses has some of them, not the first, as one.
        """
        return view.dims if len(view.dims) == len(self.shape) else (*view.dims[:1], *self.shape[1:])


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a compiled model but its encoding.

    `tensor_buffer_bytes` of each SPC's SRAM are its tensor buffer, the rest is L2. The steps are run `repeat` times,
    once for each chunk of the batch; from one round to the next the accesses of the buffers in `advances` move on by so
    many bytes. `bounds` are cycles that no plan for the same graph goes below, by resource; none where not known.
    """

    name: str
    target: str
    precision: str
    dies: int
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    inputs: tuple[Boundary, ...]
    outputs: tuple[Boundary, ...]
    macs: int = 0
    tensor_buffer_bytes: int = 0
    repeat: int = 1
    advances: tuple[tuple[str, int], ...] = ()
    bounds: tuple[tuple[str, int], ...] = ()

    def buffer(self, name: str) -> Buffer:
        """The buffer called `name`."""
        return next(b for b in self.buffers if b.name == name)
