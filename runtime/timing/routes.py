"""Which ports a box's bytes pass, and what share of them an SPC has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine
from birc.runtime.program import OTHER_L2, Affine, Box, Descriptor, Kernel
from birc.runtime.timing.ports import Port, Route
from birc.runtime.timing.steps import affine_range, instructions_in
from birc.runtime.timing.traffic import count_in_bounds

_SECTIONS = {"uma16": 16, "uma8": 8, "uma4": 4, "numa": 1}


@cache
def exact(value: float) -> Fraction:
    """The decimal fraction that a figure of the machine file stands for."""
    return Fraction(repr(value))


def sections_of(mapping: str, machine: Machine) -> int:
    """Over how many HBM sections a mapping interleaves."""
    return min(_SECTIONS[mapping], machine.hbm_sections_per_die)


def streaming_bytes_per_cycle(machine: Machine, sections: int) -> Fraction:
    """What a long stream gets from `sections` HBM sections."""
    return sections * exact(machine.hbm_bytes_per_cycle_per_section) * exact(machine.hbm_efficiency)


@dataclass(slots=True)
class RoutePlan:
    """The routes of one kernel on one die.

    `active` maps the SPCs that work in the kernel to the variables of their SPC loops; `multicast` is the
    kernel's mode; `boxes` come with the iterations of the loops around them. HBM is shared evenly by the SPCs that use
    the same sections in this kernel, the link by those that store to the other die, as much as each does.
    """

    machine: Machine
    multicast: str
    active: Mapping[int, tuple[int, ...]]
    boxes: Sequence[tuple[Box, Descriptor, tuple[int, ...]]]
    _users: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    _sent: dict[int, int] = field(default_factory=dict)  # bytes

    def __post_init__(self) -> None:
        for box, descriptor, trips in self.boxes:
            if descriptor.space == OTHER_L2:
                num_bytes = dtype(descriptor.dtype).bits // 8
                for spc in self.active:
                    self._sent[spc] = self._sent.get(spc, 0) + num_bytes * self._inside(box, descriptor, trips, spc)
            if not self._is_narrow(descriptor):
                continue
            for spc in self.active:
                self._users.setdefault(self._section_group(box, descriptor, spc), set()).add(spc)

    @property
    def depends_on_spcs(self) -> bool:
        """Whether an SPC may take another route than its neighbour."""
        return self.multicast != "none" or bool(self._users) or bool(self._sent)

    def _is_narrow(self, descriptor: Descriptor) -> bool:
        """Whether what is described lies in some sections of HBM."""
        sections = sections_of(descriptor.mapping, self.machine)
        return descriptor.space == "hbm" and sections < self.machine.hbm_sections_per_die

    def route(self, box: Box, descriptor: Descriptor, spc: int, *, store: bool, tile_load: bool) -> Route:
        """The route of a box on SPC `spc`; only tile loads can be merged by multicast."""
        machine = self.machine
        noc = Port("noc out" if store else "noc in", exact(machine.noc_bytes_per_cycle))
        whole = Fraction(1)
        if descriptor.space == "tb":
            port = Port("tensor buffer", exact(machine.tb_to_gib_bytes_per_cycle))
            return Route("tb", store, ((port, whole),), machine.tb_latency_cycles)
        receivers = self._receivers(box, descriptor, spc) if tile_load else 1
        part = Fraction(1, receivers)
        if descriptor.space == OTHER_L2:
            share = Fraction(max(1, self._sent[spc]), max(1, sum(self._sent.values())))
            link = Port("link", exact(machine.d2d_bytes_per_cycle) * share)
            return Route("d2d", store, ((link, whole), (noc, whole)), machine.l2_other_die_latency_cycles)
        if descriptor.space == "l2":
            local = descriptor.mapping == "numa"
            latency = machine.l2_local_latency_cycles if local else machine.l2_remote_latency_cycles
            usage = ((noc, whole),) if store else ((self._l2_port(), whole), (noc, whole))
            return Route("l2", store, usage, latency, receivers)
        memory = tuple((port, part) for port in self._hbm_ports(box, descriptor, spc))
        return Route("hbm", store, (*memory, (noc, whole)), machine.hbm_latency_cycles, receivers)

    def _inside(self, box: Box, descriptor: Descriptor, trips: tuple[int, ...], spc: int) -> int:
        """The elements of a tensor that an SPC moves with a box, in all iterations together."""
        known = self.active[spc]
        values = dict(enumerate(trips))
        count, cut, depths = 1, [], set()
        for axis, low, dim in zip(box.axes, descriptor.lower, descriptor.dims, strict=True):
            own = Affine(
                _spc_part(axis.start.constant, axis.start.terms, known),
                tuple(term for term in axis.start.terms if term[0] >= len(known)),
            )
            first, last = affine_range(own, values)
            reach = (axis.extent - 1) * axis.step
            if low <= first + min(0, reach) and last + max(0, reach) < low + dim:
                count *= axis.extent
            else:
                cut.append((own, axis, low, low + dim))
                depths |= {depth for depth, _ in own.terms}
        count *= math.prod(trips[depth] for depth in range(len(known), len(trips)) if depth not in depths)
        points = itertools.product(*(range(n if depth in depths else 1) for depth, n in enumerate(trips)))
        return count * sum(
            math.prod(count_in_bounds(own.at(point), axis.step, axis.extent, low, high) for own, axis, low, high in cut)
            for point in points
        )

    def _l2_port(self) -> Port:
        return Port("l2", exact(self.machine.l2_to_gib_bytes_per_cycle))

    def _hbm_ports(self, box: Box, descriptor: Descriptor, spc: int) -> tuple[Port, ...]:
        """The SPC's share of the die's HBM and, for data in some of the sections, of those."""
        machine = self.machine
        die_rate = streaming_bytes_per_cycle(machine, machine.hbm_sections_per_die)
        share = Port("hbm", die_rate / len(self.active))
        sections = sections_of(descriptor.mapping, machine)
        if sections == machine.hbm_sections_per_die:
            return (share,)
        users = len(self._users[self._section_group(box, descriptor, spc)])
        return (share, Port("hbm sections", streaming_bytes_per_cycle(machine, sections) / users))

    def _section_group(self, box: Box, descriptor: Descriptor, spc: int) -> tuple[int, int]:
        """(sections, number of the group of sections) in which the SPC's part of the tensor begins."""
        machine = self.machine
        sections = sections_of(descriptor.mapping, machine)
        group_bytes = sections * machine.hbm_bytes_per_die // machine.hbm_sections_per_die
        offset = 0
        rows = zip(box.axes, descriptor.strides, descriptor.lower, descriptor.dims, strict=True)
        for axis, stride, low, dim in rows:
            start = _spc_part(axis.start.constant, axis.start.terms, self.active[spc])
            offset += min(max(start, low), low + dim - 1) * stride
        address = descriptor.address + offset * (dtype(descriptor.dtype).bits // 8)
        return sections, address // group_bytes

    def _receivers(self, box: Box, descriptor: Descriptor, spc: int) -> int:
        """How many SPCs receive one multicast of this load: the mode's group, if all load the same."""
        group_of = self._multicast_group()
        if group_of is None or not descriptor.mapping.startswith("uma"):
            return 1
        group = [other for other in self.active if group_of(other) == group_of(spc)]
        starts = {
            tuple(_spc_part(axis.start.constant, axis.start.terms, self.active[other]) for axis in box.axes)
            for other in group
        }
        return len(group) if len(starts) == 1 else 1

    def _multicast_group(self) -> Callable[[int], int] | None:
        per_vmc = self.machine.spcs_per_vmc
        return {
            "dtg": lambda spc: 0,
            "vtg": lambda spc: spc // per_vmc,
            "peer": lambda spc: spc % per_vmc,
        }.get(self.multicast)


def boxes_in(kernel: Kernel) -> Iterator[tuple[Box, tuple[int, ...]]]:
    """Every box of a kernel with the iterations of the loops around it, outermost first."""
    for instruction, trips in instructions_in(kernel.nests):
        yield from ((operand, trips) for operand in instruction.operands if isinstance(operand, Box))


def _spc_part(constant: int, terms: tuple[tuple[int, int], ...], variables: tuple[int, ...]) -> int:
    """An affine number at the SPC's variables and the first iteration of every other loop."""
    return constant + sum(c * variables[depth] for depth, c in terms if depth < len(variables))
