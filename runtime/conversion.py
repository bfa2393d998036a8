"""Conversion between elements in memory and lanes of registers.

A register lane is an FP32 or an INT32 value. Loading widens exactly; storing rounds to nearest, ties to even.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from birc.runtime.dtypes import dtype
from birc.runtime.faults import MachineFault

Array = npt.NDArray[Any]

FLOAT: Final = np.dtype(np.float32)
INT: Final = np.dtype(np.int32)
_INT_RANGE: Final = np.iinfo(np.int32)


def memory_type(name: str) -> np.dtype[Any]:
    """The numpy type of the elements of a tensor in memory. Raises `MachineFault` for a type that no
    instruction can address, such as FLOAT64."""
    entry = dtype(name)
    if not entry.is_addressable:
        raise MachineFault(f"no instruction loads or stores elements of type {name}")
    # As bytes: a byte that is neither 0 nor 1 is no numpy bool.
    return np.dtype(np.uint8) if entry.kind == "bool" else entry.numpy


def register_type(name: str) -> np.dtype[Any]:
    """The type of a register that holds elements of the memory type `name`: FP32 for floats, else INT32."""
    return FLOAT if dtype(name).is_float else INT


def to_register(elements: Array, name: str) -> Array:
    """Elements of memory type `name` as register lanes, always a new array.

    UINT32 stays its bit pattern. Raises `MachineFault` for another integer that 32 bits do not hold.
    """
    wanted = register_type(name)
    if name == "bool":
        return (elements != 0).astype(wanted)
    if elements.dtype.itemsize > INT.itemsize and wanted == INT and elements.size:
        low, high = elements.min(), elements.max()
        if low < _INT_RANGE.min or high > _INT_RANGE.max:
            value = low if low < _INT_RANGE.min else high
            raise MachineFault(f"loads the {name} value {value}, a register lane holds 32 bits")
    return elements.astype(wanted)


def from_register(lanes: Array, name: str) -> Array:
    """Register lanes as elements of memory type `name`.

    FP32 rounds to narrower floats, INT32 keeps its low bits in narrower integers and is sign extended in
    wider ones, INT32 becomes the nearest float; bool is "not zero". Raises `MachineFault` for FP32 into an
    integer type: `vtoint` says how to round.
    """
    target = dtype(name)
    if target.kind == "bool":
        return lanes != 0
    if target.is_integer and lanes.dtype != INT:
        raise MachineFault(f"stores FP32 lanes to a tensor of type {name}", hint="convert with vtoint first")
    with np.errstate(over="ignore", invalid="ignore"):
        return lanes.astype(target.numpy)


def fill_value(fill: str, name: str) -> float:
    """What an element out of bounds reads as, in a register: 0, or the lowest or highest value of the type.

    For floats these are the infinities. INT64 is cut to what a lane holds; the highest UINT32 has all bits set.
    """
    if fill == "zero":
        return 0
    entry = dtype(name)
    highest = fill == "highest"
    if entry.is_float:
        return float("inf") if highest else float("-inf")
    if entry.kind == "bool":
        return int(highest)
    if name == "u32":
        return -1 if highest else 0
    limits = np.iinfo(entry.numpy)
    return min(int(limits.max), _INT_RANGE.max) if highest else max(int(limits.min), _INT_RANGE.min)


def immediate_lanes(value: float, name: str) -> Array:
    """An immediate that is stored to a tensor of memory type `name`, as one lane: INT32 if it is one and the
    tensor holds integers, else FP32."""
    whole = float(value).is_integer() and _INT_RANGE.min <= value <= _INT_RANGE.max
    with np.errstate(over="ignore"):
        return np.asarray(value, INT if whole and register_type(name) == INT else FLOAT)
