"""Which of several plans is the best, and what would help where none fits the memory: tried out, not guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from birc.compiler.passes.allocation.shortage import ShortageError
from birc.runtime.errors import BircError, DoesNotFitError
from birc.runtime.machine import Machine, load_machine, machine_names

LESS_MEMORY: Final[Mapping[str, tuple[str, ...]]] = {"model": ("bf16",), "fp32": ("model", "bf16")}
"""The precisions that may take less memory than another one."""

ABOUT_AS_FAST: Final = 1.02
"""Latencies of so little difference are not worth more traffic."""

MOST_TRIES: Final = 3
"""Sizes of a dimension that are tried."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a compilation goes by: the sizes of the open dimensions by name, the precision, the target."""

    sizes: Mapping[str, int]
    precision: str
    machine: Machine


Attempt = Callable[[Trial], None]
"""Compiles as far as memory is given out; raises what compiling raises."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a plan was found to take: latency, and bytes through HBM."""

    latency_cycles: int
    hbm_bytes: Fraction


def best_outcome(outcomes: Sequence[Outcome]) -> int:
    """The number of the fastest; of those that are about as fast, the one that moves the fewest bytes through HBM."""
    least = min(outcome.latency_cycles for outcome in outcomes)
    near = [n for n, outcome in enumerate(outcomes) if outcome.latency_cycles <= ABOUT_AS_FAST * least]
    return min(near, key=lambda n: (outcomes[n].hbm_bytes, outcomes[n].latency_cycles, n))


def least_shortage(failures: Sequence[DoesNotFitError]) -> DoesNotFitError:
    """Of the reasons why several plans do not fit, the one that asks for the least HBM, or L2; else the last."""
    for space in ("hbm", "l2"):
        short = [error for error in failures if isinstance(error, ShortageError) and error.space == space]
        if short:
            return min(short, key=lambda error: error.needed_bytes)
    return failures[-1]


def advised(error: ShortageError, trial: Trial, options: Mapping[str, str], attempt: Attempt) -> ShortageError:
    """The error with a hint that names what was found to fit: smaller sizes, other precisions, other targets.

    `options` are what the sizes are given with on the command line, up to the number.
    """
    found = [
        *_smaller(error, trial, options, attempt),
        *(
            f"--precision {precision}"
            for precision in LESS_MEMORY.get(trial.precision, ())
            if _problem(attempt, Trial(trial.sizes, precision, trial.machine)) is None
        ),
        *_larger_targets(error, trial, attempt),
    ]
    hint = "no smaller size, other precision or other target was found to fit"
    if error.space == "l2":
        found.append("the same where weights need not stay on the chip (without --resident-weights)")
    if found:
        hint = f"what would fit: {', or '.join(found)}"
    return error.with_hint(hint)


def _smaller(error: ShortageError, trial: Trial, options: Mapping[str, str], attempt: Attempt) -> Iterator[str]:
    """For each open dimension a smaller size that fits."""
    for name, size in trial.sizes.items():
        fitting = _fitting_size(error, trial, attempt, name, size)
        if fitting is not None:
            yield f"{options[name]}{fitting}"


def _fitting_size(error: ShortageError, trial: Trial, attempt: Attempt, name: str, size: int) -> int | None:
    """A size of a dimension that fits, near the largest one: memory grows in proportion, beside a constant."""
    capacity = error.capacity_bytes
    points = [(size, error.needed_bytes)]
    for _ in range(MOST_TRIES):
        smaller = _estimate(points, capacity)
        if smaller < 1:
            return None
        problem = _problem(attempt, Trial({**trial.sizes, name: smaller}, trial.precision, trial.machine))
        if problem is None:
            return smaller
        if not isinstance(problem, ShortageError):
            return None
        points.append((smaller, problem.needed_bytes))
    return None


def _estimate(points: Sequence[tuple[int, int]], capacity: int) -> int:
    """The size at which the line through the last two points, or through zero and the only one, meets the capacity."""
    size, needed = points[-1]
    larger, more = points[-2] if len(points) > 1 else (0, 0)
    slope = (needed - more) / (size - larger)
    if slope <= 0:
        return 0
    return min(size - 1, int(size - (needed - capacity) / slope))


def _larger_targets(error: ShortageError, trial: Trial, attempt: Attempt) -> Iterator[str]:
    """The first target of birc with more of the memory on which it fits."""
    for name in machine_names():
        machine = load_machine(name)
        on_chip = machine.spc_sram_bytes
        has = {"hbm": machine.hbm_bytes_per_die, "l2": machine.spcs_per_die * on_chip, "tb": on_chip}[error.space]
        if has >= error.needed_bytes and _problem(attempt, Trial(trial.sizes, trial.precision, machine)) is None:
            yield f"--target {name}"
            return


def _problem(attempt: Attempt, trial: Trial) -> BircError | None:
    """Why a trial does not fit; None when it does."""
    try:
        attempt(trial)
    except BircError as error:
        return error
    return None
