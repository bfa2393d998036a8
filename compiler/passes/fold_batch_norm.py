"""Pass: batch normalisation disappears into the convolution before it, or becomes a scale and a shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from birc.compiler.ir.attributes import number
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.passes.base import Pass, PassResult
from birc.compiler.passes.constant_values import scaled_channels, uniform_or_dense
from birc.compiler.passes.rules import Rewriter, Rule, apply_rules


def _scale_and_shift(rewriter: Rewriter, node: Node) -> tuple[np.ndarray, np.ndarray] | None:
    """scale / sqrt(variance + epsilon) and bias - mean * that, in double precision; None unless all are
    constants.
    """
    found = [rewriter.constant(name) for name in node.inputs[1:]]
    known = [constant.data.astype(np.float64) for constant in found if constant is not None]
    if len(known) != 4:
        return None
    scale, bias, mean, variance = known
    factor = scale / np.sqrt(variance + number(node.attributes, "epsilon"))
    return factor, bias - mean * factor


def into_convolution(rewriter: Rewriter, node: Node) -> str | None:
    """batch_norm(conv2d(x, w, b)) = conv2d(x, w', b') when nothing else reads the convolution"""
    parameters = _scale_and_shift(rewriter, node)
    conv = rewriter.producer(node.inputs[0], "conv2d")
    if parameters is None or conv is None or not rewriter.has_one_use(conv.name):
        return None
    weights = rewriter.constant(conv.inputs[1])
    bias = rewriter.constant(conv.inputs[2]) if len(conv.inputs) > 2 and conv.inputs[2] else None
    if weights is None or (bias is None and len(conv.present_inputs) > 2):
        return None
    factor, shift = parameters
    if bias is not None:
        shift = shift + bias.data.astype(np.float64) * factor
    kept = weights.type.dtype.numpy
    new_weights = rewriter.add_constant(scaled_channels(weights, factor), f"{conv.inputs[1]}.scaled")
    new_bias = rewriter.add_constant(uniform_or_dense(shift.astype(kept)), f"{node.name}.bias")
    inputs = (conv.inputs[0], new_weights, new_bias)
    return rewriter.emit("conv2d", inputs, conv.attributes, replaces=(node, conv))


def to_scale_and_shift(rewriter: Rewriter, node: Node) -> str | None:
    """batch_norm(x) = x * scale' + shift' per channel"""
    parameters = _scale_and_shift(rewriter, node)
    if parameters is None:
        return None
    type = rewriter.type_of(node.inputs[0])
    per_channel = (-1,) + (1,) * (type.rank - 2)
    factor, shift = (values.astype(type.dtype.numpy).reshape(per_channel) for values in parameters)
    scaled = rewriter.emit(
        "mul",
        (node.inputs[0], rewriter.add_constant(uniform_or_dense(factor), f"{node.name}.scale")),
        replaces=(node,),
    )
    return rewriter.emit(
        "add",
        (scaled, rewriter.add_constant(uniform_or_dense(shift), f"{node.name}.shift")),
        replaces=(node,),
    )


RULES: Final[tuple[Rule, ...]] = (
    Rule("batch-norm-into-convolution", "batch_norm", into_convolution),
    Rule("batch-norm-to-scale-and-shift", "batch_norm", to_scale_and_shift),
)


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold batch normalisation of constant parameters into a convolution, or into a multiply and an add.

    before:
        graph "g" {
          input %x : f32[1,2,4,4]
          const %scale : f32[2] = [2.0, 3.0]
          const %bias : f32[2] = [0.5, 1.0]
          const %mean : f32[2] = [1.0, 2.0]
          const %variance : f32[2] = [4.0, 9.0]
          %y : f32[1,2,4,4] = batch_norm(%x, %scale, %bias, %mean, %variance) {epsilon = 0.0} from "bn"
          output %y
        }
    after:
        graph "g" {
          input %x : f32[1,2,4,4]
          const %y.scale : f32[2,1,1] = splat(1.0)
          const %y.shift : f32[2,1,1] = [-0.5, -1.0]
          %y.1 : f32[1,2,4,4] = mul(%x, %y.scale) from "bn"
          %y : f32[1,2,4,4] = add(%y.1, %y.shift) from "bn"
          output %y
        }
    """

    name: ClassVar[str] = "fold_batch_norm"
    rules: tuple[Rule, ...] = RULES

    def run(self, graph: Graph) -> PassResult:
        return apply_rules(graph, self.rules, self.name)
