"""Products, convolutions and views of integers and of quantised values, as rules find them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graph_maker import GraphMaker

from birc.runtime.dtypes import dtype

Body = Callable[[GraphMaker], str]


def integer_product(a: tuple[int, ...], b: tuple[int, ...], element: str) -> Body:
    return lambda make: make("matmul", make.input(*a, element=element), make.input(*b, element=element))


def integer_conv(x: tuple[int, ...], w: tuple[int, ...], element: str, bias: str) -> Body:
    def body(make: GraphMaker) -> str:
        inputs = (make.input(*x, element=element), make.input(*w, element=element), make.input(w[0], element=bias))
        return make("conv2d", *inputs, stride=(1, 1), pads=(1,) * 4, dilation=(1, 1), group=x[1] // w[1])

    return body


def scale(make: GraphMaker) -> tuple[str, str]:
    return make.constant(0.5), make.constant(-128, "i8")


def dequantized(make: GraphMaker, *shape: int) -> str:
    return make("dequantize", make.input(*shape, element="i8"), *scale(make))


def quantized(make: GraphMaker, x: str) -> str:
    return make("quantize", x, *scale(make), to=dtype("i8"))


def kept_integers(make: GraphMaker) -> str:
    return quantized(make, make("dequantize", make("neg", make.input(3, 4, element="i8")), *scale(make)))


def unsigned_quantisation(make: GraphMaker) -> str:
    numbers = (make.constant(0.5), make.constant(3, "u8"))
    return make("dequantize", make("quantize", make.input(3, 4), *numbers, to=dtype("u8")), *numbers)


def quantized_product(make: GraphMaker) -> str:
    weights = make("dequantize", make.constant([[1, 2], [3, -4], [5, 6]], "i8"), make.constant([0.25, 2.0]))
    return make("matmul", dequantized(make, 4, 3), weights)


def quantized_conv(make: GraphMaker) -> str:
    weights = make("dequantize", make.constant(np.ones((2, 3, 1, 1)), "i8"), make.constant(0.5))
    image = dequantized(make, 1, 3, 4, 4)
    return make("conv2d", image, weights, make.random(2), stride=(1, 1), pads=(1,) * 4, dilation=(1, 1), group=1)


def pool_of_integers(make: GraphMaker) -> str:
    window = {"kernel": (2, 2), "stride": (1, 1), "pads": (0, 1, 0, 1), "dilation": (1, 1)}
    return quantized(make, make("max_pool2d", dequantized(make, 1, 2, 4, 4), **window))


def scaled_sum(make: GraphMaker) -> str:
    numbers = make("mul", make.input(3, 4), make.constant(0.25))
    return quantized(make, make("relu", make("add", numbers, dequantized(make, 3, 4))))


VIEWS_OF_INTEGERS = {
    "transpose": {"perm": (1, 0)},
    "reshape": {"shape": (4, 3)},
    "slice": {"starts": (0, 1), "ends": (2, 3), "steps": (1, 1)},
    "expand": {"shape": (2, 3, 4)},
}


def view_of_integers(op: str) -> Body:
    return lambda make: make(op, dequantized(make, 3, 4), **VIEWS_OF_INTEGERS[op])
