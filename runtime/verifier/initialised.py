"""Which bytes hold a value: inputs and constants at first, then whatever runs, copies, transfers wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from birc.runtime.machine import Machine
from birc.runtime.program import Descriptor, Program
from birc.runtime.residents import Resident
from birc.runtime.verifier.boxes import whole_view
from birc.runtime.verifier.byteset import ByteSet, byte_range, bytes_of, empty
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.traffic import Traffic

LIMIT_WRITTEN = "memory is written before it is read"


class Initialised:
    """The written bytes of every memory: HBM and L2 of each die, the tensor buffer of each SPC."""

    def __init__(self, program: Program, machine: Machine, findings: Findings) -> None:
        self._program = program
        self._findings = findings
        spcs = machine.spcs_per_die
        self._written: list[dict[str, list[ByteSet]]] = []
        for die in range(program.dies):
            tensor_buffers = [empty() for _ in range(spcs)]
            hbm = [_given(program, die)]
            self._written.append({"hbm": hbm, "l2": [empty()], "tb": tensor_buffers})

    def add_residents(self, residents: Iterable[Resident]) -> None:
        """What earlier calls left in L2 holds a value."""
        for item in residents:
            part = byte_range(item.address, item.address + item.num_bytes)
            for die, written in enumerate(self._written):
                if item.dies >> die & 1:
                    written["l2"][0] = written["l2"][0].union(part)

    def run(self, name: str, die: int, traffic: Traffic, views: Mapping[int, Descriptor]) -> None:
        """Check what a kernel reads, then add what it writes."""
        for access in traffic.model.accesses:
            if access.store:
                continue
            view, home = views[access.slot].at_home(die)
            if self._missing(home, view, traffic.read_hulls(access)) is None:
                continue
            missing = self._missing(home, view, traffic.reads(access))
            if missing is not None:
                what = f"reads {view.space} bytes {missing[0]} to {missing[1]}, not written by then ({name})"
                self._findings.add(access.place.name(), what, LIMIT_WRITTEN, place=(access.place.name(), "written"))
        for access in traffic.model.accesses:
            if access.store:
                view, home = views[access.slot].at_home(die)
                self._add(home, view, traffic.writes(access))

    def copy(self, name: str, source: Descriptor, source_die: int, target: Descriptor, target_die: int) -> None:
        """Check what a copy reads, then add what it writes: the same bytes in the tensor buffer of every SPC."""
        missing = self._missing(source_die, source, [bytes_of(source, whole_view(source))])
        if missing is not None:
            what = f"reads {source.space} bytes {missing[0]} to {missing[1]}, not written by then"
            self._findings.add(name, what, LIMIT_WRITTEN)
        part = bytes_of(target, whole_view(target)) or empty()
        self._add(target_die, target, [part] * len(self._written[target_die][target.space]))

    def check_outputs(self) -> None:
        """At the end every byte of the outputs must be written."""
        for port in self._program.outputs:
            for piece in port.pieces:
                view = self._program.descriptors[piece.descriptor]
                for die in range(self._program.dies):
                    if not piece.dies >> die & 1:
                        continue
                    missing = self._missing(die, view, [bytes_of(view, whole_view(view))])
                    if missing is not None:
                        what = f"bytes {missing[0]} to {missing[1]} on die {die} are never written"
                        self._findings.add(f"output {port.name}", what, "outputs are written whole")

    def _missing(self, die: int, view: Descriptor, parts: list[ByteSet | None]) -> tuple[int, int] | None:
        """The first bytes that are read and not written; all of the view where the bytes are too many to
        follow.
        """
        for written, part in zip(self._written[die][view.space], parts, strict=False):
            if part is None:
                low = view.address
                return low, low
            missing = written.first_missing(part.moved(view.address))
            if missing is not None:
                return missing
        return None

    def _add(self, die: int, view: Descriptor, parts: list[ByteSet]) -> None:
        written = self._written[die][view.space]
        for index, part in enumerate(parts):
            written[index] = written[index].union(part.moved(view.address))


def _given(program: Program, die: int) -> ByteSet:
    """Constants and inputs in the HBM of a die."""
    result = empty()
    for image in program.constants:
        if image.dies >> die & 1:
            result = result.union(byte_range(image.address, image.address + image.num_bytes))
    for port in program.inputs:
        for piece in port.pieces:
            if piece.dies >> die & 1:
                view = program.descriptors[piece.descriptor]
                part = bytes_of(view, whole_view(view)) or empty()
                result = result.union(part.moved(view.address))
    return result
