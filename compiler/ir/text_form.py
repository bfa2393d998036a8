"""Text forms: how values and records are spelt, declared once for the printer and the parser.

A record's form is a template such as

    "{name:value} : {dtype:word} {num_bytes} bytes< at {address:hex}>< live {first} to {last}>"

Words and signs stand for themselves, `{field}` for the value of a field, spelt by its type; a part in angle
brackets is left out when its fields have their defaults. Fields that the template does not name follow by
their own name, so that a new field is never lost. A record that contains lists of others may have a body in
braces, one statement a line.

After the colon of a slot: the leaf for the strings or integers in the field (`word`, `value`, `hex`), and for
a tuple `()` or `+` (side by side) in place of square brackets.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from birc.compiler.ir.lexer import tokens
from birc.compiler.ir.text_names import quoted, value_text, word_text
from birc.compiler.ir.token_reader import TokenReader
from birc.runtime.errors import InternalError

INDENT: Final = "  "
_SLOT: Final = re.compile(r"\{([a-z_.]+)(?::([a-z]*)(\(\)|\+)?)?\}")
_CLAUSE: Final = re.compile(r"<([^>]*)>|([^<]+)")


class Codec(ABC):
    """How one kind of value is spelt."""

    @abstractmethod
    def show(self, value: Any) -> str:
        """The text of a value."""

    @abstractmethod
    def begins(self, reader: TokenReader) -> bool:
        """Whether such a value can be next."""

    @abstractmethod
    def read(self, reader: TokenReader) -> Any:
        """The value that is next. Raises `TextError`."""


@dataclass(frozen=True, slots=True)
class Leaf(Codec):
    """A value without parts; `kinds` are the tokens that it can begin with."""

    kinds: tuple[str, ...]
    shown: Callable[[Any], str]
    taken: Callable[[TokenReader], Any]

    def show(self, value: Any) -> str:
        return self.shown(value)

    def begins(self, reader: TokenReader) -> bool:
        return reader.at(*self.kinds)

    def read(self, reader: TokenReader) -> Any:
        return self.taken(reader)


def _name_leaf(expected: str, shown: Callable[[str], str], *kinds: str) -> Leaf:
    return Leaf(kinds, shown, lambda reader: reader.take(expected, *kinds))


def _flag(reader: TokenReader) -> bool:
    if not (reader.ahead(("true",)) or reader.ahead(("false",))):
        reader.fail("true or false")
    return reader.advance().text == "true"


def _operand_text(value: str | float) -> str:
    return word_text(value) if isinstance(value, str) else repr(float(value))


def _operand(reader: TokenReader) -> str | float:
    return reader.real_number() if reader.at("number") else reader.take("a name or a number", "word", "string")


LEAVES: Final[Mapping[str, Leaf]] = {
    "text": _name_leaf("a string", quoted, "string"),
    "word": _name_leaf("a word", word_text, "word", "string"),
    "value": _name_leaf("a %name", value_text, "value"),
    "number": Leaf(("number",), str, TokenReader.whole_number),
    "hex": Leaf(("number",), hex, TokenReader.whole_number),
    "real": Leaf(("number",), repr, TokenReader.real_number),
    "flag": Leaf(("word",), lambda value: "true" if value else "false", _flag),
    "operand": Leaf(("word", "string", "number"), _operand_text, _operand),
}
_LEAF_OF_TYPE: Final[Mapping[Any, str]] = {int: "number", float: "real", bool: "flag", str: "text"}


@dataclass(frozen=True, slots=True)
class Many(Codec):
    """A tuple of equal parts: `[a, b]`, `(a, b)`, or side by side when `brackets` is empty."""

    element: Codec
    brackets: str = "[]"

    def show(self, value: Any) -> str:
        texts = map(self.element.show, value)
        if not self.brackets:
            return " ".join(texts)
        return f"{self.brackets[0]}{', '.join(texts)}{self.brackets[1]}"

    def begins(self, reader: TokenReader) -> bool:
        return reader.ahead(self.brackets[:1]) if self.brackets else self.element.begins(reader)

    def read(self, reader: TokenReader) -> tuple[Any, ...]:
        found = []
        if not self.brackets:
            while self.element.begins(reader):
                found.append(self.element.read(reader))
            return tuple(found)
        opening, closing = self.brackets[0], self.brackets[1]
        reader.expect((opening,))
        while not reader.accept(closing):
            found.append(self.element.read(reader))
            if not reader.ahead((closing,)) and not reader.accept(","):
                reader.fail(f"',' or {closing!r}")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Row(Codec):
    """A tuple of different parts, side by side."""

    parts: tuple[Codec, ...]

    def show(self, value: Any) -> str:
        return " ".join(part.show(item) for part, item in zip(self.parts, value, strict=True))

    def begins(self, reader: TokenReader) -> bool:
        return self.parts[0].begins(reader)

    def read(self, reader: TokenReader) -> tuple[Any, ...]:
        return tuple(part.read(reader) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Literal:
    """Text of a template that stands for itself; `pieces` are its tokens."""

    text: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a field. `default` is what it has when its part of the text is left out."""

    path: str
    codec: Codec
    default: Any


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a template, in which fields stand between words and signs."""

    items: tuple[Literal | Slot, ...]
    is_optional: bool

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The fields of the part."""
        return tuple(item for item in self.items if isinstance(item, Slot))

    def show(self, record: Any) -> str:
        """The text of the part; nothing when it can be left out."""
        values = [attrgetter(slot.path)(record) for slot in self.slots]
        defaults = [slot.default for slot in self.slots]
        if self.is_optional and values == defaults:
            return ""
        texts = iter([slot.codec.show(value) for slot, value in zip(self.slots, values, strict=True)])
        return "".join(item.text if isinstance(item, Literal) else next(texts) for item in self.items)

    def begins(self, reader: TokenReader) -> bool:
        """Whether the part is next: told by its first word, or by a name and the sign behind it."""
        first, *rest = (item for item in self.items if isinstance(item, Slot) or item.pieces)
        if isinstance(first, Literal):
            return reader.ahead(first.pieces)
        sign = next((item for item in rest[:1] if isinstance(item, Literal)), None)
        return first.codec.begins(reader) and (sign is None or reader.ahead(sign.pieces, 1))

    def read(self, reader: TokenReader, values: dict[str, Any]) -> None:
        """Read the part into `values`, by path; what is left out gets its default."""
        if self.is_optional and not self.begins(reader):
            values.update((slot.path, slot.default) for slot in self.slots)
            return
        for item in self.items:
            if isinstance(item, Literal):
                reader.expect(item.pieces)
            else:
                values[item.path] = item.codec.read(reader)


