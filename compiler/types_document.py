"""The document of the element types, made from their table."""

from __future__ import annotations

from collections.abc import Iterator

from birc.compiler.importer.tensors import onnx_names
from birc.runtime.dtypes import DTYPES, HOST_DTYPES, DType, dtype

_INTRODUCTION = """\
# The element types

Made by `make docs` from the table of types; not to be edited. Every element type of ONNX is known. A type that no
instruction loads and stores lies in device memory as another one that holds each of its values exactly; the host
converts at the boundary, and constants are converted when they are compiled. So a 4-bit integer **takes a byte an
element on the device**, twice what it takes in an ONNX file; the values are the same.
"""

_RULES = """\
## What is computed in them

* Vector registers hold FP32 or INT32. A load widens exactly; a store rounds to nearest, ties to even, and cuts
  integers to their low bits. FP16, BF16 and 8-bit floats that one ONNX node hands to the next within a fused kernel
  are rounded as the store would; on the way within one node all digits are kept.
* `Cast` and `CastLike` follow ONNX's tables: floats of 8 bits saturate, or without `saturate` become infinite or NaN;
  those of 6 and 4 bits always saturate, and have no NaN: it becomes -0. E8M0 takes the power of two that `round_mode`
  says. What floats have beyond the range of an integer is undefined in ONNX: here integers below 32 bits and unsigned
  ones keep the low bits, as onnxruntime's and onnx's reference do, and signed words saturate; NaN becomes 0.
* From `-O 2` on, convolutions of few channels are products with neighbouring pixels of a row, or neighbouring groups of
  channels, side by side, and zeros between them. Of finite numbers the results are those of ONNX. What is infinite or
  NaN makes NaN of its neighbours' results, too, where they are computed together: 64 at most. At `-O 1` it does not.
* An integer becomes a float narrower than FP32 by way of FP32.
* A lane holds 32 bits. Integers of 64 bits are computed as pairs of words, except where a range that is proved
  (constants, shapes, indices, values that were narrower) lets one word hold them; a load beyond that range is a
  fault.
* `f64`, strings and complex numbers have no place in device memory.
"""


def types_document() -> str:
    """All types as a Markdown table, and what holds for them."""
    return "\n".join([_INTRODUCTION, *_table(), "", _RULES])


def _table() -> Iterator[str]:
    names = onnx_names()
    yield "| type | in ONNX | bits in a file | on the device | bytes an element there |"
    yield "|---|---|---|---|---|"
    for entry in DTYPES + HOST_DTYPES:
        device, size = _place(entry)
        yield f"| `{entry.name}` | {names[entry.name]} | {entry.bits or 'any'} | {device} | {size} |"


def _place(entry: DType) -> tuple[str, str]:
    if entry.device is None:
        return "not there", ""
    return f"`{entry.device}`", str(dtype(entry.device).bits // 8)
