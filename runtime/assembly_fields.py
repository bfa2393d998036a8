"""The text form of each kind of field: how it is printed and how it is parsed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from birc.runtime.field_ranges import (
    I32,
    I64,
    MAX_COMMAND_LOOP_DEPTH,
    U16,
    U32,
    Range,
    number_range,
)
from birc.runtime.isa import Field
from birc.runtime.program import (
    FILLS,
    MAX_BOX_RANK,
    MAX_LOOP_DEPTH,
    Affine,
    Axis,
    Box,
    Register,
    RingAddress,
    Sync,
    Window,
    affine,
)
from birc.runtime.scanner import Scanner

_DEPTHS: Final[Range] = (0, MAX_LOOP_DEPTH)
DIES: Final[Range] = (0, 32)

# --- affine expressions
# ---------------------------------------------------------------------------------------


def show_affine(value: Affine) -> str:
    """`64*i0-i2+3`: terms by depth, then the constant unless it is 0."""
    parts = [_show_term(factor, depth) for depth, factor in value.terms]
    if value.constant or not parts:
        parts.append(f"{value.constant:+d}")
    return "".join(parts).removeprefix("+")


def _show_term(factor: int, depth: int) -> str:
    if abs(factor) == 1:
        return f"{'-' if factor < 0 else '+'}i{depth}"
    return f"{factor:+d}*i{depth}"


def parse_affine(scanner: Scanner) -> Affine:
    """Terms and constants in any order."""
    column = scanner.column
    total = _parse_term(scanner)
    while scanner.follows(r"[+-]"):
        total = total + _parse_term(scanner)
    numbers = (total.constant, *(factor for _, factor in total.terms))
    if any(not I64[0] <= number < I64[1] for number in numbers):
        scanner.fail("a number of this expression has more than 64 bits", column)
    return total


def _parse_term(scanner: Scanner) -> Affine:
    sign = -1 if scanner.accept("-") else 1
    if sign == 1:
        scanner.accept("+")
    if scanner.follows("i"):
        return affine(0, {scanner.numbered("i", _DEPTHS): sign})
    number = sign * scanner.integer((0, I64[1] + 1))
    if scanner.accept("*"):
        return affine(0, {scanner.numbered("i", _DEPTHS): number})
    return Affine(number)


# --- lists, masks, numbered things
# ------------------------------------------------------------------------------


def show_list(values: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, values))}]"


def parse_list(scanner: Scanner, limits: Range = I64, longest: int | None = None) -> tuple[int, ...]:
    """Whole numbers in brackets."""
    column = scanner.column
    scanner.expect("[")
    values: list[int] = []
    while not scanner.accept("]"):
        if values:
            scanner.expect(",")
        values.append(scanner.integer(limits))
    if longest is not None and len(values) > longest:
        scanner.fail(f"{len(values)} entries, at most {longest}", column)
    return tuple(values)


def show_mask(mask: int, prefix: str = "") -> str:
    """The numbers of the bits that are set: `{0, 2}`, or `{i0, i2}`."""
    bits = (bit for bit in range(mask.bit_length()) if mask >> bit & 1)
    return "{" + ", ".join(f"{prefix}{bit}" for bit in bits) + "}"


def parse_mask(scanner: Scanner, limits: Range, prefix: str = "") -> int:
    """Bits in braces, ascending."""
    scanner.expect("{")
    mask = 0
    while not scanner.accept("}"):
        if mask:
            scanner.expect(",")
        mask |= 1 << (scanner.numbered(prefix, limits) if prefix else scanner.integer(limits))
    return mask


def _show_numbered(prefix: str, number: Affine) -> str:
    plain = not number.terms and number.constant >= 0
    return f"{prefix}{number.constant}" if plain else f"{prefix}({show_affine(number)})"


def _parse_numbered(scanner: Scanner, prefix: str) -> Affine:
    if not scanner.accept(f"{prefix}("):
        return Affine(scanner.numbered(prefix, (0, I64[1])))
    number = parse_affine(scanner)
    scanner.expect(")")
    return number


def show_register(register: Register) -> str:
    return _show_numbered("v", register.number)


def parse_register(scanner: Scanner) -> Register:
    return Register(_parse_numbered(scanner, "v"))


def show_float(value: float) -> str:
    """The shortest decimal that gives the 32-bit float."""
    return str(np.float32(value))


def parse_float(scanner: Scanner) -> float:
    column = scanner.column
    wide = scanner.float_number()
    with np.errstate(over="ignore"):
        value = float(np.float32(wide))
    if np.isinf(value) and not np.isinf(wide):
        scanner.fail(f"{wide} is no 32-bit float", column)
    return value


def show_source(source: Register | float) -> str:
    return show_register(source) if isinstance(source, Register) else show_float(source)


def parse_source(scanner: Scanner) -> Register | float:
    return parse_register(scanner) if scanner.follows("v") else parse_float(scanner)


# --- boxes, ring addresses, semaphores
# --------------------------------------------------------------------------


def show_box(box: Box) -> str:
    """`t3[64*i0:64, 2*i1-1:8:2] or lowest`: slot, start:extent:step of each axis, fill."""
    axes = ", ".join(
        f"{show_affine(axis.start)}:{axis.extent}" + (f":{axis.step}" if axis.step != 1 else "") for axis in box.axes
    )
    return f"t{box.slot}[{axes}]" + (f" or {box.fill}" if box.fill != FILLS[0] else "")


def parse_box(scanner: Scanner) -> Box:
    slot = scanner.numbered("t", U16)
    column = scanner.column
    scanner.expect("[")
    axes: list[Axis] = []
    while not scanner.accept("]"):
        if axes:
            scanner.expect(",")
        axes.append(_parse_axis(scanner))
    if len(axes) > MAX_BOX_RANK:
        scanner.fail(f"{len(axes)} axes, at most {MAX_BOX_RANK}", column)
    return Box(slot, tuple(axes), scanner.choice(FILLS) if scanner.accept("or") else FILLS[0])


def _parse_axis(scanner: Scanner) -> Axis:
    start = parse_affine(scanner)
    scanner.expect(":")
    extent = scanner.integer(U32)
    if not scanner.accept(":"):
        return Axis(start, extent)
    column = scanner.column
    step = scanner.integer(I32)
    if step == 0:
        scanner.fail("a step of 0", column)
    return Axis(start, extent, step)


def show_ring(ring: RingAddress) -> str:
    """`@64` or `@64 ring 8192*(i1+i2 % 2)`."""
    base = f"@{show_affine(ring.base)}"
    if ring == RingAddress(ring.base):
        return base
    return f"{base} ring {ring.stride}*({show_affine(ring.index)} % {ring.modulo})"


def parse_ring(scanner: Scanner) -> RingAddress:
    scanner.expect("@")
    base = parse_affine(scanner)
    if not scanner.accept("ring"):
        return RingAddress(base)
    stride = scanner.integer()
    scanner.expect("*")
    scanner.expect("(")
    index = parse_affine(scanner)
    scanner.expect("%")
    modulo = scanner.integer((1, U32[1]))
    scanner.expect(")")
    return RingAddress(base, stride, index, modulo)


def show_window(window: Window) -> str:
    """`window[2*i3:8, 2*i4:8 of 12]`: top and height, left and width, pixels in a row of the patch."""
    top, left = show_affine(window.top), show_affine(window.left)
    return f"window[{top}:{window.rows}, {left}:{window.columns} of {window.pitch}]"


def parse_window(scanner: Scanner) -> Window:
    scanner.expect("window")
    scanner.expect("[")
    top = parse_affine(scanner)
    scanner.expect(":")
    rows = scanner.integer(U16)
    scanner.expect(",")
    left = parse_affine(scanner)
    scanner.expect(":")
    columns = scanner.integer(U16)
    scanner.expect("of")
    pitch = scanner.integer(U16)
    scanner.expect("]")
    return Window(top, left, rows, columns, pitch)


def show_sync(sync: Sync) -> str:
    """`s3 first={i1} last={i4}`."""
    conditions = (("first", sync.first), ("last", sync.last))
    shown = (f" {name}={show_mask(mask, 'i')}" for name, mask in conditions if mask)
    return _show_numbered("s", sync.semaphore) + "".join(shown)


def parse_sync(scanner: Scanner) -> Sync:
    semaphore = _parse_numbered(scanner, "s")
    masks = {"first": 0, "last": 0}
    for name in masks:
        if scanner.accept(name):
            scanner.expect("=")
            masks[name] = parse_mask(scanner, _DEPTHS, "i")
    return Sync(semaphore, **masks)


# --- the table
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextForm:
    """How one kind of field is written. Labelled ones stand as `name=value`, others speak for themselves."""

    show: Callable[[Any, Field], str]
    parse: Callable[[Scanner, Field], Any]
    labelled: bool = False


def _bit_prefix(field: Field) -> str:
    """Masks of loops are written with loop variables; the only others are those of a register's axes."""
    return "" if field.name == "axes" else "i"


