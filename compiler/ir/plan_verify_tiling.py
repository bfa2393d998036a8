"""What must hold of a kernel's tiling: extents, blocks, buffers and registers within the machine's limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from birc.compiler.ir.depth_steps import depth_steps, resident_steps
from birc.compiler.ir.plan import BLOCK, TILE, WHOLE, Access, Contraction, Index, Kernel, Statement, Tiling
from birc.compiler.ir.plan_access import accesses_of
from birc.compiler.ir.plan_panels import panel_tiling_problems
from birc.compiler.ir.plan_patch import patch_of, patch_problems, slot_bytes, window_problems
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.ir.plan_verify_kernel import bounds, reach
from birc.compiler.ir.plan_verify_order import tile_order_problems
from birc.compiler.ir.plan_winding import winding_problems, winds_through_depth
from birc.compiler.ir.registers import epilogue_of, program_registers, vector_registers
from birc.compiler.ir.semaphores import of_product, semaphores_there
from birc.compiler.ir.tile_order import IN_TURN, OVERLAPPING, WINDING
from birc.runtime.machine import Machine

HOISTS: Final = ("", "a", "b")
NEUTRAL: Final[Mapping[str, Callable[[float], bool]]] = {
    "vredsum": lambda value: value == 0.0,
    "vredprod": lambda value: value == 1.0,
    "vredmax": lambda value: value <= -(1 << 31),
    "vredmin": lambda value: value >= (1 << 31) - 1,
}
"""Which numbers leave the result of a reduction as it is; the least and largest INT32 do so for integers."""


def tiling_problems(kernel: Kernel, machine: Machine) -> Iterator[str]:
    """Every broken rule of the tiling of a kernel that is itself correct."""
    tiling = kernel.tiling
    if tiling is None:
        yield "has no tiling"
        return
    problems = list(_shape_problems(kernel, tiling, machine))
    yield from problems
    if problems:
        return
    tile = kernel.tile_extents(tiling.tile)
    *outer, last = (tile[d.name] for d in kernel.par_dims)
    elements = math.prod(outer) * max(last, kernel.whole_extent)
    if elements > machine.vector_tile_elements:
        yield f"a register tile has {elements} elements, holds {machine.vector_tile_elements}"
    for owner, access in accesses_of(kernel):
        yield from (f"{owner}: {what}" for what in _box_problems(access, tile))
    if kernel.contraction is not None:
        yield from _product_problems(kernel, kernel.contraction, tiling, tile, machine)
        yield from _depth_overrun(kernel, kernel.contraction, tile)
    yield from _register_problems(kernel, tiling, tile, machine)
    yield from _overrun_problems(kernel, tile)


def _shape_problems(kernel: Kernel, tiling: Tiling, machine: Machine) -> Iterator[str]:
    extents = {d.name: d.extent for d in kernel.space}
    par = {d.name for d in kernel.par_dims}
    for name, extent in tiling.tile:
        if name not in extents:
            yield f"tiles {name}, which is no dimension"
        elif not 1 <= extent <= extents[name]:
            yield f"the tile has extent {extent} along {name}, must be 1 to {extents[name]}"
        elif kernel.dimension(name).kind == WHOLE and extent < extents[name]:
            yield f"the tile has {extent} of {extents[name]} along {name}, which is seen as a whole"
    for name, count in tiling.spcs:
        if name not in par or count < 1:
            yield f"spreads {name} over {count} SPCs, must be a par dimension and 1 or more"
    used = math.prod(count for _, count in tiling.spcs)
    if used > machine.spcs_per_die:
        yield f"uses {used} SPCs, a die has {machine.spcs_per_die}"
    for what, names in (("tiles", tiling.tile), ("spreads", tiling.spcs)):
        if len(dict(names)) != len(names):
            yield f"{what} a dimension twice"
    counts = (tiling.rows, tiling.columns, tiling.a_slots, tiling.b_slots, tiling.programs)
    if min(counts) < 1:
        yield "rows, columns, slots and programs must be 1 or more"
    if not 0 <= tiling.resident <= len(kernel.red_dims):
        yield f"keeps {tiling.resident} depth loops resident, there are {len(kernel.red_dims)}"
    if tiling.hoist not in HOISTS:
        yield f"hoists {tiling.hoist!r}, must be a, b or nothing"
    yield from _program_problems(kernel, tiling, machine)


def _program_problems(kernel: Kernel, tiling: Tiling, machine: Machine) -> Iterator[str]:
    if tiling.turns not in (TILE, BLOCK) or (tiling.turns == BLOCK and tiling.rows * tiling.columns == 1):
        yield f"vector programs take {tiling.turns!r} in turn, must be {TILE}, or {BLOCK} where it has several tiles"
    if kernel.contraction is not None and tiling.turns == TILE and tiling.rows * tiling.columns > 1:
        what, count = ("columns", tiling.columns) if tiling.columns > 1 else ("rows", tiling.rows)
        if tiling.programs not in (1, count):
            yield f"{tiling.programs} vector programs take {count} {what} of a block in turn, must be as many, or one"
    if tiling.once and kernel.contraction is not None:
        yield "executes a phase once for all tiles, which products do not"
    if tiling.ahead and (kernel.contraction is not None or tiling.once or tiling.rows > 1):
        yield "loads ahead, which only vector kernels do, and no others that load once or have tiles under way together"
    if tiling.order != IN_TURN and kernel.contraction is None:
        yield f"takes its tiles in the order {tiling.order.name}, but is no product"
    if tiling.eager and kernel.contraction is None:
        yield "is eager to load what goes past tiles of another operand, but is no product"
    may_deal = kernel.contraction is not None and tiling.order not in (WINDING, OVERLAPPING)
    if tiling.deals < 1 or (tiling.deals > 1 and not may_deal):
        yield f"deals out columns {tiling.deals} times, which products do that neither wind past them nor overlap rows"
    if tiling.programs > machine.vector_programs:
        yield f"uses {tiling.programs} vector programs, an SPC has {machine.vector_programs}"
    if kernel.contraction is not None and of_product(tiling.programs) > semaphores_there(machine):
        yield f"needs {of_product(tiling.programs)} semaphores, an SPC has {semaphores_there(machine)}"


def _box_problems(access: Access, tile: Mapping[str, int]) -> Iterator[str]:
    """A box moves along each of its axes with one tiled dimension at most."""
    for axis, index in enumerate(access.index):
        tiled = [name for name, _ in index.terms if tile[name] > 1]
        if len(tiled) > 1:
            yield f"axis {axis} moves with several tiled dimensions: {', '.join(tiled)}"


def _product_problems(
    kernel: Kernel, contraction: Contraction, tiling: Tiling, tile: Mapping[str, int], machine: Machine
) -> Iterator[str]:
    """One T-core operation, and the input buffers that hold its operands."""
    yield from (
        f"the tile has {tile[name]} columns along {name}, must have all {kernel.dimension(name).extent}"
        for name in contraction.column_dims[1:]
        if tile[name] != kernel.dimension(name).extent
    )
    rows = math.prod(tile[name] for name in contraction.row_dims)
    columns = math.prod(tile[name] for name in contraction.column_dims)
    depth = math.prod(tile[d.name] for d in kernel.red_dims)
    form = machine.format(contraction.format)
    windows = list(_window_problems(kernel, contraction, tiling, tile, machine)) if tiling.taps else []
    yield from windows
    if windows:
        return
    for what, count, limit in (
        ("rows", rows, machine.tcore_rows),
        ("columns", columns, machine.tcore_cols),
        ("depth", depth, form.k_max),
    ):
        if count > limit:
            yield f"a T-core operation has {what} {count}, at most {limit}"
    b = contraction.b.index
    of_panels = [
        part
        for panel in contraction.panels
        for part in (
            ("rows of a", panel.index[: contraction.rows], rows),
            ("depth of a", panel.index[contraction.rows :], depth),
        )
    ]
    for what, index, count in (
        *of_panels,
        ("depth of b", b[: contraction.depth], depth),
        ("columns of b", b[contraction.depth :], columns),
    ):
        loaded = _box_elements(index, tile)
        if loaded != count:
            yield f"a load brings {loaded} {what}, an operation takes {count}"
    steps = depth_steps(kernel, tiling)
    resident = resident_steps(kernel, tiling)
    row = resident // math.prod(kernel.dimension(name).extent for name in tiling.taps)
    a_tiles = row * tiling.rows
    if tiling.stream:
        a_tiles = 1 if tiling.columns == 1 else row
    for operand, tiles, slots, num_bytes, capacity in zip(
        ("a", "b"),
        (a_tiles, _least_of_b(kernel, tiling)),
        (tiling.a_slots, tiling.b_slots),
        slot_bytes(kernel, contraction, tiling, machine),
        (machine.gib_a_bytes, machine.gib_b_bytes),
        strict=True,
    ):
        if slots * num_bytes > capacity:
            yield f"operand {operand} needs {slots * num_bytes} B of its input buffer, there are {capacity}"
        if slots < tiles:
            yield f"operand {operand} has {slots} slots, {tiles} of its tiles are in use at once"
    yield from tile_order_problems(kernel, contraction, tiling, row)
    yield from winding_problems(kernel, contraction, tiling, row)
    if contraction.further:
        yield from panel_tiling_problems(contraction, tile)
    if tiling.hoist and resident != steps:
        yield f"hoists {tiling.hoist}, but the depth is not resident"


def may_pass_columns(tiling: Tiling) -> bool:
    """Whether tiles of columns may pass, loaded one by one as the T-core takes them: each is used once in its block."""
    return tiling.rows == 1 and not tiling.hoist


def _least_of_b(kernel: Kernel, tiling: Tiling) -> int:
    """The tiles of b that are in use at once."""
    steps = resident_steps(kernel, tiling)
    if winds_through_depth(kernel, tiling):
        return -(-steps // 2)  # What a row leaves makes room for as much.
    return steps if may_pass_columns(tiling) else tiling.columns * steps


def _window_problems(
    kernel: Kernel, contraction: Contraction, tiling: Tiling, tile: Mapping[str, int], machine: Machine
) -> Iterator[str]:
    """What is wrong with windows of a patch."""
    patch = patch_of(kernel, tiling.taps)
    if patch is None or set(patch.taps) != set(tiling.taps):
        found = "no taps move" if patch is None else f"the taps {', '.join(patch.taps)} move"
        yield f"moves windows with {', '.join(tiling.taps)}, but {found} a window by whole pixels"
        return
    innermost = [d.name for d in kernel.red_dims[-len(tiling.taps) :]]
    if set(innermost) != set(tiling.taps) or tiling.resident < len(tiling.taps):
        yield f"moves windows with {', '.join(tiling.taps)}, which are not the innermost resident depth loops"
    yield from patch_problems(patch, kernel, contraction, machine)
    yield from window_problems(patch, kernel, contraction, tile, machine)


def _box_elements(index: tuple[Index, ...], tile: Mapping[str, int]) -> int:
    return math.prod(tile[name] for coordinate in index for name, _ in coordinate.terms)


def _register_problems(kernel: Kernel, tiling: Tiling, tile: Mapping[str, int], machine: Machine) -> Iterator[str]:
    if kernel.contraction is None:
        problems = list(_once_problems(kernel, tiling)) if tiling.once else []
        problems += _ahead_problems(kernel, tiling) if tiling.ahead else []
        yield from problems
        if problems:
            return
        needed = tiling.programs * tiling.rows * vector_registers(kernel.phases, tiling.once, tiling.ahead).count
    else:
        by_block, tiles = tiling.turns == BLOCK, tiling.rows * tiling.columns
        after = epilogue_of(kernel, tiling, machine.vector_registers)
        needed = tiling.programs * program_registers(after, tiling)
        streamed = kernel.red_dims[: len(kernel.red_dims) - tiling.resident]
        if not by_block and tiles > 1 and any(d.extent > tile[d.name] for d in streamed):
            needed += tiles
        if after.is_rowwise:
            yield from _row_problems(kernel, kernel.contraction, tiling, tile)
    if needed > machine.vector_registers:
        yield f"needs {needed} vector registers, there are {machine.vector_registers}"


def _once_problems(kernel: Kernel, tiling: Tiling) -> Iterator[str]:
    """What a program loads once is the same in all of its tiles."""
    if len(kernel.phases) < 2 or kernel.phases[0].loops:
        yield "executes a first phase once, but has none apart from others"
        return
    spread = spreads(kernel, tiling)
    for statement in kernel.phases[0].statements:
        if statement.op != "vld" or statement.access is None:
            yield f"executes {statement.op} once, must be loads"
            continue
        moving = {name for index in statement.access.index for name, _ in index.terms}
        for name in sorted(name for name in moving if spread[name].share > 1):
            yield f"loads {statement.result} once, which moves along {name} in {spread[name].share} tiles"


def _ahead_problems(kernel: Kernel, tiling: Tiling) -> Iterator[str]:
    """A program that loads ahead has several tiles along one dimension, and goes through them once."""
    if len(kernel.phases) > 1 or kernel.phases[0].loops:
        yield "loads ahead, but has several phases, or loops"
        return
    shares = [spread.share for spread in spreads(kernel, tiling).values() if spread.share > 1]
    if len(shares) != 1 or shares[0] % tiling.programs or shares[0] < 2 * tiling.programs:
        yield f"loads ahead, which takes several tiles a program, along one dimension alone; an SPC has {shares}"


def _row_problems(kernel: Kernel, contraction: Contraction, tiling: Tiling, tile: Mapping[str, int]) -> Iterator[str]:
    """An epilogue about whole rows needs all tiles of a row in one block, and one program that takes it."""
    name = contraction.column
    tiles = -(-kernel.dimension(name).extent // tile[name])
    if tiling.turns != BLOCK or tiling.columns != tiles:
        yield f"walks rows of {tiles} tiles, a block has {tiling.columns} and programs take a {tiling.turns} in turn"


def _depth_overrun(kernel: Kernel, contraction: Contraction, tile: Mapping[str, int]) -> Iterator[str]:
    """Where tiles reach beyond a reduced dimension, an operand must end with it: beyond are zeros."""
    for dimension in kernel.red_dims:
        if dimension.extent % tile[dimension.name] == 0:
            continue
        if not any(_ends_with(access, dimension.name, dimension.extent) for access in contraction.operands):
            yield f"tiles of {tile[dimension.name]} reach beyond {dimension.name}, where no operand ends"


def _overrun_problems(kernel: Kernel, tile: Mapping[str, int]) -> Iterator[str]:
    """Where tiles reach beyond an independent dimension, nothing may be stored, and nothing reduced."""
    extents = {d.name: d.extent for d in kernel.space}
    ragged = {d.name for d in kernel.par_dims if d.extent % tile[d.name]}
    made = {s.result: s for phase in kernel.phases for s in phase.statements if s.result}
    for phase in kernel.phases:
        for statement in phase.statements:
            for name in sorted(ragged & set(statement.dims)):
                if not _is_neutral_beyond(statement, name, extents[name], made):
                    yield f"{statement.op}: tiles of {tile[name]} reach beyond {name}, which it reduces"
            if statement.op == "vst" and statement.access is not None:
                yield from _store_overruns(statement.access, ragged, extents)


def _is_neutral_beyond(statement: Statement, name: str, extent: int, made: Mapping[str, Statement]) -> bool:
    """Whether what a reduction or fold takes from beyond a dimension changes nothing.

    A fold takes the result of a reduction; a reduction selects, by a load that ends with the dimension,
    between its values and the neutral element.
    """
    source = _producer(statement.arguments[0], made)
    if source is None:
        return False
    if statement.op.startswith("vfold"):
        return source.op == statement.op.replace("vfold", "vred") and name in source.dims
    if source.op != "vsel":
        return False
    condition, _, other = source.arguments
    mask = _producer(condition, made)
    is_mask = mask is not None and mask.access is not None and _ends_with(mask.access, name, extent)
    return is_mask and isinstance(other, float) and NEUTRAL[statement.op](other)


def _producer(argument: str | float, made: Mapping[str, Statement]) -> Statement | None:
    return made.get(argument) if isinstance(argument, str) else None


def _store_overruns(access: Access, ragged: set[str], extents: Mapping[str, int]) -> Iterator[str]:
    for axis, (index, (_, end)) in enumerate(zip(access.index, bounds(access.view), strict=True)):
        names = {name for name, _ in index.terms} & ragged
        beyond = [index.constant + factor * extents[name] for name, factor in index.terms if name in names]
        if names and reach(index, extents)[1] + 1 != end and min(beyond) < end:
            yield f"vst: tiles reach beyond {', '.join(sorted(names))}, the view goes on along axis {axis}"


def _ends_with(access: Access, name: str, extent: int) -> bool:
    """Whether the access leaves its view, and reads zeros, exactly where a dimension ends."""
    return access.fill == "zero" and any(
        index.terms == ((name, 1),) and end == index.constant + extent
        for index, (_, end) in zip(access.index, bounds(access.view), strict=True)
    )
