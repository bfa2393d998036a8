"""Build a BERT encoder as an ONNX model with seeded random weights.

    python examples/bert.py OUT.onnx --layers 12 --batch 1 --sequence 128

The architecture is that of Devlin et al., "BERT" (2018), written node by node as PyTorch's exporters write
it: Gather embeddings, LayerNormalization, MatMul and Add, attention from Reshape, Transpose, MatMul, Mul, Add
and Softmax, and the GELU spelled out with Erf. The defaults are BERT-base.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from network_writer import NetworkWriter
from onnx import TensorProto, helper

TOKEN_TYPES = 2
MASKED_SCORE = -10000.0  # added to the attention scores of padding tokens


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of one encoder; `sequence` counts tokens, `heads` divides `hidden`."""

    layers: int
    hidden: int
    heads: int
    sequence: int
    batch: int
    vocab: int
    intermediate: int


class EncoderWriter(NetworkWriter):
    """Writes one encoder."""

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__(seed)
        self.shape = shape

    def linear(self, name: str, x: str, inward: int, outward: int) -> str:
        """x @ weight + bias, over the last dimension."""
        weight = self.normal(f"{name}.weight", (inward, outward), inward**-0.5)
        bias = self.normal(f"{name}.bias", (outward,), 0.05)
        return self.node("Add", f"{name}.add", [self.node("MatMul", f"{name}.matmul", [x, weight]), bias])

    def layer_norm(self, name: str, x: str) -> str:
        """Normalise over the hidden dimension."""
        hidden = (self.shape.hidden,)
        scale = self.normal(f"{name}.weight", hidden, 0.05, mean=1.0)
        bias = self.normal(f"{name}.bias", hidden, 0.05)
        return self.node("LayerNormalization", name, [x, scale, bias], axis=-1, epsilon=1e-12)

    def embeddings(self) -> str:
        """Word, position and token-type embeddings, summed and normalised: [batch, sequence, hidden]."""
        shape = self.shape
        positions = np.arange(shape.sequence, dtype=np.int64)[None]
        sources = {
            "word": ("input_ids", shape.vocab),
            "token_type": ("token_type_ids", TOKEN_TYPES),
            "position": (self.constant("embeddings.position_ids", positions), shape.sequence),
        }
        looked_up = []
        for kind, (ids, rows) in sources.items():
            table = self.normal(f"embeddings.{kind}.weight", (rows, shape.hidden), 1.0)
            looked_up.append(self.node("Gather", f"embeddings.{kind}", [table, ids], axis=0))
        total = self.node("Add", "embeddings.add_token_type", looked_up[:2])
        total = self.node("Add", "embeddings.add_position", [total, looked_up[2]])
        return self.layer_norm("embeddings.norm", total)

    def additive_mask(self) -> str:
        """0 where a token may be attended to and MASKED_SCORE where not: [batch, 1, 1, sequence]."""
        axes = self.constant("mask.axes", np.array([1, 2], np.int64))
        one = self.constant("mask.one", np.array(1, np.float32))
        masked_score = self.constant("mask.masked_score", np.array(MASKED_SCORE, np.float32))
        mask = self.node("Unsqueeze", "mask.unsqueeze", ["attention_mask", axes])
        mask = self.node("Cast", "mask.cast", [mask], to=TensorProto.FLOAT)
        mask = self.node("Sub", "mask.invert", [one, mask])
        return self.node("Mul", "mask.scale", [mask, masked_score])

    def heads(self, name: str, x: str, order: list[int]) -> str:
        """Project x and split it into heads: [batch, sequence, head, feature], permuted to `order`."""
        y = self.linear(name, x, self.shape.hidden, self.shape.hidden)
        y = self.node("Reshape", f"{name}.split", [y, "attention.split_shape"])
        return self.node("Transpose", f"{name}.transpose", [y], perm=order)

    def attention(self, name: str, x: str, mask: str) -> str:
        """Multi-head self-attention with its output projection."""
        query = self.heads(f"{name}.query", x, [0, 2, 1, 3])
        key = self.heads(f"{name}.key", x, [0, 2, 3, 1])
        value = self.heads(f"{name}.value", x, [0, 2, 1, 3])
        scores = self.node("MatMul", f"{name}.scores", [query, key])
        scores = self.node("Mul", f"{name}.scale", [scores, "attention.scale"])
        scores = self.node("Add", f"{name}.mask", [scores, mask])
        weights = self.node("Softmax", f"{name}.softmax", [scores], axis=-1)
        context = self.node("MatMul", f"{name}.context", [weights, value])
        context = self.node("Transpose", f"{name}.context_transpose", [context], perm=[0, 2, 1, 3])
        context = self.node("Reshape", f"{name}.merge", [context, "attention.merge_shape"])
        return self.linear(f"{name}.output", context, self.shape.hidden, self.shape.hidden)

    def gelu(self, name: str, x: str) -> str:
        """x * (1 + erf(x / sqrt 2)) * 0.5"""
        y = self.node("Div", f"{name}.div", [x, "gelu.sqrt_two"])
        y = self.node("Erf", f"{name}.erf", [y])
        y = self.node("Add", f"{name}.add", [y, "gelu.one"])
        y = self.node("Mul", f"{name}.mul", [x, y])
        return self.node("Mul", f"{name}.half", [y, "gelu.half"])

    def layer(self, name: str, x: str, mask: str) -> str:
        """One encoder layer: attention and feed-forward, each with a residual sum and a norm after it."""
        shape = self.shape
        y = self.attention(f"{name}.attention", x, mask)
        x = self.layer_norm(f"{name}.attention.norm", self.node("Add", f"{name}.attention.residual", [y, x]))
        y = self.linear(f"{name}.intermediate", x, shape.hidden, shape.intermediate)
        y = self.gelu(f"{name}.gelu", y)
        y = self.linear(f"{name}.output", y, shape.intermediate, shape.hidden)
        return self.layer_norm(f"{name}.output.norm", self.node("Add", f"{name}.output.residual", [y, x]))

    def shared_constants(self) -> None:
        """The constants that every layer reads."""
        shape = self.shape
        head_size = shape.hidden // shape.heads
        split = [shape.batch, shape.sequence, shape.heads, head_size]
        self.constant("attention.split_shape", np.array(split, np.int64))
        self.constant("attention.merge_shape", np.array([*split[:2], shape.hidden], np.int64))
        self.constant("attention.scale", np.array(head_size**-0.5, np.float32))
        self.constant("gelu.sqrt_two", np.array(2**0.5, np.float32))
        self.constant("gelu.one", np.array(1, np.float32))
        self.constant("gelu.half", np.array(0.5, np.float32))

    def pooler(self, x: str) -> None:
        """Project the first token's state through a tanh into the output `pooler_output`."""
        first = self.constant("pooler.first", np.array(0, np.int64))
        y = self.node("Gather", "pooler.gather", [x, first], axis=1)
        y = self.linear("pooler", y, self.shape.hidden, self.shape.hidden)
        self.node("Tanh", "pooler.tanh", [y], "pooler_output")


