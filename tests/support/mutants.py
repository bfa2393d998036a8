"""Programs with one fault: every field of a program's stream, changed in the ways its kind allows.

`mutants(program)` goes by the instruction table and the program's data structures, so it works for programs
written by hand and for compiled ones. A mutant need not be wrong: some are other valid programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from birc.runtime.isa import BY_MNEMONIC, Field
from birc.runtime.program import (
    LOOP_KINDS,
    LOOP_LEVELS,
    SPACES,
    Affine,
    Axis,
    Box,
    Command,
    CommandLoop,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    Operand,
    Program,
    Register,
    RingAddress,
    Sync,
    Window,
    affine,
)


@dataclass(frozen=True)
class Mutant:
    """A changed program: `kind` is the class of field that was changed, `change` says where and how."""

    kind: str
    change: str
    program: Program


Change = tuple[str, str, object]  # kind, text, changed part


def mutants(program: Program) -> Iterator[Mutant]:
    """Every mutant of a program, in a fixed order."""
    for index, kernel in enumerate(program.kernels):
        for kind, text, changed in _kernels(kernel):
            yield Mutant(kind, f"kernel {index}: {text}", _with(program, "kernels", index, changed))
    for index, descriptor in enumerate(program.descriptors):
        for kind, text, changed in _descriptors(descriptor):
            yield Mutant(kind, f"descriptor {index}: {text}", _with(program, "descriptors", index, changed))
    for kind, text, changed in _lists(program.commands, _commands, "command"):
        yield Mutant(kind, text, replace(program, commands=changed))
    for index, image in enumerate(program.constants):
        changed = replace(image, address=image.address + 64)
        moved = _with(program, "constants", index, changed)
        yield Mutant("constant", f"constant {index}: address + 64", moved)


def sample(program: Program, count: int) -> list[Mutant]:
    """About `count` mutants: of every kind the same number if there are, spread over its places."""
    by_kind: dict[str, list[Mutant]] = {}
    for mutant in mutants(program):
        by_kind.setdefault(mutant.kind, []).append(mutant)
    share = 0
    while sum(min(share, len(found)) for found in by_kind.values()) < count and share < count:
        share += 1
    chosen: list[Mutant] = []
    for found in by_kind.values():
        taken = min(share, len(found))
        chosen += [found[(2 * index + 1) * len(found) // (2 * taken)] for index in range(taken)]
    return chosen


def _with(program: Program, name: str, index: int, changed: object) -> Program:
    parts = list(getattr(program, name))
    parts[index] = changed
    return replace(program, **{name: tuple(parts)})


def _lists(items: tuple, of_item: Callable[[object], Iterator[Change]], noun: str) -> Iterator[Change]:
    """Changes of a list: of each item, without it, with it twice, with it after its successor."""
    for index, item in enumerate(items):
        before, after = items[:index], items[index + 1 :]
        for kind, text, changed in of_item(item):
            yield kind, f"{noun} {index}: {text}", (*before, changed, *after)
        if len(items) > 1:
            yield f"drop {_name(item)}", f"{noun} {index} dropped", (*before, *after)
        yield f"twice {_name(item)}", f"{noun} {index} twice", (*before, item, item, *after)
        if after:
            yield f"swap {_name(item)}", f"{noun} {index} swapped", (*before, after[0], item, *after[1:])


def _name(item: object) -> str:
    if isinstance(item, Command):
        return item.mnemonic
    if isinstance(item, Instruction):
        return BY_MNEMONIC[item.mnemonic].engine
    return "loop"


def _kernels(kernel: Kernel) -> Iterator[Change]:
    for kind, text, changed in _lists(kernel.nests, _bodies, "nest"):
        yield kind, text, replace(kernel, nests=changed)
    for index, count in enumerate(kernel.semaphores):
        for other in (count - 1, count + 1):
            counts = (*kernel.semaphores[:index], other, *kernel.semaphores[index + 1 :])
            yield "initial count", f"semaphore {index} begins at {other}", replace(kernel, semaphores=counts)


def _bodies(item: object) -> Iterator[Change]:
    if isinstance(item, Instruction):
        yield from _instructions(item)
        return
    if not isinstance(item, Loop):
        return
    for extent in (item.extent - 1, item.extent + 1, 2 * item.extent):
        yield "loop extent", f"extent {extent}", replace(item, extent=extent)
    for kind in LOOP_KINDS:
        if kind != item.kind:
            yield "loop kind", f"kind {kind}", replace(item, kind=kind)
    for level in LOOP_LEVELS:
        if level != item.level:
            yield "loop level", f"level {level}", replace(item, level=level)
    if item.limit is not None:
        yield "loop limit", "no limit", replace(item, limit=None)
        for number, text in _affines(item.limit):
            yield "loop limit", f"limit {text}", replace(item, limit=number)
    for kind, text, changed in _lists(item.body, _bodies, "item"):
        yield kind, text, replace(item, body=changed)


def _instructions(instruction: Instruction) -> Iterator[Change]:
    row = BY_MNEMONIC[instruction.mnemonic]
    for index, (field, value) in enumerate(zip(row.fields, instruction.operands, strict=True)):
        for kind, text, changed in _operands(field, value):
            operands = (*instruction.operands[:index], changed, *instruction.operands[index + 1 :])
            where = f"{instruction.mnemonic} {field.name}"
            yield kind, f"{where} {text}", replace(instruction, operands=operands)
    for name in ("waits", "posts"):
        syncs = getattr(instruction, name)
        for index, sync in enumerate(syncs):
            before, after = syncs[:index], syncs[index + 1 :]
            yield f"drop {name}", f"drop {name} {index}", replace(instruction, **{name: (*before, *after)})
            for kind, text, changed in _syncs(sync):
                where = f"{instruction.mnemonic} {name} {index}"
                syncs_now = (*before, changed, *after)
                yield f"{name} {kind}", f"{where}: {text}", replace(instruction, **{name: syncs_now})
    for program in (instruction.program + 1, instruction.program + 6):
        yield "program", f"program {program}", replace(instruction, program=program)


def _syncs(sync: Sync) -> Iterator[Change]:
    for number, text in _affines(sync.semaphore):
        yield "semaphore", text, replace(sync, semaphore=number)
    for name in ("first", "last"):
        for mask in _masks(getattr(sync, name)):
            yield "mask", f"{name} {mask:#b}", replace(sync, **{name: mask})


def _masks(mask: int) -> list[int]:
    flipped = [mask ^ 1 << bit for bit in range(5)]
    return [other for other in dict.fromkeys((0, *flipped)) if other != mask]


def _affines(number: Affine) -> Iterator[tuple[Affine, str]]:
    for step in (-1, 1):
        yield replace(number, constant=number.constant + step), f"{step:+}"
    for depth, factor in number.terms:
        for other in (0, 2 * factor, factor + 1, factor - 1):
            yield affine(number.constant, {**dict(number.terms), depth: other}), f"{other} * i{depth}"


def _operands(field: Field, value: Operand) -> Iterator[Change]:
    """The changes of one operand, by what it is and the kind of its field in the instruction table."""
    if isinstance(value, Register):
        for number, text in _affines(value.number):
            yield "register", text, Register(number)
    elif isinstance(value, Box):
        yield from _boxes(value)
    elif isinstance(value, RingAddress):
        yield from _rings(value)
    elif isinstance(value, Window):
        yield from _windows(value)
    elif isinstance(value, tuple):
        yield from _tuples(field, value)
    elif field.kind in ("enum", "mask") or (isinstance(value, int) and field.kind != "source"):
        yield from _words(field, value)


def _words(field: Field, value: Operand) -> Iterator[Change]:
    """Other words of an enum, other masks, other numbers."""
    if field.kind == "enum":
        others: list[Operand] = [*field.choices]
    elif field.kind == "mask" and isinstance(value, int):
        others = [*_masks(value)]
    elif isinstance(value, int):
        others = [value - 1, value + 1, value // 2, 2 * value]
    kind = f"mask {field.name}" if field.kind == "mask" else field.kind
    for other in dict.fromkeys(others):
        if other != value:
            yield kind, str(other), other


def _tuples(field: Field, value: tuple[int, ...]) -> Iterator[Change]:
    """Shapes and advances."""
    for index, part in enumerate(value):
        for other in (part - 1, part + 1, part + 64):
            yield field.kind, f"{index} is {other}", (*value[:index], other, *value[index + 1 :])
    yield field.kind, "longer", (*value, 1)


def _boxes(box: Box) -> Iterator[Change]:
    yield "box slot", f"slot {box.slot + 1}", replace(box, slot=box.slot + 1)
    if box.slot:
        yield "box slot", "slot 0", replace(box, slot=0)
    yield "box fill", "refuse", replace(box, fill="refuse")
    yield "box rank", "an axis less", replace(box, axes=box.axes[1:])
    for index, axis in enumerate(box.axes):
        for kind, text, changed in _axes(axis):
            axes = (*box.axes[:index], changed, *box.axes[index + 1 :])
            yield kind, f"axis {index} {text}", replace(box, axes=axes)


def _axes(axis: Axis) -> Iterator[tuple[str, str, Axis]]:
    for number, text in _affines(axis.start):
        yield "box start", text, replace(axis, start=number)
    for extent in (axis.extent - 1, axis.extent + 1, 2 * axis.extent):
        yield "box extent", f"extent {extent}", replace(axis, extent=extent)
    for step in (axis.step + 1, -axis.step):
        yield "box step", f"step {step}", replace(axis, step=step)


def _windows(window: Window) -> Iterator[Change]:
    for name in ("top", "left"):
        for number, text in _affines(getattr(window, name)):
            yield "window start", f"{name} {text}", replace(window, **{name: number})
    for name in ("rows", "columns", "pitch"):
        for step in (-1, 1):
            yield f"window {name}", f"{name} {step:+}", replace(window, **{name: getattr(window, name) + step})


def _rings(ring: RingAddress) -> Iterator[Change]:
    for step in (-512, 512, 1024, 4096):
        base = replace(ring.base, constant=ring.base.constant + step)
        yield "ring base", f"base {step:+}", replace(ring, base=base)
    for stride in (0, ring.stride // 2, 2 * ring.stride, ring.stride + 1024):
        if stride != ring.stride:
            yield "ring stride", f"stride {stride}", replace(ring, stride=stride)
    for modulo in (ring.modulo - 1, ring.modulo + 1):
        yield "ring modulo", f"modulo {modulo}", replace(ring, modulo=modulo)
    for number, text in _affines(ring.index):
        yield "ring index", f"index {text}", replace(ring, index=number)


def _descriptors(descriptor: Descriptor) -> Iterator[Change]:
    for step in (-4, 4, 64, 4096):
        address = descriptor.address + step
        yield "descriptor address", f"address {step:+}", replace(descriptor, address=address)
    for index, extent in enumerate(descriptor.dims):
        for other in (extent - 1, extent + 1):
            dims = (*descriptor.dims[:index], other, *descriptor.dims[index + 1 :])
            yield "descriptor dims", f"dims {dims}", replace(descriptor, dims=dims)
        for stride in (descriptor.strides[index] - 1, descriptor.strides[index] + 1, 0):
            strides = (*descriptor.strides[:index], stride, *descriptor.strides[index + 1 :])
            yield "descriptor stride", f"strides {strides}", replace(descriptor, strides=strides)
        origin = tuple(1 if axis == index else 0 for axis in range(len(descriptor.dims)))
        yield "descriptor origin", f"origin {origin}", replace(descriptor, origin=origin)
    for space in SPACES:
        if space != descriptor.space:
            yield "descriptor space", space, replace(descriptor, space=space)


def _commands(item: object) -> Iterator[Change]:
    if isinstance(item, CommandLoop):
        for count in (item.count - 1, item.count + 1):
            yield "command loop", f"count {count}", replace(item, count=count)
        for kind, text, changed in _lists(item.body, _commands, "command"):
            yield kind, text, replace(item, body=changed)
        return
    if not isinstance(item, Command):
        return
    fields = BY_MNEMONIC[item.mnemonic].fields
    for index, (field, value) in enumerate(zip(fields, item.operands, strict=True)):
        if field.name == "macs":
            continue  # a figure for reports
        for _, text, changed in _operands(field, value):
            operands = (*item.operands[:index], changed, *item.operands[index + 1 :])
            where = f"{item.mnemonic} {field.name}"
            yield where, f"{where} {text}", replace(item, operands=operands)
    yield "calls", f"{item.mnemonic} with once {not item.once}", replace(item, once=not item.once)
    for dies in (0b01, 0b10, 0b11):
        if dies != item.dies:
            yield "die mask", f"{item.mnemonic} on dies {dies:#b}", replace(item, dies=dies)
