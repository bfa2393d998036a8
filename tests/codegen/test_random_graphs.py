"""Random graphs: compiled programs compute what the interpreter does, fused or not, no sooner than the bounds allow."""

from __future__ import annotations

import numpy as np
from bound_checks import check_bounds
from graph_maker import random_inputs
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pipeline import compile_graph
from random_graphs import graphs

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph


@settings(max_examples=60, deadline=None)
@given(graph=graphs(), fuse=st.booleans(), precise=st.sampled_from(("tiny", "br104")))
def test_random_graph(graph: Graph, fuse: bool, precise: str) -> None:
    inputs = random_inputs(graph)
    expected = run_graph(graph, inputs)
    assume(all(np.isfinite(array).all() for array in expected.values()))
    compiled = compile_graph(graph, precise, fuse=fuse)
    compiled.verify()
    check_bounds(compiled)
    actual = compiled.step(inputs)
    for name, reference in expected.items():
        scale = float(np.abs(reference).max(initial=0.0)) + 1.0
        np.testing.assert_allclose(actual[name], reference, atol=2e-3 * scale, rtol=2e-3)
