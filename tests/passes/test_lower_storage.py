"""Element types in memory: FP32 in a `bf16` package for what the ops' table says, and for what only moves that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_maker import GraphMaker
from pipeline import compiled_plans

from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.op import OpRow
from birc.compiler.ir.table import OPS
from birc.compiler.ir.types import TensorType
from birc.compiler.passes.lower.lower import is_supported, lower_graph
from birc.runtime.machine import load_machine

FLOATS = [
    entry
    for entry in OPS
    if entry.category in ("elementwise", "contraction", "pool", "normalization", "reduction")
    and is_supported(entry.name)
    if all(isinstance(given, TensorType) and given.dtype.name == "f32" for given in entry.samples[0].inputs)
]


def test_statistics_of_rows_are_kept_in_f32() -> None:
    kept = {entry.name for entry in OPS if entry.in_f32}
    assert kept == {"row_moments", "row_statistics", "logsumexp"} <= {entry.name for entry in FLOATS}


@pytest.mark.parametrize("entry", FLOATS, ids=lambda entry: entry.name)
def test_results_are_stored_as_the_table_says(entry: OpRow) -> None:
    make, sample = GraphMaker(), entry.samples[0]
    result = make(entry.name, *(make.input(*type.sizes) for type in sample.types), **sample.attributes)
    if make.type_of(result).dtype.name != "f32":
        return
    lowered = lower_graph(make.graph(make("neg", result)), load_machine("tiny"), "bf16")
    assert {buffer.name: buffer.dtype for buffer in lowered.buffers}[result] == ("f32" if entry.in_f32 else "bf16")


MOVED: dict[str, Callable[[GraphMaker, str, str], str]] = {
    "one below the other": lambda make, a, b: make("concat", a, b, axis=0),
    "views": lambda make, a, b: make("concat", *(make("transpose", x, perm=(1, 0)) for x in (a, b)), axis=1),
    "thrice": lambda make, a, b: make("concat", make("concat", a, b, axis=0), a, axis=0),
    "a view that is a copy": lambda make, a, b: make(
        "reshape", make("transpose", make("concat", a, b, axis=1), perm=(1, 0)), shape=(3, 4)
    ),
}


@pytest.mark.parametrize("way", MOVED)
def test_what_moves_is_not_rounded(way: str) -> None:
    """Logarithms near a hundred, half apart in BF16."""
    make = GraphMaker()
    scores = [make.input(6, 8) for _ in range(2)]
    moved = MOVED[way](make, *(make("logsumexp", x, axis=1) for x in scores))
    graph = make.graph(make("sub", moved, make.constant(100.0)))
    generator = np.random.default_rng(0)
    inputs = {name: (100 + generator.integers(-2, 3, (6, 8)) / 2).astype(np.float32) for name in scores}
    (expected,) = run_graph(graph, inputs).values()
    for compiled in compiled_plans(graph, "tiny", "bf16"):
        (actual,) = compiled.values(inputs).values()
        np.testing.assert_allclose(actual, expected, rtol=1e-2, atol=1e-3)
