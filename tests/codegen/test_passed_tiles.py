"""Rows of which the second of two products loads chunks as soon as their tiles are stored."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from followed import followed
from graph_maker import GraphMaker, random_inputs
from machines import with_input_buffers
from pipeline import Compiled

from birc.codegen import passed_tiles
from birc.codegen.passed_tiles import Telling, telling_of
from birc.codegen.row_order import Passed
from birc.compiler.ir.graph import Graph
from birc.runtime.program import Axis, Box, Instruction, Loop, Sync, affine
from birc.runtime.timing import simulate
from birc.runtime.verifier.findings import VerificationError
from birc.runtime.verifier.verify import verify_program

WIDE = with_input_buffers().with_values({"spc_sram_bytes": 1 << 22})
ROWS, COLUMNS = 3, 2
STORED, SUMS, LOADED = range(3)
SEMAPHORE = affine(5)


def box(slot: int, width: int, depth: int | None, begin: int = 0) -> Box:
    """64 rows by the loop at depth 0, and `width` columns by that at `depth`."""
    columns = affine(begin, {} if depth is None else {depth: width})
    return Box(slot, (Axis(affine(0, {0: 64}), 64), Axis(columns, width)), "zero")


def store(slot: int, width: int, depth: int | None, begin: int = 0) -> Instruction:
    return Instruction("vst", (box(slot, width, depth, begin), 0.0))


def products(tiles: int, width: int, chunks: int, chunk: int) -> tuple[Loop, Loop]:
    """Rows of tiles, the last one behind the loop over the others, and loads of their chunks for some columns."""
    last = store(STORED, width, None, (tiles - 1) * width)
    ahead = Loop("seq", ROWS, (Loop("par", tiles - 1, (store(STORED, width, 1),)), last, store(SUMS, 1, None)))
    load = Instruction("tlda", (0, box(LOADED, chunk, 2), 1, "bf16"))
    return ahead, Loop("par", ROWS, (Loop("par", COLUMNS, (Loop("red", chunks, (load,)),)),))


def told(ahead: Loop, behind: Loop, others: frozenset[int] = frozenset({7})) -> Telling:
    return telling_of([ahead], [behind], Passed(STORED, SUMS, LOADED, others, 1))


def happens(sync: Sync, variables: tuple[int, ...], extents: tuple[int, ...]) -> bool:
    """Whether a wait or a post takes part in an iteration."""
    is_first = all(not sync.first >> d & 1 or at == 0 for d, at in enumerate(variables))
    return is_first and all(not sync.last >> d & 1 or at == extents[d] - 1 for d, at in enumerate(variables))


def posted_by_tile(telling: Telling, ahead: Loop, row: int) -> list[int]:
    """How many counts there are when each tile of a row is stored."""
    tiles, last, _ = ahead.body
    assert isinstance(tiles, Loop) and isinstance(last, Instruction)
    inner = tiles.body[0]
    assert isinstance(inner, Instruction)
    at = [telling.posts(inner, (ahead, tiles), SEMAPHORE)] * tiles.extent
    counts = [sum(happens(s, (row, n), (ROWS, tiles.extent)) for s in posts) for n, posts in enumerate(at)]
    counts.append(sum(happens(s, (row,), (ROWS,)) for s in telling.posts(last, (ahead,), SEMAPHORE)))
    return [int(n) for n in np.cumsum(counts)]


def awaited_by_chunk(telling: Telling, behind: Loop, row: int, column: int) -> list[int]:
    """How many counts were awaited when each chunk of a row is loaded."""
    columns = behind.body[0]
    assert isinstance(columns, Loop) and isinstance(columns.body[0], Loop)
    chunks = columns.body[0]
    load = chunks.body[0]
    assert isinstance(load, Instruction)
    waits = telling.waits(load, (behind, columns, chunks), SEMAPHORE)
    extents = (ROWS, COLUMNS, chunks.extent)
    counts = [sum(happens(s, (row, column, n), extents) for s in waits) for n in range(chunks.extent)]
    return [int(n) for n in np.cumsum(counts)]


@pytest.mark.parametrize(
    ("tiles", "width", "chunks", "chunk"),
    [
        (16, 64, 8, 128),
        (8, 64, 8, 64),
        (15, 64, 8, 128),
        (7, 64, 2, 256),
        (5, 64, 2, 192),
        (15, 60, 4, 256),
        (4, 128, 8, 64),
        (3, 100, 5, 64),
    ],
)
def test_a_chunk_waits_for_the_tiles_that_it_needs(tiles: int, width: int, chunks: int, chunk: int) -> None:
    """What was awaited says that all its tiles are stored; the first chunk does not wait for the last tile."""
    ahead, behind = products(tiles, width, chunks, chunk)
    telling = told(ahead, behind)
    for row in range(ROWS):
        posted, awaited = posted_by_tile(telling, ahead, row), awaited_by_chunk(telling, behind, row, 0)
        assert posted[-1] == awaited[-1], "rows leave no counts to the next"
        for number, counts in enumerate(awaited):
            needed = min(tiles, -(-(number + 1) * chunk // width))
            there = next(n for n, before in enumerate(posted, 1) if before >= counts)
            assert there >= needed
            assert chunk % width or there == needed, "it waits for none that it does not need"
        assert next(n for n, before in enumerate(posted, 1) if before >= awaited[0]) < tiles
        assert set(awaited_by_chunk(telling, behind, row, 1)) == {0}, "rows are there for other columns"


@pytest.mark.parametrize("begins", [[3, 2, 1, 0], [1, 2, 3, 0]])
@pytest.mark.parametrize("chunks", [1, 4])
def test_a_row_whose_first_chunk_needs_the_last_tile_is_awaited_as_a_whole(begins: list[int], chunks: int) -> None:
    ahead, behind = products(4, 64, chunks, 256 // chunks)
    *_, sums = ahead.body
    ahead = replace(ahead, body=(*(store(STORED, 64, None, 64 * n) for n in begins), sums))
    telling = told(ahead, behind)
    posts = [telling.posts(i, (ahead,), SEMAPHORE) for i in ahead.body if isinstance(i, Instruction)]
    assert [len(each) for each in posts] == [0, 0, 0, 1, 0]
    assert awaited_by_chunk(telling, behind, 1, 0) == [1] * chunks


def test_a_row_that_is_told_by_what_is_stored_behind_its_tiles_is_awaited_as_a_whole() -> None:
    """Without sums that are awaited, the last store of a row says that its program has done with it."""
    ahead, behind = products(16, 64, 8, 128)
    telling = told(ahead, behind, others=frozenset())
    assert posted_by_tile(telling, ahead, 1) == [0] * 16
    sums = ahead.body[-1]
    assert isinstance(sums, Instruction)
    assert len(telling.posts(sums, (ahead,), SEMAPHORE)) == 1
    assert awaited_by_chunk(telling, behind, 1, 0) == [1] * 8


def attention(columns: int) -> Graph:
    """Heads of one block of rows each, of as many columns of scores."""
    make = GraphMaker()
    scores = make("matmul", make.input(4, 128, 16), make.input(4, 16, columns))
    return make.graph(make("matmul", make("softmax", scores, axis=2), make.input(4, columns, 24)))


def first_of(columns: int) -> Compiled:
    return next(iter(followed(attention(columns), WIDE, "bf16")))


@pytest.mark.parametrize("columns", [320, 512, 900])
def test_a_kernel_takes_less_than_with_whole_rows(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row's product is under way before its last tile is stored; values stay."""
    found = first_of(columns)
    monkeypatch.setattr(passed_tiles, "_counts", lambda *_: None)
    whole = first_of(columns)
    inputs = {n: a.astype(ml_dtypes.bfloat16).astype(a.dtype) for n, a in random_inputs(found.graph).items()}
    for one, other in zip(*(c.step(inputs, "random", 5).values() for c in (found, whole)), strict=True):
        np.testing.assert_array_equal(one, other)
    found.verify()
    took, whole_took = (simulate(c.program, c.machine).latency_cycles for c in (found, whole))
    assert took < whole_took


