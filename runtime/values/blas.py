"""The number of threads of the BLAS that numpy uses.

numpy has no interface for it. Its wheels carry OpenBLAS as a shared library, whose own functions are called; with
another BLAS nothing is found and nothing is changed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

# How numpy's wheels name the functions, for 64-bit and 32-bit integers, and how OpenBLAS itself does.
_NAMES: Final = (
    "scipy_openblas_{}_num_threads64_",
    "scipy_openblas_{}_num_threads",
    "openblas_{}_num_threads64_",
    "openblas_{}_num_threads",
)


Functions = tuple[Callable[[], int], Callable[[int], None]]


class BlasThreads:
    """Reads and sets the number of BLAS threads, if it can: `found` tells."""

    __slots__ = ("_functions",)

    def __init__(self) -> None:
        functions: Functions | None = next(filter(None, map(_functions, _candidates())), None)
        self._functions = functions

    @property
    def found(self) -> bool:
        return self._functions is not None

    @contextmanager
    def limited(self, threads: int) -> Iterator[None]:
        """Hold BLAS to some threads for a while."""
        if self._functions is None:
            yield
            return
        get, put = self._functions
        before = get()
        put(threads)
        try:
            yield
        finally:
            put(before)


def _candidates() -> list[Path]:
    """Shared libraries that numpy brought along."""
    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs", package / ".libs")
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*openblas*"))]


def _functions(path: Path) -> Functions | None:
    """The functions that get and set the number of threads, in the library that numpy has loaded already."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    for name in _NAMES:
        get = getattr(library, name.format("get"), None)
        put = getattr(library, name.format("set"), None)
        if get is not None and put is not None:
            get.restype, put.argtypes, put.restype = ctypes.c_int, (ctypes.c_int,), None
            return get, put
    return None
