"""Shared pytest set-up: the helper modules in tests/support can be imported by their names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
