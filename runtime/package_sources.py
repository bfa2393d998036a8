"""The source map of a package: what each `run` command computes, by the names that the model gave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from birc.runtime.package_json import Fields, Json, read_json

SOURCE_MAP: Final = "debug/source_map.json"


@dataclass(frozen=True, slots=True)
class RunSource:
    """One `run` command of the stream: the name of its op, and the ONNX nodes that it computes."""

    name: str
    onnx_nodes: tuple[str, ...]


def source_map_json(sources: Iterable[RunSource]) -> Json:
    """The object in the member `SOURCE_MAP`; runs are in the text order of the command stream."""
    return {"runs": [{"name": source.name, "onnx_nodes": list(source.onnx_nodes)} for source in sources]}


def read_source_map(data: bytes, *, where: str) -> tuple[RunSource, ...]:
    """The runs of a source map. Raises `BadPackageError` when it is none."""
    fields = Fields(read_json(data, where=where), where)
    return tuple(RunSource(run.text("name"), run.texts("onnx_nodes")) for run in fields.objects("runs"))
