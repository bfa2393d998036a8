"""What a person sees of a value: type, shape and range, also of those that only the host has."""

from __future__ import annotations

from typing import Any

import numpy as np

from birc.runtime.dtypes import from_numpy


def statistics(name: str, value: Any) -> dict[str, Any]:
    """Type, shape and range of an output. What is no tensor of numbers has no range; JSON has no NaN or infinity."""
    if value is None or isinstance(value, list | tuple):
        length = [] if value is None else [len(value)]
        return {"name": name, "dtype": "none" if value is None else "sequence", "shape": length, "not_finite": 0}
    array = np.asarray(value)
    found = from_numpy(array.dtype)
    summary = {"name": name, "dtype": found.name, "shape": list(array.shape), "not_finite": 0}
    if found.kind in ("string", "complex"):
        return summary
    wide = array.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    if finite.size:
        summary |= {"lowest": float(finite.min()), "mean": float(finite.mean()), "highest": float(finite.max())}
    return {**summary, "not_finite": int(wide.size - finite.size)}


def storable(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """The values as plain arrays of an .npz file: texts of fixed width, a sequence as NAME.0, NAME.1 and so on.

    An empty optional has no array.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, value in values.items():
        if isinstance(value, list | tuple):
            arrays.update(storable({f"{name}.{place}": entry for place, entry in enumerate(value)}))
        elif value is not None:
            array = np.asarray(value)
            arrays[name] = array.astype(np.str_) if from_numpy(array.dtype).kind == "string" else array
    return arrays
