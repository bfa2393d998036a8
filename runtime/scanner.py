"""Takes a line of assembly text apart; errors carry line and column."""

from __future__ import annotations

import json
import math
import re
from typing import Final, NoReturn

from birc.runtime.errors import BadPackageError
from birc.runtime.field_ranges import I64, Range

_BLANKS: Final = re.compile(r"[ \t]*(;.*)?")
_BLANK_BEGINS: Final = (" ", "\t", ";")
_INTEGER: Final = re.compile(r"[+-]?(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})")
_FLOAT: Final = re.compile(r"[+-]?(inf|nan|[0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?)")
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_IN_WORD: Final = re.compile(r"[A-Za-z_0-9]")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


class Scanner:
    """A position in one line. Blanks between tokens, and a comment from `;` to the end, do not count."""

    __slots__ = ("_position", "_text", "line")

    def __init__(self, text: str, line: int) -> None:
        self._text = text
        self._position = 0
        self.line = line
        self._skip_blanks()

    @property
    def column(self) -> int:
        return self._position + 1

    def fail(self, complaint: str, column: int | None = None) -> NoReturn:
        raise BadPackageError(complaint, where=f"{self.line}:{self.column if column is None else column}")

    def at_end(self) -> bool:
        return self._position == len(self._text)

    def expect_end(self) -> None:
        if not self.at_end():
            self.fail(f"unexpected {self._rest()!r}")

    def accept(self, token: str) -> bool:
        """Take the token if it comes next; a word only as a whole."""
        end = self._position + len(token)
        if not self._text.startswith(token, self._position):
            return False
        if token[-1].isalnum() and _IN_WORD.match(self._text, end):
            return False
        self._position = end
        self._skip_blanks()
        return True

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail(f"expected {token!r}, found {self._rest()!r}")

    def integer(self, limits: Range = I64) -> int:
        """A whole number within half-open limits."""
        column = self.column
        text = self._match(_INTEGER, "a whole number")
        value = int(text, 0) if "x" in text else int(text)
        if not limits[0] <= value < limits[1]:
            self.fail(f"{value} is outside {limits[0]}:{limits[1]}", column)
        return value

    def float_number(self) -> float:
        """A number of any size: one that 64 bits do not hold is refused."""
        column = self.column
        text = self._match(_FLOAT, "a number")
        value = float(text)
        if math.isinf(value) and "inf" not in text:
            self.fail(f"{text} is too large", column)
        return value

    def word(self) -> str:
        return self._match(_WORD, "a word")

    def choice(self, words: tuple[str, ...]) -> str:
        """One of the words."""
        column = self.column
        found = self.word()
        if found not in words:
            self.fail(f"{found!r} is none of {', '.join(words)}", column)
        return found

    def string(self) -> str:
        """A text in double quotes, escaped as in JSON."""
        column = self.column
        try:
            value: str = json.loads(self._match(_STRING, "a text in double quotes"))
        except ValueError:
            self.fail("a text with a bad escape", column)
        return value

    def numbered(self, prefix: str, limits: Range) -> int:
        """A letter and a number, as in `v3`."""
        column = self.column
        text = self._match(re.compile(rf"{prefix}[0-9]{{1,20}}"), f"{prefix} and a number")
        value = int(text[len(prefix) :])
        if not limits[0] <= value < limits[1]:
            self.fail(f"{text} is outside {prefix}{limits[0]}:{prefix}{limits[1]}", column)
        return value

    def follows(self, pattern: str) -> bool:
        """Whether what comes next matches, without taking it."""
        return re.compile(pattern).match(self._text, self._position) is not None

    def _match(self, pattern: re.Pattern[str], wanted: str) -> str:
        found = pattern.match(self._text, self._position)
        if found is None:
            self.fail(f"expected {wanted}, found {self._rest()!r}")
        self._position = found.end()
        self._skip_blanks()
        return found.group()

    def _skip_blanks(self) -> None:
        if self._text[self._position : self._position + 1] not in _BLANK_BEGINS:
            return
        found = _BLANKS.match(self._text, self._position)
        if found is not None:
            self._position = found.end()

    def _rest(self) -> str:
        rest = self._text[self._position :]
        return rest if rest else "the end of the line"
