"""One case run in one form: compiled, packed into a file, loaded, verified, run, and compared by onnx's own rules."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from case_forms import FORMS, Formed
from onnx.backend.test.runner import Runner
from onnx_cases import Case, load_case
from run_table import FAILED, NO_SENSE, ON_DEVICE, WITH_HOST, Outcome, Run

from birc.compiler import compile_model
from birc.runtime import load
from birc.runtime.errors import BircError
from birc.runtime.variant import HostNode

TARGET = "br100"


def run_case(kind: str, name: str, run: Run, folder: Path) -> Outcome:
    """Run one case of the installed onnx; the package lies in `folder` for that long."""
    case = load_case(kind, name)
    formed = FORMS[run.form](case)
    if formed is None:
        return Outcome(NO_SENSE)
    try:
        outputs, host_nodes = _computed(formed, run.precision, folder / f"{name}.birc")
        expect_similar(case, [outputs[entry.name] for entry in case.model.graph.output])
    except (AssertionError, BircError) as problem:
        return Outcome(FAILED, f"{type(problem).__name__}: {problem}")
    except Exception:  # a defect, whatever it is: it must not hide the other cases
        return Outcome(FAILED, traceback.format_exc())
    return Outcome(WITH_HOST if host_nodes else ON_DEVICE, "", host_nodes)


def _computed(formed: Formed, precision: str, path: Path) -> tuple[dict[str, Any], tuple[HostNode, ...]]:
    package = compile_model(formed.model, target=TARGET, precision=precision, dims=formed.dims)
    if package is None:
        raise AssertionError("compiled to nothing")
    package.save(path, overwrite=True)
    try:
        session = load(path)
        return session.run(formed.feeds), session.package.manifest.first.host_nodes
    finally:
        path.unlink()


def expect_similar(case: Case, outputs: Sequence[Any]) -> None:
    """Raise `AssertionError` where an output is not what the case expects."""
    for output, expected in zip(outputs, case.outputs, strict=True):
        _expect_similar(output, expected, case)


def _expect_similar(output: Any, expected: Any, case: Case) -> None:
    if isinstance(expected, list):
        if not isinstance(output, list) or len(output) != len(expected):
            raise AssertionError(f"{output!r} for a sequence of {len(expected)}")
        for element, wanted in zip(output, expected, strict=True):
            _expect_similar(element, wanted, case)
    elif expected is None:
        if output is not None:
            raise AssertionError(f"{output!r} for an empty optional")
    elif not isinstance(output, np.ndarray):
        raise AssertionError(f"{type(output).__name__} for an array")
    else:
        Runner.assert_similar_outputs(*map(_comparable, ([expected], [output])), case.rtol, case.atol)


def _comparable(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Strings as objects, as onnx compares them."""
    return [array.astype(object) if array.dtype.kind in "UT" else array for array in arrays]
