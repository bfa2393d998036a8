"""Parts of the values engine on their own: indices, places, merged axes, counts, blocks, intervals, threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import BUILDERS, box, i, op, par, red, v
from random_kernels import FAMILIES

from birc.runtime.machine import load_machine
from birc.runtime.program import Affine, Descriptor, Kernel, RingAddress
from birc.runtime.stepping.commands import CommandState, issues
from birc.runtime.values.axes import Part, parts_of
from birc.runtime.values.blas import BlasThreads
from birc.runtime.values.blocks import Blocking, Sides, Work, block_lengths, cut
from birc.runtime.values.counting import count_kernel
from birc.runtime.values.form import LoopVariable
from birc.runtime.values.index_space import CannotRaiseError, IndexSpace
from birc.runtime.values.intervals import IntervalMap
from birc.runtime.values.locations import distinct, ring_place
from birc.runtime.values.raise_kernel import raise_kernel
from birc.runtime.values.workers import Workers

# --- indices


def test_equal_shapes_share_factors():
    space = IndexSpace()
    rows, columns = space.new(8), space.new(6)
    flat = space.new(48)
    space.unite((flat,), (rows, columns))
    assert space.leaves(flat) == space.leaves(rows) + space.leaves(columns)
    assert dict(space.terms(flat, 2)) == dict(zip(space.leaves(flat), (12, 2), strict=True))


def test_a_shape_of_another_size_is_refused():
    space = IndexSpace()
    with pytest.raises(CannotRaiseError):
        space.unite((space.new(6),), (space.new(4),))


@given(st.permutations([2, 3, 4]), st.permutations([2, 3, 4]))
def test_united_shapes_have_the_same_leaves(left: list[int], right: list[int]):
    space = IndexSpace()
    one, other = [space.new(extent) for extent in left], [space.new(extent) for extent in right]
    try:
        space.unite(one, other)
    except CannotRaiseError:
        return  # 4 * 3 and 3 * 4 have no common cut
    leaves = [[leaf for index in side for leaf in space.leaves(index)] for side in (one, other)]
    assert leaves[0] == leaves[1]


# --- places


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(0, 3), st.integers(1, 3))
def test_places_are_distinct_when_their_addresses_are(outer: int, inner: int, factor: int, stride: int, modulo: int):
    variables = (LoopVariable(0, 10, 0, outer), LoopVariable(1, 11, 0, inner))
    address = RingAddress(i(0, factor) + i(1), stride, i(0) + i(1), modulo)
    place = ring_place(address, variables, {10: outer, 11: inner})
    addresses = [address.at((a, b)) for a in range(outer) for b in range(inner)]
    matters = len(place.coefficients) == 2 or outer * inner == 1
    if matters:
        assert distinct(place, frozenset()) == (len(set(addresses)) == len(addresses))
    assert place.reach[0] <= min(addresses) and max(addresses) <= place.reach[1]


# --- axes


def only_part(kernel: Kernel, descriptors: dict[int, Descriptor]) -> Part:
    trace, reasons = raise_kernel(kernel, descriptors)
    assert reasons == ()
    (part,) = parts_of(trace.operations, trace.space, descriptors)
    return part


def test_tile_loops_merge_into_the_axes_of_the_tensor():
    """Three loops over each dimension of a matrix, ragged at the end: two axes, of the matrix' own length."""
    where = (i(0, 32) + i(2, 8), 8), (i(1, 30) + i(3, 10), 10)
    body = (op("vld", v(0), box(0, *where)), op("vst", box(1, *where), v(0)))
    kernel = Kernel("copy", (par(2, par(3, par(4, par(3, *body))), level="spc"),))
    tensors = {slot: Descriptor("hbm", 0, "f32", (61, 83), (83, 1)) for slot in (0, 1)}
    part = only_part(kernel, tensors)
    assert [part.ranges[axis] for axis in part.order] == [(0, 61), (0, 83)]


def test_depth_loops_merge_into_one_contraction():
    address = RingAddress(Affine())
    load_a = op("tlda", address, box(0, (i(0, 8), 8), (i(1, 32) + i(2, 16), 16)), 1, "bf16")
    load_b = op("tldb", address, box(1, (i(1, 32) + i(2, 16), 16), (0, 8)), 1, "bf16")
    multiply = op("tmma", address, address, 8, 8, 16, "bf16", 0b110)
    store = op("vst", box(2, (i(0, 8), 8), (0, 8)), v(0))
    nest = par(4, red(3, red(2, load_a, load_b, multiply)), op("vacc", v(0), (8, 8), 0), store)
    tensors = {
        0: Descriptor("hbm", 0, "bf16", (30, 90), (90, 1)),
        1: Descriptor("hbm", 0, "bf16", (90, 8), (8, 1)),
        2: Descriptor("hbm", 0, "f32", (30, 8), (8, 1)),
    }
    part = only_part(Kernel("product", (nest,)), tensors)
    assert sorted(part.ranges[axis][1] for axis in part.order) == [8, 30, 90]


