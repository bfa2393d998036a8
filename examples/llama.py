"""Build a Llama-like decoder as an ONNX model with seeded random weights.

    python examples/llama.py OUT.onnx --layers 2 --batch 1 --sequence 128

The architecture is that of Touvron et al., "LLaMA" (2023), with the key/value heads shared as in Ainslie et al.,
"GQA" (2023), written node by node as PyTorch's exporters write it: the RMS norms, the SiLU and the rotary
embeddings spelled out, shared heads repeated by Unsqueeze, Expand and Reshape, the causal mask added to the
scores. No projection has a bias, and there is no cache of keys and values. The defaults are two layers with the
sizes of TinyLlama; onnx keeps models up to 2 GiB in one file, which is nine such layers.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from network_writer import NetworkWriter
from onnx import TensorProto, helper

MASKED_SCORE = -1e9  # added to the attention scores of tokens that come later
ROTARY_BASE = 10000.0
TO_THE_END = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of one decoder; `sequence` counts tokens, `kv_heads` divides `heads`, which divides `hidden`."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    sequence: int
    batch: int
    vocab: int

    @property
    def head_size(self) -> int:
        """The features of one head."""
        return self.hidden // self.heads


class DecoderWriter(NetworkWriter):
    """Writes one decoder."""

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__(seed)
        self.shape = shape

    def integers(self, name: str, values: list[int]) -> str:
        """Add an int64 initialiser; returns its name."""
        return self.constant(name, np.array(values, np.int64))

    def shared_constants(self) -> None:
        """The constants that every layer reads."""
        shape = self.shape
        batch, sequence, size = shape.batch, shape.sequence, shape.head_size
        self.constant("norm.two", np.array(2, np.float32))
        self.constant("norm.epsilon", np.array(1e-5, np.float32))
        self.integers("attention.query_shape", [batch, sequence, shape.heads, size])
        self.integers("attention.kv_shape", [batch, sequence, shape.kv_heads, size])
        self.integers("repeat.axis", [2])
        self.integers("repeat.expanded", [batch, shape.kv_heads, shape.heads // shape.kv_heads, sequence, size])
        self.integers("repeat.shape", [batch, shape.heads, sequence, size])
        self.integers("attention.merge_shape", [batch, sequence, shape.hidden])
        self.constant("attention.scale", np.array(size**-0.5, np.float32))
        masked = np.full((sequence, sequence), MASKED_SCORE, np.float32)
        self.constant("attention.mask", np.triu(masked, 1)[None, None])
        self.integers("rotary.zero", [0])
        self.integers("rotary.half", [size // 2])
        self.integers("rotary.end", [TO_THE_END])
        self.integers("rotary.axis", [3])
        self.integers("rotary.step", [1])
        angles = np.arange(sequence)[:, None] * ROTARY_BASE ** (-np.arange(0, size, 2) / size)
        angles = np.concatenate([angles, angles], axis=-1)[None, None]
        self.constant("rotary.cosine", np.cos(angles).astype(np.float32))
        self.constant("rotary.sine", np.sin(angles).astype(np.float32))

    def linear(self, name: str, x: str, inward: int, outward: int) -> str:
        """x @ weight, over the last dimension."""
        return self.node("MatMul", name, [x, self.normal(f"{name}.weight", (inward, outward), inward**-0.5)])

    def rms_norm(self, name: str, x: str) -> str:
        """weight * (x / sqrt(mean(x^2) + epsilon))"""
        scale = self.normal(f"{name}.weight", (self.shape.hidden,), 0.05, mean=1.0)
        y = self.node("Pow", f"{name}.pow", [x, "norm.two"])
        y = self.node("ReduceMean", f"{name}.mean", [y], axes=[-1], keepdims=1)
        y = self.node("Add", f"{name}.add", [y, "norm.epsilon"])
        y = self.node("Sqrt", f"{name}.sqrt", [y])
        y = self.node("Reciprocal", f"{name}.reciprocal", [y])
        y = self.node("Mul", f"{name}.mul", [x, y])
        return self.node("Mul", f"{name}.scale", [scale, y])

    def heads(self, name: str, x: str, heads: int, shape: str) -> str:
        """Project x and split it into heads: [batch, head, sequence, feature]."""
        y = self.linear(name, x, self.shape.hidden, heads * self.shape.head_size)
        y = self.node("Reshape", f"{name}.split", [y, shape])
        return self.node("Transpose", f"{name}.transpose", [y], perm=[0, 2, 1, 3])

    def rotate(self, name: str, x: str) -> str:
        """x * cosine + (-second half of x, first half of x) * sine: the rotary position embedding."""
        axis_and_step = ["rotary.axis", "rotary.step"]
        straight = self.node("Mul", f"{name}.straight", [x, "rotary.cosine"])
        first = self.node("Slice", f"{name}.first", [x, "rotary.zero", "rotary.half", *axis_and_step])
        second = self.node("Slice", f"{name}.second", [x, "rotary.half", "rotary.end", *axis_and_step])
        y = self.node("Neg", f"{name}.neg", [second])
        y = self.node("Concat", f"{name}.concat", [y, first], axis=-1)
        y = self.node("Mul", f"{name}.across", [y, "rotary.sine"])
        return self.node("Add", f"{name}.add", [straight, y])

    def repeat(self, name: str, x: str) -> str:
        """Give each query head its copy of the key/value head that it shares."""
        if self.shape.kv_heads == self.shape.heads:
            return x
        y = self.node("Unsqueeze", f"{name}.unsqueeze", [x, "repeat.axis"])
        y = self.node("Expand", f"{name}.expand", [y, "repeat.expanded"])
        return self.node("Reshape", f"{name}.repeat", [y, "repeat.shape"])

    def attention(self, name: str, x: str) -> str:
        """Grouped-query self-attention to the tokens before, with its output projection."""
        shape = self.shape
        query = self.heads(f"{name}.query", x, shape.heads, "attention.query_shape")
        query = self.rotate(f"{name}.query.rotate", query)
        key = self.heads(f"{name}.key", x, shape.kv_heads, "attention.kv_shape")
        key = self.repeat(f"{name}.key", self.rotate(f"{name}.key.rotate", key))
        value = self.repeat(f"{name}.value", self.heads(f"{name}.value", x, shape.kv_heads, "attention.kv_shape"))
        key = self.node("Transpose", f"{name}.key.turn", [key], perm=[0, 1, 3, 2])
        scores = self.node("MatMul", f"{name}.scores", [query, key])
        scores = self.node("Mul", f"{name}.scale", [scores, "attention.scale"])
        scores = self.node("Add", f"{name}.mask", [scores, "attention.mask"])
        weights = self.node("Softmax", f"{name}.softmax", [scores], axis=-1)
        context = self.node("MatMul", f"{name}.context", [weights, value])
        context = self.node("Transpose", f"{name}.context_transpose", [context], perm=[0, 2, 1, 3])
        context = self.node("Reshape", f"{name}.merge", [context, "attention.merge_shape"])
        return self.linear(f"{name}.output", context, shape.hidden, shape.hidden)

    def feed_forward(self, name: str, x: str) -> str:
        """down(silu(gate(x)) * up(x)), each of the three a projection."""
        hidden, intermediate = self.shape.hidden, self.shape.intermediate
        gate = self.linear(f"{name}.gate", x, hidden, intermediate)
        sigmoid = self.node("Sigmoid", f"{name}.sigmoid", [gate])
        silu = self.node("Mul", f"{name}.silu", [gate, sigmoid])
        up = self.linear(f"{name}.up", x, hidden, intermediate)
        return self.linear(f"{name}.down", self.node("Mul", f"{name}.mul", [silu, up]), intermediate, hidden)

    def layer(self, name: str, x: str) -> str:
        """One decoder layer: attention and feed-forward, each with a norm before and a residual sum after it."""
        y = self.attention(f"{name}.attention", self.rms_norm(f"{name}.attention.norm", x))
        x = self.node("Add", f"{name}.attention.residual", [x, y])
        y = self.feed_forward(f"{name}.feed", self.rms_norm(f"{name}.feed.norm", x))
        return self.node("Add", f"{name}.feed.residual", [x, y])


def build(
    batch: int = 1,
    seed: int = 0,
    *,
    layers: int = 2,
    hidden: int = 2048,
    heads: int = 32,
    kv_heads: int = 4,
    intermediate: int = 5632,
    sequence: int = 128,
    vocab: int = 32000,
) -> onnx.ModelProto:
    """A Llama-like decoder: `input_ids`, int64 [batch, sequence], to `logits` [batch, sequence, vocab].

    The same arguments give the same bytes. Raises ValueError when `kv_heads` does not divide `heads`, or the heads
    cannot share `hidden` in even sizes, of which rotary embeddings turn one half into the other.
    """
    if heads % kv_heads:
        raise ValueError(f"{heads} heads cannot share {kv_heads} key/value heads evenly")
    if hidden % (2 * heads):
        raise ValueError(f"hidden size {hidden} does not give an even size to each of {heads} heads")
    shape = Shape(layers, hidden, heads, kv_heads, intermediate, sequence, batch, vocab)
    writer = DecoderWriter(shape, seed)
    writer.shared_constants()
    words = writer.normal("embeddings.word.weight", (vocab, hidden), 1.0)
    x = writer.node("Gather", "embeddings.word", [words, "input_ids"], axis=0)
    for index in range(layers):
        x = writer.layer(f"layer{index}", x)
    x = writer.rms_norm("norm", x)
    head = writer.normal("head.weight", (hidden, vocab), hidden**-0.5)
    writer.node("MatMul", "head", [x, head], "logits")

    input_ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [batch, sequence])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, sequence, vocab])
    model = writer.model("llama", [input_ids], [logits])
    for key, size in asdict(shape).items():
        model.metadata_props.add(key=key, value=str(size))
    return model


def main() -> None:
    """Write the model to a file."""
    parser = argparse.ArgumentParser(description="Build a Llama-like decoder with seeded random weights.")
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=32, help="of the queries")
    parser.add_argument("--kv-heads", type=int, default=4, help="of the keys and values")
    parser.add_argument("--intermediate", type=int, default=5632, help="feed-forward width")
    parser.add_argument("--sequence", type=int, default=128, help="tokens in a sequence")
    parser.add_argument("--vocab", type=int, default=32000)
    given = vars(parser.parse_args())
    output: Path = given.pop("output")
    onnx.save(build(**given), output)


if __name__ == "__main__":
    main()
