"""Dense buffers as descriptors see them: strides, and byte dimensions for copies."""

from __future__ import annotations

from collections.abc import Sequence


def row_major_strides(dims: Sequence[int]) -> tuple[int, ...]:
    """Element strides of a dense array in row-major order."""
    strides, step = [], 1
    for extent in reversed(dims):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def copy_dims(num_bytes: int, limit: int) -> tuple[int, ...] | None:
    """So many bytes as up to three descriptor dimensions of at most `limit`; None when there are no such factors."""
    dims: list[int] = []
    rest = num_bytes
    while rest > limit:
        factor = next((d for d in range(limit, 1, -1) if rest % d == 0), 0)
        if not factor or len(dims) == 2:
            return None
        dims.append(factor)
        rest //= factor
    return (rest, *reversed(dims))
