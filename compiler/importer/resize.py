"""Lowering of Resize and Upsample: what each axis becomes, then one axis after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final

import numpy as np

from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import LARGEST_HELPER_ELEMENTS
from birc.compiler.importer.floats import in_f32, require_single
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.resize_axis import AxisChange, Filter, repeats, resize_axis
from birc.compiler.importer.run_time import declared_result, held
from birc.compiler.importer.shape import reshape
from birc.compiler.importer.term import Number, Term
from birc.runtime.errors import BadModelError

_ROUNDING: Final = 1e-6
"""How far a scale that gives a length may lie below length / old length, as products are rounded."""


def _resize(node: OnnxNode, build: GraphBuilder) -> Results:
    """Resize since operator set 11: scales or sizes, for all axes or some."""
    x = _filled(node, build)
    rank = len(build.shape(x))
    axes = tuple(positive_axis(node, axis, rank) for axis in node.ints_attribute("axes", range(rank)))
    kernel = Filter(
        mode=node.string_attribute("mode", "nearest"),
        coordinates=node.string_attribute("coordinate_transformation_mode", "half_pixel"),
        nearest=node.string_attribute("nearest_mode", "round_prefer_floor"),
        cubic_coeff=node.float_attribute("cubic_coeff_a", -0.75),
        is_antialiased=bool(node.int_attribute("antialias", 0)),
        excludes_outside=bool(node.int_attribute("exclude_outside", 0)),
        extrapolation=node.float_attribute("extrapolation_value", 0.0),
    )
    _check(node, kernel)
    scales, sizes = _present(node, build, 2), _present(node, build, 3)
    if bool(scales) == bool(sizes):
        raise BadModelError("Resize wants scales or sizes, and not both", where=node.where)
    given = build.shape(scales or sizes)
    if given != (len(axes),):
        raise BadModelError(f"{math.prod(given)} scales or sizes for {len(axes)} axes", where=node.where)
    if scales:
        changes = _by_scales(node, build, x, axes, scales)
    else:
        changes, x = _by_sizes(node, build, x, axes, sizes)
    if kernel.coordinates == "tf_crop_and_resize":
        changes = _with_regions(node, build, changes, len(axes))
    return _resized(build, x, changes, kernel)


def _filled(node: OnnxNode, build: GraphBuilder) -> str:
    """The data, which has elements: no ratio of lengths makes anything of none."""
    x = node.input(0)
    if 0 in build.shape(x):
        raise CannotLower("its operand has no elements")
    return x


def _check(node: OnnxNode, kernel: Filter) -> None:
    known: dict[str, tuple[str, ...]] = {
        "mode": ("nearest", "linear", "cubic"),
        "nearest": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        "coordinates": (
            *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"),
            *("tf_half_pixel_for_nn", "tf_crop_and_resize"),
        ),
    }
    for field, names in known.items():
        value = getattr(kernel, field)
        if value not in names:
            raise BadModelError(f"Resize has no {field} {value!r}", where=node.where, hint=f"one of {', '.join(names)}")


def _present(node: OnnxNode, build: GraphBuilder, position: int) -> str:
    """The input at `position`; "" when it is absent or an empty tensor, which says the same."""
    value = node.optional(position)
    return value if value and build.type_of(value).num_elements else ""


def _old_resize(node: OnnxNode, build: GraphBuilder) -> Results:
    """Resize of operator set 10, and Upsample of 9: scales are an input and there are no other choices."""
    x = _filled(node, build)
    axes = tuple(range(len(build.shape(x))))
    return _resized(build, x, _by_scales(node, build, x, axes, node.input(1)), _old_filter(node))


def _upsample(node: OnnxNode, build: GraphBuilder) -> Results:
    """Upsample until operator set 8: scales are an attribute."""
    given = node.attributes.get("scales")
    if not isinstance(given, tuple):
        raise BadModelError("Upsample has no list of scales", where=node.where)
    scales = np.asarray(given, np.float32)
    shape = build.shape(_filled(node, build))
    if scales.shape != (len(shape),):
        raise BadModelError(f"{scales.size} scales for {len(shape)} axes", where=node.where)
    changes = [_known_scale(node, axis, old, scales[axis]) for axis, old in enumerate(shape)]
    return _resized(build, node.input(0), changes, _old_filter(node))


def _old_filter(node: OnnxNode) -> Filter:
    mode = node.string_attribute("mode", "nearest")
    kernel = Filter("linear" if mode == "bilinear" else mode, "asymmetric")
    _check(node, kernel)
    return replace(kernel, nearest="simple")


def _known_scale(node: OnnxNode, axis: int, old: int, scale: np.float32) -> AxisChange:
    if not scale > 0 or not np.isfinite(scale):
        raise BadModelError(f"axis {axis} is scaled by {scale}", where=node.where)
    length = np.asarray(np.float32(old) * scale)
    return AxisChange(axis, old, int(np.floor(length)), np.asarray(scale), length, float(scale))


def _by_scales(node: OnnxNode, build: GraphBuilder, x: str, axes: Sequence[int], scales: str) -> list[AxisChange]:
    """Scales that come at run time must give the shape that the model declares."""
    shape, known = build.shape(x), build.constant_of(scales)
    if known is not None:
        factors = known.astype(np.float32).reshape(-1)
        return [_known_scale(node, axis, shape[axis], factors[place]) for place, axis in enumerate(axes)]
    target = _declared(node, build, axes, shape)
    old = np.array([shape[axis] for axis in axes], np.float32)
    new = np.array([target[axis] for axis in axes], np.float32)
    agrees = (Term(build, scales) * old).row("floor").equals(new)
    factor = Term(build, held(build, scales, [agrees.name]))
    return [_scaled(axis, shape[axis], target[axis], factor.at(0, place).reshape(1)) for place, axis in enumerate(axes)]


def _scaled(axis: int, old: int, new: int, scale: Term) -> AxisChange:
    least = new / old * (1 - _ROUNDING)
    return AxisChange(axis, old, new, scale, scale * np.float32(old), least)


def _declared(node: OnnxNode, build: GraphBuilder, axes: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    declared = declared_result(node, build)
    expected = [size if axis in axes else old for axis, (size, old) in enumerate(zip(declared, shape, strict=False))]
    if len(declared) != len(shape) or list(declared) != expected:
        raise BadModelError(f"declares {list(declared)}, but resizes {list(axes)} of {list(shape)}", where=node.where)
    return declared


def _by_sizes(
    node: OnnxNode, build: GraphBuilder, x: str, axes: Sequence[int], sizes: str
) -> tuple[list[AxisChange], str]:
    """The changes, and `x` held to what they suppose of sizes that come at run time."""
    policy = node.string_attribute("keep_aspect_ratio_policy", "stretch")
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise BadModelError(f"Resize has no keep_aspect_ratio_policy {policy!r}", where=node.where)
    shape, known = build.shape(x), build.constant_of(sizes)
    old = [shape[axis] for axis in axes]
    if known is not None:
        wanted = [int(size) for size in known.reshape(-1)]
        if policy == "stretch":
            return _stretched(axes, old, wanted), x
        ratios = [Fraction(size, count) for size, count in zip(wanted, old, strict=True)]
        return _in_ratio(axes, old, min(ratios) if policy == "not_larger" else max(ratios)), x
    target = _declared(node, build, axes, shape)
    new = [target[axis] for axis in axes]
    asked = Term(build, sizes)
    if policy == "stretch":
        return _stretched(axes, old, new), held(build, x, [asked.equals(np.array(new, np.int64)).name])
    return _kept_ratio(node, build, x, axes, new, asked)


def _stretched(axes: Sequence[int], old: Sequence[int], new: Sequence[int]) -> list[AxisChange]:
    changes = []
    for axis, before, after in zip(axes, old, new, strict=True):
        scale = np.asarray(np.float32(after) / np.float32(before))
        changes.append(AxisChange(axis, before, after, scale, np.asarray(after, np.float32), float(scale)))
    return changes


def _in_ratio(axes: Sequence[int], old: Sequence[int], ratio: Fraction) -> list[AxisChange]:
    """All axes by one ratio, lengths rounded, halves up."""
    scale = np.asarray(float(ratio), np.float32)
    return [
        AxisChange(axis, size, _rounded(ratio * size), scale, np.asarray(float(ratio * size), np.float32), float(scale))
        for axis, size in zip(axes, old, strict=True)
    ]


def _rounded(length: Fraction) -> int:
    return math.floor(length + Fraction(1, 2))


def _kept_ratio(
    node: OnnxNode, build: GraphBuilder, x: str, axes: Sequence[int], new: Sequence[int], asked: Term
) -> tuple[list[AxisChange], str]:
    """The axis that sets the ratio has exactly the size that was asked for it, which is the declared one: so there
    are few ratios that can have led to the declared sizes, and mostly one.
    """
    is_least = node.string_attribute("keep_aspect_ratio_policy", "stretch") == "not_larger"
    old = [build.shape(x)[axis] for axis in axes]
    possible = {Fraction(after, before) for after, before in zip(new, old, strict=True)}
    possible = {
        ratio
        for ratio in possible
        if all(_rounded(ratio * before) == after for before, after in zip(old, new, strict=True))
    }
    if not possible:
        raise BadModelError(f"no ratio makes {new} of {old}", where=node.where)
    # The ratio asked for an axis is at least (or at most) this one, and for some axis it is this one: in whole
    # numbers, size * denominator against numerator * old size.
    matches = []
    for ratio in sorted(possible):
        scaled = asked * np.array(ratio.denominator)
        limit = np.array([ratio.numerator * size for size in old])
        bound = scaled >= limit if is_least else scaled <= limit
        some = scaled.equals(limit).to("i32").reduce("reduce_max", 0, keep=True) > 0
        matches.append((bound & some).to("i32").reduce("reduce_min", 0))
    best = matches[0]
    for other in matches[1:]:
        best = best.at_least(other)
    x = held(build, x, [(best > 0).name])
    if len(possible) == 1:
        return _in_ratio(axes, old, possible.pop()), x
    ratios = asked.to("f32") / np.array(old, np.float32)
    scale = ratios.reduce("reduce_min" if is_least else "reduce_max", 0, keep=True)
    return [_scaled(axis, before, after, scale) for axis, before, after in zip(axes, old, new, strict=True)], x


def _with_regions(node: OnnxNode, build: GraphBuilder, changes: Sequence[AxisChange], count: int) -> list[AxisChange]:
    """The region of interest: the starts of all axes, then their ends."""
    region = node.input(1)
    if build.shape(region) != (2 * count,):
        raise BadModelError(f"a region of {build.shape(region)} numbers for {count} axes", where=node.where)
    known = build.constant_of(region)
    limits: list[Number]
    if known is not None:
        limits = [np.asarray(number, np.float32) for number in known.reshape(-1)]
    else:
        whole = Term(build, in_f32(build, region))
        limits = [whole.at(0, place).reshape(1) for place in range(2 * count)]
    return [replace(change, region=(limits[place], limits[count + place])) for place, change in enumerate(changes)]


def _resized(build: GraphBuilder, x: str, changes: Sequence[AxisChange], kernel: Filter) -> str:
    """The axes that shrink come first. Interpolation is in FP32; integers are rounded to nearest."""
    kind = build.type_of(x).dtype
    require_single(build, x)
    largest = max((change.new for change in changes), default=0)
    if largest > LARGEST_HELPER_ELEMENTS:
        raise CannotLower(f"an axis of {largest} elements takes an index for each, at most {LARGEST_HELPER_ELEMENTS}")
    if any(change.new == 0 for change in changes):
        raise CannotLower("its result has no elements")
    if kernel.mode != "nearest":
        if not kind.is_float and kind.bits > 16:
            raise CannotLower(f"interpolation of {kind.name}, which FP32 does not hold")
        x = in_f32(build, x)
    x, rest = _repeated(build, x, [change for change in changes if not change.is_plain], kernel)
    for change in sorted(rest, key=lambda change: change.new / change.old):
        x = resize_axis(build, x, change, kernel)
    if kernel.mode == "nearest" or build.type_of(x).dtype == kind:
        return x
    return cast(build, x if kind.is_float else build.emit("round", (x,)), kind)


def _repeated(
    build: GraphBuilder, x: str, changes: Sequence[AxisChange], kernel: Filter
) -> tuple[str, list[AxisChange]]:
    """All axes whose elements are only repeated, at once; and the changes that are left."""
    times = {change.axis: count for change in changes if (count := repeats(change, kernel))}
    shape = build.shape(x)
    if not times:
        return x, list(changes)
    split = tuple(part for axis, size in enumerate(shape) for part in ((size, 1) if axis in times else (size,)))
    spread = tuple(
        part for axis, size in enumerate(shape) for part in ((size, times[axis]) if axis in times else (size,))
    )
    wide = build.emit("expand", (reshape(build, x, split),), {"shape": spread})
    made = reshape(build, wide, tuple(size * times.get(axis, 1) for axis, size in enumerate(shape)))
    return made, [change for change in changes if change.axis not in times]


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("Resize", _old_resize, since=10, until=10),
    OpType("Resize", _resize, since=11),
    OpType("Upsample", _upsample, until=8),
    OpType("Upsample", _old_resize, since=9, until=9),
)
