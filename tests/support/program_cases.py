"""A program written by hand with its inputs and what it must give, and the words to lay one out in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from program_words import command, row_major

from birc.runtime.conversion import memory_type
from birc.runtime.machine import load_machine
from birc.runtime.memory import Memory
from birc.runtime.program import (
    Command,
    CommandLoop,
    Descriptor,
    Kernel,
    Piece,
    Port,
    Program,
)

MACHINE = "tiny"
SPCS = 0b11
BOTH_DIES = 0b11

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Case:
    """A program, the values of its inputs and the values that its outputs must have, by port name."""

    name: str
    program: Program
    inputs: dict[str, Array]
    expected: dict[str, Array]

    def memory(self) -> Memory:
        """A fresh memory that holds the inputs."""
        memory = Memory(self.program, load_machine(MACHINE))
        for port in self.program.inputs:
            write_port(self.program, memory, port, self.inputs[port.name])
        return memory

    def outputs(self, memory: Memory) -> dict[str, Array]:
        """What the outputs hold in a memory, as FP64 or INT64."""
        return {port.name: read_port(self.program, memory, port) for port in self.program.outputs}

    def check(self, memory: Memory) -> None:
        """Fail unless every output has exactly the expected values."""
        for name, values in self.outputs(memory).items():
            np.testing.assert_array_equal(values, self.expected[name], err_msg=f"{self.name}: {name}")


def write_port(program: Program, memory: Memory, port: Port, values: Array) -> None:
    """Put an input's values into all its pieces."""
    for piece in port.pieces:
        part = tuple(slice(low, low + size) for low, size in zip(piece.start, piece.shape, strict=True))
        for die in range(program.dies):
            if piece.dies >> die & 1:
                memory.view(program.descriptors[piece.descriptor], die)[...] = values[part]


def read_port(program: Program, memory: Memory, port: Port) -> Array:
    """An output put together from its pieces; pieces on several dies must agree."""
    wide = np.float64 if memory_type(port.dtype).kind not in "iub" else np.int64
    whole = np.zeros(port.shape, wide)
    for piece in port.pieces:
        part = tuple(slice(low, low + size) for low, size in zip(piece.start, piece.shape, strict=True))
        holders = [die for die in range(program.dies) if piece.dies >> die & 1]
        copies = [memory.view(program.descriptors[piece.descriptor], die).astype(wide) for die in holders]
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])
        whole[part] = copies[0]
    return whole


class Layout:
    """Gives out addresses in HBM, L2 and tensor buffer, and collects the descriptors."""

    def __init__(self) -> None:
        self.descriptors: list[Descriptor] = []
        self.used = {"hbm": 0, "l2": 0, "tb": 0}

    def tensor(self, dims: tuple[int, ...], dtype: str = "f32", space: str = "hbm") -> int:
        """A new dense tensor; returns the index of its descriptor."""
        address = self.used[space]
        num_bytes = int(np.prod(dims)) * memory_type(dtype).itemsize
        self.used[space] += -(-num_bytes // 512) * 512
        return self.alias(Descriptor(space, address, dtype, dims, row_major(dims)))

    def alias(self, descriptor: Descriptor) -> int:
        """Another view of memory given out before."""
        self.descriptors.append(descriptor)
        return len(self.descriptors) - 1

    def port(self, name: str, descriptor: int, dies: int = 1) -> Port:
        """An input or output that is one whole tensor."""
        tensor = self.descriptors[descriptor]
        piece = Piece(dies, descriptor, (0,) * len(tensor.dims), tensor.dims)
        return Port(name, tensor.dtype, tensor.dims, (piece,))

    def program(
        self,
        name: str,
        kernels: tuple[Kernel, ...],
        commands: tuple[Command | CommandLoop, ...],
        *,
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        dies: int = 1,
        useful_macs: int = 0,
    ) -> Program:
        machine = load_machine(MACHINE)
        return Program(
            name=name,
            machine=machine.name,
            machine_digest=machine.digest,
            dies=dies,
            l2_bytes=machine.l2_bytes,
            tensor_buffer_bytes=machine.tensor_buffer_bytes,
            hbm_bytes=self.used["hbm"],
            descriptors=tuple(self.descriptors),
            kernels=kernels,
            commands=commands,
            inputs=inputs,
            outputs=outputs,
            constants=(),
            useful_macs=useful_macs,
        )


def launch(*bindings: tuple[int, int], kernel: int = 0, macs: int = 0, dies: int = 1) -> tuple[Command, ...]:
    """A launch of one kernel with (slot, descriptor) bindings, and a barrier after it."""
    return (
        command("launch", SPCS, "main", dies=dies),
        *(command("bind", slot, descriptor, (), dies=dies) for slot, descriptor in bindings),
        command("run", kernel, macs, dies=dies),
        command("barrier", "die", dies=dies),
    )


def integers(seed: int, shape: tuple[int, ...], low: int = -4, high: int = 5) -> Array:
    return np.random.default_rng(seed).integers(low, high, shape)
