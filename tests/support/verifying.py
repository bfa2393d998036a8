"""Asking the verifier in tests, and breaking programs at one instruction, loop, descriptor or command."""

from __future__ import annotations

import itertools
from dataclasses import replace

from programs import Layout, cases, i, launch, vector_add

from birc.runtime.machine import load_machine
from birc.runtime.program import CommandLoop, Instruction, Kernel
from birc.runtime.verifier import VerificationError, verify_program

TINY = load_machine("tiny")
# As the others, but its tensors are within the machine's limit of a dimension.
CASES = [vector_add(8000) if case.name == "vector_add" else case for case in cases()]


def findings(program, machine=TINY):
    """The text of what the verifier finds."""
    try:
        verify_program(program, machine)
    except VerificationError as error:
        return [str(finding) for finding in error.findings]
    return []


def refused(program, *words, machine=TINY):
    """Fail unless some finding contains all the words."""
    found = findings(program, machine)
    assert any(all(word in text for word in words) for text in found), found


def edited(program, index, change, kernel=0):
    """A program with one instruction of a kernel changed; `change` gives None to drop it."""
    counter = itertools.count()

    def rebuild(item):
        if isinstance(item, Instruction):
            return change(item) if next(counter) == index else item
        body = tuple(new for child in item.body if (new := rebuild(child)) is not None)
        return replace(item, body=body)

    nests = tuple(rebuild(nest) for nest in program.kernels[kernel].nests)
    return with_kernel(program, replace(program.kernels[kernel], nests=nests), kernel)


def with_kernel(program, changed, index=0):
    kernels = list(program.kernels)
    kernels[index] = changed
    return replace(program, kernels=tuple(kernels))


def with_descriptor(program, index, **changes):
    descriptors = list(program.descriptors)
    descriptors[index] = replace(descriptors[index], **changes)
    return replace(program, descriptors=tuple(descriptors))


def operand(number, value):
    return lambda item: replace(item, operands=(*item.operands[:number], value, *item.operands[number + 1 :]))


def loops(program, change, kernel=0):
    """A program with `change` applied to every loop of a kernel, innermost first."""

    def rebuild(item):
        if isinstance(item, Instruction):
            return item
        return change(replace(item, body=tuple(rebuild(child) for child in item.body)))

    nests = tuple(rebuild(nest) for nest in program.kernels[kernel].nests)
    return with_kernel(program, replace(program.kernels[kernel], nests=nests), kernel)


def single(*nests, semaphores=(), rows=8, spaces=("hbm", "hbm")):
    """A program of one kernel; slot 0 the input [rows, 64], slot 1 the output [rows, 64], FP32."""
    layout = Layout()
    x = layout.tensor((rows, 64), space=spaces[0])
    out = layout.tensor((rows, 64), space=spaces[1])
    return layout.program(
        "single",
        (Kernel("single", nests, semaphores),),
        launch((0, x), (1, out)),
        inputs=(layout.port("x", x),),
        outputs=(layout.port("out", out),),
    )


ROW = ((i(0), 1), (0, 64))


def drop_command(program, mnemonic, occurrence=0):
    """A program without one of the commands of a name."""
    counter = itertools.count()

    def keep(items):
        kept = []
        for item in items:
            if isinstance(item, CommandLoop):
                kept.append(replace(item, body=keep(item.body)))
            elif item.mnemonic != mnemonic or next(counter) != occurrence:
                kept.append(item)
        return tuple(kept)

    return replace(program, commands=keep(program.commands))
