"""All claims about one kernel, whatever its buffers are called and wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from birc.compiler.ir.affine import Range, constant, weighted
from birc.compiler.ir.plan import Buffer, Index, Kernel
from birc.compiler.ir.plan_access import accesses, with_views
from birc.compiler.ir.plan_verify_kernel import bounds
from birc.compiler.ir.polyhedra import Elements
from birc.compiler.ir.proof.bounds import bounds_flaws
from birc.compiler.ir.proof.boxes import FastPath, box_flaws
from birc.compiler.ir.proof.flaw import Flaw
from birc.compiler.ir.proof.independence import independence_flaws, share_flaws
from birc.compiler.ir.proof.storage import Storage
from birc.compiler.ir.proof.touch import Space, Touch
from birc.runtime.errors import InternalError


@dataclass(frozen=True)
class KernelProof:
    """What is known of the kernels of one structure: the claims that do not hold, and what each access touches."""

    space: Space
    storages: Mapping[str, Storage]
    flaws: tuple[Flaw, ...]
    images: dict[int, Elements] = field(default_factory=dict)

    @property
    def touches(self) -> tuple[Touch, ...]:
        """The accesses in order, with the names that the first kernel of the structure has for its buffers."""
        return self.space.touches

    def image(self, number: int) -> Elements:
        """The elements that an access touches within the iteration space."""
        if number not in self.images:
            touch = self.touches[number]
            self.images[number] = _image(self.space, touch, self.storages[touch.access.view.buffer])
        return self.images[number]


def structure(kernel: Kernel, storages: Mapping[str, Storage]) -> object:
    """What the claims about a kernel depend on: equal for kernels that differ in names alone."""
    names = tuple(dict.fromkeys(access.view.buffer for access in accesses(kernel)))
    numbers = {name: str(number) for number, name in enumerate(names)}
    anonymous = with_views(kernel, lambda view: replace(view, buffer=numbers[view.buffer]))
    return replace(anonymous, name="", sources=(), macs=0), tuple(storages[name] for name in names)


def prove_kernel(
    kernel: Kernel, storages: Mapping[str, Storage], spaces: Mapping[str, str], most_spcs: int, fast: FastPath
) -> KernelProof:
    """Try every claim about a kernel. `spaces` are the memories of its buffers, of a die with `most_spcs` SPCs."""
    if kernel.tiling is None:
        raise InternalError("a kernel without tiling cannot be proved", where=kernel.name)
    space = Space(kernel, kernel.tiling)
    return KernelProof(space, storages, tuple(_flaws(space, storages, spaces, most_spcs, fast)))


def _flaws(
    space: Space, storages: Mapping[str, Storage], spaces: Mapping[str, str], most_spcs: int, fast: FastPath
) -> Iterator[Flaw]:
    for touch in space.touches:
        name = touch.access.view.buffer
        storage = storages[name]
        yield from bounds_flaws(space, touch, storage)
        somewhere = Buffer(name, storage.dtype, storage.num_bytes, "scratch", spaces[name], 0)
        yield from box_flaws(space, touch, somewhere, storage.element_bytes, fast)
    yield from independence_flaws(space, storages)
    yield from share_flaws(space, most_spcs)


def _image(space: Space, touch: Touch, storage: Storage) -> Elements:
    number, place = space.spc() if storage.is_local else (constant(0), ())
    conditions = (*space.within(touch.moved), *touch.data, *place)
    view = touch.access.view
    found = Elements.none(4)
    for coordinates, ranges in _coordinates(touch):
        position = weighted(coordinates, view.strides, view.offset)
        found |= storage.elements(view, position, number, (*conditions, *ranges))
    return found


def _coordinates(touch: Touch) -> Iterator[tuple[Sequence[Index], Sequence[Range]]]:
    """The coordinates in memory, and when they are so: beside the view a clamped load takes the nearest element."""
    if touch.access.fill != "clamp":
        yield touch.coordinates, touch.inside
        return
    choices = []
    for coordinate, (low, end) in zip(touch.coordinates, bounds(touch.access.view), strict=True):
        inside = (coordinate, Range(coordinate, low, end))
        before, after = (constant(low), Range(coordinate, None, low)), (constant(end - 1), Range(coordinate, end))
        choices.append((inside, before, after))
    for chosen in product(*choices):
        yield [coordinate for coordinate, _ in chosen], [condition for _, condition in chosen]
