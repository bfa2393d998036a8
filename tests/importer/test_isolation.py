"""Calls in a process apart: what they return, and how they end when they crash, hang or take too much."""

from __future__ import annotations

import os
import signal

import onnx
import pytest
from onnx import helper

from birc.compiler.importer.inference import inferred_values
from birc.compiler.importer.isolation import MOST_GROWTH_BYTES, Ended, isolated


def crash() -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def hang() -> bytes:
    while True:
        pass


def allocate() -> bytes:
    return bytes(2 * MOST_GROWTH_BYTES)


@pytest.mark.parametrize("content", [b"", b"a", bytes(5_000_000)])
def test_result_comes_back(content: bytes) -> None:
    assert isolated(lambda: content, 100) == content


@pytest.mark.parametrize(("call", "reason"), [(crash, "SIGSEGV"), (hang, "an end"), (allocate, "memory")])
def test_what_does_not_come_to_its_end(call, reason: str) -> None:
    with pytest.raises(Ended, match=reason):
        isolated(call, 100)


def test_shape_inference_that_crashes_finds_nothing() -> None:
    """onnx 1.23 writes to a negative place for an axis beyond 32 bits."""
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y", "m", "v"], axis=2**31)
    values = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", (2, 3)), ("s", (3,)))]
    graph = onnx.GraphProto(name="g", node=[node], input=values, output=[onnx.ValueInfoProto(name="y")])
    model = onnx.ModelProto(ir_version=9, graph=graph, opset_import=[helper.make_opsetid("", 18)])
    assert not [entry for entry in inferred_values(model) if entry.name == "m" and entry.type.WhichOneof("value")]
