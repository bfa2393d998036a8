"""Reading tokens one after the other: what is next, taking it, and errors with line and column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from birc.compiler.ir.errors import TextError
from birc.compiler.ir.lexer import Token, tokens


class TokenReader:
    """The tokens of a text and a position among them. The methods raise `TextError` for wrong text."""

    def __init__(self, text: str, file: str) -> None:
        self._tokens = tuple(tokens(text, file))
        self._position = 0
        self._last = len(self._tokens) - 1

    @property
    def token(self) -> Token:
        """The next token; at the end the `end` token again and again."""
        return self._tokens[min(self._position, self._last)]

    def fail(self, expected: str, token: Token | None = None) -> NoReturn:
        """Complain about `token`, or the next one."""
        at = token or self.token
        raise TextError(f"expected {expected}, found {at.text!r}", where=at.place)

    def advance(self) -> Token:
        """Go past the next token."""
        token = self.token
        self._position += 1
        return token

    def at(self, *kinds: str) -> bool:
        """Whether the next token is of one of these kinds."""
        return self.token.kind in kinds

    def ahead(self, pieces: Sequence[str], distance: int = 0) -> bool:
        """Whether exactly these words and signs follow, `distance` tokens from here."""
        for place, piece in enumerate(pieces, self._position + distance):
            token = self._tokens[min(place, self._last)]
            if token.text != piece or token.kind not in ("word", "sign"):
                return False
        return True

    def accept(self, piece: str) -> bool:
        """Go past a word or sign if it is next."""
        found = self.ahead((piece,))
        if found:
            self.advance()
        return found

    def expect(self, pieces: Sequence[str]) -> None:
        """Go past words and signs that must come now."""
        for piece in pieces:
            if not self.accept(piece):
                self.fail(repr(piece))

    def take(self, expected: str, *kinds: str) -> str:
        """The text of the next token, which must be of one of `kinds`."""
        if not self.at(*kinds):
            self.fail(expected)
        return self.advance().text

    def whole_number(self) -> int:
        """A whole number, decimal or hexadecimal."""
        token = self.token
        try:
            return int(self.take("a whole number", "number"), 0)
        except ValueError:
            self.fail("a whole number", token)

    def real_number(self) -> float:
        """A number, with or without a point."""
        token = self.token
        try:
            return float(self.take("a number", "number"))
        except ValueError:
            self.fail("a number", token)

    def end(self) -> None:
        """Nothing may follow."""
        if not self.at("end"):
            self.fail("the end of the text")
