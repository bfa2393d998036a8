"""Sub-models on the host: onnx's reference evaluator, imported only by packages that need it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from birc.runtime.errors import BadPackageError, BircError
from birc.runtime.variant import Step


class HostStepError(BircError):
    """The evaluator refused the values that a sub-model was given."""

    exit_code = 2
    meaning = "values that an operator on the host refuses"


class HostStep:
    """One step on the host, ready to be called any number of times."""

    def __init__(self, model: bytes, step: Step) -> None:
        """Raises `BadPackageError` for bytes that are no model the evaluator can run, or that refer to files."""
        self._step = step
        try:
            onnx = import_module("onnx")
            reference = import_module("onnx.reference")
            optional = _optional(import_module("onnx.reference.op_run").OpRun)
        except ImportError as error:
            what = f"needs onnx for {step.nodes[0].op_type} on the host, which is not installed"
            raise BadPackageError(what, where=step.member, hint="pip install onnx") from error
        try:
            proto = onnx.load_from_string(model)
            if _refers_to_files(proto):
                raise BadPackageError("refers to files outside the package", where=step.member)
            self._evaluator: Any = reference.ReferenceEvaluator(proto, new_ops=[optional])
        except BircError:
            raise
        except Exception as error:  # protobuf and onnx raise many types, none of them public
            raise BadPackageError(f"the host cannot run it: {error}", where=step.member) from error

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name: arrays, lists (sequences) or None (an empty optional).

        Raises `HostStepError` when an operator refuses the values.
        """
        feeds = {tensor.name: values[tensor.name] for tensor in self._step.inputs}
        try:
            with np.errstate(all="ignore"):
                results = self._evaluator.run(None, feeds)
        except Exception as error:  # whatever an operator objects to: it is not ours
            named = ", ".join(f"{node.name} ({node.op_type})" for node in self._step.nodes[:3])
            hint = "install the library that it names" if isinstance(error, ImportError) else None
            raise HostStepError(f"the host cannot compute it: {error}", where=named, hint=hint) from error
        return dict(zip((tensor.name for tensor in self._step.outputs), results, strict=True))


def _optional(base: Any) -> Any:
    """The operator `Optional`: that of the evaluator wraps what it is given in a list, which no other one unwraps."""

    class Optional(base):
        op_domain = ""

        def _run(self, x: Any = None, type: Any = None) -> tuple[Any]:
            return (x,)

    return Optional


def _refers_to_files(message: Any) -> bool:
    """Whether a protobuf message holds, at any depth, a tensor whose data lies in a file."""
    pending = [message]
    while pending:
        for field, value in pending.pop().ListFields():
            if field.name == "external_data" and len(value):
                return True
            if field.message_type is not None:
                pending.extend(value if hasattr(value, "__len__") else (value,))
    return False
