"""Which variant of a package runs for some inputs, and what is added to them and taken away from the outputs.

The variant whose shapes are the inputs' own comes first; else the smallest that all inputs fit into, if the compiler
found it safe to pad every dimension that is smaller (`Variant.padding`). Padding repeats the last element: what is
added asks the machine for nothing that was not asked for already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from birc.runtime.conversion import Array
from birc.runtime.errors import UsageError
from birc.runtime.variant import SAFE, BoundaryTensor, Variant

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """How a call was run: the number of the variant in the package, its dimensions, and what was padded.

    `padded` has, by dimension, the size of the inputs and the size that they were padded to.
    """

    variant: int
    dimensions: Mapping[str, int]
    padded: Mapping[str, tuple[int, int]]


def choose(variants: Sequence[Variant], shapes: Shapes) -> RunInfo | None:
    """The variant for inputs of these shapes; None when they are wrong in more than the size of a dimension.

    Raises `UsageError` when no variant is large enough, or padding would change the outputs: with the input, its
    shape, the variants there are, and the node that mixes elements along the dimension.
    """
    for number, variant in enumerate(variants):
        if all(_agrees(shapes[tensor.name], tensor.shape) for tensor in variant.inputs if tensor.name in shapes):
            return RunInfo(number, variant.dimensions, {})
    asked = _asked(variants[0], shapes)
    if not asked:
        return None
    order = sorted(range(len(variants)), key=lambda number: (math.prod(variants[number].dimensions.values()), number))
    fitting = [number for number in order if _fits(asked, variants[number])]
    for number in fitting:
        variant = variants[number]
        smaller = {name: (size, variant.dimensions[name]) for name, size in asked.items()}
        padded = {name: sizes for name, sizes in smaller.items() if sizes[0] != sizes[1]}
        if all(variant.padding.get(name) == SAFE for name in padded):
            return RunInfo(number, variant.dimensions, padded)
    raise _refusal(variants, shapes, asked, variants[fitting[0]] if fitting else None)


def _agrees(shape: Sequence[int], declared: Sequence[int | None] | None) -> bool:
    if declared is None:
        return True
    pairs = zip(shape, declared, strict=False)
    return len(shape) == len(declared) and all(wanted in (None, size) for size, wanted in pairs)


def _asked(variant: Variant, shapes: Shapes) -> dict[str, int]:
    """The sizes of the dimensions that the inputs have; none when another axis, or the rank, is wrong."""
    asked: dict[str, tuple[int, str]] = {}
    for tensor in variant.inputs:
        shape = shapes.get(tensor.name)
        if shape is None or tensor.shape is None:
            continue
        axes = variant.axes.get(tensor.name, (None,) * len(tensor.shape))
        expected = [None if axis else size for axis, size in zip(axes, tensor.shape, strict=True)]
        if not _agrees(shape, expected):
            return {}
        for axis, size in zip(axes, shape, strict=True):
            if axis is None:
                continue
            other, holder = asked.setdefault(axis, (size, tensor.name))
            if other != size:
                raise UsageError(f"dimension {axis!r} is {other} in input {holder!r} and {size} in {tensor.name!r}")
    return {name: size for name, (size, _) in asked.items()}


def _fits(asked: Mapping[str, int], variant: Variant) -> bool:
    return all(1 <= size <= variant.dimensions[name] for name, size in asked.items())


def _refusal(
    variants: Sequence[Variant], shapes: Shapes, asked: Mapping[str, int], fitting: Variant | None
) -> UsageError:
    """The error for sizes that no variant has, the smallest of those that they fit into being `fitting`."""
    wrong = [name for name in asked if all(variant.dimensions[name] < asked[name] for variant in variants)]
    if fitting is not None:
        wrong = [name for name in asked if asked[name] != fitting.dimensions[name] and fitting.padding[name] != SAFE]
    name = (wrong or list(asked))[0]
    holder = next(tensor.name for tensor in variants[0].inputs if name in variants[0].axes.get(tensor.name, ()))
    given = ",".join(map(str, shapes[holder]))
    there = "; ".join(variant.label for variant in variants)
    reason = f"and {name} cannot be padded: {fitting.padding[name]}" if fitting else f"none holds {_sizes_text(asked)}"
    what = f"input {holder!r} has the shape [{given}], there {'is' if len(variants) == 1 else 'are'} {there}, {reason}"
    return UsageError(what, hint=f"compile the model for {_sizes_text(asked)} too")


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def sized_inputs(variant: Variant, sizes: Mapping[str, int]) -> tuple[BoundaryTensor, ...]:
    """The inputs with other sizes of the dimensions. Raises `UsageError` for a dimension that there is not."""
    unknown = sorted(sizes.keys() - variant.dimensions.keys())
    if unknown:
        hint = f"there is {', '.join(variant.dimensions)}" if variant.dimensions else "all sizes are fixed"
        raise UsageError(f"no input has a dimension {unknown[0]!r}", hint=hint)
    return tuple(_sized(tensor, variant.axes.get(tensor.name), sizes) for tensor in variant.inputs)


def _sized(tensor: BoundaryTensor, axes: Sequence[str | None] | None, sizes: Mapping[str, int]) -> BoundaryTensor:
    if axes is None or tensor.shape is None:
        return tensor
    shape = (sizes.get(axis, size) if axis else size for axis, size in zip(axes, tensor.shape, strict=True))
    return replace(tensor, shape=tuple(shape))


def padded_inputs(values: Mapping[str, Any], variant: Variant, info: RunInfo) -> dict[str, Any]:
    """The inputs with their last elements repeated up to the sizes of the variant."""
    result = dict(values)
    for tensor in variant.inputs:
        axes = variant.axes.get(tensor.name, ())
        if any(axis in info.padded for axis in axes):
            array = np.asarray(values[tensor.name])
            missing = [info.padded.get(axis, (0, 0)) if axis else (0, 0) for axis in axes]
            result[tensor.name] = np.pad(array, [(0, most - size) for size, most in missing], mode="edge")
    return result


def cropped_output(name: str, values: Array, variant: Variant, info: RunInfo) -> Array:
    """The part of an output that the inputs had before they were padded."""
    kept = [slice(None)] * values.ndim
    for place, axis in enumerate(variant.axes.get(name, ())):
        if axis is not None and axis in info.padded:
            size, most = info.padded[axis]
            kept[place] = slice(values.shape[place] // most * size)
    return np.ascontiguousarray(values[tuple(kept)])
