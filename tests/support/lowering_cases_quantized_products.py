"""Uses of products and convolutions of quantised operands: of either sign, every form of zero point, any rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from lowering_case import F32, Case, case


def u8(*shape: int) -> np.ndarray:
    return np.random.default_rng([*shape, 1]).integers(0, 256, shape, np.uint8)


def i8(*shape: int) -> np.ndarray:
    return np.random.default_rng([*shape, 2]).integers(-128, 128, shape, np.int8)


def scales(*shape: int) -> np.ndarray:
    return np.random.default_rng([*shape, 3]).uniform(0.01, 0.05, shape).astype(F32)


def number(value: float, kind: Any = F32) -> np.ndarray:
    return np.array(value, kind)


BYTE, SIGNED = np.uint8, np.int8
SMALL, LARGE = number(0.02), number(2.5)

MATRIX_PRODUCTS = (
    case("MatMulInteger", u8(4, 7), u8(7, 5), number(12, BYTE), opset=10),
    case("MatMulInteger", u8(4, 7), i8(7, 5), number(128, BYTE), number(-3, SIGNED), known=(1, 2, 3)),
    case("MatMulInteger", u8(4, 7), i8(7, 5), number(128, BYTE), i8(5), known=(1, 3)),
    case("MatMulInteger", u8(4, 7), u8(7, 5), number(9, BYTE), number(0, BYTE), known=(1, 2, 3)),
    case("MatMulInteger", i8(4, 7), i8(7, 5), i8(4, 1), i8(5), oracle="onnx"),
    case("MatMulInteger", i8(2, 3, 4, 7), u8(3, 7, 5), i8(2, 3, 4, 1), u8(3, 1, 5), oracle="onnx"),
    case("MatMulInteger", u8(7), i8(7, 5), number(3, BYTE), oracle="onnx"),
    case("MatMulInteger", u8(4, 7), i8(7), number(3, BYTE), number(-2, SIGNED), oracle="onnx"),
    case("MatMulInteger", u8(7), u8(7), number(3, BYTE), oracle="onnx"),
    case("MatMulInteger", u8(3, 5000), u8(5000, 2)),
    case("QLinearMatMul", u8(4, 7), SMALL, number(113, BYTE), u8(7, 5), SMALL, number(114, BYTE), LARGE,
         number(118, BYTE), opset=10),
    case("QLinearMatMul", u8(4, 7), SMALL, number(113, BYTE), i8(7, 5), scales(5), i8(5), LARGE, number(118, BYTE)),
    case("QLinearMatMul", i8(4, 7), SMALL, number(1, SIGNED), i8(7, 5), SMALL, number(4, SIGNED), LARGE,
         number(-8, SIGNED), known=(1, 2, 3, 4, 5, 6, 7)),
    case("QLinearMatMul", i8(2, 4, 7), scales(2, 4, 1), i8(2, 4, 1), i8(7, 5), scales(5), i8(5), scales(2, 4, 1) * 99,
         i8(2, 4, 1), oracle="onnx", opset=21),
    case("QLinearMatMul", i8(7), SMALL, number(1, SIGNED), i8(2, 7, 5), SMALL, number(4, SIGNED), LARGE,
         number(-8, SIGNED), oracle="onnx"),
)  # fmt: skip

CONVOLUTIONS = (
    case("ConvInteger", u8(2, 3, 8, 7), u8(4, 3, 3, 3), number(1, BYTE), opset=10, pads=[1, 0, 1, 2]),
    case("ConvInteger", u8(2, 3, 8, 7), u8(4, 3, 3, 3), number(100, BYTE), number(200, BYTE), pads=[1, 0, 1, 2]),
    case("ConvInteger", u8(2, 4, 8, 7), i8(6, 2, 3, 3), number(100, BYTE), i8(6), known=(1, 2, 3), group=2,
         auto_pad="SAME_LOWER", strides=[2, 1], oracle="onnx"),
    case("ConvInteger", u8(2, 4, 8, 7), i8(6, 2, 3, 3), number(100, BYTE), i8(6), known=(2, 3), group=2, oracle="onnx"),
    case("ConvInteger", u8(2, 4, 9), u8(4, 1, 3), number(7, BYTE), number(8, BYTE), group=4, pads=[2, 1]),
    case("ConvInteger", u8(1, 2, 5, 6, 4), u8(3, 2, 2, 3, 2), number(7, BYTE), number(8, BYTE), known=(2, 3),
         pads=[1, 1, 0, 0, 1, 1], dilations=[2, 1, 1]),
    case("QLinearConv", u8(1, 3, 8, 7), SMALL, number(128, BYTE), u8(4, 3, 3, 3), SMALL, number(90, BYTE), LARGE,
         number(118, BYTE), opset=10, pads=[1, 1, 1, 1]),
    case("QLinearConv", u8(1, 3, 8, 7), SMALL, number(17, BYTE), i8(4, 3, 3, 3), scales(4), np.zeros(4, SIGNED), LARGE,
         number(118, BYTE), np.int32([1000, -50_000, 20_000, 0]), known=(1, 2, 3, 4, 5, 6, 7, 8), pads=[1, 1, 1, 1]),
    case("QLinearConv", i8(2, 4, 8), SMALL, number(-7, SIGNED), i8(4, 2, 3), scales(4), np.zeros(4, SIGNED), LARGE,
         number(3, SIGNED), np.int32([1000, -50_000, 20_000, 0]), known=(3, 4, 5), group=2),
    case("QLinearConv", u8(1, 2, 4, 5, 6), SMALL, number(17, BYTE), u8(3, 2, 2, 2, 2), SMALL, number(90, BYTE), LARGE,
         number(118, BYTE), known=(3, 4, 5)),
)  # fmt: skip

OTHERS = (
    case("DynamicQuantizeLinear", scales(3, 5) - F32(0.02), outputs=3, opset=11),
    case("DynamicQuantizeLinear", scales(3, 5), outputs=3, opset=11),
    case("DynamicQuantizeLinear", -scales(3, 5), outputs=3, opset=11),
)

CASES: tuple[Case, ...] = (*MATRIX_PRODUCTS, *CONVOLUTIONS, *OTHERS)
