"""How names and numbers are spelt in the text form: what printer and parser must agree on."""

from __future__ import annotations

import json
import math
import re
from typing import Final

import numpy as np

from birc.runtime.dtypes import DType

VALUE_NAME: Final = r"[A-Za-z0-9_./$-]+(?::[A-Za-z0-9_./$-]+)*"
WORD: Final = r"[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*"

_PLAIN_VALUE_NAME: Final = re.compile(VALUE_NAME + r"\Z")
_PLAIN_WORD: Final = re.compile(r"(?!(?:inf|nan)\Z)" + WORD + r"\Z")  # inf and nan are read as numbers

INLINE_LIMIT: Final = 16
"""Constants of at most this many elements stand in the text; larger ones lie beside it."""


def quoted(text: str) -> str:
    return json.dumps(text)


def value_text(name: str) -> str:
    """`%name`, quoted when it has characters that a plain name cannot have."""
    return f"%{name}" if _PLAIN_VALUE_NAME.match(name) else f"%{quoted(name)}"


def word_text(word: str) -> str:
    """A bare word, quoted when it is not one."""
    return word if _PLAIN_WORD.match(word) else quoted(word)


def element_text(value: np.generic, dtype: DType) -> str:
    """One element so that `element_of` gives back the same bits."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    if dtype.kind != "float":
        return str(int(value))
    number = float(value)
    if not math.isnan(number):
        return repr(number)
    bits = bits_of(np.asarray(value))
    return "nan" if bits == bits_of(np.asarray(math.nan).astype(dtype.numpy)) else f"bits({bits:#x})"


def bits_of(value: np.ndarray) -> int:
    """The bit pattern of one element."""
    return int.from_bytes(value.tobytes(), "little")


def element_from_bits(bits: int, dtype: DType) -> np.ndarray:
    """The element with this bit pattern. Raises `OverflowError` when it is too long."""
    return np.frombuffer(bits.to_bytes(dtype.numpy.itemsize, "little"), dtype.numpy)[0]
