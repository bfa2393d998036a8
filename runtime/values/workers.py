"""The threads of the engine: blocks are shared out among them, one BLAS thread each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import numpy as np

from birc.runtime.values.blas import BlasThreads
from birc.runtime.values.frame import Workspace

Item = TypeVar("Item")


def available_cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """The calling thread and `threads - 1` others.

    numpy's BLAS has threads of its own. Idle ones spin on the cores of these, so while blocks are computed BLAS is
    held to one thread. Where it cannot be, products are not shared out.
    """

    __slots__ = ("_blas", "_pool", "_workspaces", "threads")

    def __init__(self, threads: int | None = None) -> None:
        self.threads = max(1, threads if threads is not None else available_cores())
        self._blas = BlasThreads()
        self._workspaces = [Workspace() for _ in range(self.threads)]
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    @property
    def product_threads(self) -> int:
        """How many threads may compute products at the same time."""
        return self.threads if self._blas.found else 1

    @property
    def workspace(self) -> Workspace:
        """The buffers of the calling thread."""
        return self._workspaces[0]

    @contextmanager
    def engaged(self) -> Iterator[None]:
        """While a program runs: BLAS with one thread, no warnings for infinities and NaNs."""
        with self._blas.limited(1 if self.threads > 1 else self.threads), np.errstate(all="ignore"):
            yield

    def each(
        self, items: Sequence[Item], function: Callable[[Item, Workspace], None], threads: int
    ) -> None:
        """Call `function` for every item, on up to `threads` threads; returns when all are done.

        The first exception is raised again after all threads have stopped.
        """
        used = min(threads, self.threads, len(items))
        if used <= 1 or self._pool is None:
            for item in items:
                function(item, self._workspaces[0])
            return
        pending, lock = iter(items), Lock()

        def work(workspace: Workspace) -> None:
            with np.errstate(all="ignore"):
                while True:
                    with lock:
                        item = next(pending, None)
                    if item is None:
                        return
                    function(item, workspace)

        others: list[Future[None]] = [
            self._pool.submit(work, workspace) for workspace in self._workspaces[1:used]
        ]
        try:
            work(self._workspaces[0])
        finally:
            for other in others:
                other.exception()
        for other in others:
            other.result()
