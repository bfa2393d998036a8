"""Across commands: memory that runs, copies and transfers share, in every order that the machine allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from birc.runtime.machine import Machine
from birc.runtime.program import OTHER_L2, Command, Descriptor, Program
from birc.runtime.residents import residents
from birc.runtime.verifier.boxes import Boxes, overlaps, whole_view
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.first_call import written_resident
from birc.runtime.verifier.initialised import Initialised
from birc.runtime.verifier.kernels import KernelModel, relative, used_slots
from birc.runtime.verifier.layout import byte_span, capacity_bytes, command_places
from birc.runtime.verifier.ordering import Ordering
from birc.runtime.verifier.stream import Issue, issues
from birc.runtime.verifier.traffic import Touch, Traffic

MOVES = ("run", "preload", "copy", "transfer")
LIMIT_AHEAD = "what is loaded ahead lies in HBM or L2"
LIMIT_ORDER = "conflicting accesses are ordered by a barrier, or by a wait for the copy's event"


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a die's memory by an operation.

    `boxes` has one box for each SPC (`by_spc`: of a run on this die) or others; those of a copy into tensor buffers
    are in all of them. `low`, `high` is the byte range around. What a run does, here or on the other die, is checked
    inside the kernel (`of_run`).
    """

    operation: int
    name: str
    descriptor: Descriptor
    boxes: Boxes
    by_spc: bool
    store: bool
    low: int
    high: int
    of_run: bool = False


