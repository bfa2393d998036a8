"""Building loop nests: loops are opened and closed around instructions; coordinates grow with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from birc.compiler.ir.plan import Access
from birc.runtime.errors import InternalError
from birc.runtime.program import Affine, Axis, Box, Instruction, Loop, affine


@dataclass(slots=True)
class OpenLoop:
    """A loop that is being filled."""

    kind: str
    extent: int
    level: str
    limit: Affine | None = None
    body: list[Loop | Instruction] = field(default_factory=list)


@dataclass(slots=True)
class NestBuilder:
    """A kernel's nests while they are written. `origin` holds the first coordinate of the current tile by dimension.

    Loops of one iteration are not written; the depth of such a loop is None.
    """

    nests: list[Loop | Instruction] = field(default_factory=list)
    stack: list[OpenLoop] = field(default_factory=list)
    origin: dict[str, Affine] = field(default_factory=dict)

    @contextmanager
    def loop(
        self, extent: int, step: int = 0, dimension: str = "", kind: str = "par", level: str = "tile"
    ) -> Iterator[int | None]:
        """Open a loop that moves `dimension` by `step` an iteration; yields its depth."""
        if extent == 1:
            yield None
            return
        depth = len(self.stack)
        self.stack.append(OpenLoop(kind, extent, level))
        saved = self.origin.get(dimension, Affine())
        if dimension:
            self.origin[dimension] = saved + affine(0, {depth: step})
        yield depth
        if dimension:
            self.origin[dimension] = saved
        self._close()

    def _close(self) -> None:
        done = self.stack.pop()
        self.append(Loop(done.kind, done.extent, tuple(done.body), done.level, done.limit))

    @contextmanager
    def where(self, number: Affine) -> Iterator[None]:
        """Only in iterations of the loops around in which a number is positive."""
        self.stack.append(OpenLoop("seq", 1, "tile", number))
        yield
        self._close()

    @contextmanager
    def moved(self, dimension: str, step: int) -> Iterator[None]:
        """Coordinates along `dimension` are `step` further on."""
        saved = self.origin.get(dimension, Affine())
        self.origin[dimension] = saved + Affine(step)
        yield
        self.origin[dimension] = saved

    def append(self, item: Loop | Instruction) -> None:
        """Add an instruction or a finished loop at the current place."""
        (self.stack[-1].body if self.stack else self.nests).append(item)

    def counter(self, depths: list[int]) -> Affine:
        """The number of iterations of the loops at `depths`, taken together, before the current one."""
        terms, step = {}, 1
        for depth in reversed(depths):
            terms[depth] = step
            step *= self.stack[depth].extent
        return affine(0, terms)

    def depths(self, *, level: str = "tile") -> list[int]:
        """The depths of the open loops of a level, outermost first."""
        return [depth for depth, loop in enumerate(self.stack) if loop.level == level]

    def inner_depths(self) -> list[int]:
        """The depths of all open loops that stay on their SPC."""
        return [depth for depth, loop in enumerate(self.stack) if loop.level != "spc"]

    def box(self, slot: int, access: Access, tile: Mapping[str, int], reach: Mapping[str, int]) -> Box:
        """The box an access touches in the current tile; an axis goes on for the iterations of the loops in `reach`."""
        axes = []
        for index in access.index:
            start = Affine(index.constant)
            extent, step = 1, 1
            beyond = sum(factor * (reach.get(name, 1) - 1) for name, factor in index.terms)
            for name, factor in index.terms:
                start = start + self.origin.get(name, Affine()) * factor
                if tile.get(name, 1) > 1:
                    if extent > 1:
                        raise InternalError(f"a coordinate moves with two tiled dimensions: {index}")
                    extent, step = tile[name], factor
            if beyond and step != 1:
                raise InternalError(f"a patch of every {step}. pixel: {index}")
            axes.append(Axis(start, extent + beyond, step))
        return Box(slot, tuple(axes), access.fill)


def mask(depths: list[int | None]) -> int:
    """The bit mask of loops; those that were not written do not count."""
    return sum(1 << depth for depth in depths if depth is not None)
