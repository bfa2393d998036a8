"""The structure of a model: every name defined once and before its use, every field of a kind that it can have.

These checks come before anything else looks at the model, onnx's own code above all, which does not stand everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import onnx

from birc.compiler.importer.limits import MOST_RANK
from birc.compiler.importer.tensor_claims import check_sizes, check_tensor
from birc.compiler.importer.tensors import boundary_type
from birc.runtime.errors import BadModelError, UnsupportedError

DEEPEST_GRAPH: Final = 64
"""How deep graphs may stand inside of nodes inside of graphs."""

MOST_OUTPUTS: Final = 100_000
"""Of a graph."""

_UNBOUNDED: Final = frozenset({"starts", "ends", "value_int", "value_ints"})
_INT32: Final = 2**31
_Attribute = onnx.AttributeProto
_FIELD_OF_KIND: Final = {
    _Attribute.FLOAT: "f", _Attribute.INT: "i", _Attribute.STRING: "s", _Attribute.TENSOR: "t",
    _Attribute.GRAPH: "g", _Attribute.SPARSE_TENSOR: "sparse_tensor", _Attribute.TYPE_PROTO: "tp",
    _Attribute.FLOATS: "floats", _Attribute.INTS: "ints", _Attribute.STRINGS: "strings",
    _Attribute.TENSORS: "tensors", _Attribute.GRAPHS: "graphs", _Attribute.SPARSE_TENSORS: "sparse_tensors",
    _Attribute.TYPE_PROTOS: "type_protos",
}  # fmt: skip
_MESSAGES: Final = ("t", "g", "sparse_tensor", "tp")
_SINGLE: Final = ("f", "i", "s", *_MESSAGES)  # numbers of 0 and empty strings may be left out


def check_structure(model: onnx.ModelProto, where: str) -> None:
    """Raises `BadModelError` for the first fault, and `UnsupportedError` for graphs that are too deep."""
    check_names(where, (model.graph.name,))
    _check_graph(model.graph, (), f"graph {_shown(model.graph.name)}", 0, has_arguments=False)
    for function in model.functions:
        check_names(where, (function.name, function.domain, function.overload, *function.input, *function.output))
        _check_function(function)


def check_names(where: str, names: Iterable[object]) -> None:
    """Raises `BadModelError` for a name that is not UTF-8, which protobuf gives as bytes."""
    for name in names:
        if not isinstance(name, str):
            raise BadModelError(f"a name in it is not UTF-8: {_shown(repr(name))}", where=where)


def _check_function(function: onnx.FunctionProto) -> None:
    where = f"function {_shown(function.name)}"
    if not function.name:
        raise BadModelError("a function has no name", where=where)
    known: set[str] = set()
    _define(function.input, known, where, "input")
    for name in ("input", "output", "attribute"):
        listed = getattr(function, name)
        if len(set(listed)) != len(listed):
            raise BadModelError(f"names one {name} twice", where=where)
    for entry in function.attribute_proto:
        _check_attribute(entry, where)
    _check_nodes(function.node, known, (), where, 0, has_arguments=True)
    _check_outputs(function.output, known, (), where)


def _check_graph(
    graph: onnx.GraphProto, outer: tuple[set[str], ...], where: str, depth: int, *, has_arguments: bool
) -> None:
    """`outer` are the names known around the graph; `has_arguments` says whether it is inside of a function."""
    if depth > DEEPEST_GRAPH:
        raise UnsupportedError(f"graphs inside of nodes are more than {DEEPEST_GRAPH} deep", where=where)
    known: set[str] = set()
    check_names(where, (entry.name for entry in (*graph.input, *graph.output, *graph.value_info)))
    check_names(where, (tensor.name for tensor in graph.initializer))
    check_names(where, (sparse.values.name for sparse in graph.sparse_initializer))
    _define((entry.name for entry in graph.input), known, where, "input")
    for entry in (*graph.input, *graph.output, *graph.value_info):
        _check_type(entry.type, f"value {_shown(entry.name)}", 0)
    stored: set[str] = set()
    for tensor in graph.initializer:
        check_tensor(tensor, f"tensor {_shown(tensor.name)}")
    for sparse in graph.sparse_initializer:
        _check_sparse(sparse, f"sparse tensor {_shown(sparse.values.name)}")
    names = [tensor.name for tensor in graph.initializer]
    names += [sparse.values.name for sparse in graph.sparse_initializer]
    _define(names, stored, where, "initialiser")
    for entry in graph.input if depth == 0 else ():
        shown = f"input {_shown(entry.name)}"
        if not entry.type.WhichOneof("value"):
            raise BadModelError(f"{shown} declares no type", where=where)
        if entry.type.HasField("tensor_type") and not entry.type.tensor_type.HasField("shape"):
            raise BadModelError(f"{shown} declares no shape", where=where, hint="export the model with shaped inputs")
    known |= stored
    _check_nodes(graph.node, known, outer, where, depth, has_arguments=has_arguments)
    if len(graph.output) > MOST_OUTPUTS:
        raise BadModelError(f"has {len(graph.output)} outputs, at most {MOST_OUTPUTS}", where=where)
    _check_outputs([entry.name for entry in graph.output], known, outer, where)


def _define(names: Iterable[str], known: set[str], where: str, kind: str) -> None:
    for place, name in enumerate(names):
        if not name:
            raise BadModelError(f"{kind} {place} has no name", where=where)
        if name in known:
            raise BadModelError(f"{kind} {_shown(name)} is defined twice", where=where)
        known.add(name)


def _check_outputs(names: Sequence[str], known: set[str], outer: tuple[set[str], ...], where: str) -> None:
    for place, name in enumerate(names):
        if not name:
            raise BadModelError(f"output {place} has no name", where=where)
        if name not in known and not any(name in names for names in outer):
            raise BadModelError(f"output {_shown(name)} is computed by no node", where=where)


def _check_nodes(
    nodes: Sequence[onnx.NodeProto],
    known: set[str],
    outer: tuple[set[str], ...],
    where: str,
    depth: int,
    *,
    has_arguments: bool,
) -> None:
    scopes = (*outer, known)
    for place, node in enumerate(nodes):
        check_names(f"node {place} of {where}", (node.name, node.op_type, node.domain, node.overload))
        check_names(f"node {place} of {where}", (*node.input, *node.output, *(entry.name for entry in node.attribute)))
        here = f"node {_shown(node.name)}" if node.name else f"node {place} ({_shown(node.op_type)}) of {where}"
        if not node.op_type:
            raise BadModelError("has no op_type", where=here)
        for name in node.input:
            if name and not any(name in scope for scope in scopes):
                raise BadModelError(f"the model contradicts itself: {_unknown_input(name, nodes, place)}", where=here)
        seen: set[str] = set()
        for attribute in node.attribute:
            if attribute.name in seen or not attribute.name:
                fault = "is given twice" if attribute.name else "has no name"
                raise BadModelError(f"attribute {_shown(attribute.name)} {fault}", where=here)
            seen.add(attribute.name)
            if attribute.ref_attr_name and not has_arguments:
                what = f"attribute {_shown(attribute.name)} refers to one of a function, but stands in none"
                raise BadModelError(what, where=here)
            _check_attribute(attribute, here)
            if not node.domain and attribute.name not in _UNBOUNDED:
                _check_range(attribute, here)
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                _check_graph(
                    graph, scopes, f"{here}: graph {_shown(attribute.name)}", depth + 1, has_arguments=has_arguments
                )
        for name in node.output:
            if name and name in known:
                raise BadModelError(f"its output {_shown(name)} is defined twice", where=here)
            if name:
                known.add(name)


def _unknown_input(name: str, nodes: Sequence[onnx.NodeProto], place: int) -> str:
    """Why an input is not known: the node that computes it comes later, or there is none."""
    for later, node in enumerate(nodes[place:], place):
        if name in node.output:
            writer = _shown(node.name or node.op_type)
            if later == place:
                return f"input {_shown(name)} is its own output"
            return f"input {_shown(name)} is computed by no earlier node, but by node {writer} behind it (a cycle?)"
    return f"input {_shown(name)} is computed by no node"


def _check_attribute(attribute: onnx.AttributeProto, where: str) -> None:
    """One value, of the kind that the attribute states."""
    name = f"attribute {_shown(attribute.name)}"
    if attribute.ref_attr_name:
        return
    field = _FIELD_OF_KIND.get(attribute.type)
    if field is None:
        raise BadModelError(f"{name} is of kind {attribute.type}, which is none", where=where)
    filled = [entry for entry in _SINGLE if attribute.HasField(entry)]
    filled += [entry for entry in _FIELD_OF_KIND.values() if entry not in _SINGLE and len(getattr(attribute, entry))]
    stated = _Attribute.AttributeType.Name(attribute.type).lower()
    if [entry for entry in filled if entry != field]:
        raise BadModelError(f"{name} states the kind {stated}, but holds {', '.join(filled)}", where=where)
    if field in _MESSAGES and not filled:
        raise BadModelError(f"{name} of kind {stated} holds nothing", where=where)
    for tensor in (*([attribute.t] if field == "t" else ()), *attribute.tensors):
        check_tensor(tensor, f"{where}: {name}")
    for sparse in (*([attribute.sparse_tensor] if field == "sparse_tensor" else ()), *attribute.sparse_tensors):
        _check_sparse(sparse, f"{where}: {name}")
    for type in (*([attribute.tp] if field == "tp" else ()), *attribute.type_protos):
        _check_type(type, f"{where}: {name}", 0)


def _check_range(attribute: onnx.AttributeProto, where: str) -> None:
    """Axes, sizes, steps and flags of the standard's operators have 32 bits at the most."""
    for value in (attribute.i, *attribute.ints):
        if not -_INT32 <= value < _INT32:
            what = f"attribute {_shown(attribute.name)} is {value}, outside of -2^31 to 2^31 - 1"
            raise BadModelError(what, where=where)


