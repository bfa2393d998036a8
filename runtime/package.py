"""The package `NAME.birc`: a compiled model as one file, written atomically and read without trust.

A zip of stored members: `manifest.json`, `programs/0.bin` (the instruction stream), `weights.safetensors`
(the constants, mapped into memory, never copied on loading) and `debug/` (texts and names; may be missing).
The manifest holds the SHA-256 of every other member; its own bytes are covered by the CRC-32 of the zip.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final

import numpy as np

from birc.runtime.codec import decode_program, encode_program
from birc.runtime.errors import BadPackageError, InternalError, UsageError
from birc.runtime.machine import Machine, load_machine
from birc.runtime.manifest import Manifest, MemberRecord, Variant, read_manifest
from birc.runtime.package_json import read_json, to_bytes
from birc.runtime.package_sources import SOURCE_MAP, RunSource, read_source_map, source_map_json
from birc.runtime.package_weights import Array, read_weights, share_equal, weights_image
from birc.runtime.package_zip import Member, NewMember, is_member_name, read_archive, write_archive
from birc.runtime.program import Port, Program
from birc.runtime.verifier import VerificationError, verify_program

MANIFEST: Final = "manifest.json"
PROGRAM: Final = "programs/0.bin"
WEIGHTS: Final = "weights.safetensors"
DEBUG: Final = "debug/"

_MAX_MANIFEST_BYTES: Final = 1 << 28
_NO_DEBUG: Final[Mapping[str, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Package:
    """A verified program with its constants and what is known about them.

    Made by `create` or `open`, both of which run the verifier. `weights` are by `ConstantImage.key`,
    read-only when the package was opened from a file. `debug` are the debug members by their whole name;
    nothing in them changes a value or a figure.
    """

    manifest: Manifest
    program: Program
    weights: Mapping[str, Array]
    machine: Machine
    debug: Mapping[str, bytes] = field(default_factory=lambda: _NO_DEBUG)

    @classmethod
    def create(
        cls,
        program: Program,
        weights: Mapping[str, Array],
        manifest: Manifest,
        machine: Machine,
        *,
        dimensions: Mapping[str, int] | None = None,
        sources: Sequence[RunSource] = (),
        texts: Mapping[str, str] | None = None,
    ) -> Package:
        """A package of one program.

        `weights` holds an array for the key of each constant; equal ones are kept once. Of `manifest` the
        variants and members are filled in here, with the values of symbolic `dimensions`. `sources` names
        what each `run` command computes, `texts` are further debug members by file name. Raises
        `VerificationError` for a program that is not right and `InternalError` for parts that do not belong
        together.
        """
        missing = [constant.key for constant in program.constants if constant.key not in weights]
        if missing:
            raise InternalError(f"the program loads {missing[0]!r}, which has no weights", where=manifest.model)
        kept, keeper = share_equal({constant.key: weights[constant.key] for constant in program.constants})
        images = tuple(replace(image, key=keeper[image.key]) for image in program.constants)
        program = replace(program, constants=images)
        verify_program(program, machine)
        debug = {f"{DEBUG}{name}": text.encode() for name, text in (texts or {}).items()}
        report = dict(manifest.report)
        if sources:
            debug[SOURCE_MAP] = to_bytes(source_map_json(sources))
            # Counted here, so that it is known without the debug members too.
            report.setdefault("device_nodes", len({node for run in sources for node in run.onnx_nodes}))
        variant = Variant(dict(dimensions or {}), PROGRAM)
        manifest = replace(manifest, variants=(variant,), members={}, report=report)
        package = cls(manifest, program, kept, machine, debug)
        try:
            _check_parts(package, where=manifest.model)
        except BadPackageError as error:
            raise InternalError(error.what, where=error.where) from error
        return package

    @classmethod
    def open(cls, path: str | Path, machine: Machine | None = None) -> Package:
        """The package in a file, checked from its bytes to its instructions.

        `machine` is needed only for a target that does not come with birc. Raises `BadPackageError` for
        anything that is wrong with the file, and `VerificationError` (one of them) for a program that is
        refused.
        """
        where = os.fspath(path)
        content = _map(Path(path))
        members = read_archive(content, where=where)
        manifest = _read_manifest(content, members, where)
        _check_members(members, manifest, where)
        machine = _machine(manifest, machine, where)
        # Hashing the weights takes longest; it runs beside the verifier.
        with ThreadPoolExecutor(max_workers=1) as pool:
            slow = pool.submit(_check_hash, content, members[WEIGHTS], manifest, where)
            for name, member in members.items():
                if name not in (MANIFEST, WEIGHTS):
                    _check_hash(content, member, manifest, where)
            program = _decode(_data(content, members[PROGRAM]).tobytes(), f"{where}: {PROGRAM}")
            weights = read_weights(_data(content, members[WEIGHTS]), where=f"{where}: {WEIGHTS}")
            debug = {name: _data(content, members[name]).tobytes() for name in members if name.startswith(DEBUG)}
            package = cls(manifest, program, weights, machine, debug)
            _check_parts(package, where=where)
            _verify(program, machine, where)
            slow.result()
        return package

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the package; the same package gives the same bytes.

        Whoever reads the path sees all of it or nothing.

        Raises `UsageError` when the file is there already (and `overwrite` is false) or cannot be written.
        """
        target = Path(path)
        if target.is_dir():
            raise UsageError("is a folder", where=str(path), hint="give the name of a file")
        if target.exists() and not overwrite:
            raise UsageError("exists already", where=str(path), hint="--overwrite, or overwrite=True, replaces it")
        members = self._members()
        records = {
            member.name: MemberRecord(member.num_bytes, _sha256(member.parts), member.crc32) for member in members
        }
        manifest = to_bytes(replace(self.manifest, members=records).to_json())
        members.append(_new_member(MANIFEST, [memoryview(manifest)]))
        with _written_atomically(target) as file:
            write_archive(file, sorted(members, key=lambda member: member.name))

    def _members(self) -> list[NewMember]:
        """All members but the manifest."""
        weights = _new_member(WEIGHTS, weights_image(self.weights), is_aligned=True)
        program = _new_member(PROGRAM, [memoryview(encode_program(self.program))])
        debug = [_new_member(name, [memoryview(data)]) for name, data in self.debug.items()]
        return [weights, program, *debug]

    def without_debug(self) -> Package:
        """The package without its debug members."""
        return replace(self, debug=_NO_DEBUG)

    @property
    def run_sources(self) -> tuple[RunSource, ...]:
        """What each `run` command computes, in text order; empty without debug information."""
        data = self.debug.get(SOURCE_MAP)
        return read_source_map(data, where=f"{self.manifest.model}: {SOURCE_MAP}") if data is not None else ()


