"""What a package is put together from, and whether its parts belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from birc.runtime.errors import BadPackageError, InternalError
from birc.runtime.package_json import to_bytes
from birc.runtime.package_sources import RunSource, source_map_json, source_map_member
from birc.runtime.package_weights import Array, share_equal
from birc.runtime.program import Port, Program
from birc.runtime.variant import BoundaryTensor, HostNode, Step, Variant
from birc.runtime.variant_check import check_variants

PROGRAMS: Final = "programs/"
HOST: Final = "host/"


@dataclass(frozen=True, slots=True)
class DevicePart:
    """A program with its constants by key; `sources` names what each `run` command computes."""

    program: Program
    weights: Mapping[str, Array]
    inputs: tuple[BoundaryTensor, ...]
    outputs: tuple[BoundaryTensor, ...]
    sources: tuple[RunSource, ...] = ()


@dataclass(frozen=True, slots=True)
class HostPart:
    """A sub-model as the bytes of an ONNX file, and its nodes."""

    model: bytes
    inputs: tuple[BoundaryTensor, ...]
    outputs: tuple[BoundaryTensor, ...]
    nodes: tuple[HostNode, ...]


@dataclass(frozen=True, slots=True)
class NewVariant:
    """A variant before its parts have members."""

    dimensions: Mapping[str, int]
    inputs: tuple[BoundaryTensor, ...]
    outputs: tuple[BoundaryTensor, ...]
    parts: tuple[DevicePart | HostPart, ...]
    report: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    padding: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a package by their members."""

    variants: tuple[Variant, ...]
    programs: Mapping[str, Program]
    weights: Mapping[str, Array]
    host_models: Mapping[str, bytes]
    source_maps: Mapping[str, bytes] = field(default_factory=dict)


def one_program(
    program: Program,
    weights: Mapping[str, Array],
    inputs: Sequence[BoundaryTensor] | None,
    outputs: Sequence[BoundaryTensor] | None,
    sources: Sequence[RunSource],
) -> NewVariant:
    """The variant that is one program; a boundary that is not given is what lies on the device."""
    taken = _as_on_device(program.inputs) if inputs is None else tuple(inputs)
    given = _as_on_device(program.outputs) if outputs is None else tuple(outputs)
    return NewVariant({}, taken, given, (DevicePart(program, weights, taken, given, tuple(sources)),))


def _as_on_device(ports: Sequence[Port]) -> tuple[BoundaryTensor, ...]:
    return tuple(BoundaryTensor(port.name, port.dtype, port.shape, port.dtype) for port in ports)


def assembled(variants: Sequence[NewVariant], model: str) -> Parts:
    """The parts with members. Equal weights, and equal host models, are kept once.

    Raises `InternalError` for a constant without weights.
    """
    members = _Members(sum(isinstance(part, DevicePart) for variant in variants for part in variant.parts) > 1, model)
    placed = tuple(members.variant(variant) for variant in variants)
    kept, keeper = share_equal(members.weights)
    programs = {
        name: replace(program, constants=tuple(replace(image, key=keeper[image.key]) for image in program.constants))
        for name, program in members.programs.items()
    }
    return Parts(placed, programs, kept, members.host_models, members.source_maps)


