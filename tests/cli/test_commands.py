"""What each command prints and writes."""

from __future__ import annotations

import json

import numpy as np
import onnx
import packages
import pytest
from onnx import TensorProto, helper

from birc.compiler.ir.table import OPS
from birc.runtime.machine import load_machine, machine_names
from birc.runtime.package import Package

REPORT_KEYS = {
    *("schema", "model", "target", "precision", "batch", "latency_us", "latency_range_us", "end_to_end_us"),
    *(
        "throughput_per_s",
        "energy_j",
        "utilization",
        "ledger",
        "sram",
        "traffic",
        "bound_us",
        "load_us",
        "warm",
        "placement",
        "per_op",
    ),
}
NESTED_KEYS = {
    "utilization": {"tcore", "vcore", "hbm", "d2d"},
    "sram": {"peak_bytes", "capacity_bytes", "lower_bound_bytes"},
    "traffic": {"hbm_bytes", "compulsory_bytes", "d2d_bytes"},
    "bound_us": {"tcore", "vector", "hbm", "stream", "l2", "noc", "d2d", "dependency", "roofline", "max"},
    "load_us": {"tcore", "vector", "hbm", "stream", "l2", "noc", "d2d", "dependency"},
    "placement": {"device_nodes", "host_nodes", "host"},
}
PER_OP_KEYS = {
    *("name", "onnx_nodes", "engine", "start_us", "end_us", "flops", "bytes", "utilization", "bound_by"),
}


@pytest.fixture(scope="module")
def case():
    return packages.gemm_package()


def answer(outcome):
    """The one JSON object that a command printed."""
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    return json.loads(outcome.out)


def gemm_model(path, case, *, factor: float = 1.0) -> None:
    """relu(a @ b + bias + residual) in ONNX with the package's constants, the product times `factor`."""

    def value(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    constants = {key: array.astype(np.float32) for key, array in case.package.weights.items()}
    constants["b"] *= factor
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["a", "b"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["sum"]),
            helper.make_node("Add", ["sum", "residual"], ["all"]),
            helper.make_node("Relu", ["all"], ["out"]),
        ],
        "gemm",
        [value("a", [150, 200]), value("residual", [150, 70])],
        [value("out", [150, 70])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_run_reads_and_writes_arrays(birc, packed, case, tmp_path):
    np.savez(tmp_path / "in.npz", **case.inputs)
    outcome = birc("run", packed, "--input", "in.npz", "--output", "out.npz")
    assert outcome.code == 0, outcome
    assert "inputs: in.npz" in outcome.out
    assert "150x70" in outcome.out
    assert "predicted latency on tiny" in outcome.out
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["out"], case.expected["out"])


def test_run_without_inputs_says_what_it_uses(birc, packed):
    first, again = birc("run", packed), birc("run", packed)
    other = birc("run", packed, "--seed", 1)
    assert "inputs: random, seed 0" in first.out
    assert first.out == again.out
    assert first.out.replace("seed 0", "") != other.out.replace("seed 1", "")


def test_run_as_json_is_a_report_with_values(birc, packed):
    value = answer(birc("run", packed, "--format", "json"))
    assert value.keys() == REPORT_KEYS | {"run"}
    assert value["run"]["check"] is None
    (output,) = value["run"]["outputs"]
    assert (output["name"], output["dtype"], output["shape"]) == ("out", "f32", [150, 70])
    assert output["lowest"] <= output["mean"] <= output["highest"]


def test_run_against_a_reference(birc, packed, case, tmp_path):
    gemm_model(tmp_path / "right.onnx", case)
    outcome = birc("run", packed, "--check", "right.onnx")
    assert outcome.code == 0, outcome
    assert "check out: relative error" in outcome.out
    assert outcome.out.rstrip().endswith("ok")
    value = answer(birc("run", packed, "--check", "right.onnx", "--format", "json"))
    (check,) = value["run"]["check"]
    assert check["ok"] is True
    assert 0 < check["relative_error"] < check["limit"]


