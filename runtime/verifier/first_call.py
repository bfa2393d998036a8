"""Commands of the first call only: what they may be, so that later calls find what they brought."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from birc.runtime.program import Command, Descriptor, Program
from birc.runtime.residents import Resident, residents
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.layout import command_places

_KINDS: Final = ("copy", "wait")
_LIMIT: Final = "copies of constants from HBM to L2, and waits for them, outside of loops"


def check_first_call(program: Program, findings: Findings) -> None:
    """Find what commands marked `once` do that a later call could miss.

    They bring constants, whole rows of bytes, to places of their own. That nothing else writes there, and that the
    other commands are right without them, is checked with the streams.
    """
    brought = {item.place: item for item in residents(program)}
    top = {id(item): number for number, item in enumerate(program.commands)}
    for where, command, trips in command_places(program.commands):
        if not command.once:
            continue
        if trips or command.mnemonic not in _KINDS:
            findings.add(where, f"{command.mnemonic} in the first call only", _LIMIT)
        elif command.mnemonic == "copy":
            fault = _copy_fault(program, command, brought.get(top[id(command)]))
            if fault is not None:
                findings.add(where, fault, _LIMIT)
    for die in range(program.dies):
        here = sorted((item for item in brought.values() if item.dies >> die & 1), key=lambda item: item.address)
        for one, other in pairwise(here):
            if other.address < one.address + one.num_bytes:
                what = f"brings bytes to {other.address} of L2, where command {one.place} does"
                findings.add(f"command {other.place}", what, "what stays on the chip lies apart")


def _copy_fault(program: Program, command: Command, resident: Resident | None) -> str | None:
    views = [program.descriptors[number] for number in command.operands[:2] if isinstance(number, int)]
    if resident is None:
        return "a copy in the first call only that is not from HBM to L2"
    if not all(map(_is_row_major, views)):
        return "a copy in the first call only that leaves gaps"
    for die in range(program.dies):
        if resident.dies >> die & 1 and not any(resident.in_image(image, die) for image in program.constants):
            return f"brings what is not constant on die {die} in the first call only"
    return None


def _is_row_major(view: Descriptor) -> bool:
    strides = (math.prod(view.dims[place + 1 :]) for place in range(len(view.dims)))
    return not any(view.lower) and tuple(strides) == tuple(view.strides)


def written_resident(items: Sequence[Resident], die: int, low: int, high: int) -> Resident | None:
    """The first that a write of these bytes of a die's L2 may change."""
    return next(
        (
            item
            for item in items
            if item.dies >> die & 1 and low < item.address + item.num_bytes and item.address < high
        ),
        None,
    )
