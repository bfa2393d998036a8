"""The discrete Fourier transform of any length as products with constant matrices.

A value is [batch, length, parts]: parts are the real one, and the imaginary one where there is one. Up to
`DIRECT_LENGTH` the transform is one matrix product. A longer one is split into two shorter ones with factors
between them (J. W. Cooley and J. W. Tukey, 1965), or, where the length has no small divisor, written as a
convolution (L. I. Bluestein, 1970). The constants are rounded from FP64 once; exact zeros stay exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from birc.compiler.importer.onnx_node import CannotLower
from birc.compiler.importer.term import Term, stacked

F64Array = npt.NDArray[np.float64]
C128Array = npt.NDArray[np.complex128]

DIRECT_LENGTH: Final = 512
"""A matrix has four times the square of it in elements: 2^20."""

LONGEST: Final = 1 << 21


@dataclass(frozen=True, slots=True)
class Transform:
    """One kind of transform over `length` elements.

    `is_one_sided` gives half of the spectrum of a real signal; with `is_inverse`, the real signal of such a half.
    """

    length: int
    is_inverse: bool = False
    is_one_sided: bool = False

    @property
    def half(self) -> int:
        """The elements of half a spectrum."""
        return self.length // 2 + 1

    @property
    def outputs(self) -> int:
        """The elements of the result."""
        return self.half if self.is_one_sided and not self.is_inverse else self.length

    @property
    def parts(self) -> int:
        """The parts of an element of the result: 1 for a real signal, else 2."""
        return 1 if self.is_one_sided and self.is_inverse else 2

    @property
    def inputs(self) -> int:
        """The elements that are read; what is missing counts as 0."""
        return self.half if self.is_one_sided and self.is_inverse else self.length


def transformed(x: Term, kind: Transform) -> Term:
    """The transform along the middle dimension of FP32[batch, length, parts]: [batch, outputs, parts]."""
    if kind.length < 1 or kind.length > LONGEST:
        raise CannotLower(f"a Fourier transform of length {kind.length}; 1 to {LONGEST} are supported")
    x = x.part(1, 0, min(x.shape[1], kind.inputs))
    if kind.length <= DIRECT_LENGTH:
        return _product(x, _matrix(kind, x.shape[1], x.shape[2]), kind.outputs, kind.parts)
    if kind.is_one_sided and kind.is_inverse:
        whole = _fast(_whole_spectrum(_padded(x, kind.half), kind.length), True)
        return _scaled(whole.part(2, 0, 1), kind)
    return _scaled(_fast(_padded(x, kind.length), kind.is_inverse).part(1, 0, kind.outputs), kind)


def _scaled(x: Term, kind: Transform) -> Term:
    return x * (1.0 / kind.length) if kind.is_inverse else x


def _product(x: Term, matrix: F64Array, outputs: int, parts: int) -> Term:
    batch, count, given = x.shape
    weights = x.build.constant(matrix.astype(np.float32))
    made = x.build.emit("matmul", (x.reshape(batch, count * given).name, weights))
    return Term(x.build, made).reshape(batch, outputs, parts)


def _matrix(kind: Transform, count: int, given: int) -> F64Array:
    """What each part of each of `count` input elements adds to each part of each output element."""
    sign = 1.0 if kind.is_inverse else -1.0
    roots = _roots(kind.length, sign)[np.outer(np.arange(count), np.arange(kind.outputs)) % kind.length]
    if kind.is_inverse:
        roots = roots / kind.length
    if kind.parts == 1:
        # Each element but the first, and the one in the middle, stands for its mirror image too.
        is_single = (np.arange(count) == 0) | (2 * np.arange(count) == kind.length)
        roots = roots * np.where(is_single, 1.0, 2.0)[:, None]
    blocks = np.array([[roots.real, roots.imag], [-roots.imag, roots.real]])[:given, : kind.parts]
    return blocks.transpose(2, 0, 3, 1).reshape(count * given, kind.outputs * kind.parts)


def _roots(length: int, sign: float) -> C128Array:
    """exp(sign 2 pi i k / length) for all k; what is 0 by symmetry is exactly 0."""
    angle = 2 * np.pi * np.arange(length) / length
    parts = [np.cos(angle), sign * np.sin(angle)]
    real, imaginary = (np.where(np.abs(part) < 1e-12, 0.0, part) for part in parts)
    return np.asarray(real + 1j * imaginary)


def _padded(x: Term, length: int) -> Term:
    """Zeros behind, up to `length` elements."""
    missing = length - x.shape[1]
    return x.row("pad", pads=(0, 0, 0, 0, missing, 0), value=0.0) if missing else x


def _whole_spectrum(x: Term, length: int) -> Term:
    """The spectrum of a real signal from its first half: the rest are mirror images."""
    mirrored = x.gather(np.arange(length - x.shape[1], 0, -1), 1)
    if x.shape[2] == 2:
        mirrored = mirrored * np.array([1.0, -1.0])
    return Term(x.build, x.build.emit("concat", (x.name, mirrored.name), {"axis": 1}))


def _fast(x: Term, is_inverse: bool) -> Term:
    """The whole transform, not divided by the length, of [batch, length, parts]: [batch, length, 2]."""
    length = x.shape[1]
    if length <= DIRECT_LENGTH:
        matrix = _matrix(Transform(length, is_inverse), length, x.shape[2])
        return _product(x, matrix * length if is_inverse else matrix, length, 2)
    divisor = _divisor(length)
    return _split(x, divisor, is_inverse) if divisor else _chirped(x, is_inverse)


def _divisor(length: int) -> int:
    """The divisor up to `DIRECT_LENGTH` that is next to the root of the length; 0 where there is none."""
    found = [entry for entry in range(2, DIRECT_LENGTH + 1) if length % entry == 0]
    return min(found, key=lambda entry: abs(math.log(entry * entry / length)), default=0)


def _split(x: Term, first: int, is_inverse: bool) -> Term:
    """Element second * a + b of the input is [a, b], element k + first * l of the result [l, k]."""
    batch, length, parts = x.shape
    second = length // first
    columns = x.reshape(batch, first, second, parts).transpose(0, 2, 1, 3).reshape(batch * second, first, parts)
    inner = _fast(columns, is_inverse).reshape(batch, second, first, 2)
    turns = np.outer(np.arange(second), np.arange(first)) % length
    turned = _times(inner, _roots(length, 1.0 if is_inverse else -1.0)[turns])
    rows = turned.transpose(0, 2, 1, 3).reshape(batch * first, second, 2)
    outer = _fast(rows, is_inverse).reshape(batch, first, second, 2)
    return outer.transpose(0, 2, 1, 3).reshape(batch, length, 2)


def _chirped(x: Term, is_inverse: bool) -> Term:
    """As k t = (k^2 + t^2 - (k - t)^2) / 2, the transform is a convolution with exp(-+ pi i t^2 / length)."""
    length = x.shape[1]
    counted = np.arange(length, dtype=np.int64)
    chirp = _roots(2 * length, 1.0 if is_inverse else -1.0)[counted * counted % (2 * length)]
    size = 1 << (2 * length - 2).bit_length()
    response = np.zeros(size, np.complex128)
    response[:length] = chirp.conj()
    response[size - length + 1 :] = chirp[:0:-1].conj()
    spectrum = _fast(_padded(_times(x, chirp), size), False)
    made = _fast(_times(spectrum, np.fft.fft(response) / size), True)
    return _times(made.part(1, 0, length), chirp)


def _times(x: Term, factors: C128Array) -> Term:
    """The complex product with constants that are aligned to all dimensions but the first and the last."""
    last = len(x.shape) - 1
    real = x.at(last, 0)
    by_real, by_imaginary = factors.real.astype(np.float32), factors.imag.astype(np.float32)
    if x.shape[last] == 1:
        return stacked((real * by_real, real * by_imaginary), -1)
    imaginary = x.at(last, 1)
    return stacked((real * by_real - imaginary * by_imaginary, real * by_imaginary + imaginary * by_real), -1)
