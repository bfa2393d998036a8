"""The operator table: the rows of every family, in one list."""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import Final

from birc.compiler.ir.errors import TypeRuleError
from birc.compiler.ir.op import OpRow
from birc.compiler.ir.ops import (
    bitwise,
    casts,
    contraction,
    elementwise,
    index,
    moments,
    normalization,
    pool,
    quantization,
    reduction,
    rotation,
    shape,
)

OPS: Final[tuple[OpRow, ...]] = (
    *elementwise.ROWS,
    *bitwise.ROWS,
    *casts.ROWS,
    *quantization.ROWS,
    *contraction.ROWS,
    *pool.ROWS,
    *normalization.ROWS,
    *moments.ROWS,
    *reduction.ROWS,
    *rotation.ROWS,
    *shape.ROWS,
    *index.ROWS,
)

_BY_NAME: Final = MappingProxyType({entry.name: entry for entry in OPS})


def row(name: str) -> OpRow:
    """The row of the op called `name`. Raises `TypeRuleError`, with the nearest names, when there is none."""
    found = _BY_NAME.get(name)
    if found is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see the list of ops: birc ops"
        raise TypeRuleError(f"there is no op {name!r}", hint=hint)
    return found


def has_row(name: str) -> bool:
    return name in _BY_NAME
