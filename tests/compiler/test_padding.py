"""Padding is called safe only where the results for less are the first part of the results for more."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from birc.compiler.importer.importer import import_parts
from birc.compiler.passes.lower.lower import device_problem
from birc.compiler.variants import PaddingProof
from birc.runtime.variant import SAFE

SIZE = 8

IS_SAFE = {
    "elementwise": "(float[n,4] x) => (float[n,4] y) { y = Relu(x) }",
    "softmax over others": "(float[n,4] x) => (float[n,4] y) { y = Softmax<axis = 1>(x) }",
    "mean over others": "(float[n,4] x) => (float[n,1] y) <int64[1] a = {1}> { y = ReduceMean(x, a) }",
    "sum so far over others": "(float[n,4] x) => (float[n,4] y) <int64 a = {1}> { y = CumSum(x, a) }",
    "layer norm": "(float[n,4] x) => (float[n,4] y) <float[4] g = {1, 2, 3, 4}> { y = LayerNormalization(x, g) }",
    "rows of a product": "(float[n,2] x) => (float[n,3] y) <float[2,3] w = {1, 2, 3, 4, 5, 6}> { y = MatMul(x, w) }",
    "both sides of a product": "(float[n,4] x) => (float[n,n] y) { t = Transpose(x) y = MatMul(x, t) }",
    "window of one row": """(float[1,3,n,5] x) => (float[1,2,n,5] y)
        <float[2,3,1,1] w = {1, 2, 3, 4, 5, 6}> { y = Conv(x, w) }""",
    "windows in samples": """(float[n,1,5,5] x) => (float[n,1,5,5] y)
        { y = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x) }""",
    "outermost of merged": "(float[n,2,3] x) => (float[m,3] y) <int64[2] s = {-1, 3}> { y = Reshape(x, s) }",
    "split again": """(float[n,2,3] x) => (float[n,6] y) <int64[2] s = {-1, 3}, int64[2] t = {-1, 6}>
        { u = Reshape(x, s) v = Relu(u) y = Reshape(v, t) }""",
    "first element": "(float[n,4] x) => (float[4] y) <int64 i = {0}> { y = Gather(x, i) }",
    "first slice": "(float[n,4] x) => (float[1,4] y) <int64[1] s = {0}, int64[1] e = {1}> { y = Slice(x, s, e) }",
    "joined along others": "(float[n,4] x) => (float[n,8] y) { y = Concat<axis = 1>(x, x) }",
    "numbered positions": """(float[n,4] x) => (float[n,4] y) <int64 z = {0}, int64 o = {1}, int64[1] a = {1}>
        { s = Shape(x) n = Gather(s, z) r = Range(z, n, o) f = Cast<to = 1>(r) u = Unsqueeze(f, a) y = Add(x, u) }""",
    "samples of attention": """(float[n,3,4] x) => (float[n,3,4] y)
        { t = Transpose<perm = [0, 2, 1]>(x) q = MatMul(x, t) p = Softmax(q) y = MatMul(p, x) }""",
    "grown to its size": """(float[n,4] x) => (float[n,4] y) <float[1,4] c = {1, 2, 3, 4}>
        { s = Shape(x) e = Expand(c, s) y = Mul(x, e) }""",
}

IS_NOT = {
    "softmax": "(float[n,4] x) => (float[n,4] y) { y = Softmax<axis = 0>(x) }",
    "log softmax": "(float[n,4] x) => (float[n,4] y) { y = LogSoftmax<axis = 0>(x) }",
    "mean": "(float[n,4] x) => (float[1,4] y) <int64[1] a = {0}> { y = ReduceMean(x, a) }",
    "sum": "(float[n,4] x) => (float[1,4] y) <int64[1] a = {0}> { y = ReduceSum(x, a) }",
    "largest": "(float[n,4] x) => (float[1,4] y) <int64[1] a = {0}> { y = ReduceMax(x, a) }",
    "where the largest is": "(float[n,4] x) => (int64[1,4] y) { y = ArgMax<axis = 0>(x) }",
    "sum so far": "(float[n,4] x) => (float[n,4] y) <int64 a = {0}> { y = CumSum<reverse = 1>(x, a) }",
    "largest first": """(float[n,4] x) => (float[1,4] y, int64[1,4] i) <int64[1] k = {1}>
        { y, i = TopK<axis = 0>(x, k) }""",
    "convolution": """(float[1,1,n,5] x) => (float[1,1,n,5] y) <float[1,1,3,1] w = {1, 2, 3}>
        { y = Conv<pads = [1, 0, 1, 0]>(x, w) }""",
    "pool": "(float[1,1,n,5] x) => (float[1,1,m,5] y) { y = MaxPool<kernel_shape = [2, 1]>(x) }",
    "global pool": "(float[1,2,n,5] x) => (float[1,2,1,1] y) { y = GlobalAveragePool(x) }",
    "whole normalisation": """(float[1,2,n] x) => (float[1,2,n] y) <float[2] g = {1, 2}>
        { y = InstanceNormalization(x, g, g) }""",
    "depth of a product": "(float[n,4] x) => (float[4,4] y) { t = Transpose(x) y = MatMul(t, x) }",
    "indexed": "(float[n,4] x, int64[3] i) => (float[3,4] y) { y = Gather(x, i) }",
    "counted from the end": "(float[n,4] x) => (float[4] y) <int64 i = {-1}> { y = Gather(x, i) }",
    "last slice": "(float[n,4] x) => (float[1,4] y) <int64[1] s = {-1}, int64[1] e = {99}> { y = Slice(x, s, e) }",
    "turned round": """(float[n,4] x) => (float[n,4] y) <int64[1] s = {-1}, int64[1] e = {-99}, int64[1] a = {0}>
        { y = Slice(x, s, e, a, s) }""",
    "times its size": """(float[n,4] x) => (float[n,4] y)
        { s = Shape(x) f = Cast<to = 1>(s) z = ReduceMax<keepdims = 0>(f) y = Mul(x, z) }""",
    "inner of merged": "(float[2,n,3] x) => (float[m,3] y) <int64[2] s = {-1, 3}> { y = Reshape(x, s) }",
    "regrouped": "(float[n,4,6] x) => (float[6,m] y) <int64[2] s = {6, -1}> { y = Reshape(x, s) }",
    "one after the other": "(float[n,4] x) => (float[m,4] y) { y = Concat<axis = 0>(x, x) }",
    "padded itself": "(float[n,4] x) => (float[m,4] y) <int64[4] p = {1, 0, 1, 0}> { y = Pad(x, p) }",
    "in halves": "(float[n,4] x) => (float[m,4] y) { u, v = Split<num_outputs = 2>(x) y = Add(u, v) }",
    "rank by size": "(float[n] x) => (float[n] y) { y = Squeeze(x) }",
    "recurrence": """(float[n,1,1] x) => (float[n,1,1,1] y, float[1,1,1] h) <float[1,1,1] w = {0.5}>
        { y, h = RNN<hidden_size = 1>(x, w, w) }""",
    "on the host": "(float[n,4] x) => (int64[2,m] y) { y = NonZero(x) }",
    "two sizes at once": "(float[n,4] x, float[m,4] z) => (float[n,4] y) { y = Add(x, z) }",
}


def model_of(body: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> m {body}')


def proof(model: onnx.ModelProto, sizes: dict[str, int]) -> PaddingProof:
    def import_for(dims):
        return import_parts(model, dims, None, device_problem)

    return PaddingProof(import_for(sizes), import_for)


def judged(body: str) -> PaddingProof:
    symbols = {"n": SIZE, "m": SIZE} if "float[m" in body.partition("=>")[0] else {"n": SIZE}
    return proof(model_of(body), symbols)


@pytest.mark.parametrize("name", IS_SAFE)
def test_safe(name: str) -> None:
    assert judged(IS_SAFE[name]).padding() == {"n": SAFE}


@pytest.mark.parametrize("name", IS_NOT)
def test_not_safe(name: str) -> None:
    reason = judged(IS_NOT[name]).padding()["n"]
    assert reason != SAFE
    assert reason.isprintable()


def test_the_node_is_named() -> None:
    named = IS_NOT["softmax"].replace("{ y", "{ [attend] y")
    assert judged(named).padding() == {"n": "node 'attend' (softmax) mixes elements along it"}
    assert judged(IS_NOT["on the host"]).padding() == {"n": "node 'NonZero_0' (NonZero) runs on the host"}


def test_each_dimension_is_judged_alone() -> None:
    model = model_of("""(float[b,s,4] x, float[b,s] m) => (float[b,s,4] y) <int64[1] a = {1}>
        { t = Transpose<perm = [0, 2, 1]>(x) q = MatMul(x, t) u = Unsqueeze(m, a) z = Add(q, u) p = Softmax(z)
          y = MatMul(p, x) }""")
    found = proof(model, {"b": 4, "s": 8})
    assert found.padding()["b"] == SAFE
    assert "(softmax)" in found.padding()["s"]
    assert found.axes() == {"x": ("b", "s", None), "m": ("b", "s"), "y": ("b", None, None)}


def test_dimensions_of_one_size_are_told_apart() -> None:
    model = model_of(
        "(float[n,4] x, float[m,4] z) => (float[n,4] y, float[m,4] w) { y = Relu(x) w = Softmax<axis = 0>(z) }"
    )
    assert proof(model, {"n": 4, "m": 4}).padding()["n"] == SAFE
    assert proof(model, {"n": 4, "m": 4}).padding()["m"] != SAFE


class RandomModel:
    """A chain of operators over values of shape [n, 2, 6], or [2, 6] where the dimension went, in random order."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._shape: list[str | int] = ["n", 2, 6]
        lines = [self._next(place) for place in range(self._random.integers(1, 6))]
        lists = [f"int64[{len(value)}] {name} = {{{', '.join(map(str, value))}}}" for name, value in CONSTANTS]
        declared = ", ".join((*lists, *(f"int64 c{dim} = {{{dim}}}" for dim in range(3))))
        results = "float[" + ",".join(f"d{place}" for place in range(len(self._shape))) + "] y"
        self.model = model_of(
            f"(float[n,2,6] v0) => ({results}) <{declared}> {{ {' '.join(lines)} y = Identity(v{len(lines)}) }}"
        )

    def _next(self, place: int) -> str:
        here, there = f"v{place}", f"v{place + 1}"
        axis = int(self._random.integers(len(self._shape)))
        rank = len(self._shape)
        kind = self._random.choice(
            ["tanh", "softmax", "mean", "transpose", "reshape", "concat", "shift", "square", "first"]
        )
        if kind == "tanh":
            return f"{there} = Tanh({here})"
        if kind == "softmax":
            return f"{there} = Softmax<axis = {axis}>({here})"
        if kind == "mean":
            return f"w{place} = ReduceMean({here}, a{axis}) {there} = Sub({here}, w{place})"
        if kind == "transpose":
            perm = [int(dim) for dim in self._random.permutation(rank)]
            self._shape = [self._shape[dim] for dim in perm]
            return f"{there} = Transpose<perm = {perm}>({here})"
        if kind == "reshape":
            names = ["s1", "s2", "s3"]
            chosen = int(self._random.integers(3))
            self._shape = ["?"] * (chosen + 1)
            return f"{there} = Reshape({here}, {names[chosen]})"
        if kind == "concat":
            return f"w{place} = Neg({here}) {there} = Concat<axis = {axis}>({here}, w{place})"
        if kind == "shift":
            return f"w{place} = CumSum({here}, c{axis}) {there} = Sin(w{place})"
        if kind == "square" and rank > 1:
            perm = [*range(rank - 2), rank - 1, rank - 2]
            return f"w{place} = Transpose<perm = {perm}>({here}) {there} = MatMul({here}, w{place})"
        return f"w{place} = Slice({here}, zero, one, a{axis}) {there} = Add({here}, w{place})"