class CommandCheck:
    """Goes through a program's commands in the sequential order; checks each against those before it."""

    def __init__(self, program: Program, machine: Machine, findings: Findings) -> None:
        self._program = program
        self._machine = machine
        self._findings = findings
        self._ordering = Ordering(program, findings)
        self._initialised = Initialised(program, machine, findings)
        self._slots: list[dict[int, Descriptor]] = [{} for _ in range(program.dies)]
        self._spcs: list[int | None] = [None] * program.dies
        self._uses: list[list[Use]] = [[] for _ in range(program.dies)]
        self._met: list[list[Use]] = [[] for _ in range(program.dies)]  # those that all kernels to come are behind
        self._reaches_over = any(command.mnemonic == "transfer" for _, command, _ in command_places(program.commands))
        self._reaches_over |= any(descriptor.space == OTHER_L2 for descriptor in program.descriptors)
        self._models: dict[tuple[object, ...], Traffic | None] = {}
        self._apart: dict[tuple[object, ...], bool] = {}
        self._residents = tuple(residents(program))
        self._fills_buffers = any(map(self._fills_buffer, command_places(program.commands)))

    def of_later_calls(self, later: Program) -> CommandCheck:
        """The check of the stream without the commands of the first call, which left their targets filled."""
        other = CommandCheck(later, self._machine, self._findings)
        other._residents, other._models, other._apart = self._residents, self._models, self._apart
        other._initialised.add_residents(self._residents)
        return other

    def check(self) -> None:
        """Find everything that is wrong between commands, and inside the kernels that they run."""
        actions: dict[str, Callable[[Issue], None]] = {
            "launch": self._launch,
            "bind": self._bind,
            "run": self._run,
            "preload": self._preload,
            "barrier": self._barrier,
            "copy": self._copy,
            "transfer": self._transfer,
            "wait": self._wait,
        }
        for issue in issues(self._program):
            if issue.command.mnemonic in MOVES:
                self._check_launched(issue)
            actions[issue.command.mnemonic](issue)
        self._ordering.finish()
        self._initialised.check_outputs()

    def _dies(self, issue: Issue) -> list[int]:
        return [die for die in range(self._program.dies) if issue.command.dies >> die & 1]

    def _launch(self, issue: Issue) -> None:
        mask = issue.number("spcs")
        if not 0 < mask < 1 << self._machine.spcs_per_die:
            self._findings.add(issue.text, f"SPC mask {mask:#x}", f"{self._machine.spcs_per_die} SPCs a die")
        for die in self._dies(issue):
            self._ordering.undisturbed(issue, die)
            self._spcs[die] = mask

    def _bind(self, issue: Issue) -> None:
        descriptor = self._advanced(issue, "descriptor", "advance")
        for die in self._dies(issue):
            self._ordering.undisturbed(issue, die)
            self._slots[die][issue.number("slot")] = descriptor

    def _advanced(self, issue: Issue, name: str, advance: str | None) -> Descriptor:
        """A command's descriptor in this iteration; a finding when it leaves its memory."""
        index = issue.number(name)
        descriptor = self._program.descriptors[index]
        if advance is not None:
            descriptor = issue.advanced(descriptor, advance)
        low, high = byte_span(descriptor)
        capacity = capacity_bytes(descriptor.space, self._program, self._machine)
        if low < 0 or high > capacity:
            what = f"descriptor {index} reaches bytes {low} to {high} of {descriptor.space}"
            self._findings.add(issue.text, what, f"{capacity} B", place=issue.place)
        return descriptor

    def _wait(self, issue: Issue) -> None:
        for die in self._dies(issue):
            self._ordering.wait(issue, die)
        self._forget()

    def _barrier(self, issue: Issue) -> None:
        self._ordering.barrier(issue)
        self._forget()

    def _forget(self) -> None:
        """Drop uses that everything to come is ordered after, and set those apart that all kernels are."""
        everywhere = self._ordering.known_everywhere()
        for die in range(self._program.dies):
            # Only transfers and stores to the other die reach into another die's memory.
            done, met = everywhere if self._reaches_over else self._ordering.known(die), self._ordering.met(die)
            left = [use for use in self._uses[die] if not done >> use.operation & 1]
            self._met[die] = [use for use in self._met[die] if not done >> use.operation & 1]
            self._met[die] += [use for use in left if met >> use.operation & 1]
            self._uses[die] = [use for use in left if not met >> use.operation & 1]

    def _check_launched(self, issue: Issue) -> None:
        """Nothing moves before the card has been told to begin."""
        for die in self._dies(issue):
            if self._spcs[die] is None:
                what = f"die {die} has no launch before it"
                self._findings.add(issue.text, what, f"a {issue.command.mnemonic} belongs to a launch")

    # Runs.

    def _run(self, issue: Issue) -> None:
        for die in self._dies(issue):
            traffic = self._traffic(issue, die)
            if traffic is None:
                continue
            name = f"{issue.text} on die {die}"
            views = self._slots[die]
            self._initialised.run(name, die, traffic, views)
            known = self._ordering.known(die) | self._ordering.met(die)
            operation = self._ordering.run(issue, die)
            touches = traffic.touches + (traffic.in_buffers if self._fills_buffers else ())
            for touch in touches:
                view, home = views[touch.slot].at_home(die)
                use = _use_of_run(operation, name, view, touch, by_spc=home == die)
                self._check_residents(home, use)
                self._use(home, known, use)

    def _preload(self, issue: Issue) -> None:
        """What is read ahead of the run must be there already, and stay until the kernel has ended."""
        for die in self._dies(issue):
            traffic = self._traffic(issue, die)
            known = self._ordering.known(die) | self._ordering.met(die)
            beside = self._ordering.last_run(die)
            operation = self._ordering.preload(issue, die)
            name = f"{issue.text} on die {die}"
            if traffic is not None and traffic.preloads_buffer:
                self._findings.add(name, "loads from the tensor buffer, which the kernel before may use", LIMIT_AHEAD)
            for touch in traffic.preloaded if traffic is not None else ():
                self._use(die, known, _use_of_run(operation, name, self._slots[die][touch.slot], touch), beside)

    def _traffic(self, issue: Issue, die: int) -> Traffic | None:
        """The kernel with the die's bindings, checked when it is met for the first time."""
        index = issue.number("kernel")
        kernel = self._program.kernels[index]
        mask = self._spcs[die]
        if mask is None:
            return None
        slots = used_slots(kernel)
        unbound = [slot for slot in slots if slot not in self._slots[die]]
        if unbound:
            what = f"kernel {kernel.name} uses slots {unbound}, which are not bound on die {die}"
            self._findings.add(issue.text, what, "slots are bound before they are used")
            return None
        bindings = relative({slot: self._slots[die][slot] for slot in slots})
        key = (index, *bindings.items())
        if key not in self._models:
            model = KernelModel(kernel, bindings, self._machine)
            self._models[key] = Traffic(model) if model.check(self._findings) else None
        traffic = self._models[key]
        if traffic is not None and ((1 << traffic.model.spcs) - 1) & ~mask:
            what = f"kernel {kernel.name} spreads over {traffic.model.spcs} SPCs, the launch has {mask:#x}"
            self._findings.add(issue.text, what, "the SPCs of the launch")
        return traffic

    # Copies and transfers.

    def _copy(self, issue: Issue) -> None:
        target = self._advanced(issue, "dst", "dst_advance")
        source = self._advanced(issue, "src", "src_advance")
        if not self._check_pair(issue, target, source):
            return
        for die in self._dies(issue):
            known = self._ordering.known(die)
            operation = self._ordering.start()
            name = f"{issue.text} on die {die}"
            self._initialised.copy(name, source, die, target, die)
            self._use(die, known, _use_of_copy(operation, name, source, store=False))
            use = _use_of_copy(operation, name, target, store=True)
            if not issue.command.once:
                self._check_residents(die, use)
            self._use(die, known, use)
            self._ordering.copy_done(issue, die, operation, known)

    def _transfer(self, issue: Issue) -> None:
        target = self._advanced(issue, "dst", None)
        source = self._advanced(issue, "src", None)
        if self._program.dies != 2:
            self._findings.add(issue.text, f"a transfer in a program for {self._program.dies} dies", "2 dies")
            return
        if not self._check_pair(issue, target, source):
            return
        operations: dict[int, int] = {}
        known = {die: self._ordering.known(die) for die in self._dies(issue)}
        for die, before in known.items():
            operations[die] = self._ordering.start()
            name = f"{issue.text} from die {die}"
            self._initialised.copy(name, source, die, target, 1 - die)
            self._use(die, before, _use_of_copy(operations[die], name, source, store=False))
            use = _use_of_copy(operations[die], name, target, store=True)
            self._check_residents(1 - die, use)
            self._use(1 - die, before, use)
        self._ordering.transfer_done(issue, operations, known)

    def _fills_buffer(self, entry: tuple[str, Command, tuple[int, ...]]) -> bool:
        """Whether a command is a copy into tensor buffers."""
        _, command, _ = entry
        target = command.operands[0] if command.mnemonic == "copy" else None
        return isinstance(target, int) and self._program.descriptors[target].space == "tb"

    def _check_pair(self, issue: Issue, target: Descriptor, source: Descriptor) -> bool:
        if "tb" in (target.space, source.space):
            return self._check_buffer(issue, target, source)
        if target.dims != source.dims or target.dtype != source.dtype:
            what = f"copies {source.dtype} {source.dims} to {target.dtype} {target.dims}"
            self._findings.add(issue.text, what, "the same type and dims", place=issue.place)
            return False
        if OTHER_L2 in (target.space, source.space):
            what = "reaches into the L2 of the other die"
            self._findings.add(issue.text, what, "a transfer between views of the two dies", place=issue.place)
            return False
        return True

    def _check_buffer(self, issue: Issue, target: Descriptor, source: Descriptor) -> bool:
        """A copy into the tensor buffers of a die: a part for each SPC, from memory that is not of one SPC alone."""
        spcs, rank = self._machine.spcs_per_die, len(target.dims)
        grid = source.dims[: max(0, len(source.dims) - rank)]
        if source.space == "tb":
            fault = "reads from a tensor buffer", "it belongs to its SPC"
        elif issue.command.mnemonic != "copy":
            fault = "reaches into tensor buffers of the other die", "a copy on that die"
        elif source.space == OTHER_L2:
            fault = "reaches into the L2 of the other die", "a transfer between views of the two dies"
        elif target.dtype != source.dtype or target.dims != source.dims[len(grid) :]:
            what = f"copies {source.dtype} {source.dims} to {target.dtype} {target.dims} on every SPC"
            fault = what, "the same type, and the same dims behind those that number the SPCs"
        elif math.prod(grid) != spcs:
            what = f"copies {source.dims} to {target.dims} on every SPC"
            fault = f"{what}: {math.prod(grid)} parts", f"a part for each of {spcs} SPCs"
        else:
            return True
        self._findings.add(issue.text, *fault, place=issue.place)
        return False

    # Conflicts.

    def _use(self, die: int, known: int, use: Use, beside: int | None = None) -> None:
        """Check a use against all before it that are not known to be done, and remember it.

        It may be at the same time as operation `beside`, also on the same SPC.
        """
        for other in self._uses[die] if use.by_spc else (*self._uses[die], *self._met[die]):
            if other.descriptor.space != use.descriptor.space or not (other.store or use.store):
                continue
            if other.low >= use.high or use.low >= other.high or known >> other.operation & 1:
                continue
            if other.operation == use.operation and use.of_run:
                continue  # inside one kernel: checked there
            if use.descriptor.space == "tb" and use.of_run and other.of_run:
                continue  # kernels follow each other on an SPC, and none reaches the buffer of another one
            if self._meet(use, replace(other, by_spc=False) if other.operation == beside else other):
                deed = "writes" if use.store else "reads"
                theirs = "writes" if other.store else "reads"
                span = f"{use.descriptor.space} bytes {use.low} to {use.high}"
                what = f"{deed} {span}, which {other.name} {theirs}"
                self._findings.add(use.name, what, LIMIT_ORDER)
        if use.store and use.descriptor.space == "hbm":
            self._check_constants(die, use)
        self._uses[die].append(use)

    def _check_constants(self, die: int, use: Use) -> None:
        """Constants are loaded once for all calls."""
        for image in self._program.constants:
            if image.dies >> die & 1 and use.low < image.address + image.num_bytes and image.address < use.high:
                what = f"may write constant {image.key}, by bytes {use.low} to {use.high} of HBM"
                self._findings.add(use.name, what, "constants are never written")

    def _check_residents(self, die: int, use: Use) -> None:
        """What the first call brings to the chip is there for all calls."""
        if not self._residents or not use.store or use.descriptor.space != "l2":
            return
        found = written_resident(self._residents, die, use.low, use.high)
        if found is not None:
            what = f"may write bytes {use.low} to {use.high} of L2, where command {found.place} brings a constant"
            self._findings.add(use.name, what, "constants that stay on the chip are never written")

    def _meet(self, use: Use, other: Use) -> bool:
        """Whether the two may touch the same byte unordered; on the same SPC kernels follow each other."""
        key = (
            use.descriptor, use.boxes.low.tobytes(), use.boxes.high.tobytes(), use.by_spc,
            other.descriptor, other.boxes.low.tobytes(), other.boxes.high.tobytes(), other.by_spc,
        )  # fmt: skip
        known = self._apart.get(key)
        if known is None:
            pairs = overlaps(use.descriptor, use.boxes, other.descriptor, other.boxes)
            if use.by_spc and other.by_spc:
                pairs &= ~np.eye(*pairs.shape, dtype=np.bool_)
            known = self._apart[key] = bool(pairs.any())
        return known


def _use_of_run(operation: int, name: str, view: Descriptor, touch: Touch, *, by_spc: bool = True) -> Use:
    ends = view.address + touch.low, view.address + touch.high
    return Use(operation, name, view, touch.boxes, by_spc, touch.store, *ends, of_run=True)


def _use_of_copy(operation: int, name: str, view: Descriptor, *, store: bool) -> Use:
    return Use(operation, name, view, whole_view(view), False, store, *byte_span(view))
