"""The driver: phases, dumps that can be taken up again, determinism, and the choice between plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import EXPORTED, exported_network, relative_error
from onnx import TensorProto, helper, numpy_helper

from birc.compiler.driver import PHASES, PRECISIONS, compile_model, resume, run_named_passes
from birc.compiler.dump import load_dump
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.printer import print_graph
from birc.runtime.assembly import program_text
from birc.runtime.codec import encode_program
from birc.runtime.errors import UsageError
from birc.runtime.machine import load_machine
from birc.runtime.package import Package
from birc.runtime.session import Session, load

LAYERS = 260
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.onnx"


def compiled(package: Package | None) -> Package:
    """The package of a compilation that was not stopped."""
    if package is None:
        raise TypeError("stopped early")
    return package


@pytest.mark.parametrize("name", EXPORTED)
def test_every_dump_reads_back_and_goes_on_to_the_same_program(name: str, tmp_path: Path) -> None:
    model, _, _ = exported_network(name)
    package = compiled(compile_model(model, target="tiny", dump_ir=tmp_path))
    wanted = encode_program(package.program)
    files = sorted(p for p in tmp_path.iterdir() if p.suffix in (".ir", ".plan", ".asm"))
    assert {p.suffix for p in files} == {".ir", ".plan", ".asm"}
    for file in files:
        content = load_dump(file).content
        if isinstance(content, Graph):
            assert print_graph(content) == file.read_text()
        elif isinstance(content, Plan):
            assert print_plan(content) == file.read_text()
        else:
            assert program_text(content) == file.read_text()
    plans = [p for p in files if p.suffix == ".plan"]
    for file in [files[0], *plans]:
        again = compiled(resume(file, target="tiny"))
        assert encode_program(again.program) == wanted, file.name
        assert again.manifest.first.report == package.manifest.first.report, file.name


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "int8"])  # int8 takes a quantised model
def test_every_precision_goes_on_from_its_dumps(precision: str, tmp_path: Path) -> None:
    package = compiled(compile_model(DIGITS, target="br100", batch=8, precision=precision, dump_ir=tmp_path))
    for file in sorted(p for p in tmp_path.iterdir() if p.suffix in (".ir", ".plan")):
        again = compiled(resume(file, target="br100", precision=precision))
        assert encode_program(again.program) == encode_program(package.program), file.name


def test_a_dump_from_within_a_phase_is_taken_up_at_its_beginning(tmp_path: Path) -> None:
    package = compiled(compile_model(DIGITS, target="tiny", batch=2, dump_ir=tmp_path))
    within = next(p for p in sorted(tmp_path.glob("*.ir")) if p.name.count(".") == 2)
    assert encode_program(compiled(resume(within, target="tiny")).program) == encode_program(package.program)


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_stopping_after_a_phase_leaves_its_text(phase: str, tmp_path: Path) -> None:
    assert compile_model(DIGITS, target="tiny", batch=2, dump_ir=tmp_path, stop_after=phase) is None
    last = sorted(p for p in tmp_path.iterdir() if p.suffix in (".ir", ".plan", ".asm"))[-1]
    assert load_dump(last).phase == phase


def test_named_passes_run_on_a_dump(tmp_path: Path) -> None:
    compile_model(DIGITS, target="tiny", batch=2, dump_ir=tmp_path, stop_after="legalize")
    legalized = sorted(tmp_path.glob("*.ir"))[-1]
    assert "group(" in run_named_passes(legalized, ["fuse"])
    with pytest.raises(UsageError, match="no pass 'fusee'"):
        run_named_passes(legalized, ["fusee"])


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        compiled(compile_model(DIGITS, batch=8)).save(tmp_path / f"{name}.birc")
    assert (tmp_path / "a.birc").read_bytes() == (tmp_path / "b.birc").read_bytes()


@pytest.mark.parametrize("name", EXPORTED)
def test_two_dies_are_never_slower_than_one(name: str) -> None:
    model, _, _ = exported_network(name)
    machine = load_machine("br100")
    both, one = (
        Session(compiled(compile_model(model, target=m, precision="bf16"))).profile(with_range=False).latency_us
        for m in (machine, machine.with_dies(1))
    )
    assert both <= one


@pytest.mark.parametrize("batch", [1, 2, 3, 32, 64])
@pytest.mark.parametrize("target", ["br100", "br104", "tiny"])
def test_batches_are_divided_without_changing_values(batch: int, target: str) -> None:
    """Dies, chunks and samples a SPC: every way to divide a batch gives the values of one sample after the other."""
    images = np.load(DIGITS.parent / "digits_test.npz")["image"][:batch]
    package = compiled(compile_model(DIGITS, target=target, batch=batch))
    outputs = load(package).run({"image": images})["logits"]
    single = load(compiled(compile_model(DIGITS, target="tiny", batch=1)))
    wanted = np.concatenate([single.run({"image": image[None]})["logits"] for image in images])
    assert relative_error(outputs, wanted) < 1e-4


def test_unknown_phase_and_precision_are_refused() -> None:
    with pytest.raises(UsageError, match="no phase 'fused'"):
        compile_model(DIGITS, stop_after="fused")
    with pytest.raises(UsageError, match="precision 'fp8'"):
        compile_model(DIGITS, precision="fp8")


def test_more_constants_than_there_are_events() -> None:
    """A copy of each of 260 weights: the 256 events of a die are used again, waited for in between."""
    random = np.random.default_rng(0)
    weights = [(random.standard_normal((8, 8)) / 3).astype(np.float32) for _ in range(LAYERS)]
    weights = [np.tile(w, (16, 16)) / 16 for w in weights]
    names = ["x", *(f"y{i}" for i in range(LAYERS))]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(LAYERS)],
            "deep",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 128])],
            [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [2, 128])],
            [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    x = random.standard_normal((2, 128)).astype(np.float32)
    wanted = x.astype(np.float64)
    for w in weights:
        wanted = wanted @ w
    outputs = load(compiled(compile_model(model, target="br104"))).run({"x": x})
    assert relative_error(outputs[names[-1]], wanted) < 2e-3
