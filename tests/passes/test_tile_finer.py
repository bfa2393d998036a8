"""Operations of less depth: what they are cut to, where, and that the product is the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compile_graph

from birc.codegen.program_code import generate
from birc.compiler.ir.plan import Contraction, KernelStep, Step, Tiling
from birc.compiler.ir.plan_verify_tiling import tiling_problems
from birc.compiler.passes.tile_contraction import TiledDepth
from birc.compiler.passes.tile_finer import LONG_CYCLES, finer


def product(depth: int = 256, machine: str = "tiny") -> Compiled:
    """Of whole numbers: their sums are the same in any order."""
    make, numbers = GraphMaker(), np.random.default_rng(2).integers(-3, 4, (depth, 64))
    weights = make.constant(numbers.astype(np.float32))
    return compile_graph(make.graph(make("matmul", make.input(64, depth), weights)), machine)


def contraction_and_tiling(case: Compiled) -> tuple[Contraction, Tiling]:
    kernel = case.kernels[0]
    assert kernel.contraction is not None
    assert kernel.tiling is not None
    return kernel.contraction, kernel.tiling


@pytest.mark.parametrize("depth", [64, 80, 256])
def test_operations_are_cut_in_parts_that_the_tcore_takes_whole(depth: int) -> None:
    case = product(depth)
    contraction, tiling = contraction_and_tiling(case)
    kernel, unit = case.kernels[0], case.machine.format(contraction.format).k_unit
    deepest = kernel.red_dims[-1].name
    whole = dict(tiling.tile)[deepest]
    found = list(finer(kernel, TiledDepth(0, tiling), LONG_CYCLES, case.machine))
    for parts, cut in zip((2, 4), found, strict=False):
        assert dict(cut.tiling.tile)[deepest] * parts == whole
        assert dict(cut.tiling.tile)[deepest] % unit == 0
        assert (cut.tiling.a_slots, cut.tiling.b_slots) == (parts * tiling.a_slots, parts * tiling.b_slots)
        assert not list(tiling_problems(cut.of(kernel), case.machine))
    assert bool(found) == (whole % (2 * unit) == 0)


def test_operations_of_long_kernels_are_cut_in_two_alone() -> None:
    case = product(256, "br100")
    _, tiling = contraction_and_tiling(case)
    chosen = TiledDepth(0, replace(tiling, tile=(*tiling.tile, ("k0", 256)), a_slots=2, b_slots=2))
    short, long = (list(finer(case.kernels[0], chosen, n, case.machine)) for n in (LONG_CYCLES, LONG_CYCLES + 1))
    assert [dict(cut.tiling.tile)["k0"] for cut in short] == [128, 64]
    assert long == short[:1]


def test_the_product_is_the_same() -> None:
    case = product()
    _, tiling = contraction_and_tiling(case)
    inputs = {"x0": np.random.default_rng(1).integers(-3, 4, (64, 256)).astype(np.float32)}
    (whole,) = case.values(inputs).values()
    for cut in finer(case.kernels[0], TiledDepth(0, tiling), LONG_CYCLES, case.machine):

        def changed(step: Step, cut: TiledDepth = cut) -> Step:
            if not isinstance(step, KernelStep):
                return step
            return replace(step, kernels=tuple(kernel and cut.of(kernel) for kernel in step.kernels))

        plan = replace(case.plan, steps=tuple(map(changed, case.plan.steps)))
        other = replace(case, plan=plan, program=generate(plan, case.machine).program)
        other.verify()
        for values in (other.values(inputs), other.step(inputs, "random", 1)):
            np.testing.assert_array_equal(next(iter(values.values())), whole)
