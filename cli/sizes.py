"""Sizes of dimensions on the command line: `NAME=N`, and `N,M` where several variants are meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from birc.runtime.errors import UsageError

DimensionOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=N", help="Fix a symbolic dimension; may be repeated.")
]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Fix the first dimension of the inputs.")]
"""Options of the commands that take one size of each dimension."""


def several_sizes(options: Sequence[str]) -> dict[str, list[int]]:
    """{"seq": [128, 256]} from ["seq=128,256"]. Raises `UsageError` for anything else."""
    dimensions: dict[str, list[int]] = {}
    for option in options:
        name, separator, values = option.rpartition("=")
        sizes = [_size(value) for value in values.split(",")]
        if not separator or not name or None in sizes:
            hint = "write NAME=N, N a whole number above 0, or NAME=N,M for several variants"
            raise UsageError(f"is {option!r}", where="--dim", hint=hint)
        found = [size for size in sizes if size is not None]
        if dimensions.setdefault(name, found) != found:
            before = ",".join(map(str, dimensions[name]))
            raise UsageError(f"gives {name!r} two values, {before} and {values}", where="--dim", hint=f"{name}=N,M")
    return dimensions


def one_size(options: Sequence[str]) -> dict[str, int]:
    """{"seq": 128} from ["seq=128"]. Raises `UsageError` for anything else."""
    dimensions = several_sizes(options)
    for name, sizes in dimensions.items():
        if len(sizes) > 1:
            raise UsageError(f"gives {name!r} {len(sizes)} sizes", where="--dim", hint=f"one: {name}={sizes[0]}")
    return {name: size for name, (size, *_) in dimensions.items()}


def batch_sizes(option: str | None) -> list[int] | None:
    """[1, 8] from "1,8". Raises `UsageError` for anything else."""
    if option is None:
        return None
    sizes = [_size(value) for value in option.split(",")]
    if None in sizes:
        hint = "write N, a whole number above 0, or N,M for several variants"
        raise UsageError(f"is {option!r}", where="--batch", hint=hint)
    return [size for size in sizes if size is not None]


def _size(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None
