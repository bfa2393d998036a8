"""Which rows of images every SPC makes in a chain of kernels, so that each reads what it made itself.

Of the last kernel the SPCs have bands of rows that are apart; what a kernel makes for the windows of a later one are
the rows that these reach, and so on back to the first kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from birc.compiler.ir.plan import Access, Kernel
from birc.compiler.ir.plan_access import accesses, step_alone
from birc.compiler.passes.lifetimes import writes_of
from birc.compiler.passes.own_images import Held, Rows
from birc.runtime.machine import Machine

MOST_BEYOND = 1.5
"""How many rows of an image an SPC may make for each of its own: the windows of neighbours need the same ones."""
ROWS_TOGETHER = 4
"""Rows that overlap are a multiple of as many of them as a tile holds, at most these, so that tiles come out even."""


@dataclass(frozen=True, slots=True)
class ImageChain:
    """Kernels in a row, and which of them makes each tensor that stays on the SPCs; `others` read some of these, too.

    `elements` tells how many each tensor has.
    """

    kernels: Sequence[Kernel]
    made: Mapping[str, int]
    others: Set[str]
    elements: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Part:
    """Which dimensions of a kernel count rows, and what each SPC makes of them."""

    rows: Rows
    made: Held


@dataclass(frozen=True, slots=True)
class Sight:
    """How a kernel reads images of so many rows: for row r of its own, `reach` from `factor * r + start` on."""

    buffer: str
    rows: int
    factor: int
    start: int
    reach: int


def has_windows(kernel: Kernel) -> bool:
    """Whether a kernel moves windows over images, or by several rows: a chain has one that does."""
    return any(True for access in accesses(kernel) for _ in _moving(kernel, access))


def parts_of(chain: ImageChain, machine: Machine) -> list[Part] | None:
    """The part of each kernel; None when most SPCs cannot have the same images and rows in all of them."""
    most = machine.spcs_per_die
    windows = [_window(kernel, chain.elements) for kernel in chain.kernels]
    images = {of.images for of, _ in filter(None, windows)}
    if len(images) != 1 or max(images) > most:
        return None
    (number,) = images
    heights = _heights(chain, windows)
    if heights is None:
        return None
    bands = max(n for n in range(1, most // number + 1) if all(height % n == 0 for height in heights))
    rows = [
        window[0] if window is not None else _rows(chain, kernel, number, height)
        for kernel, height, window in zip(chain.kernels, heights, windows, strict=True)
    ]
    known = [of for of in rows if of is not None]
    return _parts(chain, known, bands, machine) if 2 * number * bands > most and len(known) == len(rows) else None


def _parts(chain: ImageChain, rows: Sequence[Rows], bands: int, machine: Machine) -> list[Part] | None:
    """The part of each kernel, found from the last one to the first."""
    parts: list[Part] = []
    for number in reversed(range(len(rows))):
        kernel, of, share = chain.kernels[number], rows[number], rows[number].rows // bands
        start, end = 0, share
        own = [name for name, maker in chain.made.items() if maker == number]
        if any(_sight(kernel, a, of, chain.elements) is None for a in accesses(kernel) if a.view.buffer in own):
            return None
        for reader, part in zip(chain.kernels[:number:-1], parts, strict=True):
            for access in (a for a in accesses(reader) if a.view.buffer in own):
                sight = _sight(reader, access, part.rows, chain.elements)
                if sight is None or sight.rows != of.rows or share != sight.factor * part.made.share:
                    return None
                first = sight.factor * part.made.start + sight.start
                start = min(start, first)
                end = max(end, first + sight.factor * (part.made.extent - 1) + sight.reach)
        if bands == 1:
            start, end = 0, share
        extent = end - start
        if extent > share:
            together = _together(kernel, of, machine)
            extent = -(-extent // together) * together
            needed_apart = not writes_of(kernel) <= chain.made.keys() - chain.others
            if needed_apart or extent > MOST_BEYOND * share:
                return None
        parts.append(Part(of, Held(of.rows, bands, start, extent)))
    return parts[::-1]


def _together(kernel: Kernel, of: Rows, machine: Machine) -> int:
    """How many rows of an image a tile of a product holds."""
    names = kernel.contraction.row_dims if kernel.contraction is not None else ()
    pixels = math.prod(kernel.dimension(name).extent for name in names) // (of.images * of.rows)
    return max(1, min(ROWS_TOGETHER, machine.tcore_rows // max(1, pixels)))


def _window(kernel: Kernel, elements: Mapping[str, int]) -> tuple[Rows, Sight] | None:
    """The rows of a kernel that moves windows over images, or by several rows, and how it reads them; else None."""
    found = ((sight, access) for access in accesses(kernel) for sight in _moving(kernel, access))
    best = max(found, key=lambda one: one[0][0], default=None)
    if best is None:
        return None
    (pitch, row, sight), access = best
    images = elements[sight.buffer] // (pitch * sight.rows)
    if images * pitch * sight.rows != elements[sight.buffer]:
        return None
    image = _image(kernel, access, images, pitch * sight.rows)
    if images > 1 and not image:
        return None
    return Rows(image, row, 1, images, kernel.dimension(row).extent), sight


def _moving(kernel: Kernel, access: Access) -> Iterator[tuple[int, str, Sight]]:
    """The axes of an access along which windows move: elements of a row, the dimension that counts rows, the sight."""
    reduced = {d.name: d.extent for d in kernel.red_dims}
    view = access.view
    if view.offset or view.seen or view.lower:
        return
    for index, extent, stride in zip(access.index, view.dims, view.strides, strict=True):
        own = [(name, factor) for name, factor in index.terms if name not in reduced]
        if len(own) != 1 or index.terms == ((own[0][0], 1),) or own[0][1] < 1 or stride < 1:
            continue
        reach = 1 + sum(factor * (reduced[name] - 1) for name, factor in index.terms if name in reduced)
        yield stride, own[0][0], Sight(view.buffer, extent, own[0][1], index.constant, reach)


def _image(kernel: Kernel, access: Access, images: int, pitch: int) -> str:
    """The dimension that alone moves an access from one of so many images to the next; "" when there is none."""
    if images == 1:
        return ""
    return next(
        (d.name for d in kernel.par_dims if d.extent == images and step_alone(kernel, access, d.name) == pitch), ""
    )


def _heights(chain: ImageChain, windows: Sequence[tuple[Rows, Sight] | None]) -> list[int] | None:
    """The rows of an image that each kernel makes; None when they are not the same for all who read them."""
    heights = {number: window[0].rows for number, window in enumerate(windows) if window is not None}
    same: list[tuple[int, int]] = []
    for number, (kernel, window) in enumerate(zip(chain.kernels, windows, strict=True)):
        for name in {a.view.buffer for a in accesses(kernel)} & chain.made.keys():
            if window is not None and window[1].buffer == name:
                if heights.setdefault(chain.made[name], window[1].rows) != window[1].rows:
                    return None
            elif chain.made[name] != number:
                same.append((chain.made[name], number))
    for _ in chain.kernels:
        for pair in same:
            for one, other in (pair, pair[::-1]):
                if one in heights and heights.setdefault(other, heights[one]) != heights[one]:
                    return None
    return [heights[number] for number in range(len(windows))] if len(heights) == len(windows) else None


def _rows(chain: ImageChain, kernel: Kernel, images: int, height: int) -> Rows | None:
    """The dimensions of a kernel without windows that count so many rows of so many images."""
    access = next((a for a in accesses(kernel) if a.view.buffer in chain.made), None)
    if access is None:
        return None
    pitch = chain.elements[access.view.buffer] // images
    image = _image(kernel, access, images, pitch)
    for d in kernel.par_dims:
        span = step_alone(kernel, access, d.name) * d.extent
        if span == pitch * images and d.extent % (images * height) == 0:
            return Rows("", d.name, d.extent // (images * height), images, height)
        if image and span == pitch and d.extent % height == 0:
            return Rows(image, d.name, d.extent // height, images, height)
    return None


def _sight(kernel: Kernel, access: Access, of: Rows, elements: Mapping[str, int]) -> Sight | None:
    """How an access sees images of a tensor; None when the kernel's rows are not rows of these."""
    buffer = access.view.buffer
    whole, step = elements[buffer], step_alone(kernel, access, of.row)
    pitch = whole // of.images
    if step:
        has_images = not of.image or step_alone(kernel, access, of.image) == pitch
        is_whole = step * kernel.dimension(of.row).extent == (pitch if of.image else whole)
        return Sight(buffer, of.rows, 1, 0, 1) if has_images and is_whole else None
    for row, name, sight in _moving(kernel, access):
        if name == of.row and row * sight.rows == pitch and (
            of.images == 1 or step_alone(kernel, access, of.image) == pitch
        ):  # fmt: skip
            return sight
    return None
