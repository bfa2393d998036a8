"""Values of the graph under construction as terms of Python's arithmetic.

A formula that is written once in `+ - * /`, comparisons and the functions of this file can be evaluated now, on
numpy arrays, or become rows of the graph, on a `Term`; numbers and arrays beside a term become constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.ir.attributes import AttributeValue
from birc.runtime.dtypes import DType, dtype

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A value of the graph. Operators emit rows; both sides must be of one element type, shapes broadcast."""

    build: GraphBuilder
    name: str

    __array_ufunc__: ClassVar[None] = None  # so that an array on the left leaves the operator to the term

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.build.shape(self.name)

    @property
    def dtype(self) -> DType:
        """The element type of the value."""
        return self.build.type_of(self.name).dtype

    def __add__(self, other: Operand) -> Term:
        return self._with("add", other)

    def __radd__(self, other: Operand) -> Term:
        return self._with("add", other)

    def __sub__(self, other: Operand) -> Term:
        return self._with("sub", other)

    def __rsub__(self, other: Operand) -> Term:
        return self._like(other)._with("sub", self)

    def __mul__(self, other: Operand) -> Term:
        return self._with("mul", other)

    def __rmul__(self, other: Operand) -> Term:
        return self._with("mul", other)

    def __truediv__(self, other: Operand) -> Term:
        return self._with("div", other)

    def __neg__(self) -> Term:
        return self.row("neg")

    def __lt__(self, other: Operand) -> Term:
        return self._with("less", other)

    def __le__(self, other: Operand) -> Term:
        return self._with("less_equal", other)

    def __gt__(self, other: Operand) -> Term:
        return self._with("greater", other)

    def __ge__(self, other: Operand) -> Term:
        return self._with("greater_equal", other)

    def __and__(self, other: Operand) -> Term:
        return self._with("and", other)

    def __or__(self, other: Operand) -> Term:
        return self._with("or", other)

    def equals(self, other: Operand) -> Term:
        """Where both are equal. Not `==`, which stays the identity of terms."""
        return self._with("equal", other)

    def row(self, op: str, **attributes: AttributeValue) -> Term:
        """A core row of one input applied to this."""
        return Term(self.build, self.build.emit(op, (self.name,), attributes))

    def to(self, kind: str) -> Term:
        """The same values in the element type called `kind`; floats truncate to integers."""
        return self if self.dtype.name == kind else self.row("cast", to=dtype(kind))

    def reshape(self, *shape: int) -> Term:
        """The elements in row-major order in another shape."""
        return self if self.shape == shape else self.row("reshape", shape=shape)

    def transpose(self, *perm: int) -> Term:
        """Dimension i of the result is dimension perm[i]."""
        return self if perm == tuple(range(len(perm))) else self.row("transpose", perm=perm)

    def part(self, axis: int, start: int, end: int) -> Term:
        """Elements `start` to `end` (excluded) of one axis."""
        shape = self.shape
        if (start, end) == (0, shape[axis]):
            return self
        starts = tuple(start if place == axis else 0 for place in range(len(shape)))
        ends = tuple(end if place == axis else size for place, size in enumerate(shape))
        return self.row("slice", starts=starts, ends=ends, steps=(1,) * len(shape))

    def at(self, axis: int, position: int) -> Term:
        """The elements at one position of an axis, which goes."""
        kept = self.part(axis, position, position + 1)
        return kept.reshape(*self.shape[:axis], *self.shape[axis + 1 :])

    def gather(self, indices: Operand, axis: int = 0) -> Term:
        """The slices along `axis` that the indices name."""
        named = indices if isinstance(indices, Term) else constant(self.build, np.asarray(indices, np.int32))
        return Term(self.build, self.build.emit("gather", (self.name, named.name), {"axis": axis}))

    def reduce(self, op: str, *axes: int, keep: bool = False) -> Term:
        """A reduction (`reduce_sum`, `reduce_max`, ...) over the axes."""
        return self.row(op, axes=axes, keepdims=int(keep))

    def within(self, low: float, high: float) -> Term:
        """Held between two numbers."""
        return self._with("maximum", low)._with("minimum", high)

    def at_least(self, low: Operand) -> Term:
        """The larger of both."""
        return self._with("maximum", low)

    def at_most(self, high: Operand) -> Term:
        """The smaller of both."""
        return self._with("minimum", high)

    def _with(self, op: str, other: Operand) -> Term:
        return Term(self.build, self.build.emit(op, (self.name, self._like(other).name)))

    def _like(self, other: Operand) -> Term:
        if isinstance(other, Term):
            return other
        return constant(self.build, np.asarray(other).astype(self.dtype.numpy))


Operand = Term | Array | np.generic | float
Number = Term | Array
"""What a formula is made of: an FP32 array when it is known now, else a term."""


def constant(build: GraphBuilder, data: Array) -> Term:
    """A constant as a term."""
    return Term(build, build.constant(data))


def as_term(build: GraphBuilder, value: Number) -> Term:
    """The value as a term: an array becomes a constant."""
    return value if isinstance(value, Term) else constant(build, value)


def where(condition: Number, chosen: Operand, other: Operand) -> Number:
    """`chosen` where the condition holds, else `other`."""
    terms = [value for value in (chosen, other, condition) if isinstance(value, Term)]
    if not terms:
        return np.where(np.asarray(condition), np.asarray(chosen), np.asarray(other))
    build = terms[0].build
    like = next((value for value in terms if value is not condition), None)
    kind = np.float32 if like is None else like.dtype.numpy
    names = [
        value.name if isinstance(value, Term) else build.constant(np.asarray(value).astype(wanted))
        for value, wanted in ((condition, np.bool_), (chosen, kind), (other, kind))
    ]
    return Term(build, build.emit("where", names))


def lies_within(value: Number, low: float, high: float) -> Number:
    """Whether low <= value <= high, element by element."""
    if isinstance(value, Term):
        return (value >= low) & (value <= high)
    return np.asarray((value >= np.float32(low)) & (value <= np.float32(high)))


def _function(op: str, known: Callable[[Array], Array]) -> Callable[[Number], Number]:
    def apply(value: Number) -> Number:
        return value.row(op) if isinstance(value, Term) else known(value)

    return apply


floor: Final = _function("floor", np.floor)
ceil: Final = _function("ceil", np.ceil)
magnitude: Final = _function("abs", np.abs)


def larger(value: Number, other: Number | float) -> Number:
    """The larger of both, element by element."""
    if isinstance(value, Term):
        return value.at_least(other)
    return other.at_least(value) if isinstance(other, Term) else np.maximum(value, np.float32(other))


def smaller(value: Number, other: Number | float) -> Number:
    """The smaller of both, element by element."""
    if isinstance(value, Term):
        return value.at_most(other)
    return other.at_most(value) if isinstance(other, Term) else np.minimum(value, np.float32(other))


def quotient(value: Number, divisor: Number) -> Number:
    """value / divisor, rounded to nearest: what is a whole number comes out as one."""
    if isinstance(value, Term):
        return value / divisor
    if isinstance(divisor, Term):
        return as_term(divisor.build, value.astype(np.float32)) / divisor
    return np.asarray(value / divisor)


def stacked(parts: Sequence[Term], axis: int) -> Term:
    """The parts one after the other along a new axis."""
    build = parts[0].build
    shape = parts[0].shape
    place = axis if axis >= 0 else axis + len(shape) + 1
    lined = [part.reshape(*shape[:place], 1, *shape[place:]).name for part in parts]
    return Term(build, build.emit("concat", lined, {"axis": place}))
