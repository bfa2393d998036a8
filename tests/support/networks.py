"""Real networks for tests: the nine that the onnx package ships, exported ones, and the examples.

    from networks import shipped_network, exported_network, relative_error, onnxruntime_outputs

In the shipped networks nearly every weight is filled with one constant, so that all their outputs are alike;
here they get seeded random weights instead.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from random_weights import randomise

Values = dict[str, np.ndarray]

SHIPPED = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
EXPORTED = ("bert_base", "gpt2", "llama2l", "lstm", "mobilenet_v2", "resnet50")
OTHER_OPSETS = ("bert_base_opset13", "llama2l_opset23", "lstm_opset13")
"""Some of them as exporters write them for other operator sets than 18."""

SHIPPED_FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
EXPORTED_FOLDER = Path(__file__).parents[1] / "data"
EXAMPLES_FOLDER = Path(__file__).parents[2] / "examples"

IR_VERSION = 8  # from version 4 on, a weight need not be a graph input as well


class Network(NamedTuple):
    """A model and one set of inputs for it."""

    model: onnx.ModelProto
    inputs: Values


class ExportedNetwork(NamedTuple):
    """A model, one set of inputs, and the outputs that PyTorch computed for them before the export."""

    model: onnx.ModelProto
    inputs: Values
    outputs: Values


def relative_error(actual: np.ndarray, reference: np.ndarray) -> float:
    """norm(actual - reference) / norm(reference), in float64; infinite or NaN values are not forgiven.

    Raises ValueError when the shapes differ: broadcasting would hide it.
    """
    if np.shape(actual) != np.shape(reference):
        raise ValueError(f"shapes differ: actual {np.shape(actual)}, reference {np.shape(reference)}")
    expected = np.asarray(reference, np.float64)
    difference = float(np.linalg.norm(np.asarray(actual, np.float64) - expected))
    scale = float(np.linalg.norm(expected))
    if scale == 0:
        return math.inf if difference else 0.0
    return difference / scale


class OnnxRuntime:
    """A model loaded into onnxruntime, on the processor; for several runs of one model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        content = model.SerializeToString()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> Values:
        """The model's outputs by name."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))


def onnxruntime_outputs(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> Values:
    """The model's outputs by name, computed by onnxruntime on the processor."""
    return OnnxRuntime(model).outputs(inputs)


def example_module(path: str) -> ModuleType:
    """The example script examples/PATH as a module, e.g. `resnet50.py`."""
    return importlib.import_module(path.removesuffix(".py"))


def exported_network(name: str) -> ExportedNetwork:
    """One of EXPORTED or OTHER_OPSETS, as tests/data/make_models.py wrote it."""
    model = onnx.load(EXPORTED_FOLDER / f"{name}.onnx")
    with np.load(EXPORTED_FOLDER / f"{name}.npz") as sample:
        inputs = {key.removeprefix("in_"): sample[key] for key in sample if key.startswith("in_")}
        outputs = {key.removeprefix("out_"): sample[key] for key in sample if key.startswith("out_")}
    return ExportedNetwork(model, inputs, outputs)


def shipped_network(name: str, seed: int = 0) -> Network:
    """One of SHIPPED with seeded random weights, its last Softmax removed, and a normally distributed image.

    The same seed gives the same bytes. Apart from the weights and the Softmax the nodes are those of the
    shipped file; the image is the only graph input.
    """
    model = onnx.load(SHIPPED_FOLDER / f"light_{name}.onnx")
    rng = np.random.default_rng([seed, SHIPPED.index(name)])
    randomise(model.graph, rng)
    _remove_last_softmax(model.graph)
    model.ir_version = IR_VERSION
    return Network(model, random_image(model, rng))


def random_image(model: onnx.ModelProto, rng: np.random.Generator) -> Values:
    """Standard normal values for the model's only input."""
    (image,) = model.graph.input
    shape = [dimension.dim_value for dimension in image.type.tensor_type.shape.dim]
    return {image.name: rng.standard_normal(shape, np.float32)}


def _remove_last_softmax(graph: onnx.GraphProto) -> None:
    """Make the scores before a last Softmax the output: behind it most values are next to zero."""
    last = graph.node[-1]
    if last.op_type == "Softmax":
        graph.output[0].name = last.input[0]
        del graph.node[-1]
