"""Matrix products of whole tensors: operands packed into matrices, then one BLAS call a block.

An operand is copied from memory once a block, or once a run if no block changes it: widened, rounded to the
T-core's format and arranged as [batch, rows, depth] in one go. A window (a convolution's overlapping boxes) is
rounded before it is unfolded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from birc.runtime.conversion import FLOAT
from birc.runtime.dtypes import round_bf16, round_tf32p
from birc.runtime.faults import MachineFault
from birc.runtime.values.boxes import BoxView
from birc.runtime.values.frame import Array, Frame, Region
from birc.runtime.values.vector import Output

# Memory types whose values a format holds exactly (16 and 8 significant bits).
_EXACT: Final = {
    "tf32p": frozenset({"bf16", "f16", "f8e4m3", "f8e5m2", "i8", "u8", "i16", "u16", "bool"}),
    "bf16": frozenset({"bf16", "f8e4m3", "f8e5m2", "i8", "u8", "bool"}),
    "s8": frozenset({"i8", "bool"}),
}
_THIN_ELEMENTS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Packing:
    """How one operand becomes a matrix.

    `outer` and `inner` are groups of axis positions; the packed array is [batch, outer, inner], contiguous, with
    the group that is denser in memory inside. `depth_inside` tells whether `inner` is the depth, `places` which
    dimension of the operand an axis is.
    """

    box: BoxView
    format: str
    batch: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    depth_inside: bool
    places: tuple[int, ...]
    buffer: int
    span_buffer: int

    def pack(self, frame: Frame, out: Array | None = None) -> Array:
        """The operand for the frame's region, FP32 and rounded."""
        groups = (self.batch, self.outer, self.inner)
        region = frame.region
        full = [extent for group in groups for extent in extents(region, group)]
        packed = frame.workspace.array(self.buffer, self.shape(region), FLOAT) if out is None else out
        target = packed.reshape(full)
        axes = [self.places[position] for group in groups for position in group]
        rest = [place for place in range(self.box.rank) if place not in axes]
        source, rounded = self._source(frame)
        # Axes that are not packed have extent 1 in the operand: it does not vary with them.
        arranged = source.transpose(rest + axes)[(0,) * len(rest)]
        if source.dtype == FLOAT and arranged.shape == target.shape and arranged.flags.c_contiguous and not rounded:
            self._round(arranged, target)
            return packed
        np.copyto(target, self._checked(arranged), casting="unsafe")
        if not rounded:
            self._round(packed)
        return packed

    def _source(self, frame: Frame) -> tuple[Array, bool]:
        """The operand's elements as a view, and whether they are rounded."""
        elements = self.box.direct(frame)
        region = frame.region
        unfolds = self.box.spanned_elements(region) * 4 < self.box.elements(region) * 3
        if elements is not None and not unfolds:
            return elements, False
        spanned = self.box.spanned(frame, self.span_buffer)
        if unfolds and spanned.dtype == FLOAT:
            self._round(spanned)
            return self.box.over(spanned, region), True
        return self.box.over(spanned, region), False

    def _round(self, values: Array, out: Array | None = None) -> None:
        """Round contiguous values to the format, in place or into `out`."""
        if self.box.name in _EXACT[self.format] or self.format == "s8":
            if out is not None:
                np.copyto(out, values)
            return
        source = values.reshape(-1)
        target = source if out is None else out.reshape(-1)
        (round_bf16 if self.format == "bf16" else round_tf32p)(source, out=target)

    def _checked(self, elements: Array) -> Array:
        """The elements, of which none may exceed 8 bits in the format s8; truth values as 0 and 1."""
        wide = self.format == "s8" and self.box.name not in _EXACT["s8"]
        if wide and elements.size and (elements.min() < -128 or elements.max() > 127):
            raise MachineFault("an s8 tile is loaded with elements that 8 bits do not hold")
        return (elements != 0) if self.box.name == "bool" else elements

    def matrix(self, packed: Array, *, depth_last: bool) -> Array:
        """The packed operand as [batch, side, depth] or [batch, depth, side]."""
        return packed if self.depth_inside == depth_last else packed.swapaxes(1, 2)

    def shape(self, region: Region) -> tuple[int, ...]:
        """The shape of the packed operand."""
        return tuple(prod(extents(region, group)) for group in (self.batch, self.outer, self.inner))


