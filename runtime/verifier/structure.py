"""The form of kernels: loops, masks, operands, tiles, rings - what needs no bindings."""

from __future__ import annotations

import math
from typing import Final

from birc.runtime.isa import INSTRUCTIONS
from birc.runtime.machine import Machine, TcoreFormat
from birc.runtime.program import (
    LOOP_KINDS,
    LOOP_LEVELS,
    MAX_LOOP_DEPTH,
    MULTICAST_MODES,
    Affine,
    Box,
    Instruction,
    Kernel,
    Loop,
    RingAddress,
    Sync,
    Window,
)
from birc.runtime.verifier.findings import Findings
from birc.runtime.verifier.operands import Context, check_affine, check_operand
from birc.runtime.verifier.scope import Place, affine_interval, places, ring_interval, trip_limits

KERNEL_MNEMONICS: Final = frozenset(row.mnemonic for row in INSTRUCTIONS)
# A tile in an input buffer starts at a multiple of these (Tensor Library Reference: units of addresses).
RING_ALIGNMENT_BYTES: Final = {"load_a": 512, "load_b": 1024}


def check_kernel(kernel: Kernel, machine: Machine, findings: Findings) -> None:
    """Find what is wrong with the form of a kernel; deeper checks run only on kernels that pass this one."""
    where = f"kernel {kernel.name}"
    if kernel.multicast not in MULTICAST_MODES:
        findings.add(where, f"multicast mode {kernel.multicast!r}", f"one of {', '.join(MULTICAST_MODES)}")
    semaphores = machine.semaphores_tcore + machine.semaphores_spc
    if len(kernel.semaphores) > semaphores:
        findings.add(where, f"{len(kernel.semaphores)} semaphores", f"{semaphores} of an SPC")
    if any(count < 0 for count in kernel.semaphores):
        findings.add(where, f"initial semaphore counts {kernel.semaphores}", "at least 0")
    if not _check_loops(kernel, findings):
        return
    _check_spc_loops(kernel, machine, findings)
    for place in places(kernel):
        _check_place(place, kernel, machine, findings)


def spc_loops(loops: tuple[Loop, ...]) -> tuple[Loop, ...]:
    """The leading loops that spread iterations over SPCs."""
    count = next((depth for depth, loop in enumerate(loops) if loop.level != "spc"), len(loops))
    return loops[:count]


def _check_loops(kernel: Kernel, findings: Findings) -> bool:
    """Depth, kinds, extents and limits of all loops; False when the tree is too broken to go on."""
    sound = True
    pending: list[tuple[Loop | Instruction, int]] = [(nest, 0) for nest in reversed(kernel.nests)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, Instruction):
            continue
        fault = _loop_fault(item, depth)
        if fault is not None:
            findings.add(f"kernel {kernel.name}, loop at depth {depth}", *fault)
            sound = False
        if depth < MAX_LOOP_DEPTH:
            pending.extend((child, depth + 1) for child in reversed(item.body))
    return sound


def _loop_fault(loop: Loop, depth: int) -> tuple[str, str] | None:
    if depth >= MAX_LOOP_DEPTH:
        return "loops are nested too deeply", f"{MAX_LOOP_DEPTH} loops"
    if loop.kind not in LOOP_KINDS:
        return f"loop kind {loop.kind!r}", f"one of {', '.join(LOOP_KINDS)}"
    if loop.level not in LOOP_LEVELS:
        return f"loop level {loop.level!r}", f"one of {', '.join(LOOP_LEVELS)}"
    if loop.level != "tile" and loop.kind != "par":
        return f"a {loop.kind} loop of level {loop.level}", "only par loops are spread over SPCs or programs"
    if not 1 <= loop.extent < 1 << 32:
        return f"extent {loop.extent}", "at least 1"
    fault = check_affine(loop.limit, depth) if loop.limit is not None else None
    return (f"the limit {fault}", "terms of the loops around") if fault else None


