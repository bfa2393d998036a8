"""The error of an executing program: it asked for something the machine does not do."""

from __future__ import annotations

from birc.runtime.errors import BadPackageError


class MachineFault(BadPackageError):
    """An instruction that cannot be carried out: an address out of bounds, a tile never loaded, a bad
    index."""

    meaning = "a program that faults"
