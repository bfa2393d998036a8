"""What no value of a model may exceed, whatever its shape claims: nothing is allocated for a claim."""

from __future__ import annotations

from typing import Final

from birc.compiler.ir.types import TensorType
from birc.runtime.errors import BadModelError

MOST_RANK: Final = 64
"""Dimensions of a value; numpy has no more."""

MOST_VALUE_BYTES: Final = 2**40
"""Of one value. No machine that is described holds as much: what is below may still not fit the target."""


def check_value_size(type: TensorType, where: str) -> None:
    """Raises `BadModelError` for a value that no machine holds."""
    if type.rank > MOST_RANK:
        raise BadModelError(f"a value of {type.rank} dimensions, the limit is {MOST_RANK}", where=where)
    if type.is_static and type.num_bytes > MOST_VALUE_BYTES:
        what = f"a value of shape {list(type.shape)} takes {type.num_bytes} bytes, the limit is {MOST_VALUE_BYTES}"
        raise BadModelError(what, where=where)
