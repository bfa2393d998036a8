"""Lowerings that find, order, count and choose elements by position."""

from __future__ import annotations

import numpy as np
from lowering_case import F32, I64, Case, case, f32, flags, ints

X = f32(2, 3, 4)
RANDOM = np.random.default_rng(5)
TIED = RANDOM.integers(-3, 4, (3, 9, 2)).astype(np.int32)
HOLED = np.array([[1, np.nan, 3, np.nan], [2, 2, np.inf, np.inf]], F32)
ROW = f32(2, 7)


def number(value: int, kind: type[np.generic] = I64) -> np.ndarray:
    return np.array(value, kind)


EXTREMES = (
    *(case(op, X, opset=opset, axis=axis) for op in ("ArgMax", "ArgMin") for opset in (11, 13) for axis in (0, -2)),
    *(case(op, TIED, axis=1, keepdims=0, select_last_index=last) for op in ("ArgMax", "ArgMin") for last in (0, 1)),
    case("ArgMax", TIED.astype(np.int8), axis=1),
    case("ArgMax", TIED.astype(np.uint8), axis=1, oracle="onnx"),
    case("ArgMin", f32(3, 5).astype(np.float16), axis=1, oracle="onnx"),
    case("ArgMax", HOLED, axis=1, oracle="onnx"),
    case("ArgMin", HOLED, axis=1, oracle="onnx", select_last_index=1),
    case("Hardmax", X, opset=11),
    case("Hardmax", X, opset=11, axis=0),
    case("Hardmax", TIED[:, :, 0].astype(F32), opset=13),
    case("Hardmax", TIED.astype(F32), axis=1),
    case("Hardmax", X.astype(np.float16), axis=0, oracle="onnx"),
)

ORDERS = (
    case("TopK", X, opset=9, outputs=2, k=2, axis=1),
    case("TopK", X, ints(3), known=(1,), opset=10, outputs=2),
    case("TopK", TIED, ints(9), known=(1,), outputs=2, axis=1),
    case("TopK", TIED, ints(5), known=(1,), outputs=2, axis=1, largest=0),
    case("TopK", TIED.astype(np.int64), ints(2), known=(1,), outputs=2, axis=0, sorted=1),
    case("TopK", TIED.astype(np.uint8), ints(4), known=(1,), outputs=2, axis=1, largest=0, oracle="onnx"),
    case("TopK", X.astype(np.float16), ints(2), known=(1,), outputs=2, axis=-2),
    case("TopK", ROW, ints(3), known=(1,), opset=24, outputs=2, oracle="onnx"),
    case("TopK", f32(1, 5000), ints(6), known=(1,), outputs=2),
    case("TopK", np.sign(f32(2, 5000)), ints(4), known=(1,), outputs=2, largest=0),
)

SCANS = (
    *(
        case("CumSum", X, number(-1), known=(1,), reverse=reverse, exclusive=exclusive)
        for reverse in (0, 1)
        for exclusive in (0, 1)
    ),
    case("CumSum", TIED, number(1, np.int32)),
    case("CumSum", f32(70), number(0), known=(1,)),
    case("CumSum", f32(40).astype(np.float16), number(0), opset=14, oracle="onnx", tolerance=5e-3),
    case("CumProd", f32(2, 5, low=0.5), number(1), opset=26, oracle="onnx"),
    case("CumProd", TIED, number(1), known=(1,), opset=26, oracle="onnx", reverse=1, exclusive=1),
)

CHOICES = (
    case("OneHot", ints(0, -1, 2, 9), number(4), np.array([-1, 1], F32), known=(1,), axis=0),
    case("OneHot", TIED, number(3), np.array([5, 2], np.int32), known=(1,), axis=1, oracle="onnx"),
    case("OneHot", np.array([1.0, -2.0, 7.0], F32), np.array(5.0, F32), f32(2), known=(1,)),
    case("OneHot", np.array([1, 4], np.uint8), number(5), np.array([7, 9], np.uint8), known=(1,), oracle="onnx"),
    case("Trilu", X, number(1), known=(1,)),
    case("Trilu", X, number(-1), upper=0),
    case("Trilu", X, number(2)),
    case("Trilu", X, number(-9)),
    case("Trilu", X, upper=0),
    case("Trilu", TIED[:, :, 0].astype(np.int64)),
    case("Trilu", flags(3, 4), number(1)),
)

GRID = RANDOM.permuted(np.tile(np.arange(6), (3, 2, 1)), axis=2).transpose(0, 2, 1)
"""Each column a permutation: no index twice."""
FEW_UPDATES = GRID[:2, :3] - 6
MANY = np.array([RANDOM.permutation(40)[:20] - 20 for _ in range(3)])
TWICE = RANDOM.integers(-9, 9, (3, 24))
PAIRS = np.array([[[0, 2], [1, -3]], [[1, 0], [0, 1]]], I64)
ROWS_TWICE = RANDOM.integers(-5, 5, (24, 1))
LENGTHS = ints(3, 1, 4, 2)