def _check_sparse(sparse: onnx.SparseTensorProto, where: str) -> None:
    check_sizes(sparse.dims, where)
    check_tensor(sparse.values, f"{where}: values")
    check_tensor(sparse.indices, f"{where}: indices")
    if sparse.indices.data_type != onnx.TensorProto.INT64:
        raise BadModelError("its indices are not int64", where=where)
    if onnx.TensorProto.EXTERNAL in (sparse.indices.data_location, sparse.values.data_location):
        return
    count, rank = len(sparse.values.dims) and sparse.values.dims[0], len(sparse.dims)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    if indices.shape not in ((count,), (count, rank)) or len(sparse.values.dims) != 1:
        what = f"its indices have the shape {list(indices.shape)} for values of {list(sparse.values.dims)}"
        raise BadModelError(what, where=where)
    limits = np.array(sparse.dims if indices.ndim > 1 else [math.prod(sparse.dims)], np.int64)
    if ((indices < 0) | (indices >= limits)).any():
        raise BadModelError(f"its indices do not fit the shape {list(sparse.dims)}", where=where)


def _check_type(type: onnx.TypeProto, where: str, depth: int) -> None:
    """Types of tensors, and of what is made of them."""
    if depth > DEEPEST_GRAPH:
        raise BadModelError(f"its type is more than {DEEPEST_GRAPH} deep", where=where)
    kind = type.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(type, kind)
        if tensor.elem_type and boundary_type(tensor.elem_type) is None:
            raise BadModelError(f"its element type is number {tensor.elem_type}, which is none", where=where)
        dims = tensor.shape.dim
        if len(dims) > MOST_RANK:
            raise BadModelError(f"has {len(dims)} dimensions, at most {MOST_RANK}", where=where)
        check_sizes((dim.dim_value for dim in dims if dim.HasField("dim_value")), where)
    elif kind in ("sequence_type", "optional_type", "map_type"):
        inner = getattr(type, kind)
        _check_type(inner.value_type if kind == "map_type" else inner.elem_type, where, depth + 1)


def _shown(name: str) -> str:
    """A name in a message: quoted, and not longer than a line bears."""
    return repr(name if len(name) <= 80 else f"{name[:77]}...")
