"""Windows: what a program holds its run-time parameters to, and attributes that contradict the sizes."""

from __future__ import annotations

import numpy as np
import pytest
from lowering_case import F32, I64, Case, case, f32, ints

from birc.compiler.driver import compile_model
from birc.compiler.importer.importer import import_parts
from birc.runtime import load
from birc.runtime.errors import BadModelError, BircError

IMAGE = f32(1, 2, 6, 6)


def run(entry: Case, **changed: np.ndarray) -> np.ndarray:
    """What the compiled node makes of its inputs, some of them changed."""
    model, given = entry.model()
    return load(compile_model(model, target="tiny")).run({**given, **changed})["o0"]


def test_columns_of_another_block_than_the_sizes_allow_are_refused() -> None:
    entry = case("Col2Im", f32(2, 8, 4), ints(4, 4), ints(1, 4), shapes=((2, 2, 4, 4),))
    assert run(entry, i2=ints(4, 1)).shape == (2, 2, 4, 4)
    with pytest.raises(BircError):
        run(entry, i2=ints(2, 2))
    with pytest.raises(BircError):
        run(entry, i1=ints(4, 5))


def test_a_maximum_that_lies_outside_of_its_window_is_refused() -> None:
    shape = (1, 8, 24, 24)
    batch, channel, row, column = np.indices(shape)
    inside = np.ravel_multi_index((batch, channel, 2 * row, 2 * column), (1, 8, 48, 48))
    entry = case("MaxUnpool", f32(*shape), inside.astype(I64), kernel_shape=[2, 2], strides=[2, 2])
    assert np.count_nonzero(run(entry)) == inside.size
    with pytest.raises(BircError):
        run(entry, i1=np.roll(inside, 1, axis=3).astype(I64))


def test_unpooled_to_another_shape_than_declared_is_refused() -> None:
    entry = case("MaxUnpool", f32(1, 1, 2, 2), np.array([[[[0, 2], [8, 10]]]], I64), ints(1, 1, 5, 5),
                 kernel_shape=[2, 2], strides=[2, 2], shapes=((1, 1, 5, 5),))  # fmt: skip
    assert run(entry).shape == (1, 1, 5, 5)
    with pytest.raises(BircError):
        run(entry, i2=ints(1, 1, 6, 5))


WHOLE = {"kernel_shape": [6, 6]}
LARGER = {"kernel_shape": [1280, 9], "strides": [1280, 9], "ceil_mode": 1}


@pytest.mark.parametrize(
    ("entry", "op", "expected"),
    [
        (case("AveragePool", IMAGE, **WHOLE), "reduce_mean", IMAGE.mean((2, 3), keepdims=True)),
        (case("MaxPool", IMAGE, **WHOLE), "reduce_max", IMAGE.max((2, 3), keepdims=True)),
        (case("AveragePool", IMAGE, opset=19, **LARGER), "reduce_mean", IMAGE.mean((2, 3), keepdims=True)),
        (case("MaxPool", IMAGE, **LARGER), "reduce_max", IMAGE.max((2, 3), keepdims=True)),
        (case("LpPool", IMAGE, opset=18, p=1, **LARGER), "avg_pool2d", np.abs(IMAGE).sum((2, 3), keepdims=True)),
        (
            case("AveragePool", IMAGE, opset=19, **LARGER, pads=[1, 0, 1, 0], count_include_pad=1),
            "avg_pool2d",
            IMAGE.mean((2, 3), keepdims=True) * (6 / 8),
        ),
        (
            case("MaxPool", IMAGE, kernel_shape=[4, 2], dilations=[3, 1], strides=[5, 2], ceil_mode=1),
            "max_pool2d",
            IMAGE[:, :, ::3].reshape(1, 2, 2, 3, 2).max((2, 4)).reshape(1, 2, 1, 3),
        ),
    ],
)
def test_windows_are_no_larger_than_the_image(entry: Case, op: str, expected: np.ndarray) -> None:
    """A window of a thousand rows over six is six rows; one that is all of the image is no window."""
    (part,) = import_parts(entry.model()[0]).parts
    nodes = {node.op: node for node in part.graph.nodes}
    assert op in nodes
    if op.endswith("pool2d"):
        assert max(nodes[op].attributes["kernel"]) <= 8
    np.testing.assert_allclose(run(entry), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (case("MaxPool", IMAGE, kernel_shape=[7, 2]), "does not fit"),
        (case("AveragePool", IMAGE, kernel_shape=[2]), "dimensions over 2"),
        (case("LpPool", IMAGE, kernel_shape=[2, 2], p=0), "p is 0"),
        (case("Conv", IMAGE, f32(3, 2, 7, 1)), "does not fit"),
        (case("Conv", IMAGE, f32(3, 2, 2, 2), strides=[0, 1]), "strides"),
        (case("ConvTranspose", IMAGE, f32(3, 2, 2, 2)), "channels"),
        (case("ConvTranspose", IMAGE, f32(2, 2, 2, 2), pads=[4, 4, 4, 4]), "elements"),
        (case("ConvTranspose", IMAGE, f32(2, 2, 2, 2), output_padding=[-1, 0]), "output_padding"),
        (case("DeformConv", IMAGE, f32(2, 2, 2, 2), f32(1, 6, 5, 5), opset=19), "offsets"),
        (case("Col2Im", f32(1, 8, 5), ints(4, 4), ints(2, 2), known=(1, 2)), "no blocks"),
        (case("MaxUnpool", f32(1, 1, 2, 2), ints(0, 1).reshape(1, 1, 2), kernel_shape=[2, 2]), "indices"),
        (case("MaxRoiPool", IMAGE, np.zeros((2, 4), F32), pooled_shape=[2, 2]), "numbers a region"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(entry: Case, said: str) -> None:
    model = entry.model()[0]
    for (
        output
    ) in model.graph.output:  # shape inference declares sizes below 0, which are refused before the node is seen
        output.type.tensor_type.ClearField("shape")
    with pytest.raises(BadModelError, match=said):
        import_parts(model)
