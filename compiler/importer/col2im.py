"""Lowering of Col2Im: each pixel is the sum of the columns' elements that lie on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.counting import reduced, require_helpers
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.run_time import are, declared_result, flattened, held, together
from birc.compiler.importer.shape import reshape
from birc.compiler.importer.window import Sizes
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

MOST_BLOCKS: Final = 16
"""Block shapes of which each gets a table of its own."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where the elements of columns lie: one entry a dimension of the image."""

    image: Sizes
    stride: Sizes
    dilation: Sizes
    begins: Sizes
    ends: Sizes

    def counts(self, block: Sizes) -> Sizes:
        """How many blocks there are along each dimension."""
        return tuple(
            (size + begin + end - dilation * (taps - 1) - 1) // stride + 1
            for size, begin, end, dilation, taps, stride in zip(
                self.image, self.begins, self.ends, self.dilation, block, self.stride, strict=True
            )
        )

    def sources(self, block: Sizes) -> np.ndarray:
        """For each pixel the elements, position in the block * blocks + block, that lie on it (pixels x most).

        Rows are filled up with the number of all elements.
        """
        counts, rank = self.counts(block), len(block)
        positions = np.indices((*block, *counts), np.int32).reshape(2 * rank, -1)
        scale, step, before = (
            np.array(sizes, np.int32)[:, None] for sizes in (self.dilation, self.stride, self.begins)
        )
        places = positions[:rank] * scale + positions[rank:] * step - before
        inside = np.all((places >= 0) & (places < np.array(self.image)[:, None]), axis=0)
        elements = np.flatnonzero(inside)
        pixels = np.ravel_multi_index(tuple(places[:, inside]), self.image)
        order = np.argsort(pixels, kind="stable")
        pixels, elements = pixels[order], elements[order]
        total = math.prod(self.image)
        hits = np.bincount(pixels, minlength=total)
        require_helpers(total * int(hits.max(initial=1)), "the table of what lies on each pixel")
        table = np.full((total, int(hits.max(initial=1))), positions.shape[1], np.int32)
        firsts = np.cumsum(hits) - hits
        table[pixels, np.arange(len(pixels)) - firsts[pixels]] = elements
        return table


def _col2im(node: OnnxNode, build: GraphBuilder) -> Results:
    """Where the block's shape is only known at run time, every one that fits the sizes gets its table."""
    x, image, block = node.input(0), flattened(build, node.input(1)), flattened(build, node.input(2))
    batch, depth, length = build.shape(x)
    columns = _columns(node, build, image)
    known = build.constant_of(block)
    if known is not None:
        blocks = [tuple(int(size) for size in known)]
    else:
        channels = declared_result(node, build)[1]
        blocks = list(_factors(depth // channels, len(columns.image))) if depth % max(channels, 1) == 0 else []
    blocks = [sizes for sizes in blocks if _fits(columns, sizes, depth, length)]
    if not blocks:
        raise BadModelError(f"no blocks of an image {list(columns.image)} give {depth} x {length}", where=node.where)
    if len(blocks) > MOST_BLOCKS:
        raise CannotLower(f"{len(blocks)} shapes of a block give its columns, at most {MOST_BLOCKS} can be tried")
    conditions = [] if build.constant_of(image) is not None else [are(build, image, columns.image)]
    require_helpers(len(blocks) * depth * length, "the places of the columns' elements")
    sources = build.constant(columns.sources(blocks[0]))
    if known is None:
        sources, condition = _chosen_sources(build, columns, blocks, block)
        conditions.append(condition)
    elements = math.prod(blocks[0]) * length
    flat = reshape(build, x, (batch, depth * length // elements, elements))
    zero = build.splat(0, build.type_of(flat).with_shape((*build.shape(flat)[:2], 1)))
    seen = build.emit("gather", (build.emit("concat", (flat, zero), {"axis": 2}), sources), {"axis": 2})
    result = reshape(build, reduced(build, "reduce_sum", seen, 3), (*build.shape(flat)[:2], *columns.image))
    return held(build, result, conditions)


def _columns(node: OnnxNode, build: GraphBuilder, image: str) -> _Columns:
    known = build.constant_of(image)
    sizes = declared_result(node, build)[2:] if known is None else tuple(int(size) for size in known)
    rank = len(sizes)
    ones = (1,) * rank
    pads = node.ints_attribute("pads", (0,) * (2 * rank))
    found = _Columns(
        sizes, node.ints_attribute("strides", ones), node.ints_attribute("dilations", ones), pads[:rank], pads[rank:]
    )
    lists = (found.stride, found.dilation, found.begins, found.ends)
    if any(len(entry) != rank for entry in lists) or min((*found.stride, *found.dilation, *sizes)) < 1:
        raise BadModelError(f"strides, dilations or pads do not belong to an image {list(sizes)}", where=node.where)
    return found


def _fits(columns: _Columns, block: Sizes, depth: int, length: int) -> bool:
    if len(block) != len(columns.image) or min(block) < 1 or depth % math.prod(block):
        return False
    counts = columns.counts(block)
    return min(counts) >= 1 and math.prod(counts) == length


def _factors(product: int, count: int) -> Iterator[Sizes]:
    """Every list of `count` sizes with this product."""
    if count == 1:
        yield (product,)
        return
    for first in range(1, product + 1):
        if product % first == 0:
            for rest in _factors(product // first, count - 1):
                yield (first, *rest)


def _chosen_sources(build: GraphBuilder, columns: _Columns, blocks: Sequence[Sizes], block: str) -> tuple[str, str]:
    """The table of the block that arrives, and whether it is one of those there are tables for."""
    tables = [columns.sources(sizes) for sizes in blocks]
    width = max(table.shape[1] for table in tables)
    nothing = math.prod(blocks[0]) * math.prod(columns.counts(blocks[0]))
    wide = [np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=nothing) for table in tables]
    flags = [together(build, [are(build, block, sizes)]) for sizes in blocks]
    result, is_known = build.constant(wide[0]), flags[0]
    for flag, table in zip(flags[1:], wide[1:], strict=True):
        result = build.emit("where", (flag, build.constant(table), result))
        is_known = build.emit("or", (is_known, flag))
    return build.emit("cast", (result,), {"to": dtype("i32")}), is_known


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("Col2Im", _col2im, since=18),)
