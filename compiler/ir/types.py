"""The types of values: element type, shape with known or symbolic dimensions, physical layout."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace

from birc.compiler.ir.errors import TypeRuleError, UnknownDimError
from birc.runtime.dtypes import DType

Dim = int | str
"""A dimension: its size, or the symbol that stands for a size not known yet."""

_PLAIN_SYMBOL = re.compile(r"(?!(?:inf|nan)\Z)[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class TensorType:
    """The type of a tensor: `shape` is logical, `layout` says how it lies in memory.

    `layout` is the physical order of the logical dimensions, outermost first: a logical NCHW tensor that lies
    as NHWC has `(0, 2, 3, 1)`. None is row-major; the identity order is turned into None, so that equal types
    compare equal.
    """

    dtype: DType
    shape: tuple[Dim, ...]
    layout: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        for size in self.shape:
            if (isinstance(size, int) and size < 0) or size == "":
                raise TypeRuleError(f"{size!r} is not a dimension", hint="a size of at least 0 or a symbol")
        if self.layout is None:
            return
        if sorted(self.layout) != list(range(self.rank)):
            raise TypeRuleError(
                f"layout {self.layout} does not order the dimensions of {list(self.shape)}",
                hint=f"each of 0..{self.rank - 1} once",
            )
        identity = all(place == dim for place, dim in enumerate(self.layout))
        object.__setattr__(self, "layout", None if identity else tuple(self.layout))

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        """Whether every dimension has a size."""
        return all(isinstance(size, int) for size in self.shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape as numbers. Raises `TypeRuleError` when a dimension is still a symbol."""
        known = tuple(size for size in self.shape if isinstance(size, int))
        if len(known) != len(self.shape):
            raise UnknownDimError(next(size for size in self.shape if isinstance(size, str)))
        return known

    @property
    def num_elements(self) -> int:
        """The number of elements. Raises `TypeRuleError` when a dimension is still a symbol."""
        return math.prod(self.sizes)

    @property
    def num_bytes(self) -> int:
        """The bytes of the packed elements. Raises `TypeRuleError` when a dimension is still a symbol."""
        return self.dtype.bytes_for(self.num_elements)

    @property
    def logical(self) -> TensorType:
        """The same type without its layout: what type rules speak about."""
        return self if self.layout is None else replace(self, layout=None)

    def with_shape(self, shape: tuple[Dim, ...]) -> TensorType:
        """The row-major type of the same elements in another shape."""
        return TensorType(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        """The row-major type of the same shape with other elements."""
        return TensorType(dtype, self.shape)

    def with_layout(self, layout: tuple[int, ...] | None) -> TensorType:
        return replace(self, layout=layout)

    def __str__(self) -> str:
        dims = ",".join(_dim_text(size) for size in self.shape)
        order = "" if self.layout is None else "{" + ",".join(map(str, self.layout)) + "}"
        return f"{self.dtype.name}[{dims}]{order}"


def _dim_text(size: Dim) -> str:
    if isinstance(size, int):
        return str(size)
    return size if _PLAIN_SYMBOL.match(size) else json.dumps(size)
