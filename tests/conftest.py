"""Shared pytest set-up: modules in tests/support are imported by their names; examples take the time they need."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "support"))

# How long an example takes is a matter of what else the machine does.
settings.register_profile("birc", deadline=None)
settings.load_profile("birc")
