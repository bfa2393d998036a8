"""The package `NAME.birc`: a compiled model as one file, written atomically and read without trust.

A zip of stored members: `manifest.json`, `programs/K.bin` (the instruction streams, most often one), `host/K.onnx`
(sub-models that the host runs), `weights.safetensors` (the constants of all programs, mapped into memory, never copied
on loading) and `debug/` (texts and names; may be missing).
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
from birc.runtime.manifest import Manifest, MemberRecord, read_manifest
from birc.runtime.package_json import read_json, to_bytes
from birc.runtime.package_parts import HOST, PROGRAMS, NewVariant, Parts, assembled, check_parts, one_program
from birc.runtime.package_sources import RunSource, read_source_map, source_map_member
from birc.runtime.package_weights import Array, read_weights, weights_image
from birc.runtime.package_zip import Member, NewMember, is_member_name, read_archive, write_archive
from birc.runtime.program import Program
from birc.runtime.variant import BoundaryTensor
from birc.runtime.verifier import VerificationError, verify_program

MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "weights.safetensors"
DEBUG: Final = "debug/"

_MAX_MANIFEST_BYTES: Final = 1 << 28
_NO_DEBUG: Final[Mapping[str, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Package:
    """Verified programs with their constants, the host's sub-models, and what is known about them.

    Made by `create`, `of_program` or `open`, all of which run the verifier. `programs` and `host_models` are by
    member; `weights` by `ConstantImage.key`, read-only when the package was opened from a file. `debug` are the debug
    members by their whole name; nothing in them changes a value or a figure.
    """

    manifest: Manifest
    programs: Mapping[str, Program]
    weights: Mapping[str, Array]
    machine: Machine
    host_models: Mapping[str, bytes] = field(default_factory=lambda: _NO_DEBUG)
    debug: Mapping[str, bytes] = field(default_factory=lambda: _NO_DEBUG)

    @classmethod
    def create(
        cls,
        variants: Sequence[NewVariant],
        manifest: Manifest,
        machine: Machine,
        *,
        texts: Mapping[str, str] | None = None,
    ) -> Package:
        """A package of these variants; those of `manifest`, and its members, are filled in here.

        Equal weights are kept once. `texts` are further debug members by file name. Raises `VerificationError` for a
        program that is not right and `InternalError` for parts that do not belong together.
        """
        parts = assembled(variants, manifest.model)
        for program in parts.programs.values():
            verify_program(program, machine)
        debug = {**{f"{DEBUG}{name}": text.encode() for name, text in (texts or {}).items()}, **parts.source_maps}
        manifest = replace(manifest, variants=parts.variants, members={})
        package = cls(manifest, parts.programs, parts.weights, machine, parts.host_models, debug)
        try:
            package._check(where=manifest.model)
        except BadPackageError as error:
            raise InternalError(error.what, where=error.where) from error
        return package

    @classmethod
    def of_program(
        cls,
        program: Program,
        weights: Mapping[str, Array],
        manifest: Manifest,
        machine: Machine,
        *,
        inputs: Sequence[BoundaryTensor] | None = None,
        outputs: Sequence[BoundaryTensor] | None = None,
        sources: Sequence[RunSource] = (),
        texts: Mapping[str, str] | None = None,
    ) -> Package:
        """A package of one program. Without `inputs` and `outputs` the model's types are those on the device.

        Raises as `create`.
        """
        return cls.create([one_program(program, weights, inputs, outputs, sources)], manifest, machine, texts=texts)

    @property
    def program(self) -> Program:
        """The program of a package that has one alone. Raises `UsageError` for another."""
        if len(self.programs) != 1:
            what = f"has {len(self.programs)} programs, not one"
            raise UsageError(what, where=self.manifest.model, hint="birc inspect lists its steps")
        return next(iter(self.programs.values()))

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

            def content_of(folder: str) -> dict[str, bytes]:
                return {name: _data(content, members[name]).tobytes() for name in members if name.startswith(folder)}

            encoded = content_of(PROGRAMS)
            programs = {name: _decode(data, f"{where}: {name}") for name, data in encoded.items()}
            weights = read_weights(_data(content, members[WEIGHTS]), where=f"{where}: {WEIGHTS}")
            package = cls(manifest, programs, weights, machine, content_of(HOST), content_of(DEBUG))
            package._check(where=where)
            for name, program in programs.items():
                _verify(program, machine, f"{where}: {name}")
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
        programs = [_new_member(name, [memoryview(encode_program(program))]) for name, program in self.programs.items()]
        others = {**self.host_models, **self.debug}
        return [weights, *programs, *(_new_member(name, [memoryview(data)]) for name, data in others.items())]

    def without_debug(self) -> Package:
        """The package without its debug members."""
        return replace(self, debug=_NO_DEBUG)

    def run_sources(self, program: str) -> tuple[RunSource, ...]:
        """What each `run` command of the program in a member computes, in text order; empty without debug
        information."""
        member = source_map_member(program)
        data = self.debug.get(member)
        return read_source_map(data, where=f"{self.manifest.model}: {member}") if data is not None else ()

    def _check(self, *, where: str) -> None:
        manifest = self.manifest
        parts = Parts(manifest.variants, self.programs, self.weights, self.host_models)
        check_parts(parts, manifest.target, manifest.target_digest, where=where)
        for name in self.debug:
            if not is_member_name(name):
                raise BadPackageError(f"{name!r} cannot be the name of a member", where=where)


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
    steps = [step.member for variant in manifest.variants for step in variant.steps]
    for name in dict.fromkeys((*steps, WEIGHTS, *manifest.members)):
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
        error.where = where
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
