"""A session: a package on a simulated device, ready to be called any number of times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from birc.runtime.boundary import check_inputs, check_names
from birc.runtime.device_step import DeviceStep
from birc.runtime.errors import InternalError, UsageError
from birc.runtime.host import HostStep
from birc.runtime.machine import Machine
from birc.runtime.package import Package
from birc.runtime.report import Report
from birc.runtime.report_variant import variant_report
from birc.runtime.variant import BoundaryTensor, Step
from birc.runtime.variant_choice import RunInfo, choose, cropped_output, padded_inputs, sized_inputs


def load(path_or_package: str | Path | Package, machine: Machine | None = None) -> Session:
    """A session for a package, or for the package in a file.

    `machine` is needed only for a target that does not come with birc. Raises `BadPackageError` for a file
    that is not a whole and right package.
    """
    if isinstance(path_or_package, Package):
        return Session(path_or_package)
    return Session(Package.open(path_or_package, machine))


class Session:
    """The steps of a package, each made ready at its first call.

    `last_run` says which variant the last call of `run` ran, and what it padded; None before the first.
    """

    __slots__ = ("_on_device", "_ready", "last_run", "package")

    def __init__(self, package: Package) -> None:
        self.package = package
        self.last_run: RunInfo | None = None
        self._on_device: DeviceStep | None = None
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

        Of several variants the one with the inputs' shapes runs; else the smallest that they fit into, where padding
        does not change the outputs. `last_run` tells. A sequence is a list, an empty optional None; both exist only on
        the host. Raises `UsageError` naming the input that is missing, unknown, of another type, or of a shape for
        which there is no variant, `MachineFault` when a program does what the machine cannot (an index out of its
        range, say), and `HostStepError` when an operator on the host refuses its values.
        """
        info = self._chosen(inputs)
        variant = self.package.manifest.variants[info.variant]
        given = sized_inputs(variant, {name: size for name, (size, _) in info.padded.items()})
        values: dict[str, Any] = padded_inputs(check_inputs(inputs, given), variant, info)
        for place, step in enumerate(variant.steps):
            ready = self._step(info.variant, place, step)
            if isinstance(ready, DeviceStep):
                self._take_device(ready)
            values.update(ready.run(values))
        outputs = {tensor.name: values[tensor.name] for tensor in variant.outputs}
        if info.padded:
            outputs = {name: cropped_output(name, array, variant, info) for name, array in outputs.items()}
        self.last_run = info
        return outputs

    def _chosen(self, inputs: Mapping[str, Any]) -> RunInfo:
        """The variant for these inputs. Raises as `run`."""
        manifest = self.package.manifest
        check_names(inputs, manifest.inputs)
        tensors = (tensor for tensor in manifest.inputs if "(" not in tensor.dtype)
        info = choose(manifest.variants, {tensor.name: np.shape(inputs[tensor.name]) for tensor in tensors})
        if info is None:
            # What is wrong with the inputs is wrong for every variant.
            check_inputs(inputs, manifest.inputs)
            raise InternalError("no variant takes inputs that the first one takes", where=manifest.model)
        return info

    def _take_device(self, step: DeviceStep) -> None:
        """There is one device: what another program left on the chip is gone."""
        if self._on_device is not None and self._on_device is not step:
            self._on_device.lose_chip()
        self._on_device = step

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

    def profile(self, with_range: bool | None = None, variant: int | Mapping[str, int] = 0) -> Report:
        """The machine's time, traffic and memory for one call; needs no inputs and computes no values.

        `with_range` adds the band of latencies over the calibrated sets of figures, which takes a simulation for each
        set; by default only programs that simulate quickly get it. `variant` is the number of a variant, or sizes of
        dimensions: then the first variant that has them is meant. Raises `UsageError` when there is none.
        """
        variants = self.package.manifest.variants
        return variant_report(self.package, variants[self.variant_number(variant)], with_range)

    def variant_number(self, variant: int | Mapping[str, int]) -> int:
        """The number of the variant that is meant, as in `profile`."""
        variants = self.package.manifest.variants
        if isinstance(variant, int):
            if 0 <= variant < len(variants):
                return variant
            raise UsageError(f"there is no variant {variant}", hint=f"0 to {len(variants) - 1}")
        sizes = dict(variant)
        for number, entry in enumerate(variants):
            if sizes.items() <= entry.dimensions.items():
                return number
        wanted = ", ".join(f"{name}={size}" for name, size in sizes.items())
        there = "; ".join(entry.label for entry in variants) or "one, without open dimensions"
        raise UsageError(f"there is no variant with {wanted}", hint=f"there is {there}")
