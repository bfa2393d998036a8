"""What a vector instruction makes of its operands: shapes, number kinds, types in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from birc.runtime.alu import FLOAT_RESULT, ON_BITS, is_int32
from birc.runtime.dtypes import DTYPES, dtype
from birc.runtime.program import Box, Instruction

# Element types that a vector load widens (to FP32 or INT32) and a vector store narrows to.
VECTOR_TYPES: Final = frozenset(entry.name for entry in DTYPES if entry.is_addressable)
# Element types that the T-core takes in each format: those that the format holds, or rounds by its own rule.
TCORE_TYPES: Final = {
    "bf16": frozenset(("bf16", "f32", "f16")),
    "tf32p": frozenset(("f32", "f16", "bf16")),
    "s8": frozenset(("i8",)),
}

TO_INTEGER: Final = frozenset(("vnot", "veq", "vlt", "vle", "vand", "vor", "vxor", "vtoint"))
FOLDS: Final = frozenset(("vfoldsum", "vfoldmax", "vfoldmin", "vfoldprod"))
REDUCTIONS: Final = frozenset(("vredsum", "vredmax", "vredmin", "vredprod"))


@dataclass(frozen=True, slots=True)
class Content:
    """What a register holds: an array of this shape, INT32 if `integer`, else FP32."""

    shape: tuple[int, ...]
    integer: bool


class ContentError(Exception):
    """Operands that do not go together; the text says why."""


def loaded(box: Box, element_type: str) -> Content:
    """The register after a vld. Raises `ContentError` for a type that vector loads do not know."""
    if element_type not in VECTOR_TYPES:
        raise ContentError(f"a vector load of {element_type}")
    return Content(box.shape, not dtype(element_type).is_float)


def check_store(box: Box, element_type: str, source: Content | float) -> None:
    """Raises `ContentError` when `source` cannot be stored to the box as `element_type`."""
    if element_type not in VECTOR_TYPES:
        raise ContentError(f"a vector store of {element_type}")
    target = dtype(element_type)
    if not isinstance(source, Content):
        if target.is_integer and not is_int32(source):
            raise ContentError(f"a store of {source} as {element_type}")
        return
    if broadcast(source.shape, box.shape) != box.shape:
        raise ContentError(f"a store of {source.shape} to a box of {box.shape}")
    if target.is_integer and not source.integer:
        raise ContentError(f"a store of FP32 as {element_type}; it takes vtoint first")


def broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of two arrays of equal rank. Raises `ContentError` when there is none."""
    if len(left) != len(right):
        raise ContentError(f"shapes {left} and {right} of different rank")
    if any(a not in (b, 1) and b != 1 for a, b in zip(left, right, strict=True)):
        raise ContentError(f"shapes {left} and {right} do not go together")
    return tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))


def indexed(box: Box, axis: int, element_type: str, index: Content) -> Content:
    """The register after a vldx."""
    if axis >= len(box.axes) or box.axes[axis].extent != 1:
        raise ContentError(f"axis {axis} of a box of {box.shape} is not an indexed axis of extent 1")
    if not index.integer:
        raise ContentError("the index register holds FP32")
    return Content(broadcast(index.shape, box.shape), loaded(box, element_type).integer)


def folded(destination: Content | None, source: Content | float, first: bool) -> Content:
    """The register after a fold; `destination` is None when it was never written."""
    if first:
        if not isinstance(source, Content):
            raise ContentError("an immediate has no shape")
        return source
    if destination is None:
        raise ContentError("adds to a register that was never written")
    if isinstance(source, Content):
        if broadcast(destination.shape, source.shape) != destination.shape:
            raise ContentError(f"folds {source.shape} into {destination.shape}")
        if destination.integer and not source.integer:
            raise ContentError("folds FP32 into INT32")
    return destination


def reduced(source: Content, axes: int) -> Content:
    """The register after a reduction over the axes of a mask."""
    if axes >> len(source.shape) or axes == 0:
        raise ContentError(f"reduces axes {axes:#b} of a register of {source.shape}")
    return Content(tuple(1 if axes >> i & 1 else n for i, n in enumerate(source.shape)), source.integer)


def computed(instruction: Instruction, sources: tuple[Content | float, ...]) -> Content:
    """The register after an elementwise instruction."""
    shapes = [source.shape for source in sources if isinstance(source, Content)]
    if not shapes:
        raise ContentError("immediates alone have no shape")
    shape = shapes[0]
    for other in shapes[1:]:
        shape = broadcast(shape, other)
    integer = _is_integer(instruction.mnemonic, sources)
    if instruction.mnemonic in ON_BITS and not integer:
        raise ContentError(f"{instruction.mnemonic} of FP32; it takes INT32")
    return Content(shape, integer)


def _is_integer(mnemonic: str, sources: tuple[Content | float, ...]) -> bool:
    """Whether an elementwise instruction gives INT32 (the rule is that of `alu.elementwise`)."""
    if mnemonic in TO_INTEGER:
        return True
    if mnemonic in FLOAT_RESULT:
        return False
    values = sources[1:] if mnemonic == "vsel" else sources
    registers = [source for source in values if isinstance(source, Content)]
    immediates = [source for source in values if not isinstance(source, Content)]
    return bool(registers) and all(register.integer for register in registers) and all(map(is_int32, immediates))


def check_size(content: Content, limit: int) -> Content:
    """`content` if a register holds it; else raises `ContentError`."""
    elements = math.prod(content.shape)
    if elements > limit:
        raise ContentError(f"{elements} elements in a register of {limit}")
    return content
