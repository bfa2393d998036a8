"""Rows of tiles that one vector program finishes while it takes the sums of the next: which, and along what.

The program has one register for each tile of a row. As soon as the powers of a tile are stored, the sum of the same
tile of the next row takes its register.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from birc.compiler.ir.plan import Kernel, Phase, Statement, Tiling
from birc.compiler.ir.plan_spread import spreads
from birc.runtime.isa import BY_MNEMONIC

TILES_AHEAD = 2
"""How many tiles special functions are ahead of what is done with their results."""


def powers_apart(
    statements: tuple[Statement, ...], kept: Collection[str], loads: Collection[Statement]
) -> list[tuple[Statement, ...]]:
    """A phase cut in two behind its last special function, if all that the rest reads of a tile is `kept` for it.

    Queues issue in order: a sum of powers would wait for each power, and the next tile behind it.
    """
    special = [n for n, s in enumerate(statements) if BY_MNEMONIC[s.op].pipe == "sfu"]
    if not special or special[-1] + 1 == len(statements) or loads:
        return [statements]
    before, after = statements[: special[-1] + 1], statements[special[-1] + 1 :]
    made = {s.result for s in before} - set(kept)
    if any(argument in made for s in after for argument in s.arguments):
        return [statements]
    return [before, after]


def can_overlap(phases: Sequence[Phase], kept: Collection[str]) -> bool:
    """Whether rows can overlap: their sums go through the first phase, another one over tiles computes powers."""
    looped = [phase for phase in phases if phase.loops]
    if len(looped) != 2 or looped[0] is not phases[0]:
        return False
    loads = [s for s in looped[1].statements if s.op in ("vld", "vldx")]
    return len(powers_apart(looped[1].statements, kept, loads)) == 2


def overlapped_dimension(kernel: Kernel, tiling: Tiling) -> str:
    """The dimension along which the rows of tiles of an SPC follow each other most closely; "" when it has only one."""
    contraction = kernel.contraction
    if contraction is None:
        return ""
    spread = spreads(kernel, tiling)
    inside = {*contraction.row_dims, *contraction.column_dims}
    order = [*(d.name for d in kernel.par_dims if d.name not in inside), *contraction.row_dims]
    return next((name for name in reversed(order) if spread[name].share > 1), "")
