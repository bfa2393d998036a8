"""Graphs as files: the text, and the data of the large constants beside it in a safetensors file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.parser import parse_graph
from birc.compiler.ir.printer import external_constants, print_graph
from birc.runtime.dtypes import dtype, from_numpy
from birc.runtime.errors import BadModelError
from birc.runtime.package_weights import STORED_AS_BYTES

_TYPES_KEY: Final = "element_types"
"""The metadata key that says which tensors have element types that safetensors does not know."""


def save_graph(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write the text to `path` and, if there are any, the large constants beside it (suffix .safetensors)."""
    target = Path(path)
    target.write_text(print_graph(graph), encoding="utf-8")
    beside = data_path(target)
    data = {name: np.ascontiguousarray(array) for name, array in external_constants(graph).items()}
    in_bytes = {name: from_numpy(array.dtype).name for name, array in data.items()}
    in_bytes = {name: element for name, element in in_bytes.items() if element in STORED_AS_BYTES}
    data.update((name, data[name].view(np.uint8)) for name in in_bytes)
    if data:
        save_file(data, beside, {_TYPES_KEY: json.dumps(in_bytes)} if in_bytes else None)
    else:
        beside.unlink(missing_ok=True)


def load_graph(path: str | os.PathLike[str]) -> Graph:
    """Read what `save_graph` wrote. Raises `BadModelError` for unreadable files, `TextError` for bad text."""
    source = Path(path)
    beside = data_path(source)
    try:
        text = source.read_text(encoding="utf-8")
        constants = _load_data(beside) if beside.exists() else {}
    except (OSError, ValueError, SafetensorError) as error:
        raise BadModelError(f"cannot be read: {error}", where=str(source)) from error
    return parse_graph(text, constants, str(source))


def _load_data(path: Path) -> dict[str, np.ndarray]:
    with safe_open(path, framework="numpy") as file:
        in_bytes = json.loads((file.metadata() or {}).get(_TYPES_KEY, "{}"))
        data = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    for name, element in in_bytes.items():
        if element in STORED_AS_BYTES and name in data and data[name].dtype == np.uint8:
            data[name] = data[name].view(dtype(element).numpy)
    return data


def data_path(path: Path) -> Path:
    """Where the large constants of the graph text at `path` lie."""
    return path.with_name(path.name.removesuffix(".ir") + ".safetensors")