def _new_member(name: str, parts: Sequence[memoryview], *, is_aligned: bool = False) -> NewMember:
    crc32 = 0
    for part in parts:
        crc32 = zlib.crc32(part, crc32)
    return NewMember(name, parts, sum(part.nbytes for part in parts), crc32, is_aligned)


def _sha256(parts: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


@contextmanager
def _written_atomically(target: Path) -> Iterator[BinaryIO]:
    """A file that becomes `target` when everything was written, and is removed when something went wrong."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror or error}", where=str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _map(path: Path) -> mmap.mmap:
    """The file's bytes, mapped for reading."""
    where = str(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BadPackageError("is a folder, not a package", where=where)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            raise BadPackageError("is not a file with content", where=where)
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadPackageError(f"cannot be read: {reason}", where=where) from error


def _data(content: mmap.mmap, member: Member) -> Array:
    """The member's bytes in place; read-only."""
    return np.frombuffer(content, np.uint8, member.num_bytes, member.offset)


def _read_manifest(content: mmap.mmap, members: Mapping[str, Member], where: str) -> Manifest:
    member = members.get(MANIFEST)
    if member is None:
        raise BadPackageError(f"has no member {MANIFEST}", where=where)
    if member.num_bytes > _MAX_MANIFEST_BYTES:
        raise BadPackageError(f"{MANIFEST} has {member.num_bytes} bytes, the limit is 256 MiB", where=where)
    data = _data(content, member).tobytes()
    if zlib.crc32(data) != member.crc32:
        raise BadPackageError("is damaged: its CRC-32 does not match", where=f"{where}: {MANIFEST}")
    return read_manifest(read_json(data, where=f"{where}: {MANIFEST}"), where=f"{where}: {MANIFEST}")


def _check_members(members: Mapping[str, Member], manifest: Manifest, where: str) -> None:
    """The archive holds what the manifest lists, in size and CRC-32; only debug members may be missing."""
    for name in members:
        if name != MANIFEST and name not in manifest.members:
            raise BadPackageError(f"has a member {name!r} that its manifest does not list", where=where)
    for name in (PROGRAM, WEIGHTS, *manifest.members):
        member, record = members.get(name), manifest.members.get(name)
        if member is None and name.startswith(DEBUG):
            continue
        if member is None or record is None:
            raise BadPackageError(f"has no member {name!r}", where=where)
        if (member.num_bytes, member.crc32) != (record.num_bytes, record.crc32):
            raise BadPackageError("size or CRC-32 is not what the manifest says", where=f"{where}: {name}")


def _check_hash(content: mmap.mmap, member: Member, manifest: Manifest, where: str) -> None:
    if _sha256([_data(content, member)]) != manifest.members[member.name].sha256:
        what = "is damaged: its SHA-256 is not what the manifest says"
        raise BadPackageError(what, where=f"{where}: {member.name}")


def _decode(data: bytes, where: str) -> Program:
    try:
        return decode_program(data)
    except BadPackageError as error:
        place = f"{where}: {error.where}" if error.where else where
        raise BadPackageError(error.what, where=place, hint=error.hint) from error


def _verify(program: Program, machine: Machine, where: str) -> None:
    try:
        verify_program(program, machine)
    except VerificationError as error:
        error.where = f"{where}: {PROGRAM}"
        raise


def _machine(manifest: Manifest, given: Machine | None, where: str) -> Machine:
    """The machine that the package was compiled for, with the very figures that it was compiled with."""
    try:
        machine = given or load_machine(manifest.target)
    except UsageError as error:
        hint = "give the target's description, as for compiling"
        raise BadPackageError(f"is for the target {manifest.target!r}: {error.what}", where=where, hint=hint) from error
    if machine.digest != manifest.target_digest:
        what = f"was compiled for {manifest.target} {manifest.target_digest[:12]}, here is {machine.name}"
        raise BadPackageError(f"{what} {machine.digest[:12]}", where=where, hint="compile it again")
    return machine


def _check_parts(package: Package, *, where: str) -> None:
    """Manifest, program, weights and debug members belong together."""
    manifest, program = package.manifest, package.program

    def check(holds: bool, what: str) -> None:
        if not holds:
            raise BadPackageError(what, where=where)

    check(
        (program.machine, program.machine_digest) == (manifest.target, manifest.target_digest),
        f"the program is for another target than the manifest's {manifest.target}",
    )
    check(len(manifest.variants) == 1, f"has {len(manifest.variants)} variants, this birc runs packages of one")
    check(manifest.variants[0].program == PROGRAM, f"the program must be {PROGRAM}")
    for side, ports, tensors in (
        ("input", program.inputs, manifest.inputs),
        ("output", program.outputs, manifest.outputs),
    ):
        declared = [(tensor.name, tensor.device_dtype, tensor.shape) for tensor in tensors]
        check(declared == [_signature(port) for port in ports], f"the {side}s of manifest and program differ")
    for image in program.constants:
        array = package.weights.get(image.key)
        check(array is not None, f"has no weights {image.key!r}")
        size = array.nbytes if array is not None else 0
        check(
            size == image.num_bytes,
            f"weights {image.key!r} have {size} bytes, the program loads {image.num_bytes}",
        )
    for name in package.debug:
        check(is_member_name(name), f"{name!r} cannot be the name of a member")


def _signature(port: Port) -> tuple[str, str, tuple[int, ...]]:
    return port.name, port.dtype, port.shape
