"""Export well-known architectures from PyTorch, with seeded random weights, as test and benchmark models.

    python tests/data/make_models.py tests/data --tiny        # the committed models, a few MB in all ...
    python tests/data/make_models.py tests/data bert_base lstm --tiny --opset 13     # ... and those of other
    python tests/data/make_models.py tests/data llama2l --tiny --opset 23            # operator sets
    python tests/data/make_models.py FOLDER resnet50 gpt2     # full size

Writes FOLDER/NAME.onnx and FOLDER/NAME.npz: sample inputs `in_*` and PyTorch's own outputs for them, `out_*`.
With another operator set than 18, NAME ends in it.
Every model is run in onnxruntime before it is written. Nothing is downloaded. Needs torch, transformers,
onnxscript and onnxruntime, which the project itself does not: use an environment of their own.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

OPSET = 18
FIRST_DYNAMO_OPSET = 18  # for older ones there is the exporter by TorchScript alone
MASKED_SCORE = -1e9
AGREEMENT = 1e-3  # largest relative error of onnxruntime against PyTorch

Tensors = dict[str, Tensor]


# ----------------------------------------------------------------------------------- convolutional networks
class Unit(nn.Sequential):
    """Convolution, batch norm and an optional activation; the padding keeps the size at stride 1."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        conv = nn.Conv2d(*channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        tail = [] if activation is None else [activation()]
        super().__init__(conv, nn.BatchNorm2d(channels[1]), *tail)


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 (with the stride) and 1x1 convolutions."""

    def __init__(self, inward: int, inner: int, stride: int) -> None:
        super().__init__()
        outward = 4 * inner
        self.reduce = Unit((inward, inner), 1)
        self.spatial = Unit((inner, inner), 3, stride)
        self.expand = Unit((inner, outward), 1, activation=None)
        same = stride == 1 and inward == outward
        self.shortcut = nn.Identity() if same else Unit((inward, outward), 1, stride, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inward, h, w] to [batch, 4 * inner, h / stride, w / stride]."""
        return functional.relu(self.expand(self.spatial(self.reduce(x))) + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50 with the stride in the 3x3 convolutions (often called v1.5)."""

    def __init__(self, width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(Unit((3, width), 7, 2), nn.MaxPool2d(3, 2, 1))
        blocks, inward = [], width
        for stage, count in enumerate((3, 4, 6, 3)):
            for block in range(count):
                blocks.append(Bottleneck(inward, width << stage, 2 if stage and not block else 1))
                inward = 4 * (width << stage)
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(inward, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, size, size] to [batch, classes]."""
        y = functional.adaptive_avg_pool2d(self.body(self.stem(x)), 1)
        return self.head(torch.flatten(y, 1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, convolve each channel by itself, narrow without activation."""

    def __init__(self, inward: int, outward: int, stride: int, factor: int) -> None:
        super().__init__()
        inner = inward * factor
        widen = [] if factor == 1 else [Unit((inward, inner), 1, activation=nn.ReLU6)]
        self.body = nn.Sequential(
            *widen,
            Unit((inner, inner), 3, stride, groups=inner, activation=nn.ReLU6),
            Unit((inner, outward), 1, activation=None),
        )
        self.residual = stride == 1 and inward == outward

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inward, h, w] to [batch, outward, h / stride, w / stride]."""
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """MobileNetV2; `multiplier` scales the channel counts, rounded to multiples of eight."""

    # (factor, channels, blocks, stride of the first block): table 2 of Sandler et al., 2018
    STAGES = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip

    def __init__(self, multiplier: float = 1.0, classes: int = 1000) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(8, int(channels * multiplier + 4) // 8 * 8)

        inward, last = scaled(32), scaled(1280)
        layers: list[nn.Module] = [Unit((3, inward), 3, 2, activation=nn.ReLU6)]
        for factor, channels, count, stride in self.STAGES:
            for block in range(count):
                layers.append(InvertedResidual(inward, scaled(channels), 1 if block else stride, factor))
                inward = scaled(channels)
        layers.append(Unit((inward, last), 1, activation=nn.ReLU6))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, size, size] to [batch, classes]."""
        return self.head(self.body(x).mean((2, 3)))


# ---------------------------------------------------------------------------------------- recurrent networks
class LstmClassifier(nn.Module):
    """Embedding, a bidirectional LSTM of two layers, the mean over time, class scores."""

    def __init__(self, vocab: int = 20000, width: int = 128, hidden: int = 256, classes: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.recurrent = nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, input_ids: Tensor) -> Tensor:
        """[batch, tokens] int64 to [batch, classes]."""
        states, _ = self.recurrent(self.embedding(input_ids))
        return self.head(states.mean(1))


# ------------------------------------------------------------------------------------------ language models
@dataclass(frozen=True, slots=True)
class LlamaShape:
    """Sizes of a Llama-style decoder; several query heads share one key/value head."""

    vocab: int
    hidden: int
    heads: int
    shared_heads: int
    intermediate: int
    layers: int


class RootMeanSquareNorm(nn.Module):
    """x / sqrt(mean(x^2)) * weight, spelled out as model code spells it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden) + 0.05 * torch.randn(hidden))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that ends in `hidden`."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class LlamaLayer(nn.Module):
    """Grouped-query attention with rotary positions, then a SiLU-gated feed-forward."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape, self.head_size = shape, shape.hidden // shape.heads

        def linear(inward: int, outward: int) -> nn.Linear:
            return nn.Linear(inward, outward, bias=False)

        hidden, shared = shape.hidden, shape.shared_heads * self.head_size
        self.query, self.output = linear(hidden, hidden), linear(hidden, hidden)
        self.key, self.value = linear(hidden, shared), linear(hidden, shared)
        self.gate, self.up = linear(hidden, shape.intermediate), linear(hidden, shape.intermediate)
        self.down = linear(shape.intermediate, hidden)
        self.attention_norm, self.feed_norm = RootMeanSquareNorm(hidden), RootMeanSquareNorm(hidden)

    def split(self, x: Tensor, heads: int) -> Tensor:
        """[batch, tokens, heads * head_size] to [batch, heads, tokens, head_size]."""
        return x.view(x.shape[0], x.shape[1], heads, self.head_size).transpose(1, 2)

    def rotate(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Rotary position embedding of [batch, heads, tokens, head_size]."""
        low, high = x[..., : self.head_size // 2], x[..., self.head_size // 2 :]
        return x * cosine + torch.cat([-high, low], -1) * sine

    def repeat(self, x: Tensor) -> Tensor:
        """Give each query head its copy of the shared key/value head."""
        batch, shared, tokens, size = x.shape
        times = self.shape.heads // shared
        return x[:, :, None].expand(batch, shared, times, tokens, size).reshape(batch, -1, tokens, size)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        """[batch, tokens, hidden] to the same shape."""
        y = self.attention_norm(x)
        query = self.rotate(self.split(self.query(y), self.shape.heads), cosine, sine)
        key = self.rotate(self.split(self.key(y), self.shape.shared_heads), cosine, sine)
        value = self.split(self.value(y), self.shape.shared_heads)
        scores = query @ self.repeat(key).transpose(-1, -2) / math.sqrt(self.head_size) + mask
        context = torch.softmax(scores, -1) @ self.repeat(value)
        x = x + self.output(context.transpose(1, 2).reshape(x.shape))
        y = self.feed_norm(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """Embedding, decoder layers under a causal mask, final norm, vocabulary projection."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(LlamaLayer(shape) for _ in range(shape.layers))
        self.norm = RootMeanSquareNorm(shape.hidden)
        self.head = nn.Linear(shape.hidden, shape.vocab, bias=False)
        size = shape.hidden // shape.heads
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(0, size, 2).float() / size))

    def forward(self, input_ids: Tensor) -> Tensor:
        """[batch, tokens] int64 to logits [batch, tokens, vocab]."""
        tokens = input_ids.shape[1]
        angles = torch.arange(tokens, dtype=torch.float32)[:, None] * self.frequencies[None]
        angles = torch.cat([angles, angles], -1)
        mask = torch.triu(torch.full((tokens, tokens), MASKED_SCORE), 1)
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin(), mask)
        return self.head(self.norm(x))


class Outputs(nn.Module):
    """A transformers model with tensors in by position and tensors out."""

    def __init__(self, model: nn.Module, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, tuple(inputs), tuple(outputs)

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The named fields of the model's answer."""
        answer = self.model(**dict(zip(self.inputs, arguments, strict=True)))
        return tuple(getattr(answer, name) for name in self.outputs)


def bert(hidden: int, layers: int, heads: int, vocab: int, positions: int = 512) -> nn.Module:
    """A BERT encoder with its pooler."""
    config = BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden,
        vocab_size=vocab, max_position_embeddings=positions, attn_implementation="eager",
    )  # fmt: skip
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    return Outputs(BertModel(config), inputs, ("last_hidden_state", "pooler_output"))


def gpt2(hidden: int, layers: int, heads: int, vocab: int, positions: int = 1024) -> nn.Module:
    """A GPT-2 decoder with its vocabulary projection, without a key/value cache."""
    config = GPT2Config(
        n_embd=hidden, n_layer=layers, n_head=heads, vocab_size=vocab, n_positions=positions, use_cache=False,
        attn_implementation="eager", bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return Outputs(GPT2LMHeadModel(config), ("input_ids",), ("logits",))


# ----------------------------------------------------------------------------------------------- the models
@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one model: its network, its sample inputs, the names of its outputs, which exporter."""

    network: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], Tensors]
    outputs: tuple[str, ...] = ("logits",)
    by_dynamo: bool = True


def image(size: int) -> Callable[[int, torch.Generator], Tensors]:
    """Normalised images [batch, 3, size, size]."""
    return lambda batch, generator: {"x": torch.randn(batch, 3, size, size, generator=generator)}


def tokens(length: int, vocab: int) -> Callable[[int, torch.Generator], Tensors]:
    """Random token numbers [batch, length]."""
    return lambda batch, generator: {"input_ids": torch.randint(0, vocab, (batch, length), generator=generator)}


def padded_pair(length: int, vocab: int) -> Callable[[int, torch.Generator], Tensors]:
    """Two sentences in one row of tokens; the last quarter is padding, so that the mask matters."""

    def make(batch: int, generator: torch.Generator) -> Tensors:
        place = torch.arange(length).expand(batch, length)
        return {
            **tokens(length, vocab)(batch, generator),
            "attention_mask": (place < length - length // 4).long(),
            "token_type_ids": (place >= length // 2).long(),
        }

    return make


ENCODED = ("last_hidden_state", "pooler_output")
FULL = {
    "resnet50": Recipe(ResNet50, image(224)),
    "mobilenet_v2": Recipe(MobileNetV2, image(224)),
    "bert_base": Recipe(lambda: bert(768, 12, 12, 30522), padded_pair(128, 30522), ENCODED),
    "bert_large": Recipe(lambda: bert(1024, 24, 16, 30522), padded_pair(384, 30522), ENCODED),
    "gpt2": Recipe(lambda: gpt2(768, 12, 12, 50257), tokens(128, 50257)),
    "llama2l": Recipe(lambda: Llama(LlamaShape(32000, 2048, 32, 4, 5632, 2)), tokens(128, 32000)),
    "lstm": Recipe(LstmClassifier, tokens(128, 20000), by_dynamo=False),
}
TINY = {
    "resnet50": Recipe(lambda: ResNet50(8, 10), image(64)),
    "mobilenet_v2": Recipe(lambda: MobileNetV2(0.25, 10), image(64)),
    "bert_base": Recipe(lambda: bert(64, 2, 2, 200, 64), padded_pair(32, 200), ENCODED),
    "gpt2": Recipe(lambda: gpt2(64, 2, 2, 200, 64), tokens(32, 200)),
    "llama2l": Recipe(lambda: Llama(LlamaShape(200, 64, 4, 2, 128, 2)), tokens(32, 200)),
    "lstm": Recipe(lambda: LstmClassifier(200, 24, 32), tokens(4, 200), by_dynamo=False),
}


@torch.no_grad()
def imitate_training(network: nn.Module, generator: torch.Generator) -> None:
    """Replace what a fresh network has as zeros and ones by values such as training leaves behind."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            deviation = math.sqrt(2 / module.weight[0].numel())
            module.weight.normal_(0, deviation, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.running_mean.copy_(0.1 * torch.randn(count, generator=generator))
            module.running_var.copy_(0.8 + 0.4 * torch.rand(count, generator=generator))
            module.weight.copy_(0.6 + 0.2 * torch.rand(count, generator=generator))
            module.bias.copy_(0.05 * torch.randn(count, generator=generator))
        elif isinstance(module, nn.LayerNorm):
            module.weight.add_(0.05 * torch.randn(module.weight.shape, generator=generator))
            module.bias.copy_(0.05 * torch.randn(module.bias.shape, generator=generator))


def without_origin(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes (source paths, stack traces), which differ between machines."""
    messages: list[object] = [model, model.graph, *model.functions]
    for graph in (model.graph, *model.functions):
        messages += [*graph.node, *graph.value_info]
    messages += [*model.graph.input, *model.graph.output, *model.graph.initializer]
    for message in messages:
        message.ClearField("doc_string")
        message.ClearField("metadata_props")
    for node in (node for graph in (model.graph, *model.functions) for node in graph.node):
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
    return model


def disagreement(model: onnx.ModelProto, inputs: Tensors, expected: dict[str, np.ndarray]) -> float:
    """The largest relative error of onnxruntime's outputs against PyTorch's."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    actual = session.run(list(expected), {name: value.numpy() for name, value in inputs.items()})
    pairs = zip(actual, expected.values(), strict=True)
    return max(float(np.linalg.norm(a - e) / np.linalg.norm(e)) for a, e in pairs)


def exported(network: nn.Module, recipe: Recipe, inputs: Tensors, opset: int) -> onnx.ModelProto:
    """The model as PyTorch exports it. Raises RuntimeError when it has another operator set."""
    names = {"input_names": list(inputs), "output_names": list(recipe.outputs), "opset_version": opset}
    if recipe.by_dynamo and opset >= FIRST_DYNAMO_OPSET:
        model = torch.onnx.export(network, tuple(inputs.values()), dynamo=True, verbose=False, **names).model_proto
    else:
        written = io.BytesIO()
        torch.onnx.export(network, tuple(inputs.values()), written, dynamo=False, **names)
        model = onnx.load_from_string(written.getvalue())
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions[""] != opset:
        raise RuntimeError(f"asked for operator set {opset}, the exporter gave {versions['']}")
    return model


def make(name: str, recipe: Recipe, folder: Path, batch: int, opset: int) -> None:
    """Export one model and its sample; raises RuntimeError when onnxruntime and PyTorch disagree."""
    torch.manual_seed(0)
    network = recipe.network().eval()
    imitate_training(network, torch.Generator().manual_seed(1))
    inputs = recipe.inputs(batch, torch.Generator().manual_seed(2))
    with torch.no_grad():
        answer = network(*inputs.values())
        model = without_origin(exported(network, recipe, inputs, opset))
    answers = answer if isinstance(answer, tuple) else (answer,)
    expected = {key: value.numpy() for key, value in zip(recipe.outputs, answers, strict=True)}
    error = disagreement(model, inputs, expected)
    if not error < AGREEMENT:
        raise RuntimeError(f"{name}: onnxruntime and PyTorch disagree by {error:.1e}; the limit is {AGREEMENT}")
    stem = name + ("" if batch == 1 else f"_b{batch}") + ("" if opset == OPSET else f"_opset{opset}")
    onnx.save(model, folder / f"{stem}.onnx")
    sample = {f"in_{key}": value.numpy() for key, value in inputs.items()}
    sample |= {f"out_{key}": value for key, value in expected.items()}
    np.savez_compressed(folder / f"{stem}.npz", **sample)
    megabytes = (folder / f"{stem}.onnx").stat().st_size / 1e6
    print(f"{stem}: {megabytes:.2f} MB, {len(model.graph.node)} nodes, relative error {error:.1e}", flush=True)


def main() -> int:
    """Make the named models; returns the exit code."""
    parser = argparse.ArgumentParser(description="Export test models from PyTorch.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(FULL)}")
    parser.add_argument("--tiny", action="store_true", help="the small variants that are committed")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--opset", type=int, default=OPSET, help="version of the operators")
    given = parser.parse_args()
    recipes = TINY if given.tiny else FULL
    unknown = sorted(set(given.names) - set(recipes))
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(recipes)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.names or recipes:
        make(name, recipes[name], given.folder, given.batch, given.opset)
    return 0


if __name__ == "__main__":
    sys.exit(main())
