"""Compiling graphs and models in tests, and running the result on the engines.

    compiled = compile_graph(graph, "tiny")
    compiled.verify()
    outputs = compiled.step(inputs)

Every intermediate result stays at hand: the fused graph, the plan, the program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from birc.codegen.program_code import generate
from birc.compiler.importer.importer import import_model
from birc.compiler.importer.read import ModelSource
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel as PlanKernel
from birc.compiler.ir.plan import KernelStep, Plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import Pass, run_passes
from birc.compiler.passes.canonicalize import canonicalize
from birc.compiler.passes.fuse import fuse_for
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.merge_products import MergeProducts
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.skip_masked import skip_masked_for
from birc.compiler.passes.tile import tile
from birc.runtime.boundary import read_port, write_port
from birc.runtime.conversion import memory_type
from birc.runtime.counts import Counts
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import Machine, load_machine
from birc.runtime.memory import Memory
from birc.runtime.program import Program
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.values.engine import ValuesEngine
from birc.runtime.verifier.verify import verify_program

Values = dict[str, np.ndarray]
Order = Literal["sequential", "random"]


@dataclass(frozen=True)
class Compiled:
    """A compiled graph with everything that led to it."""

    graph: Graph
    lowered: Lowered
    plan: Plan
    program: Program
    data: Mapping[str, np.ndarray]
    machine: Machine

    @property
    def kernels(self) -> list[PlanKernel]:
        """The kernels of the plan, in order."""
        steps = [step for step in self.plan.steps if isinstance(step, KernelStep)]
        return [kernel for step in steps for kernel in step.kernels if kernel is not None]

    def verify(self) -> None:
        """Raises `VerificationError` with all findings."""
        verify_program(self.program, self.machine)

    def memory(self, inputs: Mapping[str, np.ndarray]) -> Memory:
        """A poisoned memory that holds constants and inputs."""
        memory = Memory(self.program, self.machine)
        for image in self.program.constants:
            held = self.data[image.key]
            content = np.ascontiguousarray(held).reshape(-1).view(np.uint8)
            for die in range(self.program.dies):
                if image.dies >> die & 1:
                    memory.hbm[die][image.address : image.address + image.num_bytes] = content
        for port in self.program.inputs:
            write_port(self.program, memory, port, inputs[port.name].astype(memory_type(port.dtype)))
        return memory

    def outputs(self, memory: Memory) -> Values:
        """What the outputs hold, in the graph's own element types."""
        types = {port.name: self.graph.type_of(port.name).dtype.numpy for port in self.program.outputs}
        return {
            port.name: read_port(self.program, memory, port).astype(types[port.name]) for port in self.program.outputs
        }

    def step(self, inputs: Mapping[str, np.ndarray], order: Order = "sequential", seed: int = 0) -> Values:
        """The outputs by the stepping engine."""
        return self.step_counted(inputs, order, seed)[0]

    def step_counted(
        self, inputs: Mapping[str, np.ndarray], order: Order = "sequential", seed: int = 0
    ) -> tuple[Values, Counts]:
        """The outputs by the stepping engine, and what it executed."""
        memory = self.memory(inputs)
        counts = StepEngine(self.program, self.machine, seed, order).run(memory)
        return self.outputs(memory), counts

    def values(self, inputs: Mapping[str, np.ndarray]) -> Values:
        """The outputs by the values engine."""
        return self.values_counted(inputs)[0]

    def values_counted(self, inputs: Mapping[str, np.ndarray]) -> tuple[Values, Counts]:
        """The outputs by the values engine, and what it executed."""
        memory = self.memory(inputs)
        counts = ValuesEngine(self.program, self.machine).run(memory)
        return self.outputs(memory), counts


def compile_graph(
    graph: Graph, target: str | Machine = "tiny", precision: str = "model", *, fuse: bool = True, clean: bool = True
) -> Compiled:
    """Compile a graph through all phases, by the first plan that fits.

    Without `clean` the graph passes before layouts are left out. Raises what the phases raise.
    """
    return next(compiled_plans(graph, target, precision, fuse=fuse, clean=clean))


def compiled_plans(
    graph: Graph, target: str | Machine = "tiny", precision: str = "model", *, fuse: bool = True, clean: bool = True
) -> Iterator[Compiled]:
    """The graph compiled by every plan that fits; each plan is checked after every phase."""
    machine = target if isinstance(target, Machine) else load_machine(target)
    cleaned = canonicalize(graph) if clean else graph
    fused = run_passes(cleaned, (*LEGALIZE, *(fusing(machine, precision) if fuse else ())))
    yield from plans_of(fused, lower_graph(fused, machine, precision), machine)


def fusing(machine: Machine, precision: str) -> tuple[Pass, ...]:
    return skip_masked_for(machine), MergeProducts(), fuse_for(machine, precision)


def plans_of(fused: Graph, lowered: Lowered, machine: Machine) -> Iterator[Compiled]:
    """The lowered kernels compiled by every plan that fits."""
    plans = partitions(fused, lowered, machine)
    for number, plan in enumerate(plans):
        try:
            yield finished(fused, lowered, plan, machine)
        except DoesNotFitError:
            if number == len(plans) - 1:
                raise


def finished(fused: Graph, lowered: Lowered, plan: Plan, machine: Machine) -> Compiled:
    """The lowered kernels compiled by a plan that is partitioned. Raises `DoesNotFitError`."""
    scheduled = _scheduled(plan, machine)
    generated = generate(scheduled, machine)
    return Compiled(fused, lowered, scheduled, generated.program, generated.weights(lowered.data), machine)


def _scheduled(plan: Plan, machine: Machine) -> Plan:
    verify_plan(plan, "partition", machine)
    for phase, step in (("tile", tile), ("schedule", schedule), ("allocate", allocate)):
        plan = step(plan, machine)
        verify_plan(plan, phase, machine)
    return plan


def compile_network(model: ModelSource, target: str = "tiny", precision: str = "model") -> Compiled:
    """Compile an ONNX model."""
    return compile_graph(import_model(model), target, precision)
