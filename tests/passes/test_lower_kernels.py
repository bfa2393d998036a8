"""The shape of lowered kernels: which dimensions remain, how many kernels, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from networks import relative_error
from pipeline import compile_graph

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel
from birc.compiler.passes.base import run_passes
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.coalesce import coalesce
from birc.compiler.passes.lower.lower import lower_graph
from birc.runtime.errors import DoesNotFitError, UnsupportedError
from birc.runtime.machine import load_machine

CONV = {"stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1), "group": 1}


def kernels(graph: Graph) -> tuple[Kernel, ...]:
    """The kernels of a graph, laid out and fused, on `tiny`."""
    return lower_graph(run_passes(graph, (*LEGALIZE, Fuse())), load_machine("tiny"), "model").kernels


def extents(kernel: Kernel) -> tuple[list[int], list[int]]:
    """Extents of the par and of the red dimensions."""
    return [d.extent for d in kernel.par_dims], [d.extent for d in kernel.red_dims]


def test_dense_dimensions_become_one() -> None:
    make = GraphMaker()
    (kernel,) = kernels(make.graph(make("relu", make.input(2, 1, 3, 5, 1, 7))))
    assert extents(kernel) == ([210], [])


def test_no_dimension_grows_beyond_the_limit() -> None:
    make = GraphMaker()
    (kernel,) = kernels(make.graph(make("relu", make.input(5, 2, 4096))))
    assert extents(kernel) == ([10, 4096], [])


def test_broadcast_keeps_dimensions_apart() -> None:
    make = GraphMaker()
    (kernel,) = kernels(make.graph(make("add", make.input(2, 3, 5, 7), make.input(5, 1))))
    assert extents(kernel) == ([6, 5, 7], [])


def test_transposed_operand_keeps_dimensions_apart() -> None:
    make = GraphMaker()
    x = make.input(4, 3, 5)
    (kernel,) = kernels(make.graph(make("relu", make("transpose", x, perm=(1, 2, 0)))))
    assert extents(kernel) == ([15, 4], [])


def test_batch_joins_the_rows_of_a_product_with_one_matrix() -> None:
    make = GraphMaker()
    (kernel,) = kernels(make.graph(make("matmul", make.input(2, 3, 8, 16), make.random(16, 5))))
    assert extents(kernel) == ([48, 5], [16])
    assert kernel.macs == 48 * 16 * 5


def test_batch_of_two_stacks_of_matrices_stays() -> None:
    make = GraphMaker()
    (kernel,) = kernels(make.graph(make("matmul", make.input(2, 3, 8, 16), make.input(2, 3, 16, 5))))
    assert extents(kernel) == ([2, 3, 8, 5], [16])


def test_deep_product_has_two_depth_dimensions() -> None:
    make = GraphMaker()
    (kernel,) = kernels(make.graph(make("matmul", make.input(2, 10_000), make.input(10_000, 3))))
    assert extents(kernel) == ([2, 3], [2, 5000])


def test_pointwise_convolution_is_a_product() -> None:
    make = GraphMaker()
    pooled = make("max_pool2d", make.input(2, 8, 6, 7), kernel=(1, 1), stride=(1, 1), pads=(0,) * 4, dilation=(1, 1))
    point = make("conv2d", pooled, make.random(4, 8, 1, 1), **{**CONV, "pads": (0, 0, 0, 0)})
    _, kernel = kernels(make.graph(make("relu", make("max_pool2d", point, kernel=(1, 1), stride=(1, 1), pads=(0,) * 4,
                                                     dilation=(1, 1)))))[:2]  # fmt: skip
    assert extents(kernel) == ([84, 4], [8])


def test_stem_convolution_pads_its_image_first() -> None:
    make = GraphMaker()
    graph = make.graph(make("conv2d", make.input(1, 3, 20, 20), make.random(8, 3, 3, 3), **CONV))
    pixels, product = kernels(graph)
    assert pixels.contraction is None
    assert extents(product)[1] == [3, 9]


def test_depthwise_convolution_runs_on_the_vector_cores() -> None:
    make = GraphMaker()
    graph = make.graph(make("conv2d", make.input(1, 8, 9, 9), make.random(8, 1, 3, 3), **{**CONV, "group": 8}))
    (kernel,) = kernels(graph)
    assert kernel.contraction is None
    assert kernel.macs == 8 * 81 * 9


@pytest.mark.parametrize(("window", "is_product"), [((3, 3), False), ((7, 7), True)])
def test_one_channel_under_a_small_window_needs_no_product(window: tuple[int, int], is_product: bool) -> None:
    make = GraphMaker()
    graph = make.graph(make("conv2d", make.input(1, 1, 40, 40), make.input(1, 1, *window), **CONV))
    (kernel,) = kernels(graph)
    assert (kernel.contraction is not None) == is_product


def test_views_cost_no_kernel() -> None:
    make = GraphMaker()
    x = make.input(4, 6)
    turned = make("transpose", make("reshape", x, shape=(2, 2, 6)), perm=(2, 0, 1))
    part = make("expand", make("slice", turned, starts=(1, 0, 0), ends=(5, 2, 1), steps=(2, 1, 1)), shape=(2, 2, 3))
    assert len(kernels(make.graph(make("neg", part)))) == 1


def test_reshape_that_no_strides_express_is_one_copy() -> None:
    make = GraphMaker()
    flat = make("reshape", make("transpose", make.input(4, 6), perm=(1, 0)), shape=(24,))
    assert len(kernels(make.graph(make("neg", flat)))) == 2


def test_pad_with_a_value_writes_each_element_once() -> None:
    make = GraphMaker()
    (kernel,) = kernels(make.graph(make("pad", make.input(4, 6), pads=(1, 0, 0, 1), value=2.0)))
    assert sum(s.op == "vst" for phase in kernel.phases for s in phase.statements) == 1


def test_norm_over_a_short_axis_is_one_phase_over_a_long_axis_three() -> None:
    for size, phases in ((4096, 1), (4097, 3)):
        make = GraphMaker()
        (kernel,) = kernels(make.graph(make("softmax", make.input(2, size), axis=1)))
        assert len(kernel.phases) == phases


def test_coalesce_again_changes_nothing() -> None:
    make = GraphMaker()
    x = make.input(2, 8, 9, 9)
    graph = make.graph(make("add", make("conv2d", x, make.random(8, 8, 3, 3), **CONV), make.input(8, 1, 1)))
    for kernel in kernels(graph):
        assert coalesce(kernel, 8192) == kernel


def test_every_unsupported_node_is_named() -> None:
    make = GraphMaker()
    make.input(4, element="i32")
    wide = make.input(4, element="f64")
    graph = make.graph(make("div", wide, wide), make("neg", wide), make("not", make("equal", wide, wide)))
    with pytest.raises(UnsupportedError) as caught:
        kernels(graph)
    message = str(caught.value)
    assert all(name in message for name in ("input x1", "div (n0)", "neg (n1)", "equal (n2)"))
    assert "not (n3)" not in message


def test_ranks_that_merge_are_one_kernel_and_others_several() -> None:
    shape = (3, 2, 3, 2, 3, 2, 3)
    make = GraphMaker()
    seven = make("reshape", make.input(27, 24), shape=shape)
    assert len(kernels(make.graph(make("reshape", make("relu", seven), shape=(27, 24))))) >= 1
    make = GraphMaker()
    seven = make("reshape", make.input(27, 24), shape=shape)
    crossed = make(
        "add",
        make("transpose", seven, perm=(2, 1, 0, 3, 6, 5, 4)),
        make("transpose", seven, perm=(0, 3, 2, 1, 4, 5, 6)),
    )
    made = kernels(make.graph(make("reshape", crossed, shape=(27, 24))))
    assert [len(kernel.par_dims) for kernel in made[:2]] == [6, 6]


@pytest.mark.parametrize("op", ["matmul", "softmax"])
def test_what_two_dimensions_cannot_walk_does_not_fit(op: str) -> None:
    length = 8192 * 8192 + 1
    make = GraphMaker()
    x = make.input(2, length)
    made = make("matmul", x, make.input(length, 2)) if op == "matmul" else make("softmax", x, axis=1)
    with pytest.raises(DoesNotFitError, match=rf"node n0: .* {length} has no factors of at most 8192"):
        kernels(make.graph(made))


def test_deep_sums_of_integers_must_have_been_cut() -> None:
    make = GraphMaker()
    graph = make.graph(make("matmul", make.input(2, 2000, element="i8"), make.input(2000, 2, element="i8")))
    with pytest.raises(UnsupportedError, match=r"n0.*sums up to 32768000 are more than 16777216"):
        lower_graph(graph, load_machine("tiny"), "model")


@pytest.mark.parametrize("shape", [(6, 24), (2, 6, 24)])
def test_a_product_takes_equal_rows(shape: tuple[int, ...]) -> None:
    make = GraphMaker()
    rows = make("expand", make.input(*shape[:-2], 1, 24), shape=shape)
    compiled = compile_graph(make.graph(make("matmul", rows, make.input(24, 10))), "br100")
    compiled.verify()
    inputs = random_inputs(compiled.graph)
    x, w = inputs.values()
    (result,) = compiled.step(inputs).values()
    assert relative_error(result, np.broadcast_to(x, shape) @ w) <= 1e-4
