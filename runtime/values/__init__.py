"""The values engine: what a program computes, vectorised over whole loop nests."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birc.runtime.values.engine import ValuesEngine
    from birc.runtime.values.preparation import Fallback

__all__ = ["Fallback", "ValuesEngine"]

_HOMES = {
    "Fallback": "birc.runtime.values.preparation",
    "ValuesEngine": "birc.runtime.values.engine",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
