"""ONNX tensors as numpy arrays, including those whose data lies in a file beside the model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from birc.compiler.importer.external_data import external_array
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import DType, dtype
from birc.runtime.errors import BadModelError

Proto = onnx.TensorProto

_NAMES: Final[dict[str, str]] = {
    "DOUBLE": "f64",
    "FLOAT": "f32",
    "FLOAT16": "f16",
    "BFLOAT16": "bf16",
    "FLOAT8E4M3FN": "f8e4m3",
    "FLOAT8E4M3FNUZ": "f8e4m3fnuz",
    "FLOAT8E5M2": "f8e5m2",
    "FLOAT8E5M2FNUZ": "f8e5m2fnuz",
    "FLOAT8E8M0": "f8e8m0",
    "FLOAT6E2M3": "f6e2m3",
    "FLOAT6E3M2": "f6e3m2",
    "FLOAT4E2M1": "f4e2m1",
    "INT64": "i64",
    "INT32": "i32",
    "INT16": "i16",
    "INT8": "i8",
    "INT4": "i4",
    "INT2": "i2",
    "UINT64": "u64",
    "UINT32": "u32",
    "UINT16": "u16",
    "UINT8": "u8",
    "UINT4": "u4",
    "UINT2": "u2",
    "BOOL": "bool",
}
_HOST_NAMES: Final[dict[str, str]] = {
    "STRING": "string",
    "COMPLEX64": "complex64",
    "COMPLEX128": "complex128",
}
"""Our names of ONNX's element types; an older onnx package does not know the newest ones."""

_DTYPES: Final = {number: _NAMES[name] for name, number in Proto.DataType.items() if name in _NAMES}
_HOST_DTYPES: Final = {number: _HOST_NAMES[name] for name, number in Proto.DataType.items() if name in _HOST_NAMES}

MOST_SPARSE_ELEMENTS: Final = 1 << 26
"""Of a sparse tensor that is stored densely: 256 MiB of f32."""


def onnx_names() -> dict[str, str]:
    """ONNX's names of our element types."""
    return {ours: theirs for theirs, ours in (_NAMES | _HOST_NAMES).items()}


def element_type(onnx_type: int) -> DType | None:
    """The element type for ONNX's number of it; None for what no graph of the device has (strings, complex numbers).

    Whether device memory holds it is another question: see `DType.device`.
    """
    name = _DTYPES.get(onnx_type)
    return None if name is None else dtype(name)


def boundary_type(onnx_type: int) -> DType | None:
    """As `element_type`, with the types that exist on the host alone; None for a number that ONNX does not define."""
    name = _DTYPES.get(onnx_type) or _HOST_DTYPES.get(onnx_type)
    return None if name is None else dtype(name)


def onnx_type(type: TensorType) -> onnx.TypeProto:
    """The type as ONNX writes it."""
    number = onnx.helper.np_dtype_to_tensor_dtype(type.dtype.numpy)
    return onnx.helper.make_tensor_type_proto(number, type.shape)


def static_type(type: onnx.TypeProto | None) -> TensorType | None:
    """The type of a tensor of numbers whose dimensions are all known; None for anything else."""
    if type is None or not type.HasField("tensor_type") or not type.tensor_type.HasField("shape"):
        return None
    kind = element_type(type.tensor_type.elem_type)
    dims = type.tensor_type.shape.dim
    if kind is None or not all(dim.HasField("dim_value") for dim in dims):
        return None
    return TensorType(kind, tuple(dim.dim_value for dim in dims))


def tensor_proto(name: str, data: np.ndarray) -> onnx.TensorProto:
    """`data` as ONNX writes it; a fill is written out."""
    return onnx.numpy_helper.from_array(np.ascontiguousarray(data).reshape(data.shape), name)


def element_type_name(onnx_type: int) -> str:
    """ONNX's own name of one of its element types, for messages."""
    known = Proto.DataType.values()
    return Proto.DataType.Name(onnx_type).lower() if onnx_type in known else f"number {onnx_type}"


def tensor_array(tensor: onnx.TensorProto, folder: Path | None) -> np.ndarray:
    """The values of `tensor`; external data may lie only inside `folder` and is mapped, not read.

    Raises `BadModelError` when the data is missing, too short, outside the folder, or of a type without
    numbers.
    """
    where = f"tensor {tensor.name!r}"
    if element_type(tensor.data_type) is None:
        raise BadModelError(f"element type {element_type_name(tensor.data_type)} holds no numbers", where=where)
    if tensor.data_location == Proto.EXTERNAL:
        return external_array(tensor, dtype(_DTYPES[tensor.data_type]), folder, where)
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise BadModelError(f"its data does not fill its shape: {error}", where=where) from error


def sparse_array(tensor: onnx.SparseTensorProto, folder: Path | None) -> np.ndarray:
    """The dense values of a sparse tensor. Raises `BadModelError` when its indices do not fit its shape."""
    where = f"sparse tensor {tensor.values.name!r}"
    values, indices = tensor_array(tensor.values, folder), tensor_array(tensor.indices, folder)
    shape = tuple(tensor.dims)
    size = math.prod(shape)
    if size > MOST_SPARSE_ELEMENTS:
        raise BadModelError(f"has {size} elements, the limit is {MOST_SPARSE_ELEMENTS}", where=where)
    if indices.ndim == 2 and indices.shape == (values.size, len(shape)):
        steps = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
        flat = indices.astype(np.int64) @ np.array(steps, np.int64)
        inside = bool(((indices >= 0) & (indices < np.array(shape))).all())
    else:
        flat, inside = indices.astype(np.int64), indices.shape == values.shape
    if values.ndim != 1 or not inside or (flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < size):
        raise BadModelError(f"its indices do not fit the shape {list(shape)}", where=where)
    dense = np.zeros(size, values.dtype)
    dense[flat] = values
    return dense.reshape(shape)
