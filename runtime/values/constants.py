"""Which tensors hold constant data: inside an image of constants, and written by no command of the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from birc.runtime.memory import byte_range
from birc.runtime.program import Program
from birc.runtime.stepping.commands import CommandState, issues, start_copy
from birc.runtime.stepping.spc import Binding

_SPACE: Final = "hbm"  # images of constants lie there


class ConstantRanges:
    """The constant byte ranges of each die's HBM."""

    __slots__ = ("_images", "_written")

    def __init__(self, program: Program, stored: Sequence[frozenset[int]]) -> None:
        """`stored` are the slots that each kernel stores to."""
        self._images = [
            [(image.address, image.address + image.num_bytes) for image in program.constants if image.dies >> die & 1]
            for die in range(program.dies)
        ]
        self._written: list[set[tuple[int, int]]] = [set() for _ in range(program.dies)]
        if not program.constants:
            return
        states = [CommandState(program) for _ in range(program.dies)]
        for issue in issues(program):
            for die, state in enumerate(states):
                if not issue.concerns(die):
                    continue
                match issue.command.mnemonic:
                    case "bind":
                        state.bind(issue)
                    case "run":
                        bindings = state.bindings()
                        for slot in stored[issue.fields["kernel"]] & bindings.keys():
                            self._write(bindings[slot], die)
                    case "copy" | "transfer":
                        copy = start_copy(program, issue, die)
                        self._write(copy.target, copy.target_die)

    def _write(self, binding: Binding, die: int) -> None:
        if binding.descriptor.space == _SPACE:
            self._written[die].add(byte_range(binding.descriptor, binding.byte_offset))

    def hold(self, binding: Binding, die: int) -> bool:
        """Whether a tensor is constant."""
        if binding.descriptor.space != _SPACE:
            return False
        first, end = byte_range(binding.descriptor, binding.byte_offset)
        inside = any(low <= first and end <= high for low, high in self._images[die])
        return inside and not any(low < end and first < high for low, high in self._written[die])
