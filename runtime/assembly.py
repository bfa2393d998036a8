"""Prints programs and kernels as assembly text.

    kernel 0 "add" multicast=none semaphores=[]
      par i0 0:2 @spc
        par i1 0:4 limit=i0+3
          vld v0, t0[4096*i1:4096] or lowest
          vadd.3 v0, v0, 1.5 wait s1 first={i1} post s(i0+1) last={i1}

Loop variables are i0, i1, ... by depth, `start:extent:step` is an axis of a box in the slot `t0`, `v0` a
register, `@64` an address in an input buffer, `.3` the vector program. `assembly_parser` reads exactly this
text back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from birc.runtime.assembly_fields import show_affine, show_list, show_mask, show_operand, show_sync
from birc.runtime.isa import BY_MNEMONIC, ISA_VERSION
from birc.runtime.program import (
    MAPPINGS,
    Command,
    CommandLoop,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    Port,
    Program,
)

INDENT = "  "


def program_text(program: Program) -> str:
    """The whole program as text; `parse_program` gives back an equal program."""
    return "\n".join(_program_lines(program)) + "\n"


def kernel_text(kernel: Kernel, number: int = 0) -> str:
    """One kernel as text."""
    return "\n".join(_kernel_lines(kernel, number)) + "\n"


def instruction_text(instruction: Instruction) -> str:
    """One instruction, with its waits and posts."""
    program = f".{instruction.program}" if instruction.program else ""
    waits, posts = (", ".join(map(show_sync, syncs)) for syncs in (instruction.waits, instruction.posts))
    synchronisation = (f" wait {waits}" if waits else "") + (f" post {posts}" if posts else "")
    return f"{instruction.mnemonic}{program}{_operands(instruction)}{synchronisation}"


def command_text(command: Command) -> str:
    """One command, with the dies that execute it, and whether in the first call only."""
    once = " once" if command.once else ""
    return f"{command.mnemonic}{_operands(command)} on {show_mask(command.dies)}{once}"


def _operands(item: Instruction | Command) -> str:
    fields = BY_MNEMONIC[item.mnemonic].fields
    shown = ", ".join(show_operand(value, field) for value, field in zip(item.operands, fields, strict=True))
    return f" {shown}" if shown else ""


def _program_lines(program: Program) -> Iterator[str]:
    yield f"program {json.dumps(program.name)}"
    yield f"isa {ISA_VERSION}"
    yield f"machine {json.dumps(program.machine)} {json.dumps(program.machine_digest)}"
    yield f"dies {program.dies}"
    yield f"l2_bytes {program.l2_bytes}"
    yield f"tensor_buffer_bytes {program.tensor_buffer_bytes}"
    yield f"hbm_bytes {program.hbm_bytes}"
    yield f"useful_macs {program.useful_macs}"
    yield ""
    for number, descriptor in enumerate(program.descriptors):
        yield _descriptor_line(number, descriptor)
    for number, kernel in enumerate(program.kernels):
        yield ""
        yield from _kernel_lines(kernel, number)
    yield ""
    yield "commands"
    for item in program.commands:
        yield from _command_lines(item, INDENT)
    for kind, ports in (("input", program.inputs), ("output", program.outputs)):
        for port in ports:
            yield from _port_lines(kind, port)
    for constant in program.constants:
        yield (
            f"constant {json.dumps(constant.key)} bytes={constant.num_bytes} address={constant.address} "
            f"on {show_mask(constant.dies)}"
        )


def _descriptor_line(number: int, descriptor: Descriptor) -> str:
    parts = [
        f"d{number} {descriptor.space} {descriptor.address:#x} {descriptor.dtype}",
        f"dims={show_list(descriptor.dims)} strides={show_list(descriptor.strides)}",
    ]
    if descriptor.origin:
        parts.append(f"origin={show_list(descriptor.origin)}")
    if descriptor.mapping != MAPPINGS[0]:
        parts.append(descriptor.mapping)
    return " ".join(parts)


def _kernel_lines(kernel: Kernel, number: int) -> Iterator[str]:
    head = f"kernel {number} {json.dumps(kernel.name)} multicast={kernel.multicast}"
    yield f"{head} semaphores={show_list(kernel.semaphores)}"
    for nest in kernel.nests:
        yield from _nest_lines(nest, 0)


def _nest_lines(item: Loop | Instruction, depth: int) -> Iterator[str]:
    indent = INDENT * (depth + 1)
    if isinstance(item, Instruction):
        yield indent + instruction_text(item)
        return
    level = "" if item.level == "tile" else f" @{item.level}"
    limit = "" if item.limit is None else f" limit={show_affine(item.limit)}"
    yield f"{indent}{item.kind} i{depth} 0:{item.extent}{level}{limit}"
    for child in item.body:
        yield from _nest_lines(child, depth + 1)


def _command_lines(item: Command | CommandLoop, indent: str) -> Iterator[str]:
    if isinstance(item, Command):
        yield indent + command_text(item)
        return
    yield f"{indent}loop {item.count}"
    for child in item.body:
        yield from _command_lines(child, indent + INDENT)


def _port_lines(kind: str, port: Port) -> Iterator[str]:
    yield f"{kind} {json.dumps(port.name)} {port.dtype} {show_list(port.shape)}"
    for piece in port.pieces:
        place = f"start={show_list(piece.start)} shape={show_list(piece.shape)}"
        yield f"{INDENT}piece d{piece.descriptor} {place} on {show_mask(piece.dies)}"
