"""What must hold in one kernel of a plan: its space, accesses, contraction and statements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from birc.compiler.ir.plan import PAR, RED, WHOLE, Access, Buffer, Contraction, Index, Kernel, Phase, Statement, View
from birc.compiler.ir.plan_access import accesses_of
from birc.compiler.ir.plan_panels import panel_problems
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BircError
from birc.runtime.isa import BY_MNEMONIC, InstructionRow
from birc.runtime.machine import Machine
from birc.runtime.program import FILLS, MAX_BOX_RANK


@dataclass(frozen=True, slots=True)
class Signature:
    """What a statement with an instruction has, by the instruction's row in the table.

    `arguments`: for each argument whether it may be an immediate.
    """

    arguments: tuple[bool, ...]
    has_result: bool
    has_access: bool


@cache
def signature(row: InstructionRow) -> Signature:
    """The signature of an instruction's statements."""
    operands = [field for field in row.fields if field.kind in ("register", "source", "f32") and field.name != "dst"]
    return Signature(
        tuple(field.kind != "register" for field in operands),
        any(field.name == "dst" and field.kind == "register" for field in row.fields),
        any(field.kind == "box" for field in row.fields),
    )


def reach(index: Index, extents: Mapping[str, int]) -> tuple[int, int]:
    """The least and the largest value of a coordinate over dimensions of these extents."""
    low = high = index.constant
    for name, factor in index.terms:
        span = factor * (extents[name] - 1)
        low, high = low + min(span, 0), high + max(span, 0)
    return low, high


def bounds(view: View) -> tuple[tuple[int, int], ...]:
    """The half-open range of the coordinates inside the view, by axis."""
    lower = view.lower or (0,) * len(view.dims)
    return tuple((low, low + extent) for low, extent in zip(lower, view.dims, strict=True))


def kernel_problems(kernel: Kernel, buffers: Mapping[str, Buffer], machine: Machine) -> Iterator[str]:
    """Every broken rule of a kernel."""
    yield from _space_problems(kernel, machine)
    for owner, access in accesses_of(kernel):
        yield from (f"{owner}: {what}" for what in _access_problems(access, kernel, buffers))
    if kernel.contraction is not None:
        yield from _contraction_problems(kernel, kernel.contraction, machine)
    for number, phase in enumerate(kernel.phases):
        yield from _phase_problems(kernel, number, phase)
        for statement in phase.statements:
            yield from (f"{statement.op}: {what}" for what in _statement_problems(statement, phase, kernel))
    yield from _value_problems(kernel)
    if kernel.macs < 0:
        yield f"has {kernel.macs} multiply-adds"


def _space_problems(kernel: Kernel, machine: Machine) -> Iterator[str]:
    seen: set[str] = set()
    for dimension in kernel.space:
        if dimension.name in seen or not dimension.name:
            yield (f"dimension {dimension.name!r} is given twice" if dimension.name else "a dimension has no name")
        seen.add(dimension.name)
        if dimension.kind not in (PAR, RED, WHOLE):
            yield f"dimension {dimension.name} is neither {PAR}, {RED} nor {WHOLE} but {dimension.kind!r}"
        if not 1 <= dimension.extent <= machine.max_dim:
            yield f"dimension {dimension.name} has extent {dimension.extent}, must be 1 to {machine.max_dim}"
    if not kernel.par_dims:
        yield f"has no {PAR} dimension"


def view_problems(view: View, buffers: Mapping[str, Buffer]) -> Iterator[str]:
    """Whether a view is well formed and inside its buffer."""
    if view.buffer not in buffers:
        yield f"views %{view.buffer}, which is not declared"
        return
    if len(view.strides) != len(view.dims) or len(view.lower) not in (0, len(view.dims)):
        lengths = (len(view.dims), len(view.strides), len(view.lower))
        yield "the view of %{} has {} dims, {} strides, {} lower".format(view.buffer, *lengths)
        return
    if min(view.dims, default=1) < 1 or len(view.dims) > MAX_BOX_RANK:
        yield f"the view of %{view.buffer} has dims {list(view.dims)}: at most {MAX_BOX_RANK}, all positive"
        return
    buffer = buffers[view.buffer]
    if not _can_be_seen(view, buffer):
        yield f"the view of %{view.buffer} sees {buffer.dtype} as {view.seen}, word {view.word}"
    first = last = view.offset
    for (low, end), stride in zip(bounds(view), view.strides, strict=True):
        ends = (low * stride, (end - 1) * stride)
        first, last = first + min(ends), last + max(ends)
    elements = _elements(buffer)
    if elements is not None and (first < 0 or last >= elements):
        yield f"the view of %{view.buffer} spans elements {first} to {last}, there are {elements}"


def _can_be_seen(view: View, buffer: Buffer) -> bool:
    """Whether the elements can be seen as those of another type: of the same width, or the words of twice its width."""
    if not view.seen:
        return view.word == 0
    try:
        parts = dtype(buffer.dtype).bits / dtype(view.seen).bits
    except BircError:
        return False
    return parts in (1, 2) and 0 <= view.word < parts


