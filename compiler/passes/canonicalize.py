"""The passes that bring every graph into one form, in their order, and running them until nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from birc.compiler.ir.graph import Graph
from birc.compiler.passes.base import OnPass, Pass, PassResult, run_passes
from birc.compiler.passes.eliminate_common import EliminateCommon
from birc.compiler.passes.eliminate_dead import EliminateDead
from birc.compiler.passes.eliminate_empty import EliminateEmpty
from birc.compiler.passes.fold_batch_norm import FoldBatchNorm
from birc.compiler.passes.fold_constants import FoldConstants
from birc.compiler.passes.recognise_composites import RecogniseComposites
from birc.compiler.passes.simplify import Simplify
from birc.runtime.errors import InternalError

CANONICALIZE: Final[tuple[Pass, ...]] = (
    EliminateDead(),
    EliminateEmpty(),
    FoldConstants(),
    FoldBatchNorm(),
    Simplify(),
    RecogniseComposites(),
    EliminateCommon(),
    EliminateDead(),
)

# Measured: exported networks settle after two or three rounds.
_MOST_ROUNDS: Final = 16


def canonicalize(graph: Graph, on_pass: OnPass | None = None, passes: Sequence[Pass] = CANONICALIZE) -> Graph:
    """Run the passes again and again until no pass changes the graph.

    Raises `InternalError`, with the passes that still change it, when it does not settle.
    """
    for _ in range(_MOST_ROUNDS):
        changed: list[str] = []

        def observe(step: Pass, before: Graph, result: PassResult, changed: list[str] = changed) -> None:
            if result.changed:
                changed.append(step.name)
            if on_pass is not None:
                on_pass(step, before, result)

        graph = run_passes(graph, passes, observe)
        if not changed:
            return graph
    names = ", ".join(changed)
    raise InternalError(f"canonicalisation does not settle in {_MOST_ROUNDS} rounds: {names} still change it")
