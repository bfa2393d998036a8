"""A variant of a package: the model with its dimensions fixed, as steps on the device and on the host.

Most variants are one program. Operators that the device cannot run are sub-models, run by the host between programs;
every step takes and gives named values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from birc.runtime.dtypes import DTYPES, HOST_DTYPES
from birc.runtime.errors import BadPackageError
from birc.runtime.package_json import Fields, Json

RESOURCE_BOUNDS: Final = ("tcore", "vector", "hbm", "stream", "l2", "noc", "d2d", "dependency")
BOUNDS: Final = (*RESOURCE_BOUNDS, "max")
"""The bounds that the compiler derives from a graph; `max` is the largest of the others."""

BOUND_CYCLES: Final[Mapping[str, str]] = MappingProxyType({name: f"bound_{name}_cycles" for name in BOUNDS})
"""Where a variant's report holds each, in cycles; of several programs their sums."""

_REPORT_COUNTS: Final = ("batch", "device_nodes", "compulsory_bytes", "sram_lower_bound_bytes", *BOUND_CYCLES.values())
_NO_VALUES: Final[Mapping[str, Any]] = MappingProxyType({})
_TYPE_NAMES: Final = frozenset(entry.name for entry in DTYPES + HOST_DTYPES)
_DEVICE, _HOST = "device", "host"

SAFE: Final = "safe"
"""What `padding` says of a dimension along which inputs may be padded; anything else is the reason why not."""


@dataclass(frozen=True, slots=True)
class BoundaryTensor:
    """A value that goes in or out: name, element type and shape as the model declares them.

    `device_dtype` is the type in which it lies in device memory (the host converts), None for a value that never
    does. Such a value may have dimensions that are not known (None), or no known shape at all (None), and a type that
    only the host has: `string`, or `seq(f32)`, `optional(f32)`.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    device_dtype: str | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape, where all of it is known. Raises `BadPackageError` where it is not."""
        known = tuple(size for size in self.shape or () if size is not None)
        if self.shape is None or len(known) != len(self.shape):
            raise BadPackageError(f"the shape of {self.name!r} is not known before it is computed")
        return known


@dataclass(frozen=True, slots=True)
class HostNode:
    """An ONNX node that the host runs, and why the device does not."""

    name: str
    op_type: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.op_type}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Step:
    """A program on the device, or a sub-model on the host (then it has `nodes`): `member` holds it."""

    member: str
    inputs: tuple[BoundaryTensor, ...]
    outputs: tuple[BoundaryTensor, ...]
    nodes: tuple[HostNode, ...] = ()

    @property
    def on_host(self) -> bool:
        return bool(self.nodes)


@dataclass(frozen=True, slots=True)
class Variant:
    """The model with its symbolic dimensions fixed: their values, its boundary, and its steps in order.

    `report` holds what a profile says that the programs do not: the counts in `_REPORT_COUNTS`. `axes` has, for each
    input and output with such dimensions, their names in the places of its shape; the size of an output's may be a
    multiple of the dimension's. `padding` is `SAFE` for a dimension along which the outputs for a smaller size are the
    first part of the outputs for this one, whatever follows in the inputs; else it says why that is not so.
    """

    dimensions: Mapping[str, int]
    inputs: tuple[BoundaryTensor, ...]
    outputs: tuple[BoundaryTensor, ...]
    steps: tuple[Step, ...]
    report: Mapping[str, Any] = field(default_factory=lambda: _NO_VALUES)
    axes: Mapping[str, tuple[str | None, ...]] = field(default_factory=lambda: _NO_VALUES)
    padding: Mapping[str, str] = field(default_factory=lambda: _NO_VALUES)

    @property
    def label(self) -> str:
        """`batch=8, seq=128`, or nothing when no dimension was open."""
        return ", ".join(f"{name}={size}" for name, size in self.dimensions.items())

    @property
    def host_nodes(self) -> tuple[HostNode, ...]:
        """The nodes that the host runs, in order."""
        return tuple(node for step in self.steps for node in step.nodes)


