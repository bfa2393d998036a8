"""Vector programs share the tiles of a dimension also where they do not come out even."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from pipeline import compile_graph

from birc.compiler.ir.plan import Kernel, Tiling
from birc.compiler.ir.plan_spread import spreads
from birc.compiler.passes.tile_vector import with_most_programs
from birc.compiler.prove import new_prover
from birc.runtime.machine import Machine, load_machine
from birc.runtime.timing import simulate


@pytest.mark.parametrize("target", ["br100", "tiny"])
@pytest.mark.parametrize(("rows", "spcs", "programs"), [(19, 1, 4), (19, 2, 7), (3, 1, 7), (11, 3, 3), (4, 4, 2)])
def test_values(rows: int, spcs: int, programs: int, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def uneven(kernel: Kernel, machine: Machine) -> Tiling:
        outer, inner = kernel.par_dims
        shared = ((outer.name, min(spcs, machine.spcs_per_die)),)
        return Tiling(((outer.name, 1), (inner.name, inner.extent)), shared, programs=programs)

    monkeypatch.setattr("birc.compiler.passes.tile.tile_vector_kernel", uneven)
    make = GraphMaker()
    graph = make.graph(make("add", make.input(1, 2 * rows, 70), make.input(70)))
    compiled = compile_graph(graph, target)
    compiled.verify()
    new_prover().prove(compiled.plan, compiled.machine)
    inputs = random_inputs(graph)
    values, counts = compiled.values_counted(inputs)
    x, y = inputs.values()
    np.testing.assert_array_equal(next(iter(values.values())), x + y)
    np.testing.assert_array_equal(next(iter(compiled.step(inputs, "random", 2).values())), x + y)
    assert simulate(compiled.program, compiled.machine).counts == counts


def test_as_few_programs_as_leave_each_as_little_to_do() -> None:
    make = GraphMaker()
    (kernel, *_) = compile_graph(make.graph(make("add", make.input(1, 76, 4000), make.input(4000))), "tiny").kernels
    outer, inner = kernel.par_dims
    rows = outer.extent
    tiling = Tiling(((outer.name, 1), (inner.name, inner.extent)))
    most = with_most_programs(kernel, tiling, load_machine("tiny"))
    assert -(-rows // most.programs) == -(-rows // 7)
    assert -(-rows // (most.programs - 1)) > -(-rows // most.programs)
    assert spreads(kernel, most)[outer.name].share == -(-rows // most.programs) * most.programs
    assert spreads(kernel, replace(most, programs=2))[outer.name].share == rows + rows % 2
