"""Operands against the instruction table: one check for each kind of field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from birc.runtime.isa import Field
from birc.runtime.machine import Machine
from birc.runtime.program import (
    FILLS,
    MAX_BOX_RANK,
    Affine,
    Box,
    Operand,
    Register,
    RingAddress,
    Window,
)
from birc.runtime.verifier.scope import affine_interval

Complaint = tuple[str, str]  # what, limit

_UNSIGNED_BITS: Final = {"u8": 8, "u16": 16, "u32": 32, "u64": 64}


@dataclass(frozen=True, slots=True)
class Context:
    """What the checks of operands look up: limits, the table sizes of the program, the loops around
    (`trips`).
    """

    machine: Machine
    descriptors: int
    kernels: int
    trips: tuple[int, ...] = ()


def check_operand(field: Field, value: Operand, context: Context) -> Complaint | None:
    """What is wrong with one operand, or None."""
    if field.kind in _UNSIGNED_BITS:
        return _check_integer(field, value, 0, 1 << _UNSIGNED_BITS[field.kind])
    return _CHECKS[field.kind](field, value, context)


def check_affine(value: Affine, depth: int) -> str | None:
    """An affine number may refer only to the loops around it, each once, in order."""
    depths = [term[0] for term in value.terms]
    if any(not 0 <= term < depth for term in depths):
        return f"refers to a loop at depth {max(depths)} but {depth} loops are around it"
    if depths != sorted(set(depths)) or any(factor == 0 for _, factor in value.terms):
        return "has terms that are not sorted, unique and nonzero"
    return None


def _is_integer(value: Operand) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_integer(field: Field, value: Operand, low: int, high: int) -> Complaint | None:
    low = low if field.low is None else field.low
    high = high if field.high is None else field.high
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < high:
        return f"operand {field.name} is {value!r}", f"an integer in [{low}, {high})"
    return None


def _check_i32(field: Field, value: Operand, context: Context) -> Complaint | None:
    return _check_integer(field, value, -(1 << 31), 1 << 31)


def _check_f32(field: Field, value: Operand, context: Context) -> Complaint | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return None
    return f"operand {field.name} is {value!r}", "a number"


def _check_enum(field: Field, value: Operand, context: Context) -> Complaint | None:
    if value in field.choices:
        return None
    return f"operand {field.name} is {value!r}", f"one of {', '.join(field.choices)}"


def _check_mask(field: Field, value: Operand, context: Context) -> Complaint | None:
    return _check_integer(field, value, 0, 1 << 32)


def _check_shape(field: Field, value: Operand, context: Context) -> Complaint | None:
    if not isinstance(value, tuple) or not 1 <= len(value) <= MAX_BOX_RANK:
        return f"operand {field.name} is {value!r}", f"a shape of 1 to {MAX_BOX_RANK} axes"
    if any(not _is_integer(extent) or extent < 1 for extent in value):
        return f"operand {field.name} is {value!r}", "extents of at least 1"
    return _check_tile(field.name, math.prod(value), context)


def _check_tile(name: str, elements: int, context: Context) -> Complaint | None:
    limit = context.machine.vector_tile_elements
    if elements > limit:
        return f"{name} has {elements} elements", f"vector_tile_elements = {limit}"
    return None


def _check_descriptor(field: Field, value: Operand, context: Context) -> Complaint | None:
    return _check_integer(field, value, 0, context.descriptors)


def _check_kernel(field: Field, value: Operand, context: Context) -> Complaint | None:
    return _check_integer(field, value, 0, context.kernels)


def _check_text(field: Field, value: Operand, context: Context) -> Complaint | None:
    return None if isinstance(value, str) else (f"operand {field.name} is {value!r}", "text")


def _check_register(field: Field, value: Operand, context: Context) -> Complaint | None:
    if not isinstance(value, Register):
        return f"operand {field.name} is {value!r}", "a register"
    fault = check_affine(value.number, len(context.trips))
    if fault:
        return f"register {field.name} {fault}", "terms of the loops around"
    low, high = affine_interval(value.number, context.trips)
    count = context.machine.vector_registers
    if low < 0 or high >= count:
        return f"register {field.name} runs from {low} to {high}", f"vector_registers = {count}"
    return None


def _check_source(field: Field, value: Operand, context: Context) -> Complaint | None:
    if isinstance(value, Register):
        return _check_register(field, value, context)
    return _check_f32(field, value, context)


def _check_box(field: Field, value: Operand, context: Context) -> Complaint | None:
    if not isinstance(value, Box):
        return f"operand {field.name} is {value!r}", "a box"
    if not 0 <= value.slot < context.machine.max_descriptors:
        return f"box in slot {value.slot}", f"max_descriptors = {context.machine.max_descriptors}"
    if value.fill not in FILLS:
        return f"box fills with {value.fill!r}", f"one of {', '.join(FILLS)}"
    if not 1 <= len(value.axes) <= MAX_BOX_RANK:
        return f"box has {len(value.axes)} axes", f"1 to {MAX_BOX_RANK}"
    for number, axis in enumerate(value.axes):
        if axis.extent < 1 or axis.step == 0:
            return f"axis {number} has extent {axis.extent}, step {axis.step}", "extent >= 1, step not 0"
        fault = check_affine(axis.start, len(context.trips))
        if fault:
            return f"the start of axis {number} {fault}", "terms of the loops around"
    return None


def _check_ring(field: Field, value: Operand, context: Context) -> Complaint | None:
    if not isinstance(value, RingAddress):
        return f"operand {field.name} is {value!r}", "a ring address"
    if value.modulo < 1:
        return f"ring {field.name} has modulo {value.modulo}", "at least 1"
    fault = check_affine(value.base, len(context.trips)) or check_affine(value.index, len(context.trips))
    if fault:
        return f"ring {field.name} {fault}", "terms of the loops around"
    return None


def _check_window(field: Field, value: Operand, context: Context) -> Complaint | None:
    if not isinstance(value, Window):
        return f"operand {field.name} is {value!r}", "a window"
    for name, start in (("top", value.top), ("left", value.left)):
        fault = check_affine(start, len(context.trips))
        if fault:
            return f"the {name} of window {field.name} {fault}", "terms of the loops around"
    side = context.machine.conv_tile_side
    if not (1 <= value.rows <= side and 1 <= value.columns <= side):
        return f"a window of {value.rows} x {value.columns} pixels", f"1 to conv_tile_side = {side} each"
    reach = context.machine.conv_reach
    for name, start in (("top", value.top), ("left", value.left)):
        low, high = affine_interval(start, context.trips)
        if low < 0 or high > reach:
            return f"a window with {name} {low} to {high}", f"0 to {reach} by conv_kernel_max and conv_dilation_max"
    last = high + value.columns
    return (f"a window with columns up to {last}", f"{value.pitch} in the patch") if last > value.pitch else None


def _check_advance(field: Field, value: Operand, context: Context) -> Complaint | None:
    if isinstance(value, tuple) and all(_is_integer(step) for step in value):
        return None
    return f"operand {field.name} is {value!r}", "a tuple of bytes, one an enclosing command loop"


_CHECKS: Final[dict[str, Callable[[Field, Operand, Context], Complaint | None]]] = {
    "i32": _check_i32,
    "f32": _check_f32,
    "enum": _check_enum,
    "mask": _check_mask,
    "shape": _check_shape,
    "descriptor": _check_descriptor,
    "kernel": _check_kernel,
    "text": _check_text,
    "register": _check_register,
    "source": _check_source,
    "box": _check_box,
    "ring": _check_ring,
    "window": _check_window,
    "advance": _check_advance,
}
