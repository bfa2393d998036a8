"""The commands of a program as actions on a memory, prepared once and executed in every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from birc.runtime.conversion import memory_type
from birc.runtime.counts import Counts
from birc.runtime.faults import MachineFault
from birc.runtime.machine import Machine
from birc.runtime.memory import Memory, byte_range, origin_address
from birc.runtime.program import Kernel
from birc.runtime.stepping.commands import Copy
from birc.runtime.stepping.instructions import execute as execute_step
from birc.runtime.stepping.spc import Binding, Spc
from birc.runtime.stepping.walk import KernelWalk
from birc.runtime.values.frame import Tensor
from birc.runtime.values.kernels import ConstantOperands, RaisedKernel, execute
from birc.runtime.values.workers import Lane

Bindings = Mapping[int, Binding]


class Action(Protocol):
    """Something that a run does, and counts: on one die, or between two; `cost` is in multiply-adds."""

    @property
    def dies(self) -> tuple[int, ...]:
        """The dies whose memory it touches."""

    @property
    def cost(self) -> float:
        """How much work it is."""

    def __call__(self, memory: Memory, counts: Counts, lane: Lane, *, again: bool) -> None:
        """Do it. `again` tells that the last run used this memory too."""


@dataclass(frozen=True, slots=True)
class RunRaised:
    """A kernel on one die, on whole arrays."""

    raised: RaisedKernel
    kernel: int
    die: int
    bindings: Bindings
    operands: ConstantOperands

    @property
    def dies(self) -> tuple[int, ...]:
        return dies_of(self.die, self.bindings)

    @property
    def cost(self) -> float:
        return self.raised.cost

    def __call__(self, memory: Memory, counts: Counts, lane: Lane, *, again: bool) -> None:
        tensors = {slot: tensor(memory, binding, self.die) for slot, binding in self.bindings.items()}
        execute(self.raised, tensors, lane, self.operands)
        count_raised(self.raised, self.kernel, counts)


@dataclass(frozen=True, slots=True)
class TakeResults:
    """A kernel on die 1 that computes the same as on die 0 has just been computed."""

    raised: RaisedKernel
    kernel: int
    results: tuple[Binding, ...]

    @property
    def dies(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def cost(self) -> float:
        return 0

    def __call__(self, memory: Memory, counts: Counts, lane: Lane, *, again: bool) -> None:
        for binding in self.results:
            for spc in range(self.raised.spcs if binding.descriptor.space == "tb" else 1):
                source = memory.view(binding.descriptor, 0, spc, binding.byte_offset)
                np.copyto(memory.view(binding.descriptor, 1, spc, binding.byte_offset), source)
        count_raised(self.raised, self.kernel, counts)


@dataclass(frozen=True, slots=True)
class RunStepping:
    """A kernel on one die, instruction by instruction, SPC after SPC."""

    kernel: int
    described: Kernel
    machine: Machine
    walk: KernelWalk
    die: int
    spcs: tuple[int, ...]
    bindings: Bindings

    @property
    def dies(self) -> tuple[int, ...]:
        return dies_of(self.die, self.bindings)

    @property
    def cost(self) -> float:
        return 0

    def __call__(self, memory: Memory, counts: Counts, lane: Lane, *, again: bool) -> None:
        for spc in self.spcs:
            state = Spc(memory, self.machine, self.described, self.bindings, die=self.die, spc=spc)
            for step in self.walk.steps(spc):
                effect = execute_step(state, step)
                counts.add(
                    self.kernel,
                    step.index,
                    bytes_read=effect.bytes_read,
                    bytes_written=effect.bytes_written,
                    macs=effect.macs,
                )


@dataclass(slots=True)
class MakeCopy:
    """A copy or transfer. With `once` it brings constants that nothing reads where it puts them.

    A copy of the first call only is not made, nor counted, in the runs that follow on the same memory.
    """

    copy: Copy
    once: bool = False

    @property
    def dies(self) -> tuple[int, ...]:
        return tuple(sorted({self.copy.source_die, self.copy.target_die}))

    @property
    def cost(self) -> float:
        return 0

    def __call__(self, memory: Memory, counts: Counts, lane: Lane, *, again: bool) -> None:
        if again and self.copy.issue.command.once:
            return
        source = _copied(memory, self.copy.source, self.copy.source_die)
        counts.add_copy(self.copy.issue.index, source.nbytes)
        if again and self.once:
            return
        if self.copy.target.descriptor.space == "tb":
            self._fill_buffers(memory, source)
            return
        target = _copied(memory, self.copy.target, self.copy.target_die)
        _check_equal(source, target)
        np.copyto(target, source)

    def _fill_buffers(self, memory: Memory, source: np.ndarray) -> None:
        """The parts of the SPCs, in order, each into the tensor buffer of its own."""
        binding, die = self.copy.target, self.copy.target_die
        if die != self.copy.source_die:
            raise MachineFault("a transfer cannot reach a tensor buffer", hint="a copy on the other die can")
        dims, spcs = binding.descriptor.dims, memory.tb[die].shape[0]
        if source.size != spcs * np.prod(dims, dtype=np.int64) or source.shape[source.ndim - len(dims) :] != dims:
            raise MachineFault(f"copies {list(source.shape)} to {list(dims)} on each of {spcs} SPCs")
        for spc, part in enumerate(source.reshape(spcs, *dims)):
            target = memory.view(binding.descriptor, die, spc, binding.byte_offset)
            _check_equal(part, target)
            np.copyto(target, part)


def _check_equal(source: np.ndarray, target: np.ndarray) -> None:
    """Refuse to convert or to broadcast."""
    if source.shape != target.shape or source.dtype != target.dtype:
        raise MachineFault(f"copies {source.dtype} {list(source.shape)} to {target.dtype} {list(target.shape)}")


def _copied(memory: Memory, binding: Binding, die: int) -> np.ndarray:
    if binding.descriptor.space == "tb":
        raise MachineFault("a copy cannot read a tensor buffer", hint="kernels load from it, each on its SPC")
    return memory.view(binding.descriptor, die, 0, binding.byte_offset)


def dies_of(die: int, bindings: Bindings) -> tuple[int, ...]:
    """The dies in whose memory lies what is bound on one."""
    return tuple(sorted({die, *(binding.descriptor.at_home(die)[1] for binding in bindings.values())}))


def tensor(memory: Memory, binding: Binding, die: int) -> Tensor:
    """A bound tensor in a memory. Raises `MachineFault` when it leaves the memory."""
    descriptor = binding.descriptor
    if descriptor.space == "tb":
        space, size = memory.tb[die].reshape(-1), memory.tb[die].shape[1]
    else:
        space = memory.space(descriptor.space, die)
        size = space.size
    first, end = byte_range(descriptor, binding.byte_offset)
    if first < 0 or end > size:
        raise MachineFault(f"a descriptor reaches bytes {first} to {end} of {descriptor.space}, which has {size}")
    return Tensor(space, origin_address(descriptor) + binding.byte_offset)


def count_raised(raised: RaisedKernel, kernel: int, counts: Counts) -> None:
    """Count one run of a raised kernel."""
    for number, entry in raised.counts.items():
        counts.add(
            kernel,
            number,
            executions=entry.executions,
            bytes_read=entry.bytes_read,
            bytes_written=entry.bytes_written,
            macs=entry.macs,
        )


def fills(raised: RaisedKernel, stores: Mapping[int, tuple[int, ...]], slot: int, binding: Binding) -> bool:
    """Whether one store of a kernel writes all of a tensor. `stores` are the numbers of those to each slot."""
    descriptor = binding.descriptor
    size = memory_type(descriptor.dtype).itemsize * (raised.spcs if descriptor.space == "tb" else 1)
    for dim in descriptor.dims:
        size *= dim
    numbers = stores.get(slot, ())
    return any(number in raised.counts and raised.counts[number].bytes_written == size for number in numbers)
