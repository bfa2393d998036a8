"""Why products of a plan that read what another product stores do not follow it as one kernel of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from birc.compiler.ir.plan import Kernel, KernelStep, Plan
from birc.compiler.passes.chain_gain import written
from birc.compiler.passes.contraction_cost import Memories
from birc.compiler.passes.follow import Clock, attempts, cycles_apart, fitting_tilings, problems, with_tilings
from birc.compiler.passes.tile import memories_of
from birc.runtime.machine import Machine


@dataclass(frozen=True, slots=True)
class Pair:
    """Two products, by the names of their kernels, of which the second reads rows that the first one stores.

    `words` say why it does not follow; they are empty where it does.
    """

    first: str
    second: str
    words: str


@dataclass(frozen=True, slots=True)
class FollowReasons:
    """Looks at the products of a plan in which those that may follow others do so, and gain by it."""

    plan: Plan
    machine: Machine
    clock: Clock

    def pairs(self) -> Iterator[Pair]:
        """The pairs in the order of the plan."""
        products: dict[str, tuple[int, KernelStep]] = {}  # by what they store
        memories = memories_of(self.plan)
        for number, step in enumerate(self.plan.steps):
            if not isinstance(step, KernelStep):
                continue
            contraction = step.kernel.contraction
            if contraction is not None and not contraction.further and contraction.a.view.buffer in products:
                place, first = products[contraction.a.view.buffer]
                words = self._words(first, step, memories) if place + 1 == number else "other steps come between them"
                yield Pair(first.kernel.name, step.kernel.name, words)
            for name in written(step):
                products.pop(name, None)
                if contraction is not None:
                    products[name] = number, step

    def _words(self, first: KernelStep, second: KernelStep, memories: Memories) -> str:
        if second.follows:
            return ""
        if first.beside or first.follows or second.beside:
            return "one of them is one kernel of the machine with others"
        for one, other in zip(first.kernels, second.kernels, strict=True):
            if one is not None and other is not None:
                words = self._words_of_die(one, other, memories)
                if words:
                    return words
            elif one is not None or other is not None:
                return "they run on different dies"
        return "as one kernel they would keep more in the tensor buffers than there is room for"

    def _words_of_die(self, first: Kernel, second: Kernel, memories: Memories) -> str:
        """What a die has against it; nothing if they would take less as one kernel."""
        if not first.has_own_parts:
            return "SPCs do not keep what lies between them: so it takes less, or there is no room"
        fitting = fitting_tilings(first, second, self.machine)
        if not fitting:
            *_, tilings = attempts(first, second, self.machine)  # those that need least
            return next(problems(first, second, tilings[-1], self.machine))
        cycles = min(self.clock(with_tilings((first, second), pair), memories, self.machine) for pair in fitting)
        apart = cycles_apart(first, second, memories, self.machine, self.clock)
        return f"as one kernel they take {cycles:,} cycles on a die, apart {apart:,}" if cycles >= apart else ""
