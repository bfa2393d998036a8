"""The instruction table: every instruction and command, declared once.

Codec, assembler, disassembler, range checks, random sampler, the hazard edges of the verifier, the pipes of the
timing engine and `docs/isa.md` derive from it. Opcodes are never renumbered or reused.

The real instruction set is closed. Names and encodings here are ours; what an instruction does, its tile shapes and
its limits follow Biren's public programming guide and tensor-library reference.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

ISA_VERSION = 1

PIPES = ("load", "store", "mma", "alu", "sfu", "cross", "drain", "control")


@dataclass(frozen=True, slots=True)
class Field:
    """One operand of an instruction.

    `kind` chooses encoding, text form, range check and sampling: u8 u16 u32 u64 i32 f32 enum mask shape descriptor
    kernel text register source (register or f32) box ring window advance. `choices` are the words of an enum;
    `low`/`high` bound a number (high exclusive).
    """

    name: str
    kind: str
    choices: tuple[str, ...] = ()
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True)
class InstructionRow:
    """One instruction: opcode, mnemonic, the queue that executes it, the pipe it occupies, operands and effect.

    `reads` and `writes` name fields, or the implicit operand "acc" (the accumulator of the SPC).
    """

    opcode: int
    mnemonic: str
    engine: str
    pipe: str
    fields: tuple[Field, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    doc: str


def _fields(text: str) -> tuple[Field, ...]:
    """Fields from `name:kind`, `name:kind(low,high)` or `name:enum(word,word)`, separated by blanks."""
    fields = []
    for item in text.split():
        name, _, kind = item.partition(":")
        kind, _, arguments = kind.rstrip(")").partition("(")
        words = tuple(arguments.split(",")) if arguments else ()
        if kind == "enum":
            fields.append(Field(name, kind, choices=words))
        elif words:
            fields.append(Field(name, kind, low=int(words[0]), high=int(words[1])))
        else:
            fields.append(Field(name, kind))
    return tuple(fields)


def _row(opcode: int, mnemonic: str, engine: str, pipe: str, fields: str, effect: str, doc: str) -> InstructionRow:
    """A row; `effect` is "written fields <- read fields"."""
    writes, _, reads = effect.partition("<-")
    return InstructionRow(
        opcode, mnemonic, engine, pipe, _fields(fields), tuple(reads.split()), tuple(writes.split()), doc
    )


def _unary(opcode: int, mnemonic: str, pipe: str, doc: str) -> InstructionRow:
    return _row(opcode, mnemonic, "vector", pipe, "dst:register a:source", "dst <- a", doc)


def _binary(opcode: int, mnemonic: str, doc: str) -> InstructionRow:
    return _row(opcode, mnemonic, "vector", "alu", "dst:register a:source b:source", "dst <- a b", doc)


def _reduce(opcode: int, mnemonic: str, doc: str) -> InstructionRow:
    return _row(opcode, mnemonic, "vector", "cross", "dst:register a:register axes:mask", "dst <- a", doc)


def _fold(opcode: int, mnemonic: str, doc: str) -> InstructionRow:
    return _row(opcode, mnemonic, "vector", "alu", "dst:register a:source first:mask", "dst <- dst a", doc)


FORMATS = "bf16,tf32p,s8"

TCORE: tuple[InstructionRow, ...] = (
    _row(
        0x01,
        "tlda",
        "load_a",
        "load",
        f"dst:ring src:box rows:u8(0,7) format:enum({FORMATS})",
        "dst <- src",
        "Load an A tile: the first `rows` axes of the box, flattened, are its rows, the others its depth k. Elements "
        "are rounded to `format`. The tile takes 64 rows of the buffer; one of more rows is a patch, whose rows are "
        "the pixels of a part of an image and windows of which `tconv` multiplies.",
    ),
    _row(
        0x02,
        "tldb",
        "load_b",
        "load",
        f"dst:ring src:box depth:u8(0,7) format:enum({FORMATS})",
        "dst <- src",
        "Load a B tile: the first `depth` axes of the box, flattened, are its depth k, the others its columns "
        "(at most 64).",
    ),
    _row(
        0x03,
        "tmma",
        "compute",
        "mma",
        f"a:ring b:ring m:u16(1,65) n:u16(1,65) k:u16(1,513) format:enum({FORMATS}) first:mask",
        "acc <- acc a b",
        "acc (+)= A (m x k) times B (k x n), products exact, sums in FP32. The accumulator starts from zero when "
        "every loop in `first` is in its first iteration.",
    ),
    _row(
        0x04,
        "tconv",
        "compute",
        "mma",
        f"a:ring window:window b:ring n:u16(1,65) k:u16(1,513) format:enum({FORMATS}) first:mask",
        "acc <- acc a b",
        "One tap of a convolution of stride 1: as tmma, with the pixels of a window (at most 8 x 8, row by row) of "
        "the patch `a` as rows of A. The tap (r, s) of a dilated kernel has its window at (r, s) x dilation.",
    ),
)

VECTOR: tuple[InstructionRow, ...] = (
    _row(
        0x20,
        "vld",
        "vector",
        "load",
        "dst:register src:box",
        "dst <- src",
        "Load a box. BF16 and FP16 widen to FP32, integers to INT32, bool to 0 or 1. UINT32 stays as "
        "its bits; a 64-bit integer beyond INT32 faults. "
        "The register has the box's shape.",
    ),
    _row(
        0x21,
        "vst",
        "vector",
        "store",
        "dst:box src:source",
        "dst <- src",
        "Store to a box, rounding to the tensor's type; a register whose axes have extent 1 is broadcast.",
    ),
    _row(
        0x22,
        "vldx",
        "vector",
        "load",
        "dst:register src:box index:register axis:u8(0,6) count:u32",
        "dst <- src index",
        "Indexed load: on `axis` (extent 1 in the box) the coordinate is start + index, one row a lane of `index`, "
        "0 <= index < `count`, or a fault. `index` has extent 1 on the axes that the row spans; the result has the "
        "broadcast shape.",
    ),
    _row(
        0x23,
        "vacc",
        "vector",
        "drain",
        "dst:register shape:shape first:mask",
        "dst <- dst acc",
        "Drain the accumulator: its m x n values, seen with `shape`, replace the register when every loop in `first` "
        "is in its first iteration, else are added to it.",
    ),
    _row(
        0x24, "vmovi", "vector", "alu", "dst:register value:f32 shape:shape", "dst <- ", "Fill a register of a shape."
    ),
    _unary(0x28, "vmov", "alu", "a"),
    _unary(0x29, "vneg", "alu", "-a"),
    _unary(0x2A, "vabs", "alu", "|a|"),
    _unary(0x2B, "vfloor", "alu", "Largest integer not above a."),
    _unary(0x2C, "vceil", "alu", "Smallest integer not below a."),
    _unary(0x2D, "vround", "alu", "Nearest integer, ties to even."),
    _unary(0x2E, "vsign", "alu", "-1, 0 or 1."),
    _unary(0x2F, "vnot", "alu", "1 where a is 0, else 0."),
    _unary(0x30, "vtofloat", "alu", "INT32 to FP32."),
    _unary(0x31, "vtoint", "alu", "FP32 to INT32, toward zero, saturating."),
    _unary(0x32, "vtobf16", "alu", "FP32 rounded to BF16 as a store rounds it, and kept as FP32."),
    _unary(0x33, "vtof16", "alu", "As vtobf16, to FP16."),
    _unary(0x34, "vtof8e4m3", "alu", "As vtobf16, to E4M3: NaN beyond its range."),
    _unary(0x35, "vtof8e5m2", "alu", "As vtobf16, to E5M2: infinite beyond its range."),
    _binary(0x38, "vadd", "a + b; axes of extent 1 are broadcast, here and below."),
    _binary(0x39, "vsub", "a - b"),
    _binary(0x3A, "vmul", "a * b"),
    _binary(0x3B, "vmax", "The larger; NaN if either is NaN."),
    _binary(0x3C, "vmin", "The smaller; NaN if either is NaN."),
    _binary(0x3D, "veq", "1 where a = b, else 0."),
    _binary(0x3E, "vlt", "1 where a < b, else 0."),
    _binary(0x3F, "vle", "1 where a <= b, else 0."),
    _binary(0x40, "vand", "1 where both are nonzero, else 0."),
    _binary(0x41, "vor", "1 where one is nonzero, else 0."),
    _binary(0x42, "vxor", "1 where exactly one is nonzero, else 0."),
    _binary(0x43, "vband", "The bits that are set in both words; this and the next six take INT32 alone."),
    _binary(0x44, "vbor", "The bits that are set in one of the words, or both."),
    _binary(0x45, "vbxor", "The bits that are set in exactly one of the words."),
    _binary(0x46, "vshl", "The bits of a moved up by b places, zeros follow; 0 unless 0 <= b < 32."),
    _binary(0x47, "vshr", "The bits of a moved down by b places, zeros follow; 0 unless 0 <= b < 32."),
    _binary(0x4C, "vsra", "As vshr, copies of the uppermost bit follow; those alone unless 0 <= b < 32."),
    _binary(0x4D, "vmulh", "The upper 32 of the 64 bits of a * b, both taken as unsigned."),
    _row(
        0x48,
        "vfma",
        "vector",
        "alu",
        "dst:register a:source b:source c:source",
        "dst <- a b c",
        "a * b + c, rounded once after the sum.",
    ),
    _row(
        0x49,
        "vsel",
        "vector",
        "alu",
        "dst:register condition:source a:source b:source",
        "dst <- condition a b",
        "a where the condition is nonzero, else b.",
    ),
    _row(
        0x4A,
        "vfnma",
        "vector",
        "alu",
        "dst:register a:source b:source c:source",
        "dst <- a b c",
        "c - a * b, rounded once after the difference: what a quotient or a multiple leaves over.",
    ),
    _unary(0x50, "vexp2", "sfu", "2 to the power a."),
    _unary(0x51, "vlog2", "sfu", "Logarithm to base 2."),
    _unary(0x52, "vrcp", "sfu", "1 / a"),
    _unary(0x53, "vrsqrt", "sfu", "1 / sqrt(a)"),
    _unary(0x54, "vtanh", "sfu", "Hyperbolic tangent."),
    _unary(0x55, "vsin", "sfu", "Sine of a in radians."),
    _unary(0x56, "vcos", "sfu", "Cosine of a in radians."),
    _reduce(0x60, "vredsum", "Sum over the axes in the mask (bit 0 = first axis), which become extent 1."),
    _reduce(0x61, "vredmax", "Maximum over axes."),
    _reduce(0x62, "vredmin", "Minimum over axes."),
    _reduce(0x63, "vredprod", "Product over axes."),
    _fold(0x68, "vfoldsum", "dst = a when every loop in `first` is in its first iteration, else dst + a."),
    _fold(0x69, "vfoldmax", "As vfoldsum, with the maximum."),
    _fold(0x6A, "vfoldmin", "As vfoldsum, with the minimum."),
    _fold(0x6B, "vfoldprod", "As vfoldsum, with the product."),
)

COMMANDS: tuple[InstructionRow, ...] = (
    _row(
        0x80,
        "launch",
        "command",
        "control",
        "spcs:u32 name:text",
        " <- ",
        "Begin a launch on the SPCs of the mask; all `run` that follow belong to it.",
    ),
    _row(
        0x81,
        "bind",
        "command",
        "control",
        "slot:u16(0,256) descriptor:descriptor advance:advance",
        " <- ",
        "Bind a descriptor to a slot for the kernels that follow. `advance` adds bytes to its address for each "
        "iteration of enclosing command loops (outermost first).",
    ),
    _row(
        0x82,
        "run",
        "command",
        "control",
        "kernel:kernel macs:u64",
        " <- ",
        "Append a kernel to the queues of the launch's SPCs; the command processor does not wait for it. `macs` are "
        "the model's own multiply-adds that this run performs, over all its dies.",
    ),
    _row(
        0x83,
        "barrier",
        "command",
        "control",
        "scope:enum(die,device,spcs,all_spcs)",
        " <- ",
        "Wait until every kernel run before has ended on all SPCs of this die (`die`) or of all dies (`device`). With "
        "`spcs` the SPCs of the die wait for each other and the command processor goes on: each stores a flag to L2 "
        "behind the kernels run before, and begins with what follows when it has seen the flags of all. With "
        "`all_spcs` those of all dies do, by flags in the L2 of each.",
    ),
    _row(
        0x84,
        "copy",
        "command",
        "control",
        "dst:descriptor src:descriptor dst_advance:advance src_advance:advance event:u16(0,256)",
        "dst <- src",
        "Start a DMA copy between two views of equal dims in this die's memories; sets the event when done. Where "
        "`dst` lies in the tensor buffer every SPC of the die gets a part into its own: the first axes of `src` number "
        "the SPCs in order, the other axes are those of `dst`. No copy reads a tensor buffer.",
    ),
    _row(
        0x85,
        "transfer",
        "command",
        "control",
        "dst:descriptor src:descriptor event:u16(0,256)",
        "dst <- src",
        "Start a copy from this die to the other die over the die-to-die link; sets the event on both when done.",
    ),
    _row(
        0x86,
        "wait",
        "command",
        "control",
        "event:u16(0,256)",
        " <- ",
        "Wait until the event is set on this die, and clear it.",
    ),
    _row(
        0x87,
        "preload",
        "command",
        "control",
        "kernel:kernel",
        " <- ",
        "Append the kernel of this die's next `run` with the slots as they are: on each SPC its `load_b` queue begins "
        "as soon as the kernel run before has begun there and its `load_a`, `load_b` and `compute` queues have ended; "
        "its other queues begin with that `run`. Neither `launch`, `bind`, `run` nor another `preload` comes between. "
        "Barriers do not wait for what was not run.",
    ),
)

INSTRUCTIONS: tuple[InstructionRow, ...] = TCORE + VECTOR
BY_MNEMONIC: dict[str, InstructionRow] = {row.mnemonic: row for row in INSTRUCTIONS + COMMANDS}
BY_OPCODE: dict[int, InstructionRow] = {row.opcode: row for row in INSTRUCTIONS + COMMANDS}


def isa_digest() -> str:
    """SHA-256 over every row: two builds with the same digest read each other's programs."""
    return hashlib.sha256(repr((ISA_VERSION, INSTRUCTIONS, COMMANDS)).encode()).hexdigest()
