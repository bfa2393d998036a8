"""What a die reads has been written there, element by element, and the outputs are written whole.

The parts of a kernel that different dies compute are put together by exchanges and at the outputs: what is missing of
them, or there twice, is found here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from birc.compiler.ir.affine import Range, variable
from birc.compiler.ir.plan import (
    Boundary,
    CopyStep,
    Exchange,
    ExchangeStep,
    FillStep,
    Kernel,
    KernelStep,
    Plan,
    ShareStep,
)
from birc.compiler.ir.plan_access import accesses
from birc.compiler.ir.polyhedra import Elements
from birc.compiler.ir.proof.flaw import Flaw, flaw
from birc.compiler.ir.proof.kernel_proof import KernelProof
from birc.compiler.ir.proof.storage import Storage

RANK = 4
"""Numbers that tell an element: round, SPC, word, position."""


@dataclass(slots=True)
class Flow:
    """The elements that each die has written, while the steps are followed."""

    plan: Plan
    storages: Mapping[str, Storage]
    proved: Callable[[Kernel], KernelProof]
    written: list[dict[str, Elements]] = field(default_factory=list)
    complete: list[set[str]] = field(default_factory=list)
    """Buffers of which everything is written."""
    halves: list[set[str]] = field(default_factory=list)
    """Buffers of which the die's own half of a shared constant is written."""

    def flaws(self) -> Iterator[Flaw]:
        """Elements that are read or given out before they are written, and parts that overlap."""
        yield from self._steps_of_rounds()
        for boundary in self.plan.inputs:
            yield from self._piece_conflicts(f"input {boundary.name!r}", boundary)
        self._begin()
        for number, step in enumerate(self.plan.steps):
            match step:
                case KernelStep(kernels):
                    yield from self._run(f"step {number}", kernels)
                    yield from self._written_twice(f"step {number}", kernels)
                case CopyStep(source, target):
                    self._copy(source, target)
                case FillStep():
                    yield from self._fill(f"step {number}", step)
                case ShareStep(name):
                    yield from self._share(f"step {number}", name)
                case ExchangeStep(exchanges):
                    yield from self._exchange(f"step {number}", exchanges)
        for boundary in self.plan.outputs:
            yield from self._output(boundary)

    def _steps_of_rounds(self) -> Iterator[Flaw]:
        for name, storage in self.storages.items():
            if storage.step_bytes % storage.element_bytes:
                yield flaw(f"%{name}", f"moves on by {storage.step_bytes} bytes, elements have {storage.element_bytes}")

    def _begin(self) -> None:
        """Constants and inputs are there from the beginning."""
        constants = {buffer.name for buffer in self.plan.buffers if buffer.role == "constant"}
        self.halves = [set() for _ in range(self.plan.dies)]
        self.written = [{} for _ in range(self.plan.dies)]
        self.complete = [set(constants) for _ in range(self.plan.dies)]
        for boundary in self.plan.inputs:
            for dies, _, view in boundary.pieces:
                for die in range(self.plan.dies):
                    if dies >> die & 1:
                        self._add(die, view.buffer, partial(self.storages[view.buffer].viewed, view))

    def _add(self, die: int, name: str, elements: Callable[[], Elements]) -> None:
        if name in self.complete[die]:
            return
        before = self.written[die].get(name)
        self.written[die][name] = now = elements() if before is None else before | elements()
        if now.equals(self.storages[name].whole()):
            self.complete[die].add(name)

    def _missing(self, die: int, name: str, needed: Callable[[], Elements]) -> str:
        """The first element that is needed and not written; "" when there is none."""
        if name in self.complete[die]:
            return ""
        found = needed().example_beyond(self.written[die].get(name) or Elements.none(RANK))
        return "" if found is None else _named(found, self.storages[name])

    def _run(self, where: str, kernels: Sequence[Kernel | None]) -> Iterator[Flaw]:
        for die, kernel in enumerate(kernels):
            if kernel is None:
                continue
            place = f"{where}, die {die}, kernel {kernel.name!r}"
            proof = self.proved(kernel)
            for number, (access, touch) in enumerate(zip(accesses(kernel), proof.touches, strict=True)):
                name = access.view.buffer
                if touch.stores:
                    self._add(die, name, partial(proof.image, number))
                    continue
                missing = self._missing(die, name, partial(proof.image, number))
                if missing:
                    yield flaw(place, f"{touch.owner} reads {missing} of %{name}, which is not written there")

    def _written_twice(self, where: str, kernels: Sequence[Kernel | None]) -> Iterator[Flaw]:
        """Elements that two parts of a divided kernel write, in buffers that the dies make whole by exchanges."""
        exchanged = {e.view.buffer for s in self.plan.steps if isinstance(s, ExchangeStep) for e in s.exchanges}
        parts = [kernel for kernel in dict.fromkeys(kernels) if kernel is not None]
        before: list[tuple[str, Elements]] = []
        for part in parts:
            proof = self.proved(part)
            stores = [
                (access.view.buffer, proof.image(number))
                for number, (access, touch) in enumerate(zip(accesses(part), proof.touches, strict=True))
                if touch.stores and access.view.buffer in exchanged
            ]
            for name, elements in stores:
                for other, others in before:
                    common = (elements & others).example() if name == other else None
                    if common is not None:
                        what = f"two dies write {_named(common, self.storages[name])} of %{name}"
                        yield flaw(f"{where}, kernel {part.name!r}", what)
            before += stores

    def _copy(self, source: str, target: str) -> None:
        """What is written of the source is then written of the target, which has the same elements."""
        shared = next(buffer.shared for buffer in self.plan.buffers if buffer.name == source)
        for die in range(self.plan.dies):
            if shared:
                self.halves[die].add(target)
            elif source in self.complete[die]:
                self.complete[die].add(target)
            elif source in self.written[die] and self.storages[source] == self.storages[target]:
                self._add(die, target, partial(self.written[die].__getitem__, source))

    def _fill(self, where: str, step: FillStep) -> Iterator[Flaw]:
        """Every SPC gets its part of what is written."""
        source, target = step.source.buffer, step.target.buffer
        for die in (die for die in range(self.plan.dies) if step.dies >> die & 1):
            missing = self._missing(die, source, partial(self.storages[source].viewed, step.source))
            if missing:
                yield flaw(where, f"fills with {missing} of %{source}, which is not written on die {die}")
            self._add(die, target, partial(self.storages[target].viewed, step.target))

    def _share(self, where: str, name: str) -> Iterator[Flaw]:
        """Each die has one half of a constant, and gets the other."""
        missing = [die for die in range(self.plan.dies) if name not in self.halves[die]]
        yield from (flaw(where, f"die {die} sends its half of %{name}, which is not written there") for die in missing)
        if not missing:
            for complete in self.complete:
                complete.add(name)

    def _exchange(self, where: str, exchanges: Sequence[Exchange]) -> Iterator[Flaw]:
        sent = [(e, self.storages[e.view.buffer].viewed(e.view)) for e in exchanges]
        for exchange in exchanges:
            name = exchange.view.buffer
            missing = self._missing(exchange.sender, name, partial(self.storages[name].viewed, exchange.view))
            if missing:
                yield flaw(where, f"die {exchange.sender} sends {missing} of %{name}, which is not written there")
        for number, (one, elements) in enumerate(sent):
            for other, others in sent[:number]:
                if one.view.buffer != other.view.buffer or one.sender == other.sender:
                    continue
                common = (elements & others).example()
                if common is not None:
                    what = _named(common, self.storages[one.view.buffer])
                    yield flaw(where, f"both dies send {what} of %{one.view.buffer}")
        for exchange in exchanges:
            name = exchange.view.buffer
            for die in range(self.plan.dies):
                if die != exchange.sender:
                    self._add(die, name, partial(self.storages[name].viewed, exchange.view))

    def _output(self, boundary: Boundary) -> Iterator[Flaw]:
        where = f"output {boundary.name!r}"
        for dies, _, view in boundary.pieces:
            storage = self.storages[view.buffer]
            for die in range(self.plan.dies):
                if not dies >> die & 1:
                    continue
                written = self.written[die].get(view.buffer) or Elements.none(RANK)
                if view.buffer in self.complete[die]:
                    continue
                # A round writes its part: together they must write everything.
                missing = storage.viewed(view).without(0).example_beyond(written.without(0))
                if missing is not None:
                    what = _named((0, *missing), storage)
                    yield flaw(where, f"{what} of %{view.buffer} is never written on die {die}")
        yield from self._piece_conflicts(where, boundary)
        yield from _piece_flaws(boundary)

    def _piece_conflicts(self, where: str, boundary: Boundary) -> Iterator[Flaw]:
        """Elements of a tensor that lie in one element of a die's memory, of one piece or of two."""
        for number, (dies, _, view) in enumerate(boundary.pieces):
            twice = self.storages[view.buffer].twice(view)
            if twice is not None:
                yield flaw(where, f"two elements of a piece lie in element {twice} of %{view.buffer}")
            for other_dies, _, other in boundary.pieces[:number]:
                if dies & other_dies and view.buffer == other.buffer:
                    storage = self.storages[view.buffer]
                    common = (storage.viewed(view) & storage.viewed(other)).example()
                    if common is not None:
                        yield flaw(where, f"two pieces lie in {_named(common, storage)} of %{view.buffer}")


