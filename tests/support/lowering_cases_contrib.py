"""Uses of onnxruntime's own operators on floats: activations, normalisations, fused products, rotations."""

from __future__ import annotations

from functools import partial

import numpy as np
from lowering_case import F32, I64, Case, case, f32, ints

F16 = np.float16
I32 = np.int32
ours = partial(case, domain="com.microsoft")
standard = partial(case, opset=23, oracle="onnx")
X = f32(2, 5, 12)
TABLE = f32(20, 12)


def half(*shape: int) -> np.ndarray:
    return f32(*shape).astype(F16)


def angles(count: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines as rotary embeddings use them."""
    grid = np.arange(count)[:, None] / 100.0 ** (np.arange(pairs) / pairs)
    return np.cos(grid).astype(F32), np.sin(grid).astype(F32)


TOKENS = np.random.default_rng(5).integers(0, 20, (2, 5)).astype(I32)
SEGMENTS = np.random.default_rng(6).integers(0, 2, (2, 5)).astype(I32)
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], I32)
EMBEDDINGS = (TABLE, f32(9, 12), f32(2, 12), f32(12), f32(1, 12)[0])

ACTIVATIONS = (
    ours("Gelu", X),
    ours("BiasGelu", X, f32(12)),
    ours("FastGelu", X),
    ours("FastGelu", X, f32(12)),
    ours("FastGelu", half(2, 5, 12), half(12), tolerance=2e-3, kinds=(F16,)),
    ours("QuickGelu", X),
    ours("QuickGelu", X, alpha=1.0),
    ours("QuickGelu", X, alpha=0.5),
)

NORMALISATIONS = (
    case("SimplifiedLayerNormalization", X, f32(12), epsilon=1e-4),
    case("SimplifiedLayerNormalization", X, f32(5, 12), axis=1, outputs=2),
    case("SimplifiedLayerNormalization", half(2, 5, 12), half(12), tolerance=2e-3, kinds=(F16,)),
    case("LayerNormalization", X, f32(12), f32(1, 12)[0], opset=15),
    ours("SkipLayerNormalization", X, f32(3, 5, 12)[:2], f32(12)),
    ours("SkipLayerNormalization", X, f32(5, 12), f32(12), f32(1, 12)[0], f32(2, 12)[1], epsilon=1e-3),
    ours("SkipLayerNormalization", half(2, 5, 12), half(3, 5, 12)[:2], half(12), half(1, 12)[0], tolerance=3e-3,
         kinds=(F16,)),
    ours("SkipSimplifiedLayerNormalization", X, f32(3, 5, 12)[:2], f32(12)),
    ours("SkipSimplifiedLayerNormalization", X, f32(3, 5, 12)[:2], f32(12), f32(1, 12)[0], epsilon=1e-3),
    ours("SkipSimplifiedLayerNormalization", half(2, 5, 12), half(3, 5, 12)[:2], half(12), tolerance=3e-3,
         kinds=(F16,)),
    ours("EmbedLayerNormalization", TOKENS, SEGMENTS, *EMBEDDINGS, MASK, outputs=2, kinds=(F32, I32)),
    ours("EmbedLayerNormalization", TOKENS, None, TABLE, f32(9, 12), None, f32(12), f32(1, 12)[0], epsilon=1e-5,
         outputs=2, kinds=(F32, I32)),
    ours("EmbedLayerNormalization", TOKENS, SEGMENTS, *EMBEDDINGS, outputs=3, kinds=(F32, I32, F32),
         mask_index_type=1),
    ours("EmbedLayerNormalization", TOKENS, SEGMENTS, *EMBEDDINGS, MASK, TOKENS[:1] % 9, outputs=2, kinds=(F32, I32)),
)  # fmt: skip

PRODUCTS = (
    ours("FusedMatMul", f32(4, 6), f32(6, 3), alpha=0.25),
    ours("FusedMatMul", f32(2, 6, 4), f32(2, 3, 6), transA=1, transB=1, alpha=2.0),
    ours("FusedMatMul", f32(4, 2, 3, 6), f32(2, 3, 6, 5), transBatchA=1),
    ours("FusedMatMul", f32(6, 2, 3, 4), f32(5, 2, 3, 6), transBatchA=1, transA=1, transBatchB=1, transB=1),
    ours("FusedMatMul", f32(6), f32(6, 3), alpha=0.25, transA=1),
    ours("TransposeMatMul", f32(6, 4), f32(6, 3), transA=1),
    ours("FusedGemm", f32(4, 6), f32(6, 3), f32(3), activation="Relu", alpha=0.5, beta=2.0),
    ours("FusedGemm", f32(4, 6), f32(3, 6), f32(4, 3), activation="LeakyRelu", activation_alpha=0.3, transB=1),
    ours("FusedConv", f32(2, 3, 8, 7), f32(4, 3, 3, 3), f32(4), activation="Relu", pads=[1, 1, 1, 1]),
    ours("FusedConv", f32(2, 3, 8, 7), f32(4, 3, 3, 3), f32(4), f32(2, 4, 6, 5), activation="Relu"),
    ours("FusedConv", f32(2, 4, 8, 7), f32(4, 2, 3, 3), activation="Clip", activation_params=[-0.5, 1.5], group=2),
    ours("FusedConv", f32(2, 3, 8), f32(4, 3, 3), f32(4), activation="HardSigmoid", activation_params=[0.3, 0.4]),
    ours("FusedConv", f32(2, 3, 8, 7), f32(4, 3, 1, 1), activation="Tanh"),
)

POSITIONS = ints(*range(5), 3, 4, 5, 6, 7).reshape(2, 5)
ROTATIONS = (
    ours("RotaryEmbedding", f32(2, 5, 24), POSITIONS, *angles(16, 4)),
    ours("RotaryEmbedding", f32(2, 3, 5, 8), ints(4), *angles(16, 4), interleaved=1),
    ours("RotaryEmbedding", f32(2, 5, 24), ints(2), *angles(16, 2), rotary_embedding_dim=4, num_heads=3),
    standard("RotaryEmbedding", f32(2, 5, 24), *angles(16, 4), POSITIONS, num_heads=3),
    standard("RotaryEmbedding", f32(2, 3, 5, 8), *angles(16, 4), POSITIONS, interleaved=1),
    standard("RotaryEmbedding", f32(2, 3, 5, 8), *(angle.reshape(2, 5, 2) for angle in angles(10, 2)),
             rotary_embedding_dim=4),
)  # fmt: skip

STANDARD = (
    ours("QuantizeLinear", X, np.array(0.05, F32), np.array(30, np.uint8), kinds=(np.uint8,)),
    ours("QuantizeLinear", X, f32(5, low=0.02, high=0.05), np.int8([0, 1, 2, -3, 4]), kinds=(np.int8,), axis=1),
    ours("QuantizeLinear", X, np.array(0.0002, F32), np.array(30_000, np.uint16), kinds=(np.uint16,)),
    ours("DequantizeLinear", np.int8([[3, -128], [127, 9]]), np.array(0.05, F32), np.array(-3, np.int8)),
    ours("DequantizeLinear", np.int16([[3, -128], [127, 9]]), f32(2, low=0.1), np.int16([3, -4]), axis=0),
    ours("ExpandDims", X, np.array(-2, I32), known=(1,)),
    ours("GatherND", X, np.array([[[0, 4]], [[1, 2]]], I64)),
    ours("Pad", X, ints(0, 1, 0, 0, 2, 1), np.array([0.5], F32), known=(1, 2)),
    ours("Trilu", X, np.array(1, I64), upper=0),
    ours("GridSample", f32(1, 2, 4, 5), f32(1, 3, 3, 2, low=-1.0, high=1.0)),
)

CASES: tuple[Case, ...] = (*ACTIVATIONS, *NORMALISATIONS, *PRODUCTS, *ROTATIONS, *STANDARD)
