"""What a model computes by somebody else's reckoning: onnxruntime, or onnx's own reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator

from birc.runtime.errors import BadModelError

Array = npt.NDArray[Any]


def reference_outputs(path: str | Path, inputs: Mapping[str, Array]) -> dict[str, Any]:
    """The outputs of the ONNX model in a file, by name.

    onnxruntime computes them when it is installed, else onnx itself. Raises `BadModelError` when the model
    cannot be read, or not be run on these inputs.
    """
    where = str(path)
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf and onnx raise many types, none of them public
        raise BadModelError(f"cannot be read as an ONNX model: {error}", where=where) from error
    names = [output.name for output in model.graph.output]
    initialized = {tensor.name for tensor in model.graph.initializer}
    wanted = {value.name for value in model.graph.input} - initialized
    if wanted - inputs.keys():
        what = f"the reference model wants {', '.join(sorted(wanted))}, the package takes {', '.join(inputs)}"
        raise BadModelError(what, where=where)
    feeds = {name: array for name, array in inputs.items() if name in wanted}
    try:
        values = _evaluate(path, model, feeds)
    except Exception as error:  # whatever an evaluator objects to: it is not ours
        raise BadModelError(f"the reference cannot run the model: {error}", where=where) from error
    return {
        name: value if value is None or isinstance(value, list) else np.asarray(value)
        for name, value in zip(names, values, strict=True)
    }


def _evaluate(path: str | Path, model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Any]:
    """The outputs in order. From a path onnxruntime finds the weights in files beside the model."""
    try:
        import onnxruntime  # noqa: PLC0415 (an optional extra)
    except ImportError:
        return list(ReferenceEvaluator(model).run(None, feeds))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: warnings would go to the user's terminal
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))
