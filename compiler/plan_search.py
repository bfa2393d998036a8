"""The search for the plan: graphs and divisions worth comparing, each finished and simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Final

from birc.codegen.generated import Generated
from birc.codegen.kernel_code import KernelWriter
from birc.codegen.program_code import generate
from birc.compiler.fitting import ABOUT_AS_FAST, Outcome, best_outcome, least_shortage
from birc.compiler.ir.found_once import found_once
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Kernel, Plan
from birc.compiler.kernel_clock import KernelClock
from birc.compiler.passes.allocate import allocate
from birc.compiler.passes.base import Pass, run_passes
from birc.compiler.passes.continuing import continuing
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.depth_first import with_less_room
from birc.compiler.passes.early_shares import early_shares
from birc.compiler.passes.follow import Known, following
from birc.compiler.passes.gather_copies import gather_copies
from birc.compiler.passes.in_place import in_place
from birc.compiler.passes.kept_outputs import kept_outputs
from birc.compiler.passes.local_chains import local_chains
from birc.compiler.passes.lower.lower import Lowered, lower_graph
from birc.compiler.passes.near_constants import near_constants
from birc.compiler.passes.near_weights import Offer, near_offers, with_near_weights
from birc.compiler.passes.opening_columns import forms_that_open, opening
from birc.compiler.passes.partition import partitions
from birc.compiler.passes.schedule import schedule
from birc.compiler.passes.shared_constants import first_uses, share_constants
from birc.compiler.passes.side_by_side import side_by_side
from birc.compiler.passes.stored_exchanges import stored_exchanges
from birc.compiler.passes.tile import MOST_TIMED, Solved, constants_of, signature, tile, tiled
from birc.runtime.errors import DoesNotFitError, InternalError
from birc.runtime.machine import Machine
from birc.runtime.residents import later_calls
from birc.runtime.timing.engine import latency_and_hbm_bytes
from birc.runtime.timing.kernels import KernelTimer

SHARING_TRIALS: Final = (0, 1, 2, 3, 4, 6, 8, 12, 20)
"""How many constants are not shared, of those that dies could share, in the order of use: tried one after the other."""

HARDLY: Final = 1 / 1000
"""Share of the latency that may be lost to read constants from HBM once, not by each die."""

FEW_TIMED: Final = 3
"""Tilings of a product that are timed to find chains of kernels: there are many to look at."""

Rearranged = tuple[Plan, Generated, Outcome]
"""An allocated plan, what is generated from it, and what that takes."""

MOST_NEAR_TRIALS: Final = 5
"""Bundles of products that are tried with their weights near, those that gain most first: each stays if it helps."""

LITTLE: Final = 1 / 16
"""Share of an SPC's memory that no plan misses."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A plan as it is after each of the phases that finish it, by name, and what is generated from it."""

    phases: Mapping[str, Plan]
    generated: Generated


