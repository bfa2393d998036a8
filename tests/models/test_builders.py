"""The builders of the examples: what they write is the network that they name, and compiles to right values."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from example_networks import SMALL, VOCAB, random_inputs, small
from networks import (
    EXAMPLES_FOLDER,
    Values,
    example_module,
    exported_network,
    onnxruntime_outputs,
    relative_error,
)
from onnx import TensorProto, numpy_helper

from birc.compiler.driver import compile_model
from birc.compiler.importer.importer import import_model
from birc.compiler.passes.canonicalize import canonicalize
from birc.runtime.session import load
from birc.runtime.verifier.verify import verify_program

DECODERS = ("gpt2", "llama")
TOLERANCE = {"model": 2e-3, "bf16": 2e-2}


@pytest.mark.parametrize("name", SMALL)
def test_script_writes_what_build_gives(name: str, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    options = [f"--{option.replace('_', '-')}={value}" for option, value in SMALL[name].items()]
    command = [sys.executable, str(EXAMPLES_FOLDER / f"{name}.py"), str(output), "--batch", "2", *options]
    subprocess.run(command, check=True, timeout=60)
    assert onnx.load(output) == small(name)


@pytest.mark.parametrize("name", SMALL)
def test_model_is_a_function_of_its_seed(name: str) -> None:
    first, again, other = (small(name, seed=seed).SerializeToString(deterministic=True) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_sane_and_depend_on_the_inputs(name: str) -> None:
    model = small(name)
    onnx.checker.check_model(model, full_check=True)
    declared = {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in model.graph.output
    }
    outputs = onnxruntime_outputs(model, random_inputs(model))
    assert {key: value.shape for key, value in outputs.items()} == declared
    for value in outputs.values():
        assert 1e-2 < value.std() < 1e2
        assert relative_error(value[1], value[0]) > 0.01


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", SMALL)
def test_compiled_values_are_those_of_onnxruntime(name: str, precision: str) -> None:
    model = small(name)
    inputs = random_inputs(model)
    package = compile_model(model, "br100", precision)
    assert package is not None
    verify_program(package.program, package.machine)
    actual = load(package).run(inputs)
    for key, expected in onnxruntime_outputs(model, inputs).items():
        assert relative_error(actual[key], expected) <= TOLERANCE[precision]


@pytest.mark.parametrize(
    ("name", "wanted"), [("bert", {"gelu": 2}), ("gpt2", {"gelu": 2}), ("llama", {"rms_norm": 5, "silu": 2})]
)
def test_composites_are_recognised(name: str, wanted: dict[str, int]) -> None:
    ops = [node.op for node in canonicalize(import_model(small(name))).nodes]
    assert {op: ops.count(op) for op in wanted} == wanted


def test_resnet50_is_the_published_network() -> None:
    graph = example_module("resnet50.py").build().graph
    operators = Counter(node.op_type for node in graph.node)
    assert (operators["Conv"], operators["BatchNormalization"], operators["Relu"]) == (53, 53, 49)
    statistics = (".mean", ".variance")
    trained = [weight for weight in graph.initializer if not weight.name.endswith(statistics)]
    assert sum(int(np.prod(weight.dims)) for weight in trained) == 25_557_032


def test_mobilenet_v2_is_the_published_network() -> None:
    """Its parameters are counted before the batch norms are folded: each bias had a scale beside it."""
    graph = example_module("mobilenet_v2.py").build().graph
    operators = Counter(node.op_type for node in graph.node)
    assert (operators["Conv"], operators["Clip"], operators["Add"]) == (52, 35, 10)
    sizes = {weight.name: int(np.prod(weight.dims)) for weight in graph.initializer if weight.dims}
    scales = sum(size for name, size in sizes.items() if name.endswith(".conv.bias"))
    assert sum(sizes.values()) + scales == 3_504_872


@pytest.mark.parametrize(
    ("channels", "multiplier", "wanted"), [(32, 1.0, 32), (24, 0.25, 8), (24, 0.5, 16), (24, 0.75, 24), (32, 0.7, 24)]
)
def test_mobilenet_v2_scales_to_multiples_of_eight(channels: int, multiplier: float, wanted: int) -> None:
    assert example_module("mobilenet_v2.py").scaled(channels, multiplier) == wanted


def test_bert_mask_hides_padding() -> None:
    model = small("bert")
    inputs = random_inputs(model, masked=4)
    first = onnxruntime_outputs(model, inputs)
    inputs["input_ids"] = inputs["input_ids"].copy()
    inputs["input_ids"][:, -4:] = 0
    second = onnxruntime_outputs(model, inputs)
    assert relative_error(second["pooler_output"], first["pooler_output"]) < 1e-6
    inputs["input_ids"][:, :4] = 0
    third = onnxruntime_outputs(model, inputs)
    assert relative_error(third["pooler_output"], first["pooler_output"]) > 0.05


@pytest.mark.parametrize("name", DECODERS)
def test_tokens_see_only_those_before(name: str) -> None:
    model = small(name)
    ids = random_inputs(model)["input_ids"]
    first = onnxruntime_outputs(model, {"input_ids": ids})["logits"]
    ids[:, 6] = (ids[:, 6] + 1) % VOCAB
    second = onnxruntime_outputs(model, {"input_ids": ids})["logits"]
    np.testing.assert_allclose(second[:, :6], first[:, :6], atol=1e-5)
    for place in range(6, ids.shape[1]):
        assert relative_error(second[:, place], first[:, place]) > 0.01


@pytest.mark.parametrize("name", DECODERS)
def test_tokens_know_their_places(name: str) -> None:
    """In one layer without places, the last token would not tell the order of those before."""
    model = small(name, layers=1)
    ids = random_inputs(model)["input_ids"]
    first = onnxruntime_outputs(model, {"input_ids": ids})["logits"]
    second = onnxruntime_outputs(model, {"input_ids": ids[:, [1, 0, *range(2, ids.shape[1])]]})["logits"]
    assert relative_error(second[:, -1], first[:, -1]) > 0.01


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("bert", {"heads": 5}, "heads"),
        ("gpt2", {"heads": 5}, "heads"),
        ("gpt2", {"sequence": 17}, "16 positions"),
        ("llama", {"kv_heads": 3}, "key/value heads"),
        ("llama", {"heads": 32}, "even size"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(name, **wrong)


# ------------------------------------------------------------------------------ the same network by PyTorch
def read_weights(model: onnx.ModelProto, but: tuple[str, ...]) -> Values:
    """The float weights that are no scalars, in the order in which nodes read them first."""
    held = {weight.name: weight for weight in model.graph.initializer}
    read = dict.fromkeys(name for node in model.graph.node for name in node.input if name in held and name not in but)
    return {
        name: numpy_helper.to_array(held[name])
        for name in read
        if held[name].data_type == TensorProto.FLOAT and held[name].dims
    }


def without_biases_of_gemm(model: onnx.ModelProto) -> None:
    """Take the biases out, as the exporter does with those that are 0."""
    for node in model.graph.node:
        if node.op_type == "Gemm":
            del node.input[2:]


PYTORCH_IMAGES = {"multiplier": 0.25, "features": 320, "image_size": 64, "classes": 10}
PYTORCH_WORDS = {"layers": 2, "hidden": 64, "sequence": 32, "vocab": 200}


@pytest.mark.parametrize(
    ("name", "exported", "sizes", "not_trained"),
    [
        ("mobilenet_v2", "mobilenet_v2", PYTORCH_IMAGES, ((), ())),
        ("gpt2", "gpt2", {**PYTORCH_WORDS, "heads": 2, "positions": 32}, ((), ("where",))),
        (
            "llama",
            "llama2l",
            {**PYTORCH_WORDS, "heads": 4, "kv_heads": 2, "intermediate": 128},
            (("attention.mask", "rotary.cosine", "rotary.sine"), ("triu", "cos", "sin")),
        ),
    ],
)
def test_weights_of_pytorch_give_the_outputs_of_pytorch(
    name: str, exported: str, sizes: dict[str, float], not_trained: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    network = exported_network(exported)
    model = small(name, batch=1, **sizes)
    if name == "gpt2":
        without_biases_of_gemm(model)
    own, theirs = (read_weights(*pair) for pair in zip((model, network.model), not_trained, strict=True))
    given = {key: new.reshape(old.shape) for (key, old), new in zip(own.items(), theirs.values(), strict=True)}
    for weight in model.graph.initializer:
        if weight.name in given:
            weight.CopyFrom(numpy_helper.from_array(given[weight.name], weight.name))
    (inputs,) = network.inputs.values()
    actual = onnxruntime_outputs(model, {model.graph.input[0].name: inputs})
    assert relative_error(actual["logits"], network.outputs["logits"]) < 1e-5
