"""The demo: two networks from ONNX to values and cycles on the modelled BR100, checked against onnx itself.

    make demo          (or: python examples/demo.py)

1. The trained digits classifier reads its 360 held-out images; what it tells is compared with what the
   reference evaluator of the onnx package tells.
2. ResNet-50 runs at batch 1 and 8; its outputs are compared in the same way, and the report of the timing
   engine shows where the time goes.

Exit code 0 when every comparison is within its limit, else 1; an error of birc ends the demo with the code of
that error.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import report_tables
import resnet50
from onnx.reference import ReferenceEvaluator
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from birc.cli.compare import Comparison, compare
from birc.compiler import compile_model
from birc.runtime import Package, Session, load
from birc.runtime.errors import BircError, InternalError
from birc.runtime.report import Report

DIGITS = Path(__file__).parent / "digits"
DIFFERENT_IMAGES_ALLOWED = {"model": 1, "bf16": 3}
RESNET_PRECISIONS = {1: ("model",), 8: ("model", "bf16")}  # for each batch
DIGITS_COLUMNS = ("right on the device", "in the reference", "differ", "may differ", "latency", "images/s")
WIDTH_WITHOUT_TERMINAL = 120


@dataclass(frozen=True, slots=True)
class DigitsResult:
    """One precision of the digits classifier, counted in images."""

    precision: str
    images: int
    right: int
    right_by_reference: int
    different: int
    report: Report

    @property
    def is_within(self) -> bool:
        return self.different <= DIFFERENT_IMAGES_ALLOWED[self.precision]


@dataclass(frozen=True, slots=True)
class NetworkResult:
    """One run of a network beside the reference, and its profile."""

    title: str
    comparison: Comparison
    report: Report


class Teller:
    """Says what is going on: a spinner on a terminal while it lasts, and a line when it is done."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Time the body of a `with` statement."""
        start = time.perf_counter()
        if self.console.is_terminal:
            with self.console.status(what):
                yield
        else:
            yield
        self.console.print(f"  {what:<58} {time.perf_counter() - start:6.1f} s")


def digits(teller: Teller, target: str, precision: str, batch: int) -> DigitsResult:
    """The held-out digits through the compiled classifier, `batch` images a call."""
    path = DIGITS / "digits.onnx"
    with np.load(DIGITS / "digits_test.npz") as test:
        images, labels = test["image"], test["label"]
    with teller.step(f"digits, {precision}: compile for {batch} images a call"):
        session = load(_compiled(path, target, precision, batch))
    with teller.step(f"digits, {precision}: run {len(images)} images"):
        told = _in_batches(session, images, batch).argmax(axis=1)
    with teller.step(f"digits, {precision}: the same in onnx's reference"):
        (logits,) = ReferenceEvaluator(onnx.load(path)).run(None, {"image": images})
    expected = logits.argmax(axis=1)
    return DigitsResult(
        precision,
        images=len(images),
        right=int(np.sum(told == labels)),
        right_by_reference=int(np.sum(expected == labels)),
        different=int(np.sum(told != expected)),
        report=session.profile(with_range=False),
    )


def _in_batches(session: Session, images: np.ndarray, batch: int) -> np.ndarray:
    """The logits of all images; the last call is filled up with empty ones."""
    logits = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        padded = np.zeros((batch, *images.shape[1:]), images.dtype)
        padded[: len(part)] = part
        logits.append(session.run({"image": padded})["logits"][: len(part)])
    return np.concatenate(logits)


def resnet(
    teller: Teller, target: str, batch: int, precisions: Sequence[str], sizes: Mapping[str, int]
) -> Iterator[NetworkResult]:
    """ResNet-50 on a batch of random images in several precisions, compared with the reference."""
    with teller.step(f"ResNet-50, batch {batch}: build"):
        model = resnet50.build(batch, **sizes)
    shape = (batch, 3, sizes["image_size"], sizes["image_size"])
    images = np.random.default_rng(batch).standard_normal(shape, np.float32)
    with teller.step(f"ResNet-50, batch {batch}: onnx's reference"):
        (logits,) = ReferenceEvaluator(model).run(None, {"image": images})
    for precision in precisions:
        title = f"batch {batch}, {precision}"
        with teller.step(f"ResNet-50, {title}: compile"):
            package = _compiled(model, target, precision, None)
        session = load(package)
        with teller.step(f"ResNet-50, {title}: run"):
            outputs = session.run({"image": images})
        with teller.step(f"ResNet-50, {title}: simulate the time"):
            report = session.profile(with_range=False)
        (comparison,) = compare(package.manifest, outputs, {"logits": logits}, None)
        yield NetworkResult(title, comparison, report)