@dataclass(frozen=True, slots=True)
class Shared:
    """An operand that was packed whole before the blocks; a block takes a part of each group of axes.

    Blocks may cut the outermost axis of a group only.
    """

    number: int
    packing: Packing
    whole: Region

    def pack(self, frame: Frame) -> Array:
        """The part of the operand for the frame's region."""
        groups = (self.packing.batch, self.packing.outer, self.packing.inner)
        return frame.shared[self.number][tuple(self._part(group, frame.region) for group in groups)]

    def _part(self, group: tuple[int, ...], region: Region) -> slice:
        if not group:
            return slice(None)
        first, end = region[group[0]]
        origin = self.whole[group[0]][0]
        inner = prod(extents(self.whole, group[1:]))
        return slice((first - origin) * inner, (end - origin) * inner)

    def matrix(self, packed: Array, *, depth_last: bool) -> Array:
        """As `Packing.matrix`."""
        return self.packing.matrix(packed, depth_last=depth_last)


@dataclass(frozen=True, slots=True)
class Multiplying:
    """One product: its operands and the groups of axes.

    `repeats` are summed axes that neither operand varies with.
    """

    a: Packing | Shared
    b: Packing | Shared
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    depth: tuple[int, ...]
    repeats: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Contracting:
    """A sum of products into one value.

    With `rows_last` the result is computed as [batch, columns, rows], which is how it lies in memory.
    """

    products: tuple[Multiplying, ...]
    output: Output
    extra_buffer: int
    rows_last: bool
    places: tuple[int, ...]

    def __call__(self, frame: Frame) -> None:
        first, *others = self.products
        result = self._labelled(first, frame, self._product(first, frame, self.output.buffer))
        for product in others:
            term = self._labelled(product, frame, self._product(product, frame, self.extra_buffer))
            if result.shape == term.shape:
                np.add(result, term, out=result)
            else:
                result = result + term
        frame.values[self.output.value] = result

    def _product(self, product: Multiplying, frame: Frame, buffer: int) -> Array:
        sides = (product.b, product.a) if self.rows_last else (product.a, product.b)
        left = sides[0].matrix(sides[0].pack(frame), depth_last=True)
        right = sides[1].matrix(sides[1].pack(frame), depth_last=False)
        shape = (max(left.shape[0], right.shape[0]), left.shape[1], right.shape[2])
        out = frame.workspace.array(buffer, shape, FLOAT)
        if 1 in shape[1:]:
            _thin_product(left, right, out)
        elif shape[0] == 1:
            np.matmul(left[0], right[0], out=out[0])
        else:
            np.matmul(left, right, out=out)
        repeats = prod(extents(frame.region, product.repeats))
        if repeats != 1:
            np.multiply(out, np.float32(repeats), out=out)
        return out

    def _labelled(self, product: Multiplying, frame: Frame, matrix: Array) -> Array:
        """The product with one axis for each axis of the part."""
        sides = (product.columns, product.rows) if self.rows_last else (product.rows, product.columns)
        positions = [*product.batch, *sides[0], *sides[1]]
        shaped = matrix.reshape(extents(frame.region, positions))
        placed = [self.places[position] for position in positions]
        shape = [1] * self.output.rank
        for place, extent in zip(placed, shaped.shape, strict=True):
            shape[place] = extent
        return shaped.transpose(sorted(range(len(placed)), key=placed.__getitem__)).reshape(shape)


def _thin_product(left: Array, right: Array, out: Array) -> None:
    """A product with a vector, summed in FP64: elements that are equal on the device are equal here.

    BLAS adds what is left over beyond its vectors in another order, and so tells equal columns apart in their last
    bit. The depth is taken in pieces, whose FP64 copies stay in the cache.
    """
    depth = left.shape[2]
    step = max(1, _THIN_ELEMENTS // max(left.shape[1], right.shape[2]))
    total = np.zeros(out.shape)
    for start in range(0, depth, step):
        piece = slice(start, start + step)
        total += np.matmul(left[:, :, piece].astype(np.float64), right[:, piece].astype(np.float64))
    np.copyto(out, total, casting="same_kind")


def extents(region: Region, positions: Sequence[int]) -> tuple[int, ...]:
    """The lengths of a region on some axes."""
    return tuple(region[position][1] - region[position][0] for position in positions)


def arrange(box: BoxView, side: Sequence[int], depth: Sequence[int]) -> bool:
    """Whether a packed operand has its depth inside: its densest axis in memory is one of the depth."""
    steps = {position: abs(box.step_bytes(position)) for position in (*side, *depth)}
    moving = [position for position in steps if steps[position]]
    if not moving:
        return True
    return min(moving, key=lambda position: (steps[position], -position)) in depth
