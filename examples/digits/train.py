"""Train a small convolutional network on scikit-learn's 8x8 digits and export it to ONNX.

    python examples/digits/train.py [OUTPUT_FOLDER]

Writes `digits.onnx` (the network) and `digits_test.npz` (the held-out images and their labels). Training is
plain numpy with hand-written gradients and takes well under two minutes; the seed fixes every random choice.
scikit-learn is needed here, for the data only. The last 360 of the 1797 images are held out: they are used
once, to measure the accuracy that is printed at the end, and no choice was made by looking at them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

Array = np.ndarray
Parameters = dict[str, Array]

HELD_OUT_IMAGES = 360
BRIGHTEST_PIXEL = 16.0  # the data set's pixels are counts from 0 to 16
IMAGE_SIZE = 8
CHANNELS = (1, 16, 32)
HIDDEN = 64
CLASSES = 10
OPSET = 17
IR_VERSION = 8

EPOCHS = 40
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4
SEED = 0


@dataclass(frozen=True, slots=True)
class Digits:
    """Images [count, 1, 8, 8] with pixels 0 to 16, and labels [count]."""

    images: Array
    labels: Array


def load_split() -> tuple[Digits, Digits]:
    """The training images and the held-out ones, in the data set's own order."""
    bunch = load_digits()
    images = bunch.images.astype(np.float32)[:, None]
    labels = bunch.target.astype(np.int64)
    cut = len(images) - HELD_OUT_IMAGES
    return Digits(images[:cut], labels[:cut]), Digits(images[cut:], labels[cut:])


