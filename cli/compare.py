"""Outputs against a reference: relative errors and their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from birc.runtime.conversion import Array
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError, NumericMismatchError
from birc.runtime.manifest import Manifest

# The largest error of an output, in the Euclidean norm, relative to the reference's. A TF32+ operand is
# rounded to 2^-16 of its value, a BF16 one to 2^-8, FP32 itself to 2^-24; through a deep network these add up.
LIMIT_FP32 = 1e-4
LIMIT_TF32P = 1e-3
LIMIT_BF16 = 5e-2


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output against its reference. `error` is infinite when shapes or the places of NaNs differ."""

    name: str
    error: float
    limit: float

    @property
    def is_within(self) -> bool:
        return self.error <= self.limit

    def to_json(self) -> dict[str, Any]:
        """The comparison for the JSON output; an infinite error is null."""
        error = self.error if np.isfinite(self.error) else None
        return {"output": self.name, "relative_error": error, "limit": self.limit, "ok": self.is_within}

    def __str__(self) -> str:
        word = "ok" if self.is_within else "too large"
        return f"check {self.name}: relative error {self.error:.3g}, limit {self.limit:g}: {word}"


def compare(
    manifest: Manifest, outputs: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float | None
) -> list[Comparison]:
    """Each output against the reference. Raises `BadModelError` for one that the reference does not have."""
    comparisons = []
    for tensor in manifest.outputs:
        if tensor.name not in expected:
            what = f"the reference model has no output {tensor.name!r}"
            raise BadModelError(what, hint=f"it has {', '.join(expected)}: is it the model of the package?")
        error = difference(outputs[tensor.name], expected[tensor.name])
        comparisons.append(Comparison(tensor.name, error, _limit(manifest, tensor.dtype, tolerance)))
    return comparisons


def _limit(manifest: Manifest, type_name: str, tolerance: float | None) -> float:
    if tolerance is not None:
        return tolerance
    if "(" not in type_name and not dtype(type_name).is_float:
        return 0.0
    narrow = {"bf16", "f16", "f8e4m3", "f8e5m2"}
    tensors = (*manifest.inputs, *manifest.outputs)
    is_narrow = manifest.precision == "bf16" or any(tensor.device_dtype in narrow for tensor in tensors)
    if is_narrow:
        return LIMIT_BF16
    return LIMIT_FP32 if manifest.precision == "fp32" else LIMIT_TF32P


def difference(value: Any, expected: Any) -> float:
    """The relative error of a tensor of numbers; of anything else 0 where it is the same, infinite where it is not.

    The error of a sequence is the largest of its elements.
    """
    if isinstance(value, list | tuple):
        pairs = zip(value, expected, strict=False)
        is_alike = isinstance(expected, list | tuple) and len(value) == len(expected)
        return max((difference(*pair) for pair in pairs), default=0.0) if is_alike else float("inf")
    if value is None or expected is None:
        return 0.0 if value is expected else float("inf")
    array, wanted = np.asarray(value), np.asarray(expected)
    if array.dtype.kind in "OUSTc":
        return 0.0 if np.array_equal(array.astype(np.str_), wanted.astype(np.str_)) else float("inf")
    return relative_error(array, wanted)


def relative_error(values: Array, expected: Array) -> float:
    """The Euclidean norm of the difference over the reference's; equal infinities and NaNs do not count."""
    if values.shape != expected.shape:
        return float("inf")
    a, b = values.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    difference, norm = float(np.linalg.norm(a[finite] - b[finite])), float(np.linalg.norm(b[finite]))
    if difference == 0.0:
        return 0.0
    return difference / norm if norm else float("inf")


def require_equal(comparisons: Sequence[Comparison]) -> None:
    """Raise `NumericMismatchError` naming the worst output when one is beyond its limit."""
    wrong = [comparison for comparison in comparisons if not comparison.is_within]
    if wrong:
        worst = max(wrong, key=lambda comparison: comparison.error)
        others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise NumericMismatchError(
            f"output {worst.name!r}: relative error {worst.error:.3g}, the limit is {worst.limit:g}{others}",
            hint="docs/debugging.md tells how to find the phase at fault; --tolerance sets another limit",
        )
