"""Random tilings of random products, each compiled: every way to block, stream, cut the depth and take turns.

case = draw(tiled_products())
case.compiled.step(case.inputs())
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from graph_maker import GraphMaker
from hypothesis import assume
from hypothesis import strategies as st
from machines import with_input_buffers
from pipeline import Compiled

from birc.codegen.program_code import generate
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import BLOCK, TILE, Contraction, Dimension, Kernel, KernelStep, Tiling
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.ir.plan_winding import winds_through_depth
from birc.compiler.ir.registers import epilogue, epilogue_of
from birc.compiler.ir.tile_order import BY_COLUMNS, OPENING, WINDING, shifted
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.split_depth import split_depth

MACHINE = with_input_buffers()
MOST_TILES = 24
WIDTH = 4
MODES = ("any", "stream", "block", "rows", "cut", "large", "panels", "wound")
"""What a drawn tiling has for certain: a ring that several columns share, blocks in turn, whole rows, a depth in two,
blocks of more tiles than there were before, a left operand in panels, or rows that wind through the depth."""


@dataclass(frozen=True)
class TiledProduct:
    """A compiled product with a tiling that was drawn."""

    compiled: Compiled
    kernel: Kernel
    tiling: Tiling

    def inputs(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Small integers: but for powers and roots every engine gives the same bits."""
        generator = np.random.default_rng(seed)
        drawn = {v.name: generator.integers(-2, 3, v.type.sizes) for v in self.compiled.graph.inputs}
        return {name: values.astype(np.float32) for name, values in drawn.items()}

    @property
    def is_exact(self) -> bool:
        """Whether nothing is rounded."""
        inexact = {"vexp2", "vrsqrt"}
        return len(self.kernel.phases) == 1 and inexact.isdisjoint(s.op for s in self.kernel.phases[0].statements)

    @property
    def goes_by_parts(self) -> bool:
        """Whether the epilogue goes through a few tiles at a time: loads before the rest, powers before sums.

        So do the T-core's operations on shifted rows, whose steps have been loaded in different places, and rows past
        which columns open, as programs have what lasts of each of them.
        """
        after = epilogue_of(self.kernel, self.tiling, MACHINE.vector_registers)
        registers = MACHINE.vector_registers // self.tiling.programs
        ahead = after.ahead(self.tiling.rows, self.tiling.columns, registers)
        least = 0 if after.is_rowwise else 1
        loads_by_part = bool(after.loads) and least < ahead < self.tiling.columns
        by_part = loads_by_part or (after.is_rowwise and self.tiling.columns > 1)
        opens = self.tiling.order == OPENING and bool(after.lasting)
        return by_part or self.tiling.order.shifted > 0 or self.winds or opens

    @property
    def winds(self) -> bool:
        """Whether rows wind through the depth: each has operands that the next one has, too."""
        return winds_through_depth(self.kernel, self.tiling)


