"""Uses of onnxruntime's own operators on quantised tensors, and of weights packed in bytes."""

from __future__ import annotations

from functools import partial

import numpy as np
from lowering_case import F32, Case, case, f32, flags
from lowering_cases_quantized_products import BYTE, SIGNED, i8, number, scales, u8

ours = partial(case, domain="com.microsoft")
bytes_of = partial(ours, kinds=(BYTE,))
signed = partial(ours, kinds=(SIGNED,))
F16 = np.float16

A, A_SCALE, A_ZERO = u8(2, 3, 4), number(0.0213), number(101, BYTE)
B, B_SCALE, B_ZERO = u8(4), number(0.0077), number(37, BYTE)
Y, Y_ZERO = number(0.0413), number(99, BYTE)
IMAGE = u8(1, 3, 6, 5)


def softmax(version: int, axis: int) -> Case:
    """The attribute `opset` of this operator is that of the Softmax that it was made from.

    onnxruntime divides in integers, by the scale's reciprocal without its fraction: the scale is a power of two.
    """
    inputs = (A, A_SCALE, A_ZERO, number(1 / 256), number(0, BYTE))
    attributes = {"opset": version, "axis": axis}
    return Case("QLinearSoftmax", inputs, attributes=attributes, domain="com.microsoft", kinds=(BYTE,))


ELEMENTWISE = (
    bytes_of("QLinearAdd", A, A_SCALE, A_ZERO, B, B_SCALE, B_ZERO, Y, Y_ZERO),
    signed("QLinearAdd", i8(2, 3, 4), A_SCALE, number(5, SIGNED), i8(4), B_SCALE, number(0, SIGNED), Y,
           number(-9, SIGNED), known=(1, 2, 4, 5, 6)),
    bytes_of("QLinearMul", A, A_SCALE, A_ZERO, B, B_SCALE, B_ZERO, number(0.0123), Y_ZERO),
    bytes_of("QLinearSigmoid", A, A_SCALE, A_ZERO, number(0.0039), number(0, BYTE), known=(1, 2, 3, 4)),
    signed("QLinearLeakyRelu", i8(2, 3, 4), A_SCALE, number(3, SIGNED), Y, number(-9, SIGNED), alpha=0.3,
           known=(1, 2, 3, 4)),
    softmax(13, -1),
    softmax(9, 1),
    bytes_of("QLinearConcat", Y, Y_ZERO, A, A_SCALE, A_ZERO, u8(2, 1, 4), B_SCALE, B_ZERO, axis=1,
             known=(0, 1, 3, 4, 6, 7)),
    bytes_of("QLinearWhere", flags(3, 4), A, A_SCALE, A_ZERO, B, B_SCALE, B_ZERO, Y, Y_ZERO, known=(2, 3, 5, 6, 7, 8)),
    bytes_of("QLinearAveragePool", IMAGE, A_SCALE, A_ZERO, number(0.0181), Y_ZERO, kernel_shape=[3, 2],
             pads=[1, 0, 1, 1], strides=[2, 1]),
    bytes_of("QLinearAveragePool", IMAGE, A_SCALE, A_ZERO, number(0.0181), Y_ZERO, kernel_shape=[2, 2],
             channels_last=1, count_include_pad=1),
    bytes_of("QLinearGlobalAveragePool", IMAGE, A_SCALE, A_ZERO, number(0.0181), Y_ZERO),
    bytes_of("QLinearGlobalAveragePool", IMAGE, A_SCALE, A_ZERO, number(0.0181), Y_ZERO, channels_last=1),
    bytes_of("NhwcMaxPool", IMAGE, kernel_shape=[2, 3], pads=[0, 1, 0, 1], strides=[1, 2]),
)  # fmt: skip

PRODUCTS = (
    ours("MatMulIntegerToFloat", u8(4, 7), i8(7, 5), A_SCALE, scales(5), A_ZERO, i8(5), f32(5)),
    ours("MatMulIntegerToFloat", u8(2, 4, 7), u8(7, 5), A_SCALE, B_SCALE, None, B_ZERO),
    ours("DynamicQuantizeMatMul", f32(2, 4, 7), i8(7, 5), scales(5), i8(5), f32(5)),
    ours("DynamicQuantizeMatMul", f32(4, 7, low=0.5), u8(7, 5), B_SCALE, B_ZERO, known=(1, 2, 3)),
    ours("DynamicQuantizeMatMul", f32(4, 7) * F32(0), u8(7, 5), B_SCALE),
    bytes_of("QGemm", u8(4, 7), A_SCALE, A_ZERO, u8(7, 5), B_SCALE, B_ZERO, np.int32([900, -800, 0, 4, 5]), Y, Y_ZERO,
             alpha=0.7),
    ours("QGemm", u8(7, 4), A_SCALE, A_ZERO, i8(5, 7), scales(5), np.zeros(5, SIGNED), transA=1, transB=1),
    bytes_of("QLinearConv", u8(1, 6, 5, 3), A_SCALE, A_ZERO, i8(4, 3, 3, 3), scales(4), np.zeros(4, SIGNED),
             number(1.37), Y_ZERO, channels_last=1, pads=[1, 1, 1, 1], known=(3, 4, 5)),
    bytes_of("QLinearConv", u8(1, 3, 6, 5), A_SCALE, A_ZERO, u8(4, 3, 3, 3), B_SCALE, B_ZERO, number(1.37), Y_ZERO),
)  # fmt: skip

blocked = partial(ours, "MatMulNBits", tolerance=1e-4)
PACKED = (
    blocked(f32(2, 3, 32), u8(5, 2, 8), scales(5, 2), known=(1, 2), N=5, K=32, bits=4, block_size=16),
    blocked(f32(3, 40), u8(5, 3, 8), scales(5, 3), u8(5, 2), known=(1, 2, 3), N=5, K=40, bits=4, block_size=16),
    blocked(f32(3, 32), u8(5, 2, 8), scales(5, 2), f32(5, 2), None, f32(5), known=(1, 2, 3), N=5, K=32, bits=4,
            block_size=16),
    blocked(f32(3, 64), u8(5, 2, 32), scales(5, 2), N=5, K=64, bits=8, block_size=32),
    blocked(f32(3, 64), u8(5, 4, 4), scales(5, 4), known=(1, 2), N=5, K=64, bits=2, block_size=16),
    blocked(f32(3, 32).astype(F16), u8(5, 2, 8), scales(5, 2).astype(F16), N=5, K=32, bits=4, block_size=16,
            kinds=(F16,), tolerance=5e-3),
)  # fmt: skip

ROWS = np.array([[2, 0], [-1, 4]], np.int64)
gathered = partial(ours, "GatherBlockQuantized", block_size=16, opset=21)
GATHERED = (
    gathered(u8(5, 16), ROWS, scales(5, 2), bits=4, known=(0, 2)),
    gathered(u8(5, 16), ROWS, scales(5, 2), u8(5, 1), bits=4),
    gathered(u8(5, 3, 40), ROWS, scales(5, 3, 3), u8(5, 3, 3), bits=8, quantize_axis=2),
)

CASES: tuple[Case, ...] = (*ELEMENTWISE, *PRODUCTS, *PACKED, *GATHERED)
