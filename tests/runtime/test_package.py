"""Packages: fixed bytes, exact reading, and one clear error for everything that is not a package."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
import zlib
from dataclasses import replace
from io import BytesIO

import ml_dtypes
import numpy as np
import packages
import programs
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from birc.runtime import package_weights, package_zip
from birc.runtime.codec import encode_program
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadPackageError, BircError, InternalError, UsageError
from birc.runtime.isa import isa_digest
from birc.runtime.machine import load_machine
from birc.runtime.package import DEBUG, MANIFEST, WEIGHTS, Package
from birc.runtime.package_json import to_bytes
from birc.runtime.verifier import VerificationError

PROGRAM = "programs/0.bin"


@pytest.fixture(scope="module")
def case():
    return packages.gemm_package()


@pytest.fixture(scope="module")
def saved(case, tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "gemm.birc"
    case.package.save(path)
    return path


def refused(path, content: bytes) -> BadPackageError:
    """The error for a file of this content; it names the file in one line."""
    path.write_bytes(content)
    with pytest.raises(BadPackageError) as caught:
        Package.open(path)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 6
    return caught.value


# --- what is written


def test_what_was_saved_is_opened(case, saved):
    opened = Package.open(saved)
    assert opened.program == case.package.program
    assert opened.machine == case.package.machine
    assert opened.manifest == replace(case.package.manifest, members=opened.manifest.members)
    assert opened.debug == case.package.debug
    assert opened.run_sources(PROGRAM) == case.package.run_sources(PROGRAM) != ()
    for key, array in case.package.weights.items():
        assert opened.weights[key].dtype == array.dtype
        np.testing.assert_array_equal(opened.weights[key], array)


def test_the_same_package_gives_the_same_bytes(saved, tmp_path):
    packages.gemm_package().package.save(tmp_path / "again.birc")
    Package.open(saved).save(tmp_path / "reopened.birc")
    assert (tmp_path / "again.birc").read_bytes() == saved.read_bytes()
    assert (tmp_path / "reopened.birc").read_bytes() == saved.read_bytes()


def test_other_tools_read_it(case, saved):
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist())
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        found = dict(safetensors.deserialize(archive.read(WEIGHTS)))
    assert {key for key in found if not key.startswith("padding/")} == case.package.weights.keys()
    for key, array in case.package.weights.items():
        assert tuple(found[key]["shape"]) == array.shape
        assert bytes(found[key]["data"]) == array.tobytes()
    assert found["b"]["dtype"] == "BF16"


def test_the_manifest_says_what_it_must(case, saved):
    with zipfile.ZipFile(saved) as archive:
        manifest = json.loads(archive.read(MANIFEST))
    assert manifest["schema"] == "birc.package/2"
    assert manifest["isa"]["digest"] == isa_digest()
    assert manifest["target"] == {"name": "tiny", "digest": load_machine("tiny").digest}
    assert manifest["members"].keys() == {PROGRAM, WEIGHTS, f"{DEBUG}plan.txt", f"{DEBUG}programs/0.json"}
    (variant,) = manifest["variants"]
    assert variant["inputs"][0] == {"name": "a", "dtype": "f32", "shape": [150, 200], "device_dtype": "bf16"}
    assert variant["dimensions"] == {}
    (step,) = variant["steps"]
    assert step["device"] == PROGRAM
    assert step["entries"] == {"init": "constants", "call": "commands"}
    assert (step["inputs"], step["outputs"]) == (variant["inputs"], variant["outputs"])
    assert manifest["passes"] == ["canonicalize", "fuse"]


def test_tensors_are_mapped_at_whole_blocks(saved):
    opened = Package.open(saved)
    whole = np.memmap(saved, np.uint8, mode="r")
    for array in opened.weights.values():
        assert not array.flags.writeable
        assert not array.flags.owndata
        address = array.__array_interface__["data"][0]
        assert address % package_weights.BLOCK_BYTES == 0
        assert bytes(array.reshape(-1).view(np.uint8)) in bytes(whole)


def test_equal_tensors_are_stored_once():
    same = np.arange(600, dtype=np.float32)
    weights = {"a": same, "b": same.copy(), "c": same.view(np.int32), "d": same.reshape(2, 300), "e": -same}
    kept, keeper = package_weights.share_equal(weights)
    assert keeper == {"a": "a", "b": "a", "c": "c", "d": "d", "e": "e"}
    assert list(kept) == ["a", "c", "d", "e"]


def test_a_program_refers_to_the_tensor_that_was_kept():
    case = programs.command_loop()
    twice = replace(case, inputs={"x": case.inputs["x"], "w": case.inputs["x"]})
    package = packages.package_of(twice, ("x", "w")).package
    assert [image.key for image in package.program.constants] == ["x", "x"]
    assert list(package.weights) == ["x"]


def test_debug_may_be_missing(case, saved, tmp_path):
    """Left out on saving, or taken out by another tool that stores members."""
    ours, theirs = tmp_path / "ours.birc", tmp_path / "theirs.birc"
    case.package.without_debug().save(ours)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(theirs, "w") as target:
        for info in source.infolist():
            if not info.filename.startswith(DEBUG):
                target.writestr(info, source.read(info))
    for path in (ours, theirs):
        opened = Package.open(path)
        assert opened.program == case.package.program
        assert opened.run_sources(PROGRAM) == ()
        np.testing.assert_array_equal(opened.weights["b"], case.package.weights["b"])


# --- saving


def test_saving_refuses_to_overwrite(case, tmp_path):
    path = tmp_path / "x.birc"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        case.package.save(path)
    assert path.read_text() == "mine"
    case.package.save(path, overwrite=True)
    Package.open(path)
    assert os.listdir(tmp_path) == ["x.birc"]


def test_saving_to_a_place_that_cannot_be(case, tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        case.package.save(tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        case.package.save(tmp_path / "nowhere" / "x.birc")


def test_a_failed_save_leaves_nothing(case, tmp_path, monkeypatch):
    path = tmp_path / "x.birc"
    path.write_text("before")

    def fail(file, members):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("birc.runtime.package.write_archive", fail)
    with pytest.raises(UsageError, match="No space left"):
        case.package.save(path, overwrite=True)
    assert os.listdir(tmp_path) == ["x.birc"]
    assert path.read_text() == "before"


def test_parts_that_do_not_belong_together(case):
    package = case.package
    with pytest.raises(InternalError, match="inputs of manifest and program differ"):
        Package.of_program(package.program, package.weights, package.manifest, package.machine, inputs=())
    short = {**package.weights, "bias": package.weights["bias"][:-1]}
    with pytest.raises(InternalError, match="'bias' have 276 bytes"):
        Package.of_program(package.program, short, package.manifest, package.machine)


def test_only_verified_programs_become_packages(case):
    wrong = replace(case.package.program, hbm_bytes=512)
    with pytest.raises(VerificationError):
        Package.of_program(wrong, case.package.weights, case.package.manifest, case.package.machine)


# --- reading what is damaged or hostile


def test_files_that_are_no_packages(tmp_path):
    assert "cannot be read: No such file" in str(refused_path(tmp_path / "missing.birc"))
    assert "is a folder" in str(refused_path(tmp_path))
    assert "not a file with content" in str(refused(tmp_path / "empty.birc", b""))
    assert "does not begin as a zip" in str(refused(tmp_path / "text.birc", b"just a text\n" * 100))
    os.mkfifo(tmp_path / "pipe.birc")
    assert "not a file with content" in str(refused_path(tmp_path / "pipe.birc"))


def refused_path(path) -> BadPackageError:
    with pytest.raises(BadPackageError) as caught:
        Package.open(path)
    return caught.value


def test_any_flipped_byte_is_found(saved, tmp_path):
    """Every byte outside the weights' data and a sample of those inside, one bit each."""
    content = saved.read_bytes()
    rng = np.random.default_rng(0)
    weights = package_zip.read_archive(content, where="")[WEIGHTS]
    outside = [n for n in range(len(content)) if not weights.offset <= n < weights.offset + weights.num_bytes]
    structure = [n for n in outside if n > weights.offset or n < 120]  # directory, end record, a first header
    sample = {*structure, *rng.choice(outside, 150).tolist(), *rng.integers(0, len(content), 50).tolist()}
    for position in sorted(sample):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        refused(tmp_path / "flipped.birc", bytes(damaged))


