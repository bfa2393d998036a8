"""Reading an ONNX file: every way in which it can be broken ends in one clear error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from birc.compiler.importer.domains import opset_versions, standard_domain
from birc.compiler.importer.functions import check_functions, local_functions
from birc.compiler.importer.isolation import Ended, isolated
from birc.compiler.importer.model_file import decode_model, read_bytes
from birc.compiler.importer.structure import check_names, check_structure
from birc.runtime.errors import BadModelError

OLDEST_OPSET: Final = 1
NEWEST_OPSET: Final = onnx.defs.onnx_opset_version()

# The checker serialises the whole model; beyond this only the importer's own checks run.
_CHECKED_BYTES: Final = 256 * 2**20

ModelSource = onnx.ModelProto | bytes | str | Path


@dataclass(frozen=True, slots=True)
class ReadModel:
    """A model as read: `folder` is where its external data may lie, None when it did not come from a file."""

    proto: onnx.ModelProto
    name: str
    folder: Path | None

    @property
    def opsets(self) -> dict[str, int]:
        """The version of each operator domain; the standard domain is the empty string."""
        return opset_versions(self.proto.opset_import)


def read_model(source: ModelSource) -> ReadModel:
    """Read and check a model from a path, its bytes or its protobuf.

    Raises `BadModelError` for anything that is not a whole, consistent ONNX model of a known operator set.
    """
    if isinstance(source, onnx.ModelProto):
        model = ReadModel(source, source.graph.name or "model", None)
    elif isinstance(source, bytes):
        proto = decode_model(source, "bytes")
        model = ReadModel(proto, proto.graph.name or "model", None)
    else:
        path = Path(source)
        model = ReadModel(decode_model(read_bytes(path), str(path)), path.stem, path.resolve().parent)
    _check(model, str(source) if isinstance(source, str | Path) else model.name)
    return model


def _check(model: ReadModel, where: str) -> None:
    proto = model.proto
    if not proto.ir_version or not proto.HasField("graph") or not proto.opset_import:
        raise BadModelError("not an ONNX model: it states no IR version, operator set or graph", where=where)
    check_names(where, (entry.domain for entry in proto.opset_import))
    opsets = [(standard_domain(entry.domain), entry.version) for entry in proto.opset_import]
    for domain, stated in opsets:
        if model.opsets[domain] != stated:
            what = f"opset_import states {stated} and {model.opsets[domain]} for domain {domain or 'ai.onnx'!r}"
            raise BadModelError(what, where=where)
        if domain and stated < 0:
            raise BadModelError(f"operator set {stated} of domain {domain!r} is below 0", where=where)
    version = model.opsets.get("")
    if version is not None and not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise BadModelError(
            f"operator set {version} is not between {OLDEST_OPSET} and {NEWEST_OPSET}",
            where=where,
            hint="convert it with onnx.version_converter",
        )
    if not proto.graph.output:
        raise BadModelError("the graph has no outputs", where=where)
    check_structure(proto, where)
    check_functions(local_functions(proto), proto.graph)
    if _is_checkable(model):
        _run_checker(proto, where)


def _is_checkable(model: ReadModel) -> bool:
    """Whether the checker can judge: it stops at the first operator that it does not know or that ONNX has withdrawn,
    and reads external data by path only.
    """
    if model.proto.ByteSize() > _CHECKED_BYTES:
        return False
    versions = model.opsets
    for node in model.proto.graph.node:
        domain = standard_domain(node.domain)
        version = versions.get("", NEWEST_OPSET)
        if domain == "" and not onnx.defs.has(node.op_type, version):
            return False
        if domain == "" and onnx.defs.get_schema(node.op_type, version).deprecated:
            return False
    return not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _stored_tensors(model.proto))


def _stored_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The tensors of all graphs, functions and attributes."""
    yield from model.graph.initializer
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while nodes:
        for attribute in nodes.pop().attribute:
            yield from (attribute.t, *attribute.tensors)
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from graph.initializer
                nodes.extend(graph.node)


def _with_output_types(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose outputs declare types, which the checker insists on and nothing else needs."""
    untyped = [entry for entry in proto.graph.output if not entry.type.tensor_type.HasField("shape")]
    if not untyped:
        return proto
    complete = onnx.ModelProto()
    complete.CopyFrom(proto)
    for entry in complete.graph.output:
        kind = entry.type.WhichOneof("value") or "tensor_type"
        if kind == "tensor_type" and not entry.type.tensor_type.HasField("shape"):
            entry.type.tensor_type.elem_type = entry.type.tensor_type.elem_type or onnx.TensorProto.FLOAT
            entry.type.tensor_type.shape.SetInParent()
    return complete


def _run_checker(proto: onnx.ModelProto, where: str) -> None:
    content = _with_output_types(proto).SerializeToString()

    def check() -> bytes:
        try:
            onnx.checker.check_model(content)
        except Exception as error:  # several types, and none that says more than its text
            return str(error).encode("utf-8", "replace") or b"unknown reason"
        return b""

    try:
        message = isolated(check, len(content)).decode("utf-8", "replace")
    except Ended as reason:
        raise BadModelError(f"onnx's checker cannot judge it: {reason}", where=where) from reason
    if message:
        lines = [line.strip() for line in message.splitlines() if line.strip()] or ["unknown reason"]
        context = "".join(f"; {line.removeprefix('==> ')}" for line in lines[1:] if line.startswith("==> Context"))
        raise BadModelError(f"the model contradicts itself: {lines[0]}{context}", where=where)
