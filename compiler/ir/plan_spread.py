"""How the tiles of each dimension of a kernel are shared out among the SPCs of a die."""

from __future__ import annotations

from dataclasses import dataclass

from birc.compiler.ir.plan import Dimension, Kernel, Tiling


@dataclass(frozen=True, slots=True)
class Spread:
    """One dimension: each of `spcs` SPCs takes `share` tiles, an equal part of them, in a row, at each of `deals`.

    At each deal the first SPC takes the first ones. The last tiles may lie beyond the extent, in part or as a whole.
    """

    extent: int
    tile: int
    share: int
    spcs: int
    deals: int = 1

    @property
    def tiles(self) -> int:
        """The tiles of all SPCs together."""
        return self.spcs * self.share

    @property
    def points(self) -> int:
        """The points of one SPC's share."""
        return self.share * self.tile

    @property
    def hand(self) -> int:
        """The points that one SPC takes at a deal."""
        return self.points // self.deals

    @property
    def dealt(self) -> int:
        """The points that all SPCs together take at a deal."""
        return self.spcs * self.hand

    @property
    def reached(self) -> int:
        """One past the last point of any tile."""
        return self.tiles * self.tile


def spreads(kernel: Kernel, tiling: Tiling) -> dict[str, Spread]:
    """The spread of every dimension by name.

    Dimensions that phases loop over, and reduced ones, stay on their SPC; blocks of row and column tiles are not cut.
    Where the programs of a vector kernel, each with all tiles that it has under way, can share no dimension evenly,
    they share the one with most tiles, and the last round has too few.
    """
    tile = kernel.tile_extents(tiling.tile)
    spcs = dict(tiling.spcs)
    blocks = _blocks(kernel, tiling, tile)
    deals = {} if kernel.contraction is None else {kernel.contraction.column: tiling.deals}
    looped = {name for phase in kernel.phases for name in phase.loops} if kernel.contraction is None else set()
    outer = {d.name for d in kernel.par_dims} - looped
    found = {
        d.name: _spread(
            d, tile[d.name], spcs.get(d.name, 1) if d.name in outer else 1, blocks.get(d.name, 1), deals.get(d.name, 1)
        )
        for d in kernel.space
    }
    shared = [found[d.name] for d in kernel.par_dims if d.name in outer]
    turns = tiling.programs * tiling.rows
    if kernel.contraction is not None or not shared or any(one.share % turns == 0 for one in shared):
        return found
    name = max((d.name for d in kernel.par_dims if d.name in outer), key=lambda name: found[name].share)
    return found | {name: _spread(kernel.dimension(name), tile[name], found[name].spcs, turns)}


def _spread(dimension: Dimension, tile: int, spcs: int, block: int, deals: int = 1) -> Spread:
    tiles = -(-dimension.extent // tile)
    share = -(-tiles // spcs)
    share = -(-share // (block * deals)) * block * deals
    return Spread(dimension.extent, tile, share, -(-tiles // share), deals)


def _blocks(kernel: Kernel, tiling: Tiling, tile: dict[str, int]) -> dict[str, int]:
    """How many tiles a block has along the dimensions that form blocks."""
    if kernel.contraction is None:
        return {}
    row = kernel.blocked_row(tile)
    rows = {row.name: tiling.rows} if row is not None else {}
    return rows | {kernel.contraction.column: tiling.columns}
