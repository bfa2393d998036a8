"""One program on a simulated device, ready to be called any number of times."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from birc.runtime.boundary import read_port, to_device, to_host, write_port
from birc.runtime.conversion import Array
from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.memory import POISON, Memory
from birc.runtime.package_weights import as_bytes
from birc.runtime.program import Program
from birc.runtime.residents import residents
from birc.runtime.values.engine import ValuesEngine
from birc.runtime.variant import Step


class DeviceStep:
    """The memories of the device, which keep their content from call to call, and the engine on them."""

    def __init__(self, program: Program, step: Step, weights: Mapping[str, Array], machine: Machine) -> None:
        self._program = program
        self._step = step
        self._weights = weights
        self._machine = machine
        self._memory: Memory | None = None
        self._engine: ValuesEngine | None = None

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, in the model's own types, as new arrays; `values` holds the inputs.

        Raises `MachineFault` when the program does what the machine cannot (an index out of its range, say), or when
        the host computed a value of another shape than the model declares.
        """
        program = self._program
        tensors = {tensor.name: tensor for tensor in (*self._step.inputs, *self._step.outputs)}
        memory = self._memory or self._initialised()
        for port in program.inputs:
            value = values[port.name]
            if value.shape != port.shape:
                what = f"{port.name!r} came from the host as {list(value.shape)}, the model declares {list(port.shape)}"
                raise MachineFault(what, where=self._step.member)
            write_port(program, memory, port, to_device(value, tensors[port.name]))
        engine = self._engine or ValuesEngine(program, self._machine)
        engine.run(memory)
        self._memory, self._engine = memory, engine
        return {port.name: to_host(read_port(program, memory, port), tensors[port.name]) for port in program.outputs}

    def lose_chip(self) -> None:
        """Another program has used what is on the chip: the next run is a first call."""
        if self._memory is None or self._engine is None:
            return
        for item in residents(self._program):
            for die, l2 in enumerate(self._memory.l2):
                if item.dies >> die & 1:
                    l2[item.address : item.address + item.num_bytes] = POISON
        self._engine.begin_again()

    def _initialised(self) -> Memory:
        """A memory that holds the constants, as the `init` entry of the package asks."""
        memory = Memory(self._program, self._machine, poison=False)
        for image in self._program.constants:
            content = as_bytes(self._weights[image.key])
            for die in range(self._program.dies):
                if image.dies >> die & 1:
                    np.copyto(memory.hbm[die][image.address : image.address + image.num_bytes], content)
        return memory
