"""Vector instructions on whole arrays: loads, stores, arithmetic, reductions.

Each step is one operation prepared for a part; calling it computes the frame's region. Values are arrays with one
axis for each axis of the part, of extent 1 where they do not vary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from birc.runtime.alu import ELEMENTWISE, REDUCTIONS
from birc.runtime.conversion import FLOAT, INT, immediate_lanes, register_type
from birc.runtime.faults import MachineFault
from birc.runtime.values.boxes import BoxView, is_plain, store_lanes, widen
from birc.runtime.values.frame import Array, Frame, Region


class Step(Protocol):
    """A prepared operation."""

    def __call__(self, frame: Frame) -> None:
        """Compute the frame's region."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a result goes: the value's number and type, its buffer, the axes it varies with (their positions and
    the dimensions that these are).

    With `reuse` the result overwrites the value of that number, which nobody needs any more.
    """

    value: int
    dtype: np.dtype[Any]
    buffer: int
    axes: tuple[tuple[int, int], ...]
    rank: int
    reuse: int | None = None

    def array(self, frame: Frame) -> Array:
        """The array to write the result to."""
        if self.reuse is not None:
            return frame.values[self.reuse]
        return frame.workspace.array(self.buffer, self.shape(frame.region), self.dtype)

    def shape(self, region: Region) -> tuple[int, ...]:
        shape = [1] * self.rank
        for position, place in self.axes:
            first, end = region[position]
            shape[place] = end - first
        return tuple(shape)


@dataclass(frozen=True, slots=True)
class Loading:
    """Load a box. Without `copied` the value may be a view of memory, read when it is used."""

    output: Output
    box: BoxView
    copied: bool

    def __call__(self, frame: Frame) -> None:
        elements = self.box.direct(frame)
        if elements is None:
            spanned = self.box.spanned(frame, self.output.buffer)
            frame.values[self.output.value] = self.box.over(spanned, frame.region)
        elif is_plain(self.box.name) and not self.copied:
            frame.values[self.output.value] = elements
        else:
            lanes = self.output.array(frame)
            widen(elements, self.box.name, lanes)
            frame.values[self.output.value] = lanes


@dataclass(frozen=True, slots=True)
class Gathering:
    """An indexed load. `box` views the table: its last dimension counts the rows."""

    output: Output
    box: BoxView
    index: int
    count: int

    def __call__(self, frame: Frame) -> None:
        index = frame.values[self.index]
        if index.size and (index.min() < 0 or index.max() >= self.count):
            bad = index.min() if index.min() < 0 else index.max()
            raise MachineFault(f"an indexed load has the index {bad}, the range is 0 to {self.count}")
        rows = (0, self.count)
        inner = Frame(frame.tensors, (*frame.region, rows), frame.workspace, frame.values)
        table = self.box.direct(inner)
        if table is None:
            table = self.box.over(self.box.spanned(inner, self.output.buffer), inner.region)
        lanes = self._taken(table, index)
        if not is_plain(self.box.name) and lanes.dtype == self.box.element:
            widened = np.empty(lanes.shape, register_type(self.box.name))
            widen(lanes, self.box.name, widened)
            lanes = widened
        frame.values[self.output.value] = lanes

    def _taken(self, table: Array, index: Array) -> Array:
        """table[..., index] with the axes that both vary with taken together."""
        index_axes = [axis for axis in range(index.ndim) if index.shape[axis] > 1]
        own_axes = [axis for axis in range(index.ndim) if table.shape[axis] > 1 and axis not in index_axes]
        shape = [index.shape[axis] for axis in index_axes]
        selectors: list[Array | slice] = []
        for axis in range(index.ndim):
            if axis in own_axes:
                selectors.append(slice(None))
                continue
            place = [1] * len(shape)
            if axis in index_axes and table.shape[axis] > 1:
                place[index_axes.index(axis)] = table.shape[axis]
            selectors.append(np.arange(table.shape[axis]).reshape(place))
        selectors.append(index.reshape(shape))
        # Advanced indices first, so that numpy puts their axes first whatever lies between.
        arrays = [entry for entry in selectors if not isinstance(entry, slice)]
        order = [axis for axis in range(table.ndim) if axis not in own_axes] + own_axes
        taken = np.asarray(table.transpose(order)[tuple(arrays)])
        placed = [*index_axes, *own_axes]
        full = [1] * index.ndim
        for axis, extent in zip(placed, taken.shape, strict=True):
            full[axis] = extent
        by_axis = np.argsort(placed, kind="stable")
        return taken.transpose(tuple(by_axis)).reshape(full)


@dataclass(frozen=True, slots=True)
class Storing:
    """Store a value, or a constant, to a box."""

    box: BoxView
    source: int | Array

    def __call__(self, frame: Frame) -> None:
        lanes = frame.values[self.source] if isinstance(self.source, int) else self.source
        target = self.box.direct(frame)
        if target is None:
            self.box.store_outside(frame, lanes)
        else:
            store_lanes(target, lanes, self.box.name)


@dataclass(frozen=True, slots=True)
class Filling:
    """A constant in a register."""

    value: int
    constant: Array

    def __call__(self, frame: Frame) -> None:
        frame.values[self.value] = self.constant


@dataclass(frozen=True, slots=True)
class Operand:
    """A source of an elementwise instruction: a value by number, or a constant; converted to FP32 if asked."""

    value: int | Array
    to_float: bool = False

    def get(self, frame: Frame) -> Array:
        array = frame.values[self.value] if isinstance(self.value, int) else self.value
        return array.astype(FLOAT) if self.to_float else array


@dataclass(frozen=True, slots=True)
class Computing:
    """An elementwise instruction; with `sink` its result goes straight to memory."""

    function: Callable[..., Array]
    operands: tuple[Operand, ...]
    output: Output
    sink: BoxView | None = None

    def __call__(self, frame: Frame) -> None:
        arrays = [operand.get(frame) for operand in self.operands]
        target = self.sink.direct(frame) if self.sink is not None else None
        if target is not None:
            self.function(*arrays, out=target)
            return
        result = self.function(*arrays, out=self.output.array(frame))
        frame.values[self.output.value] = result
        if self.sink is not None:
            self.sink.store_outside(frame, result)


@dataclass(frozen=True, slots=True)
class Reducing:
    """A reduction over axes: their positions and dimensions."""

    function: np.ufunc
    operand: Operand
    over: tuple[tuple[int, int], ...]
    output: Output

    def __call__(self, frame: Frame) -> None:
        source = self.operand.get(frame)
        shape = list(source.shape)
        for position, place in self.over:
            first, end = frame.region[position]
            shape[place] = end - first
        # A value that does not vary with an axis still counts once for each of its elements.
        whole = source if source.shape == tuple(shape) else np.broadcast_to(source, shape)
        out = self.output.array(frame)
        places = tuple(place for _, place in self.over)
        self.function.reduce(whole, axis=places, dtype=whole.dtype, out=out, keepdims=True)
        frame.values[self.output.value] = out


def _multiply_add(a: Array, b: Array, c: Array, out: Array) -> Array:
    """a * b + c, the product rounded to FP32: within one rounding of the instruction, at half the cost."""
    if out is c or np.may_share_memory(out, c):
        return np.add(a * b, c, out=out)
    np.multiply(a, b, out=out)
    return np.add(out, c, out=out)


def _select(condition: Array, a: Array, b: Array, out: Array) -> Array:
    np.copyto(out, np.where(condition != 0, a, b))
    return out


_FUNCTIONS: Final[dict[str, Callable[..., Array]]] = {
    **ELEMENTWISE,
    "vfma": _multiply_add,
    "vsel": _select,
}


def function_of(mnemonic: str) -> Callable[..., Array]:
    """The function of an elementwise instruction; its operands have one type, `out` is that of the result."""
    return _FUNCTIONS[mnemonic]


def reduction_of(mnemonic: str) -> np.ufunc:
    return REDUCTIONS[mnemonic]


def constant_operand(value: float, *, integer: bool) -> Operand:
    """An immediate beside registers of a type."""
    with np.errstate(over="ignore"):
        return Operand(np.asarray(value, INT if integer else FLOAT))


def stored_constant(value: float, name: str) -> Array:
    """An immediate that is stored to a tensor."""
    return immediate_lanes(value, name)
