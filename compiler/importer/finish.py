"""The end of an import: what was lowered and what was left to the host become the parts of the model."""

from __future__ import annotations

import onnx

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.host_side import HostSide
from birc.compiler.importer.onnx_node import OnnxNode
from birc.compiler.importer.placement import DevicePart, HostPart, placed
from birc.compiler.importer.read import NEWEST_OPSET
from birc.compiler.importer.region import Region
from birc.compiler.ir.graph import Value
from birc.compiler.ir.verify import verify_graph


def finished_parts(
    build: GraphBuilder, host: HostSide, model: str, inputs: tuple[Value, ...], outputs: tuple[str, ...], region: Region
) -> tuple[DevicePart | HostPart, ...]:
    """The finished graph of the model called `model` and the calls on the host, cut into parts.

    `inputs` are those that the device may read, `outputs` the names of all outputs, which `region` knows.
    """
    on_device = _device_outputs(build, host, outputs, region)
    made = dict.fromkeys(name for call in host.calls for name in call.writes)
    fed = [Value(name, build.type_of(name)) for name in made if build.has_type(name)]
    read = dict.fromkeys(name for call in host.calls for name in call.reads)
    elsewhere = {*made, *on_device.values()}
    computed = build.computed_values()
    read_here = {name: name for name in read if name in computed and name not in elsewhere}
    whole = build.graph(model, (*inputs, *fed), {**on_device, **read_here})
    verify_graph(whole)
    calls = [call.renamed(build.renamed_outputs) for call in host.calls]
    return placed(whole, calls, outputs, host.constants())


def _device_outputs(build: GraphBuilder, host: HostSide, outputs: tuple[str, ...], region: Region) -> dict[str, str]:
    """The outputs that the device gives, with the values that they are; the host gives the others."""
    on_device = {}
    on_host = {name for call in host.calls for name in call.writes}
    computed = build.computed_values()
    for name in outputs:
        value = region.values[name]
        # Memory holds what nodes compute; inputs and constants may be of a type that it does not hold.
        is_held = value in computed or (not host.is_only_here(value) and build.type_of(value).dtype.device is not None)
        if is_held and value not in on_host:
            on_device[name] = value
            continue
        if value == name and build.is_constant(value):
            value = build.rename_constant(name, f"{name}.known")
            host.rename(name, value)
        elif value == name and host.is_tensor(value):
            value = host.rename(name, build.unique(f"{name}.known"))
        if value != name:
            _copy(host, value, name, region)
    return on_device


def _copy(host: HostSide, value: str, name: str, region: Region) -> None:
    """An output that is another value of the host."""
    proto = onnx.NodeProto(op_type="Identity", input=[value], output=[name], name=name)
    node = OnnxNode(f"output {name}", "Identity", "", NEWEST_OPSET, (value,), (name,), {})
    opsets = {"": NEWEST_OPSET}  # in older ones it takes no sequences
    host.place(proto, node, {}, opsets, "", region.declared, f"{value!r} is on the host")
