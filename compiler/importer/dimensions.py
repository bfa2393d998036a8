"""The inputs of a model and the sizes of their symbolic dimensions: those that are given and those that lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from birc.compiler.importer.tensors import element_type, element_type_name
from birc.compiler.ir.graph import Graph, Value
from birc.compiler.ir.types import Dim, TensorType
from birc.runtime.errors import BadModelError, InternalError, UsageError


@dataclass(frozen=True, slots=True)
class FixedDimension:
    """A dimension of the inputs that was given a size; `symbols` are the model's names for it.

    It has several where `batch` fixed first dimensions that the model calls by different names.
    """

    name: str
    size: int
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """The inputs that are not initialisers: tensors of numbers, and what only the host can hold.

    `axes` has, for the tensors, the name of the fixed dimension that each of their dimensions is, if it is one.
    """

    on_device: tuple[Value, ...]
    on_host: Mapping[str, onnx.TypeProto]
    dimensions: tuple[FixedDimension, ...]
    axes: Mapping[str, tuple[str | None, ...]]


def input_values(graph: onnx.GraphProto, dims: Mapping[str, int], batch: int | None) -> ModelInputs:
    """The inputs of `graph` that are not initialisers; those of numbers with as static types as can be.

    `dims` gives symbols their sizes; `batch` is the size of the first dimension of every input where it is
    open. Raises `UsageError` for a size without a symbol, or a batch that contradicts the model.
    """
    initialised = {tensor.name for tensor in graph.initializer}
    declared = [entry for entry in graph.input if entry.name not in initialised]
    elsewhere = [entry for entry in declared if not _is_tensor_of_numbers(entry)]
    declared = [entry for entry in declared if _is_tensor_of_numbers(entry)]
    shapes = {entry.name: _declared_shape(entry) for entry in declared}
    symbols = {size: name for name, shape in shapes.items() for size in shape if isinstance(size, str)}
    symbols.update((dim.dim_param, entry.name) for entry in elsewhere for dim in _dims(entry.type) if dim.dim_param)
    sizes = dict(dims)
    for name, size in sizes.items():
        if name not in symbols:
            raise UsageError(
                f"no input has a dimension {name!r}",
                hint=f"the open dimensions are {', '.join(sorted(symbols)) or 'none: all are fixed'}",
            )
        if size < 1:
            raise UsageError(f"dimension {name!r} cannot be {size}", hint="at least 1")
    by_batch = {} if batch is None else _batch_sizes(shapes, sizes, batch)
    fixed = _fixed_dimensions(sizes, by_batch)
    sizes.update(by_batch)
    names = {symbol: dimension.name for dimension in fixed for symbol in dimension.symbols}
    axes = {name: tuple(names.get(str(size)) for size in shape) for name, shape in shapes.items()}
    values = tuple(_input_value(entry, shapes[entry.name], sizes) for entry in declared)
    on_host = {entry.name: _sized(entry.type, sizes) for entry in elsewhere}
    return ModelInputs(values, on_host, fixed, axes)


def _fixed_dimensions(named: Mapping[str, int], by_batch: Mapping[str, int]) -> tuple[FixedDimension, ...]:
    """Each symbol on its own, but those that `batch` fixed together."""
    fixed = [FixedDimension(name, size, (name,)) for name, size in sorted(named.items())]
    if by_batch:
        symbols = tuple(sorted(by_batch))
        name = symbols[0] if len(symbols) == 1 or "batch" in named else "batch"
        fixed.append(FixedDimension(name, by_batch[symbols[0]], symbols))
    return tuple(fixed)


def _dims(type: onnx.TypeProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    """The dimensions that the type of a tensor declares; none for another type."""
    return type.tensor_type.shape.dim if type.HasField("tensor_type") else ()


def _sized(type: onnx.TypeProto, sizes: Mapping[str, int]) -> onnx.TypeProto:
    """The type with the sizes of its symbols, where they have one."""
    fixed = onnx.TypeProto()
    fixed.CopyFrom(type)
    for dim in _dims(fixed):
        if dim.dim_param in sizes:
            dim.dim_value = sizes[dim.dim_param]
    return fixed


def _is_tensor_of_numbers(entry: onnx.ValueInfoProto) -> bool:
    return entry.type.HasField("tensor_type") and element_type(entry.type.tensor_type.elem_type) is not None


def missing_size(inputs: Sequence[Value], symbol: str, node: str = "") -> UsageError:
    """The error that dimension `symbol` has no size: with the input that has it and the `node` that needs it."""
    of = next((f" of input {value.name!r}" for value in inputs if symbol in value.type.shape), "")
    wanted = f", which {node} needs" if node else ""
    return UsageError(f"dimension {symbol!r}{of} has no size{wanted}", hint=f"give it one: --dim {symbol}=SIZE")


def require_sizes(graph: Graph) -> None:
    """Raises `UsageError` for the first dimension of an input that has no size."""
    for value in graph.inputs:
        for size in value.type.shape:
            if isinstance(size, str):
                raise missing_size(graph.inputs, size)


def _declared_shape(entry: onnx.ValueInfoProto) -> tuple[Dim, ...]:
    """The declared shape; a dimension without size and symbol is called `input.position`."""
    tensor = entry.type.tensor_type
    if not tensor.HasField("shape"):
        raise BadModelError(f"input {entry.name!r} declares no shape", hint="export the model with shaped inputs")
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"{entry.name}.{place}"
        for place, dim in enumerate(tensor.shape.dim)
    )


def _batch_sizes(shapes: Mapping[str, tuple[Dim, ...]], sizes: Mapping[str, int], batch: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, shape in shapes.items():
        leading = sizes.get(shape[0], shape[0]) if shape and isinstance(shape[0], str) else next(iter(shape), batch)
        if isinstance(leading, str):
            found[leading] = batch
        elif leading != batch:
            symbol = next((each[0] for each in shapes.values() if each and isinstance(each[0], str)), None)
            export = "export the model with an open batch dimension"
            raise UsageError(
                f"batch {batch} for input {name!r}, whose first dimension is fixed at {leading}",
                hint=export if symbol is None else f"fix that of other inputs alone: --dim {symbol}={batch}",
            )
    return found


def _input_value(entry: onnx.ValueInfoProto, shape: tuple[Dim, ...], sizes: Mapping[str, int]) -> Value:
    number = entry.type.tensor_type.elem_type
    kind = element_type(number)
    if kind is None:
        raise InternalError(f"input {entry.name!r} has elements of type {element_type_name(number)}")
    return Value(
        entry.name,
        TensorType(kind, tuple(sizes.get(size, size) if isinstance(size, str) else size for size in shape)),
    )