@dataclass(frozen=True)
class _Cut:
    """A kernel with the extents of its tiles."""

    kernel: Kernel
    contraction: Contraction
    tile: Mapping[str, int]
    spcs: Mapping[str, int]

    @property
    def column(self) -> Dimension:
        return self.kernel.dimension(self.contraction.column)

    @property
    def row(self) -> Dimension | None:
        return self.kernel.blocked_row(self.tile)

    def count(self, dimension: Dimension) -> int:
        return -(-dimension.extent // self.tile[dimension.name])

    def share(self, dimension: Dimension | None) -> int:
        """Tiles of an SPC."""
        return 1 if dimension is None else -(-self.count(dimension) // self.spcs.get(dimension.name, 1))

    def blocks(self, rows: int, columns: int) -> list[int]:
        """Blocks of an SPC along every dimension of rows and columns."""
        sizes = {self.column.name: columns} | ({self.row.name: rows} if self.row is not None else {})
        names = (*self.contraction.row_dims, *self.contraction.column_dims)
        return [-(-self.share(self.kernel.dimension(name)) // sizes.get(name, 1)) for name in names]


@st.composite
def tiled_products(draw: st.DrawFn, modes: Sequence[str] = MODES) -> TiledProduct:
    """A product with an epilogue, perhaps a softmax over its columns, by any tiling that the plan's verifier takes."""
    mode = draw(st.sampled_from(modes))
    graph = draw(_graphs(mode))
    fused, lowered = lowered_product(graph)
    kernel = partitions(fused, lowered, MACHINE)[-1].steps[0].kernel
    depth = kernel.red_dims[-1].extent
    least = 4 if mode == "panels" else 2
    steps = [d for d in range(least, depth) if depth % d == 0]
    if steps and (mode == "cut" or draw(st.integers(0, 3)) == 0):
        kernel = split_depth(kernel, draw(st.sampled_from(steps)))
    tiling = draw(_tilings(kernel, mode))
    assume(not list(tiling_problems(replace(kernel, tiling=tiling), MACHINE)))
    return with_tiling(fused, lowered, kernel, tiling)


def lowered_product(graph: Graph) -> tuple[Graph, Lowered]:
    """The fused graph and its kernel, which walks rows in tiles of at most `WIDTH` columns."""
    fuse = Fuse(WIDTH, MACHINE.vector_registers // 2, MACHINE.gib_b_bytes)
    fused = run_passes(graph, (*LEGALIZE, fuse))
    return fused, lower_graph(fused, MACHINE.with_values({"tcore_cols": WIDTH}), "model")


def with_tiling(fused: Graph, lowered: Lowered, kernel: Kernel, tiling: Tiling) -> TiledProduct:
    """The only kernel of a graph compiled with a tiling, on one die."""
    tiled = replace(kernel, tiling=tiling)
    plan = partitions(fused, lowered, MACHINE)[-1]
    plan = replace(plan, steps=(KernelStep((tiled, *(None for _ in range(1, plan.dies)))),))
    verify_plan(plan, "tile", MACHINE)
    plan = allocate(schedule(plan, MACHINE), MACHINE)
    verify_plan(plan, "allocate", MACHINE)
    generated = generate(plan, MACHINE)
    compiled = Compiled(fused, lowered, plan, generated.program, generated.weights(lowered.data), MACHINE)
    return TiledProduct(compiled, tiled, tiling)


@st.composite
def _panels(draw: st.DrawFn) -> Graph:
    """Pixels of several images side by side, of some only every second one, times weights."""
    make, generator = GraphMaker(), np.random.default_rng(draw(st.integers(0, 9)))
    shape = draw(st.sampled_from(((1, 3, 3), (2, 1, 5), (1, 4, 2))))
    n, height, width = shape
    widths = draw(st.sampled_from(((16, 16), (16, 9), (32, 5), (16, 32), (16, 16, 3), (32, 13, 16))))
    columns = draw(st.sampled_from((6, 12, 16)))
    panels = []
    for channels in widths:
        step = draw(st.sampled_from((1, 2)))
        panel = make.input(n, channels, (height - 1) * step + 1, (width - 1) * step + 1)
        ends = make.type_of(panel).sizes
        panels.append(make("slice", panel, starts=(0,) * 4, ends=ends, steps=(1, 1, step, step)))
    weights = make.constant(generator.integers(-2, 3, (columns, sum(widths), 1, 1)))
    plain = {"stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "group": 1}
    y = make("conv2d", make("concat", *panels, axis=1), weights, **plain)
    if draw(st.booleans()):
        y = make("add", y, make.input(n, columns, height, width))
    return make.graph(make("relu", y) if draw(st.booleans()) else y)


@st.composite
def _scaled(draw: st.DrawFn, make: GraphMaker, x: str) -> str:
    """Rows scaled by moments, of which those of a few parts are seen at once."""
    *rows, columns = make.type_of(x).sizes
    parts, of_columns = draw(st.sampled_from((1, 3, 4, 6))), draw(st.sampled_from((0, 1, 2)))
    moments = make.input(1 + bool(of_columns), *rows, parts)
    more = (make.input(columns) for _ in range(of_columns))
    return make("scale_by_moments", x, moments, *more, count=4 * parts, epsilon=9.0)


@st.composite
def _graphs(draw: st.DrawFn, mode: str) -> Graph:
    if mode == "panels":
        return draw(_panels())
    make = GraphMaker()
    rows = (9, 14, 20) if mode in ("stream", "block", "large", "wound") else (1, 5, 9, 14)
    columns = (12, 16, 20) if mode in ("stream", "block", "large") else (4, 6) if mode == "wound" else (6, 12, 16)
    batch = draw(st.sampled_from(((), (), (2,))))
    m, n = draw(st.sampled_from(rows)), draw(st.sampled_from(columns))
    k = draw(st.sampled_from((6, 8, 12) if mode in ("cut", "wound") else (1, 5, 8, 12)))
    y = make("matmul", make.input(*batch, m, k), make.input(*draw(st.sampled_from((batch, ()))), k, n))
    if draw(st.booleans()):
        y = make("add", y, make.input(n))
    if draw(st.booleans()):
        y = make("add", y, make.input(*batch, m, n))
    if draw(st.integers(0, 3)) == 0:
        y = draw(_scaled(make, y))
    if mode == "rows":
        y = make("softmax", y, axis=len(batch) + 1)
        if draw(st.booleans()):
            y = make("mul", y, make.input(*batch, m, n))
    elif draw(st.booleans()):
        y = make("relu", y)
    if mode != "rows" and n % WIDTH == 0 and draw(st.booleans()):
        return make.graph(y, make("row_moments", y, parts=n // WIDTH, centred=draw(st.sampled_from((0, 1)))))
    return make.graph(y)


@st.composite
def _tilings(draw: st.DrawFn, kernel: Kernel, mode: str) -> Tiling:
    contraction = kernel.contraction
    assert contraction is not None
    whole_rows = epilogue(kernel, by_block=True).is_rowwise
    tile = kernel.tile_extents(())
    column, depth = kernel.dimension(contraction.column), kernel.red_dims[-1]
    reduced = {name for phase in kernel.phases for s in phase.statements for name in s.dims}
    for name in contraction.row_dims:
        tile[name] = min(kernel.dimension(name).extent, draw(st.sampled_from((1, 2, 3, 4))))
    widths = [w for w in (1, 2, 3, 4) if w <= column.extent and (column.extent % w == 0 or not whole_rows)]
    tile[column.name] = draw(st.sampled_from(widths))
    if column.name in reduced and not whole_rows:
        tile[column.name] = column.extent
    for name in contraction.column_dims[1:]:
        tile |= {column.name: 1, name: kernel.dimension(name).extent}
    depths = (2, 4, 8, 16) if contraction.further else (2, 3, 5, 12)
    tile[depth.name] = min(depth.extent, draw(st.sampled_from(depths)))
    cut = _Cut(kernel, contraction, tile, {})
    if mode == "wound":
        return draw(_wound(cut))
    spread = [d.name for d in kernel.par_dims if cut.count(d) > 1 and not (whole_rows and d == column)]
    if spread and draw(st.booleans()):
        cut = replace(cut, spcs={draw(st.sampled_from(spread)): 2})
    rows, columns = (1, cut.count(column)) if whole_rows else draw(_blocks(cut, mode))
    resident = draw(st.integers(1 if mode == "cut" else 0, len(kernel.red_dims)))
    reds = kernel.red_dims
    chunks = math.prod(cut.count(d) for d in reds[: len(reds) - resident])
    steps = math.prod(cut.count(d) for d in reds[len(reds) - resident :])
    stream = mode == "stream" or draw(st.booleans())
    hoists = ["", "a", "b"] if chunks == 1 else [""]
    if stream and "a" in hoists:
        hoists = ["", "b"] if rows == 1 or columns == 1 else [""]
    least = steps * (1 if stream else rows)
    if stream and columns == 1:
        least = 1
    hoist = draw(st.sampled_from(hoists))
    least_b = steps if rows == 1 and not hoist else columns * steps
    by_block = whole_rows or (rows * columns > 1 and (mode in ("block", "large") or draw(st.booleans())))
    tiling = Tiling(
        tuple(tile.items()),
        tuple(cut.spcs.items()),
        rows,
        columns,
        resident,
        hoist,
        stream,
        a_slots=draw(st.integers(least, 2 * least + 2)),
        b_slots=draw(st.integers(least_b, 2 * columns * steps + 2)),
        programs=draw(_programs(cut, rows, columns, by_block=by_block)),
        turns=BLOCK if by_block else TILE,
    )
    in_groups = replace(tiling, order=shifted(draw(st.integers(1, 2))))
    if mode == "cut" and _is_legal(kernel, in_groups) and draw(st.booleans()):
        return in_groups
    tiling = replace(tiling, eager=draw(st.booleans()), deals=draw(st.sampled_from((1, 1, 2, 3))))
    opening = replace(tiling, order=OPENING, eager=False, b_slots=max(tiling.b_slots, rows * steps))
    if _is_legal(kernel, opening) and draw(st.booleans()):
        return opening
    by_columns = replace(tiling, order=BY_COLUMNS)
    if not _is_legal(kernel, by_columns) or draw(st.booleans()):
        return tiling
    winding = replace(tiling, order=WINDING)
    return winding if _is_legal(kernel, winding) and draw(st.booleans()) else by_columns


def _is_legal(kernel: Kernel, tiling: Tiling) -> bool:
    return not any(True for _ in tiling_problems(replace(kernel, tiling=tiling), MACHINE))


@st.composite
def _wound(draw: st.DrawFn, cut: _Cut) -> Tiling:
    """Each SPC has one column of tiles, and slots for a part of its depth."""
    steps = math.prod(map(cut.count, cut.kernel.red_dims))
    columns = cut.count(cut.column)
    assume(steps > 1 and columns <= 2)
    a_slots, b_slots = draw(st.integers(steps, 2 * steps)), draw(st.integers(-(-steps // 2), steps - 1))
    spcs = ((cut.column.name, columns),) if columns > 1 else ()
    depth = len(cut.kernel.red_dims)
    return Tiling(tuple(cut.tile.items()), spcs, 1, 1, depth, "b", True, a_slots, b_slots)


@st.composite
def _blocks(draw: st.DrawFn, cut: _Cut, mode: str) -> tuple[int, int]:
    """Row and column tiles of a block, no more than an SPC has."""
    most_rows, most_columns = cut.share(cut.row), cut.share(cut.column)
    fitting = [
        (rows, columns)
        for rows in (1, 2, 3, 4, 6, 8)
        for columns in (1, 2, 3, 4, 6)
        if rows <= most_rows and columns <= most_columns and rows * columns <= MOST_TILES
    ]
    wanted = {
        "stream": [(rows, columns) for rows, columns in fitting if columns > 1],
        "block": [(rows, columns) for rows, columns in fitting if rows * columns > 1],
        "large": [(rows, columns) for rows, columns in fitting if rows * columns > 16],
    }
    return draw(st.sampled_from(wanted.get(mode) or fitting))


@st.composite
def _programs(draw: st.DrawFn, cut: _Cut, rows: int, columns: int, *, by_block: bool) -> int:
    """Vector programs that can share the blocks of an SPC evenly; those of a block's tiles are as many as these."""
    if rows * columns > 1 and not by_block:
        return columns if columns > 1 else rows
    counts = cut.blocks(rows, columns)
    return draw(st.sampled_from([1, *(p for p in range(2, 8) if any(count % p == 0 for count in counts))]))
