"""The importer's table: every ONNX op that is lowered, and the operator sets each lowering holds for."""

from __future__ import annotations

from typing import Final

from birc.compiler.importer import (
    affine_grid,
    argmax,
    batch_norm,
    bitwise,
    casts,
    col2im,
    compaction,
    constant,
    contraction,
    conv_transpose,
    convolution,
    cumulative,
    deform_conv,
    determinant,
    einsum,
    elementwise,
    grid_sample,
    index,
    ml_features,
    ml_linear,
    ml_trees,
    ml_vectors,
    normalization,
    optimizer,
    ordering,
    padding,
    pool,
    quantization,
    quantized_products,
    recurrent,
    reduction,
    resize,
    roi_align,
    roi_pool,
    scatter,
    selection,
    shape,
    slicing,
    spectrum,
    tensor_scatter,
    tfidf,
    unpool,
    window_function,
)
from birc.compiler.importer.lowering import OpType

OP_TYPES: Final[tuple[OpType, ...]] = (
    *roi_align.OP_TYPES,
    *grid_sample.OP_TYPES,
    *affine_grid.OP_TYPES,
    *window_function.OP_TYPES,
    *argmax.OP_TYPES,
    *bitwise.OP_TYPES,
    *casts.OP_TYPES,
    *col2im.OP_TYPES,
    *batch_norm.OP_TYPES,
    *compaction.OP_TYPES,
    *constant.OP_TYPES,
    *contraction.OP_TYPES,
    *conv_transpose.OP_TYPES,
    *convolution.OP_TYPES,
    *cumulative.OP_TYPES,
    *deform_conv.OP_TYPES,
    *determinant.OP_TYPES,
    *einsum.OP_TYPES,
    *elementwise.OP_TYPES,
    *index.OP_TYPES,
    *ml_features.OP_TYPES,
    *ml_linear.OP_TYPES,
    *ml_trees.OP_TYPES,
    *ml_vectors.OP_TYPES,
    *normalization.OP_TYPES,
    *optimizer.OP_TYPES,
    *ordering.OP_TYPES,
    *padding.OP_TYPES,
    *pool.OP_TYPES,
    *quantization.OP_TYPES,
    *quantized_products.OP_TYPES,
    *recurrent.OP_TYPES,
    *reduction.OP_TYPES,
    *resize.OP_TYPES,
    *roi_pool.OP_TYPES,
    *scatter.OP_TYPES,
    *selection.OP_TYPES,
    *shape.OP_TYPES,
    *slicing.OP_TYPES,
    *spectrum.OP_TYPES,
    *tensor_scatter.OP_TYPES,
    *unpool.OP_TYPES,
    *tfidf.OP_TYPES,
)

_BY_NAME: Final = {
    key: tuple(entry for entry in OP_TYPES if (entry.domain, entry.name) == key)
    for key in {(entry.domain, entry.name) for entry in OP_TYPES}
}


def find_op_type(domain: str, name: str, version: int) -> OpType | None:
    """The row for an ONNX op in operator set `version` of `domain`; None when there is none."""
    return next((entry for entry in _BY_NAME.get((domain, name), ()) if entry.covers(version)), None)
