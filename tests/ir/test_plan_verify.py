"""The verifier of plans: a valid plan passes, and each broken rule is reported where it is broken."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from plan_stages import plan_stages

from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.plan import KernelStep, Plan
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_verify import PHASES, verify_plan
from birc.compiler.ir.plan_verify_kernel import signature
from birc.runtime.errors import InternalError
from birc.runtime.isa import BY_MNEMONIC, VECTOR
from birc.runtime.machine import load_machine

VALID = """\
plan "valid" on tiny dies 2 precision model macs 16384 {
  buffer %x : f32 2048 bytes input in hbm at 0x0 live 1 to 1
  buffer %i : i64 64 bytes input in hbm at 0x800 live 3 to 3
  buffer %w : f32 8192 bytes constant in hbm at 0xa00 live 0 to 0
  buffer %w.l2 : f32 8192 bytes scratch in l2 at 0x0 live 0 to 1 mirrors %w
  buffer %t : f32 1024 bytes scratch in l2 at 0x2000 live 1 to 3
  buffer %u : f32 1024 bytes scratch in l2 at 0x0 live 2 to 2
  buffer %out : f32 1024 bytes output in hbm at 0x2a00 live 3 to 4
  input "x" : f32[8, 64] {
    piece 3 [0, 0] %x dims [8, 64] strides [64, 1]
  }
  input "i" : i64[8] {
    piece 3 [0] %i dims [8] strides [1]
  }
  output "out" : f32[8, 32] {
    piece 1 [0, 0] %out dims [8, 32] strides [32, 1]
  }
  copy %w to %w.l2
  run {
    kernel "product" macs 16384 {
      space [par y 8, par o 32, red c 64]
      contract tf32p rows 1 [y] columns [o] depth 1
        a = %x[y, c] dims [8, 64] strides [64, 1]
        b = %w.l2[c, o] dims [64, 32] strides [32, 1]
      tile [y 8, o 32, c 16] programs 2
      phase {
        v0 = vacc
        v1 = vmax(v0, 0.0)
        vst(v1) %t[y, o] dims [8, 32] strides [32, 1]
      }
    }
    same
  }
  run {
    kernel "window" {
      space [par y 8, par o 32, red r 3]
      tile [y 3, o 32] spcs [y 2]
      phase (r) {
        v0 = vld %t[y, o +1 r -1] dims [8, 32] strides [32, 1] fill lowest
        v1 = vfoldmax(v0) over [r]
      }
      phase {
        v2 = vredsum(v1) over [o]
        v3 = vsub(v1, v2)
        vst(v3) %u[y, o] dims [8, 32] strides [32, 1]
      }
    }
    same
  }
  run {
    kernel "gather" {
      space [par y 8, par o 32]
      tile [y 8, o 32]
      phase {
        v0 = vld %i[y, 0] dims [8, 1] strides [1, 0]
        v1 = vldx(v0) %t[0, o] dims [8, 32] strides [32, 1] axis 0 count 8
        vst(v1) %out[y, o] dims [8, 32] strides [32, 1]
      }
    }
    idle
  }
  exchange {
    send %out dims [8, 32] strides [32, 1] from die 0
  }
}
"""
PRODUCT = "v0 = vacc\n        v1 = vmax(v0, 0.0)"
A = "a = %x[y, c] dims [8, 64] strides [64, 1]"
B = "b = %w.l2[c, o] dims [64, 32] strides [32, 1]"
STORE = "vst(v1) %t[y, o] dims [8, 32] strides [32, 1]"
WINDOW = "v0 = vld %t[y, o +1 r -1] dims [8, 32] strides [32, 1] fill lowest"
INDEXED = "v1 = vldx(v0) %t[0, o] dims [8, 32] strides [32, 1] axis 0 count 8"
PIECE = "piece 3 [0, 0] %x dims [8, 64]"


class Mistake(NamedTuple):
    """Text to replace, and what the verifier says of the result (in `phase`, by default the last)."""

    old: str
    new: str
    where: str
    what: str
    phase: str = "allocate"


BUFFERS = (
    Mistake("buffer %u :", "buffer %t :", "buffer %t", "is declared twice"),
    Mistake("buffer %u :", 'buffer %"" :', "buffer %", "has no name"),
    Mistake("%t : f32", "%t : f31", "buffer %t", "unknown element type 'f31'"),
    Mistake(
        "1024 bytes scratch in l2 at 0x2000",
        "1024 bytes temporary in l2 at 0x2000",
        "buffer %t",
        "unknown role",
    ),
    Mistake("%t : f32 1024", "%t : f32 -4", "buffer %t", "has -4 bytes"),
    Mistake("mirrors %w\n", "mirrors %v\n", "buffer %w.l2", "mirrors %v, which is not declared"),
    Mistake("mirrors %w\n", "mirrors %t\n", "buffer %w.l2", "not a constant or input of the same type and size"),
    Mistake("macs 16384 {\n  b", "macs 16384 repeat 0 {\n  b", "rounds", "run 0 times"),
    Mistake(
        "macs 16384 {\n  b",
        "macs 16384 advances [%v 4] {\n  b",
        "rounds",
        "%v moves on, which is not declared",
    ),
    Mistake(
        "macs 16384 {\n  b", "macs 16384 bounds [tcore 1, hbm 2] {\n  b", "bounds", "are of tcore, hbm, not of tcore"
    ),
    Mistake(
        "macs 16384 {\n  b",
        "macs 16384 bounds [tcore 1, vector -2, hbm 3, l2 0, noc 0, d2d 0, dependency 4] {\n  b",
        "bounds",
        "vector is -2 cycles",
    ),
    Mistake("macs 16384 {\n  b", "macs 16384 advances [%t 4] {\n  b", "rounds", "only inputs and outputs do"),
    Mistake(
        "macs 16384 {\n  b",
        "macs 16384 repeat 2 advances [%x 1024] {\n  b",
        "step 1, kernel 'product'",
        "a: the view of %x spans elements 0 to 511, there are 256",
    ),
)
BOUNDARIES = (
    Mistake('"x" : f32', '"x" : f33', "input 'x'", "unknown element type 'f33'"),
    Mistake(f"    {PIECE} strides [64, 1]\n", "", "input 'x'", "has no piece"),
    Mistake("piece 3 [0, 0]", "piece 4 [0, 0]", "input 'x'", "on the dies 0x4, there are 2"),
    Mistake(PIECE, "piece 3 [0] %x dims [8, 64]", "input 'x'", "[8, 64] from [0] of the shape [8, 64]"),
    Mistake(PIECE, "piece 3 [1, 0] %x dims [8, 64]", "input 'x'", "[8, 64] from [1, 0] outside [8, 64]"),
    Mistake(PIECE, PIECE.replace("%x", "%y"), "input 'x'", "views %y, which is not declared"),
)
STEPS = (
    Mistake("    idle\n", "", "step 3", "has kernels for 1 dies, there are 2"),
    Mistake("  exchange {", "  run {\n    idle\n    idle\n  }\n  exchange {", "step 4", "runs no kernel"),
    Mistake("copy %w to %w.l2", "copy %v to %w.l2", "step 0", "copies %v, which is not declared"),
    Mistake("copy %w to %w.l2", "copy %w to %t", "step 0", "copies %w to %t, which is of another size"),
    Mistake("send %out dims", "send %o dims", "step 4", "views %o, which is not declared"),
    Mistake("from die 0", "from die 2", "step 4", "is sent by die 2, there are 2"),
    Mistake("from die 0", "from die 1", "step 4, die 1", "reads %out, which is not written there yet"),
    Mistake("copy %w to %w.l2", "", "step 0, die 0", "reads %w.l2, which is not written there yet"),
    Mistake("vst(v3) %u", "vst(v3) %x", "step 2, die 1", "writes %x, of role input"),
    Mistake("vst(v1) %out", "vst(v1) %u", "output 'out'", "lies in %out, which die 0 never writes"),
)
SPACES = (
    Mistake("[par y 8, par o 32]", "[par y 8, par y 32]", "kernel 'gather'", "dimension 'y' is given twice"),
    Mistake("[par y 8, par o 32]", '[par y 8, par "" 32]', "kernel 'gather'", "a dimension has no name"),
    Mistake("[par y 8, par o 32]", "[par y 8, sum o 32]", "kernel 'gather'", "neither par, red nor whole but 'sum'"),
    Mistake("[par y 8, par o 32]", "[par y 0, par o 32]", "kernel 'gather'", "y has extent 0, must be 1 to 8192"),
    Mistake("[par y 8, par o 32]", "[red y 8, red o 32]", "kernel 'gather'", "has no par dimension"),
    Mistake('"product" macs 16384', '"product" macs -1', "kernel 'product'", "has -1 multiply-adds"),
)
ACCESSES = (
    Mistake(INDEXED, INDEXED.replace("%t", "%y"), "kernel 'gather'", "vldx: views %y, which is not declared"),
    Mistake(A, A.replace("[64, 1]", "[1]"), "kernel 'product'", "a: the view of %x has 2 dims, 1 strides, 0 lower"),
    Mistake(A, A + " lower [1]", "kernel 'product'", "a: the view of %x has 2 dims, 2 strides, 1 lower"),
    Mistake(A, A.replace("[8, 64]", "[0, 64]"), "kernel 'product'", "has dims [0, 64]"),
    Mistake(A, A + " offset 1", "kernel 'product'", "spans elements 1 to 512, there are 512"),
    Mistake(A, A + " lower [-1, 0]", "kernel 'product'", "spans elements -64 to 447, there are 512"),
    Mistake(A, A.replace("[y, c]", "[c]"), "kernel 'product'", "a: 1 coordinates for a view of 2 dimensions"),
    Mistake(A, A.replace("[y, c]", "[y, z]"), "kernel 'product'", "a: moves with z, which is no dimension"),
    Mistake(WINDOW, WINDOW.replace("lowest", "least"), "kernel 'window'", "vld: the fill 'least' is not one of"),
    Mistake(
        WINDOW,
        WINDOW.replace("lowest", "refuse"),
        "kernel 'window'",
        "vld: reaches -1 to 32 on axis 1, outside 0 to 31 of %t",
    ),
    Mistake(
        STORE,
        STORE.replace("[8, 32]", "[7, 32]"),
        "kernel 'product'",
        "vst: reaches 0 to 7 on axis 0, outside 0 to 6 of %t",
    ),
    Mistake(STORE, STORE.replace("[y, o]", "[-1 y, o]"), "kernel 'product'", "reaches -7 to 0 on axis 0"),
    Mistake(
        INDEXED,
        INDEXED.replace("count 8", "count 9"),
        "kernel 'gather'",
        "vldx: reaches 0 to 8 on axis 0, outside 0 to 7 of %t",
    ),
    Mistake(INDEXED, INDEXED.replace("axis 0", "axis 2"), "kernel 'gather'", "indexes 8 elements on axis 2 of 2"),
)
CONTRACTIONS = (
    Mistake("contract tf32p", "contract fp4", "kernel 'product'", "of tiny has no format 'fp4'"),
    Mistake("rows 1 [y]", "rows 1 [c]", "kernel 'product'", "row dimension c is no par dimension"),
    Mistake("columns [o]", "columns []", "kernel 'product'", "has no column dimension"),
    Mistake("columns [o]", "columns [y]", "kernel 'product'", "a dimension that is both row and column"),
    Mistake("rows 1 [y]", "rows 3 [y]", "kernel 'product'", "a: 3 leading axes of 2"),
    Mistake(A, A.replace("[y, c]", "[y +1 o, c]"), "kernel 'product'", "a: moves with o, a dimension of the other"),
    Mistake(A, A + " fill lowest", "kernel 'product'", "a: fills with 'lowest'"),
    Mistake(A, A.replace("[y, c]", "[y, c +1 y]"), "kernel 'product'", "a: a depth axis moves with y"),
    Mistake(B, B.replace("[c, o]", "[c, o +1 c]"), "kernel 'product'", "b: a column axis moves with c"),
    Mistake(A, A.replace("[y, c]", "[0, c]"), "kernel 'product'", "a: the row axes do not move with every row"),
    Mistake(B, B.replace("[c, o]", "[c, 0]"), "kernel 'product'", "b: the column axes do not move with the column"),
    Mistake("red c 64]", "red c 64, red s 2]", "kernel 'product'", "sums over s, along which no operand moves"),
    Mistake(PRODUCT, "v1 = vmax(0.0, 0.0)", "kernel 'product'", "drains its accumulator 0 times"),
    Mistake("v3 = vsub(v1, v2)", "v3 = vacc", "kernel 'window'", "vacc: there is no contraction"),
    Mistake(
        "      phase {\n        v0 = vacc",
        "      phase (y) {\n        v0 = vacc",
        "kernel 'product'",
        "phase 0 loops over y: of a contraction only columns can be walked again",
    ),
)
STATEMENTS = (
    Mistake("vsub(v1, v2)", "vcos2(v1)", "kernel 'window'", "vcos2: is no vector instruction"),
    Mistake("vsub(v1, v2)", "tmma(v1)", "kernel 'window'", "tmma: is no vector instruction"),
    Mistake("vsub(v1, v2)", "vsub(v1, v2, v2)", "kernel 'window'", "vsub: has 3 arguments, takes 2"),
    Mistake("vredsum(v1)", "vredsum(1.0)", "kernel 'window'", "vredsum: has the number 1.0 for an argument"),
    Mistake("v3 = vsub(v1, v2)", "vsub(v1, v2)", "kernel 'window'", "vsub: must name its result"),
    Mistake(STORE, "v9 = " + STORE, "kernel 'product'", "vst: has no result to call v9"),
    Mistake(WINDOW, "v0 = vld", "kernel 'window'", "vld: has no access"),
    Mistake(
        "vmax(v0, 0.0)",
        "vmax(v0, 0.0) %t[y, o] dims [8, 32] strides [32, 1]",
        "kernel 'product'",
        "vmax: cannot",
    ),
    Mistake(
        "v0 = vld %i[y, 0] dims [8, 1] strides [1, 0]",
        "v0 = vld %i[y] dims [8] strides [1]",
        "kernel 'gather'",
        "vld: the view of %i has 1 axes, registers have 2",
    ),
    Mistake(
        "v0 = vld %i[y, 0] dims [8, 1] strides [1, 0]",
        "v0 = vld %i[y, 0] dims [8, 1] strides [1, 0] as i16",
        "kernel 'gather'",
        "vld: the view of %i sees i64 as i16, word 0",
    ),
    Mistake(
        "v0 = vld %i[y, 0] dims [8, 1] strides [1, 0]",
        "v0 = vld %i[y, 0] dims [8, 1] strides [1, 0] as i32 part 2",
        "kernel 'gather'",
        "vld: the view of %i sees i64 as i32, word 2",
    ),
    Mistake("vredsum(v1) over [o]", "vredsum(v1)", "kernel 'window'", "vredsum: collapses no dimension"),
    Mistake("vredsum(v1) over [o]", "vredsum(v1) over [r]", "kernel 'window'", "collapses r, which is no axis"),
    Mistake(
        "(v0) over [r]",
        "(v0) over [o]",
        "kernel 'window'",
        "folds over ['o'] in a phase that loops over ['r']",
    ),
    Mistake("vsub(v1, v2)", "vsub(v1, v2) over [o]", "kernel 'window'", "vsub: has dimensions ['o']"),
    Mistake("phase (r) {", "phase (r, q) {", "kernel 'window'", "phase 0 loops over q, which is no dimension"),
    Mistake("phase (r) {", "phase {", "kernel 'window'", "phase 0 moves along r, over which it does not loop"),
    Mistake("vsub(v1, v2)", "vsub(v1, v7)", "kernel 'window'", "phase 1 reads v7 before it is defined"),
    Mistake("v3 = vsub(v1, v2)", "v2 = vsub(v1, v2)", "kernel 'window'", "v2 is defined twice"),
    Mistake("vsub(v1, v2)", "vsub(v1, v1)", "kernel 'window'", "v2 is never used"),
    Mistake("vsub(v1, v2)", "vsub(v0, v2)", "kernel 'window'", "reads v0, which has a value for each iteration"),
    Mistake(
        "v1 = vfoldmax(v0) over [r]",
        "v1 = vfoldmax(v0) over [r]\n        v4 = vneg(v1)",
        "kernel 'window'",
        "phase 0 reads v1, which is complete only after the phase",
    ),
)
TILE = "tile [y 8, o 32, c 16]"
TILINGS = (
    Mistake(f"      {TILE} programs 2\n", "", "kernel 'product'", "has no tiling"),
    Mistake(TILE, "tile [y 8, o 32, z 16]", "kernel 'product'", "tiles z, which is no dimension"),
    Mistake(TILE, "tile [y 9, o 32, c 16]", "kernel 'product'", "extent 9 along y, must be 1 to 8"),
    Mistake(TILE, "tile [y 8, o 32, y 8]", "kernel 'product'", "tiles a dimension twice"),
    Mistake("spcs [y 2]", "spcs [r 2]", "kernel 'window'", "spreads r over 2 SPCs, must be a par dimension"),
    Mistake("spcs [y 2]", "spcs [y 3]", "kernel 'window'", "uses 3 SPCs, a die has 2"),
    Mistake("programs 2", "programs 8", "kernel 'product'", "uses 8 vector programs, an SPC has 7"),
    Mistake("programs 2", "block 0 by 1", "kernel 'product'", "must be 1 or more"),
    Mistake("programs 2", "resident 2", "kernel 'product'", "keeps 2 depth loops resident, there are 1"),
    Mistake("programs 2", "hoist c", "kernel 'product'", "hoists 'c', must be a, b or nothing"),
    Mistake("programs 2", "hoist a", "kernel 'product'", "hoists a, but the depth is not resident"),
    Mistake("programs 2", "slots 5 and 1", "kernel 'product'", "operand a needs 20480 B of its input buffer"),
    Mistake("programs 2", "resident 1 slots 4 and 8", "kernel 'product'", "operand b needs 32768 B"),
    Mistake("programs 2", "block 6 by 6", "kernel 'product'", "needs 37 vector registers, there are 32"),
    Mistake(
        "programs 2",
        "programs 2 turns block",
        "kernel 'product'",
        "take 'block' in turn, must be tile, or block where it has several tiles",
    ),
    Mistake("programs 2", "order overlapping", "kernel 'product'", "overlaps rows: one program takes them, whole"),
    Mistake("programs 2", "order backwards", "kernel 'product'", "in the order backwards by 0, must be in_turn"),
    Mistake("programs 2", "order shifted", "kernel 'product'", "in the order shifted by 0, must be in_turn"),
    Mistake("programs 2", "order winding by 1", "kernel 'product'", "in the order winding by 1, must be in_turn"),
    Mistake("spcs [y 2]", "spcs [y 2] order winding", "kernel 'window'", "in the order winding, but is no product"),
    Mistake("programs 2", "programs 2 turns row", "kernel 'product'", "take 'row' in turn, must be tile"),
    Mistake(
        "programs 2",
        "block 1 by 2 resident 1 slots 3 and 8 stream true",
        "kernel 'product'",
        "operand a has 3 slots, 4 of its tiles are in use at once",
    ),
    Mistake(
        "programs 2",
        "block 3 by 2 resident 1 slots 4 and 8 programs 2 stream true order by_columns",
        "kernel 'product'",
        "its last 2 rows go column by column, which takes",
    ),
    Mistake(
        "programs 2",
        "order shifted by 1",
        "kernel 'product'",
        "shifts rows, which takes several columns of streamed rows",
    ),
    Mistake(
        "programs 2",
        "block 3 by 2 resident 1 slots 4 and 8 programs 2 stream true order shifted by 1",
        "kernel 'product'",
        "finished tile by tile by a program each, and a loop over chunks",
    ),
    Mistake(
        "programs 2",
        "block 3 by 2 resident 1 slots 4 and 8 stream true order winding",
        "kernel 'product'",
        "winds past its columns, which takes",
    ),
    Mistake("programs 2", "order opening", "kernel 'product'", "opens with columns row by row, which takes"),
    Mistake(
        "programs 2",
        "block 3 by 1 programs 2",
        "kernel 'product'",
        "take 3 rows of a block in turn, must be as many, or one",
    ),
    Mistake("programs 2", "programs 2 deals 0", "kernel 'product'", "deals out columns 0 times, which products do"),
    Mistake(
        "programs 2",
        "block 3 by 2 resident 1 slots 4 and 8 stream true order winding deals 2",
        "kernel 'product'",
        "neither wind past them nor overlap rows",
    ),
    Mistake(
        "phase {\n        v0 = vacc\n        v1 = vmax(v0, 0.0)",
        "phase (o) {\n        v0 = vacc\n        v8 = vfoldmax(v0) over [o]\n      }\n"
        "      phase (o) {\n        v1 = vsub(v0, v8)",
        "kernel 'product'",
        "walks rows of 1 tiles, a block has 1 and programs take a tile in turn",
    ),
    Mistake(
        "tile [y 3, o 32] spcs [y 2]",
        "tile [y 3, o 32, r 3] spcs [y 2]",
        "kernel 'window'",
        "vld: axis 1 moves with several tiled dimensions: o, r",
    ),
    Mistake(
        "tile [y 3, o 32] spcs [y 2]", "tile [y 3, o 32] spcs [y 2] eager true", "kernel 'window'", "is eager to load"
    ),
    Mistake("programs 2", "ahead true", "kernel 'product'", "loads ahead, which only vector kernels do"),
    Mistake(
        "tile [y 3, o 32] spcs [y 2]", "tile [y 3, o 32] spcs [y 2] ahead true", "kernel 'window'", "has several phases"
    ),
    Mistake("tile [y 3, o 32]", "tile [y 3, o 31]", "kernel 'window'", "vredsum: tiles of 31 reach beyond o"),
    Mistake(
        "vst(v3) %u[y, o] dims [8, 32] strides [32, 1]",
        "vst(v3) %u[y, o] dims [9, 32] strides [0, 1]",
        "kernel 'window'",
        "vst: tiles reach beyond y, the view goes on along axis 0",
    ),
)
MEMORY = (
    Mistake("l2 at 0x2000", "sram at 0x2000", "buffer %t", "lies in 'sram', not in one of hbm, l2, tb"),
    Mistake("in l2 at 0x2000", "in l2", "buffer %t", "has no address"),
    Mistake("l2 at 0x2000", "l2 at 0x1fe00", "buffer %t", "ends at 0x20200, l2 at 0x20000"),
    Mistake(
        "l2 at 0x2000 live 1 to 3",
        "l2 at 0x2000 live 2 to 3",
        "buffer %t",
        "lives in steps 2 to 3, is used in 1",
    ),
    Mistake("l2 at 0x2000", "l2 at 0x1fff", "buffer %t", "overlaps %w.l2 in l2, both live"),
    Mistake("l2 at 0x0 live 2 to 2", "l2 at 0x0 live 1 to 2", "buffer %w.l2", "overlaps %u in l2, both live"),
    Mistake("copy %w to %w.l2", "copy %w to %w.l2 once true", "buffer %w.l2", "overlaps %u in l2"),
    Mistake("hbm at 0x2a00", "hbm at 0x29ff", "buffer %out", "overlaps %w in hbm, both live"),
    Mistake("l2 at 0x2000", "tb at 0x0", "buffer %t", "ends at 0x400, tb at 0x0"),
)
MISTAKES = (
    *BUFFERS,
    *BOUNDARIES,
    *STEPS,
    *SPACES,
    *ACCESSES,
    *CONTRACTIONS,
    *STATEMENTS,
    *TILINGS,
    *MEMORY,
)


def problems_of(plan: Plan, phase: str = "allocate") -> tuple[str, ...]:
    try:
        verify_plan(plan, phase)
    except InvalidIRError as error:
        return error.problems
    return ()


def test_the_valid_plan_is_valid_after_every_phase() -> None:
    for phase in PHASES:
        verify_plan(parse_plan(VALID), phase)


OF_PARTS = """\
v4 = vld %t[y, p] dims [8, 4] strides [32, 1]
        v5 = vredsum(v4) over [p]
        v6 = vadd(v2, v5)
        v3 = vsub(v1, v6)"""
WITH_PARTS = VALID.replace("red r 3]", "red r 3, whole p 4]").replace("v3 = vsub(v1, v2)", OF_PARTS)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("tile [y 3, o 32]", "tile [y 3, o 32, p 2]", "the tile has 2 of 4 along p, which is seen as a whole"),
        ("%t[y, p] dims [8, 4]", "%t[p, y] dims [8, 8]", "vld: moves along p, which registers have on their last axis"),
        ("vst(v3) %u[y, o]", "vst(v3) %u[y, o +1 p -3]", "vst: moves along p, which registers have on their last axis"),
        ("spcs [y 2]", "spcs [p 2]", "spreads p over 2 SPCs, must be a par dimension"),
        ("whole p 4]", "whole p 9000]", "has extent 9000, must be 1 to 8192"),
        ("whole p 4]", "whole p 4000]", "a register tile has 12000 elements"),
    ],
)
def test_a_dimension_that_is_seen_as_a_whole(old: str, new: str, what: str) -> None:
    assert not problems_of(parse_plan(WITH_PARTS), "allocate")
    assert old in WITH_PARTS
    problems = problems_of(parse_plan(WITH_PARTS.replace(old, new, 1)), "allocate")
    assert [problem for problem in problems if "kernel 'window'" in problem and what in problem], problems


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what[:40])
def test_every_broken_rule_is_reported(mistake: Mistake) -> None:
    assert mistake.old in VALID
    problems = problems_of(parse_plan(VALID.replace(mistake.old, mistake.new, 1)), mistake.phase)
    found = [problem for problem in problems if mistake.where in problem.split(": ")[0] and mistake.what in problem]
    assert found, problems


def test_all_problems_are_reported_at_once() -> None:
    broken = VALID.replace("vsub(v1, v2)", "vsub(v1)").replace("count 8", "count 9").replace("0x2000", "0x0")
    with pytest.raises(InvalidIRError) as caught:
        verify_plan(parse_plan(broken), "allocate")
    assert len(caught.value.problems) >= 4
    assert f"and {len(caught.value.problems) - 1} more problems" in caught.value.what
    assert "plan 'valid' after allocate, step 2, kernel 'window'" in str(caught.value)
    assert caught.value.report.splitlines() == list(caught.value.problems)


@pytest.mark.parametrize(
    ("mistakes", "phase"), [(TILINGS, "partition"), (MEMORY, "schedule")], ids=["tilings", "memory"]
)
def test_what_later_phases_decide_is_not_asked_before(mistakes: tuple[Mistake, ...], phase: str) -> None:
    for mistake in mistakes:
        if "vst" not in mistake.old:
            assert not problems_of(parse_plan(VALID.replace(mistake.old, mistake.new, 1)), phase), mistake


def test_tiles_that_reach_beyond_the_depth_must_find_zeros_there() -> None:
    """The columns of x beyond c are the next row: only a view that ends with c reads zeros."""
    ragged = VALID.replace("red c 64]", "red c 60]")
    assert any("reach beyond c, where no operand ends" in problem for problem in problems_of(parse_plan(ragged)))
    ended = ragged.replace(A, A.replace("[8, 64]", "[8, 60]"))
    assert not problems_of(parse_plan(ended))


MASKED = """\
        v5 = vld %t[0, o] dims [1, 32] strides [32, 1]
        v6 = vsel(v5, v1, 0.0)
        v2 = vredsum(v6) over [o]"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("(v5, v1, 0.0)", "(v5, v1, 1.0)"),
        ("(v5, v1, 0.0)", "(v1, v5, 0.0)"),
        ("[0, o] dims [1, 32]", "[0, o] dims [1, 33]"),
        ("strides [32, 1]\n        v6", "strides [32, 1] fill lowest\n        v6"),
    ],
)
def test_tiles_may_reach_beyond_a_reduction_that_is_masked(old: str, new: str) -> None:
    ragged = VALID.replace("tile [y 3, o 32]", "tile [y 3, o 31]")
    masked = ragged.replace("        v2 = vredsum(v1) over [o]", MASKED.replace(old, new))
    found = [p for p in problems_of(parse_plan(masked)) if "vredsum: tiles of 31 reach beyond o" in p]
    assert bool(found) == bool(old)


