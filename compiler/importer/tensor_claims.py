"""What a tensor of a model claims of itself, before anything is allocated for it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import onnx

from birc.compiler.importer.external_data import external_data
from birc.compiler.importer.limits import MOST_RANK, MOST_VALUE_BYTES
from birc.compiler.importer.tensors import boundary_type, element_type_name
from birc.runtime.errors import BadModelError

_PACKED: Final = {"INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4}
_PAIRS: Final = ("COMPLEX64", "COMPLEX128")
_FIELDS: Final = {
    "float_data": ("FLOAT", "COMPLEX64"),
    "double_data": ("DOUBLE", "COMPLEX128"),
    "int64_data": ("INT64",),
    "uint64_data": ("UINT64", "UINT32"),
    "string_data": ("STRING",),
}
"""The field that holds the elements of each type; `int32_data` those of all others. Source: onnx.proto3."""

_FIELD_OF: Final = {kind: field for field, kinds in _FIELDS.items() for kind in kinds}
_ALL_FIELDS: Final = (*_FIELDS, "int32_data")


def check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    """Raises `BadModelError` for a type that is none, a shape that cannot be, and data that does not fill it."""
    element = boundary_type(tensor.data_type)
    if element is None:
        raise BadModelError(f"its element type is {element_type_name(tensor.data_type)}, which is none", where=where)
    sizes = tuple(tensor.dims)
    check_sizes(sizes, where)
    count = math.prod(sizes)
    size_bytes = element.bytes_for(count)
    if size_bytes > MOST_VALUE_BYTES:
        raise BadModelError(f"{list(sizes)} takes {size_bytes} bytes, at most {MOST_VALUE_BYTES}", where=where)
    if tensor.data_location not in (onnx.TensorProto.DEFAULT, onnx.TensorProto.EXTERNAL):
        raise BadModelError(f"its data_location is {tensor.data_location}, which is none", where=where)
    if tensor.HasField("segment"):
        raise BadModelError("is a segment of another tensor, which ONNX has given up", where=where)
    filled = [field for field in _ALL_FIELDS if len(getattr(tensor, field))]
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        if filled or tensor.HasField("raw_data") or element.name == "string":
            raise BadModelError("has external data and other data besides", where=where)
        external_data(tensor, where)
        return
    _check_fill(tensor, filled, count, size_bytes, where)


def check_sizes(sizes: Iterable[int], where: str, owner: str = "") -> None:
    """Raises `BadModelError` for dimensions that no tensor has, or for more elements than an address tells apart."""
    sizes = tuple(sizes)
    if len(sizes) > MOST_RANK:
        raise BadModelError(f"{owner}has {len(sizes)} dimensions, at most {MOST_RANK}", where=where)
    if min(sizes, default=0) < 0:
        raise BadModelError(f"{owner}has the shape {list(sizes)}, with a size below 0", where=where)
    if math.prod(size for size in sizes if size) >= 2**63:
        raise BadModelError(f"{owner}has the shape {list(sizes)}, of more than 2^63 elements", where=where)


def _check_fill(tensor: onnx.TensorProto, filled: list[str], count: int, size_bytes: int, where: str) -> None:
    """The data of a tensor that carries it itself: one field, and neither too much nor too little in it."""
    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    wanted = _FIELD_OF.get(kind, "int32_data")
    if tensor.HasField("raw_data"):
        there = len(tensor.raw_data)
        if kind == "STRING" or (filled and there):
            raise BadModelError(f"has raw_data beside {filled[0] if filled else 'strings'}", where=where)
        if there or not filled:
            if there != size_bytes:
                shape = list(tensor.dims)
                raise BadModelError(f"raw_data has {there} bytes, the shape {shape} needs {size_bytes}", where=where)
            return
    if [field for field in filled if field != wanted]:
        raise BadModelError(f"{kind.lower()} elements stand in {wanted}, not in {', '.join(filled)}", where=where)
    needed = 2 * count if kind in _PAIRS else -(-count // _PACKED.get(kind, 1))
    there = len(getattr(tensor, wanted))
    if there != needed:
        shape = list(tensor.dims)
        raise BadModelError(f"{wanted} has {there} entries, the shape {shape} needs {needed}", where=where)