def test_every_header_byte_is_found_alone(saved):
    """The same, exhaustively, on the archive without any data: headers are checked before hashes."""
    with zipfile.ZipFile(saved) as archive:
        members = {info.filename: archive.read(info)[:3] for info in archive.infolist()}
    new = [
        package_zip.NewMember(name, [memoryview(data)], len(data), 7, is_aligned=name == WEIGHTS)
        for name, data in members.items()
    ]
    file = BytesIO()
    package_zip.write_archive(file, new)
    content = file.getvalue()
    found = package_zip.read_archive(content, where="x")
    data = {place for member in found.values() for place in range(member.offset, member.offset + member.num_bytes)}
    for position in set(range(len(content))) - data:
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            with pytest.raises(BadPackageError):
                package_zip.read_archive(damaged, where="x")


def test_any_truncation_is_found(saved, tmp_path):
    content = saved.read_bytes()
    for length in (1, 4, 21, 22, 30, 100, len(content) // 2, len(content) - 22, len(content) - 1):
        refused(tmp_path / "short.birc", content[:length])
    refused(tmp_path / "long.birc", content + b"\0")
    refused(tmp_path / "prefixed.birc", b"\0" + content)


def rewritten(saved, change, **options) -> bytes:
    """The package's members after `change`, written by zipfile with the original dates."""
    with zipfile.ZipFile(saved) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for info, data in change(members):
            archive.writestr(info, data, **options)
    return file.getvalue()


def test_compressed_members_are_refused(saved, tmp_path):
    bomb = rewritten(saved, lambda members: members.items(), compress_type=zipfile.ZIP_DEFLATED)
    assert "compressed" in str(refused(tmp_path / "bomb.birc", bomb))


@pytest.mark.parametrize("name", [MANIFEST, PROGRAM, WEIGHTS])
def test_missing_members_are_named(saved, tmp_path, name):
    content = rewritten(saved, lambda members: [m for m in members.items() if m[0].filename != name])
    assert name in str(refused(tmp_path / "less.birc", content))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "debug/../../evil", "debug\\evil", ".hidden", "debug//x", ""])