def _ignoring_field(function: Callable[[Any], Any]) -> Callable[[Any, Field], Any]:
    """For the kinds whose text does not depend on the field's limits."""
    return lambda argument, _: function(argument)


_NUMBER: Final = TextForm(
    lambda value, _: str(value), lambda scanner, field: scanner.integer(number_range(field)), labelled=True
)

KINDS: Final[Mapping[str, TextForm]] = MappingProxyType(
    {
        **dict.fromkeys(("u8", "u16", "u32", "u64", "i32"), _NUMBER),
        "f32": TextForm(_ignoring_field(show_float), _ignoring_field(parse_float)),
        "enum": TextForm(
            lambda value, _: str(value), lambda scanner, field: scanner.choice(field.choices), labelled=True
        ),
        "mask": TextForm(
            lambda value, field: show_mask(value, _bit_prefix(field)),
            lambda scanner, field: parse_mask(scanner, _DEPTHS, _bit_prefix(field)),
            labelled=True,
        ),
        "shape": TextForm(
            lambda value, _: show_list(value),
            lambda scanner, _: parse_list(scanner, U32, MAX_BOX_RANK),
            labelled=True,
        ),
        "advance": TextForm(
            lambda value, _: show_list(value),
            lambda scanner, _: parse_list(scanner, I64, MAX_COMMAND_LOOP_DEPTH),
            labelled=True,
        ),
        "descriptor": TextForm(lambda value, _: f"d{value}", lambda scanner, _: scanner.numbered("d", U32)),
        "kernel": TextForm(lambda value, _: f"k{value}", lambda scanner, _: scanner.numbered("k", U32)),
        "text": TextForm(lambda value, _: json.dumps(value), lambda scanner, _: scanner.string()),
        "register": TextForm(_ignoring_field(show_register), _ignoring_field(parse_register)),
        "source": TextForm(_ignoring_field(show_source), _ignoring_field(parse_source)),
        "box": TextForm(_ignoring_field(show_box), _ignoring_field(parse_box)),
        "ring": TextForm(_ignoring_field(show_ring), _ignoring_field(parse_ring)),
        "window": TextForm(_ignoring_field(show_window), _ignoring_field(parse_window)),
    }
)


def show_operand(value: Any, field: Field) -> str:
    """The text of one operand."""
    form = KINDS[field.kind]
    return (f"{field.name}=" if form.labelled else "") + form.show(value, field)


def parse_operand(scanner: Scanner, field: Field) -> Any:
    """One operand. Raises `BadPackageError` with line and column."""
    form = KINDS[field.kind]
    if form.labelled:
        scanner.expect(field.name)
        scanner.expect("=")
    return form.parse(scanner, field)
