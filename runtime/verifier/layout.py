"""The form of a program around its kernels: machine, memory, descriptors, constants, ports, commands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from birc.runtime.dtypes import DTYPES
from birc.runtime.isa import COMMANDS
from birc.runtime.machine import Machine
from birc.runtime.program import (
    MAPPINGS,
    MAX_BOX_RANK,
    OTHER_L2,
    SPACES,
    Command,
    CommandLoop,
    Descriptor,
    Port,
    Program,
)
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.operands import Context, check_operand

ELEMENT_BYTES: Final = {entry.name: entry.bits // 8 for entry in DTYPES if entry.is_addressable}
_Span = tuple[int, int, str]  # start, end, name
_OUTPUT: Final = "output"
COMMAND_ROWS: Final = {row.mnemonic: row for row in COMMANDS}


def check_layout(program: Program, machine: Machine, findings: Findings) -> None:
    """Find what is wrong with everything but the kernels, without executing the commands."""
    _check_machine(program, machine, findings)
    for index, descriptor in enumerate(program.descriptors):
        fault = _descriptor_fault(descriptor) or _span_fault(descriptor, program, machine)
        if fault is not None:
            findings.add(f"descriptor {index}", *fault)
    if findings:
        return
    _check_commands(program, machine, findings)
    for port in program.inputs + program.outputs:
        _check_port(port, program, findings)
    if not findings:
        _check_overlaps(program, findings)


def capacity_bytes(space: str, program: Program, machine: Machine) -> int:
    """Bytes that addresses of `space` may reach."""
    sizes = {
        "hbm": program.hbm_bytes,
        "l2": machine.spcs_per_die * program.l2_bytes,
        "tb": program.tensor_buffer_bytes,
        OTHER_L2: machine.spcs_per_die * program.l2_bytes,
    }
    return sizes[space]


def byte_span(descriptor: Descriptor) -> tuple[int, int]:
    """The half-open byte range from the lowest to the highest element of a view."""
    size = ELEMENT_BYTES[descriptor.dtype]
    low = high = 0
    for lower, extent, stride in zip(descriptor.lower, descriptor.dims, descriptor.strides, strict=True):
        ends = (lower * stride, (lower + extent - 1) * stride)
        low += min(ends)
        high += max(ends)
    return descriptor.address + low * size, descriptor.address + (high + 1) * size


def _check_machine(program: Program, machine: Machine, findings: Findings) -> None:
    rules = (
        (program.machine == machine.name, f"is for machine {program.machine}", f"this is {machine.name}"),
        (
            program.machine_digest == machine.digest,
            "is for another description of the machine",
            machine.digest,
        ),
        (1 <= program.dies <= machine.dies, f"{program.dies} dies", f"{machine.dies} dies"),
        (min(program.l2_bytes, program.tensor_buffer_bytes) >= 0, "a negative memory split", "at least 0 B"),
        (
            program.l2_bytes + program.tensor_buffer_bytes <= machine.spc_sram_bytes,
            f"{program.l2_bytes} B L2 + {program.tensor_buffer_bytes} B tensor buffer",
            f"spc_sram_bytes = {machine.spc_sram_bytes}",
        ),
        (
            0 <= program.hbm_bytes <= machine.hbm_bytes_per_die,
            f"{program.hbm_bytes} B of HBM",
            f"hbm_bytes_per_die = {machine.hbm_bytes_per_die}",
        ),
    )
    for holds, what, limit in rules:
        if not holds:
            findings.add("program", what, limit)


def _descriptor_fault(descriptor: Descriptor) -> tuple[str, str] | None:
    if descriptor.space not in SPACES:
        return f"space {descriptor.space!r}", f"one of {', '.join(SPACES)}"
    if descriptor.mapping not in MAPPINGS:
        return f"mapping {descriptor.mapping!r}", f"one of {', '.join(MAPPINGS)}"
    if descriptor.dtype not in ELEMENT_BYTES:
        return f"element type {descriptor.dtype!r}", "a type of whole bytes"
    rank = len(descriptor.dims)
    if not 1 <= rank <= MAX_BOX_RANK:
        return f"{rank} dimensions", f"1 to {MAX_BOX_RANK}"
    if len(descriptor.strides) != rank or len(descriptor.lower) != rank:
        return f"{len(descriptor.strides)} strides, {len(descriptor.lower)} origins", f"{rank} dimensions"
    if min(descriptor.dims) < 1:
        return f"dims {descriptor.dims}", "at least 1"
    return None


def _span_fault(descriptor: Descriptor, program: Program, machine: Machine) -> tuple[str, str] | None:
    if descriptor.space == OTHER_L2 and program.dies != 2:
        return f"lies on the other die of a program for {program.dies}", "2 dies"
    low, high = byte_span(descriptor)
    capacity = capacity_bytes(descriptor.space, program, machine)
    if low < 0 or high > capacity:
        return f"reaches bytes {low} to {high} of {descriptor.space}", f"{capacity} B"
    return None


def _check_commands(program: Program, machine: Machine, findings: Findings) -> None:
    context = Context(machine, len(program.descriptors), len(program.kernels))
    for place, command, trips in command_places(program.commands):
        row = COMMAND_ROWS.get(command.mnemonic)
        if row is None:
            findings.add(place, f"{command.mnemonic!r} is no command", "a command of the table")
            continue
        if len(row.fields) != len(command.operands):
            findings.add(place, f"{len(command.operands)} operands", f"{len(row.fields)} fields")
            continue
        if not 1 <= command.dies < 1 << program.dies:
            findings.add(place, f"die mask {command.dies:#b}", f"{program.dies} dies")
        for field, value in zip(row.fields, command.operands, strict=True):
            fault = check_operand(field, value, context)
            if fault is None and field.kind == "advance" and isinstance(value, tuple):
                fault = _advance_fault(value, trips)
            if fault is not None:
                findings.add(place, *fault)
    for place, loop in _loops(program.commands, "command"):
        if loop.count < 1:
            findings.add(place, f"a loop of {loop.count} iterations", "at least 1")


def _advance_fault(steps: tuple[int, ...], trips: tuple[int, ...]) -> tuple[str, str] | None:
    if len(steps) > len(trips):
        return f"{len(steps)} advances", f"{len(trips)} command loops are around it"
    return None


def command_places(
    commands: tuple[Command | CommandLoop, ...], path: str = "command", trips: tuple[int, ...] = ()
) -> Iterator[tuple[str, Command, tuple[int, ...]]]:
    """Every command with its place in text form and the counts of the loops around it."""
    for index, item in enumerate(commands):
        place = f"{path} {index}" if path == "command" else f"{path}.{index}"
        if isinstance(item, Command):
            yield place, item, trips
        else:
            yield from command_places(item.body, place, (*trips, item.count))


def _loops(commands: tuple[Command | CommandLoop, ...], path: str) -> Iterator[tuple[str, CommandLoop]]:
    for index, item in enumerate(commands):
        if isinstance(item, CommandLoop):
            yield f"{path} {index}", item
            yield from _loops(item.body, f"{path} {index}")


def _check_port(port: Port, program: Program, findings: Findings) -> None:
    where = f"port {port.name}"
    for piece in port.pieces:
        if not 0 <= piece.descriptor < len(program.descriptors):
            findings.add(where, f"descriptor {piece.descriptor}", f"{len(program.descriptors)} descriptors")
            continue
        descriptor = program.descriptors[piece.descriptor]
        rank = len(port.shape)
        ends = [start + extent for start, extent in zip(piece.start, piece.shape, strict=False)]
        if (
            len(piece.start) != rank
            or len(piece.shape) != rank
            or any(start < 0 or end > extent for start, end, extent in zip(piece.start, ends, port.shape, strict=True))
        ):
            findings.add(where, f"a piece at {piece.start} of {piece.shape}", f"the shape {port.shape}")
        elif math.prod(descriptor.dims) != math.prod(piece.shape):
            findings.add(where, f"a piece of {piece.shape} in a view of {descriptor.dims}", "the same shape")
        if not 1 <= piece.dies < 1 << program.dies:
            findings.add(where, f"die mask {piece.dies:#b}", f"{program.dies} dies")
        if descriptor.space != "hbm":
            findings.add(where, f"lies in {descriptor.space}", "ports lie in HBM")


def _check_overlaps(program: Program, findings: Findings) -> None:
    """Constants and ports lie inside the HBM and apart from each other on every die."""
    for die in range(program.dies):
        spans = [(low, high, name) for low, high, name in _reserved(program, die) if high > low]
        for low, high, name in spans:
            if low < 0 or high > program.hbm_bytes:
                findings.add(name, f"bytes {low} to {high} of HBM", f"hbm_bytes = {program.hbm_bytes}")
        spans.sort()
        for (_, _, name), (_, _, other) in _meeting(spans):
            # Outputs may be views of one result.
            if not (name.startswith(_OUTPUT) and other.startswith(_OUTPUT)):
                findings.add(name, f"overlaps {other} in the HBM of die {die}", "constants and ports lie apart")


def _meeting(spans: list[_Span]) -> Iterator[tuple[_Span, _Span]]:
    """Pairs of spans, sorted by their starts, that share bytes."""
    for index, span in enumerate(spans):
        for other in spans[index + 1 :]:
            if other[0] >= span[1]:
                break
            yield span, other


def _reserved(program: Program, die: int) -> Iterator[_Span]:
    for image in program.constants:
        if image.dies >> die & 1:
            yield image.address, image.address + image.num_bytes, f"constant {image.key}"
    for noun, ports in (("input", program.inputs), (_OUTPUT, program.outputs)):
        for port in ports:
            for piece in port.pieces:
                if piece.dies >> die & 1:
                    yield *byte_span(program.descriptors[piece.descriptor]), f"{noun} {port.name}"
