"""The search for the plan: graphs and divisions worth comparing, each finished and simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from birc.codegen.kernel_code import KernelWriter
from birc.codegen.program_code import generate
from birc.compiler.fitting import Outcome, best_outcome, least_shortage
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel, Plan
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import Pass, run_passes
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.depth_first import with_less_room
from birc.compiler.passes.follow import Known, following
from birc.compiler.passes.in_place import in_place
from birc.compiler.passes.local_chains import local_chains
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.near_constants import near_constants
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.shared_constants import first_uses, share_constants
from birc.compiler.passes.side_by_side import side_by_side
from birc.compiler.passes.tile import MOST_TIMED, Solved, constants_of, signature, tile, tiled
from birc.runtime.errors import DoesNotFitError, InternalError
from birc.runtime.machine import Machine
from birc.runtime.program import Program
from birc.runtime.residents import later_calls
from birc.runtime.timing.engine import latency_and_hbm_bytes
from birc.runtime.timing.kernels import KernelTimer

SHARING_TRIALS: Final = (0, 1, 2, 3, 4, 6, 8, 12, 20)
"""How many constants are not shared, of those that dies could share, in the order of use: tried one after the other."""

FEW_TIMED: Final = 3
"""Tilings of a product that are timed to find chains of kernels: there are many to look at."""

LITTLE: Final = 1 / 16
"""Share of an SPC's memory that no plan misses."""


@dataclass(frozen=True, slots=True)
class Found:
    """A plan, the kernels that it came from, and what it takes; None where nothing else was there to compare with."""

    lowered: Lowered
    plan: Plan
    outcome: Outcome | None


