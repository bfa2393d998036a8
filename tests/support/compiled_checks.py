"""Checks that a compiled graph is right in every way: verified, proved, and with the values of the graph.

check_compiled(compiled)
"""

from __future__ import annotations

import numpy as np
from graph_maker import random_inputs
from pipeline import Compiled

from birc.compiler.ir.interpreter import run_graph
from birc.compiler.prove import new_prover


def check_compiled(found: Compiled, tolerance: float) -> None:
    """Raises when the program or the plan is wrong, or an output differs by more, relative and absolute."""
    found.verify()
    assert not list(new_prover().flaws(found.plan, found.machine))
    inputs = random_inputs(found.graph)
    (expected,) = run_graph(found.graph, inputs).values()
    (actual,) = found.values(inputs).values()
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