@pytest.mark.parametrize("columns", [320, 512, 900])
def test_a_tile_that_is_told_too_early_is_refused(columns: int) -> None:
    """The last tile of the last row counts when the one before it is stored: its chunk may be loaded too early."""
    found = first_of(columns)
    (number, code) = next((n, k) for n, k in enumerate(found.program.kernels) if len(k.nests) > 1)
    told = [i for i in code.instructions() if i.mnemonic == "vst" and i.posts]
    (semaphore, *_) = dict.fromkeys(sync.semaphore for i in told for sync in i.posts)
    *_, before, last = (i for i in told if i.posts[0].semaphore == semaphore)

    def early(item: Loop | Instruction, depth: int = 0) -> Loop | Instruction:
        if isinstance(item, Loop):
            return replace(item, body=tuple(early(inner, depth + 1) for inner in item.body))
        if item is before:
            more = (replace(sync, last=1 << depth - 1) for sync in last.posts)
            return replace(item, posts=(*item.posts, *more))
        return replace(item, posts=()) if item is last else item

    mutant = replace(code, nests=tuple(map(early, code.nests)))
    kernels = tuple(mutant if n == number else k for n, k in enumerate(found.program.kernels))
    with pytest.raises(VerificationError) as caught:
        verify_program(replace(found.program, kernels=kernels), found.machine)
    assert "unordered with" in str(caught.value.findings)
