"""Reading an ONNX file: every way in which it can be broken ends in one clear error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from birc.runtime.errors import BadModelError

OLDEST_OPSET: Final = 1
NEWEST_OPSET: Final = onnx.defs.onnx_opset_version()
STANDARD_DOMAINS: Final = ("", "ai.onnx")

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


def opset_versions(imports: object) -> dict[str, int]:
    """The domains of an `opset_import` field with their versions; the standard domain is the empty string."""
    return {standard_domain(entry.domain): entry.version for entry in imports}  # type: ignore[attr-defined]


def standard_domain(domain: str) -> str:
    """`domain`, with the empty string for both names of the standard one."""
    return "" if domain in STANDARD_DOMAINS else domain


def read_model(source: ModelSource) -> ReadModel:
    """Read and check a model from a path, its bytes or its protobuf.

    Raises `BadModelError` for anything that is not a whole, consistent ONNX model of a known operator set.
    """
    if isinstance(source, onnx.ModelProto):
        model = ReadModel(source, source.graph.name or "model", None)
    elif isinstance(source, bytes):
        proto = _parse(source, "bytes")
        model = ReadModel(proto, proto.graph.name or "model", None)
    else:
        path = Path(source)
        model = ReadModel(_parse(_read_bytes(path), str(path)), path.stem, path.resolve().parent)
    _check(model, str(source) if isinstance(source, str | Path) else model.name)
    return model


def _read_bytes(path: Path) -> bytes:
    if not path.exists():
        raise BadModelError("there is no such file", where=str(path))
    if path.is_dir():
        raise BadModelError("this is a folder, not an ONNX file", where=str(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not content:
        raise BadModelError("the file is empty", where=str(path))
    return content


def _parse(content: bytes, where: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise BadModelError(
            f"not an ONNX model, or cut short: its {len(content)} bytes do not decode",
            where=where,
            hint="export it again, and compare the file's size with the original's",
        ) from error
    return proto


def _check(model: ReadModel, where: str) -> None:
    proto = model.proto
    if not proto.ir_version or not proto.HasField("graph") or not proto.opset_import:
        raise BadModelError("not an ONNX model: it states no IR version, operator set or graph", where=where)
    version = model.opsets.get("")
    if version is not None and not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise BadModelError(
            f"operator set {version} is not between {OLDEST_OPSET} and {NEWEST_OPSET}",
            where=where,
            hint="convert it with onnx.version_converter",
        )
    if not proto.graph.output:
        raise BadModelError("the graph has no outputs", where=where)
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
    return not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.proto.graph.initializer)


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
    try:
        onnx.checker.check_model(_with_output_types(proto))
    except (onnx.checker.ValidationError, ValueError) as error:
        first_line = next(line for line in [*str(error).splitlines(), "unknown reason"] if line.strip())
        raise BadModelError(f"the model contradicts itself: {first_line}", where=where) from error