def _check_spc_loops(kernel: Kernel, machine: Machine, findings: Findings) -> None:
    heads: dict[tuple[tuple[int, Affine | None], ...], Place] = {}
    for place in places(kernel):
        head = spc_loops(place.loops)
        heads.setdefault(tuple((loop.extent, loop.limit) for loop in head), place)
        if any(loop.level == "spc" for loop in place.loops[len(head) :]):
            findings.add(place.label, "a loop of level spc inside another", "loops of level spc are outermost")
    if len(heads) > 1:
        shapes = ", ".join(str([extent for extent, _ in head]) for head in heads)
        findings.add(f"kernel {kernel.name}", f"nests begin with different spc loops {shapes}", "the same in all")
    for extents, place in heads.items():
        product = math.prod(extent for extent, _ in extents)
        if product > machine.spcs_per_die:
            findings.add(place.label, f"spc loops of {product} iterations", f"{machine.spcs_per_die} SPCs a die")


def _check_place(place: Place, kernel: Kernel, machine: Machine, findings: Findings) -> None:
    instruction = place.instruction
    if instruction.mnemonic not in KERNEL_MNEMONICS:
        findings.add(place.label, f"{instruction.mnemonic!r} in a kernel", "an instruction of the table")
        return
    fields = place.row.fields
    if len(fields) != len(instruction.operands):
        findings.add(place.label, f"{len(instruction.operands)} operands", f"{len(fields)} fields")
        return
    trips = trip_limits(place.loops)
    context = Context(machine, machine.max_descriptors, 0, trips)
    pairs = zip(fields, instruction.operands, strict=True)
    wrong = [fault for field, value in pairs if (fault := check_operand(field, value, context)) is not None]
    for what, limit in wrong:
        findings.add(place.label, what, limit)
    if wrong:
        return
    faults = _tile_faults(place, machine, trips) + _mask_faults(place) + _program_faults(place, machine)
    for sync in instruction.waits + instruction.posts:
        faults.extend(_sync_faults(sync, trips, len(kernel.semaphores)))
    for what, limit in faults:
        findings.add(place.name(), what, limit)


def _mask_faults(place: Place) -> list[tuple[str, str]]:
    """`first` masks name loops around the instruction."""
    depth = len(place.loops)
    masks = [
        (field.name, value)
        for field, value in zip(place.row.fields, place.instruction.operands, strict=True)
        if field.kind == "mask" and field.name == "first" and isinstance(value, int)
    ]
    return [(f"mask {name} is {value:#b}", f"{depth} loops are around it") for name, value in masks if value >> depth]


def _program_faults(place: Place, machine: Machine) -> list[tuple[str, str]]:
    spread = [loop for loop in place.loops if loop.level == "program"]
    faults = []
    if len(spread) > 1:
        faults.append(("is inside two loops of level program", "one"))
    first = place.instruction.program
    vector = place.row.engine == "vector"
    last = first + max((loop.extent - 1 for loop in spread), default=0) if vector else first
    limit = machine.vector_programs if vector else 1
    if first < 0 or last >= limit:
        faults.append((f"runs on programs {first} to {last}", f"vector_programs = {limit}"))
    return faults


def _sync_faults(sync: Sync, trips: tuple[int, ...], semaphores: int) -> list[tuple[str, str]]:
    depth = len(trips)
    fault = check_affine(sync.semaphore, depth)
    if fault:
        return [(f"a semaphore number {fault}", "terms of the loops around")]
    faults = []
    low, high = affine_interval(sync.semaphore, trips)
    if low < 0 or high >= semaphores:
        faults.append((f"semaphore numbers {low} to {high}", f"the kernel declares {semaphores}"))
    if sync.first < 0 or sync.last < 0 or (sync.first | sync.last) >> depth:
        masks = f"masks first {sync.first:#b}, last {sync.last:#b}"
        faults.append((masks, f"{depth} loops are around it"))
    return faults


def _tile_faults(place: Place, machine: Machine, trips: tuple[int, ...]) -> list[tuple[str, str]]:
    if place.instruction.mnemonic in ("tlda", "tldb"):
        return _load_faults(place, machine, trips)
    if place.row.pipe == "mma":
        return _multiply_faults(place, machine, trips)
    if place.row.engine != "vector":
        return []
    limit = machine.vector_tile_elements
    boxes = [value for value in place.instruction.operands if isinstance(value, Box)]
    return [
        (f"a box of {math.prod(box.shape)} elements", f"vector_tile_elements = {limit}")
        for box in boxes
        if math.prod(box.shape) > limit
    ]


