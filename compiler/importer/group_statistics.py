"""Normalisation by statistics of groups of channels, computed so that images may lie channels last.

The mean of a group is the mean of the means of its channels: what walks an image sums pixels, channel beside channel,
and only a number for each channel is seen in groups. Each pixel is scaled and shifted by numbers of its channel.
A signal, which has one dimension, is an image of which the rows follow each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.floats import widened
from birc.compiler.importer.moments import inverse_root
from birc.compiler.importer.shape import reshape
from birc.compiler.importer.term import Term

LONG_SIGNAL: Final = 512
"""Elements from which on a signal is summed up in steps: a tile of all of them has few channels."""


def standardized(build: GraphBuilder, x: str, groups: int, epsilon: float) -> str:
    """(x - mean) / sqrt(variance + epsilon), in the type of `x`.

    Mean and variance are those of each of `groups` equal groups of the channels, dimension 1, of a sample. The variance
    is that of deviations; a pixel is scaled first and shifted then, as deviations of all pixels need not be kept. A
    long signal is seen as an image, which is summed up row by row.
    """
    shape = build.shape(x)
    image = _as_image(shape)
    if image != shape:
        return reshape(build, standardized(build, reshape(build, x, image), groups, epsilon), shape)
    wide = Term(build, widened(build, x))
    of = _Groups(shape, groups)
    mean = of.spread(of.mean(wide))
    centred = wide - of.lined(mean)
    scale = of.spread(inverse_root(of.mean(centred * centred), epsilon))
    shift = -(mean * scale)
    return cast(build, (wide * of.lined(scale) + of.lined(shift)).name, build.type_of(x).dtype)


def _as_image(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a long signal with its length as rows of pixels, as many as a row has or a few more."""
    if len(shape) != 3 or shape[2] < LONG_SIGNAL:
        return shape
    width = next(n for n in range(isqrt(shape[2]), 0, -1) if shape[2] % n == 0)
    return (*shape[:2], shape[2] // width, width) if width > 1 else shape


@dataclass(frozen=True, slots=True)
class _Groups:
    """Equal groups of the channels, dimension 1, of images of a `shape`: so `many` in each sample."""

    shape: tuple[int, ...]
    many: int

    def mean(self, image: Term) -> Term:
        """The mean of each group of each sample."""
        batch, channels = self.shape[:2]
        pixels = range(2, len(self.shape))
        of_channels = image.reduce("reduce_mean", *pixels) if pixels else image
        if self.many == channels:
            return of_channels
        return of_channels.reshape(batch, self.many, channels // self.many).reduce("reduce_mean", 2)

    def spread(self, numbers: Term) -> Term:
        """A number for each channel of each sample, of those for groups."""
        return for_channels(numbers, self.shape[1], axis=1)

    def lined(self, numbers: Term) -> Term:
        """A number for each channel, lined up with the images."""
        return numbers.reshape(*self.shape[:2], *(1 for _ in self.shape[2:]))


def grouped_channels(build: GraphBuilder, x: str) -> str | None:
    """The value whose channels lie side by side in those of `x`, several in each; None where there is none.

    Exporters write a normalisation by groups as one of instances whose channels are groups, reshaped before and after.
    """
    maker = build.maker(x)
    if maker is None or maker.op != "reshape" or len(build.shape(x)) < 3:
        return None
    (batch, groups, *_), (source,) = build.shape(x), maker.inputs
    shape = build.shape(source)
    is_divided = len(shape) > 2 and shape[0] == batch and shape[1] > groups and shape[1] % groups == 0
    return source if is_divided else None


def for_channels(numbers: Term, channels: int, axis: int = 0) -> Term:
    """A number for each channel, of those for equal groups of channels along an axis."""
    groups = numbers.shape[axis]
    each = np.repeat(np.arange(groups, dtype=np.int32), channels // groups)
    return numbers if groups == channels else numbers.gather(each, axis)