CONSTANTS = (
    *((f"a{dim}", (dim,)) for dim in range(3)),
    ("s1", (-1,)),
    ("s2", (-1, 6)),
    ("s3", (-1, 2, 3)),
    ("zero", (0,)),
    ("one", (1,)),
)


def test_what_is_called_safe_changes_nothing() -> None:
    """Random models against onnx's reference: whatever follows in the inputs, the first part of the results stays."""
    random = np.random.default_rng(7)
    count = {True: 0, False: 0}
    for seed in range(150):
        model = RandomModel(seed).model
        found = proof(model, {"n": 6})
        is_safe = found.padding()["n"] == SAFE
        count[is_safe] += 1
        if not is_safe:
            continue
        evaluator = ReferenceEvaluator(model)
        large = random.standard_normal((6, 2, 6)).astype(np.float32)
        (whole,) = evaluator.run(None, {"v0": large})
        axes = found.axes().get("y", ())
        for size in (1, 2, 4, 5):
            (part,) = evaluator.run(None, {"v0": large[:size]})
            kept = tuple(slice(n // 6 * size if axis else n) for axis, n in zip(axes, whole.shape, strict=True))
            assert whole[kept].shape == part.shape, (seed, size)
            np.testing.assert_allclose(whole[kept], part, rtol=1e-4, atol=1e-5, err_msg=f"seed {seed}, size {size}")
    assert min(count.values()) > 20, count
