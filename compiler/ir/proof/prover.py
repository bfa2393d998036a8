"""The prover: all claims about a finished plan, each kernel of equal structure proved once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.plan import Kernel, KernelStep, Plan
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.ir.proof.boxes import FastPath
from birc.compiler.ir.proof.flow import Flow
from birc.compiler.ir.proof.kernel_proof import KernelProof, prove_kernel, structure
from birc.compiler.ir.proof.memory import memory_flaws
from birc.compiler.ir.proof.storage import Storage, storages
from birc.runtime.errors import LimitError
from birc.runtime.machine import Machine


@dataclass(slots=True)
class Prover:
    """Proves plans, and counts what was proved.

    What was found of one kernel holds for all of its structure, also those of the next plan.
    """

    fast: FastPath
    kernels: int = 0
    accesses: int = 0
    par_loops: int = 0
    seconds: float = 0.0
    _known: dict[object, KernelProof] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """What was proved so far, in one line."""
        return (
            f"proved: {self.kernels} kernels, {self.accesses} accesses in bounds, "
            f"{self.par_loops} par loops independent, in {self.seconds:.1f} s"
        )

    def prove(self, plan: Plan, machine: Machine) -> None:
        """Prove an allocated plan for a machine.

        Raises `InvalidIRError` with every claim that does not hold, `LimitError` for one that cannot be decided.
        """
        started = time.perf_counter()
        where = f"proof of plan {plan.name!r}"
        verify_plan(plan, "allocate", machine)
        try:
            texts = tuple(dict.fromkeys(self.flaws(plan, machine)))
        except LimitError as error:
            raise LimitError(error.what, where=where, hint=error.hint) from error
        finally:
            self.seconds += time.perf_counter() - started
        if texts:
            more = f" and {len(texts) - 1} more flaws" if len(texts) > 1 else ""
            raise InvalidIRError(texts[0] + more, where=where, problems=texts, report="\n".join(texts))

    def flaws(self, plan: Plan, machine: Machine) -> Iterator[str]:
        """Every claim that does not hold, with its place. The plan must be well formed."""
        known = storages(plan, machine.spcs_per_die)
        spaces = {buffer.name: buffer.space for buffer in plan.buffers}

        def proved(kernel: Kernel) -> KernelProof:
            return self._proved(kernel, known, spaces, machine.spcs_per_die)

        for number, step in enumerate(plan.steps):
            for kernel in step.distinct if isinstance(step, KernelStep) else ():
                proof = proved(kernel)
                self.kernels += 1
                self.accesses += len(proof.touches)
                self.par_loops += sum(dimension.extent > 1 for dimension in kernel.par_dims)
                yield from (f"step {number}, kernel {kernel.name!r}: {flaw}" for flaw in proof.flaws)
        yield from map(str, Flow(plan, known, proved).flaws())
        yield from map(str, memory_flaws(plan))

    def _proved(
        self, kernel: Kernel, known: Mapping[str, Storage], spaces: Mapping[str, str], most_spcs: int
    ) -> KernelProof:
        key = structure(kernel, known)
        proof = self._known.get(key)
        # Flaws name buffers: they are found again for every kernel.
        if proof is None or proof.flaws:
            proof = self._known[key] = prove_kernel(kernel, known, spaces, most_spcs, self.fast)
        return proof