def test_run_against_another_model_fails(birc, packed, case, tmp_path):
    gemm_model(tmp_path / "wrong.onnx", case, factor=2.0)
    outcome = birc("run", packed, "--check", "wrong.onnx")
    assert outcome.code == 7
    assert "too large" in outcome.out
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: output 'out': relative error 0.")
    assert "the limit is 0.05" in line
    assert birc("run", packed, "--check", "wrong.onnx", "--tolerance", "0.9").code == 0


def test_profile_as_json_has_the_published_keys(birc, packed):
    report = answer(birc("profile", packed, "--format", "json"))
    assert report.keys() == REPORT_KEYS
    for key, names in NESTED_KEYS.items():
        assert report[key].keys() == names
    assert report["per_op"]
    for operation in report["per_op"]:
        assert operation.keys() == PER_OP_KEYS
    figures = (*report["bound_us"].values(), *report["load_us"].values())
    assert report["latency_us"] >= max(value for value in figures if value is not None)


def test_profile_as_text_names_the_model_and_its_time(birc, packed):
    report = answer(birc("profile", packed, "--format", "json"))
    outcome = birc("profile", packed)
    assert outcome.code == 0
    assert "gemm" in outcome.out
    assert f"{report['latency_us']:.2f}" in outcome.out.replace(",", "")


def test_inspect(birc, packed, case):
    text = birc("inspect", packed)
    assert text.code == 0
    for word in ("gemm", "tiny", "bf16", "150x200", "tmma", "weights.safetensors"):
        assert word in text.out
    value = answer(birc("inspect", packed, "--format", "json"))
    assert value.keys() == {"schema", "manifest", "program"}
    assert value["program"]["instructions"]["tmma"] == 1
    assert value["program"]["constant_bytes"] == sum(array.nbytes for array in case.package.weights.values())
    assert value["manifest"]["members"].keys() >= {"programs/0.bin", "weights.safetensors"}


def test_disasm_and_asm_are_inverse(birc, packed, tmp_path):
    outcome = birc("disasm", packed)
    assert outcome.code == 0
    assert "tmma" in outcome.out
    assert birc("disasm", packed, "-o", "gemm.asm").code == 0
    assert (tmp_path / "gemm.asm").read_text() == outcome.out
    assert birc("asm", "gemm.asm", "--like", packed).code == 0
    again, before = Package.open("gemm.birc"), Package.open(packed)
    assert again.program == before.program
    assert again.manifest.inputs == before.manifest.inputs
    np.testing.assert_array_equal(again.weights["b"], before.weights["b"])


def test_verify(birc, packed):
    assert birc("verify", packed).out == f"{packed}: ok, 1 kernel, 10 instructions\n"
    assert answer(birc("verify", packed, "--format", "json"))["ok"] is True


def test_targets(birc):
    listed = birc("targets")
    assert all(name in listed.out for name in machine_names())
    value = answer(birc("targets", "--format", "json"))
    assert [target["name"] for target in value["targets"]] == list(machine_names())


@pytest.mark.parametrize("name", machine_names())
def test_every_figure_of_a_target_has_unit_source_and_confidence(birc, name):
    machine = load_machine(name)
    figures = answer(birc("targets", name, "--format", "json"))["figures"]
    assert figures.keys() == machine.figures.keys()
    for figure in figures.values():
        assert figure["unit"]
        assert figure["source"]
        assert figure["confidence"] in ("stated", "derived", "estimated")
        assert (figure["low"] is None) == (figure["high"] is None)
    text = birc("targets", name).out
    assert all(figure.source in text for figure in machine.figures.values())


def test_targets_reads_a_description_of_ones_own(birc, tmp_path):
    (tmp_path / "mine.toml").write_text('name = "mine"\nvendor = "me"\nbase = "br100"\n')
    assert answer(birc("targets", "mine.toml", "--format", "json"))["name"] == "mine"


def test_ops(birc):
    text = birc("ops").out
    value = answer(birc("ops", "--format", "json"))
    assert [op["name"] for op in value["ops"]] == [row.name for row in OPS]
    assert all(row.name in text and row.doc.splitlines()[0] in text for row in OPS)


def test_output_has_no_colours_when_piped(birc, packed):
    for command in (("targets",), ("inspect", packed), ("ops",), ("profile", packed)):
        assert "\x1b" not in birc(*command).out
