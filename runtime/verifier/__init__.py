"""The verifier: what a decoded instruction stream must satisfy before it may run."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Finding", "VerificationError", "verify_program"]

_HOMES = {
    "Finding": "birc.runtime.verifier.findings",
    "VerificationError": "birc.runtime.verifier.findings",
    "verify_program": "birc.runtime.verifier.verify",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
