"""The demo on small networks: what it prints, its exit codes, and that it fails when values are wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from networks import EXAMPLES_FOLDER, example_module
from rich.console import Console

from birc.runtime.session import Session

SMALL = ("--target", "tiny", "--batch", "100", "--width", "4", "--image-size", "32")


@pytest.fixture
def demo() -> ModuleType:
    """examples/demo.py."""
    return example_module("demo.py")


def test_demo(demo: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "RESNET_PRECISIONS", {1: ("bf16",)})
    assert demo.main(SMALL) == 0
    printed = capsys.readouterr().out
    for wanted in (
        "350 (97.2%)",
        "batch 1, bf16",
        "tcore useful",
        "bound by",
        "die-to-die",
        "SRAM",
        "every comparison",
    ):
        assert wanted in printed
    assert "\x1b" not in printed  # plain when it is no terminal


def test_wrong_values_fail(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Session.run
    monkeypatch.setattr(Session, "run", lambda self, inputs: {name: -y for name, y in right(self, inputs).items()})
    teller = demo.Teller(Console(quiet=True))
    result = demo.digits(teller, "tiny", "model", 100)
    assert (result.images, result.right_by_reference) == (360, 350)
    assert result.different > 300 and not result.is_within


@pytest.mark.parametrize(("is_right", "code"), [(True, 0), (False, 1)])
def test_exit_code(demo: ModuleType, monkeypatch: pytest.MonkeyPatch, is_right: bool, code: int) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda console, given: is_right)
    assert demo.main(()) == code


def test_an_error_of_birc_is_one_line(demo: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(("--target", "nowhere")) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("demo: ") and captured.err.count("\n") == 1


def test_wrong_options_are_refused(demo: ModuleType) -> None:
    with pytest.raises(SystemExit):
        demo.main(("--batch", "0"))


@pytest.mark.parametrize("batch", [1, 7, 360])
def test_batches_do_not_change_the_images(demo: ModuleType, batch: int) -> None:
    class Echo:
        """A session whose logits are its images; the filling must not come back."""

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            assert inputs["image"].shape[0] == batch
            return {"logits": inputs["image"]}

    images = np.arange(10.0).reshape(10, 1)
    np.testing.assert_array_equal(demo._in_batches(Echo(), images, batch), images)


@pytest.mark.parametrize(
    ("names", "together"),
    [
        ((), ""),
        (("stem.conv",), "stem.conv"),
        (("stem.conv", "stem.bn", "stem.relu"), "stem.{conv, bn, relu}"),
        (("/layer1/conv", "/layer1/relu"), "/layer1/{conv, relu}"),
        (("conv1", "conv2"), "{conv1, conv2}"),
    ],
)
def test_names_of_nodes_are_put_together(demo: ModuleType, names: tuple[str, ...], together: str) -> None:
    assert sys.modules["report_tables"]._together(names) == together


@pytest.mark.slow
def test_the_whole_demo(demo: ModuleType) -> None:
    assert Path(EXAMPLES_FOLDER).is_dir()
    assert demo.main(()) == 0