def _compiled(model: Path | onnx.ModelProto, target: str, precision: str, batch: int | None) -> Package:
    package = compile_model(model, target=target, precision=precision, batch=batch)
    if package is None:
        raise InternalError("a compilation without a last phase gave no package")
    return package


def digits_table(results: Sequence[DigitsResult]) -> Table:
    """Accuracy beside the reference's."""
    table = Table(title="Digits: 360 held-out images", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("precision")
    for name in DIGITS_COLUMNS:
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            result.precision,
            f"{result.right} of {result.images} ({result.right / result.images:.1%})",
            f"{result.right_by_reference} ({result.right_by_reference / result.images:.1%})",
            str(result.different),
            str(DIFFERENT_IMAGES_ALLOWED[result.precision]),
            f"{result.report.latency_us:,.1f} us",
            f"{result.report.throughput_per_s:,.0f}",
        )
    return table


def error_table(results: Sequence[NetworkResult]) -> Table:
    """Relative errors beside their limits."""
    table = Table(title="ResNet-50: outputs against onnx's reference", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("run")
    for name in ("relative error", "limit", ""):
        table.add_column(name, justify="right")
    for result in results:
        comparison = result.comparison
        verdict = "ok" if comparison.is_within else "TOO LARGE"
        table.add_row(result.title, f"{comparison.error:.2e}", f"{comparison.limit:.0e}", verdict)
    return table


def run_demo(console: Console, given: argparse.Namespace) -> bool:
    """Both parts. Returns whether every comparison is within its limit."""
    teller = Teller(console)
    console.rule(f"1. A trained classifier on {given.target}", align="left")
    classified = [digits(teller, given.target, name, given.batch) for name in DIFFERENT_IMAGES_ALLOWED]
    console.print(digits_table(classified))

    console.rule(f"2. ResNet-50 on {given.target}", align="left")
    sizes = {"width": given.width, "image_size": given.image_size}
    computed = [
        result
        for batch, precisions in RESNET_PRECISIONS.items()
        for result in resnet(teller, given.target, batch, precisions, sizes)
    ]
    console.print(error_table(computed))
    profiles = {result.title: result.report for result in computed}
    console.print(report_tables.summary(profiles))
    console.print(report_tables.ledger(profiles))
    for title, report in profiles.items():
        console.print(report_tables.slowest(title, report))
    return all(result.is_within for result in classified) and all(r.comparison.is_within for r in computed)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compile and run two networks on the modelled BR100.")
    parser.add_argument("--target", default="br100")
    parser.add_argument("--batch", type=int, default=360, help="digit images a call (default: all 360)")
    parser.add_argument("--width", type=int, default=64, help="of ResNet-50, in channels")
    parser.add_argument("--image-size", type=int, default=224, help="of ResNet-50, in pixels")
    parsed = parser.parse_args(given)
    if min(parsed.batch, parsed.width) < 1 or parsed.image_size < 32:
        parser.error("--batch and --width are at least 1, --image-size at least 32")
    return parsed


def main(given: Sequence[str] | None = None) -> int:
    """Run the demo. Returns the exit code."""
    options = arguments(given)
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    start = time.perf_counter()
    try:
        is_right = run_demo(console, options)
    except BircError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    seconds = math.ceil(time.perf_counter() - start)
    console.print("Times and utilizations are those of a model of the chip (docs/timing.md), not of silicon.")
    verdict = "every comparison is within its limit" if is_right else "a comparison is beyond its limit"
    console.print(f"{verdict}; {seconds} s in all")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
