"""What a call stands for: a function of the model or of the standard, or the branch of a decided `If`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.onnx_node import CannotLower, OnnxAttribute, OnnxNode, decode_attributes
from birc.compiler.importer.read import ReadModel, opset_versions, standard_domain
from birc.compiler.importer.tensors import tensor_array


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


FunctionKey = tuple[str, str, str]


def local_functions(model: ReadModel) -> dict[FunctionKey, onnx.FunctionProto]:
    """The functions that the model brings along, by domain, name and overload."""
    return {(standard_domain(f.domain), f.name, f.overload): f for f in model.proto.functions}


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
        chosen, _resolved(proto, node).SerializeToString(), types
    )
    function = onnx.FunctionProto()
    function.ParseFromString(content)
    return function


def _resolved(proto: onnx.NodeProto, node: OnnxNode) -> onnx.NodeProto:
    """`proto` with the values of attributes that refer to those of an enclosing function."""
    resolved = onnx.NodeProto()
    resolved.CopyFrom(proto)
    del resolved.attribute[:]
    resolved.attribute.extend(entry for entry in proto.attribute if not entry.ref_attr_name)
    for entry in proto.attribute:
        if entry.ref_attr_name and entry.name in node.attributes:
            resolved.attribute.append(onnx.helper.make_attribute(entry.name, node.attributes[entry.name]))
    return resolved


def _type_bytes(build: GraphBuilder, name: str) -> bytes:
    if not name:
        return onnx.TypeProto().SerializeToString()
    type = build.type_of(name)
    number = onnx.helper.np_dtype_to_tensor_dtype(type.dtype.numpy)
    return onnx.helper.make_tensor_type_proto(number, type.sizes).SerializeToString()


def branch_body(node: OnnxNode, build: GraphBuilder, values: Mapping[str, str], opsets: Mapping[str, int]) -> Body:
    """The branch that an `If` takes. Raises `CannotLower` when that is only known at run time."""
    taken = bool(build.required_constant(node.input(0), "condition").reshape(()))
    branch = node.attributes["then_branch" if taken else "else_branch"]
    if not isinstance(branch, onnx.GraphProto):
        raise CannotLower("its branch is not a graph")
    inner = dict(values)
    for tensor in branch.initializer:
        inner[tensor.name] = build.keep_constant(f"{node.name}/{tensor.name}", tensor_array(tensor, None))
    outputs = tuple(entry.name for entry in branch.output)
    return Body(branch.node, inner, outputs, {}, opsets, is_named=True)
