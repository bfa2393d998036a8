"""Packages made from the handmade programs.

from packages import gemm_package, package_of
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import programs
from program_cases import MACHINE

from birc.runtime.dtypes import dtype
from birc.runtime.machine import load_machine
from birc.runtime.manifest import Manifest
from birc.runtime.package import Package
from birc.runtime.package_sources import RunSource
from birc.runtime.program import ConstantImage, Port
from birc.runtime.variant import BoundaryTensor

GEMM_CONSTANTS = ("b", "bias")


@dataclass(frozen=True)
class PackedCase:
    """A package, what to call it with, and what must come out."""

    package: Package
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]


def package_of(
    case: programs.Case,
    constants: tuple[str, ...] = (),
    types: Mapping[str, str] | None = None,
    *,
    texts: Mapping[str, str] | None = None,
) -> PackedCase:
    """A case as a package: the inputs in `constants` become constants, `types` are the model's types by port.

    Of the other ports the model's type is what lies on the device.
    """
    types = types or {}
    program, machine = case.program, load_machine(MACHINE)
    images, weights = [], {}
    for port in program.inputs:
        if port.name in constants:
            (piece,) = port.pieces
            weights[port.name] = case.inputs[port.name].astype(dtype(port.dtype).numpy)
            address = program.descriptors[piece.descriptor].address
            images.append(ConstantImage(port.name, weights[port.name].nbytes, address, piece.dies))
    left = tuple(port for port in program.inputs if port.name not in constants)
    program = replace(program, inputs=left, constants=tuple(images))

    def boundary(ports: tuple[Port, ...]) -> tuple[BoundaryTensor, ...]:
        return tuple(
            BoundaryTensor(port.name, types.get(port.name, port.dtype), port.shape, port.dtype) for port in ports
        )

    manifest = Manifest(
        model=case.name,
        target=machine.name,
        target_digest=machine.digest,
        precision="model",
        options={"opt_level": 3},
        passes=("canonicalize", "fuse"),
    )
    sources = [RunSource(kernel.name, (f"{kernel.name}_node",)) for kernel in program.kernels]
    taken, given = boundary(left), boundary(program.outputs)
    package = Package.of_program(
        program, weights, manifest, machine, inputs=taken, outputs=given, sources=sources, texts=texts
    )
    inputs = {tensor.name: case.inputs[tensor.name].astype(dtype(tensor.dtype).numpy) for tensor in taken}
    expected = {tensor.name: case.expected[tensor.name].astype(dtype(tensor.dtype).numpy) for tensor in given}
    return PackedCase(package, inputs, expected)


def gemm_package() -> PackedCase:
    """A matrix product whose weights and bias are constants, whose inputs the model has in FP32."""
    texts = {"plan.txt": "what the plan said\n"}
    return package_of(programs.gemm(), GEMM_CONSTANTS, {"a": "f32", "residual": "f32"}, texts=texts)
