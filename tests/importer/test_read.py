"""Broken model files: each ends in one clear error with the right exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import SHIPPED_FOLDER
from onnx import helper, numpy_helper, parser

from birc.compiler.importer.importer import import_model
from birc.compiler.importer.read import NEWEST_OPSET
from birc.compiler.ir.interpreter import run_graph
from birc.runtime.errors import BadModelError

SQUEEZENET = SHIPPED_FOLDER / "light_squeezenet.onnx"


def small_model(opset: int = 18) -> onnx.ModelProto:
    return parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        small (float[2, 3] x) => (float[2, 3] y) {{ y = Relu(x) }}
    """)


def refuse(source: Path | bytes | onnx.ModelProto, *words: str) -> None:
    with pytest.raises(BadModelError) as caught:
        import_model(source)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "\n" not in message
    for word in words:
        assert word in message


def test_missing_file(tmp_path: Path) -> None:
    refuse(tmp_path / "nothing.onnx", "nothing.onnx", "no such file")


def test_folder(tmp_path: Path) -> None:
    refuse(tmp_path, "folder")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.write_bytes(b"")
    refuse(path, "empty")


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("import torch\n\nprint('this is not a model')\n")
    refuse(path, "text.onnx", "not an ONNX model")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    content = SQUEEZENET.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(len(content) * share)])
    refuse(path, "cut.onnx")


def test_random_bytes_never_escape_as_another_error() -> None:
    random = np.random.default_rng(0)
    for size in range(1, 200, 7):
        refuse(random.bytes(size))


@pytest.mark.parametrize("opset", [-1, 0, NEWEST_OPSET + 1])
def test_operator_set_out_of_range(opset: int) -> None:
    refuse(small_model(opset), f"operator set {opset}", "1", str(NEWEST_OPSET))


@pytest.mark.parametrize("opset", [1, 7, NEWEST_OPSET])
def test_operator_set_at_the_limits(opset: int) -> None:
    x = np.array([[-1, 2, 3], [4, -5, 6]], np.float32)
    np.testing.assert_array_equal(run_graph(import_model(small_model(opset)), {"x": x})["y"], np.maximum(x, 0))


def test_contradictory_model() -> None:
    model = small_model()
    model.graph.node[0].input[0] = "nowhere"
    refuse(model, "contradicts itself", "nowhere")


def test_wrong_shapes_name_the_node() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        wrong (float[2, 3] x, float[4] z) => (float[2, 3] y) { [broken] y = Add(x, z) }
    """)
    refuse(model, "broken", "Add")


def external_model(location: str, data: bytes, folder: Path, length: int = 24) -> Path:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        stored (float[2, 3] x) => (float[2, 3] y) { y = Add(x, w) }
    """)
    weight = onnx.TensorProto(name="w", data_type=1, dims=[2, 3], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        weight.external_data.add(key=key, value=value)
    model.graph.initializer.append(weight)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    if not location.startswith(("/", "..")):
        (folder / location).write_bytes(data)
    return path


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = import_model(external_model("w.bin", weights.tobytes(), tmp_path))
    np.testing.assert_array_equal(run_graph(graph, {"x": weights})["y"], 2 * weights)


@pytest.mark.parametrize("location", ["/etc/hostname", "../w.bin"])
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(24))
    refuse(external_model(location, b"", folder), "outside", "'w'")


def test_external_data_through_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    path = external_model("w.bin", b"", folder)
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
    refuse(path, "outside")


def test_external_data_too_short(tmp_path: Path) -> None:
    refuse(external_model("w.bin", bytes(20), tmp_path), "'w'", "w.bin", "20")


def test_external_data_of_another_length(tmp_path: Path) -> None:
    refuse(external_model("w.bin", bytes(32), tmp_path, length=32), "32", "24")


def test_external_data_without_a_folder(tmp_path: Path) -> None:
    path = external_model("w.bin", bytes(24), tmp_path)
    refuse(onnx.load(path, load_external_data=False), "'w'", "path")


def test_initialiser_that_does_not_fill_its_shape() -> None:
    model = small_model()
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.dims[0] = 5
    model.graph.initializer.append(tensor)
    model.graph.node.append(helper.make_node("Add", ["y", "w"], ["z"]))
    model.graph.output[0].name = "z"
    refuse(model, "tensor 'w'", "12 bytes", "[5] needs 20")
