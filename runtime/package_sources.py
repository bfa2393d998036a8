"""The source map of a package: what each `run` command computes, by the names that the model gave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from birc.runtime.package_json import Fields, Json, read_json

_FOLDER: Final = "debug/"


def source_map_member(program: str) -> str:
    """The member that maps the runs of the program in member `program`: debug/programs/0.json for
    programs/0.bin."""
    return f"{_FOLDER}{program.removesuffix('.bin')}.json"


@dataclass(frozen=True, slots=True)
class RunSource:
    """One `run` command of the stream: the name of its op, and the ONNX nodes that it computes."""

    name: str
    onnx_nodes: tuple[str, ...]


def source_map_json(sources: Iterable[RunSource]) -> Json:
    """The object in such a member; runs are in the text order of the command stream."""
    return {"runs": [{"name": source.name, "onnx_nodes": list(source.onnx_nodes)} for source in sources]}


def read_source_map(data: bytes, *, where: str) -> tuple[RunSource, ...]:
    """The runs of a source map. Raises `BadPackageError` when it is none."""
    fields = Fields(read_json(data, where=where), where)
    return tuple(RunSource(run.text("name"), run.texts("onnx_nodes")) for run in fields.objects("runs"))
