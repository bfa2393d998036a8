"""What no runtime checks of BatchNormalization: training before operator set 14, and statistics of single features."""

from __future__ import annotations

import numpy as np
from lowering_case import Case, case, f32

from birc.compiler.importer.importer import import_model
from birc.compiler.ir.interpreter import run_graph

EPSILON = 1e-2
MOMENTUM = 0.75
X = f32(6, 4, 2, 3)


def results(entry: Case) -> list[np.ndarray]:
    model, given = entry.model()
    graph = import_model(model)
    found = run_graph(graph, {value.name: given[value.name] for value in graph.inputs})
    return [found[f"o{place}"] for place in range(entry.outputs)]


def trained(axes: tuple[int, ...], parameters: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """In FP64: the result, the running statistics after it, and those of the batch."""
    scale, bias, mean, variance = (array.astype(np.float64) for array in parameters)
    x = X.astype(np.float64)
    along = (1, *scale.shape, *(1,) * (X.ndim - 1 - scale.ndim))
    batch_mean, batch_variance = x.mean(axes), x.var(axes)
    normal = (x - batch_mean.reshape(along)) / np.sqrt(batch_variance.reshape(along) + EPSILON)
    running = [
        MOMENTUM * old + (1 - MOMENTUM) * new
        for old, new in zip((mean, variance), (batch_mean, batch_variance), strict=True)
    ]
    return [normal * scale.reshape(along) + bias.reshape(along), *running, batch_mean, batch_variance]


def agree(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_five_results_are_training_until_operator_set_13() -> None:
    parameters = (f32(4), f32(4, low=-1.0), f32(4, high=1.0), f32(4, low=0.5))
    entry = case("BatchNormalization", X, *parameters, opset=9, outputs=5, epsilon=EPSILON, momentum=MOMENTUM)
    agree(results(entry), trained((0, 2, 3), parameters))


def test_statistics_of_single_features() -> None:
    scale, bias, mean, variance = (f32(4, 2, 3), f32(4, 2, 3, low=-1.0), f32(4, 2, 3, high=1.0), f32(4, 2, 3, low=0.5))
    parameters = (scale, bias, mean, variance)
    entry = case("BatchNormalization", X, *parameters, opset=7, epsilon=EPSILON, spatial=0)
    normal = (X.astype(np.float64) - mean) / np.sqrt(variance.astype(np.float64) + EPSILON)
    agree(results(entry), [normal * scale + bias])
    entry = case(
        "BatchNormalization", X, *parameters, opset=7, outputs=5, epsilon=EPSILON, momentum=MOMENTUM, spatial=0
    )
    agree(results(entry), trained((0,), parameters))