@dataclass(slots=True)
class PlanSearch:
    """Finds plans for a machine. What it tiled or timed once it remembers. Below -O2 the first that fits is taken.

    Where weights stay on the chip, the latency of calls that find them there counts.
    """

    machine: Machine
    precision: str
    opt_level: int
    resident_weights: bool = False
    tell: Callable[[str], None] = lambda _: None
    _tilings: Solved = field(default_factory=dict)
    _rough_tilings: Solved = field(default_factory=dict)
    _following: Known = field(default_factory=dict)
    _taken: dict[object, tuple[int, int]] = field(default_factory=dict)  # by structure of kernels
    writer: KernelWriter = field(init=False)
    _timer: KernelTimer = field(init=False)

    def __post_init__(self) -> None:
        self.writer = KernelWriter(self.machine)
        self._timer = KernelTimer(self.machine)

    @property
    def steps(self) -> tuple[tuple[str, Callable[[Plan, Machine], Plan]], ...]:
        """The phases that finish a plan, by name."""
        return (
            ("tile", self._tile),
            ("schedule", schedule),
            ("allocate", partial(allocate, resident_weights=self.resident_weights)),
        )

    def _tile(self, plan: Plan, machine: Machine) -> Plan:
        """The plan with tilings, and (from -O2) with products that follow others as one kernel."""
        if self.opt_level < 2:
            return tile(plan, machine, self._tilings)
        clock = KernelClock(self._timer)
        tiled_plan = tile(plan, machine, self._tilings, clock.cycles)
        return following(tiled_plan, machine, clock.together, self._following)

    def plan(self, graph: Graph, *, timed: bool = False) -> Found:
        """The plan of a fused graph of whose finished program simulation says the best.

        Raises `DoesNotFitError` when none fits. With `timed` a plan without rivals is simulated, too.
        """
        lowered = lower_graph(graph, self.machine, self.precision, joins_neighbours=self.opt_level >= 2)
        plans = partitions(graph, lowered, self.machine, self.resident_weights)
        if self.opt_level >= 2:
            plans = tuple(more for plan in plans for more in self._with_pairs(plan))
            plans += tuple(two for plan in plans if (two := side_by_side(plan, self.machine, self._busy)))
            plans = tuple(in_place(near_constants(plan, self.machine) or plan) for plan in plans)
        if len(plans) == 1 and not timed:
            return Found(lowered, plans[0], None)
        found: list[tuple[Outcome, Plan]] = []
        failures: list[DoesNotFitError] = []
        for number, plan in enumerate(plans):
            self.tell(f"plan {number + 1} of {len(plans)}")
            try:
                program = self._program(plan)
            except DoesNotFitError as error:
                failures.append(error)
                continue
            if self.opt_level < 2:
                return Found(lowered, plan, None)
            found.append((self._outcome(program), plan))
        if not found:
            raise least_shortage(failures) if failures else InternalError("there is no plan")
        outcome, best = found[best_outcome([outcome for outcome, _ in found])]
        return Found(lowered, best, outcome)

    def fastest(self, graph: Graph, ways: Sequence[Sequence[Pass]]) -> tuple[Sequence[Pass], Found]:
        """Of several lists of passes the one after which the graph is fastest, and its plan.

        Raises `DoesNotFitError` when nothing fits.
        """
        found: list[tuple[Sequence[Pass], Found]] = []
        failures: list[DoesNotFitError] = []
        for passes in ways:
            try:
                found.append((passes, self.plan(run_passes(graph, passes), timed=True)))
            except DoesNotFitError as error:
                failures.append(error)
        if not found:
            raise least_shortage(failures)
        outcomes = [way.outcome for _, way in found if way.outcome is not None]
        return found[best_outcome(outcomes)]

    def shared(self, found: Found) -> Plan:
        """The found plan with constants that its dies share, the more the better, as long as it is not slower.

        Below -O2, and where weights stay on the chip, nothing is shared.
        """
        plan = found.plan
        uses = [] if self.opt_level < 2 or self.resident_weights else first_uses(plan, self.machine)
        trials = [uses[place] for place in SHARING_TRIALS if place < len(uses)]
        if not trials:
            return plan
        self.tell("constants that the dies share")
        unshared = found.outcome or self._outcome(self._program(plan))
        for first in trials:
            shared = share_constants(plan, self.machine, first)
            if self._outcome(self._program(shared)).latency_cycles <= unshared.latency_cycles:
                return shared
        return plan

    def _with_pairs(self, plan: Plan) -> tuple[Plan, ...]:
        """The plan and the one whose pairs of kernels keep tensors to SPCs; that one alone where it needs no room.

        Weights that are to stay on the chip may need all of it.
        """
        paired = local_chains(plan, self.machine, partial(self._cycles, constants_of(plan)))
        if paired is None:
            return (plan,)
        is_little = paired.tensor_buffer_bytes <= LITTLE * self.machine.spc_sram_bytes
        if is_little and not self.resident_weights:
            return (paired,)
        return (plan, paired, *with_less_room(paired, self.machine))

    def _cycles(self, constants: frozenset[str], kernel: Kernel, memories: Memories) -> int:
        """The cycles of a kernel by a good tiling."""
        return self._timed(kernel, replace(memories, constants=constants), self._rough_tilings, FEW_TIMED)[0]

    def _busy(self, kernel: Kernel, memories: Memories) -> tuple[int, int]:
        """The cycles of a kernel by its best tiling, and those in which the ALU works."""
        return self._timed(kernel, memories, self._tilings, MOST_TIMED)

    def _timed(self, kernel: Kernel, memories: Memories, tilings: Solved, most: int) -> tuple[int, int]:
        key = signature(kernel, memories), most
        if key not in self._taken:
            clock = KernelClock(self._timer)
            chosen = tiled(kernel, self.machine, memories, tilings, clock.cycles, most)
            self._taken[key] = clock.busy(chosen, memories, self.machine)
        return self._taken[key]

    def _program(self, plan: Plan) -> Program:
        for _, step in self.steps:
            plan = step(plan, self.machine)
        return generate(plan, self.machine, self.writer).program

    def _outcome(self, program: Program) -> Outcome:
        outcome = self._outcome_within(program, math.inf)
        if outcome is None:
            raise InternalError("a program takes no time", where=program.name)
        return outcome

    def _outcome_within(self, program: Program, most_cycles: float) -> Outcome | None:
        """What a program takes; None when that is more than so many cycles."""
        found = latency_and_hbm_bytes(later_calls(program), self.machine, timer=self._timer, most_cycles=most_cycles)
        return Outcome(*found) if found is not None else None
