"""`birc compile` and `birc opt`: from a model to a package, and from every text on the way."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from birc.cli.main import main
from birc.compiler import PHASES
from birc.runtime.package import Package

BATCH = ("--target", "tiny", "--batch", "4")


@pytest.fixture(scope="module")
def compiled(digits, tmp_path_factory) -> Path:
    """A folder with `net.birc` and the texts of all phases in `phases`."""
    folder = tmp_path_factory.mktemp("compiled")
    arguments = ["compile", str(digits), *BATCH, "-o", f"{folder}/net.birc", "--dump-ir", f"{folder}/phases"]
    assert main(arguments) == 0
    return folder


def dumped(folder: Path, phase: str) -> Path:
    (path,) = (path for path in folder.glob("phases/*") if path.stem.endswith(f"_{phase}"))
    return path


def test_the_package_computes_what_the_model_does(birc, digits, compiled):
    outcome = birc("run", compiled / "net.birc", "--check", digits)
    assert outcome.code == 0, outcome
    assert "ok" in outcome.out


def test_compiling_twice_gives_the_same_bytes(birc, digits, compiled, tmp_path):
    outcome = birc("compile", digits, *BATCH)
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    assert outcome.out.startswith("digits.birc: digits for tiny, precision model\n")
    assert (tmp_path / "digits.birc").read_bytes() == (compiled / "net.birc").read_bytes()


def test_the_summary_as_json(birc, digits, compiled):
    outcome = birc("compile", digits, *BATCH, "--format", "json")
    summary = json.loads(outcome.out)
    package = Package.open(compiled / "net.birc")
    assert summary["schema"] == "birc.compile/1"
    assert summary["package"] == "digits.birc"
    assert summary["package_bytes"] == (compiled / "net.birc").stat().st_size
    assert summary["kernels"] == len(package.program.kernels)
    assert summary["macs"] == package.program.useful_macs > 0
    assert summary["onnx_nodes"] == package.manifest.report["device_nodes"] > 0


def test_without_debug_information_nothing_else_changes(birc, digits, compiled):
    birc("compile", digits, *BATCH, "-o", "bare.birc", "--no-debug-info")
    bare, whole = Package.open("bare.birc"), Package.open(compiled / "net.birc")
    assert whole.debug
    assert not bare.debug
    assert bare.program == whole.program
    assert bare.manifest.report == whole.manifest.report


@pytest.mark.parametrize("phase", ["import", "canonicalize", "fuse", "partition", "tile", "schedule", "allocate"])
def test_every_text_leads_to_the_same_program(birc, compiled, phase):
    outcome = birc("compile", dumped(compiled, phase), "--target", "tiny", "-o", "again.birc")
    assert outcome.code == 0, outcome
    again, whole = Package.open("again.birc"), Package.open(compiled / "net.birc")
    assert again.program == whole.program
    assert again.manifest.inputs == whole.manifest.inputs
    for key, array in whole.weights.items():
        np.testing.assert_array_equal(again.weights[key].view(np.uint8), array.view(np.uint8))


PROVED = re.compile(r"  proved: (\d+) kernels, (\d+) accesses in bounds, (\d+) par loops independent, in \d+\.\d s")


def test_the_plan_is_proved(birc, digits, compiled):
    outcome = birc("compile", digits, *BATCH, "--prove", "-o", "proved.birc")
    assert outcome.code == 0, outcome
    *_, last = outcome.out.splitlines()
    found = PROVED.fullmatch(last)
    assert found is not None
    assert Path("proved.birc").read_bytes() == (compiled / "net.birc").read_bytes()
    again = birc("compile", dumped(compiled, "allocate"), "--target", "tiny", "--prove", "--format", "json")
    proved = json.loads(again.out)["proved"]
    assert [proved[key] for key in ("kernels", "accesses", "par_loops")] == [int(number) for number in found.groups()]


@pytest.fixture
def changed(compiled, tmp_path) -> Callable[[str, str, str], Path]:
    """A text of a plan, in which something is replaced, beside the constants."""

    def change(phase: str, old: str, new: str) -> Path:
        plan = dumped(compiled, phase)
        text = plan.read_text()
        assert old in text
        shutil.copy(plan.with_name("constants.safetensors"), tmp_path)
        path = tmp_path / plan.name
        path.write_text(text.replace(old, new, 1))
        return path

    return change


def test_a_changed_plan_that_cannot_be_proved_is_the_texts_fault(fails, changed):
    """Every column is stored over the first one."""
    plan = changed("allocate", "vst(v2) %logits[spc, m, n]", "vst(v2) %logits[spc, m, 0]")
    line = fails(3, "compile", plan, "--target", "tiny", "--prove")
    assert str(plan) in line
    assert re.search(r"kernel 'logits[^']*': vst %logits\[spc, m, 0\]: writes the element", line)
    assert re.search(r" at another point at .*\bn = \d+, .*other n = \d+", line)


def test_a_changed_plan_that_breaks_a_rule_is_the_texts_fault(fails, changed):
    plan = changed("tile", "par n 64, ", "par n 65, ")
    line = fails(3, "compile", plan, "--target", "tiny")
    assert str(plan) in line
    assert "reaches 0 to 64 on axis 2" in line


def test_a_plan_without_its_constants(fails, changed, tmp_path):
    plan = changed("allocate", "plan", "plan")
    (tmp_path / "constants.safetensors").unlink()
    assert "no values for the constant %" in fails(3, "compile", plan, "--target", "tiny")


def test_only_finished_plans_are_proved(birc, fails, digits, tmp_path):
    line = fails(2, "compile", digits, *BATCH, "--prove", "--stop-after", "tile", "--dump-ir", tmp_path / "texts")
    assert "--prove: proves finished plans, there is none after tile" in line
    outcome = birc("compile", digits, *BATCH, "--prove", "--stop-after", "allocate", "--dump-ir", tmp_path / "texts")
    assert outcome.code == 0, outcome
    first, second = outcome.out.splitlines()
    assert first.startswith("stopped after allocate")
    assert second.startswith("proved: ")


def test_a_finished_program_is_for_asm(fails, compiled):
    assert "birc asm" in fails(2, "compile", dumped(compiled, "codegen"), "--target", "tiny")


def test_dimensions_belong_to_the_model(fails, compiled):
    assert "are fixed" in fails(2, "compile", dumped(compiled, "fuse"), "--batch", "2")


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_stopping_after_a_phase_leaves_its_text(birc, digits, tmp_path, phase):
    outcome = birc("compile", digits, *BATCH, "--dump-ir", "phases", "--stop-after", phase)
    assert outcome.code == 0, outcome
    assert outcome.out == f"stopped after {phase}; the texts are in phases\n"
    dumped(tmp_path, phase)
    later = PHASES[PHASES.index(phase) + 1]
    assert not list(tmp_path.glob(f"phases/*_{later}.*"))
    assert not list(tmp_path.glob("*.birc"))


def test_the_size_of_the_batch_must_be_given(fails, digits):
    assert "--dim batch=SIZE" in fails(2, "compile", digits)


def test_a_symbolic_dimension_is_fixed_by_name(birc, digits):
    assert birc("compile", digits, "--target", "tiny", "--dim", "batch=3").code == 0
    package = Package.open("digits.birc")
    assert package.manifest.inputs[0].shape[0] == 3


def test_several_sizes_are_variants(birc, fails, digits):
    outcome = birc("compile", digits, "--target", "tiny", "--batch", "2,4")
    assert "2 variants: batch=2; batch=4\n    padding batch: safe" in outcome.out, outcome
    assert birc("compile", digits, "--target", "tiny", "--dim", "batch=2,4", "-o", "same.birc").code == 0
    assert Package.open("same.birc").manifest == Package.open("digits.birc").manifest
    run = birc("run", "digits.birc", "--dim", "batch=3", "--check", digits)
    assert run.code == 0, run
    assert "variant: batch=4, batch 3 padded to 4" in run.out
    choice = json.loads(birc("run", "digits.birc", "--dim", "batch=3", "--format", "json").out)["run"]
    assert (choice["variant"], choice["dimensions"]) == (1, {"batch": 4})
    assert choice["padded"] == {"batch": {"from": 3, "to": 4}}
    assert choice["outputs"][0]["shape"] == [3, 10]
    assert "none holds batch=5" in fails(2, "run", "digits.birc", "--dim", "batch=5")
    assert "no input has a dimension 'seq'" in fails(2, "run", "digits.birc", "--dim", "seq=5")
    for chosen in (("--dim", "batch=4"), ("--variant", "1")):
        report = json.loads(birc("profile", "digits.birc", *chosen, "--format", "json").out)
        assert report["batch"] == 4
    assert "give one of them" in fails(2, "profile", "digits.birc", "--dim", "batch=4", "--variant", "1")
    assert "there is batch=2; batch=4" in fails(2, "profile", "digits.birc", "--dim", "batch=3")
    shown = birc("inspect", "digits.birc").out
    assert ["1", "batch=4", "programs/1.bin"] in [line.split()[:3] for line in shown.splitlines()]
    assert "2 programs" in birc("verify", "digits.birc").out


def test_fp32_is_held_to_a_narrower_limit(birc, digits):
    assert birc("compile", digits, *BATCH, "--precision", "fp32").code == 0
    assert Package.open("digits.birc").manifest.precision == "fp32"
    outcome = birc("run", "digits.birc", "--check", digits)
    assert outcome.code == 0, outcome
    assert "limit 0.0001" in outcome.out


def test_bf16_is_kept_at_the_boundary(birc, digits):
    assert birc("compile", digits, *BATCH, "--precision", "bf16").code == 0
    package = Package.open("digits.birc")
    assert package.manifest.precision == "bf16"
    assert (package.manifest.inputs[0].dtype, package.manifest.inputs[0].device_dtype) == ("f32", "bf16")
    outcome = birc("run", "digits.birc", "--check", digits)
    assert outcome.code == 0, outcome
    assert "limit 0.05" in outcome.out


def test_a_target_of_ones_own_goes_with_its_description(birc, fails, digits, tmp_path):
    (tmp_path / "mine.toml").write_text('name = "mine"\nvendor = "me"\nbase = "br100"\n')
    assert birc("compile", digits, "--target", "mine.toml", "--batch", 4).code == 0
    assert "is for the target 'mine'" in fails(6, "verify", "digits.birc")
    assert birc("verify", "digits.birc", "--target-file", "mine.toml").code == 0
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nvendor = "me"\nbase = "br100"\n[chip]\n'
        'tdp_w = { value = 1.0, unit = "W", source = "me", confidence = "stated" }\n'
    )
    assert "compile it again" in fails(6, "verify", "digits.birc", "--target-file", "mine.toml")


def test_opt_runs_single_passes(birc, compiled, tmp_path):
    source = dumped(compiled, "import")
    outcome = birc("opt", source, "--passes", "fold_constants, simplify")
    assert outcome.code == 0, outcome
    assert outcome.out.startswith("graph ")
    assert birc("opt", source, "--passes", "fold_constants,simplify", "-o", "out.ir").code == 0
    assert (tmp_path / "out.ir").read_text().rstrip("\n") == outcome.out.rstrip("\n")


def test_wrong_passes(fails, compiled):
    assert "there is no pass 'lunch' (one of" in fails(2, "opt", dumped(compiled, "import"), "--passes", "lunch")
    assert "names no pass" in fails(2, "opt", dumped(compiled, "import"), "--passes", ",")
    assert "fuse" in fails(2, "opt", dumped(compiled, "tile"), "--passes", "simplify")
