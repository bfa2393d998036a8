"""The verifier inside a kernel: queues, semaphores, registers, tiles, memory that queues and SPCs share."""

from __future__ import annotations

from dataclasses import replace

import pytest
from programs import (
    box,
    gather,
    gemm,
    i,
    max_pool,
    op,
    par,
    red,
    sync,
    v,
    vector_add,
)
from verifying import (
    ROW,
    edited,
    findings,
    loops,
    operand,
    refused,
    single,
    with_descriptor,
    with_kernel,
)

from birc.runtime.program import (
    Kernel,
)

# --- inside a kernel


def test_a_missing_wait_is_a_race():
    program = gemm().program
    drop = lambda number: lambda item: replace(item, waits=(*item.waits[:number], *item.waits[number + 1 :]))
    refused(edited(program, 2, drop(0)), "reads the A tile", "while it is written by load A")
    refused(edited(program, 0, drop(0)), "overwrites the tile", "while it is read by compute")
    refused(edited(program, 2, drop(2)), "overwrites the accumulator", "read by vector program 0")
    refused(edited(program, 3, drop(0)), "reads the accumulator while it is written by compute")


def test_a_missing_post_is_a_deadlock():
    program = gemm().program
    refused(edited(program, 0, lambda item: replace(item, posts=())), "deadlock: waits for semaphore 0")
    refused(edited(program, 3, lambda item: replace(item, posts=())), "deadlock: waits for semaphore 5")


def test_semaphores_return_to_their_counts():
    kernel = Kernel("k", (op("vmovi", v(0), 0.0, (1, 64), posts=(sync(0),)),), (0,))
    program = with_kernel(single(), kernel)
    refused(program, "semaphore 0 ends at 1, it began at 0")


def test_too_many_credits_are_a_race():
    program = gemm().program
    counts = (0, 3, 0, 2, 0, 1)
    refused(with_kernel(program, replace(program.kernels[0], semaphores=counts)), "overwrites the tile", "compute")


def test_a_semaphore_has_one_waiting_queue():
    turn = {"waits": (sync(0),), "posts": (sync(0),)}
    body = tuple(op("vmovi", v(p), 0.0, (1, 64), program=p, **turn) for p in (0, 1))
    refused(single(*body, semaphores=(1,)), "vector program 0 and vector program 1", "one waiting queue")


def test_posts_are_ordered():
    fill = lambda p: op("vmovi", v(p), 0.0, (1, 64), posts=(sync(0),), program=p)
    take = op("vmovi", v(2), 0.0, (1, 64), waits=(sync(0), sync(0)), program=2)
    refused(single(fill(0), fill(1), take, semaphores=(0,)), "in no fixed order")


def test_registers_belong_to_a_program():
    fill = op("vmovi", v(0), 0.0, (1, 64), posts=(sync(0),))
    store = op("vst", box(1, (0, 1), (0, 64)), v(0), waits=(sync(0),), program=1)
    refused(single(fill, store, semaphores=(0,)), "last written by vector program 0")
    again = op("vmovi", v(0), 1.0, (1, 64), program=1)
    refused(single(op("vmovi", v(0), 0.0, (1, 64)), again), "overwrites register 0 while it is written")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ((op("vmov", v(0), v(1)),), ("reads register 1", "never written")),
        ((op("vfoldsum", v(0), 1.0, 0),), ("immediate has no shape",)),
        ((op("vacc", v(0), (64, 64), 0),), ("reads the accumulator, which was never written",)),
        ((op("vmovi", v(0), 0.0, (2, 3)), op("vmovi", v(1), 0.0, (3, 2)), op("vadd", v(0), v(0), v(1))),
         ("(2, 3) and (3, 2) do not go together",)),
        ((op("vmovi", v(0), 0.0, (2, 3)), op("vmovi", v(1), 0.0, (3,)), op("vadd", v(0), v(0), v(1))),
         ("of different rank",)),
        ((op("vmovi", v(0), 0.0, (64, 1)), op("vmovi", v(1), 0.0, (1, 65)), op("vadd", v(0), v(0), v(1))),
         ("4160 elements in a register of 4096",)),
        ((op("vmovi", v(0), 0.0, (2, 3)), op("vredsum", v(0), v(0), 0b100)), ("reduces axes 0b100",)),
        ((op("vmovi", v(0), 0.0, (2, 64)), op("vst", box(1, (0, 1), (0, 64)), v(0))),
         ("a store of (2, 64)",)),
        ((op("vmovi", v(0), 0.0, (2, 64)), op("vmovi", v(1), 0.0, (4, 64)),
          red(2, op("vfoldsum", v(0), v(1), 0))), ()),
    ],
)  # fmt: skip
def test_contents_of_registers_go_together(body, words):
    if words:
        refused(single(*body), *words)
    else:
        found = findings(single(*body))
        assert all("is never written" in text or "are never written" in text for text in found)


