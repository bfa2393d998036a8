"""Weights that stay on the chip between calls: values in later calls, refused programs, what a profile says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from machines import with_quick_link
from onnx import TensorProto, helper, numpy_helper
from verifying import findings, refused

from birc.compiler.driver import compile_model, resume
from birc.runtime import load
from birc.runtime.boundary import read_port, to_host, write_port
from birc.runtime.codec import decode_program, encode_program
from birc.runtime.errors import DoesNotFitError
from birc.runtime.machine import load_machine
from birc.runtime.memory import POISON, Memory
from birc.runtime.package import Package
from birc.runtime.package_weights import as_bytes
from birc.runtime.program import Command, Program
from birc.runtime.residents import later_calls, resident_bytes, residents
from birc.runtime.stepping.engine import StepEngine
from birc.runtime.timing import simulate
from birc.runtime.values.engine import ValuesEngine

WIDTH = 96
TINY = load_machine("tiny")


def layers(count: int = 2, width: int = WIDTH) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """Products with a ReLU after each; the number of rows is open."""
    rng = np.random.default_rng(7)
    weights = [rng.normal(0, width**-0.5, (width, width)).astype(np.float32) for _ in range(count)]
    nodes = []
    for number in range(count):
        nodes.append(helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"y{number}"]))
        nodes.append(helper.make_node("Relu", [f"y{number}"], [f"x{number + 1}"]))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["rows", width])],
        [helper.make_tensor_value_info(f"x{count}", TensorProto.FLOAT, ["rows", width])],
        [numpy_helper.from_array(array, f"w{number}") for number, array in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), weights


def expected(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    value = x.astype(np.float64)
    for array in weights:
        value = np.maximum(value @ array.astype(np.float64), 0)
    return value


def inputs_of(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def resident() -> Package:
    package = compile_model(layers()[0], target="tiny", dims={"rows": 8}, resident_weights=True)
    assert package is not None
    return package


@pytest.fixture(scope="module")
def on_two_dies() -> Package:
    package = compile_model(layers()[0], with_quick_link("tiny"), dims={"rows": 128}, resident_weights=True)
    assert package is not None
    assert package.program.dies == 2
    return package


def check(found: np.ndarray, x: np.ndarray) -> None:
    right = expected(x, layers()[1])
    np.testing.assert_allclose(found, right, rtol=0, atol=4e-3 * np.abs(right).max())


def test_every_call_gives_its_values(resident: Package) -> None:
    session = load(resident)
    for seed in range(4):
        x = inputs_of(8, seed)
        check(session.run({"x0": x})["x2"], x)


def test_on_two_dies_too(on_two_dies: Package) -> None:
    session = load(on_two_dies)
    for seed in range(3):
        x = inputs_of(128, seed)
        check(session.run({"x0": x})["x2"], x)


def initialised(package: Package) -> Memory:
    """Constants in HBM, everything else poisoned."""
    memory = Memory(package.program, TINY)
    for image in package.program.constants:
        for die in range(package.program.dies):
            if image.dies >> die & 1:
                content = as_bytes(package.weights[image.key])
                memory.hbm[die][image.address : image.address + image.num_bytes] = content
    return memory


@pytest.mark.parametrize("order", ["sequential", "random"])
def test_later_calls_read_what_the_first_one_left(resident: Package, order) -> None:
    """Between the calls the weights are destroyed in HBM: only what lies on the chip can give the values."""
    program, memory = resident.program, initialised(resident)
    ports = {tensor.name: tensor for tensor in (*resident.manifest.inputs, *resident.manifest.outputs)}
    for seed in range(3):
        x = inputs_of(8, seed)
        write_port(program, memory, program.inputs[0], x)
        StepEngine(program if seed == 0 else later_calls(program), TINY, seed, order).run(memory)
        check(to_host(read_port(program, memory, program.outputs[0]), ports["x2"]), x)
        for image in program.constants:
            for die in range(program.dies):
                memory.hbm[die][image.address : image.address + image.num_bytes] = POISON


def test_another_variant_drives_the_weights_out() -> None:
    package = compile_model(layers()[0], target="tiny", dims={"rows": [2, 8]}, resident_weights=True)
    assert package is not None
    session = load(package)
    for seed, rows in enumerate((2, 8, 8, 2, 2, 8)):
        x = inputs_of(rows, seed)
        check(session.run({"x0": x})["x2"], x)


def test_the_values_engine_leaves_the_copies_out(resident: Package) -> None:
    """What is not executed is not counted: the first call brings the weights, the second does not."""
    program, memory = resident.program, initialised(resident)
    engine = ValuesEngine(program, TINY)
    places = {item.place for item in residents(program)}
    for copied in (resident_bytes(program), 0, resident_bytes(program)):
        write_port(program, memory, program.inputs[0], inputs_of(8, 1))
        counts = engine.run(memory)
        assert sum(counts.copies.get(place, 0) for place in places) == copied
        if not copied:
            engine.begin_again()


def test_streams_keep_the_mark(resident: Package) -> None:
    assert any(isinstance(item, Command) and item.once for item in resident.program.commands)
    assert decode_program(encode_program(resident.program)) == resident.program


def changed(program: Program, mnemonic: str, **changes: object) -> Program:
    """The first command of this name and mark changed."""
    commands = list(program.commands)
    once = changes.pop("marked", True)
    place = next(
        n for n, c in enumerate(commands) if isinstance(c, Command) and (c.mnemonic, c.once) == (mnemonic, once)
    )
    commands[place] = replace(commands[place], **changes)
    return replace(program, commands=tuple(commands))


def test_the_verifier_takes_both_streams(resident: Package) -> None:
    assert findings(resident.program) == []
    refused(later_calls(resident.program), "reads l2 bytes", "not written by then")


def test_a_copy_and_its_wait_go_together(resident: Package) -> None:
    refused(changed(resident.program, "copy", once=False), "event", "set and never waited for")
    refused(changed(resident.program, "wait", once=False), "which nothing before sets")


@pytest.mark.parametrize("mnemonic", ["launch", "bind", "run", "barrier"])
def test_other_commands_are_for_every_call(resident: Package, mnemonic: str) -> None:
    refused(changed(resident.program, mnemonic, marked=False, once=True), f"{mnemonic} in the first call only")


def with_copy(program: Program, number: int, *, target: dict | None = None, source: dict | None = None) -> Program:
    """The copy of this number from, or to, a descriptor of its own with changes."""
    places = [n for n, c in enumerate(program.commands) if isinstance(c, Command) and c.mnemonic == "copy"]
    command = program.commands[places[number]]
    descriptors, operands = list(program.descriptors), list(command.operands)
    for operand, changes in enumerate((target, source)):
        if changes:
            descriptors.append(replace(descriptors[operands[operand]], **changes))
            operands[operand] = len(descriptors) - 1
    commands = list(program.commands)
    commands[places[number]] = replace(command, operands=tuple(operands))
    return replace(program, commands=tuple(commands), descriptors=tuple(descriptors))


def test_only_constants_stay(resident: Package) -> None:
    program = resident.program
    piece = program.inputs[0].pieces[0]
    refused(
        with_copy(program, 0, source={"address": program.descriptors[piece.descriptor].address}),
        "brings what is not constant",
    )
    refused(with_copy(program, 0, target={"space": "hbm", "address": 0}), "not from HBM to L2")


def test_what_stays_has_a_place_of_its_own(resident: Package) -> None:
    program = resident.program
    first, second = list(residents(program))[:2]
    refused(with_copy(program, 1, target={"address": first.address}), "what stays on the chip lies apart")
    kept = {(number, d.address) for number, d in enumerate(program.descriptors) if d.space == "l2"}
    stored = next(number for number, address in kept if address not in (first.address, second.address))
    descriptors = list(program.descriptors)
    descriptors[stored] = replace(descriptors[stored], address=second.address)
    refused(replace(program, descriptors=tuple(descriptors)), "may write", "constants that stay on the chip")


def test_a_profile_tells_both_latencies(resident: Package) -> None:
    program = resident.program
    report = load(resident).profile(False)
    warm = report.to_json()["warm"]
    later = simulate(later_calls(program), TINY)
    assert warm["latency_us"] == TINY.cycles_to_us(later.latency_cycles)
    assert warm["latency_us"] <= report.latency_us
    assert warm["resident_bytes"] == resident_bytes(program)
    moved = report.traffic["hbm_bytes"] - warm["traffic"]["hbm_bytes"]
    assert moved == resident_bytes(program)
    weights = 2 * WIDTH * WIDTH * 4
    assert report.traffic["compulsory_bytes"] - warm["traffic"]["compulsory_bytes"] == weights
    assert sum(warm["ledger"].values()) == TINY.spcs * later.latency_cycles
    assert "find the weights on the chip (warm)" in report.render_text()


def test_without_the_option_no_call_is_warm() -> None:
    package = compile_model(layers()[0], target="tiny", dims={"rows": 8})
    assert package is not None
    report = load(package).profile(False)
    assert report.to_json()["warm"] is None
    assert "warm" not in report.render_text()


def test_weights_that_do_not_fit_are_told() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        compile_model(layers(24, 128)[0], target="tiny", dims={"rows": 8}, resident_weights=True)
    error = caught.value
    assert "bytes of weights are to stay in the L2 of a die, which has 131072, beside 1024 bytes" in error.what
    assert "without --resident-weights" in (error.hint or "")


def test_a_dumped_plan_keeps_its_residents(tmp_path, resident: Package) -> None:
    again = compile_model(layers()[0], target="tiny", dims={"rows": 8}, resident_weights=True, dump_ir=tmp_path)
    assert again is not None
    (plan,) = tmp_path.glob("*_allocate.plan")
    package = resume(plan, target="tiny")
    assert package is not None
    assert package.program == again.program == resident.program
