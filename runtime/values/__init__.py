"""The values engine: what a program computes, vectorised over whole loop nests."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birc.runtime.values.engine import Fallback, ValuesEngine

__all__ = ["Fallback", "ValuesEngine"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("birc.runtime.values.engine"), name)