class Again:
    """Stands in a body for the type of a statement that says: the same item once more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A kind of statement in a body: its keyword ("" for none), the field it belongs to, and what it holds.

    A field has one statement for all of it, or (`is_single` false) one for each item of its tuple.
    """

    keyword: str
    field: str
    type: Any
    codec: Codec
    is_single: bool
    default: Any


@dataclass(frozen=True, slots=True)
class Record(Codec):
    """A dataclass by its template, and its body if it has one."""

    type: Any
    clauses: tuple[Clause, ...]
    body: tuple[Entry, ...] = ()

    def show(self, value: Any) -> str:
        head = "".join(clause.show(value) for clause in self.clauses)
        if not self.body:
            return head
        lines = [line for field in self._body_fields for line in self._statements(field, getattr(value, field))]
        block = "".join(f"\n{line}".replace("\n", f"\n{INDENT}") for line in lines)
        return f"{head} {{{block}\n}}".lstrip()

    @property
    def _body_fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.field for entry in self.body))

    def _statements(self, field: str, value: Any) -> Iterator[str]:
        entries = [entry for entry in self.body if entry.field == field]
        if entries[0].is_single:
            value = () if value == entries[0].default else (value,)
        again = next((entry.keyword for entry in entries if entry.type is Again), None)
        before = ""
        for item in value:
            entry = next((entry for entry in entries if isinstance(item, entry.type)), None)
            if entry is None:
                raise InternalError(f"no text form for {type(item).__name__}", where=f"{self.type.__name__}.{field}")
            text = f"{entry.keyword} {entry.codec.show(item)}".strip()
            yield again if again is not None and text == before and len(text) > len(again) else text
            before = text

    def begins(self, reader: TokenReader) -> bool:
        for clause in self.clauses:
            if clause.begins(reader):
                return True
            if not clause.is_optional:
                return False
        return bool(self.body) and reader.ahead("{")

    def read(self, reader: TokenReader) -> Any:
        values: dict[str, Any] = {}
        for clause in self.clauses:
            clause.read(reader, values)
        if self.body:
            self._read_body(reader, values)
        return _build(self.type, "", values)

    def _read_body(self, reader: TokenReader, values: dict[str, Any]) -> None:
        lists: dict[str, list[Any]] = {}
        reader.expect("{")
        while not reader.accept("}"):
            start = reader.token
            entry = self._next_entry(reader)
            items = lists.setdefault(entry.field, [])
            if entry.is_single and items:
                reader.fail(f"one {entry.keyword!r} statement at most", start)
            if entry.type is Again:
                if not items:
                    reader.fail("a statement to repeat", start)
                items.append(items[-1])
            else:
                items.append(entry.codec.read(reader))
        for entry in self.body:
            items = lists.get(entry.field, [])
            if entry.is_single:
                values[entry.field] = items[0] if items else entry.default
            else:
                values[entry.field] = tuple(items)

    def _next_entry(self, reader: TokenReader) -> Entry:
        for entry in self.body:
            if reader.accept(entry.keyword) if entry.keyword else entry.codec.begins(reader):
                return entry
        words = ", ".join(entry.keyword for entry in self.body if entry.keyword)
        reader.fail(f"a statement{f' ({words})' if words else ''} or '}}'")


