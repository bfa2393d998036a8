"""The variants of a package: the sizes that a model is compiled for, and what may be padded up to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from birc.compiler.importer.imported import Imported
from birc.compiler.importer.placement import DevicePart
from birc.compiler.ir.graph import Graph
from birc.compiler.passes.padding_safety import Family
from birc.runtime.errors import BircError, UsageError
from birc.runtime.variant import SAFE

MOST_VARIANTS: Final = 64

Dims = Mapping[str, int | Sequence[int]]
Batch = int | Sequence[int]
ImportFor = Callable[[Mapping[str, int]], Imported]
"""The model imported with these sizes of all its open dimensions."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What one variant fixes: dimensions by name, and the first dimension of the inputs."""

    dims: Mapping[str, int]
    batch: int | None

    @property
    def label(self) -> str:
        """`batch=8, seq=128`."""
        batch = {} if self.batch is None else {"batch": self.batch}
        return ", ".join(f"{name}={size}" for name, size in {**batch, **self.dims}.items())


def variant_sizes(dims: Dims | None, batch: Batch | None) -> tuple[Sizes, ...]:
    """Every combination of the sizes, in the order in which they are given.

    Raises `UsageError` for a dimension without a size, and for more than `MOST_VARIANTS`.
    """
    choices = {name: _sizes(name, value) for name, value in (dims or {}).items()}
    batches = (None,) if batch is None else _sizes("batch", batch)
    count = len(batches)
    for sizes in choices.values():
        count *= len(sizes)
    if count > MOST_VARIANTS:
        hint = "give fewer sizes, or compile several packages"
        raise UsageError(f"{count} combinations of sizes, the limit is {MOST_VARIANTS} variants", hint=hint)
    return tuple(
        Sizes(dict(zip(choices, combination, strict=True)), size)
        for size in batches
        for combination in product(*choices.values())
    )


def _sizes(name: str, value: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (value,) if isinstance(value, int) else tuple(dict.fromkeys(value))
    if not sizes:
        raise UsageError(f"dimension {name!r} is given no size")
    return sizes


def largest(variants: Sequence[Sizes]) -> Sizes:
    """The variant that is the largest in every dimension."""
    return max(variants, key=lambda sizes: (sizes.batch or 0, *sizes.dims.values()))


class PaddingProof:
    """Imports of one model for several sizes, and what they show of padding (see `padding_safety`)."""

    def __init__(self, whole: Imported, import_for: ImportFor) -> None:
        """`whole` has the largest sizes. The model is imported for a few smaller ones."""
        self._whole = whole
        self._sizes = _sizes_of(whole)
        graph, reason = _device_graph(whole)
        self._reason = reason
        self._family = None if graph is None else Family(graph, self._sizes)
        if self._family is None:
            return
        for name, size in self._sizes.items():
            for smaller in sorted({1, size // 2, size - 1} - {0, size}):
                self._probe({**self._sizes, name: smaller}, import_for)
        if len(self._sizes) > 1:
            self._probe({name: max(1, size // 2) for name, size in self._sizes.items()}, import_for)

    def _probe(self, sizes: Mapping[str, int], import_for: ImportFor) -> None:
        symbols = {symbol: sizes[entry.name] for entry in self._whole.dimensions for symbol in entry.symbols}
        try:
            self._take(import_for(symbols), sizes)
        except BircError as error:
            self._refuse(sizes, f"the model is not valid for {_text(sizes)}: {error.what}")

    def compare(self, imported: Imported) -> None:
        """Take in the model as imported for the sizes of another variant."""
        self._take(imported, _sizes_of(imported))

    def _take(self, imported: Imported, sizes: Mapping[str, int]) -> None:
        graph, reason = _device_graph(imported)
        if graph is None:
            self._refuse(sizes, reason)
        elif self._family is not None:
            self._family.compare(graph, sizes)

    def _refuse(self, sizes: Mapping[str, int], reason: str) -> None:
        if self._family is not None:
            self._family.refuse([name for name, size in sizes.items() if size != self._sizes[name]], reason)

    def padding(self) -> dict[str, str]:
        """`SAFE` for each dimension that may be padded, for the others the reason why not."""
        if self._family is None:
            return dict.fromkeys(self._sizes, self._reason)
        problems = self._family.problems()
        return {name: problems.get(name, SAFE) for name in self._sizes}

    def axes(self) -> dict[str, tuple[str | None, ...]]:
        """The dimensions that the axes of the inputs are, and those that the outputs follow where they are safe."""
        found = {name: axes for name, axes in self._whole.axes.items() if any(axes)}
        if self._family is None:
            return found
        padding, known = self.padding(), self._family.axes()
        for name in self._whole.outputs:
            axes = tuple(axis.dimension if axis and padding[axis.dimension] == SAFE else None for axis in known[name])
            if any(axes):
                found.setdefault(name, axes)
        return found


def _sizes_of(imported: Imported) -> dict[str, int]:
    return {entry.name: entry.size for entry in imported.dimensions}


def _text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def _device_graph(imported: Imported) -> tuple[Graph | None, str]:
    """The graph of a model that runs on the device as a whole; else the reason why it does not."""
    if imported.host_nodes or len(imported.parts) != 1:
        named = next((f"node {node.name!r} ({node.op_type}) runs on the host" for node in imported.host_nodes), "")
        return None, named or "an operator is not supported"
    (part,) = imported.parts
    return (part.graph, "") if isinstance(part, DevicePart) else (None, "all of it runs on the host")
