"""Products and convolutions of 8-bit integers less their zero points, exactly, in INT32.

Products of the integers as they are, and sums of them where a zero point is not 0:
sum (a - za)(b - zb) = sum a b - za sum b - zb sum a + depth za zb.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from birc.compiler.importer.convolution import convolution
from birc.compiler.importer.onnx_node import CannotLower
from birc.compiler.importer.term import Array, Term, constant, where
from birc.compiler.importer.window import Window

_SHIFT: Final = 128
"""What an unsigned byte is more than the signed one that the T-core multiplies."""


@dataclass(frozen=True, slots=True)
class Operand:
    """8-bit integers and the zero point that each is less: INT32, broadcast over them, None where it is 0."""

    value: Term
    zero: Term | None = None


def operand(x: Term, zero: Term | None) -> Operand:
    """`x` less a zero point that broadcasts over it.

    Of a known operand the zero point is taken off, where 8 bits allow it; bytes with a known zero point become signed.
    Raises `CannotLower` for other integers than those of 8 bits.
    """
    build = x.build
    if x.dtype.name not in ("i8", "u8"):
        raise CannotLower(f"multiplies quantised {x.dtype.name}, products of integers take 8 bits")
    if zero is None:
        return Operand(x)
    data, known = build.constant_of(x.name), build.constant_of(zero.name)
    if known is None:
        return Operand(x, zero.to("i32"))
    known = known.astype(np.int32)
    if data is not None:
        centred = data.astype(np.int32) - known
        if _fit(centred):
            return Operand(constant(build, centred.astype(np.int8)))
    if x.dtype.name == "u8" and known.any():
        x, known = (x.to("i32") - _SHIFT).to("i8"), known - _SHIFT
    return Operand(x, constant(build, known) if known.any() else None)


def product(a: Operand, b: Operand) -> Term:
    """The matrix product; zero points may differ along rows of `a` and columns of `b`."""
    depth = a.value.shape[-1]
    build = a.value.build
    result = Term(build, build.emit("matmul", (a.value.name, b.value.name)))
    if a.zero is not None:
        columns = b.value.to("i32").reduce("reduce_sum", len(b.value.shape) - 2, keep=True)
        if b.zero is not None:
            columns = columns - b.zero * depth
        result = result - a.zero * columns
    if b.zero is not None:
        rows = a.value.to("i32").reduce("reduce_sum", len(a.value.shape) - 1, keep=True)
        result = result - rows * b.zero
    return result


def convolved(x: Operand, w: Operand, bias: str, window: Window, group: int) -> Term:
    """The convolution of `x`, whose zero point is one number and also fills the padding, plus an INT32 bias or "".

    The zero points of `w` may differ from one output channel to the next: (out, 1, ...).
    """
    build = x.value.build
    if x.zero is not None:
        x, window = _padded(x, window)
    result = Term(build, convolution(build, x.value.name, w.value.name, bias, window, group))
    out, *taps = w.value.shape
    per_channel = (1, out, *(1 for _ in window.kernel))
    if x.zero is not None:
        sums = w.value.to("i32").reduce("reduce_sum", *range(1, len(w.value.shape)), keep=True)
        if w.zero is not None:
            sums = sums - w.zero * math.prod(taps)
        result = result - (sums * x.zero.reshape()).reshape(*per_channel)
    if w.zero is not None:
        zeros = w.zero if w.zero.shape[:1] != (out,) else w.zero.reshape(*per_channel)
        result = result - _window_sums(x.value, window, group, out) * zeros
    return result


def _padded(x: Operand, window: Window) -> tuple[Operand, Window]:
    """The image with its border, which holds the zero point; the window needs no padding any more."""
    if x.zero is None or not any((*window.begins, *window.ends)):
        return x, window
    build, nothing = x.value.build, tuple(0 for _ in window.begins)
    pads = (0, 0, *window.begins, 0, 0, *window.ends)
    known = build.constant_of(x.zero.name)
    fill = float(known.reshape(-1)[0]) if known is not None else 0.0
    wide = x.value.row("pad", pads=pads, value=fill)
    if known is None:
        inside = np.pad(np.ones(x.value.shape[2:], np.bool_), list(zip(window.begins, window.ends, strict=True)))
        zero = x.zero.reshape().to(x.value.dtype.name)
        chosen = where(constant(build, inside), wide, zero)
        wide = chosen if isinstance(chosen, Term) else wide
    return Operand(wide, x.zero), replace(window, begins=nothing, ends=nothing)


def _window_sums(x: Term, window: Window, group: int, out: int) -> Term:
    """For each output channel, the sums of the image under the window, over all channels of its group."""
    ones = constant(x.build, np.ones((group, x.shape[1] // group, *window.kernel), np.int8))
    sums = Term(x.build, convolution(x.build, x.name, ones.name, "", window, group))
    if group == 1:
        return sums
    batch, _, *rest = sums.shape
    apart = sums.reshape(batch, group, 1, *rest).row("expand", shape=(batch, group, out // group, *rest))
    return apart.reshape(batch, out, *rest)


def _fit(values: Array) -> bool:
    return not values.size or (int(values.min()) >= -_SHIFT and int(values.max()) < _SHIFT)
