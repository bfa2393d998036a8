"""Whether the variants of a package belong together, and whether what they say of their dimensions can be."""

from __future__ import annotations

from collections.abc import Sequence

from birc.runtime.errors import BadPackageError
from birc.runtime.variant import SAFE, BoundaryTensor, Variant


def check_variants(variants: Sequence[Variant], *, where: str) -> None:
    """Raise `BadPackageError` unless all variants are one model for different sizes of the same dimensions."""
    first = variants[0]
    known: set[tuple[int, ...]] = set()
    for variant in variants:
        place = f"{where}: variant {variant.label}" if variant.label else where
        if variant.dimensions.keys() != first.dimensions.keys():
            raise BadPackageError("has other dimensions than the first variant", where=place)
        sizes = tuple(variant.dimensions[name] for name in first.dimensions)
        if sizes in known:
            raise BadPackageError("comes twice", where=place)
        known.add(sizes)
        _check_axes(variant, place)
        _check_padding(variant, place)
        _check_like_first(variant, first, place)


def _check_like_first(variant: Variant, first: Variant, where: str) -> None:
    """Both take and give the same, but for the sizes of their dimensions."""
    for side, tensors, others in (
        ("inputs", variant.inputs, first.inputs),
        ("outputs", variant.outputs, first.outputs),
    ):
        if _names(tensors) != _names(others):
            raise BadPackageError(f"has other {side} than the first variant", where=where)
    if variant.axes != first.axes:
        raise BadPackageError("has other axes than the first variant", where=where)
    for tensor, other in zip(variant.inputs, first.inputs, strict=True):
        if _fixed(variant, tensor) != _fixed(first, other):
            what = f"input {tensor.name!r} differs from the first variant's in more than its dimensions"
            raise BadPackageError(what, where=where)


def _names(tensors: Sequence[BoundaryTensor]) -> list[tuple[str, str]]:
    return [(tensor.name, tensor.dtype) for tensor in tensors]


def _fixed(variant: Variant, tensor: BoundaryTensor) -> list[int | str | None] | None:
    """The shape with names for the dimensions that differ from variant to variant."""
    if tensor.shape is None:
        return None
    axes = variant.axes.get(tensor.name, (None,) * len(tensor.shape))
    return [name or size for name, size in zip(axes, tensor.shape, strict=True)]


def _check_axes(variant: Variant, where: str) -> None:
    inputs = {tensor.name: tensor for tensor in variant.inputs}
    known = {**{tensor.name: tensor for tensor in variant.outputs}, **inputs}
    for name, axes in variant.axes.items():
        tensor = known.get(name)
        if tensor is None or tensor.shape is None or len(axes) != len(tensor.shape):
            raise BadPackageError(f"has axes of {name!r}, which fit no input or output", where=where)
        for axis, size in zip(axes, tensor.shape, strict=True):
            if axis is None:
                continue
            fixed = variant.dimensions.get(axis)
            if not fixed or size is None or size % fixed or (name in inputs and size != fixed):
                what = f"an axis of {name!r} has {size} elements, which is not dimension {axis!r}"
                raise BadPackageError(what, where=where)


def _check_padding(variant: Variant, where: str) -> None:
    if variant.padding.keys() != variant.dimensions.keys():
        raise BadPackageError("does not say of each dimension, and of no other, whether it may be padded", where=where)
    if variant.host_nodes and SAFE in variant.padding.values():
        raise BadPackageError("has steps on the host, so that no dimension may be padded", where=where)
