"""The sliding window of convolutions and pools, and what auto_pad and ceil_mode mean for it."""

from __future__ import annotations

from dataclasses import dataclass

from birc.compiler.importer.onnx_node import OnnxNode
from birc.runtime.errors import BadModelError

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """One entry per spatial dimension."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    @property
    def extent(self) -> Sizes:
        """How many elements the window spans in each dimension."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilation, strict=True))


def read_window(node: OnnxNode, kernel: Sizes) -> Window:
    """The window of `node`, whose default kernel is `kernel`. Raises `BadModelError` for wrong lengths or
    values.
    """
    ones = (1,) * len(kernel)
    window = Window(
        node.ints_attribute("kernel_shape", kernel),
        node.ints_attribute("strides", ones),
        node.ints_attribute("dilations", ones),
    )
    for name, sizes in (
        ("kernel_shape", window.kernel),
        ("strides", window.stride),
        ("dilations", window.dilation),
    ):
        if len(sizes) != len(kernel) or min(sizes, default=1) < 1:
            raise BadModelError(f"{name} is {list(sizes)}, not {len(kernel)} numbers of at least 1", where=node.where)
    if window.kernel != kernel:
        raise BadModelError(f"kernel_shape {list(window.kernel)} against weights of {list(kernel)}", where=node.where)
    return window


def resolve_pads(node: OnnxNode, window: Window, spatial: Sizes) -> tuple[Sizes, Sizes]:
    """The pads before and after each dimension of sizes `spatial`, with auto_pad resolved.

    Source: ONNX operator reference, Conv: SAME gives ceil(size / stride) outputs and splits the padding, the
    odd element after (UPPER) or before (LOWER).
    """
    mode = node.string_attribute("auto_pad", "NOTSET")
    rank = len(spatial)
    if mode == "NOTSET":
        pads = node.ints_attribute("pads", (0,) * (2 * rank))
        if len(pads) != 2 * rank or min(pads, default=0) < 0:
            raise BadModelError(f"pads is {list(pads)}, not {2 * rank} numbers of at least 0", where=node.where)
        return pads[:rank], pads[rank:]
    if mode == "VALID":
        return (0,) * rank, (0,) * rank
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise BadModelError(f"auto_pad {mode!r} is not a mode of ONNX", where=node.where)
    begins, ends = [], []
    for size, extent, stride in zip(spatial, window.extent, window.stride, strict=True):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        smaller = total // 2
        begins.append(smaller if mode == "SAME_UPPER" else total - smaller)
        ends.append(total - begins[-1])
    return tuple(begins), tuple(ends)


def ceil_ends(window: Window, spatial: Sizes, begins: Sizes, ends: Sizes) -> Sizes:
    """The pads after each dimension with which rounding down gives what ceil_mode = 1 asks for.

    Rounding up adds a last, partial window unless it would start beyond the input and the padding before it
    (ONNX operator reference, MaxPool).
    """
    result = []
    for size, extent, stride, begin, end in zip(spatial, window.extent, window.stride, begins, ends, strict=True):
        count = -(-(size + begin + end - extent) // stride) + 1
        if (count - 1) * stride >= size + begin:
            count -= 1
        result.append(max((count - 1) * stride + extent - size - begin, 0))
    return tuple(result)