READS = (
    case("Gather", TIED.astype(np.int8), np.array([[1, -9], [3, 3]], np.int32), axis=1),
    case("Gather", flags(3, 4), number(-1), axis=0),
    case("Gather", X.astype(np.float16), ints(1, 1, 0), axis=2),
    case("GatherElements", f32(3, 4), np.array([[0, -1], [2, 1]], I64), axis=0),
    case("GatherElements", TIED.astype(np.uint8), RANDOM.integers(-9, 9, (2, 5, 2)), axis=1),
    case("GatherElements", flags(3, 4), np.array([[3], [-4]], np.int32), axis=-1),
    case("GatherND", flags(2, 3, 4), PAIRS),
    case("GatherND", X.astype(np.float16), np.array([[[2]], [[-1]]], I64), batch_dims=1),
    case("ReverseSequence", f32(4, 4, 3), LENGTHS, time_axis=0, batch_axis=1),
    case("ReverseSequence", f32(4, 5), LENGTHS, time_axis=1, batch_axis=0),
    case("ReverseSequence", f32(4, 4).astype(np.float16), LENGTHS, known=(1,), oracle="onnx"),
)

REDUCTIONS = ("add", "mul", "max", "min")
WRITES = (
    case("Scatter", f32(3, 6, 2), GRID, f32(3, 6, 2), opset=10, axis=1),
    case("ScatterElements", f32(3, 6, 2), FEW_UPDATES, f32(2, 3, 2), axis=1),
    case("ScatterElements", f32(3, 6, 2), FEW_UPDATES, f32(2, 3, 2), known=(1,), axis=1),
    case("ScatterElements", f32(3, 40), MANY, f32(3, 20), axis=1),
    case("ScatterElements", f32(3, 40), MANY, f32(3, 20), known=(1,), axis=1),
    case("ScatterElements", f32(3, 9), TWICE, f32(3, 24), axis=1, oracle="onnx"),
    case("ScatterElements", f32(3, 9), TWICE, f32(3, 24), known=(1,), axis=1, oracle="onnx"),
    case("ScatterElements", flags(3, 4), np.array([[3, 0]], np.int32), flags(1, 2), axis=1),
    *(case("ScatterElements", f32(3, 9), TWICE[:, :7], f32(3, 7), axis=1, reduction=word) for word in REDUCTIONS),
    *(case("ScatterElements", f32(4, 9), TWICE, f32(3, 24), axis=1, reduction=word) for word in REDUCTIONS),
    case("ScatterElements", TIED[0], TWICE[:, :2] % 9, TIED[0, :3], axis=0, reduction="max"),
    case("ScatterND", X, PAIRS, f32(2, 2, 4)),
    case("ScatterND", X, PAIRS, f32(2, 2, 4), known=(1,)),
    case("ScatterND", X, np.zeros((2, 0), I64), f32(2, 2, 3, 4), opset=13, oracle="onnx"),
    case("ScatterND", f32(30, 3), np.array([[4], [5], [6]], I64), f32(3, 3), known=(1,), opset=11),
    case("ScatterND", f32(5, 2), ROWS_TWICE, f32(24, 2), oracle="onnx"),
    *(case("ScatterND", f32(5, 2), ROWS_TWICE, f32(24, 2), reduction=word) for word in REDUCTIONS),
    *(case("ScatterND", X, PAIRS[:, :1], f32(2, 1, 4), reduction=word) for word in REDUCTIONS),
    case(
        "ScatterND",
        np.float16(f32(5, 2)),
        ROWS_TWICE,
        np.float16(f32(24, 2)),
        reduction="add",
        oracle="onnx",
        tolerance=2e-2,
    ),
)

CACHE = f32(3, 2, 10, 4)
CACHES = tuple(
    case("TensorScatter", CACHE, f32(3, 2, count, 4), *begin, known=known, mode=mode, opset=24, oracle="onnx")
    for mode, count, begin, known in (
        ("linear", 2, (), ()),
        ("linear", 1, (ints(9, 0, 4),), ()),
        ("linear", 9, (ints(1, 0, 1),), ()),
        ("linear", 3, (ints(5, 5, 5),), (2,)),
        ("circular", 3, (ints(9, 0, 18),), ()),
        ("circular", 9, (ints(9, 0, 18),), ()),
        ("circular", 9, (ints(3, 13, 3),), (2,)),
    )
)

SINGULAR = np.array([[[0, 2, 1], [0, 1, 3], [0, 5, 7]], [[0, 2, 1], [1, 0, 3], [2, 5, 0]]], F32)

