"""Every row of the operator table, compiled and executed step by step, computes its numpy meaning."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from networks import relative_error
from op_cases import OpCase, larger, samples
from pipeline import Values, compile_graph

from birc.compiler.ir.graph import Graph
from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.table import OPS
from birc.runtime.errors import UnsupportedError

TOLERANCE = 1e-5
TCORE_TOLERANCE = 2e-3
NARROW_TOLERANCE = {"bf16": 4e-3, "f16": 1e-3}

JUMPING = frozenset(
    {"mod", "floor", "ceil", "round", "sign", "equal", "less", "less_equal", "greater", "greater_equal"}
)

UNSUPPORTED = {
    "cast-3": "no instruction loads or stores f64",
}
"""Samples without device code, and why. The list may only become shorter."""


def _key(case: OpCase) -> str:
    return "-".join(case.label.split("-")[:2])


def _cases(found: Iterable[OpCase]) -> list[object]:
    """Parameters for those cases whose style means something for an operand."""
    return [pytest.param(case, id=case.label) for case in found if case.build() is not None]


SUPPORTED = _cases(case for case in samples() if _key(case) not in UNSUPPORTED)
LARGER = _cases(larger())


def _graph(case: OpCase) -> tuple[Graph, Values]:
    built = case.build()
    if built is None:
        raise ValueError(f"{case.label} does not apply")
    return built


def _check(actual: Values, graph: Graph, inputs: Values, tolerance: float) -> None:
    for name, expected in run_graph(graph, inputs).items():
        element = graph.type_of(name).dtype
        assert actual[name].shape == expected.shape
        if element.is_float:
            limit = max(tolerance, NARROW_TOLERANCE.get(element.name, 0.0))
            assert relative_error(actual[name], expected) <= limit
        else:
            np.testing.assert_array_equal(actual[name], expected)


def _tolerance(case: OpCase) -> float:
    return TCORE_TOLERANCE if case.entry.category == "contraction" else TOLERANCE


@pytest.mark.parametrize("case", SUPPORTED)
def test_samples_on_operands_of_every_kind(case: OpCase) -> None:
    graph, inputs = _graph(case)
    compiled = compile_graph(graph, "tiny")
    compiled.verify()
    _check(compiled.step(inputs), graph, inputs, _tolerance(case))


@pytest.mark.parametrize("case", LARGER)
def test_larger_uses(case: OpCase) -> None:
    graph, inputs = _graph(case)
    compiled = compile_graph(graph, "tiny")
    compiled.verify()
    _check(compiled.step(inputs), graph, inputs, _tolerance(case))


@pytest.mark.parametrize("case", LARGER[::9])
def test_random_order_changes_nothing(case: OpCase) -> None:
    graph, inputs = _graph(case)
    compiled = compile_graph(graph, "tiny")
    expected = compiled.step(inputs)
    for name, actual in compiled.step(inputs, "random", seed=1).items():
        assert actual.tobytes() == expected[name].tobytes()


@pytest.mark.parametrize("case", LARGER[4::11])
def test_one_die_with_all_its_spcs(case: OpCase) -> None:
    graph, inputs = _graph(case)
    compiled = compile_graph(graph, "br104")
    compiled.verify()
    _check(compiled.step(inputs), graph, inputs, _tolerance(case))


@pytest.mark.parametrize("case", LARGER[2::11])
def test_bf16_storage(case: OpCase) -> None:
    if case.op in JUMPING:
        pytest.skip("next to a jump a rounded operand gives another result")
    graph, inputs = _graph(case)
    compiled = compile_graph(graph, "br100", "bf16")
    compiled.verify()
    _check(compiled.step(inputs), graph, inputs, 2e-2)


def _unsupported() -> dict[str, OpCase]:
    return {_key(case): case for case in samples() if case.style == "plain" and _key(case) in UNSUPPORTED}


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_unsupported_uses_are_refused_by_name(key: str) -> None:
    graph, _ = _graph(_unsupported()[key])
    with pytest.raises(UnsupportedError, match=UNSUPPORTED[key]) as caught:
        compile_graph(graph, "tiny")
    op = key.rpartition("-")[0]
    assert f"{op} (n0)" in str(caught.value)


def test_every_row_computes_something() -> None:
    """No row is left out altogether."""
    computed = {case.op for case in samples() if case.style == "plain" and _key(case) not in UNSUPPORTED}
    assert computed == {entry.name for entry in OPS}
