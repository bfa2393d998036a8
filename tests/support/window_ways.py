"""Restricting the search for tilings of windows to the ways under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from birc.compiler.ir.plan import Kernel
from birc.compiler.passes import tile, tile_window
from birc.compiler.passes.unroll_window import Unrolling


def choose_only(monkeypatch: pytest.MonkeyPatch, chosen: Callable[[Unrolling], object]) -> None:
    """Let there be only some of all ways to unroll and tile."""
    candidates = tile_window._candidates

    def some(*arguments: Any) -> Iterator[object]:
        return (found for found in candidates(*arguments) if chosen(found[1].how))

    monkeypatch.setattr(tile_window, "_candidates", some)


def choose_taps_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be only ways whose taps along one dimension lie side by side in registers, however few they are."""
    choose_only(monkeypatch, lambda how: how.beside)
    monkeypatch.setattr(tile_window, "LEAST_BESIDE", 2)
    monkeypatch.setattr(tile, "_ways", lambda *_: [])


def joins_taps(kernel: Kernel) -> bool:
    """Whether sums of taps that lie side by side are joined."""
    return any(s.op == "vredsum" for phase in kernel.phases for s in phase.statements)
