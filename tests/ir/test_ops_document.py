"""The document of the operator table names every row and what it takes."""

from __future__ import annotations

from birc.compiler.ir.ops_document import ops_document
from birc.compiler.ir.table import OPS


def test_every_row_has_a_complete_line() -> None:
    lines = {line.split("`")[1]: line for line in ops_document().splitlines() if line.startswith("| `")}
    assert lines.keys() == {entry.name for entry in OPS}
    for entry in OPS:
        line = lines[entry.name]
        cells = [cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")]
        assert len(cells) == 6
        assert all(cells[:3]) and all(cells[4:])
        assert all(f"`{name}`" in cells[3] for name in entry.attributes)


def test_same_text_every_time() -> None:
    assert ops_document() == ops_document()
