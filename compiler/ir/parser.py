"""The parser: the text form back to a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

import numpy as np

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.ir.errors import TextError, TypeRuleError
from birc.compiler.ir.graph import GROUP, Constant, Fate, FateKind, Graph, Node, Value
from birc.compiler.ir.lexer import Token, tokens
from birc.compiler.ir.text_names import element_from_bits
from birc.compiler.ir.types import Dim, TensorType
from birc.runtime.dtypes import DTYPES, DType

_DTYPES: Final = {entry.name: entry for entry in DTYPES}
_FATES: Final[dict[str, FateKind]] = {"folded": "folded", "merged": "merged", "removed": "removed"}


def parse_graph(text: str, constants: Mapping[str, np.ndarray] | None = None, file: str = "<text>") -> Graph:
    """The graph that `text` says; `constants` holds the data of the external ones.

    Raises `TextError`, with line, column and what was expected. The graph is not verified (see verify.py).
    """
    return _Parser(text, constants or {}, file).graph()


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str, constants: Mapping[str, np.ndarray], file: str) -> None:
        self.tokens = tokens(text, file)
        self.token = next(self.tokens)
        self.external = constants

    def fail(self, expected: str, token: Token | None = None) -> NoReturn:
        at = token or self.token
        raise TextError(f"expected {expected}, found {at.text!r}", where=at.place)

    def advance(self) -> Token:
        token = self.token
        self.token = next(self.tokens, token)
        return token

    def at(self, kind: str, text: str | None = None) -> bool:
        return self.token.kind == kind and (text is None or self.token.text == text)

    def take(self, kind: str, text: str | None = None, expected: str = "") -> str:
        if not self.at(kind, text):
            self.fail(expected or (repr(text) if text else f"a {kind}"))
        return self.advance().text

    def accept(self, text: str) -> bool:
        """Go past a sign or word if it is next."""
        found = self.token.kind in ("sign", "word") and self.token.text == text
        if found:
            self.advance()
        return found

    def graph(self) -> Graph:
        self.take("word", "graph")
        name = self.take("string")
        result = self.body(name)
        if not self.at("end"):
            self.fail("the end of the text")
        return result

    def body(self, name: str) -> Graph:
        """The statements between braces."""
        self.take("sign", "{")
        inputs: list[Value] = []
        constants: dict[str, Constant] = {}
        nodes: list[Node] = []
        outputs: list[str] = []
        fates: list[Fate] = []
        while not self.accept("}"):
            if self.accept("input"):
                inputs.append(self.value())
            elif self.accept("const"):
                self.constant(constants)
            elif self.accept("output"):
                outputs.append(self.take("value"))
            elif self.accept("fate"):
                fates.append(self.fate())
            elif self.at("value"):
                nodes.append(self.node())
            else:
                self.fail("a statement (input, const, %value, output, fate) or '}'")
        return Graph(name, tuple(inputs), tuple(outputs), tuple(nodes), constants, tuple(fates))

    def value(self) -> Value:
        name = self.take("value")
        self.take("sign", ":")
        return Value(name, self.type())

    def type(self) -> TensorType:
        start = self.token
        name = self.take("word", expected="an element type")
        if name not in _DTYPES:
            self.fail(f"an element type ({', '.join(_DTYPES)})", start)
        dims: list[Dim] = []
        self.take("sign", "[")
        while not self.accept("]"):
            dims.append(self.dim())
            self.separator("]")
        layout = self.layout() if self.at("sign", "{") else None
        try:
            return TensorType(_DTYPES[name], tuple(dims), layout)
        except TypeRuleError as error:
            raise TextError(error.what, where=start.place, hint=error.hint) from None

    def dim(self) -> Dim:
        if self.at("word") or self.at("string"):
            return self.advance().text
        return self.whole_number("a size or a symbol")

    def layout(self) -> tuple[int, ...]:
        self.take("sign", "{")
        order: list[int] = []
        while not self.accept("}"):
            order.append(self.whole_number("a dimension"))
            self.separator("}")
        return tuple(order)

    def separator(self, end: str) -> None:
        """A comma, unless the list ends."""
        if not self.at("sign", end):
            self.take("sign", ",", f"',' or {end!r}")

    def whole_number(self, expected: str) -> int:
        token = self.token
        try:
            return int(self.take("number", expected=expected), 0)
        except ValueError:
            self.fail(expected, token)

    def constant(self, constants: dict[str, Constant]) -> None:
        start = self.token
        value = self.value()
        if value.name in constants:
            self.fail(f"a new name (%{value.name} is a constant already)", start)
        self.take("sign", "=")
        if not value.type.is_static:
            self.fail("a type without symbols for a constant", start)
        constants[value.name] = self.data(value)

    def data(self, value: Value) -> Constant:
        start = self.token
        if self.accept("external"):
            return self.external_data(value, start)
        if self.accept("splat"):
            self.take("sign", "(")
            element = self.element(value.type.dtype)
            self.take("sign", ")")
            return Constant(value.type, np.broadcast_to(element, value.type.sizes))
        elements: list[np.ndarray] = []
        if self.accept("["):
            while not self.accept("]"):
                elements.append(self.element(value.type.dtype))
                self.separator("]")
        else:
            elements.append(self.element(value.type.dtype))
        if len(elements) != value.type.num_elements:
            self.fail(f"{value.type.num_elements} elements for {value.type} ({len(elements)} are given)", start)
        data = np.array(elements, value.type.dtype.numpy).reshape(value.type.sizes)
        return Constant(value.type, data)

    def external_data(self, value: Value, start: Token) -> Constant:
        data = self.external.get(value.name)
        if data is None:
            self.fail(f"data for %{value.name} beside the text (there is none)", start)
        if data.dtype != value.type.dtype.numpy or data.shape != value.type.shape:
            self.fail(f"data of type {value.type} for %{value.name}, not {data.dtype}{list(data.shape)}", start)
        return Constant(value.type, data)

    def element(self, dtype: DType) -> np.ndarray:
        """One element of a constant, exactly."""
        token = self.token
        expected = f"an element of type {dtype}"
        try:
            if dtype.kind == "bool" and (self.at("word", "true") or self.at("word", "false")):
                return np.array(self.advance().text == "true")
            if self.accept("bits"):
                self.take("sign", "(")
                bits = self.whole_number("a bit pattern")
                self.take("sign", ")")
                return element_from_bits(bits, dtype)
            text = self.take("number", expected=expected)
            if dtype.is_float:
                return np.array(float(text)).astype(dtype.numpy)
            return self.integer_element(int(text, 0), dtype)
        except (ValueError, OverflowError):
            self.fail(expected, token)

    def integer_element(self, value: int, dtype: DType) -> np.ndarray:
        """Raises `OverflowError` when the type cannot hold the value."""
        result = np.array(value, np.uint64 if value >= 1 << 63 else np.int64).astype(dtype.numpy)
        if dtype.kind == "bool" or int(result) != value:
            raise OverflowError
        return result

    def fate(self) -> Fate:
        source = self.take("string")
        kind = _FATES.get(self.token.text)
        if kind is None:
            self.fail(" or ".join(_FATES))
        self.advance()
        self.take("word", "by")
        by = self.word("the name of a pass")
        into = self.take("value") if self.accept("into") else ""
        return Fate(source, kind, by, into)

    def word(self, expected: str) -> str:
        """A bare or quoted word."""
        if not (self.at("word") or self.at("string")):
            self.fail(expected)
        return self.advance().text

    def node(self) -> Node:
        outputs = [self.value()]
        while self.accept(","):
            outputs.append(self.value())
        self.take("sign", "=")
        op = self.word("the name of an op")
        self.take("sign", "(")
        inputs: list[str] = []
        while not self.accept(")"):
            inputs.append("" if self.accept("_") else self.take("value", expected="a value or '_'"))
            self.separator(")")
        attributes = self.attributes() if self.at("sign", "{") else {}
        sources: list[str] = []
        if self.accept("from"):
            sources.append(self.take("string"))
            while self.at("string"):
                sources.append(self.advance().text)
        body = None
        if op == GROUP:
            kind = attributes.get("kind")
            body = self.body(kind if isinstance(kind, str) else GROUP)
        return Node(op, tuple(inputs), tuple(outputs), attributes, tuple(sources), body)

    def attributes(self) -> dict[str, AttributeValue]:
        result: dict[str, AttributeValue] = {}
        self.take("sign", "{")
        while not self.accept("}"):
            name = self.word("the name of an attribute")
            self.take("sign", "=")
            result[name] = self.attribute()
            self.separator("}")
        return result

    def attribute(self) -> AttributeValue:
        if self.accept("["):
            items: list[int | float] = []
            while not self.accept("]"):
                items.append(self.scalar())
                self.separator("]")
            return tuple(items)  # a mixed list is for the verifier to refuse
        if self.at("string"):
            return self.advance().text
        if self.at("word"):
            if self.token.text not in _DTYPES:
                self.fail("a number, a string, a list or an element type")
            return _DTYPES[self.advance().text]
        return self.scalar()

    def scalar(self) -> int | float:
        token = self.token
        text = self.take("number", expected="a number, a string, a list or an element type")
        try:
            return int(text, 0)
        except ValueError:
            pass
        try:
            return float(text)
        except ValueError:
            self.fail("a number", token)
