"""The backend cases of the onnx package: models with inputs and the outputs that they must give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner
from run_table import KINDS

PACKAGE = Path(onnx.__file__).parent

Values = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `inputs` and `outputs` are in the order of the graph, the inputs without those of initialisers.

    A value is an array, a list (a sequence) or None (an empty optional).
    """

    kind: str
    name: str
    model: onnx.ModelProto
    inputs: Values
    outputs: Values
    rtol: float
    atol: float

    @property
    def feeds(self) -> dict[str, Any]:
        """The inputs by name."""
        names = [entry.name for entry in self.model.graph.input]
        if len(self.inputs) < len(names):
            initialised = {tensor.name for tensor in self.model.graph.initializer}
            names = [name for name in names if name not in initialised]
        return dict(zip(names, self.inputs, strict=False))


@cache
def cases_of(kind: str) -> Mapping[str, Callable[[], Case]]:
    """What makes each case of a kind, by name. Asking for those of `node` takes seconds: onnx computes them."""
    return {case.name: (lambda case=case: _loaded(kind, case)) for case in load_model_tests(kind=kind)}


def load_case(kind: str, name: str) -> Case:
    """One case. Raises `KeyError` where this version of onnx has none of that name."""
    return cases_of(kind)[name]()


def all_names() -> Iterator[tuple[str, str]]:
    """Kind and name of every case, in a fixed order."""
    for kind in KINDS:
        yield from ((kind, name) for name in sorted(cases_of(kind)))


def _loaded(kind: str, case: TestCase) -> Case:
    if kind == "real":
        return _network(case)
    if case.model is not None:
        (inputs, outputs), *others = case.data_sets
        if others:
            raise ValueError(f"{case.name} has several sets of data")
        model = case.model
        inputs, outputs = (tuple(map(_plain, values)) for values in (inputs, outputs))
    else:
        folder = Path(case.model_dir)
        model = onnx.load(folder / "model.onnx")
        (data,) = folder.glob("test_data_set_*")
        inputs = _stored(data, "input", model.graph.input)
        outputs = _stored(data, "output", model.graph.output)
    return Case(kind, case.name, model, inputs, outputs, case.rtol, case.atol)


def _network(case: TestCase) -> Case:
    """A real network: its weights are constants, its input is a ramp, its output lies beside it."""
    path = PACKAGE.joinpath(*case.url.split("/")[1:])
    model = onnx.load(path)
    initialised = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in initialised]
    feeds = tuple(Runner.generate_dummy_data(entry, seed=0, name=case.model_name) for entry in inputs)
    output = onnx.TensorProto.FromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
    return Case("real", case.name, model, feeds, (numpy_helper.to_array(output),), case.rtol, case.atol)


def _stored(folder: Path, role: str, entries: Any) -> Values:
    """The values that lie in files of their own, one for each entry of the graph that has one."""
    paths = [(folder / f"{role}_{place}.pb", entry.type) for place, entry in enumerate(entries)]
    return tuple(_stored_value(path.read_bytes(), type) for path, type in paths if path.exists())


def _stored_value(content: bytes, type: onnx.TypeProto) -> Any:
    if type.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
    if type.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return numpy_helper.to_array(onnx.TensorProto.FromString(content))


def _plain(value: Any) -> Any:
    """A value as arrays, lists and None: generated cases hold numpy scalars and protobufs too."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    return value if value is None else np.asarray(value)
