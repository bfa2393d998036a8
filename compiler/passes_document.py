"""The document of the phases and of the passes on graphs, made from their docstrings."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from birc.codegen.program_code import generate
from birc.compiler.driver import GRAPH_PASSES, PHASES
from birc.compiler.importer.importer import import_model
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import Pass
from birc.compiler.passes.canonicalize import CANONICALIZE, canonicalize
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.legalize import legalize
from birc.compiler.passes.partition import partition
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.tile import tile
from birc.runtime.errors import InternalError
from birc.runtime.package import Package

_INTRODUCTION: Final = """\
# Phases and passes

Made by `make docs` from the docstrings of the phases and passes; not to be edited. A phase takes the text of
the one before it; `birc compile --dump-ir DIR` writes all of them, and `birc compile DIR/FILE` goes on from
any. A pass is a function from graph to graph; `birc opt FILE --passes NAME,NAME` runs single ones. After each
pass the graph is checked.
"""

# What each phase is done by.
_DONE_BY: Final[dict[str, Any]] = {
    "import": import_model,
    "canonicalize": canonicalize,
    "legalize": legalize,
    "fuse": Fuse,
    "partition": partition,
    "tile": tile,
    "schedule": schedule,
    "allocate": allocate,
    "codegen": generate,
    "assemble": Package.create,
}


def passes_document() -> str:
    """Phases, then passes with an example each, as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    if tuple(_DONE_BY) != PHASES:
        raise InternalError(f"the document describes the phases {', '.join(_DONE_BY)}, there are {PHASES}")
    yield _INTRODUCTION
    yield "## Phases\n"
    yield "| phase | what it gives |"
    yield "|---|---|"
    for phase, function in _DONE_BY.items():
        yield f"| `{phase}` | {_first_paragraph(function)} |"
    yield "\n## Passes on graphs\n"
    order = ", ".join(f"`{step.name}`" for step in CANONICALIZE)
    yield f"`canonicalize` runs {order}, in this order, until nothing changes."
    for step in GRAPH_PASSES:
        yield from _pass_lines(step)


def _pass_lines(step: Pass) -> Iterator[str]:
    """The docstring: prose, then the graphs before and after as text."""
    prose, separator, example = inspect.cleandoc(step.__doc__ or "").partition("\nbefore:")
    yield f"\n### {step.name}\n"
    yield prose.strip()
    if separator:
        yield "\n```"
        yield textwrap.dedent(f"before:{example}").strip()
        yield "```"


def _first_paragraph(function: Any) -> str:
    return " ".join(inspect.cleandoc(function.__doc__ or "").split("\n\n")[0].split())