def test_names_that_lead_elsewhere_are_refused(saved, tmp_path, name):
    def add(members):
        info = next(iter(members))
        evil = zipfile.ZipInfo("evil", info.date_time)
        evil.filename = name
        evil.external_attr, evil.create_version, evil.extract_version = info.external_attr, 45, 20
        return [*members.items(), (evil, b"x")]

    refused(tmp_path / "evil.birc", rewritten(saved, add))


def test_members_that_are_not_listed_or_come_twice(saved, tmp_path):
    def add(members):
        info = next(iter(members))
        extra = zipfile.ZipInfo("debug/extra.txt", info.date_time)
        extra.external_attr, extra.create_version = info.external_attr, 45
        return [*members.items(), (extra, b"x")]

    assert "does not list" in str(refused(tmp_path / "more.birc", rewritten(saved, add)))
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = rewritten(saved, lambda members: [*members.items(), *members.items()])
    assert "twice" in str(refused(tmp_path / "twice.birc", twice))


def test_a_size_beyond_the_file_is_refused(saved, tmp_path):
    """The claim of 3 GB is refused by arithmetic, not by reading."""
    content = bytearray(saved.read_bytes())
    for signature, place in ((b"PK\x03\x04", 18), (b"PK\x01\x02", 20)):
        start = content.rindex(signature) + place
        content[start : start + 8] = struct.pack("<2I", 3_000_000_000, 3_000_000_000)
    refused(tmp_path / "claims.birc", bytes(content))


def with_member(saved, name, data: bytes) -> bytes:
    """The package with other data in one member and a manifest that agrees, as a forger would write it."""
    package = Package.open(saved)
    parts = {member.name: b"".join(map(bytes, member.parts)) for member in package._members()}
    parts[name] = data
    return forged(package.manifest.to_json(), parts)


