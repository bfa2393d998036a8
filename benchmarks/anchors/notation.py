"""Short words in which the anchors' kernels are written, and the layout of their memories."""

from __future__ import annotations

import math

from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine
from birc.runtime.program import (
    Affine,
    Axis,
    Box,
    Command,
    CommandLoop,
    ConstantImage,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    Operand,
    Piece,
    Port,
    Program,
    Register,
    Sync,
    affine,
)

Term = Affine | int


def var(depth: int, factor: int = 1) -> Affine:
    """`factor` times the loop variable at `depth`."""
    return affine(0, {depth: factor})


def as_affine(value: Term) -> Affine:
    """A number as an affine one."""
    return value if isinstance(value, Affine) else Affine(value)


def box(slot: int, *axes: tuple[Term, int]) -> Box:
    """A box of (start, extent) axes."""
    return Box(slot, tuple(Axis(as_affine(start), extent) for start, extent in axes), "refuse")


def v(number: Term) -> Register:
    """A vector register."""
    return Register(as_affine(number))


def sync(semaphore: Term, first: int = 0, last: int = 0) -> Sync:
    """A wait or post."""
    return Sync(as_affine(semaphore), first, last)


def op(
    mnemonic: str,
    *operands: Operand,
    waits: tuple[Sync, ...] = (),
    posts: tuple[Sync, ...] = (),
    program: int = 0,
) -> Instruction:
    """An instruction of a T-core queue or, without a loop that spreads it, of this vector program."""
    return Instruction(mnemonic, operands, waits, posts, program)


def par(extent: int, *body: Loop | Instruction, level: str = "tile") -> Loop:
    """A loop of independent iterations."""
    return Loop("par", extent, body, level)


def red(extent: int, *body: Loop | Instruction) -> Loop:
    """A loop that accumulates."""
    return Loop("red", extent, body)


def seq(extent: int, *body: Loop | Instruction) -> Loop:
    """A loop whose iterations use the same scratch memory."""
    return Loop("seq", extent, body)


def command(mnemonic: str, *operands: Operand) -> Command:
    """A command of die 0."""
    return Command(mnemonic, operands, 1)


class Layout:
    """Gives out addresses in HBM, L2 and tensor buffer and collects descriptors."""

    def __init__(self) -> None:
        self.descriptors: list[Descriptor] = []
        self.constants: list[ConstantImage] = []
        self.used = {"hbm": 0, "l2": 0, "tb": 0}

    def tensor(self, dims: tuple[int, ...], element: str = "bf16", space: str = "hbm") -> Descriptor:
        """A new dense tensor."""
        address = self.used[space]
        num_bytes = math.prod(dims) * dtype(element).bits // 8
        self.used[space] += -(-num_bytes // 512) * 512
        strides = tuple(math.prod(dims[axis + 1 :]) for axis in range(len(dims)))
        return Descriptor(space, address, element, dims, strides)

    def constant(self, key: str, dims: tuple[int, ...], element: str = "bf16") -> Descriptor:
        """A new constant."""
        tensor = self.tensor(dims, element)
        self.constants.append(ConstantImage(key, math.prod(dims) * dtype(element).bits // 8, tensor.address, 1))
        return tensor

    def port(self, name: str, tensor: Descriptor) -> Port:
        """An input or output that is this whole tensor."""
        piece = Piece(1, self._number(tensor), (0,) * len(tensor.dims), tensor.dims)
        return Port(name, tensor.dtype, tensor.dims, (piece,))

    def bind(self, slot: int, descriptor: Descriptor, advance: tuple[int, ...] = ()) -> Command:
        """Bind a descriptor; it moves by `advance` bytes an iteration of the command loops."""
        return command("bind", slot, self._number(descriptor), advance)

    def _number(self, descriptor: Descriptor) -> int:
        if descriptor not in self.descriptors:
            self.descriptors.append(descriptor)
        return self.descriptors.index(descriptor)

    def program(
        self,
        name: str,
        machine: Machine,
        kernels: tuple[Kernel, ...],
        commands: tuple[Command | CommandLoop, ...],
        *,
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        useful_macs: int = 0,
    ) -> Program:
        """A program for one die. The tensor buffers take what they need, L2 the rest."""
        tensor_buffer_bytes = max(machine.tensor_buffer_bytes, self.used["tb"])
        return Program(
            name=name,
            machine=machine.name,
            machine_digest=machine.digest,
            dies=1,
            l2_bytes=machine.spc_sram_bytes - tensor_buffer_bytes,
            tensor_buffer_bytes=tensor_buffer_bytes,
            hbm_bytes=self.used["hbm"],
            descriptors=tuple(self.descriptors),
            kernels=kernels,
            commands=commands,
            inputs=inputs,
            outputs=outputs,
            constants=tuple(self.constants),
            useful_macs=useful_macs,
        )


def transposed(descriptor: Descriptor) -> Descriptor:
    """A matrix seen with its axes exchanged."""
    dims, strides = descriptor.dims[::-1], descriptor.strides[::-1]
    return Descriptor(descriptor.space, descriptor.address, descriptor.dtype, dims, strides)
