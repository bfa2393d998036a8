"""A bad model of the corpus, and short ways to make one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
HUGE = 2**63 - 1

Make = Callable[[Path], object]
"""Writes the model, and what belongs to it, into a folder; the path of the model is `folder / "model.onnx"`."""


@dataclass(frozen=True)
class BadModel:
    """`words` stand in the message, `codes` are the exit codes that are right."""

    name: str
    make: Make
    words: tuple[str, ...] = ()
    codes: tuple[int, ...] = (3, 4)


def written(model: onnx.ModelProto | bytes) -> Make:
    """Writes the model and nothing else."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return lambda folder: (folder / "model.onnx").write_bytes(content)


def value(name: str, shape: Sequence[int | str] | None = (2, 3), kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[str | onnx.ValueInfoProto] = ("y",),
    known: Mapping[str, Any] | None = None,
    opset: int = 18,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model; outputs given by name declare no type, `known` are initialisers."""
    graph = onnx.GraphProto(name="bad", node=nodes, input=inputs or [value("x")])
    graph.output.extend(onnx.ValueInfoProto(name=entry) if isinstance(entry, str) else entry for entry in outputs)
    for name, array in (known or {}).items():
        tensor = array if isinstance(array, onnx.TensorProto) else numpy_helper.from_array(np.asarray(array), name)
        graph.initializer.append(tensor)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return onnx.ModelProto(ir_version=9, graph=graph, opset_import=opsets, functions=functions)


def node(op: str, inputs: Sequence[str] = ("x",), outputs: Sequence[str] = ("y",), **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, name=f"the_{op}", **attributes)


def one(op: str, inputs: Sequence[str] = ("x",), shape: Sequence[int | str] | None = (2, 3), kind: int = FLOAT,
        known: Mapping[str, Any] | None = None, opset: int = 18, outputs: Sequence[str] = ("y",),
        **attributes: Any) -> Make:  # fmt: skip
    """A model of one node, with the input "x" of this shape and the initialisers `known`."""
    made = node(op, inputs, outputs, **attributes)
    return written(model_of([made], [value("x", shape, kind)], outputs, known, opset))


def changed(change: Callable[[onnx.ModelProto], object], **options: Any) -> Make:
    """y = Relu(x) with one change."""
    model = model_of([node("Relu")], outputs=[value("y")], **options)
    change(model)
    return written(model)


def claim(name: str = "w", dims: Sequence[int] = (2, 3), data_type: int = FLOAT, **fields: Any) -> onnx.TensorProto:
    """A tensor whose fields say whatever they say."""
    return onnx.TensorProto(name=name, dims=dims, data_type=data_type, **fields)


def with_tensor(tensor: onnx.TensorProto) -> Make:
    """y = Add(x, w), where w is `tensor`."""
    return written(model_of([node("Add", ("x", "w"))], outputs=[value("y")], known={"w": tensor}))