def test_windows_of_vector_kernels_are_stepped():
    """Nine taps are nine steps over whole arrays, not two more axes."""
    load = op("vld", v(0), box(0, (i(0) + i(1), 1), (i(2), 20)))
    nest = par(20, red(3, red(3, load, op("vfoldmax", v(1), v(0), 0b110))), op("vst", box(1, (i(0), 1), (0, 20)), v(1)))
    tensors = {
        0: Descriptor("hbm", 0, "f32", (22, 22), (22, 1)),
        1: Descriptor("hbm", 0, "f32", (20, 20), (20, 1)),
    }
    part = only_part(Kernel("pool", (nest,)), tensors)
    assert len(part.order) == 2
    assert sum(type(operation).__name__ == "Load" for operation in part.operations) == 9


def test_axes_that_never_meet_share_a_dimension():
    """A long unrolled loop must not need an array dimension for each of its tiles."""
    body = [
        op("vld", v(0), box(0, (i(1, 4), 4), (0, 5))),
        op("vredsum", v(1), v(0), 0b11),
        op("vadd", v(2), v(2), v(1)),
    ]
    loop = red(40, *body)
    nest = par(2, op("vmovi", v(2), 0.0, (1, 1)), loop, op("vst", box(1, (i(0), 1), (0, 1)), v(2)))
    tensors = {
        0: Descriptor("hbm", 0, "f32", (160, 5), (5, 1)),
        1: Descriptor("hbm", 0, "f32", (2, 1), (1, 1)),
    }
    part = only_part(Kernel("sums", (nest,)), tensors)
    assert len(part.order) > 64
    assert max(part.places) < 8


# --- counts


@pytest.mark.parametrize("family", ["windows", "attentions", "reductions"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_counts_do_not_depend_on_the_nest_being_walked(family: str, data: st.DataObject):
    """The closed form of executions equals the trip counts, summed by brute force."""
    program = data.draw(FAMILIES[family]).program
    (kernel,) = program.kernels
    state = CommandState(program)
    for issue in issues(program):
        if issue.command.mnemonic == "bind":
            state.bind(issue)
    descriptors = {slot: binding.descriptor for slot, binding in state.bindings().items()}
    counts = count_kernel(kernel, descriptors, {})
    executed: dict[int, int] = {}

    def walk(item: object, number: int, variables: tuple[int, ...], times: bool) -> int:
        if not hasattr(item, "body"):
            executed[number] = executed.get(number, 0) + times
            return number + 1
        trips = item.trip_count(variables) if times else 0
        after = number
        for iteration in range(max(trips, 1)):
            after = number
            for child in item.body:
                after = walk(child, after, (*variables, iteration), times and trips > 0)
        return after

    number = 0
    for nest in kernel.nests:
        number = walk(nest, number, (), True)
    assert {n: entry.executions for n, entry in counts.items()} == {n: e for n, e in executed.items() if e}


# --- blocks


@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.integers(0, 1 << 24), st.integers(1, 4))
def test_blocks_cover_the_region_once(lengths: list[int], largest: int, threads: int):
    whole = tuple((3, 3 + length) for length in lengths)
    sides = Sides((0,), tuple(range(1, len(lengths))), ())
    chosen = block_lengths(whole, sides, Work(largest, 10**9, 10**6), threads, Blocking())
    covered = np.zeros([length + 3 for length in lengths], int)
    for block in cut(whole, chosen):
        covered[tuple(slice(*pair) for pair in block)] += 1
    assert covered.sum() == np.prod(lengths)
    assert covered.max() == 1


def test_large_products_give_every_thread_a_block():
    work = Work(largest_bytes=1 << 18, macs=10**8, elements=1 << 16)
    chosen = block_lengths(((0, 512), (0, 128)), Sides((), (0,), (1,)), work, 2, Blocking())
    assert len(cut(((0, 512), (0, 128)), chosen)) == 2


# --- intervals


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 3)), max_size=20))
def test_intervals_remember_the_last_fact_of_each_byte(changes: list[tuple[int, int, int]]):
    known: IntervalMap[int] = IntervalMap()
    bytes_: dict[int, int] = {}
    for start, end, fact in changes:
        if fact:
            known.set(start, end, fact)
        else:
            known.clear(start, end)
        for at in range(start, end):
            bytes_[at] = fact
    told = {at: fact for low, high, fact in known.overlapping(0, 40) for at in range(low, high)}
    assert told == {at: fact for at, fact in bytes_.items() if fact}
    assert known.covers(5, 9) == all(bytes_.get(at) for at in range(5, 9))


# --- threads


def test_an_error_in_a_block_reaches_the_caller():
    workers = Workers(2)

    def fail(item: int, workspace: object) -> None:
        if item == 7:
            raise ValueError(item)

    with workers.engaged(), pytest.raises(ValueError, match="7"):
        workers.all.each(range(20), fail, 2)


def test_blas_threads_are_put_back():
    threads = BlasThreads()
    if not threads.found:
        pytest.skip("numpy's BLAS is not its own OpenBLAS")
    with threads.limited(2), threads.limited(1):
        pass
    with threads.limited(2):
        get, _ = threads._functions
        with threads.limited(1):
            assert get() == 1
        assert get() == 2


def test_handmade_programs_are_there():
    """The suites above draw from these; an empty list would pass them all."""
    assert len(BUILDERS) >= 8
    assert load_machine("tiny").spcs_per_die == 2
