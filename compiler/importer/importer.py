"""From an ONNX model to a graph of core rows."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from birc.compiler.importer.bodies import (
    Body,
    captured_names,
    decided_branch,
    function_body,
    inner_constants,
    standard_body,
)
from birc.compiler.importer.builder import DeviceProblem, GraphBuilder
from birc.compiler.importer.control_flow import CONTROL_FLOW, LowerControl
from birc.compiler.importer.dimensions import ModelInputs, input_values, missing_size, require_sizes
from birc.compiler.importer.domains import standard_domain
from birc.compiler.importer.finish import finished_parts
from birc.compiler.importer.functions import DEEPEST_CALL, local_functions
from birc.compiler.importer.host_side import HostSide
from birc.compiler.importer.imported import Imported, Place, PlacedNode
from birc.compiler.importer.inference import InferredTypes, declared_shapes
from birc.compiler.importer.inner_graphs import Budget, InnerGraphs
from birc.compiler.importer.lookahead import Declared, Lookahead
from birc.compiler.importer.old_forms import MODERN, modern, modern_proto
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode, decode_attributes
from birc.compiler.importer.op_lookup import find_row, why_unknown
from birc.compiler.importer.placement import DevicePart
from birc.compiler.importer.read import NEWEST_OPSET, ModelSource, ReadModel, read_model
from birc.compiler.importer.region import Region
from birc.compiler.importer.scan import SCAN
from birc.compiler.importer.tensors import element_type, sparse_array, tensor_array
from birc.compiler.ir.errors import TypeRuleError, UnknownDimError
from birc.compiler.ir.graph import Graph
from birc.runtime.errors import BadModelError, UnsupportedError

_CONTROL_FLOW = {**CONTROL_FLOW, **SCAN}


def import_model(
    source: ModelSource,
    dims: Mapping[str, int] | None = None,
    batch: int | None = None,
    *,
    open_dims: bool = False,
) -> Graph:
    """The graph of an ONNX model that needs no host: core rows, static shapes, every ONNX node name on a node or
    among the fates.

    Raises as `import_parts`, and `UnsupportedError` that lists every operator without a lowering.
    """
    imported = import_parts(source, dims, batch, open_dims=open_dims)
    imported.require_supported()
    hosts = imported.host_nodes
    if hosts:
        listed = "; ".join(map(str, hosts))
        raise UnsupportedError(f"{len(hosts)} operator{'s need' if len(hosts) > 1 else ' needs'} the host: {listed}")
    (part,) = imported.parts
    if not isinstance(part, DevicePart):
        raise UnsupportedError("all of the model runs on the host")
    return part.graph


def import_parts(
    source: ModelSource | ReadModel,
    dims: Mapping[str, int] | None = None,
    batch: int | None = None,
    device_problem: DeviceProblem = lambda *_: None,
    *,
    open_dims: bool = False,
) -> Imported:
    """An ONNX model as graphs for the device and sub-models for the host. Unsupported operators are a result.

    `source` is a path, the file's bytes, or the model, perhaps read already; `dims` gives symbolic dimensions their
    sizes; `batch` the first dimension of every input where it is open. `device_problem` says why the device cannot run
    a node of the graph. With `open_dims` those dimensions stay symbols that have no size and of which no node needs
    one. Raises `BadModelError` (unreadable or contradictory) or `UsageError` (dimensions).
    """
    model = source if isinstance(source, ReadModel) else read_model(source)
    inputs = input_values(model.proto.graph, dims or {}, batch)
    imported = _Importer(model, inputs, device_problem).run()
    for part in imported.parts:
        if isinstance(part, DevicePart) and not open_dims:
            require_sizes(part.graph)
    return imported


class _Importer:
    def __init__(self, model: ReadModel, inputs: ModelInputs, device_problem: DeviceProblem) -> None:
        self._model = model
        self._given = inputs
        self._inputs = inputs.on_device
        self._functions = local_functions(model.proto)
        self._nodes: list[PlacedNode] = []
        self._node_names: dict[str, int] = {}
        self._inferred = InferredTypes(model, inputs.on_device)
        graph = model.proto.graph
        named = {entry.name for entry in graph.input} | {tensor.name for tensor in graph.initializer}
        named.update(name for node in graph.node for name in node.output)
        self._build = GraphBuilder(named, device_problem)
        self._host = HostSide(self._build, model.proto.functions)
        for name, type in inputs.on_host.items():
            self._host.add_value(name, type)

    def run(self) -> Imported:
        graph = self._model.proto.graph
        initialised = {tensor.name for tensor in graph.initializer}
        inputs = tuple(entry.name for entry in graph.input if entry.name not in initialised)
        values = {name: name for name in inputs}
        for value in self._inputs:
            self._build.add_input(value)
            if 0 in value.type.shape:
                empty = np.empty(value.type.sizes, value.type.dtype.numpy)
                values[value.name] = self._build.keep_constant(f"{value.name}.empty", empty)
        for tensor in graph.initializer:
            self._add_initializer(tensor)
            values[tensor.name] = tensor.name
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            self._build.add_constant(name, sparse_array(sparse, self._model.folder))
            values[name] = name
        declared = self._lookahead(graph.node, self._inferred.shape_of, values)
        region = Region(values, self._model.opsets, {}, "", "", 0, declared)
        self._lower_nodes(graph.node, region)
        names = tuple(entry.name for entry in graph.output)
        for name in names:
            if name not in values:
                raise BadModelError(f"output {name!r} is computed by no node")
        is_supported = all(node.place != "unsupported" for node in self._nodes)
        parts = (
            finished_parts(self._build, self._host, self._model.name, self._inputs, names, region)
            if is_supported
            else ()
        )
        types = {name: self._host.type_of(name) for part in parts for name in part.boundary}
        types.update((name, self._host.type_of(name)) for name in (*inputs, *(names if parts else ())))
        functions = tuple(self._model.proto.functions)
        return Imported(
            self._model.name, parts, inputs, names, types, self._host.constants(), functions, tuple(self._nodes),
            self._given.dimensions, self._given.axes,
        )  # fmt: skip

    def _add_initializer(self, tensor: onnx.TensorProto) -> None:
        if element_type(tensor.data_type) is None:
            self._host.add_tensor(tensor)
        else:
            self._build.add_constant(tensor.name, tensor_array(tensor, self._model.folder))

    def _lower_nodes(self, nodes: Sequence[onnx.NodeProto], region: Region) -> None:
        for position, proto in enumerate(nodes):
            node = self._view(proto, position, region)
            try:
                results = self._lower(proto, node, region)
                if not (region.owner or region.is_whole or self._is_call(proto, node)):
                    self._record(node, "device")
            except CannotLower as reason:
                if region.is_whole:
                    raise CannotLower(f"{node.op_type} {proto.name or proto.output[0]!r} inside it: {reason}") from None
                results = self._on_host(proto, node, region, str(reason))
            except (ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
                # Attributes and operands that contradict each other make sizes and places that cannot be.
                what = f"its attributes and operands do not fit together: {error}"
                raise BadModelError(what, where=f"{node.where} ({node.op_type})") from error
            except UnknownDimError as error:
                raise missing_size(self._inputs, error.symbol, f"{node.where} ({node.op_type})") from error
            except TypeRuleError as error:
                raise BadModelError(error.what, where=f"{node.where} ({node.op_type})", hint=error.hint) from error
            for name, result in zip(node.outputs, results, strict=False):
                if name and result:
                    region.values[name] = result

    def _is_call(self, proto: onnx.NodeProto, node: OnnxNode) -> bool:
        """Whether the nodes of a function of the model stand for this one."""
        return (node.domain, node.op_type, proto.overload) in self._functions

    def _view(self, proto: onnx.NodeProto, position: int, region: Region) -> OnnxNode:
        name = region.node_name(proto, position, self._node_names)
        domain = standard_domain(proto.domain)
        outputs = list(proto.output)
        while outputs and not outputs[-1]:
            outputs.pop()
        inputs = tuple(self._resolved(entry, name, region) for entry in proto.input)
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        attributes = decode_attributes(proto.attribute, region.attributes)
        version = region.opsets.get(domain, NEWEST_OPSET if domain == "" else 1)
        return OnnxNode(name, proto.op_type, domain, version, inputs, tuple(outputs), attributes)

    def _resolved(self, name: str, node: str, region: Region) -> str:
        if not name:
            return ""
        if name not in region.values:
            raise BadModelError(f"input {name!r} is computed by no earlier node", where=f"node {node!r}")
        return region.values[name]

    def _on_host(self, proto: onnx.NodeProto, node: OnnxNode, region: Region, reason: str) -> tuple[str, ...]:
        """Leave a node to the host, or list it as unsupported."""
        try:
            proto, node, opsets = self._modern(proto, node, region)
            results = self._host.place(proto, node, region.values, opsets, region.prefix, region.declared, reason)
        except CannotLower as problem:
            self._record(node, "unsupported", str(problem))
            return self._unknown_results(node, region)
        self._record(node, "host", reason)
        self._build.record_fate(node.name, "removed", "")
        return results

    def _modern(
        self, proto: onnx.NodeProto, node: OnnxNode, region: Region
    ) -> tuple[onnx.NodeProto, OnnxNode, Mapping[str, int]]:
        """A node for the host, which does not know the operator sets before 7, and its operator sets."""
        if not node.domain and not onnx.defs.has(node.op_type, node.version):
            raise CannotLower(f"not on the device ({why_unknown(node)}), nor on the host")
        if node.domain or node.version >= MODERN:
            return proto, node, region.opsets
        self._build.start_node(node.name)
        renewed = modern(node, self._build)
        self._build.settle()
        return modern_proto(proto, renewed), renewed, {**region.opsets, "": renewed.version}

    def _lower(self, proto: onnx.NodeProto, node: OnnxNode, region: Region) -> tuple[str, ...]:
        if any(self._inferred.is_missing(name) for name in node.inputs if name):
            self._list_if_unknown(node)
            return self._unknown_results(node, region)
        body = self._model_body(proto, node, region)
        if body is not None:
            return self._lower_body(body, node, region)
        captured = (region.values.get(name, "") for name in captured_names(proto))
        for name in (*node.inputs, *captured):
            if name and self._host.is_only_here(name):
                raise CannotLower(self._host.why_only_here(name))
        control = _CONTROL_FLOW.get(node.op_type) if node.domain == "" else None
        if control is not None:
            return self._lower_control(proto, node, region, control)
        entry = find_row(node)
        if entry is None:
            body = standard_body(proto, node, self._build)
            if body is None:
                raise CannotLower(why_unknown(node))
            return self._lower_standard_body(body, node, region)
        self._build.start_node(node.name)
        self._build.declared = region.declared
        node = modern(node, self._build)
        results = entry.lower(node, self._build)
        listed = (results,) if isinstance(results, str) else results
        if len(listed) != len(node.outputs):
            raise CannotLower(f"{len(node.outputs)} outputs are asked for, {len(listed)} are computed")
        return self._build.finish_node(listed, [f"{region.prefix}{name}" if name else "" for name in node.outputs])

    def _record(self, node: OnnxNode, place: Place, reason: str = "") -> None:
        kind = node.op_type, node.domain, node.version
        self._nodes.append(PlacedNode(node.name, *kind, place, reason, node.outputs))

    def _list_if_unknown(self, node: OnnxNode) -> None:
        """List a node behind an unsupported one where nobody knows its operator either."""
        key = (node.domain, node.op_type, "")
        is_lowered = key in self._functions or find_row(node) is not None
        if not is_lowered and not onnx.defs.has(node.op_type, node.domain):
            self._record(node, "unsupported", why_unknown(node))

    def _lower_standard_body(self, body: Body, node: OnnxNode, region: Region) -> tuple[str, ...]:
        """The definition that the standard gives for an operator, on the device as a whole or not at all."""
        if region.is_whole:
            return self._lower_body(body, node, region)
        state = self._build.checkpoint()
        try:
            return self._lower_body(body, node, replace(region, is_whole=True))
        except CannotLower:
            self._build.restore(state)
            raise

    def _model_body(self, proto: onnx.NodeProto, node: OnnxNode, region: Region) -> Body | None:
        """The nodes that the model itself puts in the place of `node`."""
        function = self._functions.get((node.domain, node.op_type, proto.overload))
        if function is not None:
            return function_body(function, node, is_named=True)
        if (node.domain, node.op_type) == ("", "If"):
            branch = decided_branch(node, self._build)
            if branch is not None:
                known = {**region.values, **inner_constants(branch, node, self._build, self._model.folder)}
                outputs = tuple(entry.name for entry in branch.output)
                return Body(branch.node, known, outputs, region.attributes, region.opsets, is_named=True)
        return None

    def _lower_control(
        self, proto: onnx.NodeProto, node: OnnxNode, region: Region, lower: LowerControl
    ) -> tuple[str, ...]:
        """A node whose inner graphs run on the device as a whole, or not at all."""
        captured = [region.values.get(name, "") for name in captured_names(proto)]
        missing = [name for name in (*node.inputs, *captured) if name and self._inferred.is_missing(name)]
        if missing and not region.is_whole:
            return self._unknown_results(node, region)
        state = None if region.is_whole else self._build.checkpoint()
        budget = region.budget or Budget(self._build)

        def lower_nodes(
            nodes: Sequence[onnx.NodeProto], values: MutableMapping[str, str], graph: onnx.GraphProto, label: str
        ) -> None:
            declared = self._lookahead(nodes, declared_shapes(graph).get, values)
            depth, prefix = region.depth + 1, f"{node.name}/{label}"
            inner = replace(
                region, values=values, prefix=prefix, depth=depth, declared=declared, is_whole=True, budget=budget
            )
            self._check_depth(node, region)
            self._lower_nodes(nodes, inner)

        bodies = InnerGraphs(self._build, node, region.values, self._model.folder, budget, lower_nodes)
        self._build.start_node(node.name)
        self._build.declared = region.declared
        try:
            results = lower(node, self._build, bodies)
        except CannotLower:
            if state is not None:
                self._build.restore(state)
            raise
        return self._build.finish_node(results, [f"{region.prefix}{name}" if name else "" for name in node.outputs])

    def _check_depth(self, node: OnnxNode, region: Region) -> None:
        if region.depth >= DEEPEST_CALL:
            what = f"functions and graphs inside of nodes are more than {DEEPEST_CALL} deep"
            raise UnsupportedError(what, where=node.where)

    def _lower_body(self, body: Body, node: OnnxNode, region: Region) -> tuple[str, ...]:
        self._check_depth(node, region)
        owner = "" if body.is_named and not region.owner else node.name
        values = ChainMap({}, dict(body.values))
        outer = dict(zip(body.outputs, node.outputs, strict=False))

        def known(name: str) -> tuple[int, ...] | None:
            return region.declared(outer[name]) if outer.get(name) else None

        declared = self._lookahead(body.nodes, known, values)
        inner = replace(
            region, values=values, opsets=body.opsets, attributes=body.attributes, prefix=f"{node.name}/", owner=owner,
            depth=region.depth + 1, declared=declared,
        )  # fmt: skip
        self._lower_nodes(body.nodes, inner)
        results = tuple(values.get(name, "") for name in body.outputs[: len(node.outputs)])
        if not owner:
            self._build.record_fate(node.name, "merged", results[0] if results else "")
        return results

    def _lookahead(self, nodes: Sequence[onnx.NodeProto], known: Declared, values: Mapping[str, str]) -> Declared:
        """The shapes of the values of a region, whose names mean `values` so far."""

        def lowered(name: str) -> tuple[int, ...] | None:
            found = values.get(name, "")
            return self._build.shape(found) if self._build.has_type(found) else None

        return Lookahead(nodes, known, lowered).shape_of

    def _unknown_results(self, node: OnnxNode, region: Region) -> tuple[str, ...]:
        """Stand-ins for the results of an unsupported node, typed where shape inference knows them."""
        names = []
        for output in node.outputs:
            name = self._build.unique(f"{region.prefix}{output}.unsupported")
            type = None if region.prefix else self._inferred.type_of(output)
            if type is None:
                self._inferred.mark_missing(name)
            else:
                self._build.add_unknown(name, type)
            names.append(name)
        return tuple(names)
