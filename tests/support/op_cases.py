"""Uses of operator rows for tests of the compiler: samples and larger ones, on operands of every layout.

Each case becomes a graph of one node, perhaps with views before it, and inputs for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from graph_maker import GraphMaker

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.op import OpRow, Sample
from birc.compiler.ir.table import OPS, row
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype, from_numpy

Values = dict[str, np.ndarray]
Wrap = Callable[[GraphMaker, np.ndarray], tuple[str, Values] | None]
"""Puts an operand into a graph: its name and the inputs that it takes; None where the style means nothing."""


@dataclass(frozen=True)
class OpCase:
    """One use of a row; `style` says how the operands come about."""

    op: str
    sample: Sample
    style: str = "plain"
    label: str = ""

    @property
    def entry(self) -> OpRow:
        return row(self.op)

    def build(self) -> tuple[Graph, Values] | None:
        """The graph and its inputs; None when no operand takes the style."""
        make = GraphMaker()
        names, inputs, styled = [], {}, False
        for place, array in enumerate(self.sample.arrays()):
            placed = STYLES[self.style](make, array) if self.style != "constants" or place else None
            styled |= placed is not None
            name, values = placed or plain(make, array)
            names.append(name)
            inputs |= values
        if not styled:
            return None
        return make.graph(make(self.op, *names, **self.sample.attributes)), inputs


def plain(make: GraphMaker, array: np.ndarray) -> tuple[str, Values]:
    """An input of the graph."""
    name = make.input(*array.shape, element=from_numpy(array.dtype).name)
    return name, {name: array}


def constant(make: GraphMaker, array: np.ndarray) -> tuple[str, Values]:
    """A constant of the graph."""
    return make.constant(array, from_numpy(array.dtype).name), {}


def transposed(make: GraphMaker, array: np.ndarray) -> tuple[str, Values] | None:
    """An input with its dimensions in reverse."""
    if array.ndim < 2:
        return None
    name, values = plain(make, np.ascontiguousarray(array.T))
    return make("transpose", name, perm=tuple(reversed(range(array.ndim)))), values


def sliced(make: GraphMaker, array: np.ndarray) -> tuple[str, Values] | None:
    """Every second element of a larger input, from the second on."""
    if array.ndim == 0:
        return None
    whole = np.ones(tuple(2 * extent + 1 for extent in array.shape), array.dtype)
    whole[(slice(1, None, 2),) * array.ndim] = array
    name, values = plain(make, whole)
    rank = array.ndim
    ends = tuple(2 * extent + 1 for extent in array.shape)
    return make("slice", name, starts=(1,) * rank, ends=ends, steps=(2,) * rank), values


def expanded(make: GraphMaker, array: np.ndarray) -> tuple[str, Values] | None:
    """An input of extent 1 repeated along the last dimension that is longer."""
    axis = next((axis for axis in reversed(range(array.ndim)) if array.shape[axis] > 1), None)
    if axis is None:
        return None
    name, values = plain(make, array.take([0], axis))
    return make("expand", name, shape=array.shape), values


def channels_last(make: GraphMaker, array: np.ndarray) -> tuple[str, Values] | None:
    """What a pool made: it lies channels last."""
    if array.ndim != 4 or array.dtype != np.float32:
        return None
    name, values = plain(make, array)
    return make("max_pool2d", name, kernel=(1, 1), stride=(1, 1), pads=(0,) * 4, dilation=(1, 1)), values


STYLES: Mapping[str, Wrap] = {
    "plain": plain,
    "constants": constant,
    "transposed": transposed,
    "sliced": sliced,
    "expanded": expanded,
    "channels_last": channels_last,
}


def _window(
    kernel: tuple[int, int],
    stride: int = 1,
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: int = 1,
) -> dict[str, AttributeValue]:
    return {"kernel": kernel, "stride": (stride, stride), "pads": pads, "dilation": (dilation, dilation)}


def _conv(
    stride: int = 1, pads: tuple[int, int, int, int] = (0, 0, 0, 0), dilation: int = 1, group: int = 1
) -> dict[str, AttributeValue]:
    return {"stride": (stride, stride), "pads": pads, "dilation": (dilation, dilation), "group": group}


def _avg(window: dict[str, AttributeValue], count_include_pad: int = 0) -> dict[str, AttributeValue]:
    return {**window, "count_include_pad": count_include_pad, "divisor_pads": window["pads"]}


_INDICES = np.random.default_rng(0).integers(-600, 600, (3, 47))


@dataclass(frozen=True)
class Large:
    """A larger use: shapes of float32 inputs (or arrays), and attributes."""

    op: str
    inputs: tuple[tuple[int, ...] | np.ndarray, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    element: str = "f32"

    def sample(self) -> Sample:
        given = tuple(
            item if isinstance(item, np.ndarray) else TensorType(dtype(self.element), item) for item in self.inputs
        )
        low = 0.5 if self.op == "batch_norm" else -2.0
        return Sample(given, self.attributes, low)


LARGE: tuple[Large, ...] = (
    Large("matmul", ((150, 200), (200, 70))),
    Large("matmul", ((2, 3, 65, 33), (33, 129))),
    Large("matmul", ((2, 1, 7, 64), (1, 3, 64, 9))),
    Large("matmul", ((5, 70, 130), (5, 130, 66))),
    Large("matmul", ((1, 513), (513, 300))),
    Large("matmul", ((300, 513), (513, 1))),
    Large("matmul", ((3, 8200), (8200, 5))),
    Large("matmul", ((2, 16), (16, 8500))),
    Large("matmul", ((8500, 16), (16, 2))),
    Large("matmul", ((70, 300), (300, 65)), element="i8"),
    Large("conv2d", ((2, 33, 9, 11), (40, 33, 3, 3), (40,)), _conv(1, (1, 0, 2, 1))),
    Large("conv2d", ((1, 70, 13, 13), (65, 70, 3, 3)), _conv(2, (1, 1, 1, 1), 2)),
    Large("conv2d", ((1, 64, 14, 14), (128, 64, 1, 1), (128,)), _conv()),
    Large("conv2d", ((2, 12, 8, 8), (18, 4, 3, 3), (18,)), _conv(1, (1, 1, 1, 1), 1, 3)),
    Large("conv2d", ((1, 70, 12, 9), (70, 1, 3, 3), (70,)), _conv(2, (0, 1, 1, 0), 1, 70)),
    Large("conv2d", ((1, 6, 10, 10), (18, 1, 3, 3)), _conv(1, (1, 1, 1, 1), 1, 6)),
    Large("conv2d", ((2, 3, 30, 31), (20, 3, 7, 7), (20,)), _conv(2, (3, 2, 3, 4))),
    Large("conv2d", ((1, 1, 20, 20), (8, 1, 5, 3)), _conv(1, (2, 1, 2, 1))),
    Large("conv2d", ((1, 16, 6, 200), (70, 16, 1, 5)), _conv(1, (0, 2, 0, 2))),
    Large("conv2d", ((1, 40, 9, 9), (70, 40, 3, 3)), _conv(1, (1, 1, 1, 1)), "i8"),
    Large("conv2d", ((2, 1, 30, 41), (1, 1, 3, 5), (1,)), _conv(2, (1, 2, 0, 1))),
    Large("conv2d", ((1, 1, 40, 41), (1, 1, 6, 7)), _conv(1, (3, 2, 0, 1))),
    Large("conv2d", ((1, 5, 1, 20000), (4, 5, 1, 9)), _conv(10, (0, 4, 0, 4))),
    Large("max_pool2d", ((2, 70, 15, 14),), _window((3, 3), 2, (1, 0, 1, 2))),
    Large("max_pool2d", ((1, 5, 20, 20),), _window((2, 3), 1, (0, 1, 1, 1), 2)),
    Large("max_pool2d", ((1, 1, 1, 20000),), _window((1, 3), 10, (0, 1, 0, 1), 100)),
    Large("max_pool2d_position", ((2, 70, 15, 14),), _window((3, 3), 2, (1, 0, 1, 2))),
    Large("max_pool2d_position", ((1, 5, 20, 20),), _window((2, 3), 1, (0, 1, 1, 1), 2)),
    Large("avg_pool2d", ((2, 70, 15, 14),), _avg(_window((3, 3), 2, (1, 1, 1, 1)))),
    Large("avg_pool2d", ((1, 9, 12, 12),), _avg(_window((3, 2), 2, (1, 0, 2, 1)), 1)),
    Large("avg_pool2d", ((1, 9, 12, 12),), _avg(_window((3, 2), 2, (1, 0, 2, 1), 2), 1)),
    Large("lrn", ((2, 100, 9, 8),), {"size": 5, "alpha": 0.1, "beta": 0.75, "k": 1.0}),
    Large("batch_norm", ((2, 70, 9, 8), (70,), (70,), (70,), (70,)), {"epsilon": 1e-5}),
    Large("layer_norm", ((130, 768), (768,), (768,)), {"axis": 1, "epsilon": 1e-5}),
    Large("layer_norm", ((3, 50, 100), (50, 100)), {"axis": 1, "epsilon": 1e-5}),
    Large("layer_norm", ((2, 10007 // 3, 3), (3335, 3)), {"axis": 1, "epsilon": 1e-5}),
    Large("rms_norm", ((130, 700), (700,)), {"axis": 1, "epsilon": 1e-5}),
    Large("rms_norm", ((2, 4099), (4099,)), {"axis": 1, "epsilon": 1e-5}),
    Large("softmax", ((33, 4099),), {"axis": 1}),
    Large("softmax", ((3, 10000),), {"axis": 1}),
    Large("softmax", ((2, 300, 40),), {"axis": 1}),
    Large("softmax", ((5000, 3),), {"axis": 0}),
    Large("log_softmax", ((3, 5001),), {"axis": 1}),
    *(
        Large(f"reduce_{kind}", inputs, {"axes": axes, "keepdims": keepdims}, element)
        for kind in ("sum", "mean", "max", "min", "prod")
        for inputs, axes, keepdims, element in (
            (((70, 90, 3),), (0, 1), 0, "f32"),
            (((3, 4099),), (1,), 1, "f32"),
            (((2, 12, 41, 9, 5),), (1, 3), 0, "f32"),
            (((4099, 2),), (0,), 0, "i32"),
        )
        if kind not in ("prod",) and (kind, element) != ("mean", "i32")
    ),
    Large("reduce_prod", ((4, 4099),), {"axes": (0,), "keepdims": 0}),
    Large("reduce_sum", ((3, 16411),), {"axes": (0,), "keepdims": 0}),
    Large("reduce_max", ((3, 16384),), {"axes": (1,), "keepdims": 0}),
    Large("concat", ((2, 70, 5), (2, 1, 5), (2, 130, 5)), {"axis": 1}),
    Large("concat", ((7, 300), (7, 5)), {"axis": 1}),
    Large("rotate", ((2, 5, 130, 64), (130, 32), (130, 32)), {"interleaved": 0}),
    Large("rotate", ((2, 5, 130, 48), (130, 48), (2, 1, 130, 48)), {"interleaved": 1}),
    Large("rotate", ((3, 9000), (9000,), (4500,)), {"interleaved": 0}),
    Large("pad", ((2, 33, 9, 7),), {"pads": (0, 1, 2, 0, 1, 0, 3, 4), "value": 0.0}),
    Large("pad", ((2, 33, 9, 7),), {"pads": (0, 1, 2, 0, 1, 0, 3, 4), "value": -1.5}),
    Large("gather", ((600, 40), _INDICES), {"axis": 0}),
    Large("gather", ((9000, 8), 11 * _INDICES), {"axis": 0}),
    Large("gather", ((3, 600, 5), _INDICES), {"axis": 1}),
    Large("gather", ((9, 600), _INDICES), {"axis": 1}),
    Large("gather", ((9, 600), np.array(-7)), {"axis": 0}),
    Large("gather", ((9, 600), np.array(3)), {"axis": 1}),
    Large("gather_nd", ((60, 10, 40), np.stack([_INDICES // 11, _INDICES % 10], -1)), {"batch_dims": 0}),
    Large("gather_nd", ((3, 600, 9), _INDICES[..., None]), {"batch_dims": 1}),
    Large("transpose", ((70, 3, 130),), {"perm": (2, 0, 1)}),
    Large("reshape", ((70, 3, 130),), {"shape": (35, 780)}),
    Large("slice", ((70, 3, 130),), {"starts": (3, 0, 5), "ends": (66, 3, 130), "steps": (2, 2, 3)}),
    Large("expand", ((70, 1, 3),), {"shape": (2, 70, 65, 3)}),
)

WIDE_SHAPES = ((2, 3, 5, 7, 11), (3, 1, 130, 67), (5003,), (2, 9001))

STYLED = frozenset({"add", "where", "cast", "clip", "gelu"})
"""Rows element by element that stand for the others: how operands lie is alike for all of them."""


def samples() -> Iterator[OpCase]:
    """Every sample of every row, on operands of every style."""
    for entry in OPS:
        styles = STYLES if entry.category != "elementwise" or entry.name in STYLED else ("plain",)
        for place, sample in enumerate(entry.samples):
            for style in styles:
                yield OpCase(entry.name, sample, style, f"{entry.name}-{place}-{style}")


def larger() -> Iterator[OpCase]:
    """Uses of several tiles and SPCs: those listed, and a wide shape for each row element by element."""
    for place, large in enumerate(LARGE):
        for style in ("plain", ("constants", "transposed")[place % 2]):
            yield OpCase(large.op, large.sample(), style, f"{large.op}-{place}-{style}")
    for place, entry in enumerate(entry for entry in OPS if entry.category == "elementwise"):
        for shape in WIDE_SHAPES if entry.name in STYLED else WIDE_SHAPES[place % len(WIDE_SHAPES) :][:1]:
            yield OpCase(entry.name, _widened(entry.samples[0], shape), "plain", f"{entry.name}-{shape}")


def _widened(sample: Sample, shape: tuple[int, ...]) -> Sample:
    """The sample on a shape; of several operands the last is a row that is repeated."""
    types = [TensorType(type.dtype, shape) for type in sample.types]
    if len(types) > 1:
        types[-1] = TensorType(types[-1].dtype, shape[-1:])
    return Sample(tuple(types), sample.attributes, sample.low, sample.high)
