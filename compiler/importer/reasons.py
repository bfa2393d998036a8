"""For which reasons a lowering leaves a node to the host, read off its code: what a user is told is what is listed."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType
from typing import Final

from birc.compiler.importer.onnx_node import CannotLower

_PACKAGE: Final = "birc.compiler.importer"
_RAISED: Final = CannotLower.__name__
_REQUIRED: Final = "required_constant"  # a method of the builder that raises with the meaning it is given
_PLACEHOLDER: Final = "…"


def reasons(lower: Callable[..., object]) -> tuple[str, ...]:
    """The texts with which `lower`, or a function of the importer that it calls, raises `CannotLower`.

    What is only known for a node (a size, a name) stands as "…".
    """
    found: dict[str, None] = {}
    pending, seen = [lower], set()
    while pending:
        function = pending.pop()
        if not isinstance(function, FunctionType) or function in seen or not function.__module__.startswith(_PACKAGE):
            continue
        seen.add(function)
        found.update(dict.fromkeys(_raised_texts(function)))
        pending.extend(_called(function))
    return tuple(sorted(found))


def _called(function: FunctionType) -> Iterator[Callable[..., object]]:
    """The functions that a function, and those defined inside it, name: globals and what they close over."""
    for cell in function.__closure__ or ():
        yield cell.cell_contents
    pending: list[CodeType] = [function.__code__]
    while pending:
        code = pending.pop()
        yield from (function.__globals__[name] for name in code.co_names if name in function.__globals__)
        pending.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))


@cache
def _raised_texts(function: FunctionType) -> tuple[str, ...]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    constants = {
        name: f"{value:,}" if isinstance(value, int) else value
        for name, value in function.__globals__.items()
        if isinstance(value, str | int) and not isinstance(value, bool)
    }
    texts = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == _RAISED and node.args:
            texts.append(_text(node.args[0], constants))
        if isinstance(node.func, ast.Attribute) and node.func.attr == _REQUIRED and len(node.args) > 1:
            texts.append(f"the {_text(node.args[1], constants)} must be known")
    return tuple(text for text in texts if text.strip(_PLACEHOLDER + " "))


def _text(node: ast.expr, constants: dict[str, str]) -> str:
    """The text of an expression as far as it is written down."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, constants) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, constants)
    if isinstance(node, ast.Name):
        return constants.get(node.id, _PLACEHOLDER)
    return _PLACEHOLDER
