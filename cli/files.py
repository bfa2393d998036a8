"""Reading and writing the files that a command line names."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.lib.format import write_array

from birc.runtime.conversion import Array
from birc.runtime.dtypes import DTYPES, dtype
from birc.runtime.errors import UsageError
from birc.runtime.machine import Machine, load_machine
from birc.runtime.package import Package
from birc.runtime.variant import BoundaryTensor

_NUMBERS = frozenset(entry.name for entry in DTYPES)

PackageArgument = Annotated[Path, typer.Argument(metavar="PKG.birc", help="A package made by `birc compile`.")]
TargetFileOption = Annotated[
    Path | None,
    typer.Option("--target-file", metavar="TARGET.toml", help="The target's own description, if birc has none."),
]


def open_package(path: Path, target_file: Path | None = None) -> Package:
    """The package in a file; `target_file` describes its target when that does not come with birc."""
    return Package.open(path, _machine(target_file))


def _machine(target_file: Path | None) -> Machine | None:
    return None if target_file is None else load_machine(target_file)


def read_text(path: Path) -> str:
    """The text in a file. Raises `UsageError` when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UsageError("is not a text", where=str(path)) from error


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a text file. Raises `UsageError` when it is there already (and `overwrite` is false)."""
    refuse_existing(path, overwrite=overwrite)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(path)) from error


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` when there is a file, or a folder, where a result should go."""
    if path.is_dir():
        raise UsageError("is a folder", where=str(path), hint="give the name of a file")
    if path.exists() and not overwrite:
        raise UsageError("exists already", where=str(path), hint="--overwrite replaces it")


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by name. Raises `UsageError` when it is none."""
    hint = 'write it with numpy.savez("inputs.npz", NAME=array, ...)'
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise UsageError("holds one array without a name", where=str(path), hint=hint)
        with content:
            return {name: content[name] for name in content.files}
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError("is not an .npz file of plain arrays", where=str(path), hint=hint) from error


def write_arrays(path: Path, arrays: Mapping[str, Array], *, overwrite: bool) -> None:
    """Write an .npz file. Types that numpy cannot store (bf16, say) are widened to FP32."""
    refuse_existing(path, overwrite=overwrite)
    try:
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                is_plain = array.dtype.isbuiltin == 1 or array.dtype.kind == "U"
                plain = array if is_plain else array.astype(np.float32)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    write_array(member, plain, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(path)) from error


def with_declared_types(arrays: Mapping[str, Array], declared: tuple[BoundaryTensor, ...]) -> dict[str, Array]:
    """The arrays; FP32 ones are narrowed where the model declares a type that .npz files cannot hold."""
    types = {tensor.name: dtype(tensor.dtype).numpy for tensor in declared if tensor.dtype in _NUMBERS}
    return {
        name: array.astype(types[name])
        if name in types and types[name].isbuiltin != 1 and array.dtype == np.float32
        else array
        for name, array in arrays.items()
    }


def random_inputs(declared: tuple[BoundaryTensor, ...], seed: int) -> dict[str, Array]:
    """Inputs of the declared types: floats normally distributed, integers 0 or 1 (good as index and mask)."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for tensor in declared:
        if tensor.dtype not in _NUMBERS or tensor.shape is None or None in tensor.shape:
            what = f"input {tensor.name!r} ({tensor.dtype}) cannot be made up"
            raise UsageError(what, where="--input", hint="give the inputs as an .npz file")
        kind = dtype(tensor.dtype)
        values = rng.standard_normal(tensor.sizes) if kind.is_float else rng.integers(0, 2, tensor.sizes)
        inputs[tensor.name] = np.asarray(values).astype(kind.numpy)
    return inputs
