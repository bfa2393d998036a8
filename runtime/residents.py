"""Constants that stay on the chip from call to call: the commands of the first call only, and what they leave there.

A copy marked `once` brings a constant from HBM to L2, and nothing else ever writes there. Calls that follow on a device
that ran no other program in between find it, and execute the stream without such commands. The verifier proves both
streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from birc.runtime.errors import InternalError
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.memory import byte_range
from birc.runtime.program import Command, CommandLoop, ConstantImage, Descriptor, Program

_COPY_FIELDS: Final = tuple(field.name for field in BY_MNEMONIC["copy"].fields)


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes of L2 that a copy of the first call brings to the dies of the mask, from `source` on in their HBM."""

    place: int
    dies: int
    address: int
    source: int
    num_bytes: int

    def in_image(self, image: ConstantImage, die: int) -> bool:
        """Whether all of it is content of a constant's image on a die."""
        end = image.address + image.num_bytes
        return bool(image.dies >> die & 1) and image.address <= self.source and self.source + self.num_bytes <= end


def has_residents(program: Program) -> bool:
    """Whether later calls differ from the first one."""
    return any(isinstance(item, Command) and item.once for item in program.commands)


def later_calls(program: Program) -> Program:
    """The program as later calls execute it."""
    kept = tuple(item for item in program.commands if not (isinstance(item, Command) and item.once))
    return replace(program, commands=kept)


def residents(program: Program) -> Iterator[Resident]:
    """What the copies of the first call leave in L2; `place` is the command's. Other copies are passed over."""
    for place, item in enumerate(program.commands):
        if isinstance(item, CommandLoop) or not item.once or item.mnemonic != "copy":
            continue
        target, source = (_view(program, item, name) for name in ("dst", "src"))
        if (target.space, source.space) == ("l2", "hbm"):
            first, end = byte_range(target)
            yield Resident(place, item.dies, first, byte_range(source)[0], end - first)


def resident_images(program: Program) -> tuple[ConstantImage, ...]:
    """The constants that lie on the chip whole, on every die that holds them."""
    found = tuple(residents(program))
    return tuple(
        image
        for image in program.constants
        if all(
            any(item.dies >> die & 1 and _covers(item, image) for item in found)
            for die in range(program.dies)
            if image.dies >> die & 1
        )
    )


def resident_bytes(program: Program) -> int:
    """Bytes that stay in the L2 of all dies."""
    return sum(item.num_bytes * item.dies.bit_count() for item in residents(program))


def _covers(item: Resident, image: ConstantImage) -> bool:
    return item.source <= image.address and image.address + image.num_bytes <= item.source + item.num_bytes


def _view(program: Program, command: Command, name: str) -> Descriptor:
    number = dict(zip(_COPY_FIELDS, command.operands, strict=True))[name]
    if not isinstance(number, int):
        raise InternalError(f"a copy's {name} is {number!r}, not a descriptor", where=program.name)
    return program.descriptors[number]
