"""Every bad model ends with its exit code and one line, in bounded time and memory; honest ones compile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_model import BadModel, changed, model_of, node, one, value, written
from bad_models import CORPUS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import SHIPPED_FOLDER

from birc.compiler.importer.importer import import_parts
from birc.runtime.errors import BadModelError, BircError, UnsupportedError

SUPPORT = Path(__file__).resolve().parent.parent / "support"
BATCH = 48
BATCHES = [CORPUS[start : start + BATCH] for start in range(0, len(CORPUS), BATCH)]
BUSY_FACTOR = 1.5  # processor seconds are longer where others share the caches
MOST_SECONDS = 2.0


def compiled(folder: Path, entries: Sequence[BadModel]) -> dict[str, dict[str, object]]:
    """How `birc compile` ends on each model."""
    for entry in entries:
        own = folder / entry.name
        own.mkdir()
        entry.make(own)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(SUPPORT / "confined.py"), str(folder), *(entry.name for entry in entries)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return {result["name"]: result for result in map(json.loads, done.stdout.splitlines())}


def faults(entry: BadModel, result: dict[str, object]) -> list[str]:
    """What is wrong with the end of one compilation."""
    said, code, seconds = str(result["said"]), result["code"], result["seconds"]
    wrong = []
    if code not in entry.codes:
        wrong.append(f"ends with {code}, not one of {entry.codes}")
    if said.count("\n") != (1 if code else 0) or "Traceback" in said:
        wrong.append("does not say one line")
    if code:
        wrong += [f"does not name {word}" for word in entry.words if word not in said]
    if isinstance(seconds, float) and seconds > MOST_SECONDS * BUSY_FACTOR:
        wrong.append(f"takes {seconds:.1f} s")
    return [f"{entry.name}: {fault}: {said[:300]!r}" for fault in wrong]


def test_corpus_is_large_and_names_are_unique() -> None:
    assert len(CORPUS) >= 80
    assert len({entry.name for entry in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("entries", BATCHES, ids=[entries[0].name for entries in BATCHES])
def test_bad_models(tmp_path: Path, entries: Sequence[BadModel]) -> None:
    results = compiled(tmp_path, entries)
    wrong = [fault for entry in entries for fault in faults(entry, results[entry.name])]
    assert not wrong, "\n".join(wrong)


HONEST = (
    BadModel("relu", changed(lambda model: None), (), (0,)),
    BadModel("splat", one("ConstantOfShape", ("n",), known={"n": [4, 5]}), (), (0,)),
    BadModel("slice_to_the_end", one("Slice", ("x", "s", "e"), known={"s": [1], "e": [2**63 - 1]}), (), (0,)),
    BadModel("no_elements", one("Relu", shape=(0, 3)), (), (0,)),
    BadModel("scalar", one("Relu", shape=()), (), (0,)),
    BadModel("unnamed_nodes", written(model_of(
        [onnx.NodeProto(op_type="Neg", input=["x"], output=["y"])], outputs=[value("y")])), (), (0,)),
    BadModel("nodes_of_one_name", written(model_of(
        [onnx.NodeProto(name="n", op_type="Neg", input=[f"v{k}"], output=[f"v{k + 1}"]) for k in range(50)],
        [value("v0")], [value("v50")])), (), (0,)),
    BadModel("unused_constant", written(model_of(
        [node("Relu")], outputs=[value("y")], known={"w": np.ones((1 << 16), np.float32)})), (), (0,)),
)  # fmt: skip


def test_honest_models_compile(tmp_path: Path) -> None:
    results = compiled(tmp_path, HONEST)
    wrong = [fault for entry in HONEST for fault in faults(entry, results[entry.name])]
    assert not wrong, "\n".join(wrong)


REAL = (SHIPPED_FOLDER / "light_squeezenet.onnx").read_bytes()
PLACES = st.integers(0, len(REAL) - 1)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from(["flip", "cut", "insert"]), PLACES, st.integers(0, 255)), min_size=1, max_size=6)
)
def test_mutations_of_a_real_model(changes: list[tuple[str, int, int]]) -> None:
    content = bytearray(REAL)
    for kind, wanted, byte in changes:
        place = min(wanted, max(len(content) - 1, 0))
        if kind == "flip" and content:
            content[place] ^= byte or 1
        elif kind == "cut":
            del content[place : place + byte]
        else:
            content[place:place] = bytes([byte]) * (byte % 7 + 1)
    try:
        import_parts(bytes(content))
    except BircError as error:
        assert isinstance(error, BadModelError | UnsupportedError)
        assert "\n" not in str(error)
