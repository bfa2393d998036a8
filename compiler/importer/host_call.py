"""ONNX nodes that run on the host: their protobuf in names of the graph, and the sub-models they make up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import RuntimeContextError

from birc.compiler.importer.bodies import captured_names, with_attributes
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.tensors import tensor_proto
from birc.runtime.variant import HostNode

_SUBMODEL_IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class HostCall:
    """One node on the host. `proto` reads and writes graph values by their names there.

    `reads` are its inputs and what its inner graphs take from outside; `position` counts the device nodes before it.
    """

    node: HostNode
    proto: onnx.NodeProto
    opsets: Mapping[str, int]
    reads: tuple[str, ...]
    position: int

    @property
    def writes(self) -> tuple[str, ...]:
        """The values that it computes."""
        return tuple(name for name in self.proto.output if name)

    def renamed(self, names: Mapping[str, str]) -> HostCall:
        """The call with other names for some of the values that it reads."""
        if not any(name in names for name in self.reads):
            return self
        proto = _with_names(self.proto, names)
        reads = tuple(names.get(name, name) for name in self.reads)
        return HostCall(self.node, proto, self.opsets, reads, self.position)


def host_call(
    proto: onnx.NodeProto,
    node: OnnxNode,
    values: Mapping[str, str],
    outputs: Sequence[str],
    opsets: Mapping[str, int],
    reason: str,
    position: int,
) -> HostCall:
    """The call of `node`, whose outside names mean `values` and whose results get the names `outputs`."""
    captured = captured_names(proto)
    resolved = _with_names(with_attributes(proto, node), {name: values[name] for name in captured if name in values})
    del resolved.input[:], resolved.output[:]
    resolved.input.extend(node.inputs)
    resolved.output.extend(outputs)
    resolved.name = node.name
    reads = dict.fromkeys((*(name for name in node.inputs if name), *(values[n] for n in captured if n in values)))
    return HostCall(HostNode(node.name, node.op_type, reason), resolved, opsets, tuple(reads), position)


def host_problem(proto: onnx.NodeProto, opsets: Mapping[str, int], functions: Sequence[onnx.FunctionProto]) -> str:
    """Why onnx's reference evaluator cannot run a node; "" when it can."""
    reads = dict.fromkeys(name for name in (*proto.input, *captured_names(proto)) if name)
    inputs = [onnx.ValueInfoProto(name=name) for name in reads]
    try:
        ReferenceEvaluator(one_node_model(proto, inputs, (), opsets, functions))
    except Exception as error:  # it raises many types, none of them public
        if isinstance(error, NotImplementedError | RuntimeContextError):
            return "onnx's reference evaluator has no such operator"
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""


def one_node_model(
    proto: onnx.NodeProto,
    inputs: Iterable[onnx.ValueInfoProto],
    known: Iterable[onnx.TensorProto],
    opsets: Mapping[str, int],
    functions: Sequence[onnx.FunctionProto],
) -> onnx.ModelProto:
    """The model that is one node, which reads `inputs`; `known` are the tensors of those whose data is there."""
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    graph = onnx.GraphProto(name="one", node=[proto], input=inputs, output=outputs, initializer=known)
    return _model(graph, opsets, functions)


def sub_model(
    name: str,
    calls: Sequence[HostCall],
    inputs: Iterable[str],
    outputs: Iterable[str],
    constants: Mapping[str, np.ndarray | onnx.TensorProto],
    functions: Sequence[onnx.FunctionProto],
) -> bytes:
    """The ONNX file of consecutive calls; the same calls give the same bytes."""
    used = dict.fromkeys(entry for call in calls for entry in call.reads if entry in constants)
    graph = onnx.GraphProto(
        name=name,
        node=[call.proto for call in calls],
        input=[onnx.ValueInfoProto(name=entry) for entry in inputs],
        output=[onnx.ValueInfoProto(name=entry) for entry in outputs],
        initializer=[_tensor(entry, constants[entry]) for entry in used],
    )
    return _model(graph, calls[0].opsets, functions).SerializeToString(deterministic=True)


def _tensor(name: str, data: np.ndarray | onnx.TensorProto) -> onnx.TensorProto:
    if isinstance(data, np.ndarray):
        return tensor_proto(name, data)
    tensor = onnx.TensorProto()
    tensor.CopyFrom(data)
    tensor.name = name
    return tensor


def _model(
    graph: onnx.GraphProto, opsets: Mapping[str, int], functions: Sequence[onnx.FunctionProto]
) -> onnx.ModelProto:
    model = onnx.ModelProto(ir_version=_SUBMODEL_IR_VERSION, graph=graph, functions=functions)
    model.opset_import.extend(onnx.OperatorSetIdProto(domain=domain, version=opsets[domain]) for domain in opsets)
    return model


def _with_names(proto: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy that reads other names, in its inner graphs too where they come from outside."""
    renamed = onnx.NodeProto()
    renamed.CopyFrom(proto)
    renamed.input[:] = [names.get(name, name) for name in proto.input]
    for graph in _inner_graphs(renamed):
        inner = dict(names)
        for entry in (*graph.input, *graph.initializer):
            inner.pop(entry.name, None)
        for place, node in enumerate(graph.node):
            graph.node[place].CopyFrom(_with_names(node, inner))
            for name in node.output:
                inner.pop(name, None)
        for entry in graph.output:
            entry.name = inner.get(entry.name, entry.name)
    return renamed


def _inner_graphs(proto: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
