"""The attention of one pack on one SPC: softmax(Q K^T + mask) V, head after head.

Two vector programs take the blocks of 64 queries in turn. The scores of a block, eight tiles, stay in
registers; their exponentials go through the tensor buffer to become the A operand of the second product.
Matrix work on one program's block goes on while the other program works on its own: the second product of a
block follows after the scores of the next.

The scale 1/8 and the change of base of the exponential are folded into the weights of the queries.
"""

from __future__ import annotations

from anchors.notation import box, op, par, red, seq, sync, v, var
from anchors.pack import CHANNELS, DEPTH, HEADS, PROGRAMS, TILE, TOKEN_BLOCKS, TOKENS
from birc.runtime.program import Affine, Instruction, Kernel, Loop, Register, RingAddress

HEAD_CHANNELS = CHANNELS // HEADS
ATTENTION_MACS = 2 * TOKENS * TOKENS * CHANNELS

_PARTS = TOKENS // DEPTH
_KEY_BYTES = TILE * HEAD_CHANNELS * 2
_PART_BYTES = TILE * DEPTH * 2

# Semaphores; from P_READY on, one for each program.
_Q_FULL, _Q_FREE, _K_FULL, _K_FREE, _V_FULL, _V_FREE, _P_FULL, _P_FREE, _ACC_FREE, _P_READY = range(10)
_SCORES_FULL, _OUT_FULL = _P_READY + PROGRAMS, _P_READY + 2 * PROGRAMS

# Loops: 0 SPC, 1 head, 2 pair of query blocks; below it one more depth for tiles of keys or parts of them.
_HEAD = var(1, HEAD_CHANNELS)
_PAIRS = TOKEN_BLOCKS // PROGRAMS
_PAIR = 1 << 2

# Registers of a program: 8 tiles of scores, two of the mask, running maximum, running sum, a vector, the
# result.
_REGISTERS, _MASK, _MAXIMUM, _SUM, _VECTOR, _RESULT = 14, 8, 10, 11, 12, 13
_MASKS = 2


def attention_kernel(spcs: int) -> Kernel:
    """Slots: 0 queries, 1 keys transposed, 2 values, 3 mask, 4 out, 5 probabilities [2 * 64, tokens]."""
    even, odd = _Block(0, var(2, PROGRAMS), 3), _Block(1, var(2, PROGRAMS) + 1, 3)
    before, last = _Block(1, var(2, PROGRAMS) + -1, 4), _Block(1, Affine(TOKEN_BLOCKS - 1), 2)
    work = seq(
        _PAIRS,
        even.load_queries(),
        even.scores(),
        *even.softmax(),
        Loop("seq", 1, before.values(), limit=var(2)),
        odd.load_queries(),
        odd.scores(),
        *odd.softmax(),
        *even.values(),
    )
    nest = par(spcs, seq(HEADS, *_load_head(), work, *last.values()), level="spc")
    counts = (
        *(0, PROGRAMS, 0, 2 * TOKEN_BLOCKS, 0, 2 * _PARTS, 0, PROGRAMS * _PARTS, 1),
        *(0,) * (3 * PROGRAMS),
    )
    return Kernel("attention", (nest,), counts)


def _load_head() -> tuple[Loop, Loop]:
    keys = box(1, (_HEAD, HEAD_CHANNELS), (var(2, TILE), TILE))
    values = box(2, (var(2, DEPTH), DEPTH), (_HEAD, HEAD_CHANNELS))
    return (
        par(TOKEN_BLOCKS, op("tldb", _key_ring(var(2)), keys, 1, "bf16",
                             waits=(sync(_K_FREE),), posts=(sync(_K_FULL),))),
        par(_PARTS, op("tldb", _value_ring(var(2)), values, 1, "bf16",
                       waits=(sync(_V_FREE),), posts=(sync(_V_FULL),))),
    )  # fmt: skip


def _key_ring(number: Affine) -> RingAddress:
    """In buffer B: the keys of two heads, then the values of two heads."""
    return RingAddress(number * _KEY_BYTES, TOKEN_BLOCKS * _KEY_BYTES, var(1), 2)


def _value_ring(number: Affine) -> RingAddress:
    behind = 2 * TOKEN_BLOCKS * _KEY_BYTES
    return RingAddress(number * _PART_BYTES + behind, _PARTS * _PART_BYTES, var(1), 2)


