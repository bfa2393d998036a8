"""The values engine: executes a program's commands in order, each kernel on whole arrays.

Its results are those of the sequential order. Each kernel is raised once for what is bound to its slots, apart from
the addresses, so that a stack of layers shares one form.
"""

from __future__ import annotations

from birc.runtime.counts import Counts
from birc.runtime.errors import UsageError
from birc.runtime.machine import Machine
from birc.runtime.memory import Memory
from birc.runtime.program import Program
from birc.runtime.values.blocks import Blocking
from birc.runtime.values.preparation import Fallback, Preparation
from birc.runtime.values.stages import Stage, execute_stage, group
from birc.runtime.values.workers import Workers


class ValuesEngine:
    """Executes one program, as often as asked.

    `threads` is the number of threads for large kernels, by default the cores of the process; `blocking` says how
    these are cut. After a run `fallbacks` lists the kernels that could not be executed on whole arrays throughout.

    What the host puts on several dies (constants, pieces of inputs) must be the same on all of them: dies that do the
    same with it are computed once. When a memory is run again, its constants must be what they were: their packed
    form is kept, and copies of constants that no instruction reads as they lie there are not made again. Such a run is
    a later call: what is marked `once` in the stream is left out.
    """

    def __init__(
        self,
        program: Program,
        machine: Machine,
        threads: int | None = None,
        blocking: Blocking | None = None,
    ) -> None:
        if program.dies > machine.dies:
            raise UsageError(f"the program needs {program.dies} dies, {machine.name} has {machine.dies}")
        self._program = program
        self._machine = machine
        self._workers = Workers(threads)
        self._blocking = blocking or Blocking()
        self._prepared: Preparation | None = None
        self._stages: list[Stage] = []
        self._memory: Memory | None = None  # of the last run

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """The kernels that fell back, known after the first run."""
        return tuple(self._prepared.fallbacks) if self._prepared is not None else ()

    def run(self, memory: Memory) -> Counts:
        """Execute the whole program on `memory`; returns what was executed.

        Raises `MachineFault` for an instruction that cannot be carried out.
        """
        if self._prepared is None:
            self._prepared = Preparation(self._program, self._machine, self._workers, self._blocking)
            self._stages = group(self._prepared.actions, self._workers.threads)
        again = memory is self._memory
        self._memory = None
        if not again:
            self._prepared.forget_operands()
        counts = Counts()
        with self._workers.engaged():
            for stage in self._stages:
                execute_stage(stage, memory, counts, self._workers, again=again)
        self._memory = memory
        return counts

    def begin_again(self) -> None:
        """The next run is a first call, whatever memory it is on: another program has used the device."""
        self._memory = None
