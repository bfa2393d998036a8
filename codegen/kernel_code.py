"""The code of one kernel, and the descriptors of the views that its slots hold."""

from __future__ import annotations

from birc.codegen.contraction_kernel import emit_contraction_kernel
from birc.codegen.slots import Slots
from birc.codegen.vector_kernel import emit_vector_kernel
from birc.compiler.ir.plan import Buffer, Kernel, View
from birc.runtime.dtypes import dtype
from birc.runtime.errors import InternalError
from birc.runtime.machine import Machine
from birc.runtime.program import Descriptor
from birc.runtime.program import Kernel as KernelCode


def emit_kernel(kernel: Kernel, machine: Machine) -> tuple[KernelCode, Slots]:
    """The code of a tiled kernel and its slots. Raises `InternalError` for one without tiling."""
    if kernel.tiling is None:
        raise InternalError("a kernel without tiling", where=kernel.name)
    if kernel.contraction is not None:
        return emit_contraction_kernel(kernel, kernel.contraction, kernel.tiling, machine)
    return emit_vector_kernel(kernel, kernel.tiling)


def descriptor(view: View, buffer: Buffer, moved_bytes: int = 0) -> Descriptor:
    """What an access of a view needs to know of its buffer, of which it sees the part that begins `moved_bytes` on."""
    element = view.seen or buffer.dtype
    own_bytes, element_bytes = (dtype(name).bits // 8 for name in (buffer.dtype, element))
    address = buffer.address + moved_bytes + view.offset * own_bytes + view.word * element_bytes
    dims, strides = view.dims or (1,), view.strides or (1,)  # a scalar is one element
    strides = tuple(stride * (own_bytes // element_bytes) for stride in strides)
    return Descriptor(buffer.space, address, element, dims, strides, view.lower)