def _elements(buffer: Buffer) -> int | None:
    """How many elements a buffer holds; None when its element type is not known."""
    try:
        return buffer.num_elements
    except BircError:
        return None


def _access_problems(access: Access, kernel: Kernel, buffers: Mapping[str, Buffer]) -> Iterator[str]:
    view = access.view
    yield from view_problems(view, buffers)
    if len(access.index) != len(view.dims):
        yield f"{len(access.index)} coordinates for a view of {len(view.dims)} dimensions"
    known = {d.name for d in kernel.space}
    unknown = [n for n in dict.fromkeys(n for i in access.index for n, _ in i.terms) if n not in known]
    yield from (f"moves with {name}, which is no dimension of the kernel" for name in unknown)
    if access.fill not in FILLS:
        yield f"the fill {access.fill!r} is not one of {', '.join(FILLS)}"


def _is_readable(access: Access, kernel: Kernel) -> bool:
    """Whether the coordinates of an access can be computed and compared with its view."""
    view, known = access.view, {d.name for d in kernel.space}
    return (
        len(access.index) == len(view.dims)
        and len(view.lower) in (0, len(view.dims))
        and all(name in known for index in access.index for name, _ in index.terms)
    )


def _escapes(access: Access, kernel: Kernel, indexed: tuple[int, int] = (0, 0)) -> Iterator[str]:
    """Coordinates that the kernel reaches outside the view; `indexed` is (axis, count) of an indexed load."""
    if not _is_readable(access, kernel):
        return
    extents = {d.name: d.extent for d in kernel.space}
    axis_of_index, count = indexed
    for axis, (index, (low, end)) in enumerate(zip(access.index, bounds(access.view), strict=True)):
        least, largest = reach(index, extents)
        if axis == axis_of_index:
            largest += max(count - 1, 0)
        if least < low or largest >= end:
            inside = f"{low} to {end - 1} of %{access.view.buffer}"
            yield f"reaches {least} to {largest} on axis {axis}, outside {inside}"


def _contraction_problems(kernel: Kernel, contraction: Contraction, machine: Machine) -> Iterator[str]:
    if contraction.format not in machine.formats:
        yield f"the T-core of {machine.name} has no format {contraction.format!r}"
    par, red = ({d.name for d in kernel.space if d.kind == kind} for kind in (PAR, RED))
    for what, names in (("row", contraction.row_dims), ("column", contraction.column_dims)):
        yield from (f"{what} dimension {name} is no {PAR} dimension" for name in names if name not in par)
    if not contraction.column_dims:
        yield "has no column dimension"
    if set(contraction.row_dims) & set(contraction.column_dims):
        yield "has a dimension that is both row and column"
    panels = [("a", panel, contraction.rows, contraction.column_dims) for panel in contraction.panels]
    for operand, access, split, foreign in (
        *panels,
        ("b", contraction.b, contraction.depth, contraction.row_dims),
    ):
        if not 0 <= split <= len(access.index):
            yield f"{operand}: {split} leading axes of {len(access.index)}"
        moving = _moving(access.index)
        yield from (
            f"{operand}: moves with {name}, a dimension of the other operand" for name in foreign if name in moving
        )
        if access.fill != "zero":
            yield f"{operand}: fills with {access.fill!r}, what is outside must not count"
    for panel in contraction.panels:
        yield from _axis_problems(contraction, panel, red)
    if contraction.further:
        yield from panel_problems(kernel, contraction)


def _axis_problems(contraction: Contraction, panel: Access, red: set[str]) -> Iterator[str]:
    """Which axes move with what: rows and columns with par dimensions, depth with red ones alone."""
    a, b = panel.index, contraction.b.index
    for operand, depth in (("a", a[contraction.rows :]), ("b", b[: contraction.depth])):
        if operand == "a":
            yield from (f"a: a depth axis moves with {name}" for name in sorted(_moving(depth) - red))
    columns = _moving(b[contraction.depth :])
    yield from (f"b: a column axis moves with {name}" for name in sorted(columns & red))
    if not set(contraction.row_dims) <= _moving(a[: contraction.rows]):
        yield "a: the row axes do not move with every row dimension"
    if not set(contraction.column_dims) <= columns:
        yield "b: the column axes do not move with the column dimensions"
    unused = red - _moving(a) - _moving(b)
    yield from (f"sums over {name}, along which no operand moves" for name in sorted(unused))


def _moving(index: tuple[Index, ...]) -> set[str]:
    return {name for coordinate in index for name, factor in coordinate.terms if factor}