@dataclass(frozen=True, slots=True)
class Found:
    """A plan, the kernels that it came from, and what it takes; None where nothing else was there to compare with.

    One that was compared is finished already.
    """

    lowered: Lowered
    plan: Plan
    outcome: Outcome | None
    finished: Finished | None = None


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
        return (("tile", self._tile), ("schedule", schedule), ("allocate", self._allocate_rearranged))

    def _allocate(self, plan: Plan, machine: Machine) -> Plan:
        return allocate(plan, machine, resident_weights=self.resident_weights)

    def _allocate_rearranged(self, plan: Plan, machine: Machine) -> Plan:
        """The plan with addresses, and (from -O2) with what `rearranged` finds for it where that is faster."""
        plan = self._allocate(plan, machine)
        faster = self._rearranged(plan) if self.opt_level >= 2 else None
        return faster[0] if faster is not None else plan

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
            plans = tuple(stored_exchanges(in_place(near_constants(plan, self.machine) or plan)) for plan in plans)
        if len(plans) == 1 and not timed:
            return Found(lowered, plans[0], None)
        if self.opt_level < 2:
            plan, finished = self._first_that_fits(plans)
            return Found(lowered, plan, None, finished)
        found: dict[int, tuple[Outcome, Finished]] = {}
        failures: list[DoesNotFitError] = []
        least: float = math.inf
        # Those of few commands first: most others take longer than these, and are given up then.
        for tried, number in enumerate(sorted(range(len(plans)), key=lambda n: plans[n].repeat * len(plans[n].steps))):
            self.tell(f"plan {tried + 1} of {len(plans)}")
            try:
                finished = self._finished(plans[number])
            except DoesNotFitError as error:
                failures.append(error)
                continue
            outcome = self._outcome(finished.generated, ABOUT_AS_FAST * least)
            if outcome is not None:
                found[number] = outcome, finished
                least = min(least, outcome.latency_cycles)
        if not found:
            raise least_shortage(failures) if failures else InternalError("there is no plan")
        numbers = sorted(found)
        best = numbers[best_outcome([found[number][0] for number in numbers])]
        return Found(lowered, plans[best], *found[best])

    def _first_that_fits(self, plans: Sequence[Plan]) -> tuple[Plan, Finished]:
        """The first plan that fits the memory, and what it is finished. Raises `DoesNotFitError` when none does."""
        failures: list[DoesNotFitError] = []
        for number, plan in enumerate(plans):
            self.tell(f"plan {number + 1} of {len(plans)}")
            try:
                return plan, self._finished(plan)
            except DoesNotFitError as error:
                failures.append(error)
        raise least_shortage(failures)

    def best_way(self, graph: Graph, ways: Sequence[Sequence[Pass]]) -> tuple[Sequence[Pass], Found]:
        """Of several lists of passes the one after which the graph is best, and its plan: the fastest, or one that is
        about as fast and moves less.

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

    def faster_way(
        self, graph: Graph, best: tuple[Sequence[Pass], Found | None], other: Sequence[Pass]
    ) -> tuple[Sequence[Pass], Found]:
        """The best passes until now and the plan after them, or other passes if the graph is faster after these.

        Latency alone decides: what is faster by little may move a little more for it, as folded norms do their shifts.
        """
        passes, known = best
        found = known or self.plan(run_passes(graph, passes), timed=True)
        try:
            rival = self.plan(run_passes(graph, other), timed=True)
        except DoesNotFitError:
            return passes, found
        if found.outcome is None or rival.outcome is None:
            return passes, found
        is_faster = rival.outcome.latency_cycles < found.outcome.latency_cycles
        return (other, rival) if is_faster else (passes, found)

    def kept(self, found: Found) -> Found:
        """The found plan with outputs on the chip for the products that read them, where that is no slower.

        Only the chosen plan is looked at: what this saves is the same in every plan, a second reading of an output.
        """
        plan = kept_outputs(found.plan) if self.opt_level >= 2 else found.plan
        if plan is found.plan:
            return found
        found = self._simulated(found)
        try:
            finished = self._finished(plan)
        except DoesNotFitError:
            return found
        best = found.outcome
        outcome = self._outcome(finished.generated, best.latency_cycles if best is not None else math.inf)
        if outcome is None or (best is not None and outcome.hbm_bytes >= best.hbm_bytes):
            return found
        return Found(found.lowered, plan, outcome, finished)

    def shared(self, found: Found) -> Found:
        """The found plan with constants that its dies share, the more the better, as long as it is hardly slower.

        What dies share is read from HBM once. Below -O2, and where weights stay on the chip, nothing is shared.
        """
        plan = found.plan
        uses = [] if self.opt_level < 2 or self.resident_weights else first_uses(plan, self.machine)
        trials = [uses[place] for place in SHARING_TRIALS if place < len(uses)]
        if not trials:
            return found
        self.tell("constants that the dies share")
        found = self._simulated(found)
        most_cycles = (1 + HARDLY) * found.outcome.latency_cycles if found.outcome is not None else math.inf
        for first in trials:
            shared = share_constants(plan, self.machine, first)
            finished = self._finished(shared)
            outcome = self._outcome(finished.generated, most_cycles)
            allocated = early_shares(finished.phases["allocate"])
            is_other = allocated is not finished.phases["allocate"]
            sent_early = self._timed_rival(allocated, outcome, most_cycles) if is_other else None
            if sent_early is not None:
                _, generated, outcome = sent_early
                finished = Finished({**finished.phases, "allocate": allocated}, generated)
            if outcome is not None:
                return Found(found.lowered, shared, outcome, finished)
        return found

    def near(self, found: Found) -> Found:
        """The found plan with weights of products in the tensor buffers, where that is faster; below -O2 as it is."""
        if self.opt_level < 2:
            return found
        offers = near_offers(found.plan, self.machine, lambda *of: self._busy(*of)[0])
        if not offers:
            return found
        self.tell("weights near the SPCs")
        best, taken = self._simulated(found), list[Offer]()
        for more in _bundles(offers, MOST_NEAR_TRIALS):
            plan = with_near_weights(found.plan, [*taken, *more], self.machine)
            if plan is None:
                continue
            try:
                finished = self._finished(plan)
            except DoesNotFitError:
                continue
            least = best.outcome.latency_cycles - 1 if best.outcome is not None else math.inf
            outcome = self._outcome(finished.generated, least)
            if outcome is not None and (best.outcome is None or best_outcome([best.outcome, outcome])):
                best = Found(found.lowered, plan, outcome, finished)
                taken += more
        return best

    def _simulated(self, found: Found) -> Found:
        """The found plan with what it takes."""
        if found.finished is not None:
            return found
        finished = self._finished(found.plan)
        return replace(found, outcome=self._outcome(finished.generated), finished=finished)

    def rearranged(self, found: Found) -> Found:
        """The found plan with copies of constants that begin together, and products that continue others as one kernel,
        where that is faster; below -O2 as it is.

        One that is not finished has them so when it is.
        """
        finished = found.finished
        if self.opt_level < 2 or finished is None:
            return found
        faster = self._rearranged(finished.phases["allocate"], found.outcome)
        if faster is None:
            return found
        plan, generated, outcome = faster
        return replace(found, outcome=outcome, finished=Finished({**finished.phases, "allocate": plan}, generated))

    def _rearranged(self, plan: Plan, outcome: Outcome | None = None) -> Rearranged | None:
        """An allocated plan after those changes that make it faster, if any: its `outcome` is known, or found where
        there is something to change."""
        found: Rearranged | None = None
        # Copies that are put off leave products that are one less time: these are looked at before.
        changes: list[Callable[[Plan], Plan]] = [early_shares, continuing, gather_copies]
        changes += [partial(opening, machine=self.machine, form=form) for form in forms_that_open(plan, self.machine)]
        for change in changes:
            other = change(plan)
            if other is plan:
                continue
            outcome = outcome or self._outcome(generate(plan, self.machine, self.writer))
            faster = self._timed_rival(other, outcome)
            if faster is not None:
                plan, _, outcome = found = faster
        return found

    def _timed_rival(self, plan: Plan, best: Outcome | None, most_cycles: float = math.inf) -> Rearranged | None:
        """An allocated plan with what it takes if that is less than the best, or at most so many cycles without one."""
        generated = generate(plan, self.machine, self.writer)
        outcome = self._outcome(generated, best.latency_cycles - 1 if best is not None else most_cycles)
        return (plan, generated, outcome) if outcome is not None else None

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

        def time() -> tuple[int, int]:
            clock = KernelClock(self._timer)
            chosen = tiled(kernel, self.machine, memories, tilings, clock.cycles, most)
            return clock.busy(chosen, memories, self.machine)

        return found_once(self._taken, key, time)

    def _finished(self, plan: Plan) -> Finished:
        """The plan after each phase; copies are left where the schedule has them."""
        tiled_plan = self._tile(plan, self.machine)
        scheduled = schedule(tiled_plan, self.machine)
        allocated = self._allocate(scheduled, self.machine)
        phases = {"tile": tiled_plan, "schedule": scheduled, "allocate": allocated}
        return Finished(phases, generate(allocated, self.machine, self.writer))

    def _outcome(self, generated: Generated, most_cycles: float = math.inf) -> Outcome | None:
        """What a program takes; None when that is more than so many cycles."""
        program = later_calls(generated.program)
        found = latency_and_hbm_bytes(program, self.machine, timer=self._timer, most_cycles=most_cycles)
        return Outcome(*found) if found is not None else None


def _bundles(offers: Sequence[Offer], most: int) -> Iterator[list[Offer]]:
    """The offers in at most so many bundles, in order; those that save as much are together."""
    alike = [list(group) for _, group in groupby(offers, lambda offer: offer.saved_cycles)]
    for number in range(min(most, len(alike))):
        begin, end = (place * len(alike) // min(most, len(alike)) for place in (number, number + 1))
        yield [offer for group in alike[begin:end] for offer in group]
