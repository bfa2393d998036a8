"""The test networks themselves: they load, they run in onnxruntime, and their answers mean something."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from networks import (
    EXAMPLES_FOLDER,
    EXPORTED,
    EXPORTED_FOLDER,
    OTHER_OPSETS,
    SHIPPED,
    SHIPPED_FOLDER,
    Network,
    OnnxRuntime,
    exported_network,
    onnxruntime_outputs,
    relative_error,
    shipped_network,
)

HEAVY = ("vgg19", "zfnet512", "bvlc_alexnet")  # hundreds of megabytes of weights each
LIGHT = [name for name in SHIPPED if name not in HEAVY]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "vgg19" else ()) for name in SHIPPED]
)
def test_shipped_network_answers_depend_on_the_image(name: str) -> None:
    model, inputs = shipped_network(name)
    loaded = OnnxRuntime(model)
    (first,) = loaded.outputs(inputs).values()
    assert len(np.unique(first)) >= 500
    assert 1e-3 < first.std() < 1e4
    blank = {key: np.zeros_like(value) for key, value in inputs.items()}
    (other,) = loaded.outputs(blank).values()
    assert relative_error(other, first) > 0.05


@pytest.mark.parametrize("name", LIGHT)
def test_shipped_network_keeps_its_nodes(name: str) -> None:
    shipped = onnx.load(SHIPPED_FOLDER / f"light_{name}.onnx").graph
    model, inputs = shipped_network(name)
    removed = Counter(node.op_type for node in shipped.node) - Counter(node.op_type for node in model.graph.node)
    assert set(removed) <= {"ConstantOfShape", "Softmax"}
    assert removed["Softmax"] <= 1
    assert [value.name for value in model.graph.input] == list(inputs)
    onnx.checker.check_model(model)


def test_shipped_network_is_a_function_of_its_seed() -> None:
    def content(network: Network) -> tuple[bytes, list[bytes]]:
        return network.model.SerializeToString(deterministic=True), [x.tobytes() for x in network.inputs.values()]

    assert content(shipped_network("squeezenet")) == content(shipped_network("squeezenet", seed=0))
    assert content(shipped_network("squeezenet")) != content(shipped_network("squeezenet", seed=1))


@pytest.mark.parametrize("name", (*EXPORTED, *OTHER_OPSETS))
def test_exported_network_agrees_with_pytorch(name: str) -> None:
    model, inputs, expected = exported_network(name)
    onnx.checker.check_model(model, full_check=True)
    actual = onnxruntime_outputs(model, inputs)
    assert actual.keys() == expected.keys()
    for key, reference in expected.items():
        assert reference.std() > 1e-2
        assert relative_error(actual[key], reference) < 1e-5


@pytest.mark.parametrize("name", (*EXPORTED, *OTHER_OPSETS))
def test_exported_network_says_nothing_about_where_it_was_made(name: str) -> None:
    model = exported_network(name).model
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]
    for message in [model, model.graph, *model.graph.node, *values]:
        assert not message.metadata_props
        assert not message.doc_string


def test_exported_networks_stay_small() -> None:
    sizes_bytes = [path.stat().st_size for path in EXPORTED_FOLDER.iterdir() if path.suffix in (".onnx", ".npz")]
    assert sum(sizes_bytes) < 6_000_000


def test_relative_error_is_relative() -> None:
    reference = np.array([3.0, 4.0])
    assert relative_error(reference, reference) == 0
    assert relative_error(reference * 1.25, reference) == pytest.approx(0.25)
    assert relative_error(np.array([np.nan, 4.0]), reference) != pytest.approx(0)
    assert relative_error(reference, np.zeros(2)) == np.inf
    with pytest.raises(ValueError, match="shapes differ"):
        relative_error(np.zeros((2, 1)), np.zeros(2))


def test_digits_example_is_right_on_images_it_never_saw() -> None:
    model = onnx.load(EXAMPLES_FOLDER / "digits" / "digits.onnx")
    onnx.checker.check_model(model, full_check=True)
    with np.load(EXAMPLES_FOLDER / "digits" / "digits_test.npz") as test:
        image, label = test["image"], test["label"]
    assert len(label) >= 300
    logits = onnxruntime_outputs(model, {"image": image})["logits"]
    assert np.mean(logits.argmax(1) == label) >= 0.97