def initial_parameters(rng: np.random.Generator) -> Parameters:
    """He-normal weights and zero biases."""
    pooled = (IMAGE_SIZE // 2) ** 2 * CHANNELS[2]
    shapes = {
        "conv1": (CHANNELS[1], CHANNELS[0], 3, 3),
        "conv2": (CHANNELS[2], CHANNELS[1], 3, 3),
        "fc1": (HIDDEN, pooled),
        "fc2": (CLASSES, HIDDEN),
    }
    parameters: Parameters = {}
    for layer, shape in shapes.items():
        fan_in = int(np.prod(shape[1:]))
        parameters[f"{layer}.weight"] = rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        parameters[f"{layer}.bias"] = np.zeros(shape[0], np.float32)
    return parameters


def windows(x: Array) -> Array:
    """The 3x3 neighbourhoods of x [n, c, h, w], zero padded: [n, h, w, c * 9]."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    view = sliding_window_view(padded, (3, 3), axis=(2, 3))
    return view.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


def convolve(x: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """A 3x3 convolution that keeps the image size; also returns the windows, which the gradient needs."""
    columns = windows(x)
    y = columns @ weight.reshape(len(weight), -1).T + bias
    return y.transpose(0, 3, 1, 2), columns


def convolve_gradient(dy: Array, columns: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Gradients of a convolution: by its input, by its weight, by its bias."""
    flat = dy.transpose(0, 2, 3, 1).reshape(-1, len(weight))
    dweight = (flat.T @ columns.reshape(len(flat), -1)).reshape(weight.shape)
    mirrored = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    dx, _ = convolve(dy, mirrored, np.zeros(len(mirrored), np.float32))
    return dx, dweight, flat.sum(0)


def loss_gradients(parameters: Parameters, images: Array, labels: Array) -> Parameters:
    """Gradients of the mean cross-entropy of one batch by every parameter."""
    p = parameters
    a1, columns1 = convolve(images / BRIGHTEST_PIXEL, p["conv1.weight"], p["conv1.bias"])
    r1 = np.maximum(a1, 0)
    a2, columns2 = convolve(r1, p["conv2.weight"], p["conv2.bias"])
    n, c, h, w = a2.shape
    cells = np.maximum(a2, 0).reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    cells = cells.reshape(n, c, h // 2, w // 2, 4)
    winner = cells.argmax(-1)[..., None]
    pooled = np.take_along_axis(cells, winner, -1).reshape(n, -1)
    a3 = pooled @ p["fc1.weight"].T + p["fc1.bias"]
    r3 = np.maximum(a3, 0)
    logits = r3 @ p["fc2.weight"].T + p["fc2.bias"]

    odds = np.exp(logits - logits.max(1, keepdims=True))
    dlogits = odds / odds.sum(1, keepdims=True)
    dlogits[np.arange(n), labels] -= 1
    dlogits /= n
    da3 = (dlogits @ p["fc2.weight"]) * (a3 > 0)
    dpooled = (da3 @ p["fc1.weight"]).reshape(n, c, h // 2, w // 2, 1)
    dcells = np.zeros_like(cells)
    np.put_along_axis(dcells, winner, dpooled, -1)
    dr2 = dcells.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(a2.shape)
    dr1, dweight2, dbias2 = convolve_gradient(dr2 * (a2 > 0), columns2, p["conv2.weight"])
    _, dweight1, dbias1 = convolve_gradient(dr1 * (a1 > 0), columns1, p["conv1.weight"])
    return {
        "conv1.weight": dweight1, "conv1.bias": dbias1,
        "conv2.weight": dweight2, "conv2.bias": dbias2,
        "fc1.weight": da3.T @ pooled, "fc1.bias": da3.sum(0),
        "fc2.weight": dlogits.T @ r3, "fc2.bias": dlogits.sum(0),
    }  # fmt: skip


class Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(self, parameters: Parameters) -> None:
        self.steps = 0
        self.mean = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.square = {name: np.zeros_like(value) for name, value in parameters.items()}

    def update(self, parameters: Parameters, gradients: Parameters, rate: float) -> None:
        """Move the parameters, in place, one step."""
        self.steps += 1
        for name, gradient in gradients.items():
            mean = self.mean[name] = 0.9 * self.mean[name] + 0.1 * gradient
            square = self.square[name] = 0.999 * self.square[name] + 0.001 * gradient**2
            step = mean / (1 - 0.9**self.steps) / (np.sqrt(square / (1 - 0.999**self.steps)) + 1e-8)
            parameters[name] -= (rate * (step + WEIGHT_DECAY * parameters[name])).astype(np.float32)


def shifted(images: Array, rng: np.random.Generator) -> Array:
    """Each image moved by at most one pixel in each direction, zeros moving in."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    down, right = rng.integers(0, 3, (2, len(images)))
    rows = down[:, None] + np.arange(IMAGE_SIZE)
    columns = right[:, None] + np.arange(IMAGE_SIZE)
    count = np.arange(len(images))
    return padded[count[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(data: Digits, seed: int = SEED) -> Parameters:
    """Parameters after EPOCHS passes over the data, the learning rate falling along a cosine."""
    rng = np.random.default_rng(seed)
    parameters = initial_parameters(rng)
    optimiser = Adam(parameters)
    for epoch in range(EPOCHS):
        rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS))
        order = rng.permutation(len(data.images))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            images = shifted(data.images[chosen], rng)
            optimiser.update(parameters, loss_gradients(parameters, images, data.labels[chosen]), rate)
    return parameters


def to_onnx(parameters: Parameters) -> onnx.ModelProto:
    """The trained network: `image` [batch, 1, 8, 8], pixels 0 to 16, to `logits` [batch, 10]."""
    constants = {
        **parameters,
        "brightest_pixel": np.array(BRIGHTEST_PIXEL, np.float32),
    }
    same_size: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    node = helper.make_node
    nodes = [
        node("Div", ["image", "brightest_pixel"], ["scaled"], "normalise"),
        node("Conv", ["scaled", "conv1.weight", "conv1.bias"], ["conv1_out"], "conv1", **same_size),
        node("Relu", ["conv1_out"], ["relu1_out"], "relu1"),
        node("Conv", ["relu1_out", "conv2.weight", "conv2.bias"], ["conv2_out"], "conv2", **same_size),
        node("Relu", ["conv2_out"], ["relu2_out"], "relu2"),
        node("MaxPool", ["relu2_out"], ["pool_out"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["pool_out"], ["flatten_out"], "flatten", axis=1),
        node("Gemm", ["flatten_out", "fc1.weight", "fc1.bias"], ["fc1_out"], "fc1", transB=1),
        node("Relu", ["fc1_out"], ["relu3_out"], "relu3"),
        node("Gemm", ["relu3_out", "fc2.weight", "fc2.bias"], ["logits"], "fc2", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, IMAGE_SIZE, IMAGE_SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="train.py")
    onnx.checker.check_model(model, full_check=True)
    return model


def predict(parameters: Parameters, images: Array) -> Array:
    """The most likely class of each image, in numpy."""
    p = parameters
    x = images / BRIGHTEST_PIXEL
    for layer in ("conv1", "conv2"):
        x = np.maximum(convolve(x, p[f"{layer}.weight"], p[f"{layer}.bias"])[0], 0)
    n, c, h, w = x.shape
    pooled = x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5)).reshape(n, -1)
    hidden = np.maximum(pooled @ p["fc1.weight"].T + p["fc1.bias"], 0)
    return (hidden @ p["fc2.weight"].T + p["fc2.bias"]).argmax(1)


def main() -> None:
    """Train, export, and report the accuracy on the held-out images."""
    parser = argparse.ArgumentParser(description="Train the digits network and export it to ONNX.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder: Path = parser.parse_args().folder
    training, held_out = load_split()
    parameters = train(training)
    onnx.save(to_onnx(parameters), folder / "digits.onnx")
    np.savez_compressed(folder / "digits_test.npz", image=held_out.images, label=held_out.labels)
    for title, data in (("training", training), ("held out", held_out)):
        accuracy = float(np.mean(predict(parameters, data.images) == data.labels))
        print(f"{title}: {accuracy:.4f} of {len(data.images)} images")


if __name__ == "__main__":
    main()
