"""Actions grouped so that two dies that work on their own are executed by two threads at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from birc.runtime.counts import Counts
from birc.runtime.memory import Memory
from birc.runtime.values.actions import Action
from birc.runtime.values.workers import Workers

# Less balanced dies, or dies with less to do (in multiply-adds), are executed one after the other.
_LEAST_BALANCE: Final = 0.6
_LEAST_COST: Final = 1e6


@dataclass(frozen=True, slots=True)
class Stage:
    """Actions in order; `by_die` are the same ones as two independent lists, empty when they are not worth it."""

    actions: tuple[Action, ...]
    by_die: tuple[tuple[Action, ...], ...]


def group(actions: Sequence[Action], threads: int) -> list[Stage]:
    """Stages that are executed one after the other: between them, data goes from die to die."""
    stages: list[Stage] = []
    section: list[Action] = []
    for action in actions:
        if len(action.dies) > 1:
            _close(stages, section, threads)
            stages.append(Stage((action,), ()))
            section = []
        else:
            section.append(action)
    _close(stages, section, threads)
    return stages


def _close(stages: list[Stage], section: list[Action], threads: int) -> None:
    if not section:
        return
    by_die = tuple(tuple(action for action in section if action.dies == (die,)) for die in range(2))
    costs = sorted(sum(action.cost for action in of_die) for of_die in by_die)
    apart = threads == 2 and costs[0] >= max(_LEAST_COST, _LEAST_BALANCE * costs[1])
    stages.append(Stage(tuple(section), by_die if apart else ()))


def execute_stage(stage: Stage, memory: Memory, counts: Counts, workers: Workers, *, again: bool) -> None:
    """Execute the actions of a stage."""
    if not stage.by_die:
        for action in stage.actions:
            action(memory, counts, workers.all, again=again)
        return
    parts = [Counts() for _ in stage.by_die]

    def execute(die: int) -> None:
        for action in stage.by_die[die]:
            action(memory, parts[die], workers.lanes[die], again=again)

    workers.all.each(range(len(stage.by_die)), lambda die, _: execute(die), len(stage.by_die))
    for part in parts:
        _add(counts, part)


def _add(counts: Counts, part: Counts) -> None:
    for (kernel, number), entry in part.instructions.items():
        counts.add(
            kernel,
            number,
            executions=entry.executions,
            bytes_read=entry.bytes_read,
            bytes_written=entry.bytes_written,
            macs=entry.macs,
        )
    for command, num_bytes in part.copies.items():
        counts.add_copy(command, num_bytes)
