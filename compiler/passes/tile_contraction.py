"""Tile extents, blocking and SPC mapping of contraction kernels, chosen by an estimate of their cycles."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from birc.compiler.ir.plan import BLOCK, OWN_DIMENSIONS, TILE, Contraction, Dimension, Kernel, Tiling
from birc.compiler.ir.plan_access import named_dims
from birc.compiler.ir.plan_panels import panel_span
from birc.compiler.ir.plan_patch import patch_of, patch_problems
from birc.compiler.ir.registers import Epilogue, epilogue
from birc.compiler.ir.semaphores import most_programs, of_product, semaphores_there
from birc.compiler.passes.contraction_cost import Memories, Shape, estimate
from birc.compiler.passes.restrict import even_part
from birc.compiler.passes.split_depth import inner_depths, split_depth
from birc.compiler.passes.tile_orders import in_other_orders
from birc.compiler.passes.tile_patches import Lines, lines, square, taps_innermost, window_tiles, with_rows
from birc.compiler.passes.tile_vector import banded, factorisations, keeps_to_bands, shared_programs
from birc.compiler.passes.tile_winding import through_depth
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine

MOST_BLOCK_TILES = 24
"""Their sums leave a quarter of the vector registers to the epilogue."""
BLOCKS = tuple(
    (rows, columns)
    for rows in (1, 2, 3, 4, 6, 7, 8, 12)
    for columns in (1, 2, 3, 4, 6)
    if rows * columns <= MOST_BLOCK_TILES
)
"""Rows and columns of tiles of the blocks that are tried."""
MOST_BLOCK_ROWS = max(rows for rows, _ in BLOCKS)
STATIONARY = (2, 3)
"""Columns of blocks that all rows of an SPC go past."""
MOST_STREAMED_ROWS = 7
"""Rows of tiles of a block whose a tiles are loaded one by one, as the T-core takes them."""
NARROWER = (2, 4)
"""How much narrower tiles may be where there are SPCs without one."""
MOST_SPLIT_LOOPS = 8
"""Loops over SPCs and over tiles of a kernel whose depth may be cut in two: they nest 12 deep."""


def contraction_tilings(
    kernel: Kernel, contraction: Contraction, machine: Machine, memories: Memories, most: int
) -> list[TiledDepth]:
    """The tilings with the least estimated cycles, best first, one of those that are estimated alike, at most `most`.

    Raises `DoesNotFitError` when no tile fits the input buffers, or the bands of rows that SPCs have, or when an SPC
    has too few semaphores.
    """
    if most_programs(machine) < 1:
        needed, there = of_product(1), semaphores_there(machine)
        raise DoesNotFitError(f"a product needs {needed} semaphores, an SPC has {there}", where=kernel.name)
    found: dict[float, TiledDepth] = {}
    has_bands = bool(banded(kernel))
    for shape, tiling in _candidates(kernel, contraction, machine, memories):
        if has_bands and not keeps_to_bands(kernel, tiling):
            continue
        inner = shape.kernel.red_dims[-1].extent if shape.is_cut else 0
        rows = shape.contraction.row_dims
        tiled = TiledDepth(inner, tiling, rows if rows != contraction.row_dims else ())
        found.setdefault(estimate(shape, tiling), tiled)
    if not found:
        raise DoesNotFitError("no tile of the product fits the input buffers", where=kernel.name)
    return [found[cycles] for cycles in heapq.nsmallest(most, found)]


@dataclass(frozen=True, slots=True)
class TiledDepth:
    """A tiling, of the kernel as it is or (`inner` above 0) with its depth cut at steps of `inner`.

    The tiling of a convolution by windows has its taps innermost, and its row dimensions in the order `rows` where that
    is another one.
    """

    inner: int
    tiling: Tiling
    rows: tuple[str, ...] = ()

    def of(self, kernel: Kernel) -> Kernel:
        """The kernel with the tiling."""
        if self.rows:
            kernel = with_rows(kernel, self.rows)
        if self.tiling.taps:
            kernel = taps_innermost(kernel, self.tiling.taps)
        return replace(split_depth(kernel, self.inner) if self.inner else kernel, tiling=self.tiling)


def _candidates(
    kernel: Kernel, contraction: Contraction, machine: Machine, memories: Memories
) -> Iterator[tuple[Shape, Tiling]]:
    yield from _candidates_of(kernel, contraction, machine, memories, is_cut=False)
    yield from _window_candidates(kernel, contraction, machine, memories)
    if sum(_loops(d) for d in kernel.space if d.name not in contraction.column_dims[1:]) <= MOST_SPLIT_LOOPS:
        step = _tile(kernel, contraction, machine, {})[kernel.red_dims[-1].name]
        for inner in inner_depths(kernel, step):
            split = split_depth(kernel, inner)
            if split.contraction is not None:
                yield from _candidates_of(split, split.contraction, machine, memories, is_cut=True)


def _loops(dimension: Dimension) -> int:
    """Loops of a dimension: over SPCs and over tiles, of which one that counts SPCs has a single one each."""
    return (dimension.extent > 1) * (1 if dimension.name in OWN_DIMENSIONS else 2)


def _candidates_of(
    kernel: Kernel, contraction: Contraction, machine: Machine, memories: Memories, *, is_cut: bool
) -> Iterator[tuple[Shape, Tiling]]:
    rows = [kernel.dimension(name) for name in contraction.row_dims]
    for extents in _row_tiles(rows, machine.tcore_rows, banded(kernel)):
        for tile in _narrowed(kernel, contraction, machine, _tile(kernel, contraction, machine, extents)):
            yield from _tilings(Shape(kernel, contraction, machine, memories, tile, is_cut))


def _window_candidates(
    kernel: Kernel, contraction: Contraction, machine: Machine, memories: Memories
) -> Iterator[tuple[Shape, Tiling]]:
    """The tilings as a convolution by windows, where the machine has one."""
    patch = patch_of(kernel)
    if patch is None or any(True for _ in patch_problems(patch, kernel, contraction, machine)):
        return
    squares = Lines(patch.taps, contraction.row_dims, square(kernel, patch, machine))
    for windows in (squares, *lines(kernel, contraction, patch, machine)):
        ordered = windows.of(kernel)
        if ordered.contraction is None:
            continue
        for whole in window_tiles(ordered, windows.tile, ordered.contraction, machine):
            for tile in _narrowed(ordered, ordered.contraction, machine, whole):
                yield from _tilings(Shape(ordered, ordered.contraction, machine, memories, tile, taps=windows.taps))


def _narrowed(
    kernel: Kernel, contraction: Contraction, machine: Machine, tile: dict[str, int]
) -> Iterator[dict[str, int]]:
    """The tile; while there are more SPCs than tiles, also narrower ones: each SPC then loads fewer columns.

    Reductions along the columns keep the tiles that they were fused for.
    """
    column = contraction.column
    tiles = math.prod(-(-d.extent // tile[d.name]) for d in kernel.par_dims)
    is_reduced = any(named_dims(kernel).intersection(contraction.column_dims))
    yield tile
    for parts in () if is_reduced else NARROWER:
        if tiles * parts <= machine.spcs_per_die and tile[column] > 1:
            yield {**tile, column: even_part(kernel.dimension(column).extent, -(-tile[column] // parts))}


def _tilings(shape: Shape) -> Iterator[tuple[Shape, Tiling]]:
    kernel = shape.kernel
    after = _Epilogues(epilogue(kernel, False), epilogue(kernel, True), epilogue(kernel, True, holds=True))
    for spcs in _spc_splits(shape, shape.machine.spcs_per_die, after.is_rowwise):
        for tiling in _blockings(shape, spcs, after):
            yield shape, tiling


@dataclass(frozen=True, slots=True)
class _Epilogues:
    """The epilogue of a kernel: when programs take single tiles, whole blocks, or blocks whose tiles hold loads."""

    by_tile: Epilogue
    by_block: Epilogue
    held: Epilogue

    @property
    def is_rowwise(self) -> bool:
        """Whether it is about whole rows, which are a block each."""
        return self.by_block.is_rowwise


def _spc_splits(shape: Shape, spcs: int, whole_rows: bool) -> list[tuple[tuple[str, int], ...]]:
    """SPCs per dimension: the splits that leave few tiles on the busiest SPC, none beaten in every dimension.

    Equally good ones that split outer dimensions come first. With `whole_rows` columns are not split.
    """
    dims = shape.kernel.par_dims
    own = tuple((d.name, d.extent) for d in dims if d.name in OWN_DIMENSIONS)
    if own:
        return [own]
    counts = [shape.count(d) for d in dims]
    most = [1 if whole_rows and d == shape.column else count for d, count in zip(dims, counts, strict=True)]
    best: dict[tuple[int, ...], tuple[int, ...]] = {}
    for split in factorisations(most, spcs):
        shares = tuple(-(-count // s) for count, s in zip(counts, split, strict=True))
        if shares not in best or math.prod(split) < math.prod(best[shares]):
            best[shares] = split
    least = min(math.prod(shares) for shares in best)
    useful = sorted((split for shares, split in best.items() if math.prod(shares) <= 1.25 * least), reverse=True)
    return [tuple((d.name, s) for d, s in zip(dims, split, strict=True) if s > 1) for split in useful]


def _tile(kernel: Kernel, contraction: Contraction, machine: Machine, rows: dict[str, int]) -> dict[str, int]:
    format = machine.format(contraction.format)
    tile = kernel.tile_extents(rows.items())
    column = kernel.dimension(contraction.column)
    tile |= {name: kernel.dimension(name).extent for name in contraction.column_dims[1:]}
    beside = math.prod(tile[name] for name in contraction.column_dims[1:])
    tile[column.name] = even_part(column.extent, max(1, machine.tcore_cols // beside))
    deepest = kernel.red_dims[-1]
    buffer = min(machine.gib_a_bytes, machine.gib_b_bytes)
    fitting = buffer // 2 // (64 * format.bytes) // format.k_unit * format.k_unit
    most = min(format.k_max, max(fitting, format.k_unit))
    if contraction.further:
        tile[deepest.name] = _depth_in_panels(contraction, most, format.k_unit)
        return tile
    even = even_part(deepest.extent, most)
    tile[deepest.name] = min(deepest.extent, -(-even // format.k_unit) * format.k_unit)
    for outer in reversed(kernel.red_dims[:-1]):
        depth = math.prod(tile[d.name] for d in kernel.red_dims) * outer.extent
        if depth > most or not _whole_inside(kernel, outer, tile) or not _is_depth_alone(contraction, outer.name, tile):
            break
        tile[outer.name] = outer.extent
    return tile


def _depth_in_panels(contraction: Contraction, most: int, unit: int) -> int:
    """The greatest depth of operations of which none takes from two panels, or from two steps of an outer dimension."""
    begins = [panel_span(panel)[0] for panel in contraction.further]
    whole = math.gcd(*begins, *(factor for _, factor in contraction.a.index[-1].terms if factor > 1))
    return max(depth for depth in range(unit, most + 1, unit) if whole % depth == 0)


def _whole_inside(kernel: Kernel, outer: Dimension, tile: dict[str, int]) -> bool:
    """Whether a tile has all of the reduced dimensions inside one of them."""
    inside = kernel.red_dims[kernel.red_dims.index(outer) + 1 :]
    return all(tile[d.name] == d.extent for d in inside)


def _is_depth_alone(contraction: Contraction, name: str, tile: dict[str, int]) -> bool:
    """Whether a dimension moves no axis of rows or columns, and none along which one that is tiled moves, too."""
    a, b = contraction.a.index, contraction.b.index
    others = (*a[: contraction.rows], *b[contraction.depth :])
    if any(name in dict(index.terms) for index in others):
        return False
    names = (dict(index.terms) for index in (*a, *b))
    return not any(name in axis and any(tile[other] > 1 for other in axis if other != name) for axis in names)


def _row_tiles(dims: list[Dimension], most: int, whole: set[str]) -> list[dict[str, int]]:
    """Tile extents of the row dimensions: the few combinations of at most `most` rows that waste least.

    Tiles of the dimensions in `whole` come out even.
    """
    if not dims:
        return [{}]
    choices = [sorted({even_part(d.extent, t) for t in range(1, most + 1)}) for d in dims]
    choices = [
        [t for t in extents if d.name not in whole or d.extent % t == 0]
        for d, extents in zip(dims, choices, strict=True)
    ]
    scored = []
    for extents in itertools.product(*choices):
        if math.prod(extents) > most:
            continue
        tiles = math.prod(-(-d.extent // t) for d, t in zip(dims, extents, strict=True))
        scored.append((tiles, tuple(-t for t in reversed(extents)), extents))
    scored.sort()
    return [dict(zip((d.name for d in dims), extents, strict=True)) for _, _, extents in scored[:2]]


def _blockings(shape: Shape, spcs: tuple[tuple[str, int], ...], after: _Epilogues) -> Iterator[Tiling]:
    """Every way to block that fits input buffers and registers."""
    row_share, column_share = shape.share(shape.blocked, dict(spcs)), shape.share(shape.column, dict(spcs))
    blocks = [(rows, columns) for rows, columns in BLOCKS if rows <= row_share and columns <= column_share]
    if row_share > MOST_BLOCK_ROWS:  # no registers hold them: only where all of the depth is resident
        blocks += [(row_share, columns) for columns in STATIONARY if columns <= column_share]
    if after.is_rowwise:
        whole = shape.count(shape.column)
        blocks = [(1, whole)] if column_share == whole else []
    for rows, columns in blocks:
        yield from _blocked(shape, spcs, rows, columns, after, stream=False)
        if columns > 1:
            yield from _blocked(shape, spcs, rows, columns, after, stream=True)
    if not after.is_rowwise:
        for rows in range(1, min(row_share, MOST_STREAMED_ROWS) + 1):
            yield from _blocked(shape, spcs, rows, 1, after, stream=True)
        if not shape.is_cut:
            yield from through_depth(shape, spcs)


def _blocked(
    shape: Shape,
    spcs: tuple[tuple[str, int], ...],
    rows: int,
    columns: int,
    after: _Epilogues,
    stream: bool,
) -> Iterator[Tiling]:
    """The tilings with blocks of `rows` x `columns` tiles: how much depth is resident, which operand is hoisted."""
    machine = shape.machine
    tile = tuple(shape.tile.items())
    depth = len(shape.steps)
    by_tile = after.by_tile
    for_tiles = 0 if after.is_rowwise else _programs(shape, dict(spcs), rows, columns, by_tile.count(1))
    a_bytes, b_bytes = shape.slot_bytes
    may_pass = after.is_rowwise or (rows == 1 and shape.memories.is_local(shape.contraction.b))
    for resident in range(1, depth) if shape.is_cut else range(len(shape.taps), depth + 1):
        chunks = math.prod(shape.steps[: depth - resident])
        partial = rows * columns if chunks > 1 and rows * columns > 1 else 0
        kinds = (after.by_block, after.held) if after.is_rowwise and chunks == 1 else (after.by_block,)
        needed = for_tiles * by_tile.count(1) + partial
        has_tiles = 0 < for_tiles <= most_programs(machine) and needed <= machine.vector_registers
        steps = math.prod(shape.steps[depth - resident :])
        a_steps = steps // shape.windows
        hoists = ["", "a", "b"] if chunks == 1 else [""]
        if stream:
            hoists = ["", "b"] if chunks == 1 and (rows == 1 or columns == 1) else [""]
        for hoist in hoists:
            blocks = _blocks(shape, dict(spcs), rows, columns, apart=after.is_rowwise and not hoist)
            for_blocks = max(_block_programs(machine, blocks, rows * columns, kind) for kind in kinds)
            turns = [(TILE, for_tiles)] * has_tiles + [(BLOCK, for_blocks)] * (for_blocks > 0)
            if stream and columns > 1:
                a_slots = _slots(machine, a_steps, machine.gib_a_bytes // a_bytes, held=a_steps)
            else:
                a_slots = _slots(machine, 1 if stream else rows * a_steps, machine.gib_a_bytes // a_bytes)
            fitting = machine.gib_b_bytes // b_bytes
            b_slots = _slots(machine, columns * steps, fitting)
            if not b_slots and may_pass and not hoist and fitting >= 2 * steps:
                b_slots = fitting  # Tiles of columns pass.
            if a_slots and b_slots:
                for what, programs in turns:
                    tiling = Tiling(
                        tile,
                        spcs,
                        rows,
                        columns,
                        resident,
                        hoist,
                        stream,
                        a_slots,
                        b_slots,
                        programs,
                        what,
                        shape.taps,
                    )
                    yield tiling
                    yield from in_other_orders(shape, tiling, math.prod(blocks))


def _slots(machine: Machine, tiles: int, fitting: int, held: int = 0) -> int:
    """Slots for blocks of some tiles: two, or as many as keep the load queue busy, or what fits; 0 for less than one.

    The load queue finds its slots beside those that are `held` until the last column.
    """
    blocks = max(2, -(-(held + machine.outstanding_loads_per_tcore_queue) // tiles))
    return 0 if fitting < tiles else min(fitting, blocks * tiles)


def _programs(shape: Shape, spcs: dict[str, int], rows: int, columns: int, registers: int) -> int:
    """Vector programs that take the tiles of a block in turn, or else blocks of a single tile."""
    if rows * columns > 1:
        return columns if columns > 1 else rows
    most = min(most_programs(shape.machine), shape.machine.vector_registers // max(1, registers))
    return shared_programs(_blocks(shape, spcs, rows, columns), most)


def _block_programs(machine: Machine, blocks: list[int], tiles: int, after: Epilogue) -> int:
    """Vector programs that take blocks of several tiles in turn, with registers for all sums; 0 for none."""
    most = min(most_programs(machine), machine.vector_registers // after.count(tiles))
    if tiles == 1 or most == 0 or (most == 1 and not after.is_rowwise):
        return 0
    return shared_programs(blocks, most)


def _blocks(shape: Shape, spcs: dict[str, int], rows: int, columns: int, apart: bool = False) -> list[int]:
    """Blocks of an SPC along the dimensions of rows and columns, and those along which products are `apart`."""
    sizes = {shape.column.name: columns} | ({shape.blocked.name: rows} if shape.blocked is not None else {})
    names = [*shape.contraction.row_dims, *shape.contraction.column_dims]
    names += [d.name for d in shape.kernel.par_dims if apart and d.name not in names]
    return [-(-shape.share(shape.kernel.dimension(name), spcs) // sizes.get(name, 1)) for name in names]
