"""What the tests of the command line share: a saved package, and running a command in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import packages
import pytest
from onnx import TensorProto, helper

from birc.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Birc = Callable[..., Outcome]


@pytest.fixture
def birc(capsys, tmp_path, monkeypatch) -> Birc:
    """Runs `birc ARGUMENTS` in an empty folder; the temporary folder of bug reports is that one too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def fails(birc) -> Callable[..., str]:
    """Runs a command that must fail with an exit code, and say why in one line; returns that line."""

    def run(code: int, *arguments: object) -> str:
        outcome = birc(*arguments)
        assert outcome.code == code, outcome
        assert outcome.out == ""
        (line,) = outcome.err.splitlines()
        assert line.startswith("error: ")
        assert "Traceback" not in line
        return line

    return run


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> Path:
    """The matrix product of the handmade programs as a package."""
    path = tmp_path_factory.mktemp("packed") / "gemm.birc"
    packages.gemm_package().package.save(path)
    return path


@pytest.fixture(scope="session")
def digits() -> Path:
    """A small trained classifier."""
    return Path(__file__).parents[2] / "examples" / "digits" / "digits.onnx"


@pytest.fixture(scope="session")
def unsupported(tmp_path_factory) -> Path:
    """A model with three operators that nobody has heard of."""
    names = ("FirstUnknown", "SecondUnknown", "ThirdUnknown")
    nodes = [helper.make_node(name, [f"x{n}"], [f"x{n + 1}"], domain="org.example") for n, name in enumerate(names)]
    graph = helper.make_graph(
        nodes,
        "unknown",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("x3", TensorProto.FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("org.example", 1)]
    path = tmp_path_factory.mktemp("unsupported") / "unknown.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path