@pytest.mark.parametrize(
    ("tile", "what"),
    [
        ("[y 65, o 8, c 16]", "rows 65, at most 64"),
        ("[y 8, o 65, c 16]", "columns 65, at most 64"),
        ("[y 8, o 8, c 129]", "depth 129, at most 128"),
        ("[y 64, o 65, c 16]", "a register tile has 4160 elements, holds 4096"),
    ],
)
def test_limits_of_one_operation(tile: str, what: str) -> None:
    text = f"""plan "p" on tiny dies 1 precision model macs 0 {{
      buffer %a : f32 67600 bytes input in hbm
      buffer %b : f32 67600 bytes input in hbm
      buffer %y : f32 67600 bytes output in hbm
      run {{
        kernel "k" {{
          space [par y 130, par o 130, red c 130]
          contract tf32p rows 1 [y] columns [o] depth 1
            a = %a[y, c] dims [130, 130] strides [130, 1]
            b = %b[c, o] dims [130, 130] strides [130, 1]
          tile {tile} slots 1 and 1
          phase {{
            v0 = vacc
            vst(v0) %y[y, o] dims [130, 130] strides [130, 1]
          }}
        }}
      }}
    }}"""
    assert any(what in problem for problem in problems_of(parse_plan(text), "tile"))
    assert not problems_of(parse_plan(text), "partition")


