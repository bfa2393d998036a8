"""Reading JSON from a package without trust: each field has a type, and what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn, TypeAlias

from birc.runtime.errors import BadPackageError

Json: TypeAlias = Mapping[str, Any] | list[Any] | str | int | float | bool | None

_LARGEST: Final = 1 << 63


def to_bytes(value: Json) -> bytes:
    """JSON text with sorted keys and a final newline: the same value gives the same bytes."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(data: bytes, *, where: str) -> Any:
    """The value of a JSON text. Raises `BadPackageError` when it is none."""
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadPackageError(f"is not JSON: {error}", where=where) from error


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


class Fields:
    """The fields of a JSON object. Every getter raises `BadPackageError`, with the field, on a wrong type."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise BadPackageError("must be an object", where=where)
        self._values = value
        self._where = where

    def only(self, *names: str) -> None:
        """Refuse fields of other names."""
        unknown = sorted(self._values.keys() - set(names))
        if unknown:
            self._refuse(unknown[0], "is not a field of this version of the format")

    def text(self, name: str) -> str:
        return self._of_type(name, str, "a text")

    def optional_text(self, name: str) -> str | None:
        return None if self._get(name) is None else self.text(name)

    def count(self, name: str) -> int:
        """A whole number that is not negative."""
        value = self._get(name)
        if not _is_count(value):
            self._refuse(name, "must be a whole number, not negative")
        return int(value)

    def counts(self, name: str) -> tuple[int, ...]:
        values = self._of_type(name, list, "a list")
        if not all(_is_count(value) for value in values):
            self._refuse(name, "must be a list of whole numbers, not negative")
        return tuple(values)

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._of_type(name, list, "a list")
        if not all(isinstance(value, str) for value in values):
            self._refuse(name, "must be a list of texts")
        return tuple(values)

    def optional_texts(self, name: str) -> tuple[str | None, ...]:
        """A list of texts, in which null stands for none."""
        values = self._of_type(name, list, "a list")
        if not all(value is None or isinstance(value, str) for value in values):
            self._refuse(name, "must be a list of texts or null")
        return tuple(values)

    def mapping(self, name: str) -> dict[str, Any]:
        """An object whose content is not looked into."""
        return dict(self._of_type(name, dict, "an object"))

    def names(self) -> tuple[str, ...]:
        """The names of all fields."""
        return tuple(self._values)

    def optional_sizes(self, name: str) -> tuple[int | None, ...] | None:
        """A list of whole numbers, in which null stands for one that is not known; or null."""
        value = self._get(name)
        if value is None:
            return None
        values = self._of_type(name, list, "a list")
        if not all(entry is None or _is_count(entry) for entry in values):
            self._refuse(name, "must be a list of whole numbers, not negative, or null")
        return tuple(values)

    def object(self, name: str) -> Fields:
        return Fields(self._get(name), f"{self._where}: {name}")

    def objects(self, name: str) -> list[Fields]:
        """The objects of a list."""
        values = self._of_type(name, list, "a list")
        return [Fields(value, f"{self._where}: {name}[{place}]") for place, value in enumerate(values)]

    def named_objects(self, name: str) -> Iterator[tuple[str, Fields]]:
        """The objects of an object, by name."""
        for key, value in self._of_type(name, dict, "an object").items():
            yield key, Fields(value, f"{self._where}: {name}: {key}")

    def _get(self, name: str) -> Any:
        if name not in self._values:
            self._refuse(name, "is missing")
        return self._values[name]

    def _of_type(self, name: str, wanted: type, words: str) -> Any:
        value = self._get(name)
        if not isinstance(value, wanted):
            self._refuse(name, f"must be {words}")
        return value

    def _refuse(self, name: str, what: str) -> NoReturn:
        raise BadPackageError(what, where=f"{self._where}: {name}")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST
