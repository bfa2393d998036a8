"""Decoders whose norms are folded into the products around them: as near to onnxruntime as without any fusion."""

from __future__ import annotations

import pytest
from example_networks import random_inputs, small
from networks import onnxruntime_outputs, relative_error

from birc.compiler.driver import compile_model
from birc.compiler.passes import constant_values
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


def test_logits_by_the_table_of_words_read_rows_that_are_not_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transposed table is a view where it is too large for one constant more."""
    monkeypatch.setattr(constant_values, "MOST_BYTES", 1 << 20)
    words = 3000
    model = small("gpt2", **SIZES, **OTHERS["gpt2"], vocab=words)
    inputs = random_inputs(model)
    (expected,) = onnxruntime_outputs(model, inputs).values()
    errors = []
    for level in (0, 3):
        package = compile_model(model, "br100", "bf16", opt_level=level)
        assert package is not None
        large = [weights for weights in package.weights.values() if weights.nbytes >= 2 * words * SIZES["hidden"]]
        assert len(large) <= 2  # One of which rows are read, and one that is multiplied.
        session = load(package)
        names = [operation.name for operation in session.profile(with_range=False).per_op]
        assert ("norm_out" in names) == (level == 0)
        (found,) = session.run(inputs).values()
        errors.append(relative_error(found, expected))
    assert errors[1] <= 1.2 * errors[0]
    assert errors[1] <= 2e-2
