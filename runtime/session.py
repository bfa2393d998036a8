"""A session: a package on a simulated device, ready to be called any number of times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from birc.runtime.boundary import check_inputs
from birc.runtime.device_step import DeviceStep
from birc.runtime.host import HostStep
from birc.runtime.machine import Machine
from birc.runtime.package import Package
from birc.runtime.report import Report
from birc.runtime.report_variant import variant_report
from birc.runtime.variant import BoundaryTensor, Step, Variant


def load(path_or_package: str | Path | Package, machine: Machine | None = None) -> Session:
    """A session for a package, or for the package in a file.

    `machine` is needed only for a target that does not come with birc. Raises `BadPackageError` for a file
    that is not a whole and right package.
    """
    if isinstance(path_or_package, Package):
        return Session(path_or_package)
    return Session(Package.open(path_or_package, machine))


class Session:
    """The steps of a package, each made ready at its first call."""

    __slots__ = ("_ready", "package")

    def __init__(self, package: Package) -> None:
        self.package = package
        self._ready: dict[tuple[int, int], DeviceStep | HostStep] = {}

    @property
    def inputs(self) -> tuple[BoundaryTensor, ...]:
        """Names, types and shapes of what `run` takes (those of the first variant)."""
        return self.package.manifest.inputs

    @property
    def outputs(self) -> tuple[BoundaryTensor, ...]:
        """Names, types and shapes of what `run` gives (those of the first variant)."""
        return self.package.manifest.outputs

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model on these inputs; the outputs are new arrays in the model's own types.

        A sequence is a list, an empty optional None; both exist only on the host. Raises `UsageError` naming the input
        that is missing, unknown or of another type or shape than the model's, `MachineFault` when a program does what
        the machine cannot (an index out of its range, say), and `HostStepError` when an operator on the host refuses
        its values.
        """
        number, variant = 0, self.package.manifest.first
        values: dict[str, Any] = check_inputs(inputs, variant.inputs)
        for place, step in enumerate(variant.steps):
            values.update(self._step(number, place, step).run(values))
        return {tensor.name: values[tensor.name] for tensor in variant.outputs}

    def _step(self, variant: int, place: int, step: Step) -> DeviceStep | HostStep:
        known = self._ready.get((variant, place))
        if known is None:
            package = self.package
            if step.on_host:
                known = HostStep(package.host_models[step.member], step)
            else:
                known = DeviceStep(package.programs[step.member], step, package.weights, package.machine)
            self._ready[variant, place] = known
        return known

    def profile(self, with_range: bool | None = None, variant: int = 0) -> Report:
        """The machine's time, traffic and memory for one call; needs no inputs and computes no values.

        `with_range` adds the band of latencies over the calibrated sets of figures, which takes a simulation for each
        set; by default only programs that simulate quickly get it.
        """
        return variant_report(self.package, self._variant(variant), with_range)

    def _variant(self, number: int) -> Variant:
        return self.package.manifest.variants[number]
