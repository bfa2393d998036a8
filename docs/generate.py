"""Writes the documents that are made from tables; `--check` only says which are out of date."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from birc.compiler.importer.operators_document import operators_document
from birc.compiler.ir.ops_document import ops_document
from birc.compiler.passes_document import passes_document
from birc.compiler.types_document import types_document
from birc.runtime.isa_document import isa_document

FOLDER = Path(__file__).parent


def conformance() -> str:
    """The document of the results that the conformance suite left."""
    sys.path.append(str(FOLDER.parent / "tests" / "conformance"))
    return str(import_module("conformance_document").conformance_document())


DOCUMENTS: dict[str, Callable[[], str]] = {
    "conformance.md": conformance,
    "isa.md": isa_document,
    "ops.md": operators_document,
    "passes.md": passes_document,
    "rows.md": ops_document,
    "types.md": types_document,
}


def stale() -> list[str]:
    """The names of the documents that are missing or differ from their tables."""
    return [
        name
        for name, document in DOCUMENTS.items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != document()
    ]


def main() -> int:
    """Write what is out of date, or with `--check` only name it; 1 when something was named."""
    names = stale()
    if "--check" in sys.argv[1:]:
        for name in names:
            print(f"docs/{name} is out of date: make docs")
        return int(bool(names))
    for name in names:
        (FOLDER / name).write_text(DOCUMENTS[name](), encoding="utf-8")
        print(f"docs/{name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
