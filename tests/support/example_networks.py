"""Small networks by the builders of the examples, and random inputs for them."""

from __future__ import annotations

import numpy as np
import onnx
from networks import Values, example_module, random_image

VOCAB = 50
TWO_LAYERS = {"layers": 2, "hidden": 32, "heads": 4, "sequence": 12, "vocab": VOCAB}
SMALL: dict[str, dict[str, float]] = {
    "resnet50": {"width": 8, "image_size": 64, "classes": 20},
    "mobilenet_v2": {"multiplier": 0.25, "features": 64, "image_size": 64, "classes": 20},
    "bert": {**TWO_LAYERS, "intermediate": 48},
    "gpt2": {**TWO_LAYERS, "positions": 16},
    "llama": {**TWO_LAYERS, "kv_heads": 2, "intermediate": 48},
}


def small(name: str, **changed: float) -> onnx.ModelProto:
    """A small network by one of the builders."""
    return example_module(f"{name}.py").build(**{"batch": 2, **SMALL[name], **changed})


def random_inputs(model: onnx.ModelProto, masked: int = 0) -> Values:
    """A random image, or random tokens, the last `masked` of them padding."""
    rng = np.random.default_rng(0)
    if model.graph.input[0].name == "image":
        return random_image(model, rng)
    batch, sequence = (dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim)
    place = np.arange(sequence) + np.zeros((batch, 1), np.int64)
    values = {
        "input_ids": rng.integers(0, VOCAB, (batch, sequence)),
        "attention_mask": (place < sequence - masked).astype(np.int64),
        "token_type_ids": (place >= sequence // 2).astype(np.int64),
    }
    return {value.name: values[value.name] for value in model.graph.input}
