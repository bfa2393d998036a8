"""Integer ops in Python's own integers, which have no width, and the numbers that are worth trying on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from birc.runtime.dtypes import DType


def quotient(a: int, b: int) -> int:
    size = abs(a) // abs(b) if b else 0
    return -size if (a < 0) != (b < 0) else size


def power(a: int, b: int) -> int:
    if b >= 0:
        return a**b
    return a ** (b & 1) if abs(a) == 1 else 0


REFERENCE: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": quotient,
    "mod": lambda a, b: a % b if b else 0,
    "maximum": max,
    "minimum": min,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
    "equal": lambda a, b: a == b,
    "neg": lambda a: -a,
    "abs": abs,
    "relu": lambda a: max(a, 0),
    "sign": lambda a: (a > 0) - (a < 0),
    "bitwise_and": lambda a, b: a & b,
    "bitwise_or": lambda a, b: a | b,
    "bitwise_xor": lambda a, b: a ^ b,
    "bitwise_not": lambda a: ~a,
}
UNARY = ("neg", "abs", "relu", "sign", "bitwise_not")
BINARY = tuple(op for op in REFERENCE if op not in UNARY)
TRUTH = ("less", "less_equal", "greater", "greater_equal", "equal")


def interesting(type: DType) -> np.ndarray:
    """The ends of the range, small numbers, powers of two and their neighbours, and random ones."""
    limits = np.iinfo(type.numpy)
    near = [p + d for p in (1 << b for b in range(type.bits)) for d in (-1, 0, 1)]
    drawn = np.random.default_rng(3).integers(limits.min, limits.max, 40, type.numpy, endpoint=True).tolist()
    whole = {*near, *(-v for v in near), *range(-12, 12), *drawn, limits.min, limits.max}
    return np.array(sorted(v for v in whole if limits.min <= v <= limits.max), type.numpy)


def wrapped(values: list[int], type: DType) -> np.ndarray:
    limit = 1 << type.bits
    return np.array([v % limit for v in values], np.uint64).astype(type.numpy)
