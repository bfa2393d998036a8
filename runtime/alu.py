"""What the vector instructions compute: one table from mnemonic to numpy function, shared by the engines.

Operands are FP32 or INT32 arrays; an immediate is a Python float. Functions work in FP32 as numpy rounds it,
integers wrap at 32 bits, comparisons and logic give INT32 0 or 1, instructions on bits take INT32 alone. Every
function takes `out` (the result's type and shape, or None for a new array).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from birc.runtime.dtypes import dtype
from birc.runtime.faults import MachineFault

Array = npt.NDArray[Any]
Function = Callable[..., Array]

_FLOAT: Final = np.dtype(np.float32)
_INT: Final = np.dtype(np.int32)
_INT_LIMITS: Final = np.iinfo(np.int32)


def elementwise(mnemonic: str, operands: Sequence[Array | float], out: Array | None = None) -> Array:
    """The result of an arithmetic, special-function or fold instruction for its source operands.

    Operands broadcast as in numpy. INT32 and FP32 together compute in FP32; an immediate takes the type of
    the registers beside it, unless it is not a 32-bit integer: then the instruction computes in FP32.
    """
    function = ELEMENTWISE[mnemonic]
    if mnemonic in _SELECTS:
        condition, *chosen = operands
        arrays = (_lanes(condition, _FLOAT), *promote(chosen))
    elif mnemonic in FLOAT_RESULT:
        arrays = tuple(_lanes(operand, _FLOAT) for operand in operands)
    elif mnemonic in ON_BITS and common_type(operands) != _INT:
        raise MachineFault(f"{mnemonic} takes INT32 lanes, not FP32")
    else:
        arrays = promote(operands)
    with np.errstate(all="ignore"):
        return function(*arrays, out=out)


def reduction(mnemonic: str, lanes: Array, axes_mask: int, out: Array | None = None) -> Array:
    """`lanes` reduced over the axes of the mask (bit 0 = first axis), which become extent 1."""
    axes = tuple(axis for axis in range(lanes.ndim) if axes_mask >> axis & 1)
    with np.errstate(all="ignore"):
        return REDUCTIONS[mnemonic].reduce(lanes, axis=axes, dtype=lanes.dtype, out=out, keepdims=True)


def promote(operands: Sequence[Array | float]) -> tuple[Array, ...]:
    """The operands as arrays of one type, FP32 or INT32."""
    common = common_type(operands)
    return tuple(_lanes(operand, common) for operand in operands)


def common_type(operands: Sequence[Array | float]) -> np.dtype[Any]:
    """The type in which an instruction computes with these operands."""
    arrays = [operand for operand in operands if isinstance(operand, np.ndarray)]
    immediates = [operand for operand in operands if not isinstance(operand, np.ndarray)]
    if arrays and all(array.dtype == _INT for array in arrays) and all(map(is_int32, immediates)):
        return _INT
    return _FLOAT


def is_int32(value: float) -> bool:
    """Whether an immediate can stand beside INT32 registers: a whole number that 32 bits hold."""
    return float(value).is_integer() and _INT_LIMITS.min <= value <= _INT_LIMITS.max


def _lanes(operand: Array | float, immediate_type: np.dtype[Any]) -> Array:
    """The operand as lanes of a type."""
    if isinstance(operand, np.ndarray):
        return operand if operand.dtype == immediate_type else operand.astype(immediate_type)
    with np.errstate(over="ignore"):
        return np.asarray(operand, immediate_type)


def _copy(a: Array, out: Array | None = None) -> Array:
    if out is None:
        return a.copy()
    np.copyto(out, a)
    return out


def _keeping_integers(function: Function) -> Function:
    """A rounding function that leaves INT32 as it is."""

    def rounded(a: Array, out: Array | None = None) -> Array:
        return _copy(a, out) if a.dtype == _INT else function(a, out=out)

    return rounded


def _truth(function: Function) -> Function:
    """A comparison or logic function with INT32 results 0 and 1."""

    def compared(*operands: Array, out: Array | None = None) -> Array:
        return _as_int(function(*operands), out)

    return compared


def _as_int(values: Array, out: Array | None) -> Array:
    if out is None:
        return np.asarray(values).astype(_INT)
    np.copyto(out, values, casting="unsafe")
    return out


def _to_int(a: Array, out: Array | None = None) -> Array:
    """Toward zero; beyond 32 bits the nearest limit; NaN gives 0."""
    if a.dtype == _INT:
        return _copy(a, out)
    # FP64 holds both limits exactly, FP32 would round the upper one out of range.
    whole = np.clip(np.trunc(a.astype(np.float64)), _INT_LIMITS.min, _INT_LIMITS.max)
    return _as_int(np.where(np.isnan(whole), 0, whole), out)


def _rounding(name: str) -> Function:
    """FP32 rounded to an element type and widened again."""
    holder = dtype(name).numpy

    def rounded(a: Array, out: Array | None = None) -> Array:
        return _copy(a.astype(holder).astype(_FLOAT), out)

    return rounded


def _multiply_add(a: Array, b: Array, c: Array, out: Array | None = None) -> Array:
    """a * b + c. The product of two FP32 is exact in FP64, so FP32 rounds but the sum."""
    if a.dtype == _INT:
        return np.add(a * b, c, out=out)
    wide = np.multiply(a, b, dtype=np.float64)
    wide = np.add(wide, c)
    return _copy(wide.astype(_FLOAT), out) if out is not None else wide.astype(_FLOAT)


def _negated_multiply_add(a: Array, b: Array, c: Array, out: Array | None = None) -> Array:
    """c - a * b. The product of two FP32 is exact in FP64, so only the difference is rounded."""
    if a.dtype == _INT:
        return np.subtract(c, a * b, out=out)
    wide = np.subtract(c, np.multiply(a, b, dtype=np.float64))
    return _copy(wide.astype(_FLOAT), out)


def _shifted(shift: Callable[[Array, Array], Array], unsigned: bool) -> Function:
    """A shift. All bits have left the word after 32 places; numpy moves by less than 32 only."""

    def moved(a: Array, b: Array, out: Array | None = None) -> Array:
        words = a.view(np.uint32) if unsigned else a
        inside = (b >= 0) & (b < _WORD_BITS)
        places = np.where(inside, b, _WORD_BITS - 1).astype(words.dtype)
        result = shift(words, places)
        if unsigned:
            result = np.where(inside, result, np.uint32(0)).view(_INT)
        return _copy(result, out)

    return moved


def _upper_product(a: Array, b: Array, out: Array | None = None) -> Array:
    product = np.multiply(a.view(np.uint32), b.view(np.uint32), dtype=np.uint64)
    return _copy((product >> np.uint64(_WORD_BITS)).astype(np.uint32).view(_INT), out)


def _select(condition: Array, a: Array, b: Array, out: Array | None = None) -> Array:
    chosen = np.where(condition != 0, a, b)
    return chosen if out is None else _copy(chosen, out)


def _reciprocal_root(a: Array, out: Array | None = None) -> Array:
    root = np.sqrt(a, out=out)
    return np.divide(np.float32(1), root, out=out)


def _reciprocal(a: Array, out: Array | None = None) -> Array:
    return np.divide(np.float32(1), a, out=out)


_WORD_BITS: Final = 32
ON_BITS: Final = frozenset({"vband", "vbor", "vbxor", "vshl", "vshr", "vsra", "vmulh"})
"""Instructions that see their operands as words of 32 bits: INT32 alone, no FP32."""

_SELECTS: Final = frozenset({"vsel"})
_ROUNDINGS: Final = MappingProxyType({f"vto{name}": _rounding(name) for name in ("bf16", "f16", "f8e4m3", "f8e5m2")})
FLOAT_RESULT: Final = frozenset({"vtofloat", "vexp2", "vlog2", "vrcp", "vrsqrt", "vtanh", "vsin", "vcos", *_ROUNDINGS})
"""The instructions that compute in FP32 whatever their operands are."""

REDUCTIONS: Final[Mapping[str, np.ufunc]] = MappingProxyType(
    {"vredsum": np.add, "vredmax": np.maximum, "vredmin": np.minimum, "vredprod": np.multiply}
)

FOLDS: Final[Mapping[str, np.ufunc]] = MappingProxyType(
    {"vfoldsum": np.add, "vfoldmax": np.maximum, "vfoldmin": np.minimum, "vfoldprod": np.multiply}
)

# A fold's operands here are the old value of its register and `a`; `first` is the engine's affair.
ELEMENTWISE: Final[Mapping[str, Function]] = MappingProxyType(
    {
        "vmov": _copy,
        "vneg": np.negative,
        "vabs": np.absolute,
        "vfloor": _keeping_integers(np.floor),
        "vceil": _keeping_integers(np.ceil),
        "vround": _keeping_integers(np.rint),
        "vsign": np.sign,
        "vnot": _truth(lambda a: np.equal(a, 0)),
        "vtofloat": _copy,
        "vtoint": _to_int,
        **_ROUNDINGS,
        "vadd": np.add,
        "vsub": np.subtract,
        "vmul": np.multiply,
        "vmax": np.maximum,
        "vmin": np.minimum,
        "veq": _truth(np.equal),
        "vlt": _truth(np.less),
        "vle": _truth(np.less_equal),
        "vand": _truth(np.logical_and),
        "vor": _truth(np.logical_or),
        "vxor": _truth(np.logical_xor),
        "vband": np.bitwise_and,
        "vbor": np.bitwise_or,
        "vbxor": np.bitwise_xor,
        "vshl": _shifted(np.left_shift, unsigned=True),
        "vshr": _shifted(np.right_shift, unsigned=True),
        "vsra": _shifted(np.right_shift, unsigned=False),
        "vmulh": _upper_product,
        "vfma": _multiply_add,
        "vfnma": _negated_multiply_add,
        "vsel": _select,
        "vexp2": np.exp2,
        "vlog2": np.log2,
        "vrcp": _reciprocal,
        "vrsqrt": _reciprocal_root,
        "vtanh": np.tanh,
        "vsin": np.sin,
        "vcos": np.cos,
        **FOLDS,
    }
)