def forged(manifest, parts: dict[str, bytes]) -> bytes:
    records = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "crc32": zlib.crc32(data)}
        for name, data in parts.items()
    }
    parts = {**parts, MANIFEST: to_bytes({**manifest, "members": records})}
    new = [
        package_zip.NewMember(name, [memoryview(data)], len(data), zlib.crc32(data))
        for name, data in sorted(parts.items())
    ]
    file = BytesIO()
    package_zip.write_archive(file, new)
    return file.getvalue()


def test_right_hashes_do_not_make_a_program_right(saved, tmp_path):
    assert PROGRAM in str(refused(tmp_path / "x.birc", with_member(saved, PROGRAM, b"not a program")))
    opened = Package.open(saved)
    wrong = encode_program(replace(opened.program, hbm_bytes=512))
    assert "verifier" in str(refused(tmp_path / "x.birc", with_member(saved, PROGRAM, wrong)))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"b": 1}',
        b'{"b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 15]}}',
        b'{"b": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}',
        b'{"b": {"dtype": "F32", "shape": [-4], "data_offsets": [0, -16]}}',
        b'{"b": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
        b'{"b": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 0]}}',
        b'{"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
        b'{"b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "c": {"dtype": "U8", "shape": [4], '
        b'"data_offsets": [8, 12]}}',
    ],
)
def test_weights_that_are_no_safetensors(saved, tmp_path, header):
    image = len(header).to_bytes(8, "little") + header + bytes(16)
    refused(tmp_path / "x.birc", with_member(saved, WEIGHTS, image))
    refused(tmp_path / "x.birc", with_member(saved, WEIGHTS, (1 << 63).to_bytes(8, "little") + header))


def _manifest_changes():
    def change(*path, to):
        return pytest.param(path, to, id=f"{'.'.join(map(str, path))}={to!r}"[:60])

    return [
        change("schema", to="birc.package/1"),
        change("isa", "digest", to="0" * 64),
        change("isa", "version", to=True),
        change("target", "digest", to="0" * 64),
        change("target", "name", to="br100"),
        change("target", "name", to="../../etc/passwd"),
        change("variants", 0, "inputs", to=[]),
        change("variants", 0, "inputs", 0, "dtype", to="f33"),
        change("variants", 0, "inputs", 0, "shape", to=[150, 201]),
        change("variants", 0, "inputs", 0, "shape", to=None),
        change("variants", 0, "outputs", 0, "name", to="other"),
        change("variants", 0, "dimensions", to={"rows": 151}),
        change("variants", 0, "dimensions", to={"rows": -1}),
        change("variants", 0, "dimensions", to={}),
        change("variants", 0, "padding", to={}),
        change("variants", 0, "padding", to={"rows": "safe", "columns": "safe"}),
        change("variants", 0, "padding", to={"rows": True}),
        change("variants", 0, "axes", to={"x": ["rows", None]}),
        change("variants", 0, "axes", "a", to=["rows"]),
        change("variants", 0, "axes", "a", to=["columns", None]),
        change("variants", 0, "axes", "a", to=[None, "rows"]),
        change("variants", 0, "axes", "a", to=["rows", 1]),
        change("variants", 0, "axes", "a", to="rows"),
        change("variants", 0, "steps", 0, "inputs", 0, "shape", to=[150, None]),
        change("variants", 0, "steps", 0, "outputs", to=[]),
        change("variants", 0, "steps", to=[]),
        change("variants", 0, "steps", 0, to={"host": "host/0.onnx", "nodes": [], "inputs": [], "outputs": []}),
        change("variants", 0, "steps", 0, "device", to="programs/1.bin"),
        change("variants", to=[]),
        change("model", to=None),
        change("passes", to="canonicalize"),
        change("unknown", to=1),
    ]


def with_dimensions(package: Package) -> Package:
    """The package as if the rows of its inputs had been open."""
    first = package.manifest.first
    rows = first.inputs[0].shape[0]
    axes = {first.inputs[0].name: ("rows", None)}
    variant = replace(first, dimensions={"rows": rows}, axes=axes, padding={"rows": "safe"})
    return replace(package, manifest=replace(package.manifest, variants=(variant,)))


