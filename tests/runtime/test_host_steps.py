"""Packages with steps on the host: values, what is refused, and the time that is charged for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from birc.compiler import compile_model
from birc.runtime import Package, load
from birc.runtime.errors import BadPackageError
from birc.runtime.faults import MachineFault
from birc.runtime.host import HostStep, HostStepError
from birc.runtime.report_variant import host_us
from birc.runtime.variant import BoundaryTensor, HostNode, Step

MIXED = """
    <ir_version: 8, opset_import: ["" : 18]>
    mixed (float[4, 6] x, string[2] s) => (float[4, 6] y, double[4, 6] w, string[2] t, int64[2, n] z) {
        [first] a = Exp(x)
        [wide] w = Cast <to = 11> (a)
        [scaled] v = Mul(w, w)
        [back] b = Cast <to = 1> (v)
        [last] y = Sub(b, a)
        [places] z = NonZero(x)
        [same] t = Identity(s)
    }
"""
NODES = (HostNode("n", "Neg", "to test it"),)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return parser.parse_model(MIXED)


@pytest.fixture(scope="module")
def package(model: onnx.ModelProto) -> Package:
    made = compile_model(model, target="tiny")
    assert made is not None
    return made


def inputs() -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).integers(-1, 2, (4, 6)).astype(np.float32)
    return {"x": x, "s": np.array(["one", "two"], object)}


def test_values_are_those_of_the_reference(model: onnx.ModelProto, package: Package) -> None:
    given = inputs()
    expected = ReferenceEvaluator(model).run(None, given)
    for name, wanted in zip(("y", "w", "t", "z"), expected, strict=True):
        actual = load(package).run(given)[name]
        if name == "t":
            assert actual.tolist() == wanted.tolist()
        else:
            assert actual.dtype == wanted.dtype
            np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)


def test_the_manifest_tells_the_steps_and_the_reasons(package: Package, tmp_path: Path) -> None:
    package.save(tmp_path / "mixed.birc")
    opened = Package.open(tmp_path / "mixed.birc")
    assert opened.manifest.variants == package.manifest.variants
    assert {node.name for node in opened.manifest.first.host_nodes} == {"wide", "scaled", "back", "places", "same"}
    kinds = [step.on_host for step in opened.manifest.first.steps]
    assert kinds == sorted(kinds, reverse=True) or True in kinds
    again = load(opened).run(inputs())
    np.testing.assert_array_equal(again["z"], load(package).run(inputs())["z"])


def test_the_report_charges_the_host_and_every_transfer(package: Package) -> None:
    report = load(package).profile()
    placement = report.placement
    assert placement["host_nodes"] == len(placement["host"]) == 5
    on_host_us = sum(row.end_us - row.start_us for row in report.per_op if row.engine == "host")
    assert on_host_us == pytest.approx(
        sum(host_us(package.machine, step) for step in package.manifest.first.steps if step.on_host)
    )
    assert report.end_to_end_us > report.latency_us + on_host_us
    assert report.latency_us > 0
    ends = [operation.end_us for operation in report.per_op]
    assert max(ends) <= report.end_to_end_us + 1e-9
    assert sum(operation.engine == "host" for operation in report.per_op) == sum(
        step.on_host for step in package.manifest.first.steps
    )
    assert "on the host" in report.render_text()


def test_more_bytes_and_more_nodes_take_longer_on_the_host(package: Package) -> None:
    def step(size: int, nodes: int) -> Step:
        tensor = BoundaryTensor("x", "f32", (size,), None)
        return Step("host/0.onnx", (tensor,), (tensor,), NODES * nodes)

    machine = package.machine
    assert host_us(machine, step(10, 1)) < host_us(machine, step(10_000, 1)) < host_us(machine, step(10_000, 2))
    per_byte = host_us(machine, step(20_000, 1)) - host_us(machine, step(10_000, 1))
    assert per_byte == pytest.approx(machine.cycles_to_us(2 * 4 * 10_000 / machine.host_bytes_per_cycle))


def single(node: onnx.NodeProto) -> bytes:
    graph = onnx.helper.make_graph([node], "g", [onnx.ValueInfoProto(name="x")], [onnx.ValueInfoProto(name="y")])
    opset = onnx.helper.make_opsetid("", 18)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def one_step(output: BoundaryTensor | None = None) -> Step:
    x = BoundaryTensor("x", "f32", (2,), None)
    return Step("host/0.onnx", (x,), (output or BoundaryTensor("y", "f32", (2,), None),), NODES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a model", "the host cannot run it"),
        (single(onnx.helper.make_node("NoSuchOperator", ["x"], ["y"])), "the host cannot run it"),
    ],
)
def test_sub_models_that_cannot_be_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(BadPackageError, match=message):
        HostStep(content, one_step())


def test_a_sub_model_that_refers_to_files_is_refused() -> None:
    tensor = onnx.TensorProto(name="secret", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    content = single(onnx.helper.make_node("Constant", [], ["y"], value=tensor))
    with pytest.raises(BadPackageError, match="refers to files outside the package"):
        HostStep(content, one_step())


def test_values_that_an_operator_refuses_name_the_node() -> None:
    content = single(onnx.helper.make_node("Reshape", ["x", "x"], ["y"]))
    with pytest.raises(HostStepError, match=r"n \(Neg\): the host cannot compute it"):
        HostStep(content, one_step()).run({"x": np.array([3.0, 4.0], np.float32)})


def test_a_value_of_another_shape_than_the_next_program_takes_is_named(model: onnx.ModelProto) -> None:
    declared = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        lies (float[2, 3] x) => (float[2, 2] y) {
            [wide] w = Cast <to = 11> (x)
            [places] p = NonZero(w)
            [back] b = Cast <to = 1> (p)
            [last] y = Neg(b)
        }
    """)
    package = compile_model(declared, target="tiny")
    assert package is not None
    assert [step.on_host for step in package.manifest.first.steps] == [True, False]
    fits, not_fits = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    fits[0, :2] = 1
    session = load(package)
    assert session.run({"x": fits})["y"].shape == (2, 2)
    with pytest.raises(MachineFault, match=r"came from the host as \[2, 6\], the model declares \[2, 2\]"):
        session.run({"x": not_fits})


def test_onnx_is_imported_only_for_a_step_on_the_host(tmp_path: Path, model: onnx.ModelProto) -> None:
    device = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) { y = Neg(x) }
    """)
    for name, source, with_onnx in (("device", device, False), ("mixed", model, True)):
        made = compile_model(source, target="tiny")
        assert made is not None
        made.save(tmp_path / f"{name}.birc")
        program = (
            "import sys, numpy as np; from birc.runtime import load; "
            f"s = load(r'{tmp_path / name}.birc'); "
            "s.run({t.name: np.zeros(t.shape, np.float32) if t.dtype == 'f32' else np.array(['a', 'b'], object) "
            "for t in s.inputs}); print('onnx' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(with_onnx), name
