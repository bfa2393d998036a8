"""Where each value of the graph lives while kernels are made: buffers, views on them, immediates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.names import unused_name
from birc.compiler.ir.plan import Access, Buffer, Kernel, View
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.lower.expression import Builder, Expression
from birc.compiler.passes.lower.frame import Frame, word_of
from birc.compiler.passes.lower.ranges import LANE_BITS, Ranges
from birc.compiler.passes.lower.storage import kept_in_f32, stored_as
from birc.compiler.passes.lower.views import dense_view
from birc.compiler.passes.lower.wide import Wide, known
from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine


@dataclass(frozen=True, slots=True)
class Shared:
    """A value seen with one dimension more: `axis` and the next are one of its own, which repeats along the next."""

    view: View
    axis: int

    @property
    def factors(self) -> tuple[int, int]:
        """The extents of the two."""
        outer, inner = self.view.dims[self.axis : self.axis + 2]
        return outer, inner


@dataclass(frozen=True, slots=True)
class Panels:
    """A concatenation that nobody makes: the values side by side, the depth at which each begins, and that of all."""

    names: tuple[str, ...]
    firsts: tuple[int, ...]
    depth: int


@dataclass(slots=True)
class Environment:
    """The state of lowering one graph: `views` by value name, buffers, data of constants, kernels so far.

    `row_sums` are the sums by which the rows of a value have yet to be divided, and `shared` second operands of
    products that have no view of their own; concatenations in `panels` have none either. Where neighbours may be put
    side by side, `joining` is the machine whose figures say whether it is faster. Values `in_f32` are stored in that
    whatever the precision.
    """

    graph: Graph
    precision: str
    max_dim: int
    tile_elements: int
    tile_columns: int
    views: dict[str, View] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    data: dict[str, np.ndarray] = field(default_factory=dict)
    kernels: list[Kernel] = field(default_factory=list)
    packed: dict[tuple[object, ...], str] = field(default_factory=dict)
    parted: dict[tuple[object, ...], View] = field(default_factory=dict)
    ranges: Ranges = field(default_factory=dict)
    row_sums: dict[str, View] = field(default_factory=dict)
    shared: dict[str, Shared] = field(default_factory=dict)
    panels: dict[str, Panels] = field(default_factory=dict)
    joining: Machine | None = None
    in_f32: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.in_f32 = kept_in_f32(self.graph)

    def storage(self, type: TensorType) -> str:
        """The element type in memory."""
        return stored_as(type.dtype, self.precision)

    def tcore_format(self, *names: str) -> str:
        """The T-core input format for operands of these types."""
        types = {self.storage(self.graph.type_of(name)) for name in names}
        if types == {"bf16"}:
            return "bf16"
        return "s8" if types == {"i8"} else "tf32p"

    def is_float(self, name: str) -> bool:
        """Whether registers hold the value as floating point."""
        return self.graph.type_of(name).dtype.kind == "float"

    def immediate(self, name: str) -> float | None:
        """The one number that a constant consists of, or None."""
        constant = self.graph.constants.get(name)
        if constant is None or constant.data.size == 0:
            return None
        first = constant.data.reshape(-1)[0] if constant.data.ndim else constant.data[()]
        if constant.data.size > 1 and not constant.is_splat:
            return None
        lane = int(first) - (1 << 32) if constant.type.dtype.name == "u32" and int(first) >> 31 else first
        return float(lane)

    def whole_immediate(self, name: str) -> int | None:
        """The one whole number that a constant consists of, or None."""
        constant = self.graph.constants.get(name)
        if constant is None or not constant.type.dtype.is_integer or not constant.data.size:
            return None
        return int(constant.data.flat[0]) if constant.data.size == 1 or constant.is_splat else None

    def is_wide(self, name: str, ranges: Ranges, type: TensorType) -> bool:
        """Whether a value has integers of 64 bits that may not fit a lane."""
        return type.dtype.is_integer and type.dtype.bits > LANE_BITS and not ranges[name].fits_lane

    def load_words(self, builder: Builder, frame: Frame, name: str) -> Wide:
        """An operand of 64-bit integers, aligned with the frame: immediates or two loads."""
        number = self.whole_immediate(name)
        if number is not None:
            return known(number)
        access = frame.access(self.view(name))
        return Wide(*(builder.load(word_of(access, part), is_float=False) for part in (0, 1)))

    def view(self, name: str) -> View:
        """The view of a value; constants get a buffer of their own at the first use."""
        if name not in self.views:
            constant = self.graph.constants[name]
            element = constant.type.dtype
            stored = dtype(element.device or element.name)
            data = constant.data if stored == element else constant.data.astype(stored.numpy)
            self.views[name] = self.constant(name, np.asarray(data), stored.name)
        return self.views[name]

    def constant(self, name: str, data: np.ndarray, element_type: str) -> View:
        """A dense constant buffer with the given contents and element type in memory."""
        buffer = unused_name(name, self.buffers)
        self.buffers[buffer] = Buffer(buffer, element_type, _bytes(data.shape, element_type), "constant")
        self.data[buffer] = data
        return dense_view(buffer, data.shape)

    def packed_constant(self, name: str, key: tuple[object, ...], data: np.ndarray, element_type: str) -> View:
        """As `constant`, once for all uses with the same key."""
        whole = (name, element_type, *key)
        if whole not in self.packed:
            self.packed[whole] = self.constant(f"{name}.packed", data, element_type).buffer
        return dense_view(self.packed[whole], data.shape)

    def splat(self, number: float, element_type: str, dims: Sequence[int]) -> View:
        """One number, seen with these dimensions."""
        one = self.packed_constant("splat", (number,), np.array([number], dtype(element_type).numpy), element_type)
        return View(one.buffer, one.offset, tuple(dims), (0,) * len(dims))

    def new_buffer(self, name: str, type: TensorType, role: str = "scratch") -> View:
        """A dense buffer for a value, in the layout of its type; the value's view becomes the whole of it."""
        self.views[name] = self._dense(name, type.sizes, self.storage(type), type.layout, role)
        return self.views[name]

    def new_row_sums(self, name: str, shape: tuple[int, ...]) -> View:
        """A dense buffer in FP32 for the sums of a value's rows."""
        self.row_sums[name] = self._dense(f"{name}.sums", shape, "f32")
        return self.row_sums[name]

    def _dense(
        self,
        name: str,
        shape: Sequence[int],
        element_type: str,
        layout: tuple[int, ...] | None = None,
        role: str = "scratch",
    ) -> View:
        """The whole of a new buffer without gaps, which is called as this or alike."""
        buffer = unused_name(name, self.buffers)
        self.buffers[buffer] = Buffer(buffer, element_type, _bytes(shape, element_type), role)
        return dense_view(buffer, shape, layout)

    def target(self, name: str, type: TensorType) -> View:
        """Where the kernel that makes a value writes it: the buffer of a graph output, or a new one."""
        if name not in self.views:
            self.views[name] = self._dense(name, type.sizes, self._stored(name, type), type.layout)
        return self.views[name]

    def copied(self, copy: str, name: str, order: tuple[int, ...] | None = None) -> View:
        """A buffer for a copy of a value, row-major or with its dimensions in some `order`."""
        type = self.graph.type_of(name)
        return self._dense(copy, type.sizes, self._stored(name, type), order)

    def _stored(self, name: str, type: TensorType) -> str:
        return stored_as(type.dtype, self.precision, in_f32=name in self.in_f32)

    def load(self, builder: Builder, frame: Frame, name: str) -> Expression | float:
        """An operand of an element-wise op, aligned with the frame: an immediate or a load."""
        number = self.immediate(name)
        if number is not None and (self.is_float(name) or float(np.float32(number)) == number):
            return number
        return builder.load(frame.access(self.view(name)), self.is_float(name))

    def access(self, frame: Frame, name: str) -> Access:
        """The access of the whole value in a frame of its shape."""
        return frame.access(self.view(name))


def _bytes(shape: Sequence[int], element_type: str) -> int:
    return math.prod(shape) * dtype(element_type).bits // 8
