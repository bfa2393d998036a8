"""Constants that are read both at indices from data and as a whole, such as tied embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from birc.compiler.ir.names import unused_name
from birc.compiler.ir.plan import Buffer, Kernel
from birc.compiler.ir.plan_access import accesses, with_views
from birc.compiler.passes.lifetimes import tables

SUFFIX = ".whole"


def separate_tables(
    kernels: list[Kernel], buffers: Mapping[str, Buffer], data: Mapping[str, np.ndarray]
) -> tuple[list[Kernel], dict[str, Buffer], dict[str, np.ndarray]]:
    """Kernels, buffers and data with a second buffer for those kernels that read a table as a whole.

    Rows are read where they lie in HBM, the whole is brought onto the chip and divided over dies. The package stores
    equal constants once.
    """
    indexed = {name for kernel in kernels for name in tables(kernel) if buffers[name].role == "constant"}
    whole = [{a.view.buffer for a in accesses(kernel)} & indexed if not tables(kernel) else set() for kernel in kernels]
    both = set().union(*whole)
    renamed = {name: unused_name(f"{name}{SUFFIX}", buffers) for name in buffers if name in both}
    seen = [
        with_views(kernel, lambda view: replace(view, buffer=renamed.get(view.buffer, view.buffer)))
        if names
        else kernel
        for kernel, names in zip(kernels, whole, strict=True)
    ]
    added = {new: replace(buffers[name], name=new) for name, new in renamed.items()}
    return seen, {**buffers, **added}, {**data, **{new: data[name] for name, new in renamed.items()}}
