"""The manifest of a package: what it was made from and by, its boundary, its variants and its members.

`Manifest` is plain data; `to_json` and `read_manifest` convert it to and from the object in `manifest.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from birc.runtime.dtypes import DTYPES, HOST_DTYPES
from birc.runtime.errors import BadPackageError
from birc.runtime.isa import ISA_VERSION, isa_digest
from birc.runtime.package_json import Fields, Json
from birc.runtime.version import birc_version

SCHEMA: Final = "birc.package/1"

_FIELDS: Final = (
    *("schema", "compiler_version", "isa", "model", "target", "precision", "options", "passes"),
    *("onnx_sha256", "inputs", "outputs", "variants", "report", "members"),
)
_REPORT_COUNTS: Final = ("batch", "device_nodes", "compulsory_bytes", "sram_lower_bound_bytes")
_REPORT_HOST_NODES: Final = "host_nodes"
_NO_VALUES: Final[Mapping[str, Any]] = MappingProxyType({})
_TYPE_NAMES: Final = frozenset(entry.name for entry in DTYPES + HOST_DTYPES)


@dataclass(frozen=True, slots=True)
class BoundaryTensor:
    """An input or output as the model declares it: name, element type and shape.

    `device_dtype` is the type in which it lies in device memory; the host converts.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    device_dtype: str


@dataclass(frozen=True, slots=True)
class Variant:
    """The model with its symbolic dimensions fixed: their values, and the member that holds the program."""

    dimensions: Mapping[str, int]
    program: str


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What a member must be: size, SHA-256 (in hexadecimal) and CRC-32 of its bytes."""

    num_bytes: int
    sha256: str
    crc32: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands in `manifest.json`.

    `onnx_sha256` is None for a program that was not compiled from an ONNX file. `report` holds what a profile
    says that the program itself does not: the counts in `_REPORT_COUNTS` and the names of nodes on the host.
    `members` is empty until the package is saved.
    """

    model: str
    target: str
    target_digest: str
    precision: str
    inputs: tuple[BoundaryTensor, ...]
    outputs: tuple[BoundaryTensor, ...]
    variants: tuple[Variant, ...] = ()
    options: Mapping[str, Any] = field(default_factory=lambda: _NO_VALUES)
    passes: tuple[str, ...] = ()
    onnx_sha256: str | None = None
    report: Mapping[str, Any] = field(default_factory=lambda: _NO_VALUES)
    members: Mapping[str, MemberRecord] = field(default_factory=lambda: _NO_VALUES)
    compiler_version: str = field(default_factory=birc_version)
    isa_version: int = ISA_VERSION
    isa_digest: str = field(default_factory=isa_digest)

    def to_json(self) -> Json:
        """The object in `manifest.json`."""
        return {
            "schema": SCHEMA,
            "compiler_version": self.compiler_version,
            "isa": {"version": self.isa_version, "digest": self.isa_digest},
            "model": self.model,
            "target": {"name": self.target, "digest": self.target_digest},
            "precision": self.precision,
            "options": dict(self.options),
            "passes": list(self.passes),
            "onnx_sha256": self.onnx_sha256,
            "inputs": [_tensor_json(tensor) for tensor in self.inputs],
            "outputs": [_tensor_json(tensor) for tensor in self.outputs],
            "variants": [_variant_json(variant) for variant in self.variants],
            "report": dict(self.report),
            "members": {name: _member_json(record) for name, record in self.members.items()},
        }


def _tensor_json(tensor: BoundaryTensor) -> Json:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "device_dtype": tensor.device_dtype,
    }


def _variant_json(variant: Variant) -> Json:
    # `init` copies the constants to the device, once; `call` runs the commands, for every set of inputs.
    entries = {"init": "constants", "call": "commands"}
    return {"dimensions": dict(variant.dimensions), "program": variant.program, "entries": entries}


def _member_json(record: MemberRecord) -> Json:
    return {"bytes": record.num_bytes, "sha256": record.sha256, "crc32": record.crc32}


def read_manifest(value: object, *, where: str) -> Manifest:
    """The manifest that a JSON value describes.

    Raises `BadPackageError` naming the field for another schema version, another instruction table, a missing
    or unknown field, or one of the wrong type.
    """
    fields = Fields(value, where)
    schema = fields.text("schema")
    if schema != SCHEMA:
        hint = f"this birc reads {SCHEMA}: compile it again"
        raise BadPackageError(f"has the format {schema!r}", where=where, hint=hint)
    fields.only(*_FIELDS)
    isa, target = fields.object("isa"), fields.object("target")
    isa.only("version", "digest")
    target.only("name", "digest")
    version, digest = isa.count("version"), isa.text("digest")
    compiler = fields.text("compiler_version")
    if digest != isa_digest():
        what = f"was compiled by birc {compiler} for instruction table {version} ({digest[:12]})"
        hint = f"this birc {birc_version()} has table {ISA_VERSION} ({isa_digest()[:12]}): compile it again"
        raise BadPackageError(what, where=where, hint=hint)
    return Manifest(
        model=fields.text("model"),
        target=target.text("name"),
        target_digest=target.text("digest"),
        precision=fields.text("precision"),
        inputs=tuple(_read_tensor(entry, where) for entry in fields.objects("inputs")),
        outputs=tuple(_read_tensor(entry, where) for entry in fields.objects("outputs")),
        variants=tuple(_read_variant(entry) for entry in fields.objects("variants")),
        options=fields.mapping("options"),
        passes=fields.texts("passes"),
        onnx_sha256=fields.optional_text("onnx_sha256"),
        report=_read_report(fields),
        members={name: _read_member(entry) for name, entry in fields.named_objects("members")},
        compiler_version=compiler,
        isa_version=version,
        isa_digest=digest,
    )


def _read_report(fields: Fields) -> dict[str, Any]:
    report = fields.object("report")
    report.only(*_REPORT_COUNTS, _REPORT_HOST_NODES)
    values = fields.mapping("report")
    counts: dict[str, Any] = {name: report.count(name) for name in _REPORT_COUNTS if name in values}
    hosts = {_REPORT_HOST_NODES: list(report.texts(_REPORT_HOST_NODES))} if _REPORT_HOST_NODES in values else {}
    return counts | hosts


def _read_tensor(fields: Fields, where: str) -> BoundaryTensor:
    fields.only("name", "dtype", "shape", "device_dtype")
    tensor = BoundaryTensor(
        fields.text("name"), fields.text("dtype"), fields.counts("shape"), fields.text("device_dtype")
    )
    for name in (tensor.dtype, tensor.device_dtype):
        if name not in _TYPE_NAMES:
            raise BadPackageError(f"there is no element type {name!r}", where=f"{where}: {tensor.name}")
    return tensor


def _read_variant(fields: Fields) -> Variant:
    fields.only("dimensions", "program", "entries")
    dimensions = fields.object("dimensions")
    names = fields.mapping("dimensions")
    return Variant({name: dimensions.count(name) for name in names}, fields.text("program"))


def _read_member(fields: Fields) -> MemberRecord:
    fields.only("bytes", "sha256", "crc32")
    return MemberRecord(fields.count("bytes"), fields.text("sha256"), fields.count("crc32"))
