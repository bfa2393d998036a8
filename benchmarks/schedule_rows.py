"""The networks at full size whose schedules are held to their bounds, and the goals for each."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx
from workloads import ROOT  # which makes the examples importable

EXAMPLES = ROOT / "examples"
FEW_LAYERS = 2


@dataclass(frozen=True, slots=True)
class Goals:
    """The most that a schedule should take, None where nothing is asked.

    It is latency over the largest bound, bytes of HBM over the compulsory ones, and latency.
    """

    over_bound: float | None = None
    over_compulsory: float | None = None
    latency_us: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `make` takes the number of layers, None for all of them; `quick` rows compile soon.

    With `resident` the weights stay on the chip, and the figures are those of calls that find them there.
    """

    model: str
    batch: int
    goals: Goals
    make: Callable[[int | None], onnx.ModelProto] = field(compare=False)
    quick: bool = True
    resident: bool = False

    @property
    def name(self) -> str:
        """What `-k` looks at."""
        return f"{self.model}, batch {self.batch}"


def rows() -> tuple[Row, ...]:
    """All lines, in the order of the table."""
    bert = {"layers": 24, "hidden": 1024, "heads": 16, "sequence": 384}
    return (
        _row("ResNet-50", 1, (2.2, 1.05), "resnet50"),
        _row("ResNet-50, weights on the chip", 1, (None, None, 60.0), "resnet50", resident=True),
        _row("ResNet-50", 8, (1.6, 1.05), "resnet50"),
        _row("ResNet-50", 64, (1.25, 1.10), "resnet50", quick=False),
        _row("MobileNetV2", 8, (2.5, 1.10), "mobilenet_v2"),
        _row("MobileNetV2", 64, (1.6, 1.10), "mobilenet_v2", quick=False),
        _row("BERT-large, 384 tokens", 1, (1.25, 1.05), "bert", **bert),
        _row("BERT-large, 384 tokens", 8, (1.25, 1.05), "bert", **bert),
        _row("BERT-large, 384 tokens", 64, (1.20, 2.0), "bert", quick=False, **bert),
        _row("GPT-2, 1024 tokens", 1, (1.35, 1.05), "gpt2", layers=12, sequence=1024),
        _row("GPT-2, 1024 tokens", 8, (1.30, 1.10), "gpt2", quick=False, layers=12, sequence=1024),
        _row("Llama, 2 layers, 128 tokens", 1, (1.20, 1.05), "llama", layers=2, sequence=128),
    )


def _row(
    model: str,
    batch: int,
    goals: tuple[float | None, ...],
    example: str,
    *,
    quick: bool = True,
    resident: bool = False,
    **sizes: int,
) -> Row:
    """A row of the model that examples/EXAMPLE.py builds."""

    def make(layers: int | None) -> onnx.ModelProto:
        given: dict[str, Any] = {**sizes, "batch": batch}
        if layers is not None and "layers" in sizes:
            given["layers"] = min(layers, sizes["layers"])
        return importlib.import_module(example).build(**given)

    return Row(model, batch, Goals(*goals), make, quick, resident)
