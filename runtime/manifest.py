"""The manifest of a package: what it was made from and by, its variants, their steps, and its members.

`Manifest` is plain data; `to_json` and `read_manifest` convert it to and from the object in `manifest.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from birc.runtime.errors import BadPackageError, InternalError
from birc.runtime.isa import ISA_VERSION, isa_digest
from birc.runtime.package_json import Fields, Json
from birc.runtime.variant import BoundaryTensor, Variant, read_variant, variant_json
from birc.runtime.version import birc_version

SCHEMA: Final = "birc.package/2"

_FIELDS: Final = (
    *("schema", "compiler_version", "isa", "model", "target", "precision", "options", "passes"),
    *("onnx_sha256", "variants", "members"),
)
_NO_VALUES: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What a member must be: size, SHA-256 (in hexadecimal) and CRC-32 of its bytes."""

    num_bytes: int
    sha256: str
    crc32: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands in `manifest.json`.

    `onnx_sha256` is None for a program that was not compiled from an ONNX file. `variants` and `members` are empty
    until the package is made and saved.
    """

    model: str
    target: str
    target_digest: str
    precision: str
    variants: tuple[Variant, ...] = ()
    options: Mapping[str, Any] = field(default_factory=lambda: _NO_VALUES)
    passes: tuple[str, ...] = ()
    onnx_sha256: str | None = None
    members: Mapping[str, MemberRecord] = field(default_factory=lambda: _NO_VALUES)
    compiler_version: str = field(default_factory=birc_version)
    isa_version: int = ISA_VERSION
    isa_digest: str = field(default_factory=isa_digest)

    @property
    def first(self) -> Variant:
        """The first variant: the only one of most packages."""
        if not self.variants:
            raise InternalError("the package has no variants yet", where=self.model)
        return self.variants[0]

    @property
    def inputs(self) -> tuple[BoundaryTensor, ...]:
        """What the first variant takes."""
        return self.first.inputs

    @property
    def outputs(self) -> tuple[BoundaryTensor, ...]:
        """What the first variant gives."""
        return self.first.outputs

    @property
    def report(self) -> Mapping[str, Any]:
        """What a profile of the first variant says that its programs do not."""
        return self.first.report

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
            "variants": [variant_json(variant) for variant in self.variants],
            "members": {name: _member_json(record) for name, record in self.members.items()},
        }


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
        variants=tuple(read_variant(entry, where) for entry in fields.objects("variants")),
        options=fields.mapping("options"),
        passes=fields.texts("passes"),
        onnx_sha256=fields.optional_text("onnx_sha256"),
        members={name: _read_member(entry) for name, entry in fields.named_objects("members")},
        compiler_version=compiler,
        isa_version=version,
        isa_digest=digest,
    )


def _read_member(fields: Fields) -> MemberRecord:
    fields.only("bytes", "sha256", "crc32")
    return MemberRecord(fields.count("bytes"), fields.text("sha256"), fields.count("crc32"))