def build(
    batch: int = 1,
    seed: int = 0,
    *,
    layers: int = 12,
    hidden: int = 768,
    heads: int = 12,
    sequence: int = 128,
    vocab: int = 30522,
    intermediate: int | None = None,
) -> onnx.ModelProto:
    """A BERT encoder, by default BERT-base; `intermediate` is 4 * hidden unless given.

    `input_ids`, `attention_mask` and `token_type_ids`, int64 [batch, sequence], to `last_hidden_state`
    [batch, sequence, hidden] and `pooler_output` [batch, hidden]. The same arguments give the same bytes.
    Raises ValueError when `heads` does not divide `hidden`.
    """
    if hidden % heads:
        raise ValueError(f"hidden size {hidden} is not a multiple of the {heads} heads")
    shape = Shape(layers, hidden, heads, sequence, batch, vocab, intermediate or 4 * hidden)
    writer = EncoderWriter(shape, seed)
    writer.shared_constants()
    mask = writer.additive_mask()
    x = writer.embeddings()
    for index in range(layers):
        x = writer.layer(f"layer{index}", x, mask)
    writer.node("Identity", "last_hidden_state", [x], "last_hidden_state")
    writer.pooler(x)

    value = helper.make_tensor_value_info
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [value(name, TensorProto.INT64, [batch, sequence]) for name in names]
    outputs = [
        value("last_hidden_state", TensorProto.FLOAT, [batch, sequence, hidden]),
        value("pooler_output", TensorProto.FLOAT, [batch, hidden]),
    ]
    model = writer.model("bert", inputs, outputs)
    for key, size in asdict(shape).items():
        model.metadata_props.add(key=key, value=str(size))
    return model


def main() -> None:
    """Write the model to a file."""
    parser = argparse.ArgumentParser(description="Build a BERT encoder with seeded random weights.")
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--sequence", type=int, default=128, help="tokens in a sequence")
    parser.add_argument("--vocab", type=int, default=30522)
    parser.add_argument("--intermediate", type=int, help="feed-forward width (default: 4 * hidden)")
    given = vars(parser.parse_args())
    output: Path = given.pop("output")
    onnx.save(build(**given), output)


if __name__ == "__main__":
    main()
