"""The document of the operator table, made from its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from birc.compiler.ir.attributes import Attribute, Required
from birc.compiler.ir.op import Category, OpRow
from birc.compiler.ir.printer import attribute_text
from birc.compiler.ir.table import OPS

_INTRODUCTION = """\
# The ops of the graph IR

Made by `make docs` from the operator table; not to be edited. Inputs: `bias?` may be absent, `xs*` is one or
more. Loops: one parallel loop a dimension of the output, then the reduction loops; a star stands for several.
Reads: the index of the element of each input that one iteration needs; outside of the input nothing is read.
"""


def ops_document() -> str:
    """All rows as Markdown: a table for each category."""
    return "\n".join([_INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for category in get_args(Category):
        rows = [entry for entry in OPS if entry.category == category]
        yield f"## {category} ({len(rows)})\n"
        yield "| op | meaning | inputs | attributes | loops | reads |"
        yield "|---|---|---|---|---|---|"
        yield from (_line(entry) for entry in rows)
        yield ""


def _line(entry: OpRow) -> str:
    meaning = entry.doc + (" Which elements are read depends on data." if entry.data_dependent else "")
    meaning += " In FP32 whatever the precision." if entry.in_f32 else ""
    cells = (
        f"`{entry.name}`",
        meaning,
        f"`{entry.inputs}`",
        "<br>".join(_attribute(name, item) for name, item in entry.attributes.items()),
        f"`{entry.loops}`",
        _reads(entry),
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _attribute(name: str, attribute: Attribute) -> str:
    kind = " or ".join(f'"{choice}"' for choice in attribute.choices) or attribute.kind
    counted = f"{kind}[{attribute.length}]" if attribute.length is not None else kind
    default = "" if isinstance(attribute.default, Required) else f" = {attribute_text(attribute.default)}"
    return f"`{name}`: {counted}{default}, {attribute.doc}"


def _reads(entry: OpRow) -> str:
    if isinstance(entry.access, Mapping):
        return "<br>".join(f"{name}: `{index}`" for name, index in entry.access.items())
    return " ".join((entry.access.__doc__ or "").split())