def variant_json(variant: Variant) -> Json:
    """The object of a variant in the manifest."""
    return {
        "dimensions": dict(variant.dimensions),
        "inputs": [_tensor_json(tensor) for tensor in variant.inputs],
        "outputs": [_tensor_json(tensor) for tensor in variant.outputs],
        "steps": [_step_json(step) for step in variant.steps],
        "report": dict(variant.report),
        "axes": {name: list(axes) for name, axes in variant.axes.items()},
        "padding": dict(variant.padding),
    }


def _tensor_json(tensor: BoundaryTensor) -> Json:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": None if tensor.shape is None else list(tensor.shape),
        "device_dtype": tensor.device_dtype,
    }


def _step_json(step: Step) -> Json:
    placed: dict[str, Any] = {
        "inputs": [_tensor_json(tensor) for tensor in step.inputs],
        "outputs": [_tensor_json(tensor) for tensor in step.outputs],
    }
    if step.on_host:
        nodes = [{"name": node.name, "op_type": node.op_type, "reason": node.reason} for node in step.nodes]
        return {_HOST: step.member, "nodes": nodes, **placed}
    # `init` copies the constants to the device, once; `call` runs the commands, for every set of inputs.
    return {_DEVICE: step.member, "entries": {"init": "constants", "call": "commands"}, **placed}


def read_variant(fields: Fields, where: str) -> Variant:
    """The variant of such an object. Raises `BadPackageError` naming the field."""
    fields.only("dimensions", "inputs", "outputs", "steps", "report", "axes", "padding")
    dimensions, axes, padding = (fields.object(name) for name in ("dimensions", "axes", "padding"))
    return Variant(
        {name: dimensions.count(name) for name in dimensions.names()},
        _read_tensors(fields, "inputs", where),
        _read_tensors(fields, "outputs", where),
        tuple(_read_step(entry, where) for entry in fields.objects("steps")),
        _read_report(fields),
        {name: axes.optional_texts(name) for name in axes.names()},
        {name: padding.text(name) for name in padding.names()},
    )


def _read_report(fields: Fields) -> dict[str, Any]:
    report = fields.object("report")
    report.only(*_REPORT_COUNTS)
    return {name: report.count(name) for name in fields.mapping("report")}


def _read_step(fields: Fields, where: str) -> Step:
    values = fields.names()
    inputs, outputs = _read_tensors(fields, "inputs", where), _read_tensors(fields, "outputs", where)
    if _HOST not in values:
        fields.only(_DEVICE, "entries", "inputs", "outputs")
        return Step(fields.text(_DEVICE), inputs, outputs)
    fields.only(_HOST, "nodes", "inputs", "outputs")
    nodes = []
    for entry in fields.objects("nodes"):
        entry.only("name", "op_type", "reason")
        nodes.append(HostNode(entry.text("name"), entry.text("op_type"), entry.text("reason")))
    if not nodes:
        raise BadPackageError("a step on the host has no nodes", where=where)
    return Step(fields.text(_HOST), inputs, outputs, tuple(nodes))


def _read_tensors(fields: Fields, name: str, where: str) -> tuple[BoundaryTensor, ...]:
    return tuple(_read_tensor(entry, where) for entry in fields.objects(name))


def _read_tensor(fields: Fields, where: str) -> BoundaryTensor:
    fields.only("name", "dtype", "shape", "device_dtype")
    shape, on_device = fields.optional_sizes("shape"), fields.optional_text("device_dtype")
    tensor = BoundaryTensor(fields.text("name"), fields.text("dtype"), shape, on_device)
    if on_device is None:
        return tensor
    for name in (tensor.dtype, on_device):
        if name not in _TYPE_NAMES:
            raise BadPackageError(f"there is no element type {name!r}", where=f"{where}: {tensor.name}")
    if shape is None or None in shape:
        raise BadPackageError("lies on the device without a known shape", where=f"{where}: {tensor.name}")
    return tensor
