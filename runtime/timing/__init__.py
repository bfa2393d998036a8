"""The timing engine: cycles, traffic and the ledger of a program, without its values."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birc.runtime.timing.engine import simulate
    from birc.runtime.timing.result import TimingResult

__all__ = ["TimingResult", "simulate"]

_HOMES = {"TimingResult": "birc.runtime.timing.result", "simulate": "birc.runtime.timing.engine"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
