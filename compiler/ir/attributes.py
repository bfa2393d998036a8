"""The attributes of ops: their declaration, their check, and typed access to their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from birc.runtime.dtypes import DType
from birc.runtime.errors import InternalError

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...] | DType
Attributes = Mapping[str, AttributeValue]
AttributeKind = Literal["int", "float", "string", "ints", "floats", "dtype"]


@dataclass(frozen=True, slots=True)
class Required:
    """The type of `REQUIRED`."""


REQUIRED: Final = Required()
"""Stands where a default would: the attribute must be given."""

_KIND_NAMES: Final[dict[AttributeKind, str]] = {
    "int": "an integer",
    "float": "a float",
    "string": "a string",
    "ints": "a tuple of integers",
    "floats": "a tuple of floats",
    "dtype": "an element type",
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """The declaration of one attribute.

    `length` fixes the number of elements, `choices` the strings allowed, `minimum` the least integer.
    """

    kind: AttributeKind
    doc: str
    default: AttributeValue | Required = REQUIRED
    length: int | None = None
    choices: tuple[str, ...] = ()
    minimum: int | None = None

    def problem(self, value: AttributeValue) -> str | None:
        """What is wrong with `value`, or None."""
        if not _is_of_kind(value, self.kind):
            return f"is {value!r}, not {_KIND_NAMES[self.kind]}"
        if self.length is not None and isinstance(value, tuple) and len(value) != self.length:
            return f"has {len(value)} elements, not {self.length}"
        if self.choices and value not in self.choices:
            return f"is {value!r}, not one of {', '.join(self.choices)}"
        if self.minimum is not None and min(_as_integers(value), default=self.minimum) < self.minimum:
            return f"is {value!r}, below the least allowed {self.minimum}"
        return None


def _is_of_kind(value: object, kind: AttributeKind) -> bool:
    if kind == "int":
        return _is_int(value)
    if kind == "float":
        return isinstance(value, float)
    if kind == "string":
        return isinstance(value, str)
    if kind == "dtype":
        return isinstance(value, DType)
    if not isinstance(value, tuple):
        return False
    return all(_is_int(item) if kind == "ints" else isinstance(item, float) for item in value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_integers(value: AttributeValue) -> tuple[int, ...]:
    items = value if isinstance(value, tuple) else (value,)
    return tuple(item for item in items if isinstance(item, int))


def integer(attributes: Attributes, name: str) -> int:
    """The integer attribute `name`."""
    value = _get(attributes, name)
    if not isinstance(value, int):
        raise _mistyped(name, value, "int")
    return value


def number(attributes: Attributes, name: str) -> float:
    """The float attribute `name`."""
    value = _get(attributes, name)
    if not isinstance(value, float):
        raise _mistyped(name, value, "float")
    return value


def text(attributes: Attributes, name: str) -> str:
    """The string attribute `name`."""
    value = _get(attributes, name)
    if not isinstance(value, str):
        raise _mistyped(name, value, "string")
    return value


def integers(attributes: Attributes, name: str) -> tuple[int, ...]:
    """The attribute `name`, a tuple of integers."""
    value = _get(attributes, name)
    if not isinstance(value, tuple):
        raise _mistyped(name, value, "ints")
    return cast(tuple[int, ...], value)


def element_type(attributes: Attributes, name: str) -> DType:
    """The attribute `name`, an element type."""
    value = _get(attributes, name)
    if not isinstance(value, DType):
        raise _mistyped(name, value, "dtype")
    return value


def _get(attributes: Attributes, name: str) -> AttributeValue:
    if name not in attributes:
        raise InternalError(f"attribute {name} is missing", hint="attributes are checked before rules run")
    return attributes[name]


def _mistyped(name: str, value: object, kind: AttributeKind) -> InternalError:
    return InternalError(f"attribute {name} is {value!r}, not {_KIND_NAMES[kind]}")