class _Members:
    """Collects the members of variants in order."""

    def __init__(self, has_several_programs: bool, model: str) -> None:
        self._has_several_programs = has_several_programs
        self._model = model
        self.programs: dict[str, Program] = {}
        self.weights: dict[str, Array] = {}
        self.host_models: dict[str, bytes] = {}
        self.source_maps: dict[str, bytes] = {}

    def variant(self, new: NewVariant) -> Variant:
        steps = tuple(self._step(part) for part in new.parts)
        report = dict(new.report)
        sources = [source for part in new.parts if isinstance(part, DevicePart) for source in part.sources]
        if sources:
            # Counted here, so that it is known without the debug members too.
            report.setdefault("device_nodes", len({node for source in sources for node in source.onnx_nodes}))
        axes, padding = dict(new.axes), dict(new.padding)
        return Variant(dict(new.dimensions), new.inputs, new.outputs, steps, report, axes, padding)

    def _step(self, part: DevicePart | HostPart) -> Step:
        if isinstance(part, HostPart):
            known = (name for name, model in self.host_models.items() if model == part.model)
            member = next(known, f"{HOST}{len(self.host_models)}.onnx")
            self.host_models[member] = part.model
            return Step(member, part.inputs, part.outputs, part.nodes)
        number = len(self.programs)
        member = f"{PROGRAMS}{number}.bin"
        self.programs[member] = self._with_own_keys(part, f"{number}/" if self._has_several_programs else "")
        if part.sources:
            self.source_maps[source_map_member(member)] = to_bytes(source_map_json(part.sources))
        return Step(member, part.inputs, part.outputs)

    def _with_own_keys(self, part: DevicePart, prefix: str) -> Program:
        """The program with keys for its constants that no other program has."""
        for image in part.program.constants:
            if image.key not in part.weights:
                raise InternalError(f"the program loads {image.key!r}, which has no weights", where=self._model)
            self.weights[prefix + image.key] = part.weights[image.key]
        images = tuple(replace(image, key=prefix + image.key) for image in part.program.constants)
        return replace(part.program, constants=images)


def check_parts(parts: Parts, target: str, target_digest: str, *, where: str) -> None:
    """Raise `BadPackageError` unless variants, programs, host models and weights belong together."""
    if not parts.variants:
        raise BadPackageError("has no variants", where=where)
    for program in parts.programs.values():
        if (program.machine, program.machine_digest) != (target, target_digest):
            raise BadPackageError(f"the program is for another target than the manifest's {target}", where=where)
        _check_constants(program, parts.weights, where)
    check_variants(parts.variants, where=where)
    for variant in parts.variants:
        _check_flow(variant, where)
        for step in variant.steps:
            _check_step(step, parts, where)


def _check_flow(variant: Variant, where: str) -> None:
    """Every value that a step takes was given before with that type, and so is every output at the end."""
    known = {tensor.name: tensor for tensor in variant.inputs}

    def check(tensors: Sequence[BoundaryTensor], taker: str) -> None:
        for tensor in tensors:
            given = known.get(tensor.name)
            if given is None:
                raise BadPackageError(f"{taker} takes {tensor.name!r}, which nothing before gives", where=where)
            if (given.dtype, given.shape) != (tensor.dtype, tensor.shape):
                raise BadPackageError(f"{taker} takes {tensor.name!r} as another type than it has", where=where)

    for step in variant.steps:
        check(step.inputs, step.member)
        known.update((tensor.name, tensor) for tensor in step.outputs)
    check(variant.outputs, "the caller")


def _check_step(step: Step, parts: Parts, where: str) -> None:
    if step.on_host:
        if step.member not in parts.host_models:
            raise BadPackageError(f"has no host model {step.member!r}", where=where)
        return
    program = parts.programs.get(step.member)
    if program is None:
        raise BadPackageError(f"has no program {step.member!r}", where=where)
    for side, ports, tensors in (("input", program.inputs, step.inputs), ("output", program.outputs, step.outputs)):
        declared = [(tensor.name, tensor.device_dtype, tensor.sizes) for tensor in tensors]
        if declared != [(port.name, port.dtype, port.shape) for port in ports]:
            raise BadPackageError(f"the {side}s of manifest and program differ", where=where)


def _check_constants(program: Program, weights: Mapping[str, Array], where: str) -> None:
    for image in program.constants:
        array = weights.get(image.key)
        if array is None:
            raise BadPackageError(f"has no weights {image.key!r}", where=where)
        if array.nbytes != image.num_bytes:
            what = f"weights {image.key!r} have {array.nbytes} bytes, the program loads {image.num_bytes}"
            raise BadPackageError(what, where=where)
