"""Uses of onnxruntime's attention operators: masks of every form, pasts, grouped heads, windows."""

from __future__ import annotations

from functools import partial

import numpy as np
from lowering_case import F32, Case, case, f32
from lowering_cases_contrib import angles
from lowering_cases_quantized_products import i8, number, scales, u8

I32 = np.int32
ours = partial(case, domain="com.microsoft", tolerance=1e-4)

X, W, B = f32(2, 5, 12), f32(12, 24, low=-0.5, high=0.5), f32(24)
LENGTHS = np.array([3, 5], I32)
FLAGS = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], I32)
PAST = f32(2, 2, 2, 3, 4)
FLAGS_WITH_PAST = np.array([[1, 0, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]], I32)
PAIRS = np.random.default_rng(4).integers(0, 2, (2, 5, 5)).astype(I32)

ATTENTION = (
    ours("Attention", X, W, B, num_heads=2),
    ours("Attention", X, W, None, num_heads=4, scale=0.3),
    ours("Attention", X, W, B, LENGTHS, num_heads=2),
    ours("Attention", X, W, B, np.array([3, 5, 1, 0], I32), num_heads=2, mask_filter_value=-500.0),
    ours("Attention", X, W, B, FLAGS, num_heads=2, unidirectional=1),
    ours("Attention", X, W, B, PAIRS, num_heads=2),
    ours("Attention", X, W, B, None, None, f32(1, 2, 5, 5), num_heads=2, unidirectional=1),
    ours("Attention", X, W, B, LENGTHS, None, f32(2, 1, 5, 5), num_heads=2),
    ours("Attention", X, W, B, FLAGS_WITH_PAST, PAST, num_heads=2, unidirectional=1, outputs=2),
    ours("Attention", X, f32(12, 28), f32(28), num_heads=2, qkv_hidden_sizes=[8, 8, 12]),
    ours("QAttention", u8(2, 5, 12), i8(12, 24), B, number(0.01), scales(24) * F32(0.1), LENGTHS,
         number(128, np.uint8), np.zeros(24, np.int8), num_heads=2),
    ours("QAttention", u8(2, 5, 12), u8(12, 24), B, number(0.01), number(0.003), FLAGS_WITH_PAST,
         number(120, np.uint8), number(130, np.uint8), PAST, num_heads=2, unidirectional=1, outputs=2, known=(1, 7)),
)  # fmt: skip

Q, K, V = f32(2, 5, 8), f32(2, 6, 8), f32(3, 6, 12)[:2]
MULTI_HEAD = (
    ours("MultiHeadAttention", Q, K, V, num_heads=2),
    ours("MultiHeadAttention", Q, K, V, f32(28), num_heads=2, scale=0.4),
    ours("MultiHeadAttention", Q, K, V, None, np.array([4, 6], I32), num_heads=2),
    ours("MultiHeadAttention", Q, K, V, None, np.array([[1] * 5 + [0], [1] * 6], I32), f32(1, 2, 5, 6), num_heads=2),
    ours("MultiHeadAttention", Q, f32(3, 5, 8)[:2], f32(4, 5, 8)[:2], f32(24), num_heads=2, unidirectional=1),
    ours("MultiHeadAttention", Q, f32(2, 2, 6, 4), f32(3, 2, 6, 4)[:2], num_heads=2),
    ours("MultiHeadAttention", Q, f32(3, 5, 8)[:2], f32(4, 5, 8)[:2], None, None, None, PAST[0], PAST[1], num_heads=2,
         outputs=3, unidirectional=1),
    ours("MultiHeadAttention", Q, f32(3, 5, 8)[:2], f32(4, 5, 8)[:2], f32(24), FLAGS_WITH_PAST, None, PAST[0], PAST[1],
         num_heads=2, outputs=3),
)  # fmt: skip

GQ, GK, GV = f32(2, 5, 64), f32(2, 5, 32), f32(3, 5, 32)[:2]
G_PAST = (f32(2, 2, 6, 16), f32(3, 2, 6, 16)[:2])
ONE = (f32(2, 1, 64), f32(2, 1, 32), f32(3, 1, 32)[:2])
group_query = partial(ours, "GroupQueryAttention", num_heads=4, kv_num_heads=2, outputs=3)
WHOLE = np.array([4, 4], I32)
TOTAL = np.array(5, I32)

GROUP_QUERY = (
    group_query(GQ, GK, GV, None, None, WHOLE, TOTAL, known=(5, 6)),
    group_query(GQ, GK, GV, None, None, WHOLE, TOTAL, known=(6,), scale=0.2, softcap=1.5, smooth_softmax=1),
    group_query(f32(2, 5, 128), None, None, None, None, WHOLE, TOTAL, *angles(12, 8), do_rotary=1, known=(6,)),
    group_query(GQ, GK, GV, None, None, WHOLE, TOTAL, *angles(12, 8), do_rotary=1, rotary_interleaved=1,
                shapes=((2, 5, 64), (2, 2, 5, 16), (2, 2, 5, 16))),
    group_query(*ONE, *G_PAST, np.array([6, 6], I32), np.array(7, I32), *angles(12, 8), do_rotary=1, known=(5, 6)),
    group_query(*ONE, *G_PAST, np.array([3, 6], I32), np.array(7, I32), *angles(12, 8), do_rotary=1, known=(6,)),
    group_query(*ONE, *G_PAST, np.array([2, 5], I32), np.array(6, I32), known=(6,)),
    group_query(*ONE, *G_PAST, np.array([2, 6], I32), np.array(7, I32), local_window_size=2,
                shapes=((2, 1, 64), (2, 2, 7, 16), (2, 2, 7, 16))),
    group_query(*(x.astype(np.float16) for x in (*ONE, *G_PAST)), np.array([3, 6], I32), np.array(7, I32), known=(6,),
                kinds=(np.float16,) * 3, tolerance=5e-3),
    group_query(GQ[:1], GK[:1], GV[:1], G_PAST[0][:1], G_PAST[1][:1], np.array([10], I32), np.array(11, I32),
                known=(6,), local_window_size=3),
    group_query(*ONE, *G_PAST, np.array([6, 4], I32), np.array(7, I32), None, None, None, f32(1, 4, 1, 7), f32(4),
                known=(6,)),
)  # fmt: skip

CASES: tuple[Case, ...] = (*ATTENTION, *MULTI_HEAD, *GROUP_QUERY)
