"""How often Python looks for cyclic garbage while a model is compiled.

By default that is after every few hundred new objects. Graphs and plans are millions of them, nearly all of which stay:
they would be looked through again and again in vain. What is garbage is found all the same, a little later.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

YOUNG_OBJECTS: Final = 50_000
"""So many new ones are waited for: more save no time any more."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for it seldom until the end, unless that is so already, or it is never looked for."""
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(before[0], YOUNG_OBJECTS), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
