"""Build MobileNetV2 as an ONNX model with seeded random weights.

    python examples/mobilenet_v2.py OUT.onnx --batch 8

The architecture is that of Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018),
table 2, as PyTorch's exporters write it: the batch norms are folded into the convolutions, which have a bias
for that, and ReLU6 is a Clip. The weights are random but behave like trained ones: drawn by what flows into
each output, so that the activations of all blocks stay sane.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from network_writer import NetworkWriter
from onnx import TensorProto, helper

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # expansion, channels, blocks, stride of the first block
STEM_CHANNELS = 32
MULTIPLE = 8  # of which scaled channel counts are
RECTIFIED_GAIN = 2  # half of the values are lost behind a rectifier: the weights' variance makes up for it


def scaled(channels: int, multiplier: float) -> int:
    """A channel count times the width multiplier: the nearest multiple of eight, but never a tenth less."""
    wanted = channels * multiplier
    nearest = max(MULTIPLE, int(wanted / MULTIPLE + 0.5) * MULTIPLE)
    return nearest + MULTIPLE if nearest < 0.9 * wanted else nearest


class MobileNetWriter(NetworkWriter):
    """Writes one network of inverted residuals."""

    def convolution(
        self, name: str, x: str, channels: tuple[int, int], kernel: int, stride: int = 1, *, groups: int = 1, gain: int
    ) -> str:
        """A square convolution with bias, padded to keep the size at stride 1; `channels` is (in, out)."""
        inward, outward = channels[0] // groups, channels[1]
        deviation = (gain / (inward * kernel * kernel)) ** 0.5
        weight = self.normal(f"{name}.weight", (outward, inward, kernel, kernel), deviation)
        bias = self.normal(f"{name}.bias", (outward,), 0.1)
        window, pads, strides = [kernel, kernel], [kernel // 2] * 4, [stride, stride]
        inputs = [x, weight, bias]
        return self.node("Conv", name, inputs, group=groups, kernel_shape=window, pads=pads, strides=strides)

    def unit(
        self, name: str, x: str, channels: tuple[int, int], kernel: int, stride: int = 1, *, groups: int = 1
    ) -> str:
        """Convolution and ReLU6."""
        y = self.convolution(f"{name}.conv", x, channels, kernel, stride, groups=groups, gain=RECTIFIED_GAIN)
        return self.node("Clip", f"{name}.relu6", [y, "relu6.lowest", "relu6.highest"])

    def inverted_residual(self, name: str, x: str, channels: tuple[int, int], stride: int, expansion: int) -> str:
        """Widen, convolve each channel by itself, narrow without activation; `channels` is (in, out)."""
        inward, outward = channels
        inner = expansion * inward
        y = x if expansion == 1 else self.unit(f"{name}.widen", x, (inward, inner), 1)
        y = self.unit(f"{name}.depthwise", y, (inner, inner), 3, stride, groups=inner)
        y = self.convolution(f"{name}.narrow.conv", y, (inner, outward), 1, gain=1)
        if stride == 1 and inward == outward:
            y = self.node("Add", f"{name}.add", [x, y])
        return y


def build(
    batch: int = 1,
    seed: int = 0,
    *,
    multiplier: float = 1.0,
    features: int = 1280,
    image_size: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """MobileNetV2: `image` [batch, 3, image_size, image_size] to `logits` [batch, classes].

    `multiplier` scales the channel counts of all convolutions but the last, which has `features`. The same
    arguments give the same bytes.
    """
    writer = MobileNetWriter(seed)
    writer.constant("relu6.lowest", np.array(0, np.float32))
    writer.constant("relu6.highest", np.array(6, np.float32))
    inward = scaled(STEM_CHANNELS, multiplier)
    x = writer.unit("stem", "image", (3, inward), 3, 2)
    for stage, (expansion, channels, blocks, first_stride) in enumerate(STAGES, 1):
        outward = scaled(channels, multiplier)
        for block in range(blocks):
            stride = 1 if block else first_stride
            x = writer.inverted_residual(f"stage{stage}.block{block + 1}", x, (inward, outward), stride, expansion)
            inward = outward
    x = writer.unit("head", x, (inward, features), 1)
    x = writer.node("GlobalAveragePool", "head.pool", [x])
    x = writer.node("Flatten", "head.flatten", [x], axis=1)
    weight = writer.normal("head.fc.weight", (classes, features), features**-0.5)
    bias = writer.normal("head.fc.bias", (classes,), 0.05)
    writer.node("Gemm", "head.fc", [x, weight, bias], "logits", transB=1)

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, image_size, image_size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])
    return writer.model("mobilenet_v2", [image], [logits])


def main() -> None:
    """Write the model to a file."""
    parser = argparse.ArgumentParser(description="Build MobileNetV2 with seeded random weights.")
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--multiplier", type=float, default=1.0, help="of the channel counts")
    parser.add_argument("--features", type=int, default=1280, help="channels of the last convolution")
    parser.add_argument("--image-size", type=int, default=224, help="height and width, in pixels")
    parser.add_argument("--classes", type=int, default=1000)
    given = vars(parser.parse_args())
    output: Path = given.pop("output")
    onnx.save(build(**given), output)


if __name__ == "__main__":
    main()
