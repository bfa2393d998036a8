"""A line on the terminal that says what is going on, for work that takes more than a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

from rich.console import Console

Tell = Callable[[str], None]

_QUIET_SECONDS = 1.0


@contextmanager
def progress(first: str) -> Iterator[Tell]:
    """Show `first`, then whatever the function that it yields is told. Silent when stderr is no terminal."""
    console = Console(stderr=True, markup=False, emoji=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _tell_nobody
        return
    status = console.status(first)
    timer = Timer(_QUIET_SECONDS, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield status.update
    finally:
        timer.cancel()
        timer.join()
        status.stop()


def _tell_nobody(_: str) -> None:
    return None
