"""FP32 operands of the T-core as sums of TF32+ numbers, which it multiplies exactly (precision `fp32`).

x = high + low: high has the upper 16 significant bits of x, low the other 8. Of the four products of two such sums
low * low is below what FP32 holds. The other three are one product of three times the depth, with the parts of each
operand side by side along it: (low, finite, high) times (finite, low, high). `finite` is high where x is a number
and 0 elsewhere: an infinity meets its partner once, not the zeros of the partner's low part as well.

The split is Veltkamp's (T. J. Dekker, A floating-point technique for extending the available precision, Numerische
Mathematik 18, 1971, section 5).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from birc.compiler.ir.plan import Kernel, View
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.lower.environment import Environment
from birc.compiler.passes.lower.expression import Builder, Expression, Store, phases
from birc.compiler.passes.lower.frame import Frame
from birc.compiler.passes.lower.views import broadcast, narrow
from birc.runtime.dtypes import dtype, round_tf32p

Pattern = tuple[str, ...]
"""The parts of an operand in the order in which they lie along its depth; () is the operand itself."""

WHOLE: Final[Pattern] = ()
_THREE: Final = (("low", "finite", "high"), ("finite", "low", "high"))
_EXACT: Final[Pattern] = ("finite", "finite")
_BESIDE_EXACT: Final[Pattern] = ("low", "high")

_LARGEST_TF32P: Final = float(np.uint32(0x7F7FFF00).view(np.float32))
_UNIT: Final = 2.0**-9
"""The split is made on x times this, so that nothing overflows on the way."""
_SPLITTER: Final = 2.0**8 + 1.0
"""Veltkamp's factor for a low part of 8 bits."""


def patterns(env: Environment, a: str, b: str) -> tuple[Pattern, Pattern]:
    """How two operands of a product are split; a constant that TF32+ holds exactly takes two products, not three."""
    types = {env.graph.type_of(name).dtype.name for name in (a, b)}
    if env.precision != "fp32" or types != {"f32"}:
        return WHOLE, WHOLE
    exact_a, exact_b = _is_exact(env, a), _is_exact(env, b)
    if exact_a and exact_b:
        return WHOLE, WHOLE
    if exact_a or exact_b:
        return (_EXACT, _BESIDE_EXACT) if exact_a else (_BESIDE_EXACT, _EXACT)
    return _THREE


def constant_parts(data: np.ndarray, axis: int, pattern: Pattern) -> np.ndarray:
    """The parts of an array side by side along an axis."""
    if not pattern:
        return data
    x = np.ascontiguousarray(data, np.float32)
    is_finite = np.isfinite(x)
    finite = np.where(is_finite, np.clip(round_tf32p(x), -_LARGEST_TF32P, _LARGEST_TF32P), np.float32(0))
    high = np.where(is_finite, finite, x)
    low = np.where(is_finite, x - finite, np.float32(0))
    named = {"high": high, "finite": finite, "low": low}
    return np.concatenate([named[part] for part in pattern], axis)


def parts(b: Builder, x: Expression) -> dict[str, Expression]:
    """The parts of a value by name."""
    is_finite = b.op("vlt", b.op("vabs", x), math.inf, is_float=False)
    wide = b.op("vmul", x, _UNIT * _SPLITTER)
    rounded = b.op("vsub", wide, b.op("vsub", wide, b.op("vmul", x, _UNIT)))
    clipped = b.op("vmin", b.op("vmul", rounded, 1.0 / _UNIT), _LARGEST_TF32P)
    upper = b.op("vmax", clipped, -_LARGEST_TF32P)
    return {
        "high": b.op("vsel", is_finite, upper, x),
        "finite": b.op("vsel", is_finite, upper, 0.0),
        "low": b.op("vsel", is_finite, b.op("vsub", x, upper), 0.0),
    }


def part_stores(
    b: Builder, x: Expression, frame: Frame, target: View, axis: int, pattern: Pattern
) -> tuple[Store, ...]:
    """Writes the parts of a value of the frame's shape side by side along an axis of the target."""
    named = parts(b, x)
    steps = (1,) * len(frame.shape)
    stores = []
    for number, part in enumerate(pattern):
        starts = tuple(number * frame.shape[axis] if i == axis else 0 for i in range(len(frame.shape)))
        stores.append(Store(named[part], frame.access(narrow(target, starts, frame.shape, steps))))
    return tuple(stores)


def parted(env: Environment, name: str, view: View, axis: int, pattern: Pattern, sources: tuple[str, ...]) -> View:
    """The view with the parts of its elements side by side along an axis, made by a kernel once for all who ask.

    The copy keeps the order in which the dimensions lie in memory, and repeats where the view repeats.
    """
    if not pattern:
        return view
    key = (view, axis, pattern)
    if key not in env.parted:
        env.parted[key] = _parted(env, name, view, axis, pattern, sources)
    return env.parted[key]


def _parted(env: Environment, name: str, view: View, axis: int, pattern: Pattern, sources: tuple[str, ...]) -> View:
    single = tuple(
        1 if stride == 0 and i != axis else extent
        for i, (extent, stride) in enumerate(zip(view.dims, view.strides, strict=True))
    )
    source = View(view.buffer, view.offset, single, view.strides)
    longer = _lengthened(single, axis, len(pattern))
    order = tuple(sorted(range(len(single)), key=lambda i: (-abs(view.strides[i]), i)))
    copy_name = f"{name}.parts"
    target = env.new_buffer(copy_name, TensorType(dtype("f32"), longer, order))
    frame, builder = Frame.of(single, order), Builder()
    stores = part_stores(builder, builder.load(frame.access(source)), frame, target, axis, pattern)
    env.kernels.append(Kernel(copy_name, frame.dimensions, phases(stores, lambda _: ()), None, 0, sources))
    return broadcast(target, _lengthened(view.dims, axis, len(pattern)))


def _lengthened(dims: tuple[int, ...], axis: int, times: int) -> tuple[int, ...]:
    return (*dims[:axis], dims[axis] * times, *dims[axis + 1 :])


def _is_exact(env: Environment, name: str) -> bool:
    """Whether an operand is a constant of finite numbers that TF32+ holds."""
    constant = env.graph.constants.get(name)
    if constant is None:
        return False
    data = np.ascontiguousarray(constant.data, np.float32)
    return bool(np.isfinite(data).all() and np.array_equal(round_tf32p(data), data))
