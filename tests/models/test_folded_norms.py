"""Decoders whose norms are folded into the products around them: as near to onnxruntime as without any fusion."""

from __future__ import annotations

import pytest
from example_networks import random_inputs, small
from networks import onnxruntime_outputs, relative_error

from birc.compiler.driver import compile_model
from birc.runtime.session import load

SIZES = {"batch": 4, "layers": 1, "sequence": 128, "hidden": 512, "heads": 8}
OTHERS = {"gpt2": {"positions": 128}, "llama": {"intermediate": 1024}}


@pytest.mark.parametrize("name", OTHERS)
def test_values_are_as_near_as_those_of_plain_kernels(name: str) -> None:
    model = small(name, **SIZES, **OTHERS[name])
    inputs = random_inputs(model)
    (expected,) = onnxruntime_outputs(model, inputs).values()
    errors, latencies = [], []
    for level in (0, 3):
        package = compile_model(model, "br100", "bf16", opt_level=level)
        assert package is not None
        assert ("fold_norms" in package.manifest.passes) == (level == 3)
        session = load(package)
        (found,) = session.run(inputs).values()
        errors.append(relative_error(found, expected))
        latencies.append(session.profile(with_range=False).latency_us)
    assert errors[1] <= 1.2 * errors[0]
    assert errors[1] <= 2e-2
    assert latencies[1] < latencies[0]
