"""The generated documents are what their tables give."""

from __future__ import annotations

import importlib.util
from pathlib import Path

GENERATE = Path(__file__).parents[2] / "docs" / "generate.py"


def test_generated_documents_are_fresh():
    spec = importlib.util.spec_from_file_location("generate", GENERATE)
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.stale() == [], "out of date: run `make docs`"
