"""Access relations and affine conditions as integer sets, for exact answers: the one module that imports islpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Final, ParamSpec, TypeVar

import islpy as isl

from birc.compiler.ir.access import Box, Relations
from birc.compiler.ir.affine import Range
from birc.compiler.ir.plan import Index
from birc.compiler.ir.types import TensorType
from birc.runtime.errors import LimitError

MOST_OPERATIONS: Final = 100_000
"""What isl may put into one question about points or elements."""

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


def access_map(relations: Relations, operand: int, type: TensorType) -> isl.Map:
    """The map from iteration points to the elements of the operand (counted from 0) that they read.

    Points that index outside the operand, of type `type`, map to nothing.
    """
    loops = ", ".join(loop.name for loop in relations.loops)
    indices = ", ".join(relations.reads[operand])
    limits = [f"0 <= {loop.name} < {loop.extent}" for loop in relations.loops]
    limits += [f"0 <= {index} < {size}" for index, size in zip(relations.reads[operand], type.sizes, strict=True)]
    condition = f" : {' and '.join(limits)}" if limits else ""
    return isl.Map(f"{{ [{loops}] -> [{indices}]{condition} }}")


def iteration_set(relations: Relations, box: Box) -> isl.Set:
    """The iteration points that compute the output elements in `box`."""
    ranges = [*box, *((0, loop.extent) for loop in relations.reductions)]
    loops = ", ".join(loop.name for loop in relations.loops)
    limits = " and ".join(
        f"{start} <= {loop.name} < {stop}" for loop, (start, stop) in zip(relations.loops, ranges, strict=True)
    )
    condition = f" : {limits}" if limits else ""
    return isl.Set(f"{{ [{loops}]{condition} }}")


def exact_footprint(relations: Relations, box: Box, types: Sequence[TensorType]) -> tuple[Box | None, ...]:
    """The smallest box of each operand that the output elements in `box` need; None where they need none."""
    points = iteration_set(relations, box)
    return tuple(bounding_box(points.apply(access_map(relations, operand, type))) for operand, type in enumerate(types))


def bounding_box(elements: isl.Set) -> Box | None:
    """The smallest box around a bounded set; None when it is empty."""
    if elements.is_empty():
        return None
    return tuple(
        (int(elements.dim_min_val(dim).to_python()), int(elements.dim_max_val(dim).to_python()) + 1)
        for dim in range(elements.dim(isl.dim_type.set))
    )


def _decided(ask: Callable[_Asked, _Answer]) -> Callable[_Asked, _Answer]:
    """The question with a limit on the work that isl puts into it, counted in its own operations.

    Raises `LimitError` when they are not enough: some sets have answers that nobody can wait for.
    """

    @wraps(ask)
    def limited(*args: _Asked.args, **kwargs: _Asked.kwargs) -> _Answer:
        context = isl.DEFAULT_CONTEXT
        context.reset_operations()
        context.set_max_operations(MOST_OPERATIONS)
        try:
            return ask(*args, **kwargs)
        except isl.Error as error:
            if "maximal number of operations" not in str(error):
                raise
            what = f"cannot be decided within {MOST_OPERATIONS} operations on integer sets"
            raise LimitError(what, hint="the strides of its views are unusual: please report it") from error
        finally:
            context.set_max_operations(0)

    return limited


@dataclass(frozen=True, slots=True, eq=False)
class Elements:
    """A set of elements, each given by as many integer coordinates."""

    _set: isl.Set

    @classmethod
    def image(cls, conditions: Sequence[Range], coordinates: Sequence[Index]) -> Elements:
        """What the coordinates are at all points at which the conditions hold."""
        names = _numbered(conditions, coordinates)
        values = ", ".join(_text(value, names) for value in coordinates)
        return cls(_range(f"{{ [{', '.join(names.values())}] -> [{values}] : {_all(conditions, names)} }}"))

    @classmethod
    def none(cls, rank: int) -> Elements:
        """No element, of `rank` coordinates."""
        return cls(isl.Set(f"{{ [{', '.join(f'v{axis}' for axis in range(rank))}] : false }}"))

    @_decided
    def equals(self, other: Elements) -> bool:
        """Whether both sets have the same elements."""
        return bool(self._set.is_equal(other._set))

    @_decided
    def __bool__(self) -> bool:
        return not self._set.is_empty()

    @_decided
    def __or__(self, other: Elements) -> Elements:
        return Elements(self._set.union(other._set).coalesce())

    @_decided
    def __and__(self, other: Elements) -> Elements:
        return Elements(self._set.intersect(other._set))

    @_decided
    def without(self, axis: int) -> Elements:
        """The elements without one of their coordinates."""
        return Elements(self._set.project_out(isl.dim_type.set, axis, 1))

    @_decided
    def example(self) -> tuple[int, ...] | None:
        """One element; None when there is none."""
        return _example(self._set)

    @_decided
    def example_beyond(self, others: Elements) -> tuple[int, ...] | None:
        """One element that is not one of the others; None when all are."""
        if self._set.is_subset(others._set):
            return None
        return _example(self._set.subtract(others._set))


def example_point(
    conditions: Sequence[Range], alternatives: Sequence[Sequence[Range]] = ((),)
) -> dict[str, int] | None:
    """A point at which all conditions hold, and all of one of the alternatives; None when there is none.

    Its variables are those that occur, in the order in which they do.
    """
    names = _numbered((*conditions, *(item for items in alternatives for item in items)))
    choice = " or ".join(f"({_all(items, names)})" for items in alternatives) or "false"
    found = _example_of(f"{{ [{', '.join(names.values())}] : {_all(conditions, names)} and ({choice}) }}")
    return None if found is None else dict(zip(names, found, strict=True))


@lru_cache(maxsize=1 << 14)
@_decided
def _range(text: str) -> isl.Set:
    """The range of the map that a text says; the same few are asked for again and again."""
    return isl.Map(text).range()


@lru_cache(maxsize=1 << 14)
@_decided
def _example_of(text: str) -> tuple[int, ...] | None:
    """A point of the set that a text says."""
    return _example(isl.Set(text))


def _example(points: isl.Set) -> tuple[int, ...] | None:
    # Not the least one: isl's lexmin is wrongly empty for some sets of several floors.
    if points.is_empty():
        return None
    found = points.sample_point()
    axes = range(points.dim(isl.dim_type.set))
    return tuple(int(found.get_coordinate_val(isl.dim_type.set, axis).to_python()) for axis in axes)


def _numbered(conditions: Iterable[Range], values: Iterable[Index] = ()) -> dict[str, str]:
    """The variables in order of their first use, each with a name that isl can read."""
    found = (name for value in (*(item.value for item in conditions), *values) for name, _ in value.terms)
    return {name: f"v{number}" for number, name in enumerate(dict.fromkeys(found))}


def _text(value: Index, names: dict[str, str]) -> str:
    return " + ".join([*(f"{factor} {names[name]}" for name, factor in value.terms), str(value.constant)])


def _all(conditions: Iterable[Range], names: dict[str, str]) -> str:
    texts = []
    for item in conditions:
        value = _text(item.value, names)
        texts += [f"{item.low} <= {value}"] if item.low is not None else []
        texts += [f"{value} < {item.end}"] if item.end is not None else []
    return " and ".join(texts) or "true"
