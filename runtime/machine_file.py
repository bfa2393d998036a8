"""The form of a machine description: a TOML file of sections of figures, perhaps based on another one.

    name = "mine"
    vendor = "me"
    base = "br100"                 # optional: give only what differs

    [chip]                         # any name: sections only group
    dies = { value = 1, unit = "count", source = "data sheet", confidence = "stated" }

    [formats.bf16]                 # one table for each T-core format
    k_max = { ... }

Which fields there are is not known here: `Schema` says it.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from birc.runtime.errors import UsageError
from birc.runtime.figures import Figure, FigureType, read_figure

FORMATS: Final = "formats"
_HEADER: Final = ("name", "vendor", "base")


@dataclass(frozen=True, slots=True)
class Schema:
    """The figures that a description consists of: those of the machine, and those of each T-core format."""

    machine: Mapping[str, FigureType]
    tcore_format: Mapping[str, FigureType]

    def expected(self, name: str, *, where: str) -> FigureType:
        """What the figure of that name accepts. Raises `UsageError` for a name that is no field."""
        of_format = name.startswith(f"{FORMATS}.")
        known = self.tcore_format if of_format else self.machine
        field = name.split(".", 2)[-1] if of_format else name
        if field not in known:
            close = difflib.get_close_matches(field, known, n=1)
            hint = f"did you mean {close[0]}?" if close else None
            raise UsageError("is not a field of a machine", where=where, hint=hint)
        return known[field]

    def names(self, formats: Iterable[str]) -> tuple[str, ...]:
        """The names of all figures of a machine with these T-core formats, in the order of the schema."""
        of_formats = (format_key(name, field) for name in formats for field in self.tcore_format)
        return (*self.machine, *of_formats)


@dataclass(frozen=True, slots=True)
class Description:
    """What one file says: checked figure by figure, not yet whole."""

    name: str
    vendor: str
    base: str | None
    figures: Mapping[str, Figure]


def format_key(format_name: str, field: str) -> str:
    """The name of the figure `field` of a T-core format."""
    return f"{FORMATS}.{format_name}.{field}"


def format_names(figures: Iterable[str]) -> tuple[str, ...]:
    """The T-core formats that have at least one figure, in the order given."""
    return tuple(dict.fromkeys(name.split(".")[1] for name in figures if name.startswith(f"{FORMATS}.")))


def read_description(file: Traversable | Path, schema: Schema) -> Description:
    """The description in `file`. Raises `UsageError` naming the file and the field."""
    content = _read_toml(file)
    words = {key: _word(content, key, file.name) for key in _HEADER if key in content or key != "base"}
    figures = _read_figures(content, schema, file.name)
    return Description(words["name"], words["vendor"], words.get("base"), figures)


def check_complete(figures: Mapping[str, Figure], schema: Schema, *, where: str) -> None:
    """Raise `UsageError` when a field of the schema has no figure, or there is no T-core format."""
    formats = format_names(figures)
    if not formats:
        raise UsageError("the machine has no T-core format", where=f"{where}: {FORMATS}")
    missing = [name for name in schema.names(formats) if name not in figures]
    if missing:
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = 'or start from another machine: base = "br100"'
        raise UsageError(f"is missing{others}", where=f"{where}: {missing[0]}", hint=hint)


def _read_toml(file: Traversable | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the machine description: {error.strerror}", where=str(file)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"is not a TOML file: {error}", where=str(file)) from error


def _word(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageError("must be a text that is not empty", where=f"{where}: {key}")
    return value


def _read_figures(content: Mapping[str, Any], schema: Schema, where: str) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    sections = {key: table for key, table in content.items() if key not in _HEADER}
    for section, table in sections.items():
        for name, entry in _entries(section, table, where):
            place = f"{where}: {name}"
            if name in figures:
                raise UsageError(f"appears twice, again in section {section}", where=place)
            expected = schema.expected(name, where=place)
            figures[name] = read_figure(entry, expected, where=place, section=section)
    return figures


def _entries(section: str, table: object, where: str) -> Iterator[tuple[str, object]]:
    """The names and tables of the figures of a section; the formats have one level more."""
    if not isinstance(table, dict):
        raise UsageError("is not a section", where=f"{where}: {section}", hint="figures stand in tables")
    if section != FORMATS:
        yield from table.items()
        return
    for format_name, fields in table.items():
        if not isinstance(fields, dict) or "." in format_name:
            place = f"{where}: {FORMATS}.{format_name}"
            raise UsageError("is not a table of figures with a plain name", where=place)
        yield from ((format_key(format_name, field), entry) for field, entry in fields.items())
