"""The printer: a graph as text that reads back to the same graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from birc.compiler.ir.attributes import AttributeValue
from birc.compiler.ir.graph import Constant, Fate, Graph, Node, Value
from birc.compiler.ir.text_names import INLINE_LIMIT, element_text, quoted, value_text, word_text
from birc.runtime.dtypes import DType


def print_graph(graph: Graph) -> str:
    """The text of `graph`; the data of external constants is not in it (see `external_constants`)."""
    return "\n".join([f"graph {quoted(graph.name)} {{", *_statements(graph, "  "), "}", ""])


def external_constants(graph: Graph) -> dict[str, np.ndarray]:
    """The data of the constants that the text names as external."""
    return {name: item.data for name, item in graph.constants.items() if is_external(item)}


def is_external(constant: Constant) -> bool:
    """Whether the data lies beside the text: more than a few elements, and not one repeated."""
    return constant.data.size > INLINE_LIMIT and not constant.is_splat


def node_text(node: Node) -> str:
    """One node as it stands in the text, without the body of a group."""
    outputs = ", ".join(map(_value_text, node.outputs))
    inputs = ", ".join(value_text(name) if name else "_" for name in node.inputs)
    attributes = ", ".join(f"{word_text(k)} = {attribute_text(v)}" for k, v in node.attributes.items())
    braces = f" {{{attributes}}}" if attributes or node.body is not None else ""
    sources = " ".join(map(quoted, node.sources))
    origin = f" from {sources}" if sources else ""
    return f"{outputs} = {word_text(node.op)}({inputs}){braces}{origin}"


def attribute_text(value: AttributeValue) -> str:
    """An attribute value: floats always with a point or exponent, strings quoted, element types as words."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(attribute_text, value))}]"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return float.__repr__(value)  # numpy's doubles are floats with a longer text of their own
    return value.name if isinstance(value, DType) else repr(value)


def _value_text(value: Value) -> str:
    return f"{value_text(value.name)} : {value.type}"


def _statements(graph: Graph, indent: str) -> Iterator[str]:
    for value in graph.inputs:
        yield f"{indent}input {_value_text(value)}"
    for name, constant in graph.constants.items():
        yield f"{indent}const {value_text(name)} : {constant.type} = {_data_text(constant)}"
    for node in graph.nodes:
        if node.body is None:
            yield indent + node_text(node)
        else:
            yield f"{indent}{node_text(node)} {{"
            yield from _statements(node.body, indent + "  ")
            yield indent + "}"
    for name in graph.outputs:
        yield f"{indent}output {value_text(name)}"
    for fate in graph.fates:
        yield indent + _fate_text(fate)


def _data_text(constant: Constant) -> str:
    if is_external(constant):
        return "external"
    elements = [element_text(item, constant.type.dtype) for item in constant.data.reshape(-1)[:INLINE_LIMIT]]
    if constant.is_splat:
        return f"splat({elements[0]})"
    return elements[0] if constant.type.rank == 0 else f"[{', '.join(elements)}]"


def _fate_text(fate: Fate) -> str:
    into = f" into {value_text(fate.into)}" if fate.into else ""
    return f"fate {quoted(fate.source)} {fate.fate} by {word_text(fate.by)}{into}"