def _phase_problems(kernel: Kernel, number: int, phase: Phase) -> Iterator[str]:
    known = {d.name for d in kernel.space}
    for name in phase.loops:
        if name not in known:
            yield f"phase {number} loops over {name}, which is no dimension of the kernel"
    looped = {name for other in kernel.phases for name in other.loops}
    reduced = {d.name for d in kernel.red_dims}
    for name in sorted((looped | reduced) - set(phase.loops)):
        if any(s.access is not None and name in _moving(s.access.index) for s in phase.statements):
            yield f"phase {number} moves along {name}, over which it does not loop"
    if kernel.contraction is not None and not set(phase.loops) <= set(kernel.contraction.column_dims):
        yield f"phase {number} loops over {', '.join(phase.loops)}: of a contraction only columns can be walked again"


def _statement_problems(statement: Statement, phase: Phase, kernel: Kernel) -> Iterator[str]:
    row = BY_MNEMONIC.get(statement.op)
    if row is None or row.engine != "vector":
        yield "is no vector instruction"
        return
    wanted = signature(row)
    if len(statement.arguments) != len(wanted.arguments):
        yield f"has {len(statement.arguments)} arguments, takes {len(wanted.arguments)}"
    for argument, may_be_number in zip(statement.arguments, wanted.arguments, strict=False):
        if isinstance(argument, float) and not may_be_number:
            yield f"has the number {argument} for an argument that must be a value"
    if bool(statement.result) != wanted.has_result:
        yield "must name its result" if wanted.has_result else f"has no result to call {statement.result}"
    if (statement.access is not None) != wanted.has_access:
        yield "has no access" if wanted.has_access else "cannot access memory"
    elif statement.access is not None:
        yield from _operand_problems(statement, statement.access, kernel)
    yield from _dims_problems(statement, phase, kernel)
    if statement.op == "vacc" and kernel.contraction is None:
        yield "there is no contraction"


def _operand_problems(statement: Statement, access: Access, kernel: Kernel) -> Iterator[str]:
    axes = len(kernel.par_dims)
    if len(access.view.dims) != axes:
        yield f"the view of %{access.view.buffer} has {len(access.view.dims)} axes, registers have {axes}"
    whole = {d.name for d in kernel.space if d.kind == WHOLE}
    elsewhere = access.index if statement.op == "vst" else access.index[:-1]
    for name in sorted(whole & _moving(elsewhere)):
        yield f"moves along {name}, which registers have on their last axis, and no result has"
    if statement.op == "vldx":
        if not 0 <= statement.index_axis < axes or statement.index_count < 1:
            yield f"indexes {statement.index_count} elements on axis {statement.index_axis} of {axes}"
        elif _is_readable(access, kernel):
            escapes = _escapes(access, kernel, (statement.index_axis, statement.index_count))
            yield from (what for what in escapes if f"on axis {statement.index_axis}," in what)
    elif access.fill == "refuse" or (statement.op == "vst" and not access.view.away):  # Of those a part may be needed.
        yield from _escapes(access, kernel)


def _dims_problems(statement: Statement, phase: Phase, kernel: Kernel) -> Iterator[str]:
    """Reductions collapse register axes, folds run over the loops of their phase, others have no `dims`."""
    if statement.op.startswith("vred"):
        known = {d.name for d in kernel.space if d.kind != RED}
        if not statement.dims:
            yield "collapses no dimension"
        yield from (f"collapses {name}, which is no axis of a register" for name in statement.dims if name not in known)
    elif statement.op.startswith("vfold"):
        if set(statement.dims) != set(phase.loops) or not phase.loops:
            yield f"folds over {list(statement.dims)} in a phase that loops over {list(phase.loops)}"
    elif statement.dims:
        yield f"has dimensions {list(statement.dims)}, which only reductions and folds have"


def _value_problems(kernel: Kernel) -> Iterator[str]:
    """Single assignment, definition before use, and which values outlive their phase."""
    made: dict[str, tuple[int, bool]] = {}
    used: set[str] = set()
    for number, phase in enumerate(kernel.phases):
        for statement in phase.statements:
            for name in (argument for argument in statement.arguments if isinstance(argument, str)):
                used.add(name)
                yield from _use_problems(name, number, made, kernel)
            if statement.result in made:
                yield f"{statement.result} is defined twice"
            if statement.result:
                made[statement.result] = (number, statement.op.startswith("vfold"))
    yield from (f"{name} is never used" for name in made if name not in used)
    drains = sum(s.op == "vacc" for phase in kernel.phases for s in phase.statements)
    if kernel.contraction is not None and drains != 1:
        yield f"drains its accumulator {drains} times, must be once"


def _use_problems(name: str, number: int, made: Mapping[str, tuple[int, bool]], kernel: Kernel) -> Iterator[str]:
    if name not in made:
        yield f"phase {number} reads {name} before it is defined"
        return
    origin, is_fold = made[name]
    if is_fold and origin == number:
        yield f"phase {number} reads {name}, which is complete only after the phase"
    if not is_fold and origin != number and kernel.phases[origin].loops and kernel.contraction is None:
        yield f"phase {number} reads {name}, which has a value for each iteration of phase {origin}"
