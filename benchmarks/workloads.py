"""What is measured: models with one set of inputs each, of the examples, the test data, the command line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
EXPORTED = ("mobilenet_v2", "resnet50", "bert_base", "gpt2", "llama2l")  # small, written by PyTorch

sys.path.insert(0, str(ROOT / "examples"))

Inputs = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Sample:
    """A model and one set of inputs; None asks for random ones."""

    model: onnx.ModelProto
    inputs: Inputs | None = None
    batch: int | None = None
    dimensions: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """One line of the table: its name, and how to get its model. `--quick` leaves out those not `quick`."""

    name: str
    make: Callable[[], Sample]
    quick: bool = True


def workloads() -> Iterator[Workload]:
    """Everything that is measured without being asked for."""
    yield Workload("digits, batch 360", digits)
    yield Workload("ResNet-50, batch 1", lambda: resnet50(1))
    yield Workload("ResNet-50, batch 8", lambda: resnet50(8), quick=False)
    yield Workload("ResNet-50, batch 64", lambda: resnet50(64), quick=False)
    yield Workload("BERT-base, 128 tokens", bert_base, quick=False)
    for name in EXPORTED:
        yield Workload(f"{name}, small", lambda name=name: exported(name))


def given(paths: Sequence[Path], batch: int | None, dimensions: Mapping[str, int]) -> Iterator[Workload]:
    """The models of the command line, with random inputs."""
    for path in paths:
        yield Workload(path.stem, lambda path=path: Sample(onnx.load(path), batch=batch, dimensions=dimensions))


def digits() -> Sample:
    """The trained classifier on all of its held-out images."""
    folder = ROOT / "examples" / "digits"
    with np.load(folder / "digits_test.npz") as test:
        images = test["image"]
    return Sample(onnx.load(folder / "digits.onnx"), {"image": images}, batch=len(images))


def resnet50(batch: int) -> Sample:
    """ResNet-50 on random images of 224 x 224."""
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)
    return Sample(_example("resnet50").build(batch), {"image": images})


def bert_base() -> Sample:
    """BERT-base on one sequence of random words, none of it padding."""
    sequence, vocabulary = 128, 30522
    ones = np.ones((1, sequence), np.int64)
    ids = np.random.default_rng(0).integers(0, vocabulary, ones.shape)
    inputs = {"input_ids": ids, "attention_mask": ones, "token_type_ids": 0 * ones}
    return Sample(_example("bert").build(sequence=sequence, vocab=vocabulary), inputs)


def bert_of_nodes(nodes: int) -> onnx.ModelProto:
    """A narrow BERT of as many layers as have about so many nodes."""
    one, two = (_narrow_bert(layers) for layers in (1, 2))
    first, layer = len(one.graph.node), len(two.graph.node) - len(one.graph.node)
    return _narrow_bert(max(1, round((nodes - first) / layer) + 1))


def _narrow_bert(layers: int) -> onnx.ModelProto:
    sizes = {"hidden": 64, "heads": 4, "sequence": 32, "vocab": 100}
    model: onnx.ModelProto = _example("bert").build(layers=layers, **sizes)
    return model


def exported(name: str) -> Sample:
    """A network of the test data, on the inputs that lie beside it."""
    folder = ROOT / "tests" / "data"
    with np.load(folder / f"{name}.npz") as values:
        inputs = {key.removeprefix("in_"): values[key] for key in values if key.startswith("in_")}
    return Sample(onnx.load(folder / f"{name}.onnx"), inputs)


def _example(name: str) -> ModuleType:
    """The example script examples/NAME.py as a module."""
    return importlib.import_module(name)