class _Block:
    """A block of 64 queries: its vector program, its number, and the depth of the loops that it opens."""

    def __init__(self, program: int, number: Affine, depth: int) -> None:
        self.program = program
        self.query = number * TILE
        self.depth = depth
        self.inner = 1 << depth
        # In buffer A: the queries of each program, then its probabilities.
        self.query_ring = RingAddress(Affine(program * _KEY_BYTES))
        base = PROGRAMS * _KEY_BYTES + program * _PARTS * _PART_BYTES
        self.probability_ring = RingAddress(var(depth, _PART_BYTES) + base)

    def load_queries(self) -> Instruction:
        """The A operand of the scores."""
        queries = box(0, (self.query, TILE), (_HEAD, HEAD_CHANNELS))
        return op("tlda", self.query_ring, queries, 1, "bf16", waits=(sync(_Q_FREE),), posts=(sync(_Q_FULL),))

    def scores(self) -> Loop:
        """Eight tiles of scores, masked, and their maximum; two at a time, so that the mask comes in time."""
        load_masks = (
            self._op("vld", self._register(_MASK + half), box(3, (self.query, TILE), self._keys(half)))
            for half in range(_MASKS)
        )
        tiles = (instruction for half in range(_MASKS) for instruction in self._score_tile(half))
        return red(TOKEN_BLOCKS // _MASKS, *load_masks, *tiles)

    def softmax(self) -> tuple[Loop | Instruction, ...]:
        """Exponentials to the tensor buffer; their sum is divided out of the result."""
        tile, vector, total = self._register(var(self.depth)), self._register(_VECTOR), self._register(_SUM)
        ready = sync(_P_READY + self.program, last=self.inner)
        row = (self.program * TILE, TILE)
        return (
            self._op("vredmax", vector, self._register(_MAXIMUM), 0b10),
            par(TOKEN_BLOCKS, self._op("vsub", tile, tile, vector), self._op("vexp2", tile, tile)),
            red(
                TOKEN_BLOCKS,
                self._op("vfoldsum", total, tile, self.inner),
                self._op("vst", box(5, row, (var(self.depth, TILE), TILE)), tile, posts=(ready,)),
            ),
            self._op("vredsum", vector, total, 0b10),
            self._op("vrcp", vector, vector),
        )

    def values(self) -> tuple[Loop | Instruction, ...]:
        """The product with the values: awaited by the head's first block, freed by its last."""
        part = var(self.depth)
        ready, full = sync(_P_READY + self.program, first=self.inner), _OUT_FULL + self.program
        probabilities = box(5, (self.program * TILE, TILE), (part * DEPTH, DEPTH))
        load = op("tlda", self.probability_ring, probabilities, 1, "bf16",
                  waits=(sync(_P_FREE), ready), posts=(sync(_P_FULL),))  # fmt: skip
        arrived = (sync(_V_FULL, first=_PAIR),) if self.program == 0 else ()
        done = (sync(_V_FREE),) if self.depth == 2 else ()
        multiply = op(
            "tmma", self.probability_ring, _value_ring(part), TILE, HEAD_CHANNELS, DEPTH, "bf16", self.inner,
            waits=(sync(_P_FULL), *arrived, sync(_ACC_FREE, first=self.inner)),
            posts=(sync(_P_FREE), *done, sync(full, last=self.inner)),
        )  # fmt: skip
        result = self._register(_RESULT)
        taken = {"waits": (sync(full),), "posts": (sync(_ACC_FREE),)}
        return (
            red(_PARTS, load),
            red(_PARTS, multiply),
            self._op("vacc", result, (TILE, HEAD_CHANNELS), 0, **taken),
            self._op("vmul", result, result, self._register(_VECTOR)),
            self._op("vst", box(4, (self.query, TILE), (_HEAD, HEAD_CHANNELS)), result),
        )

    def _score_tile(self, half: int) -> tuple[Instruction, ...]:
        """A tile of scores. The head's keys are awaited by its first block, freed by its last."""
        number = var(self.depth, _MASKS) + half
        tile, largest = self._register(number), self._register(_MAXIMUM)
        full = sync(_SCORES_FULL + self.program)
        start = (sync(_Q_FULL, first=self.inner),) if half == 0 else ()
        end = (sync(_Q_FREE, last=self.inner),) if half == _MASKS - 1 else ()
        arrived = (sync(_K_FULL, first=_PAIR),) if self.program == 0 else ()
        done = (sync(_K_FREE, last=_PAIR),) if self.program == PROGRAMS - 1 else ()
        multiply = op(
            "tmma", self.query_ring, _key_ring(number), TILE, TILE, HEAD_CHANNELS, "bf16", 0,
            waits=(*start, *arrived, sync(_ACC_FREE)), posts=(*end, *done, full),
        )  # fmt: skip
        if half == 0:
            maximum = self._op("vfoldmax", largest, tile, self.inner)
        else:
            maximum = self._op("vmax", largest, largest, tile)
        return (
            multiply,
            self._op("vacc", tile, (TILE, TILE), 0, waits=(full,), posts=(sync(_ACC_FREE),)),
            self._op("vadd", tile, tile, self._register(_MASK + half)),
            maximum,
        )

    def _keys(self, half: int) -> tuple[Affine, int]:
        return var(self.depth, _MASKS * TILE) + half * TILE, TILE

    def _register(self, number: Affine | int) -> Register:
        base = self.program * _REGISTERS
        return v(number + base if isinstance(number, Affine) else Affine(number + base))

    def _op(self, mnemonic: str, *operands, waits=(), posts=()) -> Instruction:
        return op(mnemonic, *operands, waits=waits, posts=posts, program=self.program)
