"""The compiler: from an ONNX model to a package for the device."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birc.compiler.check import check_model
    from birc.compiler.driver import PHASES, compile_model, resume, run_named_passes
    from birc.compiler.explain import explain_model
    from birc.compiler.importer.reference import reference_outputs
    from birc.compiler.prove import new_prover

__all__ = [
    "PHASES",
    "check_model",
    "compile_model",
    "explain_model",
    "new_prover",
    "reference_outputs",
    "resume",
    "run_named_passes",
]

_HOMES = {
    "PHASES": "birc.compiler.driver",
    "check_model": "birc.compiler.check",
    "compile_model": "birc.compiler.driver",
    "explain_model": "birc.compiler.explain",
    "new_prover": "birc.compiler.prove",
    "reference_outputs": "birc.compiler.importer.reference",
    "resume": "birc.compiler.driver",
    "run_named_passes": "birc.compiler.driver",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
