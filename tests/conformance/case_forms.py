"""The forms in which a case runs: as it is, with symbolic dimensions that are fixed, with inputs as constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx_cases import Case

OLDEST_IR_WITH_HIDDEN_INITIALISERS = 4


@dataclass(frozen=True, slots=True)
class Formed:
    """A case in one form: the model, the sizes of its symbols, and what it is fed."""

    model: onnx.ModelProto
    dims: Mapping[str, int]
    feeds: Mapping[str, Any]


def as_is(case: Case) -> Formed:
    """The case itself."""
    return Formed(case.model, {}, case.feeds)


def symbolic(case: Case) -> Formed | None:
    """Every dimension of every input is a symbol of its own, whose size is given when the model is compiled.

    As exporters do, dimensions of outputs are symbols too: one of an input where the sizes coincide, else one
    without a size. None for a case whose inputs have no dimensions.
    """
    model = _copied(case.model)
    dims: dict[str, int] = {}
    for place, entry in enumerate(_given_tensors(model)):
        for axis, dim in enumerate(entry.type.tensor_type.shape.dim):
            if dim.dim_value >= 1:  # nothing else can be given as a size
                symbol = f"d{place}_{axis}"
                dims[symbol] = dim.dim_value
                dim.dim_param = symbol
    if not dims:
        return None
    by_size = {size: symbol for symbol, size in reversed(dims.items())}
    for place, entry in enumerate(model.graph.output):
        for axis, dim in enumerate(entry.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                dim.dim_param = by_size.get(dim.dim_value, f"out{place}_{axis}")
    del model.graph.value_info[:]
    return Formed(model, dims, case.feeds)


def weights(case: Case) -> Formed | None:
    """All inputs but the first are constants. None for a case that has no second one."""
    return _with_constants(case, 1)


def constant(case: Case) -> Formed | None:
    """All inputs are constants. None for a case without inputs that can be."""
    return _with_constants(case, 0)


FORMS: Mapping[str, Callable[[Case], Formed | None]] = {
    "as_is": as_is,
    "symbolic": symbolic,
    "weights": weights,
    "constant": constant,
}


def _with_constants(case: Case, first: int) -> Formed | None:
    """The case with its inputs from position `first` on as initialisers; sequences and optionals stay inputs."""
    model, feeds = _copied(case.model), dict(case.feeds)
    turned = {}
    for entry in _given_tensors(model)[first:]:
        if isinstance(feeds.get(entry.name), np.ndarray):
            turned[entry.name] = numpy_helper.from_array(np.asarray(feeds.pop(entry.name)), entry.name)
    if not turned:
        return None
    kept = [entry for entry in model.graph.input if entry.name not in turned]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(turned.values())
    model.ir_version = max(model.ir_version, OLDEST_IR_WITH_HIDDEN_INITIALISERS)
    return Formed(model, {}, feeds)


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _given_tensors(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are tensors and have no initialiser."""
    initialised = {tensor.name for tensor in model.graph.initializer}
    return [e for e in model.graph.input if e.name not in initialised and e.type.HasField("tensor_type")]
