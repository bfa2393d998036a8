"""Access relations of ops whose loops depend on an axis: functions, where a line of text does not say it."""

from __future__ import annotations

from collections.abc import Sequence

from birc.compiler.ir.access import Loop, Relations
from birc.compiler.ir.op import Types
from birc.compiler.ir.types import TensorType


def output_loops(output: TensorType) -> tuple[list[Loop], list[str]]:
    """A parallel loop for each dimension of the output, i0, i1, ..., and their names."""
    loops = [Loop(f"i{dim}", size, False) for dim, size in enumerate(output.sizes)]
    return loops, [loop.name for loop in loops]


def reductions(extents: Sequence[int], stem: str = "k") -> list[Loop]:
    """Reduction loops k0, k1, ... of these extents."""
    return [Loop(f"{stem}{place}", extent, True) for place, extent in enumerate(extents)]


def broadcast_read(type: TensorType, names: Sequence[str]) -> tuple[str, ...]:
    """The index of an operand that is broadcast against dimensions indexed by `names`."""
    aligned = names[len(names) - type.rank :]
    return tuple("0" if size == 1 else name for name, size in zip(aligned, type.sizes, strict=True))


def whole_axes(types: Types, output: TensorType, axes: Sequence[int]) -> Relations:
    """Each output element needs all of the first input along `axes`; further inputs are broadcast."""
    loops, names = output_loops(output)
    along = reductions([output.sizes[axis] for axis in axes])
    inner = dict(zip(axes, along, strict=True))
    first = tuple(inner[dim].name if dim in inner else name for dim, name in enumerate(names))
    others = tuple(broadcast_read(type, names) for type in types[1:])
    return Relations((*loops, *along), (first, *others))
