"""The code of one kernel, and the descriptors of the views that its slots hold."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

from birc.codegen.beside import as_one
from birc.codegen.continuing import as_one_kernel as parts_as_one_kernel
from birc.codegen.contraction_kernel import emit_contraction_kernel
from birc.codegen.following import Pair, as_one_kernel
from birc.codegen.row_order import Passed
from birc.codegen.slots import Slots
from birc.codegen.vector_kernel import emit_vector_kernel
from birc.compiler.ir.found_once import found_once
from birc.compiler.ir.kernel_form import form_of, signs_of_zeros
from birc.compiler.ir.plan import Buffer, Kernel, View
from birc.compiler.ir.plan_access import accesses_of, moved, with_views
from birc.compiler.ir.plan_beside import products_share, share_of
from birc.compiler.ir.plan_following import Taken, followed, in_turn, left_by, most_taken, pairs_of
from birc.compiler.ir.plan_patch import slot_bytes
from birc.runtime.dtypes import dtype
from birc.runtime.errors import InternalError
from birc.runtime.machine import Machine
from birc.runtime.program import OTHER_L2, Descriptor
from birc.runtime.program import Kernel as KernelCode


def emit_kernel(kernel: Kernel, machine: Machine) -> tuple[KernelCode, Slots]:
    """The code of a tiled kernel and its slots. Raises `InternalError` for one without tiling."""
    if kernel.tiling is None:
        raise InternalError("a kernel without tiling", where=kernel.name)
    if kernel.contraction is not None:
        return emit_contraction_kernel(kernel, kernel.contraction, kernel.tiling, machine)
    return emit_vector_kernel(kernel, kernel.tiling)


@dataclass(frozen=True, slots=True)
class KernelWriter:
    """Writes kernels for a machine. Those that differ in names and in places of buffers alone it writes once."""

    machine: Machine
    _written: dict[Hashable, tuple[KernelCode, Slots, int]] = field(default_factory=dict)  # by form
    _numbers: dict[Hashable, int] = field(default_factory=dict)  # by all of a code but its name

    def emit(self, kernels: Sequence[Kernel], *, continuing: bool = False) -> tuple[KernelCode, Slots, int]:
        """The code of a tiled kernel, or of several that are one of the machine, its slots, and its number.

        Several are parts of a product (`continuing`), follow each other, or are side by side. Codes that differ in
        names alone have one number. Raises `InternalError` for a kernel without tiling.
        """
        begins: dict[str, int] = {}  # by buffer the offset of the first view on it
        form = form_of(*kernels, offset=lambda view: view.offset - begins.setdefault(view.buffer, view.offset))

        def write() -> tuple[KernelCode, Slots, int]:
            places = {name: str(place) for place, name in enumerate(form.buffers)}
            plain = [replace(kernel, name="", sources=(), macs=0) for kernel in kernels]
            like = [with_views(k, lambda v: moved(v, places[v.buffer], v.offset - begins[v.buffer])) for k in plain]
            code, slots = self._parts(like) if continuing else self._emit(like)
            return code, slots, self._number(code)

        code, slots, number = found_once(self._written, (form.key, continuing), write)
        own = ((view, form.buffers[int(view.buffer)]) for view in slots.views)
        views = [moved(v, name, v.offset + begins[name]) for v, name in own]
        return replace(code, name=kernels[0].name), Slots(views), number

    def _number(self, code: KernelCode) -> int:
        signs = tuple(signs_of_zeros(instruction.operands) for instruction in code.instructions())
        return self._numbers.setdefault((code.nests, code.semaphores, code.multicast, signs), len(self._numbers))

    def _emit(self, kernels: Sequence[Kernel]) -> tuple[KernelCode, Slots]:
        """The code of one kernel, or of several: products follow each other, others are side by side."""
        if len(kernels) == 1:
            return emit_kernel(kernels[0], self.machine)
        if all(kernel.contraction is not None for kernel in kernels):
            pairs = in_turn(pairs_of(kernels))
            most = most_taken(pairs, self.machine)
            return as_one_kernel([self._pair(*pair, most) for pair in pairs], most)
        parts = [emit_kernel(kernel, share_of(self.machine, kernel)) for kernel in kernels]
        begin = products_share(self.machine)
        return as_one(parts, [(0, 0) if kernel.contraction is not None else begin for kernel in kernels])

    def _parts(self, kernels: Sequence[Kernel]) -> tuple[KernelCode, Slots]:
        """The code of parts of a product, which have a tiling in common."""
        first = kernels[0]
        if first.contraction is None or first.tiling is None:
            raise InternalError("a kernel with parts that is no product", where=first.name)
        slots = slot_bytes(first, first.contraction, first.tiling, self.machine)
        return parts_as_one_kernel([emit_kernel(k, self.machine) for k in kernels], first.tiling, slots)

    def _pair(self, first: Kernel, second: Kernel, most: Taken) -> Pair:
        last = first.phases[-1].statements[-1].access
        if second.contraction is None or first.tiling is None or last is None:
            raise InternalError("a kernel that follows another one, of which one is no product", where=second.name)
        ahead = emit_kernel(first, followed(self.machine))
        behind = emit_kernel(second, left_by(most, self.machine))
        a, rows = second.contraction.a, second.contraction.rows
        made = {access.view.buffer for op, access in accesses_of(first) if op == "vst"}
        others = {n for n, view in enumerate(behind[1].views) if view.buffer in made and view != a.view}
        stored, finished = ahead[1].views.index(a.view), ahead[1].views.index(last.view)
        loaded = behind[1].views.index(a.view)
        return Pair(ahead, behind, first.tiling.programs, Passed(stored, finished, loaded, frozenset(others), rows))


def descriptor(view: View, buffer: Buffer, moved_bytes: int = 0) -> Descriptor:
    """What an access of a view needs to know of its buffer, of which it sees the part that begins `moved_bytes` on."""
    element = view.seen or buffer.dtype
    own_bytes, element_bytes = (dtype(name).bits // 8 for name in (buffer.dtype, element))
    address = buffer.address + moved_bytes + view.offset * own_bytes + view.word * element_bytes
    dims, strides = view.dims or (1,), view.strides or (1,)  # a scalar is one element
    strides = tuple(stride * (own_bytes // element_bytes) for stride in strides)
    space = OTHER_L2 if view.away else buffer.space
    return Descriptor(space, address, element, dims, strides, view.lower)
