"""Constants of which only BF16 is used are kept as BF16: half the bytes, and the same values.

The T-core rounds the operands of BF16 products when it loads them. What is loaded to be stored as BF16, such as rows of
a table, is rounded there; nothing may have been computed with it before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from birc.compiler.ir.plan import Access, Buffer, Kernel, Statement
from birc.runtime.dtypes import dtype

WIDE, NARROW = "f32", "bf16"


def narrow_operands(
    kernels: Iterable[Kernel], buffers: Mapping[str, Buffer], data: Mapping[str, np.ndarray]
) -> tuple[dict[str, Buffer], dict[str, np.ndarray]]:
    """Buffers and data with the constants rounded of which kernels use nothing but BF16."""
    narrow: set[str] = set()
    others: set[str] = set()
    for kernel in kernels:
        for access, is_rounded in _reads(kernel, buffers):
            (narrow if is_rounded and not access.view.seen else others).add(access.view.buffer)
    wanted = {name for name in narrow - others if (buffers[name].role, buffers[name].dtype) == ("constant", WIDE)}
    halves = {name: replace(buffers[name], dtype=NARROW, num_bytes=buffers[name].num_bytes // 2) for name in wanted}
    return {**buffers, **halves}, {
        name: array.astype(dtype(NARROW).numpy) if name in wanted else array for name, array in data.items()
    }


def _reads(kernel: Kernel, buffers: Mapping[str, Buffer]) -> Iterator[tuple[Access, bool]]:
    """What a kernel reads, and whether it uses BF16 of it alone."""
    contraction = kernel.contraction
    if contraction is not None:
        yield from ((access, contraction.format == NARROW) for access in contraction.operands)
    statements = [s for phase in kernel.phases for s in phase.statements]
    computed = {a for s in statements if not _stores_narrow(s, buffers) for a in s.arguments}
    for statement in statements:
        if statement.access is not None and statement.op != "vst":
            yield statement.access, statement.result not in computed


def _stores_narrow(statement: Statement, buffers: Mapping[str, Buffer]) -> bool:
    access = statement.access
    return statement.op == "vst" and access is not None and buffers[access.view.buffer].dtype == NARROW
