"""What stands inside of a node: a function of the model or of the standard, and the graphs among its attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.domains import opset_versions
from birc.compiler.importer.onnx_node import CannotLower, OnnxAttribute, OnnxNode, decode_attributes
from birc.compiler.importer.tensors import element_type, element_type_name, onnx_type, tensor_array
from birc.runtime.errors import BadModelError


@dataclass(frozen=True, slots=True)
class Body:
    """Nodes to lower in place of a node. `values` are the names known inside besides the body's own.

    `is_named` says whether the inner nodes have names that mean something to the model's author.
    """

    nodes: Sequence[onnx.NodeProto]
    values: Mapping[str, str]
    outputs: tuple[str, ...]
    attributes: Mapping[str, OnnxAttribute]
    opsets: Mapping[str, int]
    is_named: bool


def function_body(function: onnx.FunctionProto, node: OnnxNode, *, is_named: bool) -> Body:
    """The body of `function` as `node` calls it, with the attributes' defaults filled in."""
    inputs = dict(zip(function.input, (*node.inputs, *[""] * len(function.input)), strict=False))
    defaults = decode_attributes(function.attribute_proto, {})
    opsets = opset_versions(function.opset_import) or {"": node.version}
    return Body(function.node, inputs, tuple(function.output), {**defaults, **node.attributes}, opsets, is_named)


def standard_body(proto: onnx.NodeProto, node: OnnxNode, build: GraphBuilder) -> Body | None:
    """The body that the ONNX standard itself gives for an op; None for a primitive one."""
    if not onnx.defs.has(node.op_type, node.version, node.domain):
        return None
    schema = onnx.defs.get_schema(node.op_type, node.version, node.domain)
    if schema.has_context_dependent_function:  # type: ignore[attr-defined]
        function = _context_body(schema, proto, node, build)
    elif schema.has_function:  # type: ignore[attr-defined]
        function = schema.function_body
    else:
        return None
    defaults = {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name and name not in node.attributes
    }
    complete = {**decode_attributes(list(defaults.values()), {}), **node.attributes}
    called = OnnxNode(node.name, node.op_type, node.domain, node.version, node.inputs, node.outputs, complete)
    return function_body(function, called, is_named=False)


def _context_body(
    schema: onnx.defs.OpSchema, proto: onnx.NodeProto, node: OnnxNode, build: GraphBuilder
) -> onnx.FunctionProto:
    """Some standard functions depend on the types of the inputs and on which of them are there."""
    types = [_type_bytes(build, name) for name in node.inputs]
    version = schema.since_version
    known = schema.context_dependent_function_opset_versions  # type: ignore[attr-defined]
    chosen = max((entry for entry in known if entry <= max(node.version, version)), default=max(known))
    content = schema.get_context_dependent_function_with_opset_version(  # type: ignore[attr-defined]
        chosen, with_attributes(proto, node).SerializeToString(), types
    )
    function = onnx.FunctionProto()
    function.ParseFromString(content)
    return function


def with_attributes(proto: onnx.NodeProto, node: OnnxNode) -> onnx.NodeProto:
    """A copy of `proto` in which attributes that refer to those of an enclosing function have their values."""
    resolved = onnx.NodeProto()
    resolved.CopyFrom(proto)
    del resolved.attribute[:]
    for entry in proto.attribute:
        if not entry.ref_attr_name:
            resolved.attribute.append(entry)
        elif entry.name in node.attributes:
            value = node.attributes[entry.name]
            resolved.attribute.append(onnx.helper.make_attribute(entry.name, value, attr_type=entry.type))
    return resolved


def _type_bytes(build: GraphBuilder, name: str) -> bytes:
    if not name:
        return onnx.TypeProto().SerializeToString()
    return onnx_type(build.type_of(name)).SerializeToString()


def graph_attribute(node: OnnxNode, name: str) -> onnx.GraphProto:
    """An attribute that is a graph. Raises `BadModelError` when it is not."""
    graph = node.attributes.get(name)
    if not isinstance(graph, onnx.GraphProto):
        raise BadModelError(f"attribute {name!r} of {node.op_type} must be a graph", where=node.where)
    return graph


def inner_constants(graph: onnx.GraphProto, node: OnnxNode, build: GraphBuilder, folder: Path | None) -> dict[str, str]:
    """The initialisers of an inner graph of `node`, by their names in there, as constants of the outermost one.

    Raises `CannotLower` for those that the device cannot hold.
    """
    if graph.sparse_initializer:
        raise CannotLower("an inner graph of it has sparse initialisers")
    known = {}
    for tensor in graph.initializer:
        if element_type(tensor.data_type) is None:
            raise CannotLower(f"{tensor.name!r} inside it holds {element_type_name(tensor.data_type)} values")
        known[tensor.name] = build.keep_constant(f"{node.name}/{tensor.name}", tensor_array(tensor, folder))
    return known


def decided_branch(node: OnnxNode, build: GraphBuilder) -> onnx.GraphProto | None:
    """The branch that an `If` takes, None when that is only known at run time."""
    condition = build.constant_of(node.input(0))
    if condition is None:
        return None
    return graph_attribute(node, "then_branch" if condition.reshape(-1)[:1].any() else "else_branch")


def captured_names(node: onnx.NodeProto) -> tuple[str, ...]:
    """The values of the outer graph that the graphs among the attributes of `node` read, at any depth, in order."""
    found: dict[str, None] = {}
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            found.update(dict.fromkeys(_free_names(graph)))
    return tuple(found)


def _free_names(graph: onnx.GraphProto) -> list[str]:
    """The names that `graph` reads and does not define before."""
    known = {entry.name for entry in graph.input} | {tensor.name for tensor in graph.initializer}
    known.update(tensor.values.name for tensor in graph.sparse_initializer)
    free = []
    for node in graph.node:
        free += [name for name in (*node.input, *captured_names(node)) if name and name not in known]
        known.update(node.output)
    return free + [entry.name for entry in graph.output if entry.name not in known]
