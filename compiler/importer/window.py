"""The sliding window of convolutions and pools, and what auto_pad and ceil_mode mean for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from birc.compiler.importer.onnx_node import OnnxNode
from birc.runtime.errors import BadModelError

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """One entry per spatial dimension; `begins` and `ends` are the padding before and after each."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    begins: Sizes
    ends: Sizes

    @property
    def extent(self) -> Sizes:
        """How many elements the window spans in each dimension."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilation, strict=True))

    def is_whole(self, spatial: Sizes) -> bool:
        """Whether the only window is all of dimensions of sizes `spatial`, without padding."""
        return self.extent == self.kernel == spatial and not any((*self.begins, *self.ends))

    def results(self, spatial: Sizes) -> Sizes:
        """How many windows there are along each dimension of sizes `spatial`."""
        return tuple(
            (size + begin + end - extent) // stride + 1
            for size, begin, end, extent, stride in zip(
                spatial, self.begins, self.ends, self.extent, self.stride, strict=True
            )
        )


def padded_window(node: OnnxNode, kernel: Sizes, spatial: Sizes) -> Window:
    """The window of `node` over dimensions of sizes `spatial`, with auto_pad resolved.

    Raises `BadModelError` for attributes of wrong lengths or values.
    """
    if len(kernel) != len(spatial):
        raise BadModelError(f"a window of {len(kernel)} dimensions over {len(spatial)}", where=node.where)
    window = read_window(node, kernel)
    begins, ends = resolve_pads(node, window, spatial)
    return replace(window, begins=begins, ends=ends)


def checked(node: OnnxNode, window: Window, spatial: Sizes) -> Window:
    """The window. Raises `BadModelError` when it does not fit into dimensions of sizes `spatial`."""
    if min(window.results(spatial), default=1) < 1:
        pads = [*window.begins, *window.ends]
        raise BadModelError(
            f"a window of {list(window.extent)} does not fit into {list(spatial)} with pads {pads}", where=node.where
        )
    return window


def read_window(node: OnnxNode, kernel: Sizes) -> Window:
    """The window of `node`, whose default kernel is `kernel`, before it is padded.

    Raises `BadModelError` for wrong lengths or values.
    """
    ones, zeros = (1,) * len(kernel), (0,) * len(kernel)
    window = Window(
        node.ints_attribute("kernel_shape", kernel),
        node.ints_attribute("strides", ones),
        node.ints_attribute("dilations", ones),
        zeros,
        zeros,
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


def rounded_up(window: Window, spatial: Sizes) -> Window:
    """The window, padded so that rounding down gives what ceil_mode = 1 asks for.

    Rounding up adds a last, partial window unless it would start beyond the input and the padding before it
    (ONNX operator reference, MaxPool). An only window that is larger than the padded input is cut to that.
    """
    kernel, ends = list(window.kernel), []
    for axis, (size, stride, step, begin, end) in enumerate(
        zip(spatial, window.stride, window.dilation, window.begins, window.ends, strict=True)
    ):
        padded, extent = size + begin + end, window.extent[axis]
        count = -(-(padded - extent) // stride) + 1
        if (count - 1) * stride >= size + begin:
            count -= 1
        if count == 1 and extent > padded:
            kernel[axis] = (padded - 1) // step + 1
            extent = (kernel[axis] - 1) * step + 1
        ends.append(max((count - 1) * stride + extent - size - begin, 0))
    return replace(window, kernel=tuple(kernel), ends=tuple(ends))