@pytest.mark.parametrize(("path", "to"), _manifest_changes())
def test_a_manifest_that_says_otherwise(case, tmp_path, path, to):
    package = with_dimensions(case.package)
    manifest = json.loads(json.dumps(package.manifest.to_json()))
    parts = {member.name: b"".join(map(bytes, member.parts)) for member in package._members()}
    (tmp_path / "right.birc").write_bytes(forged(manifest, parts))
    assert Package.open(tmp_path / "right.birc").manifest.first == package.manifest.first
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    refused(tmp_path / "x.birc", forged(manifest, parts))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_damage_ends_in_our_error_alone(saved, tmp_path_factory, data):
    """Several bytes changed, cut out or put in: refused, or still right (repeated fields changed alike)."""
    content = bytearray(saved.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                content[position] = data.draw(st.integers(0, 255))
            case "cut":
                del content[position : position + data.draw(st.integers(1, 50))]
            case "insert":
                content[position:position] = data.draw(st.binary(max_size=20))
    path = tmp_path_factory.getbasetemp() / "random.birc"
    path.write_bytes(content)
    try:
        opened = Package.open(path)
    except BircError as error:
        assert isinstance(error, BadPackageError)
    else:
        assert opened.program == Package.open(saved).program


# --- the parts below


@pytest.mark.parametrize("word", sorted(package_weights._WORDS))
def test_every_type_round_trips_through_safetensors(word):
    array = np.arange(5).astype(dtype(word).numpy).reshape(5, 1)
    empty = np.zeros((0, 3), dtype(word).numpy)
    scalar = np.ones((), dtype(word).numpy)
    parts = package_weights.weights_image({"x": array, "empty": empty, "scalar": scalar})
    image = np.frombuffer(b"".join(parts), np.uint8)
    assert dict(safetensors.deserialize(image.tobytes()))["x"]["data"] == array.tobytes()
    read = package_weights.read_weights(image, where="x")
    assert list(read) == ["empty", "scalar", "x"]
    for key, wanted in (("x", array), ("empty", empty), ("scalar", scalar)):
        assert read[key].dtype == wanted.dtype
        assert read[key].shape == wanted.shape
        np.testing.assert_array_equal(read[key].astype(np.float64), wanted.astype(np.float64))


def test_broadcast_constants_are_written_whole():
    splat = np.broadcast_to(np.asarray(1.5, ml_dtypes.bfloat16), (3, 700))
    image = np.frombuffer(b"".join(package_weights.weights_image({"splat": splat})), np.uint8)
    np.testing.assert_array_equal(package_weights.read_weights(image, where="x")["splat"], splat)


class SparseFile:
    """Remembers what is written, but not the many bytes of a part that stands for a large one."""

    def __init__(self, path, parts) -> None:
        self.file = path.open("wb")
        self.sizes = dict(parts)

    def write(self, data) -> None:
        jump = self.sizes.get(bytes(data[:8]))
        if jump is None:
            self.file.write(data)
        else:
            self.file.seek(jump, os.SEEK_CUR)


def test_archives_beyond_four_gigabytes(tmp_path):
    """64-bit records, against Python's reader; the file is sparse."""
    large = 5 << 30
    path = tmp_path / "large.zip"
    members = [
        package_zip.NewMember("a.txt", [b"hello"], 5, 0x3610A686),
        package_zip.NewMember("b.bin", [b"a large "], large, 11, is_aligned=True),
        package_zip.NewMember("c.txt", [b"hello"], 5, 0x3610A686),
    ]
    file = SparseFile(path, {b"a large ": large})
    package_zip.write_archive(file, members)
    file.file.close()
    with zipfile.ZipFile(path) as archive:
        assert [info.file_size for info in archive.infolist()] == [5, large, 5]
        assert archive.read("c.txt") == b"hello"
    found = package_zip.read_archive(np.memmap(path, np.uint8, mode="r"), where="x")
    assert [member.num_bytes for member in found.values()] == [5, large, 5]
    assert found["b.bin"].offset % package_zip.ALIGNMENT_BYTES == 0
