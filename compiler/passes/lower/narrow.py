"""Constants that only the T-core reads, and as BF16, are kept as BF16: half the bytes, and the same products."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from birc.compiler.ir.plan import Buffer, Kernel
from birc.compiler.ir.plan_access import accesses
from birc.runtime.dtypes import dtype

WIDE, NARROW = "f32", "bf16"


def narrow_operands(
    kernels: Iterable[Kernel], buffers: Mapping[str, Buffer], data: Mapping[str, np.ndarray]
) -> tuple[dict[str, Buffer], dict[str, np.ndarray]]:
    """Buffers and data with the operands of BF16 products rounded as the T-core rounds them when it loads them."""
    narrow: set[str] = set()
    others: set[str] = set()
    for kernel in kernels:
        contraction = kernel.contraction
        operands = () if contraction is None else (contraction.a, contraction.b)
        is_narrow = contraction is not None and contraction.format == NARROW
        for access in accesses(kernel):
            rounded = is_narrow and access in operands and not access.view.seen
            (narrow if rounded else others).add(access.view.buffer)
    wanted = {name for name in narrow - others if (buffers[name].role, buffers[name].dtype) == ("constant", WIDE)}
    halves = {name: replace(buffers[name], dtype=NARROW, num_bytes=buffers[name].num_bytes // 2) for name in wanted}
    return {**buffers, **halves}, {
        name: array.astype(dtype(NARROW).numpy) if name in wanted else array for name, array in data.items()
    }