ALGEBRA = (
    case("Einsum", f32(3, 4), equation="ij->ji"),
    case("Einsum", f32(3, 4), equation="ij"),
    case("Einsum", f32(3, 4), equation="ba"),
    case("Einsum", f32(3, 4), equation=" i j -> i "),
    case("Einsum", f32(3, 3), equation="ii"),
    case("Einsum", f32(2, 3, 3), equation="...ii->...i"),
    case("Einsum", f32(3, 2, 3, 3), equation="iaii->ai", oracle="onnx"),
    case("Einsum", f32(5), f32(5), equation="i,i"),
    case("Einsum", f32(5), f32(4), equation="i,j"),
    case("Einsum", f32(5), f32(5), equation="i,i->i"),
    case("Einsum", f32(2, 3, 4), f32(2, 4, 5), equation="bij,bjk->bik"),
    case("Einsum", f32(2, 3, 4), f32(4, 5), equation="...ij,jk"),
    case("Einsum", f32(7, 2, 3, 4), f32(1, 2, 5, 4), equation="...qd,...kd->...qk"),
    case("Einsum", f32(2, 3, 4, 5), f32(2, 6, 4, 5), equation="bqhd,bkhd->bhqk"),
    case("Einsum", f32(2, 1, 4), f32(2, 3, 1), equation="abc,abd->cabd", oracle="onnx"),
    case("Einsum", f32(3, 4), f32(4, 5), f32(5, 2), equation="ij,jk,kl->il"),
    case("Einsum", f32(3, 4), f32(3, 4), f32(3), equation="ij,ij,i->j"),
    case("Einsum", f32(3, 4), f32(5, 6), equation="ij,kl->jl", oracle="onnx"),
    case("Einsum", TIED[0], TIED[1], equation="ij,ik->jk"),
    case("Einsum", f32(), f32(3), equation=",a->a"),
    case("Einsum", f32(2, 3, 4), f32(3, 4, 2), equation="Abc,bcA->A"),
    case("Det", f32(4, 4)),
    case("Det", f32(2, 3, 5, 5)),
    case("Det", f32(1, 1)),
    case("Det", SINGULAR, tolerance=1e-5),
    case("Det", np.eye(6, dtype=F32)[[3, 0, 1, 5, 2, 4]]),
)

CHANNELS = (f32(4), f32(4), f32(4), f32(4, low=0.5))
IMAGE = f32(3, 4, 2, 5)
GRAMS = {
    "min_gram_length": 1,
    "max_gram_length": 3,
    "max_skip_count": 2,
    "ngram_counts": [0, 3, 9],
    "ngram_indexes": [6, 1, 4, 0, 2, 5, 3],
    "pool_int64s": [2, 3, 7, 5, 6, 2, 3, 3, 2, 5, 6, 7],
    "weights": [0.5, 1.0, 2.0, 3.0, 0.25, 1.5, 4.0],
}
TOKENS = RANDOM.integers(2, 8, (3, 24))

STATISTICS = (
    case("BatchNormalization", IMAGE, *CHANNELS, opset=9),
    case("BatchNormalization", IMAGE, *CHANNELS, opset=15, outputs=3, training_mode=1, momentum=0.75),
    case("BatchNormalization", f32(6, 4), *CHANNELS, opset=14, outputs=3, training_mode=1, epsilon=1e-2),
    case("BatchNormalization", np.float16(IMAGE), *CHANNELS, opset=15, oracle="onnx", tolerance=4e-3),
    *(case("TfIdfVectorizer", TOKENS, mode=mode, **GRAMS) for mode in ("TF", "IDF", "TFIDF")),
    case("TfIdfVectorizer", TOKENS[0].astype(np.int32), **{**GRAMS, "min_gram_length": 2}, mode="TF"),
    case("TfIdfVectorizer", TOKENS[:, :4], **{**GRAMS, "max_gram_length": 2}, mode="TF"),
)

SPARSE = np.where(np.abs(X) < 1.2, 0, X).astype(F32)
PICKED = np.array([False, True, True])
REPEATED = RANDOM.integers(0, 3, (7, 2)).astype(F32)


def unique(x: np.ndarray, *, axis: int | None = None, is_sorted: int = 1) -> Case:
    found = np.unique(x, axis=axis)
    along = () if axis is None else (axis,)
    count = found.shape[axis or 0]
    numbers = np.asarray(x).size if axis is None else x.shape[axis]
    attributes = {"axis": axis} if along else {}
    shapes = (found.shape, (count,), (numbers,), (count,))
    return case("Unique", x, outputs=4, shapes=shapes, sorted=is_sorted, **attributes)


CHOSEN = (
    case("NonZero", SPARSE, known=(0,)),
    case("NonZero", SPARSE, shapes=((3, int(np.count_nonzero(SPARSE))),)),
    case("NonZero", TIED, shapes=((3, int(np.count_nonzero(TIED))),)),
    case("NonZero", PICKED, shapes=((1, 2),)),
    case("Compress", X, PICKED, known=(1,), axis=-2),
    case("Compress", X, PICKED, axis=1, shapes=((2, 2, 4),)),
    case("Compress", X, PICKED[1:], axis=0, shapes=((2, 3, 4),)),
    case("Compress", TIED, np.resize(PICKED, 20), shapes=((13,),)),
    unique(TIED[0].astype(I64)),
    unique(TIED[0].astype(I64), is_sorted=0),
    unique(REPEATED),
    unique(REPEATED, axis=0),
    unique(REPEATED, axis=0, is_sorted=0),
    unique(REPEATED.T.reshape(2, 7, 1), axis=1),
)

CASES = (*CHOSEN, *STATISTICS, *ALGEBRA, *READS, *WRITES, *CACHES, *EXTREMES, *ORDERS, *SCANS, *CHOICES)