def test_a_load_must_bring_what_an_operation_takes() -> None:
    """With both axes as rows, a tile of a would have 8 x 16 rows and no depth."""
    problems = problems_of(parse_plan(VALID.replace("rows 1 [y]", "rows 2 [y]")))
    assert any("a load brings 128 rows of a, an operation takes 8" in problem for problem in problems)
    assert any("a load brings 1 depth of a, an operation takes 16" in problem for problem in problems)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("target", ["tiny", "br100"])
@pytest.mark.parametrize("network", ["mobilenet_v2", "resnet50", "bert_base", "gpt2", "llama2l"])
def test_plans_of_networks_are_valid_after_every_phase(network: str, target: str, phase: str) -> None:
    verify_plan(plan_stages(network, target).plans[phase], phase, load_machine(target))


def test_a_machine_of_ones_own_sets_the_limits() -> None:
    machine = load_machine("tiny")
    plan = parse_plan(VALID)
    small = replace(machine, spc_sram_bytes=4096)
    with pytest.raises(InvalidIRError, match="ends at 0x2400, l2 at 0x2000"):
        verify_plan(plan, "allocate", small)


def test_mutations_of_a_real_plan_are_caught() -> None:
    """Leaving out any kernel that others depend on breaks the flow of data."""
    plan = plan_stages("gpt2", "tiny").plans["allocate"]
    for number, step in enumerate(plan.steps):
        if isinstance(step, KernelStep):
            assert problems_of(replace(plan, steps=plan.steps[:number] + plan.steps[number + 1 :]))


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(InternalError, match="no plan after the phase 'fuse'"):
        verify_plan(parse_plan(VALID), "fuse")


def test_signatures_follow_the_instruction_table() -> None:
    for row in VECTOR:
        found = signature(row)
        assert found.has_result == (row.mnemonic != "vst")
        assert found.has_access == row.mnemonic.startswith(("vld", "vst"))
    assert signature(BY_MNEMONIC["vfma"]).arguments == (True, True, True)
    assert signature(BY_MNEMONIC["vldx"]).arguments == (False,)
    assert signature(BY_MNEMONIC["vredsum"]).arguments == (False,)
    assert signature(BY_MNEMONIC["vacc"]).arguments == ()
