"""What the instructions of a plan's kernel touch, found by walking its code on every SPC.

The oracle of proofs about kernels: it knows nothing of how tiles are shared out, only the loops and boxes of the code.
A probe in the kernel, `with_probe`, shows at which points of the iteration space each of them runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import islpy as isl

from birc.codegen.contraction_kernel import emit_contraction_kernel
from birc.codegen.vector_kernel import emit_vector_kernel
from birc.compiler.ir.plan import Access, Index, Kernel, Phase, Statement, View
from birc.compiler.ir.polyhedra import Elements
from birc.runtime.machine import Machine
from birc.runtime.program import Box, Instruction
from birc.runtime.program import Kernel as KernelCode
from birc.runtime.stepping.walk import KernelWalk

PROBE = "probe"
"""The buffer that a probe reads."""
_FAR = 1 << 20


@dataclass(frozen=True)
class Reached:
    """One execution of an access: the SPC, the values of the loops around it, the view, and the coordinates."""

    spc: int
    loops: tuple[int, ...]
    view: View
    stores: bool
    axes: tuple[tuple[int, ...], ...]

    def coordinates(self) -> Iterator[tuple[int, ...]]:
        """All coordinates of the box."""
        yield from product(*self.axes)

    def elements(self) -> Iterator[int]:
        """The elements of the coordinates that are inside the view, each as often as the box has it."""
        for place in self.coordinates():
            if inside(self.view, place):
                yield element(self.view, place)


def inside(view: View, place: tuple[int, ...]) -> bool:
    """Whether coordinates are inside a view."""
    lower = view.lower or (0,) * len(view.dims)
    return all(low <= at < low + extent for at, low, extent in zip(place, lower, view.dims, strict=True))


def element(view: View, place: tuple[int, ...]) -> int:
    """The element at coordinates."""
    return view.offset + sum(at * stride for at, stride in zip(place, view.strides, strict=True))


def evaluate(index: Index, point: Mapping[str, int]) -> int:
    """The value of a coordinate at a point."""
    return index.constant + sum(factor * point[name] for name, factor in index.terms)


def with_probe(kernel: Kernel) -> Kernel:
    """The kernel with a load in its last phase whose coordinates are those of the point."""
    dims = kernel.par_dims
    view = View(PROBE, 0, (_FAR,) * len(dims), (1,) * len(dims))
    access = Access(view, tuple(Index(((d.name, 1),)) for d in dims))
    last = kernel.phases[-1]
    probe = (Statement("vld", PROBE, (), access), Statement("vst", "", (PROBE,), access))
    return replace(kernel, phases=(*kernel.phases[:-1], Phase((*probe, *last.statements), last.loops)))


def walk(kernel: Kernel, machine: Machine) -> list[Reached]:
    """Every execution of every access of a tiled kernel, on every SPC."""
    code, views = _code(kernel, machine)
    walker = KernelWalk(code)
    found = []
    for spc in range(machine.spcs_per_die):
        for step in walker.steps(spc):
            box = _box(step.instruction)
            if box is not None:
                axes = tuple(
                    tuple(axis.start.at(step.variables) + axis.step * at for at in range(axis.extent))
                    for axis in box.axes
                )
                stores = step.instruction.mnemonic == "vst"
                found.append(Reached(spc, step.variables, views[box.slot], stores, axes))
    return found


def _code(kernel: Kernel, machine: Machine) -> tuple[KernelCode, list[View]]:
    if kernel.contraction is None:
        code, slots = emit_vector_kernel(kernel, kernel.tiling)
    else:
        code, slots = emit_contraction_kernel(kernel, kernel.contraction, kernel.tiling, machine)
    return code, slots.views


def _box(instruction: Instruction) -> Box | None:
    return next((operand for operand in instruction.operands if isinstance(operand, Box)), None)


def listed(elements: Elements) -> set[tuple[int, ...]]:
    """The elements of a set, one by one."""
    found: set[tuple[int, ...]] = set()
    points = elements._set
    points.foreach_point(
        lambda point: found.add(
            tuple(
                point.get_coordinate_val(isl.dim_type.set, axis).to_python()
                for axis in range(points.dim(isl.dim_type.set))
            )
        )
    )
    return found
