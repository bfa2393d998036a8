"""Optimisation changes no value: every network at `-O0` and at `-O3`, both verified, both near the reference."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import pytest
from example_networks import SMALL, random_inputs, small
from networks import (
    EXPORTED,
    OTHER_OPSETS,
    SHIPPED,
    Values,
    exported_network,
    onnxruntime_outputs,
    relative_error,
    shipped_network,
)

from birc.compiler.driver import compile_model
from birc.runtime.session import load

TOLERANCE = {"model": 2e-3, "bf16": 2e-2}
BETWEEN_LEVELS = {"model": 1e-4, "bf16": 2e-2}
PLAIN, BEST = 0, 3
NETWORKS = (
    *(("example", name) for name in SMALL),
    *(("exported", name) for name in (*EXPORTED, *OTHER_OPSETS)),
    *(("shipped", name) for name in SHIPPED),
)
SOON = {
    *(("exported", name, "tiny", "model") for name in EXPORTED),
    *(("example", name, "br100", "bf16") for name in ("bert", "gpt2")),
}
"""What takes seconds at most."""


def cases() -> Iterator[object]:
    """Every network on both machines in both precisions."""
    for kind, name in NETWORKS:
        for target in ("tiny", "br100"):
            for precision in TOLERANCE:
                case = kind, name, target, precision
                yield pytest.param(*case, marks=[] if case in SOON else [pytest.mark.slow], id="-".join(case))


def network(kind: str, name: str) -> tuple[onnx.ModelProto, Values, Values]:
    """A model, inputs, and what PyTorch or onnxruntime makes of them."""
    if kind == "exported":
        return exported_network(name)
    if kind == "shipped":
        model, inputs = shipped_network(name)
    else:
        model = small(name)
        inputs = random_inputs(model)
    return model, inputs, onnxruntime_outputs(model, inputs)


@pytest.mark.parametrize(("kind", "name", "target", "precision"), list(cases()))
def test_plain_and_best_programs_have_the_same_values(kind: str, name: str, target: str, precision: str) -> None:
    """The verifier has seen both: a package cannot be made otherwise."""
    model, inputs, expected = network(kind, name)
    packages = [compile_model(model, target, precision, opt_level=level) for level in (PLAIN, BEST)]
    plain, best = (package for package in packages if package is not None)
    assert plain.programs != best.programs
    values = [load(package).run(inputs) for package in (plain, best)]
    for output, reference in expected.items():
        for found in values:
            assert relative_error(found[output], reference) <= TOLERANCE[precision]
        assert relative_error(values[1][output], values[0][output]) <= BETWEEN_LEVELS[precision]
