"""A session: a package on a simulated device, ready to be called any number of times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birc.runtime.boundary import check_inputs, read_port, to_device, to_host, write_port
from birc.runtime.conversion import Array
from birc.runtime.machine import Machine
from birc.runtime.manifest import BoundaryTensor
from birc.runtime.memory import Memory
from birc.runtime.package import Package
from birc.runtime.package_weights import as_bytes
from birc.runtime.report import Report, build_report, metadata_of
from birc.runtime.timing import simulate
from birc.runtime.timing.calibration import latency_range
from birc.runtime.values.engine import ValuesEngine

QUICKLY_WALKED = 400
"""Instructions walked by one simulation up to which a profile adds the range of its latency unasked."""


def load(path_or_package: str | Path | Package, machine: Machine | None = None) -> Session:
    """A session for a package, or for the package in a file.

    `machine` is needed only for a target that does not come with birc. Raises `BadPackageError` for a file
    that is not a whole and right package.
    """
    if isinstance(path_or_package, Package):
        return Session(path_or_package)
    return Session(Package.open(path_or_package, machine))


class Session:
    """The memories of the device, which keep their content from call to call, and the engines on them."""

    __slots__ = ("_engine", "_memory", "package")

    def __init__(self, package: Package) -> None:
        self.package = package
        self._memory: Memory | None = None
        self._engine: ValuesEngine | None = None

    @property
    def inputs(self) -> tuple[BoundaryTensor, ...]:
        """Names, types and shapes of what `run` takes."""
        return self.package.manifest.inputs

    @property
    def outputs(self) -> tuple[BoundaryTensor, ...]:
        """Names, types and shapes of what `run` gives."""
        return self.package.manifest.outputs

    def run(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """Run the program on these inputs; the outputs are new arrays in the model's own types.

        Raises `UsageError` naming the input that is missing, unknown or of another type or shape than the
        model's, and `MachineFault` when the program does what the machine cannot (an index out of its range,
        say).
        """
        program = self.package.program
        arrays = check_inputs(inputs, self.inputs)
        memory = self._memory or self._initialised()
        for port, tensor in zip(program.inputs, self.inputs, strict=True):
            write_port(program, memory, port, to_device(arrays[tensor.name], tensor))
        engine = self._engine or ValuesEngine(program, self.package.machine)
        engine.run(memory)
        self._memory, self._engine = memory, engine
        pairs = zip(program.outputs, self.outputs, strict=True)
        return {tensor.name: to_host(read_port(program, memory, port), tensor) for port, tensor in pairs}

    def _initialised(self) -> Memory:
        """A memory that holds the constants, as the `init` entry of the package asks."""
        program = self.package.program
        memory = Memory(program, self.package.machine, poison=False)
        for image in program.constants:
            content = as_bytes(self.package.weights[image.key])
            for die in range(program.dies):
                if image.dies >> die & 1:
                    np.copyto(memory.hbm[die][image.address : image.address + image.num_bytes], content)
        return memory

    def profile(self, with_range: bool | None = None) -> Report:
        """The machine's time, traffic and memory for one call; needs no inputs and computes no values.

        `with_range` adds the band of latencies over the calibrated sets of figures, which takes a simulation for each
        set; by default only programs that simulate quickly get it.
        """
        program, machine = self.package.program, self.package.machine
        timing = simulate(program, machine)
        if with_range is None:
            with_range = timing.walked <= QUICKLY_WALKED
        band = latency_range(program, machine) if with_range else None
        if band is not None:  # The machine's own figures fit the anchors as the drawn ones do.
            band = (min(band[0], timing.latency_cycles), max(band[1], timing.latency_cycles))
        return build_report(program, machine, timing, metadata_of(self.package), band)