def tile_extents(place: Place) -> tuple[int, int]:
    """What a tlda or tldb loads: the extents of its first axes and of the others, each flattened."""
    box, split = place.instruction.operands[1], place.instruction.operands[2]
    if not isinstance(box, Box) or not isinstance(split, int):
        raise TypeError(place.instruction.mnemonic)
    return math.prod(box.shape[:split]), math.prod(box.shape[split:])


def _load_faults(place: Place, machine: Machine, trips: tuple[int, ...]) -> list[tuple[str, str]]:
    ring, box, split, format_name = place.instruction.operands
    if not isinstance(box, Box) or not isinstance(split, int) or not isinstance(ring, RingAddress):
        return []
    if split > len(box.axes):
        return [(f"splits after axis {split} of {len(box.axes)}", "the rank of the box")]
    leading, trailing = tile_extents(place)
    engine = place.row.engine
    wide, depth = (leading, trailing) if engine == "load_a" else (trailing, leading)
    most = machine.patch_pixels_max if engine == "load_a" else machine.tcore_cols
    faults = []
    if wide > most:
        faults.append((f"a tile of {wide} rows or columns", f"{most}"))
    return faults + _ring_faults(ring, engine, (wide, depth), str(format_name), machine, trips)


def tile_bytes(machine: Machine, engine: str, wide: int, depth: int, form: TcoreFormat) -> int:
    """What a tile takes of its input buffer: whole tiles of rows or columns; a patch one row a pixel."""
    lanes = machine.tcore_rows if engine == "load_a" else machine.tcore_cols
    return max(lanes, wide) * depth * form.bytes


def product_extents(place: Place) -> tuple[int, int, int]:
    """The rows, columns and depth of a tmma or tconv."""
    operands = {field.name: value for field, value in zip(place.row.fields, place.instruction.operands, strict=True)}
    window = operands.get("window")
    m = window.pixels if isinstance(window, Window) else operands.get("m")
    n, k = operands["n"], operands["k"]
    if not isinstance(m, int) or not isinstance(n, int) or not isinstance(k, int):
        raise TypeError(place.instruction.mnemonic)
    return m, n, k


def _multiply_faults(place: Place, machine: Machine, trips: tuple[int, ...]) -> list[tuple[str, str]]:
    a, b, format_name = (place.operand(name) for name in ("a", "b", "format"))
    if not isinstance(a, RingAddress) or not isinstance(b, RingAddress):
        return []
    m, n, k = product_extents(place)
    faults = []
    if m > machine.tcore_rows or n > machine.tcore_cols:
        limit = f"{machine.tcore_rows} x {machine.tcore_cols}"
        faults.append((f"a product of {m} x {n}", limit))
    for ring, engine, wide in ((a, "load_a", m), (b, "load_b", n)):
        faults.extend(_ring_faults(ring, engine, (wide, k), str(format_name), machine, trips))
    return faults


def _ring_faults(
    ring: RingAddress,
    engine: str,
    extents: tuple[int, int],
    format_name: str,
    machine: Machine,
    trips: tuple[int, ...],
) -> list[tuple[str, str]]:
    """Depth, capacity and alignment of a tile in an input buffer; `extents` are its rows or columns, and its depth."""
    wide, depth = extents
    form = machine.formats.get(format_name)
    if form is None:
        return [(f"format {format_name}", f"one of {', '.join(machine.formats)}")]
    faults = []
    if depth > form.k_max:
        faults.append((f"a tile of depth {depth}", f"k_max of {format_name} = {form.k_max}"))
    capacity = machine.gib_a_bytes if engine == "load_a" else machine.gib_b_bytes
    low, high = ring_interval(ring, trips)
    end = high + tile_bytes(machine, engine, wide, depth, form)
    if low < 0 or end > capacity:
        faults.append((f"input buffer bytes {low} to {end}", f"{capacity} B"))
    steps = [ring.base.constant, ring.stride, *(factor for _, factor in ring.base.terms)]
    if any(step % RING_ALIGNMENT_BYTES[engine] for step in steps):
        faults.append((f"input buffer address steps {steps}", f"multiples of {RING_ALIGNMENT_BYTES[engine]} B"))
    return faults
