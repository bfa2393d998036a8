"""BERT-large as the vendor ran it for MLPerf Inference v2.1: each SPC takes one pack of 512 tokens.

Source: MLCommons, inference results v2.1, closed division, Biren: a launch takes at least 16.14 ms
(server), eight cards reach 22133.7 samples a second (offline). BF16; a launch computes 16 packs of at most
three sequences.

What the sources do not say is chosen so that the machine is used well. Activations and small parameters
stay in the SPC's tensor buffer. All SPCs need the same weights at the same time: they are read from HBM
once, by multicast. A product takes its weights as A operand, a panel of 64 output channels that stays in
the input buffer, and streams the tokens past it; a depth of 4096 is cut in four, with partial sums in
registers. Two vector programs take the tiles in turn and work beside the matrix work of the next ones.
Layer norm gathers its sums in the epilogue of the product before it. The encoder's layers are a loop of the
command stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from anchors.attention import ATTENTION_MACS, attention_kernel
from anchors.notation import Layout, box, command, op, par, red, sync, transposed, v, var
from anchors.pack import CHANNELS, DEPTH, INNER, LAYERS, PROGRAMS, TILE, TOKEN_BLOCKS, TOKENS
from birc.runtime.machine import Machine
from birc.runtime.program import (
    Affine,
    Command,
    CommandLoop,
    Descriptor,
    Instruction,
    Kernel,
    Loop,
    Program,
    RingAddress,
)

CHUNK = 1024  # of the depth, for which a panel of weights stays in the input buffer
OPERATIONS = CHUNK // DEPTH
OPERAND_BYTES = TILE * DEPTH * 2  # of one matrix operation
ROW = 4096  # elements of one tile of a plain copy

MATRIX_MACS = TOKENS * CHANNELS * (3 * CHANNELS + CHANNELS + 2 * INNER)
MACS_OF_A_PACK = LAYERS * (MATRIX_MACS + ATTENTION_MACS)

# Registers: partial sums of the eight token blocks (0 to 7), four for each program (8 to 15), and of each
# block the sums and the sums of squares over the channels (16 to 23, 24 to 31).
_OWN, _SUMS, _SQUARES = 8, 16, 24


@dataclass(frozen=True)
class Product:
    """out = act(x @ w + bias); with `norm`: out = layer norm(x @ w + bias + out).

    Slots: 0 weights [outputs, inputs], 1 x transposed, 2 out transposed, 3 bias, 4 scale, 5 shift.
    """

    name: str
    inputs: int
    outputs: int
    gelu: bool = False
    norm: bool = False

    @property
    def macs(self) -> int:
        return TOKENS * self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Elements of bias, and of scale and shift."""
        return self.outputs * (3 if self.norm else 1)

    def kernel(self, spcs: int) -> Kernel:
        """Loops: 0 SPC, 1 panel, 2 chunk of the depth, 3 pair of token blocks, 4 program, 5 operation."""
        panels = (red if self.norm else par)(self.outputs // TILE, *self._panel())
        parts = (panels, self._normalise()) if self.norm else (panels,)
        counts = (0, 2 * OPERATIONS, 0, 2 * OPERATIONS, 1, *(0,) * PROGRAMS)
        return Kernel(self.name, (par(spcs, *parts, level="spc"),), counts, "dtg")

    def _panel(self) -> tuple[Loop, ...]:
        a_full, a_free, b_full, b_free, acc_free, acc_full = range(6)
        chunks = self.inputs // CHUNK
        panel_ring = RingAddress(var(3, OPERAND_BYTES), OPERATIONS * OPERAND_BYTES, var(1, chunks) + var(2), 2)
        panel_depth = var(2, CHUNK) + var(3, DEPTH)
        load_panel = red(OPERATIONS, op(
            "tlda", panel_ring, box(0, (var(1, TILE), TILE), (panel_depth, DEPTH)), 1, "bf16",
            waits=(sync(a_free),), posts=(sync(a_full),),
        ))  # fmt: skip
        block = var(3, PROGRAMS) + var(4)
        depth = var(2, CHUNK) + var(5, DEPTH)
        a_ring = RingAddress(var(5, OPERAND_BYTES), OPERATIONS * OPERAND_BYTES, var(1, chunks) + var(2), 2)
        b_ring = RingAddress(var(5, OPERAND_BYTES), OPERATIONS * OPERAND_BYTES, block, 2)
        load_tokens = red(OPERATIONS, op(
            "tldb", b_ring, box(1, (depth, DEPTH), (block * TILE, TILE)), 1, "bf16",
            waits=(sync(b_free),), posts=(sync(b_full),),
        ))  # fmt: skip
        blocks, operation, full = 1 << 3 | 1 << 4, 1 << 5, var(4) + acc_full
        multiply = red(OPERATIONS, op(
            "tmma", a_ring, b_ring, TILE, TILE, DEPTH, "bf16", operation,
            waits=(sync(a_full, first=blocks), sync(b_full), sync(acc_free, first=operation)),
            posts=(sync(a_free, last=blocks), sync(b_free), sync(full, last=operation)),
        ))  # fmt: skip
        taken = {"waits": (sync(full),), "posts": (sync(acc_free),)}
        if chunks > 1:
            collect = [op("vacc", v(block), (TILE, TILE), 1 << 2, **taken)]
        else:
            bias, *rest = self._epilogue(3)
            collect = [bias, op("vacc", v(block), (TILE, TILE), 0, **taken), *rest]
        tiles = _each_block(load_tokens, multiply, *collect)
        product = red(chunks, load_panel, tiles)
        return (product, _each_block(*self._epilogue(2))) if chunks > 1 else (product,)

    def _epilogue(self, depth: int) -> list[Instruction]:
        """What is done with a tile: bias first (its load runs ahead), then the rest, then the store.

        `depth` is that of the loop over pairs of token blocks, with the loop over programs inside.
        """
        program = var(depth + 1)
        block = var(depth, PROGRAMS) + program
        tile, bias, other, third = (v(number) for number in (block, *_own(program, 3)))
        where = ((var(1, TILE), TILE), (block * TILE, TILE))
        steps = [op("vld", bias, box(3, (var(1, TILE), TILE), (0, 1)))]
        if self.norm:
            steps.append(op("vld", other, box(2, *where)))
        steps.append(op("vadd", tile, tile, bias))
        if self.norm:
            steps += [
                op("vadd", tile, tile, other),
                op("vfoldsum", v(block + _SUMS), tile, 1 << 1),
                op("vmul", other, tile, tile),
                op("vfoldsum", v(block + _SQUARES), other, 1 << 1),
            ]
        if self.gelu:
            # 0.5 x (1 + tanh(x (0.7979 + 0.03568 x^2)))
            steps += [
                op("vmul", other, tile, tile),
                op("vfma", other, other, 0.0356774081, 0.7978845608),
                op("vmul", other, other, tile),
                op("vtanh", other, other),
                op("vmul", third, tile, 0.5),
                op("vfma", tile, other, third, third),
            ]
        return [*steps, op("vst", box(2, *where), tile)]

    def _normalise(self) -> Loop:
        """Mean and deviation of each token, then every tile once more, two panels at a time.

        Loops: 1 pair, 2 program, 3 pair of panels. The registers of the partial sums are free again.
        """
        program = var(2)
        block = var(1, PROGRAMS) + program
        mean, spread, *spare = _own(program, 4)
        free = [program + PROGRAMS * number for number in range(4)]  # the program's own partial sums
        halves = [
            _normalised_tile(half, block, (*registers, mean, spread))
            for half, registers in enumerate((free[:3], (free[3], *spare)))
        ]
        loads, works = zip(*halves, strict=True)
        panels = par(self.outputs // TILE // 2, *loads[0], *loads[1], *works[0], *works[1])
        return _each_block(
            op("vredsum", v(mean), v(block + _SUMS), 0b01),
            op("vmul", v(mean), v(mean), 1.0 / CHANNELS),
            op("vredsum", v(spread), v(block + _SQUARES), 0b01),
            op("vfma", v(spread), v(spread), 1.0 / CHANNELS, 1e-12),
            op("vmul", v(spare[0]), v(mean), v(mean)),
            op("vsub", v(spread), v(spread), v(spare[0])),
            op("vrsqrt", v(spread), v(spread)),
            panels,
        )


def _normalised_tile(
    half: int, block: Affine, registers: tuple[Affine, ...]
) -> tuple[list[Instruction], list[Instruction]]:
    """The loads of a tile, its scale and its shift; and the arithmetic and the store."""
    tile, scale, shift, mean, spread = map(v, registers)
    panel = var(3, 2 * TILE) + half * TILE
    where, channels = ((panel, TILE), (block * TILE, TILE)), ((panel, TILE), (0, 1))
    loads = [
        op("vld", tile, box(2, *where)),
        op("vld", scale, box(4, *channels)),
        op("vld", shift, box(5, *channels)),
    ]
    work = [
        op("vsub", tile, tile, mean),
        op("vmul", tile, tile, spread),
        op("vfma", tile, tile, scale, shift),
        op("vst", box(2, *where), tile),
    ]
    return loads, work


def _own(program: Affine, count: int) -> list[Affine]:
    """The first `count` registers that a program has for itself."""
    return [program * 4 + _OWN + number for number in range(count)]


def _each_block(*body: Loop | Instruction) -> Loop:
    """All blocks of tokens, the programs taking them in turn."""
    return par(TOKEN_BLOCKS // PROGRAMS, par(PROGRAMS, *body, level="program"))


def move_kernel(name: str, spcs: int, rows: int, programs: int = 4) -> Kernel:
    """A plain copy of [rows, 4096] on each SPC. Slots: 0 source, 1 target, both [SPCs, rows, 4096]."""
    where = ((var(0), 1), (var(1, programs) + var(2), 1), (0, ROW))
    register = v(var(2))
    steps = (op("vld", register, box(0, *where)), op("vst", box(1, *where), register))
    return Kernel(name, (par(spcs, par(rows // programs, par(programs, *steps, level="program")), level="spc"),))


PRODUCTS = (
    Product("qkv", CHANNELS, 3 * CHANNELS),
    Product("projection", CHANNELS, CHANNELS, norm=True),
    Product("ffn_in", CHANNELS, INNER, gelu=True),
    Product("ffn_out", INNER, CHANNELS, norm=True),
)
LAYER_PARAMETERS = sum(product.parameters for product in PRODUCTS)
_PARAMETER_ROWS = -(-LAYERS * LAYER_PARAMETERS // (4 * ROW)) * 4  # a whole number for each of four programs


class _Bert:
    """The program under construction."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.spcs = machine.spcs_per_die
        self.layout = Layout()
        tensor = self.layout.tensor
        self.x = tensor((TOKENS, CHANNELS), space="tb")
        self.inner = tensor((TOKENS, INNER), space="tb")
        self.probabilities = tensor((PROGRAMS * TILE, TOKENS), space="tb")
        self.mask = tensor((TOKENS, TOKENS), space="tb")
        self.parameters = tensor((_PARAMETER_ROWS, ROW), space="tb")
        # Queries, keys and values, and the attention's result, lie where the inner activations come later.
        self.qkv = Descriptor("tb", self.inner.address, "bf16", (TOKENS, 3 * CHANNELS), (3 * CHANNELS, 1))
        behind = self.inner.address + 2 * TOKENS * 3 * CHANNELS
        self.context = Descriptor("tb", behind, "bf16", (TOKENS, CHANNELS), (CHANNELS, 1))
        self.kernels: list[Kernel] = []

    def program(self) -> Program:
        layout, spcs = self.layout, self.spcs
        pack = TOKENS * CHANNELS // ROW
        tokens = layout.tensor((spcs, pack, ROW))
        masks = layout.tensor((spcs, TOKENS * TOKENS // ROW, ROW))
        result = layout.tensor((spcs, pack, ROW))
        values = layout.constant("parameters", (_PARAMETER_ROWS, ROW))
        everywhere = Descriptor("hbm", values.address, "bf16", (spcs, *values.dims), (0, ROW, 1))
        commands = (
            command("launch", (1 << spcs) - 1, "bert_large"),
            *self._move("load_tokens", tokens, self.x),
            *self._move("load_mask", masks, self.mask),
            *self._move("load_parameters", everywhere, self.parameters),
            CommandLoop(LAYERS, self._layer()),
            *self._move("store_result", self.x, result),
        )
        inputs = (layout.port("tokens", tokens), layout.port("masks", masks))
        outputs = (layout.port("result", result),)
        return layout.program(
            "bert_large", self.machine, tuple(self.kernels), commands,
            inputs=inputs, outputs=outputs, useful_macs=spcs * MACS_OF_A_PACK,
        )  # fmt: skip

    def _run(self, kernel: Kernel, macs: int = 0) -> Command:
        self.kernels.append(kernel)
        return command("run", len(self.kernels) - 1, macs)

    def _move(self, name: str, source: Descriptor, target: Descriptor) -> tuple[Command, ...]:
        """Copy between HBM and the tensor buffer of every SPC."""
        views = [d if len(d.dims) == 3 else _rows(d, self.spcs) for d in (source, target)]
        binds = (self.layout.bind(slot, view) for slot, view in enumerate(views))
        return (*binds, self._run(move_kernel(name, self.spcs, views[0].dims[1])))

    def _layer(self) -> tuple[Command, ...]:
        qkv, projection, ffn_in, ffn_out = PRODUCTS
        attention = self._run(attention_kernel(self.spcs), self.spcs * ATTENTION_MACS)
        return (
            *self._multiply(qkv, self.x, self.qkv),
            *(self.layout.bind(slot, view) for slot, view in enumerate(self._heads())),
            attention,
            *self._multiply(projection, self.context, self.x),
            *self._multiply(ffn_in, self.x, self.inner),
            *self._multiply(ffn_out, self.inner, self.x),
        )

    def _multiply(self, product: Product, source: Descriptor, target: Descriptor) -> tuple[Command, ...]:
        shape = (product.outputs, product.inputs)
        weights = self.layout.constant(product.name, (LAYERS, *shape))
        first = Descriptor("hbm", weights.address, "bf16", shape, (product.inputs, 1))
        before = PRODUCTS[: PRODUCTS.index(product)]
        offset = self.parameters.address + 2 * sum(other.parameters for other in before)
        step = (2 * LAYER_PARAMETERS,)
        vectors = [
            Descriptor("tb", offset + 2 * number * product.outputs, "bf16", (product.outputs, 1), (1, 1))
            for number in range(product.parameters // product.outputs)
        ]
        return (
            self.layout.bind(0, first, (2 * product.outputs * product.inputs,)),
            self.layout.bind(1, transposed(source)),
            self.layout.bind(2, transposed(target)),
            *(self.layout.bind(3 + number, vector, step) for number, vector in enumerate(vectors)),
            self._run(product.kernel(self.spcs), self.spcs * product.macs),
        )

    def _heads(self) -> tuple[Descriptor, ...]:
        """What the slots of the attention see."""

        def part(number: int) -> Descriptor:
            address = self.qkv.address + 2 * number * CHANNELS
            return Descriptor("tb", address, "bf16", (TOKENS, CHANNELS), self.qkv.strides)

        return part(0), transposed(part(1)), part(2), self.mask, self.context, self.probabilities


def _rows(tensor: Descriptor, spcs: int) -> Descriptor:
    """A tensor of every SPC's own buffer, seen as [SPCs, rows, 4096]."""
    rows = tensor.dims[0] * tensor.dims[1] // ROW
    return Descriptor(tensor.space, tensor.address, tensor.dtype, (spcs, rows, ROW), (0, ROW, 1))


def bert_large(machine: Machine) -> Program:
    """One launch: all layers on all SPCs of one die."""
    return _Bert(machine).program()
