"""Random loop nests without a purpose: registers, input buffers and sums used every which way.

Code generation writes none of these. They show that an engine which turns loops into arrays notices when it may
not: registers carried from one iteration to the next, partial sums that are read, tiles loaded iterations ago.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from programs import Layout, box, i, launch, op, v
from random_kernels import RandomProgram

from birc.runtime.program import Affine, Instruction, Kernel, Loop, Register, RingAddress, Window

Draw = Callable[[st.SearchStrategy], object]
REGISTERS = 8
TILE = 2
_BINARY = ("vadd", "vsub", "vmax", "vmin")
_FOLDS = ("vfoldsum", "vfoldmax", "vfoldmin")


class _Writer:
    """Draws a nest; every store gets a tensor of its own with a dimension for each loop around."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.layout = Layout()
        self.source = self.layout.tensor((40, TILE, TILE))
        self.slots = [self.source]

    def number(self, loops: list[int]) -> Register:
        """A register, sometimes another in each iteration of a loop."""
        if loops and self.draw(st.booleans()):
            depth = self.draw(st.integers(0, len(loops) - 1))
            return v(i(depth) + self.draw(st.integers(0, REGISTERS - loops[depth])))
        return v(self.draw(st.integers(0, REGISTERS - 1)))

    def start(self, loops: list[int]) -> Affine:
        """Where a load begins."""
        start = Affine(self.draw(st.integers(-2, 10)))
        for depth in range(len(loops)):
            start = start + i(depth, self.draw(st.integers(-1, 4)))
        return start

    def ring(self, loops: list[int]) -> RingAddress:
        """One of four addresses of an input buffer."""
        stride = 64 * TILE * 4
        if not loops or self.draw(st.booleans()):
            return RingAddress(Affine(self.draw(st.integers(0, 1)) * stride))
        depth = self.draw(st.integers(0, len(loops) - 1))
        return RingAddress(Affine(), stride, i(depth), self.draw(st.integers(1, 2)))

    def window(self, loops: list[int]) -> Window:
        """`TILE` of the pixels of a tile that is one row or one column of a patch, sometimes beyond it."""
        start = i(self.draw(st.integers(0, len(loops) - 1))) if self.draw(st.integers(0, 3)) == 0 else Affine()
        if self.draw(st.booleans()):
            return Window(start, Affine(), TILE, 1, 1)
        return Window(Affine(), start, 1, TILE, TILE + self.draw(st.integers(0, 1)))

    def mask(self, loops: list[int]) -> int:
        return self.draw(st.integers(0, (1 << len(loops)) - 1))

    def load(self, mnemonic: str, target: Register | RingAddress, loops: list[int]) -> Instruction:
        where = box(0, (self.start(loops), 1), (0, TILE), (0, TILE))
        return op(mnemonic, target, where, *(() if mnemonic == "vld" else (2, "bf16")))

    def store(self, register: Register, loops: list[int]) -> Instruction:
        dims = (*loops, 1, TILE, TILE)
        self.slots.append(self.layout.tensor(dims))
        axes = [(i(depth), 1) for depth in range(len(loops))]
        return op("vst", box(len(self.slots) - 1, *axes, (0, 1), (0, TILE), (0, TILE)), register)

    def product(self, loops: list[int]) -> list[Loop | Instruction]:
        """A product, perhaps summed over a loop of its own, and its drain."""
        inner = [*loops, self.draw(st.integers(1, 3))]
        rings = self.ring(inner), self.ring(inner)
        own = 1 << len(loops)
        mask = own | (self.mask(loops) if self.draw(st.integers(0, 4)) == 0 else 0)
        loads: list[Instruction] = []
        if self.draw(st.booleans()):
            loads = [self.load("tlda", rings[0], inner), self.load("tldb", rings[1], inner)]
        if self.draw(st.booleans()):
            multiply = op("tmma", *rings, TILE, TILE, TILE, "bf16", mask)
        else:
            multiply = op("tconv", rings[0], self.window(inner), rings[1], TILE, TILE, "bf16", mask)
        drain = op("vacc", self.number(loops), (1, TILE, TILE), self.mask(loops))
        return [Loop("red", inner[-1], (*loads, multiply)), drain]

    def instructions(self, loops: list[int]) -> list[Loop | Instruction]:
        """One instruction, or a product with the tiles around it."""
        kind = self.draw(st.sampled_from(["vld", "binary", "binary", "fold", "vst", "tiles", "product", "product"]))
        match kind:
            case "vld":
                return [self.load("vld", self.number(loops), loops)]
            case "binary":
                a, b = self.number(loops), self.number(loops)
                return [op(self.draw(st.sampled_from(_BINARY)), self.number(loops), a, b)]
            case "fold":
                mnemonic = self.draw(st.sampled_from(_FOLDS))
                return [op(mnemonic, self.number(loops), self.number(loops), self.mask(loops))]
            case "tiles":
                return [self.load("tlda", self.ring(loops), loops), self.load("tldb", self.ring(loops), loops)]
            case "product":
                return self.product(loops)
        return [self.store(self.number(loops), loops)]

    def body(self, loops: list[int], budget: int) -> list[Loop | Instruction]:
        """Some instructions and loops."""
        items: list[Loop | Instruction] = []
        for _ in range(self.draw(st.integers(1, 4))):
            if budget and len(loops) < 3 and self.draw(st.integers(0, 2)) == 0:
                extent = self.draw(st.integers(2, 3))
                kind = self.draw(st.sampled_from(["par", "red", "seq"]))
                items.append(Loop(kind, extent, tuple(self.body([*loops, extent], budget - 1))))
            else:
                items += self.instructions(loops)
        return items


@st.composite
def nests(draw: Draw) -> RandomProgram:
    """A kernel of one SPC: all registers and a few tiles are written, then anything may happen.

    Some of these fault: a tile that is not there, an accumulator drained twice.
    """
    writer = _Writer(draw)
    begin = [writer.load("vld", v(number), []) for number in range(REGISTERS)]
    stride = 64 * TILE * 4
    for number in range(2):
        address = RingAddress(Affine(number * stride))
        begin += [writer.load("tlda", address, []), writer.load("tldb", address, [])]
    body = [*begin, *writer.body([], 3), *(writer.store(v(number), []) for number in range(REGISTERS))]
    kernel = Kernel("anything", tuple(body))
    layout = writer.layout
    slots = [(slot, number) for slot, number in enumerate(writer.slots)]
    program = layout.program("anything", (kernel,), launch(*slots), inputs=(), outputs=())
    return RandomProgram(program, ((writer.source, -2, 3),))
