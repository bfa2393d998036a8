"""Tilings: whatever the kernel, tiles respect the capacities of the machine."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from networks import EXPORTED, exported_network
from op_cases import LARGE, OpCase
from pipeline import Compiled, compile_graph, compiled_plans

from birc.compiler.importer.importer import import_model
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Contraction, Kernel, Tiling
from birc.compiler.ir.registers import assign
from birc.runtime.machine import Machine


def check_tiling(kernel: Kernel, machine: Machine) -> None:
    tiling = kernel.tiling
    assert tiling is not None
    tile = {d.name: 1 for d in kernel.space} | dict(tiling.tile)
    extents = {d.name: d.extent for d in kernel.space}
    assert all(1 <= size <= extents[name] for name, size in tile.items())
    assert math.prod(tile[d.name] for d in kernel.par_dims) <= machine.vector_tile_elements
    assert math.prod(count for _, count in tiling.spcs) <= machine.spcs_per_die
    assert 1 <= tiling.programs <= machine.vector_programs
    assert assign(kernel.phases).count <= machine.vector_registers
    if kernel.contraction is not None:
        check_product(kernel.contraction, kernel, tile, tiling, machine)


def check_product(
    contraction: Contraction, kernel: Kernel, tile: dict[str, int], tiling: Tiling, machine: Machine
) -> None:
    format = machine.format(contraction.format)
    assert math.prod(tile[name] for name in contraction.row_dims) <= machine.tcore_rows
    assert math.prod(tile[name] for name in contraction.column_dims) <= machine.tcore_cols
    extents = {d.name: d.extent for d in kernel.space}
    depth = math.prod(tile[d.name] for d in kernel.red_dims)
    assert depth <= format.k_max
    reds = kernel.red_dims
    resident = reds[len(reds) - tiling.resident :]
    steps = math.prod(-(-d.extent // tile[d.name]) for d in resident)
    column_bytes = -(-depth // format.k_unit) * format.k_unit * format.bytes
    taps = [d.extent for d in resident if d.name in tiling.taps]
    assert tiling.b_slots >= tiling.columns * steps
    assert tiling.b_slots * 64 * column_bytes <= machine.gib_b_bytes
    a_tiles = steps // math.prod(taps) * tiling.rows
    if tiling.stream:
        a_tiles = 1 if tiling.columns == 1 else a_tiles // tiling.rows
    assert tiling.a_slots >= a_tiles
    rows = _patch_pixels(contraction, tile, extents, tiling) if taps else 64
    assert tiling.a_slots * max(64, rows) * column_bytes <= machine.gib_a_bytes


def _patch_pixels(contraction: Contraction, tile: dict[str, int], extents: dict[str, int], tiling: Tiling) -> int:
    """Elements of a patch, by the coordinates that its windows reach."""
    rows = 1
    for index in contraction.a.index[: contraction.rows]:
        reach = sum(factor * ((extents if name in tiling.taps else tile)[name] - 1) for name, factor in index.terms)
        rows *= reach + 1
    return rows


def _check_all(compiled: Compiled) -> None:
    for kernel in compiled.kernels:
        check_tiling(kernel, compiled.machine)


@pytest.mark.parametrize("target", ["br100", "tiny"])
@pytest.mark.parametrize("name", EXPORTED)
def test_networks(name: str, target: str) -> None:
    for compiled in compiled_plans(import_model(exported_network(name).model), target):
        _check_all(compiled)


def _uses() -> Iterator[object]:
    for place, large in enumerate(LARGE):
        built = OpCase(large.op, large.sample()).build()
        if built is not None and all(value.type.rank for value in built[0].inputs):
            yield pytest.param(built[0], id=f"{large.op}-{place}")


@pytest.mark.parametrize("graph", list(_uses())[::2])
@pytest.mark.parametrize("precision", ["model", "bf16"])
def test_larger_uses(graph: Graph, precision: str) -> None:
    _check_all(compile_graph(graph, "tiny", precision))
