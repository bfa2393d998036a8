"""The runtime: instruction table, machine descriptions, package format and the engines that run it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birc.runtime.package import Package
    from birc.runtime.session import Session, load

__all__ = ["Package", "Session", "load"]

_HOMES = {
    "Package": "birc.runtime.package",
    "Session": "birc.runtime.session",
    "load": "birc.runtime.session",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
