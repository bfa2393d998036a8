"""Operators of onnxruntime's domain that are those of the standard, at one version of it, under another roof.

Of the domain `com.microsoft` as a whole there are lowerings of what its optimiser writes for the CPU and of what
exporters of language models use. Left to be refused, with the reasons:

| operators | why |
|---|---|
| PackedAttention, PagedAttention, SparseAttention and the like | their layouts of tokens depend on data |
| DecoderMaskedMultiHeadAttention, BeamSearch, GreedySearch, Sampling | buffers shared between input and output, loops |
| MoE, QMoE, LinearAttention, GatedDeltaNet | no exported model that needs them is at hand |
| MatMulBnb4, MatMulFpQ4, QOrdered*, QEmbedLayerNormalization | other packings of quantised weights |
| BiasAdd, BiasSplitGelu, BiasSoftmax, BiasDropout, GroupNorm, NhwcConv | the optimiser writes them for GPUs alone |
| DynamicQuantizeLSTM, AttnLSTM | recurrent networks with packed weights |
| Tokenizer, MurmurHash3, WordConvEmbedding | strings |
| Inverse, Unique, Rfft, Irfft, SampleOp, CropAndResize | rare, or results whose shape depends on data |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from birc.compiler.importer import elementwise, grid_sample, index, padding, quantization, selection
from birc.compiler.importer.axes import positive_axis
from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape

DOMAIN: Final = "com.microsoft"


def as_standard(family: Sequence[OpType], name: str, version: int) -> Lower:
    """The lowering of operator `name` of a family, as operator set `version` of the standard has it."""
    entry = next(entry for entry in family if entry.name == name and not entry.domain and entry.covers(version))

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        return entry.lower(replace(node, op_type=name, domain="", version=version), build)

    return lower


def _expand_dims(node: OnnxNode, build: GraphBuilder) -> Results:
    """A new dimension of size 1."""
    x, shape = node.input(0), build.shape(node.input(0))
    axes = build.required_constant(node.input(1), "axis").reshape(-1)
    axis = positive_axis(node, int(axes[0]), len(shape) + 1)
    return reshape(build, x, (*shape[:axis], 1, *shape[axis:]))


def _quantize(name: str) -> Lower:
    """Without an axis there is one scale; the standard's default axis is 1."""
    lower_standard = as_standard(quantization.OP_TYPES, name, 21)

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        scales = build.shape(node.input(1))
        if not node.has("axis") and any(size != 1 for size in scales):
            raise CannotLower(f"scales {list(scales)} without an axis")
        return lower_standard(node, build)

    return lower


OP_TYPES: Final[tuple[OpType, ...]] = tuple(
    OpType(name, lower, domain=DOMAIN)
    for name, lower in (
        ("DequantizeLinear", _quantize("DequantizeLinear")),
        ("ExpandDims", _expand_dims),
        ("GatherND", as_standard(index.OP_TYPES, "GatherND", 12)),
        ("Gelu", as_standard(elementwise.OP_TYPES, "Gelu", 20)),
        ("GridSample", as_standard(grid_sample.OP_TYPES, "GridSample", 16)),
        ("Pad", as_standard(padding.OP_TYPES, "Pad", 11)),
        ("QuantizeLinear", _quantize("QuantizeLinear")),
        ("Trilu", as_standard(selection.OP_TYPES, "Trilu", 14)),
    )
)
