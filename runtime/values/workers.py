"""The threads of the engine: blocks are shared out among them, one BLAS thread each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Final, Protocol, TypeVar

import numpy as np

from birc.runtime.values.blas import BlasThreads
from birc.runtime.values.frame import Workspace

Item = TypeVar("Item")


def available_cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Lane(Protocol):
    """What executes the blocks of a kernel: all threads, or one of them."""

    workspace: Workspace

    def each(self, items: Sequence[Item], function: Callable[[Item, Workspace], None], threads: int) -> None:
        """Call `function` for every item, on up to `threads` threads; returns when all are done."""


class SingleLane:
    """One thread: the one that calls."""

    __slots__ = ("workspace",)

    def __init__(self) -> None:
        self.workspace = Workspace()

    def each(self, items: Sequence[Item], function: Callable[[Item, Workspace], None], threads: int) -> None:
        """One item after the other."""
        for item in items:
            function(item, self.workspace)


class AllLanes:
    """The calling thread and others, which take items as they get free."""

    __slots__ = ("_lanes", "_pool", "workspace")

    def __init__(self, lanes: Sequence[SingleLane]) -> None:
        self._lanes = lanes
        self._pool = ThreadPoolExecutor(len(lanes) - 1) if len(lanes) > 1 else None
        self.workspace = lanes[0].workspace

    def each(self, items: Sequence[Item], function: Callable[[Item, Workspace], None], threads: int) -> None:
        """As `Lane.each`. The first exception is raised again after all threads have stopped."""
        used = min(threads, len(self._lanes), len(items))
        if used <= 1 or self._pool is None:
            self._lanes[0].each(items, function, 1)
            return
        pending, lock = iter(items), Lock()

        def work(workspace: Workspace) -> None:
            with np.errstate(all="ignore"):
                while True:
                    with lock:
                        item = next(pending, _END)
                    if isinstance(item, _End):
                        return
                    function(item, workspace)

        others = [self._pool.submit(work, lane.workspace) for lane in self._lanes[1:used]]
        try:
            work(self.workspace)
        finally:
            for other in others:
                other.exception()
        for other in others:
            other.result()


class _End:
    """The end of the items."""


_END: Final = _End()


class Workers:
    """The threads: `lanes` one by one, or `all` together.

    numpy's BLAS has threads of its own. Idle ones spin on the cores of these, so while a program runs BLAS is held
    to one thread. Where it cannot be, products are not shared out.
    """

    __slots__ = ("_blas", "all", "lanes")

    def __init__(self, threads: int | None = None) -> None:
        count = max(1, threads if threads is not None else available_cores())
        self._blas = BlasThreads()
        self.lanes = tuple(SingleLane() for _ in range(count))
        self.all = AllLanes(self.lanes)

    @property
    def threads(self) -> int:
        return len(self.lanes)

    @property
    def product_threads(self) -> int:
        """How many threads may compute products at the same time."""
        return self.threads if self._blas.found else 1

    @contextmanager
    def engaged(self) -> Iterator[None]:
        """While a program runs: BLAS with one thread, no warnings for infinities and NaNs."""
        with self._blas.limited(1), np.errstate(all="ignore"):
            yield
