"""What each instruction does to the state of an SPC and to memory: one function for each or for a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from birc.runtime.alu import ELEMENTWISE, FOLDS, REDUCTIONS, elementwise, reduction
from birc.runtime.conversion import INT, Array, immediate_lanes
from birc.runtime.dtypes import round_bf16, round_tf32p
from birc.runtime.faults import MachineFault
from birc.runtime.isa import BY_MNEMONIC
from birc.runtime.machine import Machine
from birc.runtime.memory import box_starts, load_box, load_indexed, store_box
from birc.runtime.program import Box, Register, Window
from birc.runtime.stepping.spc import Spc, Tile
from birc.runtime.stepping.walk import Step


@dataclass(frozen=True, slots=True)
class Effect:
    """What one execution moved and computed; bytes are those of elements in bounds."""

    bytes_read: int = 0
    bytes_written: int = 0
    macs: int = 0


def execute(spc: Spc, step: Step) -> Effect:
    """Execute one instruction of one iteration. Raises `MachineFault` when it cannot be."""
    row = BY_MNEMONIC[step.instruction.mnemonic]
    fields = {field.name: value for field, value in zip(row.fields, step.instruction.operands, strict=True)}
    return EXECUTE[row.mnemonic](spc, step, fields)


def _load(spc: Spc, step: Step, box: Box) -> tuple[Array, int]:
    """The lanes of a box, and the bytes read."""
    view, descriptor = spc.tensor(box.slot)
    lanes, elements = load_box(view, descriptor, box, box_starts(box, step.variables))
    return lanes, elements * view.itemsize


def _round_to_format(lanes: Array, format_name: str) -> Array:
    """Elements as the T-core takes them: FP32 arrays, for s8 INT32."""
    if format_name == "s8":
        if lanes.dtype != INT or (lanes.size and (lanes.min() < -128 or lanes.max() > 127)):
            raise MachineFault("an s8 tile is loaded with elements that 8 bits do not hold")
        return lanes
    floats = lanes.astype(np.float32)
    return round_bf16(floats) if format_name == "bf16" else round_tf32p(floats)


def _load_tile(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    """tlda and tldb: the two differ in which side of the matrix holds the depth k."""
    is_a = step.instruction.mnemonic == "tlda"
    box, format_name = fields["src"], fields["format"]
    leading = fields["rows"] if is_a else fields["depth"]
    lanes, bytes_read = _load(spc, step, box)
    matrix = lanes.reshape(prod(box.shape[:leading]), prod(box.shape[leading:]))
    width, k = matrix.shape if is_a else matrix.shape[::-1]
    whole = spc.machine.tcore_rows if is_a else spc.machine.tcore_cols
    limit = spc.machine.patch_pixels_max if is_a else whole
    kind = spc.machine.format(format_name)
    if width > limit or k > kind.k_max:
        raise MachineFault(f"a tile of {width} by depth {k}, at most {limit} by {kind.k_max}")
    tile = Tile(_round_to_format(matrix, format_name), format_name, max(whole, width) * k * kind.bytes)
    spc.buffers["a" if is_a else "b"].put(fields["dst"].at(step.variables), tile)
    return Effect(bytes_read=bytes_read)


def _multiply(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    m, k, format_name = fields["m"], fields["k"], fields["format"]
    a = spc.buffers["a"].get(fields["a"].at(step.variables), format_name, (m, k))
    return _accumulate(spc, step, fields, a)


def _convolve(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    """tconv: the rows of A are the pixels of a window."""
    k, format_name = fields["k"], fields["format"]
    pixels = _window_pixels(spc.machine, fields["window"], step.variables)
    a = spc.buffers["a"].get(fields["a"].at(step.variables), format_name, (int(pixels.max()) + 1, k))
    return _accumulate(spc, step, fields, a[pixels])


def _window_pixels(machine: Machine, window: Window, variables: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """The pixels of a window by their number in the patch."""
    side = machine.conv_tile_side
    top, left = window.top.at(variables), window.left.at(variables)
    if not (1 <= window.rows <= side and 1 <= window.columns <= side):
        raise MachineFault(f"a window of {window.rows} x {window.columns} pixels, at most {side} x {side}")
    if top < 0 or left < 0 or left + window.columns > window.pitch:
        raise MachineFault(f"a window from ({top}, {left}) of a patch of {window.pitch} pixels in a row leaves it")
    rows = top + np.arange(window.rows)[:, np.newaxis]
    return (rows * window.pitch + left + np.arange(window.columns)).ravel()


def _accumulate(spc: Spc, step: Step, fields: Mapping[str, Any], a: Array) -> Effect:
    """Add the product of rows `a` and the B tile of an instruction to the accumulator."""
    m, n, k, format_name = a.shape[0], fields["n"], fields["k"], fields["format"]
    b = spc.buffers["b"].get(fields["b"].at(step.variables), format_name, (k, n))
    if step.in_first(fields["first"]):
        spc.accumulator.start(m, n)
    with np.errstate(all="ignore"):
        spc.accumulator.add(a.astype(np.float32) @ b.astype(np.float32))
    return Effect(macs=m * n * k)


def _drain(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    sums = spc.accumulator.drain(fields["shape"])
    if not step.in_first(fields["first"]):
        sums = elementwise("vadd", (_read(spc, step, fields["dst"]), sums))
    _write(spc, step, fields["dst"], sums)
    return Effect()


def _read(spc: Spc, step: Step, register: Register) -> Array:
    return spc.registers.read(register.number.at(step.variables))


def _write(spc: Spc, step: Step, register: Register, lanes: Array) -> None:
    spc.registers.write(register.number.at(step.variables), lanes)


def _source(spc: Spc, step: Step, operand: Register | float) -> Array | float:
    """The value of an operand that is a register or an immediate."""
    return _read(spc, step, operand) if isinstance(operand, Register) else operand


def _load_vector(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    lanes, bytes_read = _load(spc, step, fields["src"])
    _write(spc, step, fields["dst"], lanes)
    return Effect(bytes_read=bytes_read)


def _load_by_index(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    box = fields["src"]
    view, descriptor = spc.tensor(box.slot)
    lanes, elements = load_indexed(
        view,
        descriptor,
        box,
        box_starts(box, step.variables),
        index=_read(spc, step, fields["index"]),
        axis=fields["axis"],
        count=fields["count"],
    )
    _write(spc, step, fields["dst"], lanes)
    return Effect(bytes_read=elements * view.itemsize)


def _store_vector(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    box = fields["dst"]
    view, descriptor = spc.tensor(box.slot)
    source = _source(spc, step, fields["src"])
    lanes = source if isinstance(source, np.ndarray) else immediate_lanes(source, descriptor.dtype)
    elements = store_box(view, descriptor, box, box_starts(box, step.variables), lanes)
    return Effect(bytes_written=elements * view.itemsize)


def _fill_register(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    _write(spc, step, fields["dst"], np.full(fields["shape"], fields["value"], np.float32))
    return Effect()


def _compute(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    """Arithmetic and special functions: the sources are all fields but `dst`."""
    sources = [_source(spc, step, value) for name, value in fields.items() if name != "dst"]
    _write(spc, step, fields["dst"], _elementwise(step, sources))
    return Effect()


def _elementwise(step: Step, sources: list[Array | float]) -> Array:
    if len({source.ndim for source in sources if isinstance(source, np.ndarray)}) > 1:
        raise MachineFault("the operands have different ranks")
    try:
        return elementwise(step.instruction.mnemonic, sources)
    except ValueError as error:
        raise MachineFault(f"the operands do not broadcast: {error}") from error


def _fold(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    value = _source(spc, step, fields["a"])
    if step.in_first(fields["first"]):
        if not isinstance(value, np.ndarray):
            raise MachineFault("a fold begins with an immediate, which has no shape")
        _write(spc, step, fields["dst"], value.copy())
        return Effect()
    held = _read(spc, step, fields["dst"])
    folded = _elementwise(step, [held, value])
    if folded.shape != held.shape:
        raise MachineFault(f"a fold changes its register's shape from {held.shape} to {folded.shape}")
    _write(spc, step, fields["dst"], folded)
    return Effect()


def _reduce(spc: Spc, step: Step, fields: Mapping[str, Any]) -> Effect:
    lanes = _read(spc, step, fields["a"])
    if fields["axes"] >> lanes.ndim:
        raise MachineFault(f"reduces axes {fields['axes']:#b} of a register of {lanes.ndim} axes")
    _write(spc, step, fields["dst"], reduction(step.instruction.mnemonic, lanes, fields["axes"]))
    return Effect()


EXECUTE: Final[Mapping[str, Callable[[Spc, Step, Mapping[str, Any]], Effect]]] = MappingProxyType(
    {
        "tlda": _load_tile,
        "tldb": _load_tile,
        "tmma": _multiply,
        "tconv": _convolve,
        "vld": _load_vector,
        "vst": _store_vector,
        "vldx": _load_by_index,
        "vacc": _drain,
        "vmovi": _fill_register,
        **dict.fromkeys(ELEMENTWISE.keys() - FOLDS.keys(), _compute),
        **dict.fromkeys(FOLDS, _fold),
        **dict.fromkeys(REDUCTIONS, _reduce),
    }
)