def test_a_par_loop_does_not_pass_values_on():
    program = max_pool().program
    refused(
        loops(program, lambda loop: replace(loop, kind="par")),
        "reads register 1 of another iteration of the par loop",
    )


def test_stores_convert_only_what_they_may():
    program = with_descriptor(gemm().program, 4, dtype="i32")
    refused(program, "a store of FP32 as i32; it takes vtoint first")
    program = with_descriptor(gather().program, 1, dtype="f32")
    refused(program, "the index register holds FP32")


def test_tiles_hold_what_the_product_takes():
    program = gemm().program
    refused(edited(program, 0, operand(1, box(0, (0, 32), (0, 64)))), "the loaded tile: 32 x 64 bf16")
    refused(edited(program, 0, operand(3, "s8")), "uses 64 x 64 bf16")
    refused(edited(program, 3, operand(1, (32, 64))), "drains (32, 64) of an accumulator of 64 x 64")
    refused(edited(program, 2, operand(6, 0)), "starts a sum before the last one was drained")
    refused(edited(program, 0, operand(1, box(0, (0, 64), (0, 64), (0, 1)))), "3 axes on a tensor of 2")
    refused(with_descriptor(program, 0, dtype="i8"), "loads i8 as bf16")


def test_spcs_write_apart():
    program = vector_add(8000).program
    shifted = box(2, (i(0, 4000) + i(1, 4096) + i(2, 4096), 4096))
    refused(edited(program, 3, operand(0, shifted)), "SPC 0 and SPC 1", "share bytes")


def test_spcs_may_interleave():
    """Rows dealt out in turn: the hulls of the SPCs overlap, their rows do not."""
    row = ((i(0) + i(1, 2), 1), (0, 64))
    nest = par(2, par(4, op("vld", v(0), box(0, *row)), op("vst", box(1, *row), v(0))), level="spc")
    assert findings(single(nest)) == []
    clash = ((i(0) + i(1), 1), (0, 64))
    nest = par(2, par(4, op("vld", v(0), box(0, *row)), op("vst", box(1, *clash), v(0))), level="spc")
    refused(single(nest), "share bytes")


def test_refuse_boxes_are_inside():
    inside = par(8, op("vld", v(0), box(0, *ROW, fill="refuse")), op("vst", box(1, *ROW), v(0)))
    assert findings(single(inside)) == []
    row = ((i(0) + 1, 1), (0, 64))
    outside = par(8, op("vld", v(0), box(0, *row, fill="refuse")), op("vst", box(1, *ROW), v(0)))
    refused(single(outside), "at iteration (7)", "leaves its tensor (8, 64)")
    below = op("vld", v(0), box(0, (i(0, -1) + i(1) + 7, 1), (0, 64), fill="refuse"))
    clear = (op("vmovi", v(0), 0.0, (1, 64)), op("vst", box(1, *ROW), v(0)))
    limited = par(8, *clear, red(8, below, limit=i(0) + 1))
    assert findings(single(limited)) == []


def test_dims_are_limited_but_for_an_indexed_axis():
    long = with_descriptor(gather(rows=9000).program, 0)
    assert findings(long) == []
    refused(vector_add().program, "dims (30000,)", "max_dim = 8192")
