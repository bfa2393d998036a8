"""What is known, before anything is executed, about where data comes from.

Two things save work. A copy of constant data is the constant: kernels read the original, whose packed form is kept,
and when nobody else reads the copy it need not be made again in later runs. And two dies often compute the same
from the same data: the second takes the results of the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from birc.runtime.conversion import memory_type
from birc.runtime.memory import byte_range
from birc.runtime.program import Descriptor, Port, Program
from birc.runtime.stepping.commands import Copy
from birc.runtime.stepping.spc import Binding
from birc.runtime.values.constants import ConstantRanges
from birc.runtime.values.intervals import IntervalMap


@dataclass(frozen=True, slots=True)
class CopyOf:
    """Bytes that copy number `copy` brought from the constants: `distance` behind their original."""

    copy: int
    distance: int


class Provenance:
    """The state of the facts while the commands are gone through in order."""

    __slots__ = ("_constants", "_copies", "_equal", "needed")

    def __init__(self, program: Program, constants: ConstantRanges) -> None:
        self._constants = constants
        self._copies: list[dict[str, IntervalMap[CopyOf]]] = [
            {"hbm": IntervalMap(), "l2": IntervalMap()} for _ in range(program.dies)
        ]
        # Of tensor buffers: on how many SPCs, from the first on.
        self._equal: dict[str, IntervalMap[int]] = {name: IntervalMap() for name in ("hbm", "l2", "tb")}
        self.needed: set[int] = set()  # copies of constants that somebody reads as they are
        if program.dies == 2:
            self._begin(program)

    def _begin(self, program: Program) -> None:
        """What the host puts on both dies is equal."""
        both = (1 << program.dies) - 1
        for image in program.constants:
            if image.dies == both:
                self._equal["hbm"].set(image.address, image.address + image.num_bytes, 1)
        for piece in (piece for port in program.inputs for piece in port.pieces):
            descriptor = program.descriptors[piece.descriptor]
            if piece.dies == both and is_dense(descriptor):
                self._equal[descriptor.space].set(*byte_range(descriptor), 1)

    def original(self, binding: Binding, die: int) -> Binding:
        """Where a tensor that a kernel loads was copied from, if it is constant; else itself."""
        space = binding.descriptor.space
        if space == "tb":
            return binding
        start, end = byte_range(binding.descriptor, binding.byte_offset)
        ranges = list(self._copies[die][space].overlapping(start, end))
        if len(ranges) == 1 and ranges[0][0] <= start and end <= ranges[0][1]:
            distance = ranges[0][2].distance
            return Binding(replace(binding.descriptor, space="hbm"), binding.byte_offset - distance)
        self.read(binding, die)
        return binding

    def read(self, binding: Binding, die: int) -> None:
        """Note that the bytes of a tensor are read where they are."""
        view, die = binding.descriptor.at_home(die)
        space = view.space
        if space != "tb":
            start, end = byte_range(binding.descriptor, binding.byte_offset)
            self.needed.update(fact.copy for _, _, fact in self._copies[die][space].overlapping(start, end))

    def read_ports(self, program: Program, ports: Iterable[Port]) -> None:
        """Note what the host reads at the end."""
        for piece in (piece for port in ports for piece in port.pieces):
            for die in range(program.dies):
                if piece.dies >> die & 1:
                    self.read(Binding(program.descriptors[piece.descriptor]), die)

    def copied(self, copy: Copy, number: int) -> bool:
        """Note a copy; whether it brought constant data."""
        source, target = copy.source, copy.target
        constant = (
            copy.source_die == copy.target_die
            and target.descriptor.space != "tb"
            and self._constants.hold(source, copy.source_die)
            and is_dense(source.descriptor)
            and is_dense(target.descriptor)
        )
        if not constant:
            self.read(source, copy.source_die)
        self.written(target, copy.target_die)
        if constant:
            start, end = byte_range(target.descriptor, target.byte_offset)
            origin, _ = byte_range(source.descriptor, source.byte_offset)
            fact = CopyOf(number, start - origin)
            self._copies[copy.target_die][target.descriptor.space].set(start, end, fact)
        return constant

    def written(self, binding: Binding, die: int) -> None:
        """Note that a tensor is written by one die."""
        view, die = binding.descriptor.at_home(die)
        space = view.space
        start, end = byte_range(binding.descriptor, binding.byte_offset)
        if space != "tb":
            self._copies[die][space].clear(start, end)
        self._equal[space].clear(start, end)

    # The same on both dies.

    def is_equal(self, binding: Binding, spcs: int) -> bool:
        """Whether a tensor holds the same on both dies, one in tensor buffers on the first `spcs` SPCs."""
        space, reach = binding.descriptor.space, byte_range(binding.descriptor, binding.byte_offset)
        known = self._equal[space]
        return known.covers(*reach) and (space != "tb" or all(fact >= spcs for _, _, fact in known.overlapping(*reach)))

    def made_equal(self, binding: Binding, spcs: int) -> None:
        """Note that all of a tensor was written with the same values on both dies, by or for the first `spcs` SPCs."""
        if is_dense(binding.descriptor):
            start, end = byte_range(binding.descriptor, binding.byte_offset)
            self._equal[binding.descriptor.space].set(start, end, spcs)


def is_dense(descriptor: Descriptor) -> bool:
    """Whether a tensor's elements fill their byte range, each once."""
    step = 1
    for dim, stride in sorted(zip(descriptor.dims, descriptor.strides, strict=True), key=lambda pair: pair[1]):
        if dim == 1:
            continue
        if stride != step:
            return False
        step *= dim
    memory_type(descriptor.dtype)
    return 0 not in descriptor.dims
