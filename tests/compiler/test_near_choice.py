"""The driver has weights near where that is faster: whole models by all phases, against onnxruntime and float64."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnxruntime_outputs, relative_error
from onnx import TensorProto, helper, numpy_helper

from birc.compiler.driver import compile_model, resume
from birc.compiler.plan_search import Found, PlanSearch
from birc.runtime.codec import encode_program
from birc.runtime.machine import Machine, load_machine
from birc.runtime.package import Package
from birc.runtime.program import Command, Program
from birc.runtime.session import load
from birc.runtime.timing import simulate

NARROW = load_machine("br100").with_values({"noc_bytes_per_cycle": 64})
"""SPCs wait for the NoC more than for anything else."""
ALONE = NARROW.with_values({"dies": 1, "spcs_per_die": 4})
TOLERANCE = {"model": 2e-3, "bf16": 2e-2}
ROWS, WIDTH = 128, 256


@cache
def chain(products: int, *, biased: bool = False) -> onnx.ModelProto:
    """Products with weights of their own, one behind the other."""
    random = np.random.default_rng(0)
    nodes, constants, last = [], {}, "x"
    for number in range(products):
        constants[f"w{number}"] = (random.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"p{number}"]))
        last = f"p{number}"
        if biased:
            constants[f"b{number}"] = random.standard_normal(WIDTH).astype(np.float32)
            nodes.append(helper.make_node("Add", [last, f"b{number}"], [f"s{number}"]))
            last = f"s{number}"
        nodes.append(helper.make_node("Relu", [last], [f"y{number}"]))
        last = f"y{number}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, WIDTH])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [ROWS, WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def inputs() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)}


def in_double_precision(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The chain, product by product."""
    weights = {one.name: numpy_helper.to_array(one).astype(np.float64) for one in model.graph.initializer}
    result = x.astype(np.float64)
    for number in range(sum(node.op_type == "MatMul" for node in model.graph.node)):
        result = np.maximum(result @ weights[f"w{number}"] + weights.get(f"b{number}", np.zeros(())), 0)
    return result


def compiled(model: onnx.ModelProto, machine: Machine, precision: str = "bf16", **options: int | bool) -> Package:
    package = compile_model(model, machine, precision, **options)  # type: ignore[arg-type]
    assert package is not None
    return package


def fills(program: Program) -> int:
    """How many copies enter tensor buffers."""
    copies = [c for c in program.commands if isinstance(c, Command) and c.mnemonic == "copy"]
    return sum(program.descriptors[int(str(c.operands[0]))].space == "tb" for c in copies)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("is_biased", [False, True])
@pytest.mark.parametrize("machine", [NARROW, ALONE], ids=["two dies", "one die"])
def test_values_are_those_of_the_model(machine: Machine, is_biased: bool, precision: str) -> None:
    """Proved, too."""
    model = chain(6, biased=is_biased)
    package = compiled(model, machine, precision, prove=True)
    (value,) = load(package).run(inputs()).values()
    (reference,) = onnxruntime_outputs(model, inputs()).values()
    assert relative_error(value, reference) <= TOLERANCE[precision]
    assert relative_error(value, in_double_precision(model, inputs()["x"])) <= TOLERANCE[precision]


@pytest.mark.parametrize("machine", [NARROW, ALONE], ids=["two dies", "one die"])
def test_weights_are_near_where_that_is_faster(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    near = compiled(chain(6), machine).program
    assert fills(near)
    with monkeypatch.context() as patch:
        patch.setattr(PlanSearch, "near", lambda _, found: found)
        far = compiled(chain(6), machine).program
    assert not fills(far)
    assert simulate(near, machine).latency_cycles < simulate(far, machine).latency_cycles


def test_the_search_never_takes_what_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """On machines with more and with less of the NoC: another plan only with less latency."""
    seen: list[tuple[Found, Found]] = []
    near = PlanSearch.near

    def spied(search: PlanSearch, found: Found) -> Found:
        result = near(search, found)
        seen.append((search._simulated(found), result))
        return result

    monkeypatch.setattr(PlanSearch, "near", spied)
    for rate in (32, 64, 128, 256):
        compiled(chain(6), load_machine("br100").with_values({"noc_bytes_per_cycle": rate}))
    assert len(seen) == 4
    others = 0
    for before, after in seen:
        if after.plan is before.plan:
            continue
        assert before.outcome is not None and after.outcome is not None
        assert after.outcome.latency_cycles < before.outcome.latency_cycles
        others += 1
    assert others


@pytest.mark.parametrize("options", [{"opt_level": 0}, {"opt_level": 1}])
def test_little_optimised_weights_stay(options: dict[str, int | bool]) -> None:
    """Weights that stay on the chip stay in L2."""
    program = compiled(chain(6), NARROW, **options).program
    assert not fills(program)


def test_the_same_model_gives_the_same_bytes() -> None:
    one, other = (encode_program(compiled(chain(6), NARROW).program) for _ in range(2))
    assert one == other


FILE = """\
name = "narrow"
vendor = "birc"
base = "br100"

[bandwidth]
noc_bytes_per_cycle = { value = 64, unit = "B/cycle", source = "chosen for tests", confidence = "stated" }
"""


def test_dumps_of_plans_with_weights_near_go_on_to_the_same_program(tmp_path: Path) -> None:
    target, dumps = tmp_path / "narrow.toml", tmp_path / "dumps"
    target.write_text(FILE)
    package = compile_model(chain(6), target, "bf16", dump_ir=dumps)
    assert package is not None
    assert fills(package.program)
    plans = sorted(path for path in dumps.iterdir() if path.suffix == ".plan")
    assert len(plans) == 4
    for file in plans:
        assert "\n  fill %" in file.read_text()
        again = resume(file, target, "bf16", prove=True)
        assert again is not None
        assert encode_program(again.program) == encode_program(package.program), file.name
