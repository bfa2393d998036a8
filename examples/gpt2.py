"""Build a GPT-2 decoder as an ONNX model with seeded random weights.

    python examples/gpt2.py OUT.onnx --layers 12 --batch 1 --sequence 128

The architecture is that of Radford et al., "Language Models are Unsupervised Multitask Learners" (2019),
written node by node as PyTorch's exporters write it: Gather embeddings, LayerNormalization before each block,
a Gemm between two Reshapes for each projection, one of them for query, key and value with a Split after it, the
causal mask as a Where, the GELU spelled out with Tanh, and logits from the transposed table of the words. There
is no cache of keys and values. The defaults are GPT-2 with 124 million parameters.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from network_writer import NetworkWriter
from onnx import TensorProto, helper

WORDS = "embeddings.word.weight"


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of one decoder; `sequence` counts tokens, `positions` those it could have, `heads` divides `hidden`."""

    layers: int
    hidden: int
    heads: int
    sequence: int
    batch: int
    vocab: int
    positions: int

    @property
    def intermediate(self) -> int:
        """The width of the feed-forward."""
        return 4 * self.hidden


class DecoderWriter(NetworkWriter):
    """Writes one decoder."""

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__(seed)
        self.shape = shape

    def shared_constants(self) -> None:
        """The constants that every layer reads."""
        shape = self.shape
        tokens = [shape.batch, shape.sequence]
        split = [*tokens, shape.heads, shape.hidden // shape.heads]
        self.constant("attention.part_sizes", np.full(3, shape.hidden, np.int64))
        self.constant("attention.split_shape", np.array(split, np.int64))
        self.constant("attention.merge_shape", np.array([*tokens, shape.hidden], np.int64))
        self.constant("attention.divisor", np.array(split[-1] ** 0.5, np.float32))
        causal = np.tril(np.ones((1, 1, shape.sequence, shape.sequence), np.bool_))
        self.constant("attention.causal", causal)
        self.constant("attention.masked_score", np.array(np.finfo(np.float32).min))
        self.constant("gelu.half", np.array(0.5, np.float32))
        self.constant("gelu.three", np.array(3, np.float32))
        self.constant("gelu.cubic", np.array(0.044715, np.float32))
        self.constant("gelu.root", np.array((2 / np.pi) ** 0.5, np.float32))
        self.constant("gelu.one", np.array(1, np.float32))
        for width in (shape.hidden, 3 * shape.hidden, shape.intermediate):
            self.constant(f"rows_of_{width}", np.array([-1, width], np.int64))
            self.constant(f"tokens_of_{width}", np.array([*tokens, width], np.int64))

    def projection(self, name: str, x: str, inward: int, outward: int, *, is_residual: bool = False) -> str:
        """x @ weight + bias on the rows of x; what the residual stream sums, all layers long, is drawn smaller."""
        sums = 2 * self.shape.layers if is_residual else 1
        weight = self.normal(f"{name}.weight", (inward, outward), (inward * sums) ** -0.5)
        bias = self.normal(f"{name}.bias", (outward,), 0.05)
        y = self.node("Reshape", f"{name}.rows", [x, f"rows_of_{inward}"])
        y = self.node("Gemm", f"{name}.gemm", [y, weight, bias])
        return self.node("Reshape", f"{name}.tokens", [y, f"tokens_of_{outward}"])

    def layer_norm(self, name: str, x: str) -> str:
        """Normalise over the hidden dimension."""
        hidden = (self.shape.hidden,)
        scale = self.normal(f"{name}.weight", hidden, 0.05, mean=1.0)
        bias = self.normal(f"{name}.bias", hidden, 0.05)
        return self.node("LayerNormalization", name, [x, scale, bias], axis=-1, epsilon=1e-5)

    def embeddings(self) -> str:
        """Word and position embeddings, summed: [batch, sequence, hidden]."""
        shape = self.shape
        position_ids = self.constant("embeddings.position_ids", np.arange(shape.sequence, dtype=np.int64)[None])
        words = self.normal(WORDS, (shape.vocab, shape.hidden), shape.hidden**-0.5)
        places = self.normal("embeddings.position.weight", (shape.positions, shape.hidden), shape.hidden**-0.5)
        word = self.node("Gather", "embeddings.word", [words, "input_ids"], axis=0)
        place = self.node("Gather", "embeddings.position", [places, position_ids], axis=0)
        return self.node("Add", "embeddings.add", [word, place])

    def heads(self, name: str, x: str, order: list[int]) -> str:
        """Split x into heads: [batch, sequence, head, feature], permuted to `order`."""
        y = self.node("Reshape", f"{name}.split", [x, "attention.split_shape"])
        return self.node("Transpose", f"{name}.transpose", [y], perm=order)

    def attention(self, name: str, x: str) -> str:
        """Multi-head self-attention to the tokens before, with its output projection."""
        hidden = self.shape.hidden
        joined = self.projection(f"{name}.query_key_value", x, hidden, 3 * hidden)
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        self.nodes.append(helper.make_node("Split", [joined, "attention.part_sizes"], parts, f"{name}.split", axis=2))
        query = self.heads(f"{name}.query", parts[0], [0, 2, 1, 3])
        key = self.heads(f"{name}.key", parts[1], [0, 2, 3, 1])
        value = self.heads(f"{name}.value", parts[2], [0, 2, 1, 3])
        scores = self.node("MatMul", f"{name}.scores", [query, key])
        scores = self.node("Div", f"{name}.scale", [scores, "attention.divisor"])
        scores = self.node("Where", f"{name}.mask", ["attention.causal", scores, "attention.masked_score"])
        weights = self.node("Softmax", f"{name}.softmax", [scores], axis=-1)
        context = self.node("MatMul", f"{name}.context", [weights, value])
        context = self.node("Transpose", f"{name}.context_transpose", [context], perm=[0, 2, 1, 3])
        context = self.node("Reshape", f"{name}.merge", [context, "attention.merge_shape"])
        return self.projection(f"{name}.output", context, hidden, hidden, is_residual=True)

    def gelu(self, name: str, x: str) -> str:
        """x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))"""
        half = self.node("Mul", f"{name}.half", [x, "gelu.half"])
        y = self.node("Pow", f"{name}.pow", [x, "gelu.three"])
        y = self.node("Mul", f"{name}.cubic", [y, "gelu.cubic"])
        y = self.node("Add", f"{name}.inner", [x, y])
        y = self.node("Mul", f"{name}.root", [y, "gelu.root"])
        y = self.node("Tanh", f"{name}.tanh", [y])
        y = self.node("Add", f"{name}.one", [y, "gelu.one"])
        return self.node("Mul", f"{name}.mul", [half, y])

    def layer(self, name: str, x: str) -> str:
        """One decoder layer: attention and feed-forward, each with a norm before and a residual sum after it."""
        hidden, intermediate = self.shape.hidden, self.shape.intermediate
        y = self.attention(f"{name}.attention", self.layer_norm(f"{name}.attention.norm", x))
        x = self.node("Add", f"{name}.attention.residual", [y, x])
        y = self.layer_norm(f"{name}.feed.norm", x)
        y = self.gelu(f"{name}.feed.gelu", self.projection(f"{name}.feed.widen", y, hidden, intermediate))
        y = self.projection(f"{name}.feed.narrow", y, intermediate, hidden, is_residual=True)
        return self.node("Add", f"{name}.feed.residual", [x, y])


def build(
    batch: int = 1,
    seed: int = 0,
    *,
    layers: int = 12,
    hidden: int = 768,
    heads: int = 12,
    sequence: int = 128,
    vocab: int = 50257,
    positions: int = 1024,
) -> onnx.ModelProto:
    """A GPT-2 decoder: `input_ids`, int64 [batch, sequence], to `logits` [batch, sequence, vocab].

    The same arguments give the same bytes. Raises ValueError when `heads` does not divide `hidden`, or when the
    sequence has more tokens than there are `positions`.
    """
    if hidden % heads:
        raise ValueError(f"hidden size {hidden} is not a multiple of the {heads} heads")
    if sequence > positions:
        raise ValueError(f"a sequence of {sequence} tokens is longer than the {positions} positions")
    shape = Shape(layers, hidden, heads, sequence, batch, vocab, positions)
    writer = DecoderWriter(shape, seed)
    writer.shared_constants()
    x = writer.embeddings()
    for index in range(layers):
        x = writer.layer(f"layer{index}", x)
    x = writer.layer_norm("norm", x)
    words = writer.node("Transpose", "head.transpose", [WORDS], perm=[1, 0])
    writer.node("MatMul", "head", [x, words], "logits")

    input_ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [batch, sequence])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, sequence, vocab])
    model = writer.model("gpt2", [input_ids], [logits])
    for key, size in asdict(shape).items():
        model.metadata_props.add(key=key, value=str(size))
    return model


def main() -> None:
    """Write the model to a file."""
    parser = argparse.ArgumentParser(description="Build a GPT-2 decoder with seeded random weights.")
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--sequence", type=int, default=128, help="tokens in a sequence")
    parser.add_argument("--vocab", type=int, default=50257)
    parser.add_argument("--positions", type=int, default=1024, help="tokens that a sequence could have")
    given = vars(parser.parse_args())
    output: Path = given.pop("output")
    onnx.save(build(**given), output)


if __name__ == "__main__":
    main()
