"""The lexer of the text form: words, names, numbers and signs with their place in the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from birc.compiler.ir.errors import TextError
from birc.compiler.ir.text_names import VALUE_NAME, WORD

TokenKind = Literal["value", "string", "number", "word", "sign", "end"]

_STRING: Final = r'"(?:[^"\\\n]|\\.)*"'
_TOKEN: Final = re.compile(
    rf"""(?P<space>[ \t\r\n]+|\#[^\n]*)
    |(?P<value>%(?:{_STRING}|{VALUE_NAME}))
    |(?P<string>{_STRING})
    |(?P<number>[+-]?(?:0x[0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf\b|nan\b))
    |(?P<word>{WORD})
    |(?P<sign>[][{{}}()=:,])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of text; of values and strings `text` is what they say. `place`: file:line:column."""

    kind: TokenKind
    text: str
    place: str


def tokens(text: str, file: str) -> Iterator[Token]:
    """The tokens of `text`, an `end` token last. Raises `TextError` at a character that begins none."""
    position, line, line_start = 0, 1, 0
    while position < len(text):
        place = f"{file}:{line}:{position - line_start + 1}"
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise TextError(f"unexpected character {text[position]!r}", where=place)
        piece = match.group()
        if match.lastgroup != "space":
            yield _token(match.lastgroup, piece, place)
        position = match.end()
        breaks = piece.count("\n")
        if breaks:
            line += breaks
            line_start = position - len(piece) + piece.rindex("\n") + 1
    yield Token("end", "the end", f"{file}:{line}:{position - line_start + 1}")


def _token(group: str, piece: str, place: str) -> Token:
    if group == "value":
        name = piece[1:]
        return Token("value", _decoded(name, place) if name.startswith('"') else name, place)
    if group == "string":
        return Token("string", _decoded(piece, place), place)
    if group == "number":
        return Token("number", piece, place)
    return Token("word" if group == "word" else "sign", piece, place)


def _decoded(piece: str, place: str) -> str:
    try:
        return str(json.loads(piece))
    except ValueError:
        raise TextError(f"{piece} is not a string", where=place, hint="escapes are those of JSON") from None