def _build(record: Any, prefix: str, values: Mapping[str, Any]) -> Any:
    """The record whose fields have the paths `prefix` + name; fields spelt in parts are built first."""
    arguments = {}
    for field in dataclasses.fields(record):
        path = prefix + field.name
        if path in values:
            arguments[field.name] = values[path]
        else:
            arguments[field.name] = _build(_hints(record)[field.name], f"{path}.", values)
    return record(**arguments)


class Forms:
    """The forms of a set of records; each is declared after those it is made of."""

    def __init__(self, leaves: Mapping[str, Leaf] = LEAVES) -> None:
        self._leaves = leaves
        self._codecs: dict[Any, Codec] = {}

    def __getitem__(self, record: Any) -> Codec:
        return self._codecs[record]

    def add(self, record: Any, codec: Codec) -> None:
        """Declare how the values of a class are spelt."""
        self._codecs[record] = codec

    def declare(self, record: Any, template: str, body: Iterable[tuple[str, str, Any]] = ()) -> None:
        """Declare a dataclass by its template and the statements of its body: (keyword, field, type).

        Raises `InternalError` when the template names a field that there is not.
        """
        entries = tuple(self._entry(record, *entry) for entry in body)
        clauses = [
            self._clause(record, found.group(1) or found.group(2), found.group(1) is not None)
            for found in _CLAUSE.finditer(template)
        ]
        named = {slot.path for clause in clauses for slot in clause.slots} | {entry.field for entry in entries}
        for path, has_default in _unnamed(record, "", named):
            clauses.append(self._clause(record, f" {path.rpartition('.')[2]} {{{path}}}", has_default))
        self._codecs[record] = Record(record, tuple(clauses), entries)

    def codec(self, hint: Any, spelling: str = "", brackets: str = "[]") -> Codec:
        """How values of an annotated type are spelt; `spelling` names the leaf of its strings or integers."""
        if hint in self._codecs:
            return self._codecs[hint]
        if isinstance(hint, UnionType):
            members = [member for member in get_args(hint) if member is not NoneType]
            if len(members) == 1:
                return self.codec(members[0], spelling, brackets)
            if set(members) == {str, float}:
                return self._leaves["operand"]
        if get_origin(hint) is tuple:
            element, *others = get_args(hint)
            if others == [...]:
                return Many(self.codec(element, spelling), brackets)
            return Row(tuple(self.codec(part, spelling) for part in (element, *others)))
        if hint in (NoneType, Again):
            return Leaf((), lambda _: "", lambda _: None)
        name = _LEAF_OF_TYPE.get(hint)
        if name is None:
            raise InternalError(f"no text form for values of type {hint}", hint="declare it before its first use")
        fits = {"text": ("text", "word", "name", "value"), "number": ("number", "hex")}.get(name, ())
        return self._leaves[spelling if spelling in fits else name]

    def _entry(self, record: Any, keyword: str, name: str, type: Any) -> Entry:
        hint, default = _field(record, name)
        is_single = hint == type or get_origin(hint) is not tuple
        return Entry(keyword, name, get_origin(type) or type, self.codec(type), is_single, default)

    def _clause(self, record: Any, text: str, is_optional: bool) -> Clause:
        items: list[Literal | Slot] = []
        position = 0
        for found in _SLOT.finditer(text):
            items.append(_literal(text[position : found.start()]))
            path, spelling, brackets = found.groups()
            hint, default = _field(record, path)
            codec = self.codec(hint, spelling or "", {"()": "()", "+": ""}.get(brackets, "[]"))
            items.append(Slot(path, codec, default))
            position = found.end()
        items.append(_literal(text[position:]))
        return Clause(tuple(item for item in items if isinstance(item, Slot) or item.text), is_optional)


@cache
def _hints(record: Any) -> Mapping[str, Any]:
    """The types of a dataclass's fields."""
    return get_type_hints(record)


def _literal(text: str) -> Literal:
    return Literal(text, tuple(token.text for token in tokens(text, "template") if token.kind != "end"))


def _field(record: Any, path: str) -> tuple[Any, Any]:
    """The type of a field and its default; without one, the empty value of the type."""
    name, _, rest = path.partition(".")
    field = next((field for field in dataclasses.fields(record) if field.name == name), None)
    if field is None:
        raise InternalError(f"the text form of {record.__name__} names {name!r}, which is no field of it")
    hint = _hints(record)[name]
    if rest:
        return _field(hint, rest)
    if field.default_factory is not MISSING:
        return hint, field.default_factory()
    if field.default is not MISSING:
        return hint, field.default
    if get_origin(hint) is tuple:
        return hint, ()
    return hint, hint() if hint in _LEAF_OF_TYPE else None


def _unnamed(record: Any, prefix: str, named: set[str]) -> Iterator[tuple[str, bool]]:
    """The paths of the fields that a template does not name, and whether each has a default."""
    for field in dataclasses.fields(record):
        path = prefix + field.name
        if any(other.startswith(f"{path}.") for other in named):
            yield from _unnamed(_hints(record)[field.name], f"{path}.", named)
        elif path not in named:
            yield path, field.default is not MISSING or field.default_factory is not MISSING