def _piece_flaws(boundary: Boundary) -> Iterator[Flaw]:
    """The pieces of an output on different dies have no element in common, and leave none out."""
    where = f"output {boundary.name!r}"
    if not math.prod(boundary.shape) or not boundary.pieces:
        return
    parts = [_box(start, boundary.part(view)) for _, start, view in boundary.pieces]
    together = Elements.none(len(boundary.shape))
    for part in parts:
        common = (together & part).example()
        if common is not None:
            yield flaw(where, f"element {list(common)} is in two pieces")
        together |= part
    missing = _box([0] * len(boundary.shape), boundary.shape).example_beyond(together)
    if missing is not None:
        yield flaw(where, f"element {list(missing)} is in no piece")


def _box(start: Sequence[int], extents: Sequence[int]) -> Elements:
    names = [f"axis {axis}" for axis in range(len(start))]
    limits = zip(names, start, extents, strict=True)
    ranges = tuple(Range(variable(name), first, first + extent) for name, first, extent in limits)
    return Elements.image(ranges, tuple(map(variable, names)))


def _named(element: Sequence[int], storage: Storage) -> str:
    number, spc, word, position = element
    parts = [f"element {position}"]
    parts += [f"word {word}"] if storage.halved else []
    parts += [f"of SPC {spc}"] if storage.is_local else []
    parts += [f"in round {number}"] if storage.rounds > 1 else []
    return " ".join(parts)
