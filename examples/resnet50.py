"""Build ResNet-50 v1 as an ONNX model with seeded random weights.

    python examples/resnet50.py OUT.onnx --batch 8

The architecture is that of He et al., "Deep Residual Learning for Image Recognition" (2015), table 1, with
the stride of a stage in its first 1x1 convolution. The weights are random but behave like trained ones:
He-normal convolutions and batch-norm statistics that keep the activations of all fifty layers sane.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from network_writer import NetworkWriter
from onnx import TensorProto, helper

BLOCKS_PER_STAGE = (3, 4, 6, 3)
EXPANSION = 4  # a bottleneck block's output channels over its inner channels


class ResNetWriter(NetworkWriter):
    """Writes one residual network."""

    def weight(self, name: str, value: np.ndarray) -> str:
        """Add an initialiser in float32; returns its name."""
        return self.constant(name, value.astype(np.float32))

    def convolution(self, name: str, x: str, channels: tuple[int, int], kernel: int, stride: int = 1) -> str:
        """A square convolution without bias, padded to keep the size at stride 1; `channels` is (in, out)."""
        inward, outward = channels
        shape = (outward, inward, kernel, kernel)
        deviation = np.sqrt(2 / (inward * kernel * kernel))
        weight = self.weight(f"{name}.weight", deviation * self.rng.standard_normal(shape, np.float32))
        pads, strides = [kernel // 2] * 4, [stride, stride]
        return self.node("Conv", name, [x, weight], kernel_shape=[kernel, kernel], pads=pads, strides=strides)

    def batch_norm(self, name: str, x: str, channels: int) -> str:
        """Batch normalisation with statistics as training leaves them."""
        rng = self.rng
        values = {
            "scale": rng.uniform(0.6, 0.8, channels),
            "bias": 0.05 * rng.standard_normal(channels),
            "mean": 0.1 * rng.standard_normal(channels),
            "variance": rng.uniform(0.8, 1.2, channels),
        }
        inputs = [self.weight(f"{name}.{part}", value) for part, value in values.items()]
        return self.node("BatchNormalization", name, [x, *inputs], epsilon=1e-5)

    def unit(self, name: str, x: str, channels: tuple[int, int], kernel: int, stride: int = 1) -> str:
        """Convolution, batch norm, ReLU."""
        y = self.convolution(f"{name}.conv", x, channels, kernel, stride)
        return self.node("Relu", f"{name}.relu", [self.batch_norm(f"{name}.bn", y, channels[1])])

    def bottleneck(self, name: str, x: str, channels: tuple[int, int], stride: int) -> str:
        """A residual block of 1x1, 3x3 and 1x1 convolutions; `channels` is (in, inner)."""
        inward, inner = channels
        outward = EXPANSION * inner
        y = self.unit(f"{name}.reduce", x, (inward, inner), 1, stride)
        y = self.unit(f"{name}.spatial", y, (inner, inner), 3)
        y = self.convolution(f"{name}.expand.conv", y, (inner, outward), 1)
        y = self.batch_norm(f"{name}.expand.bn", y, outward)
        if stride != 1 or inward != outward:
            x = self.convolution(f"{name}.shortcut.conv", x, (inward, outward), 1, stride)
            x = self.batch_norm(f"{name}.shortcut.bn", x, outward)
        return self.node("Relu", f"{name}.relu", [self.node("Add", f"{name}.add", [y, x])])


def build(
    batch: int = 1,
    seed: int = 0,
    *,
    width: int = 64,
    image_size: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """ResNet-50: `image` [batch, 3, image_size, image_size] to `logits` [batch, classes].

    `width` is the channel count after the first convolution (64 in the paper). The same arguments give
    the same bytes.
    """
    writer = ResNetWriter(seed)
    x = writer.unit("stem", "image", (3, width), 7, 2)
    x = writer.node("MaxPool", "stem.pool", [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    inward = width
    for stage, blocks in enumerate(BLOCKS_PER_STAGE):
        inner = width << stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = writer.bottleneck(f"stage{stage + 1}.block{block + 1}", x, (inward, inner), stride)
            inward = EXPANSION * inner
    x = writer.node("GlobalAveragePool", "head.pool", [x])
    x = writer.node("Flatten", "head.flatten", [x], axis=1)
    matrix = writer.rng.standard_normal((classes, inward), np.float32) / np.sqrt(inward)
    weight = writer.weight("head.fc.weight", matrix)
    bias = writer.weight("head.fc.bias", 0.05 * writer.rng.standard_normal(classes))
    writer.node("Gemm", "head.fc", [x, weight, bias], "logits", transB=1)

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, image_size, image_size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])
    return writer.model("resnet50", [image], [logits])


def main() -> None:
    """Write the model to a file."""
    parser = argparse.ArgumentParser(description="Build ResNet-50 v1 with seeded random weights.")
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=64, help="channels after the first convolution")
    parser.add_argument("--image-size", type=int, default=224, help="height and width, in pixels")
    parser.add_argument("--classes", type=int, default=1000)
    given = parser.parse_args()
    model = build(given.batch, given.seed, width=given.width, image_size=given.image_size, classes=given.classes)
    onnx.save(model, given.output)


if __name__ == "__main__":
    main()
