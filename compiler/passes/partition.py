"""The partition phase: kernels of the graph, divided over the dies."""

from __future__ import annotations

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Boundary, Buffer, Kernel, KernelStep, Plan, View
from birc.compiler.passes.lower.lower import Lowered
from birc.compiler.passes.restrict import pieces, restrict
from birc.runtime.machine import Machine


def partition(graph: Graph, lowered: Lowered, machine: Machine) -> Plan:
    """The plan of a lowered graph."""
    kernels = [part for kernel in lowered.kernels for part in split_large(kernel, machine.max_dim)]
    steps = tuple(KernelStep((kernel, *(None,) * (machine.dies - 1))) for kernel in kernels)
    return Plan(
        graph.name,
        machine.name,
        lowered.precision,
        machine.dies,
        lowered.buffers,
        steps,
        tuple(_boundary(graph, lowered.buffers, v.name, lowered.inputs[v.name]) for v in graph.inputs),
        tuple(_boundary(graph, lowered.buffers, name, lowered.outputs[name]) for name in graph.outputs),
        sum(kernel.macs for kernel in kernels),
    )


def split_large(kernel: Kernel, limit: int) -> list[Kernel]:
    """The kernel in parts none of whose dimensions is larger than a descriptor dimension may be."""
    large = next((d for d in kernel.par_dims if d.extent > limit), None)
    if large is None:
        return [kernel]
    parts = [
        restrict(kernel, large.name, start, extent, f".{number}")
        for number, (start, extent) in enumerate(pieces(large.extent, limit))
    ]
    return [part for whole in parts for part in split_large(whole, limit)]


def _boundary(graph: Graph, buffers: tuple[Buffer, ...], name: str, view: View) -> Boundary:
    type = graph.type_of(name)
    start = (0,) * len(type.sizes)
    return Boundary(name, type.dtype.name, type.sizes, ((1, start, view),))
