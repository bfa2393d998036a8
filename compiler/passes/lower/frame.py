"""Iteration frames: how the dimensions of a value map to the dimensions of a kernel's space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from birc.compiler.ir.plan import Access, Dimension, Index, View
from birc.compiler.passes.lower.views import broadcast, narrow


def unit(name: str) -> Index:
    """The coordinate that is a dimension itself."""
    return Index(((name, 1),))


def word_of(access: Access, word: int) -> Access:
    """The low (0) or the high (1) word of elements of 64 bits."""
    return replace(access, view=replace(access.view, seen="i32", word=word))


@dataclass(frozen=True, slots=True)
class Frame:
    """The par dimensions of a space over a value of logical `shape`.

    Each space dimension is one factor of one logical axis: `factors[i]` are the extents that axis i is split into
    (usually one), and `order` lists the factors, counted axis by axis, in the order of the space (outermost first).
    """

    shape: tuple[int, ...]
    factors: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]
    names: tuple[str, ...]

    @staticmethod
    def of(shape: Sequence[int], layout: Sequence[int] | None = None, names: Sequence[str] = ()) -> Frame:
        """One space dimension a logical axis, in physical order; a scalar gets one of extent 1."""
        sizes = tuple(shape) or (1,)
        order = tuple(layout) if layout else tuple(range(len(sizes)))
        return Frame(
            sizes,
            tuple((extent,) for extent in sizes),
            order,
            tuple(names) or tuple(f"d{axis}" for axis in order),
        )

    def split(self, axis: int, factors: tuple[int, ...]) -> Frame:
        """The frame with an axis, so far whole, cut into factors that are neighbours in the space."""
        first = self._first_factor(axis)
        place = self.order.index(first)
        more = len(factors) - 1
        shifted = tuple(number + more if number > first else number for number in self.order)
        name = self.names[place]
        return Frame(
            self.shape,
            (*self.factors[:axis], factors, *self.factors[axis + 1 :]),
            (*shifted[:place], *range(first, first + more + 1), *shifted[place + 1 :]),
            (*self.names[:place], *(f"{name}_{i}" for i in range(more + 1)), *self.names[place + 1 :]),
        )

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The par dimensions of the space."""
        extents = [extent for factors in self.factors for extent in factors]
        return tuple(Dimension(name, extents[i]) for name, i in zip(self.names, self.order, strict=True))

    def names_of_axis(self, axis: int) -> tuple[str, ...]:
        """The space dimensions of an axis, outermost first."""
        first = self._first_factor(axis)
        return tuple(self.names[self.order.index(first + i)] for i in range(len(self.factors[axis])))

    def _first_factor(self, axis: int) -> int:
        return sum(len(factors) for factors in self.factors[:axis])

    def view(self, view: View) -> View:
        """An operand, broadcast to the logical shape and seen with the dimensions of the space."""
        whole = broadcast(view, self.shape)
        dims: list[int] = []
        strides: list[int] = []
        for factors, stride in zip(self.factors, whole.strides, strict=True):
            step = stride
            split = []
            for extent in reversed(factors):
                split.append(step)
                step *= extent
            dims.extend(factors)
            strides.extend(reversed(split))
        return View(
            view.buffer,
            view.offset,
            tuple(dims[i] for i in self.order),
            tuple(strides[i] for i in self.order),
        )

    def view_of_axes(self, view: View) -> View:
        """A view of other extents than the value's, with its axes in the order of the space (no axis is split)."""
        dims = view.dims or (1,)
        strides = view.strides or (0,)
        return View(view.buffer, view.offset, tuple(dims[i] for i in self.order), tuple(strides[i] for i in self.order))

    def access(self, view: View) -> Access:
        """The access of an operand that is aligned with the value."""
        seen = self.view(view)
        # A repeated axis has one element: its coordinate never moves.
        dims = tuple(1 if stride == 0 else extent for extent, stride in zip(seen.dims, seen.strides, strict=True))
        index = tuple(Index() if extent == 1 else unit(name) for extent, name in zip(dims, self.names, strict=True))
        return Access(View(seen.buffer, seen.offset, dims, seen.strides), index)


@dataclass(frozen=True, slots=True)
class PartFrame(Frame):
    """The frame of a part of a value: of its last axis, `whole` long, every `step`-th element from `start` on."""

    whole: int = 1
    start: int = 0
    step: int = 1

    @staticmethod
    def of_last(shape: Sequence[int], layout: Sequence[int] | None, start: int, step: int, extent: int) -> PartFrame:
        """So many elements of the last axis of a value of this shape."""
        part = Frame.of((*shape[:-1], extent), layout)
        return PartFrame(part.shape, part.factors, part.order, part.names, shape[-1], start, step)

    def view(self, view: View) -> View:
        """An operand of the shape of the whole, of which this is the part."""
        last = len(self.shape) - 1
        seen = broadcast(view, (*self.shape[:-1], self.whole))
        starts = tuple(self.start if axis == last else 0 for axis in range(len(self.shape)))
        steps = tuple(self.step if axis == last else 1 for axis in range(len(self.shape)))
        return Frame.view(self, narrow(seen, starts, self.shape, steps))
