"""Lowering of the windows of signal processing, and of the filters that gather a spectrum into mel bands."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast, named_type
from birc.compiler.importer.counting import require_helpers
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.run_time import are, declared_result, flattened, held
from birc.compiler.importer.term import Number, Term, floor, quotient, where
from birc.runtime.dtypes import DType
from birc.runtime.errors import BadModelError

F64Array = npt.NDArray[np.float64]
Curve = Callable[[F64Array], F64Array]

# mel(f) = 2595 log10(1 + f / 700): ONNX operator reference, MelWeightMatrix.
_MEL_FACTOR: Final = 2595.0 / math.log(10.0)
_MEL_HERTZ: Final = 700.0


def _hann(angle: F64Array) -> F64Array:
    return np.asarray(0.5 - 0.5 * np.cos(angle))


def _hamming(angle: F64Array) -> F64Array:
    return np.asarray(25 / 46 - 21 / 46 * np.cos(angle))


def _blackman(angle: F64Array) -> F64Array:
    return np.asarray(0.42 - 0.5 * np.cos(angle) + 0.08 * np.cos(2 * angle))


def _window(curve: Curve) -> Lower:
    """A window is a constant; one whose length comes at run time has the length that the model declares."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        size, kind = node.input(0), _output_type(node)
        known = build.constant_of(size)
        if known is not None:
            return build.constant(_samples(node, curve, int(known.reshape(-1)[0]), kind))
        declared = declared_result(node, build)
        if len(declared) != 1:
            raise BadModelError(f"declares {list(declared)} for a window", where=node.where)
        window = build.constant(_samples(node, curve, declared[0], kind))
        return held(build, window, [are(build, flattened(build, size), declared)])

    return lower


def _output_type(node: OnnxNode) -> DType:
    return named_type(node.int_attribute("output_datatype", onnx.TensorProto.FLOAT))


def _samples(node: OnnxNode, curve: Curve, size: int, kind: DType) -> npt.NDArray[np.generic]:
    """A periodic window leaves out the last element of a symmetric one that is longer by 1."""
    if size < 0:
        raise BadModelError(f"a window of {size} elements", where=node.where)
    require_helpers(size, "the window")
    period = size if node.int_attribute("periodic", 1) else size - 1
    turns = np.arange(size, dtype=np.float64) / max(period, 1)
    return curve(2 * np.pi * turns).astype(kind.numpy)


def _mel_weight_matrix(node: OnnxNode, build: GraphBuilder) -> Results:
    """A triangle over the spectrum for each band; its corners are rounded down to elements of the spectrum."""
    names = ("number of bands", "length of the transform", "sample rate", "lower edge", "upper edge")
    given = [build.constant_of(node.input(place)) for place in range(len(names))]
    kind = _output_type(node)
    bands, length = (None if value is None else int(value.reshape(-1)[0]) for value in given[:2])
    conditions = []
    if bands is None or length is None:
        spectrum, columns = _declared_matrix(node, build)
        bands = columns if bands is None else bands
        if (spectrum, columns) != (spectrum if length is None else length // 2 + 1, bands):
            raise BadModelError(f"declares [{spectrum}, {columns}] for {bands} bands", where=node.where)
        if given[0] is None:
            conditions.append(are(build, flattened(build, node.input(0)), (bands,)))
        if given[1] is None:
            half = (Term(build, flattened(build, node.input(1))).to("f32") * 0.5).row("floor")
            conditions.append(half.equals(spectrum - 1).name)
    else:
        spectrum = length // 2 + 1
    require_helpers(spectrum * bands, "the matrix of all bands")
    holder = np.float32 if any(value is None for value in given) else np.float64
    numbers = [
        Term(build, flattened(build, node.input(place))).to("f32")
        if value is None
        else np.asarray(value, holder).reshape(1)
        for place, value in enumerate(given)
    ]
    corners = _mel_corners(bands, *numbers[1:])
    matrix = _triangles(corners, spectrum, bands)
    if not isinstance(matrix, Term):
        return build.constant(matrix.astype(kind.numpy))
    return cast(build, held(build, matrix.name, conditions), kind)


def _declared_matrix(node: OnnxNode, build: GraphBuilder) -> tuple[int, int]:
    declared = declared_result(node, build)
    if len(declared) != 2:
        raise BadModelError(f"declares {list(declared)} for a matrix", where=node.where)
    return declared[0], declared[1]


def _mel_corners(bands: int, length: Number, rate: Number, lowest: Number, highest: Number) -> Number:
    """The elements of the spectrum at which the triangles begin, peak and end, evenly spaced in mel: as floats.

    The reference divides the range into bands + 2 steps, so that the upper edge itself is never reached.
    """
    start, end = _mel(lowest), _mel(highest)
    step = (end - start) * (1 / (bands + 2))
    mel = np.arange(bands + 2, dtype=np.float32) * step + start
    hertz = (_exponential(mel * (1 / _MEL_FACTOR)) - 1) * _MEL_HERTZ
    return floor(quotient((length + 1) * hertz, rate))


def _mel(hertz: Number) -> Number:
    ratio = hertz * (1 / _MEL_HERTZ) + 1
    return (ratio.row("log") if isinstance(ratio, Term) else np.log(ratio)) * _MEL_FACTOR


def _exponential(value: Number) -> Number:
    return value.row("exp") if isinstance(value, Term) else np.exp(value)


def _triangles(corners: Number, spectrum: int, bands: int) -> Number:
    """[spectrum, bands]: up from the left corner to 1 at the centre, down to the right corner."""
    left, centre, right = (_entries(corners, place, place + bands) for place in range(3))
    position = np.arange(spectrum, dtype=np.float32).reshape(spectrum, 1)
    rise, fall = centre - left, right - centre
    rising = quotient(position - left, where(_positive(rise), rise, 1.0))
    falling = quotient(right - position, where(_positive(fall), fall, 1.0))
    below = where(_ordered(left, position), where(_ordered(position, centre), rising, 0.0), 0.0)
    above = where(_ordered(centre, position), where(_ordered(right, position), 0.0, falling), below)
    return where(_same(centre, position), 1.0, above)


def _entries(corners: Number, start: int, end: int) -> Number:
    return corners.part(0, start, end) if isinstance(corners, Term) else corners[start:end]


def _positive(value: Number) -> Number:
    return value > 0


def _ordered(low: Number, high: Number) -> Number:
    return low <= high if isinstance(low, Term) or not isinstance(high, Term) else high >= low


def _same(value: Number, position: npt.NDArray[np.float32]) -> Number:
    return value.equals(position) if isinstance(value, Term) else np.asarray(value == position)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("BlackmanWindow", _window(_blackman)),
    OpType("HammingWindow", _window(_hamming)),
    OpType("HannWindow", _window(_hann)),
    OpType("MelWeightMatrix", _mel_weight_matrix),
)
