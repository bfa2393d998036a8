"""The claims about kernels, each compared with walking the code of random ones point by point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kernel_streams import PROBE, element, evaluate, inside, listed, walk, with_probe

from birc.compiler.ir.plan import (
    PAR,
    RED,
    Access,
    Contraction,
    Dimension,
    Index,
    Kernel,
    Phase,
    Statement,
    Tiling,
    View,
)
from birc.compiler.ir.plan_winding import winding_problems, winds_through_depth
from birc.compiler.ir.proof.kernel_proof import KernelProof, prove_kernel
from birc.compiler.ir.proof.storage import Storage
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine

MACHINE = load_machine("br104")
Point = tuple[int, ...]
MOST_STEPS = 9
"""The largest extent of a product that is drawn, and the most steps of its depth."""


def storage(elements: int, *, local: bool = False) -> Storage:
    return Storage(4 * elements, "f32", local, False, 1, 0, MACHINE.spcs_per_die)


def proof_of(kernel: Kernel, storages: dict[str, Storage]) -> KernelProof:
    spaces = {name: "tb" if held.is_local else "l2" for name, held in storages.items()}
    return prove_kernel(kernel, storages, spaces, MACHINE.spcs_per_die, new_prover().fast)


@st.composite
def accesses(draw: st.DrawFn, extents: dict[str, int], tile: dict[str, int], buffer: str) -> Access:
    """An access with an axis for each dimension; beside its own, an axis may move with dimensions whose tiles are 1."""
    index, dims, names = [], [], list(extents)
    for name in names:
        terms = {name: draw(st.sampled_from((1, 1, 1, 2, -1, 0)))}
        other = draw(st.sampled_from(names))
        if tile[other] == 1 and draw(st.booleans()):
            terms[other] = terms.get(other, 0) + draw(st.sampled_from((1, 2)))
        index.append(Index(tuple((n, f) for n, f in terms.items() if f), draw(st.sampled_from((0, 0, 0, 1, -1)))))
        dims.append(draw(st.one_of(st.just(extents[name]), st.integers(1, 6))))
    strides = [draw(st.sampled_from((0, 1, 2, 3, 5, 6, 18, -1))) for _ in names]
    if draw(st.integers(0, 3)):
        strides = [_product(dims[axis + 1 :]) for axis in range(len(dims))]
    lower = tuple(draw(st.integers(-1, 1)) for _ in names) if draw(st.integers(0, 4)) == 0 else ()
    offset = draw(st.sampled_from((0, 0, 1, 4, -1)))
    return Access(View(buffer, offset, tuple(dims), tuple(strides), lower), tuple(index))


def _product(extents: list[int]) -> int:
    result = 1
    for extent in extents:
        result *= extent
    return result


@st.composite
def vector_kernels(draw: st.DrawFn) -> Kernel:
    names = ["i", "j", "k"][: draw(st.integers(1, 3))]
    space = tuple(Dimension(name, draw(st.integers(1, 5)), PAR) for name in names)
    tile = {d.name: draw(st.integers(1, d.extent)) for d in space}
    spread = draw(st.lists(st.sampled_from(names), unique=True, max_size=2))
    spcs = tuple((name, draw(st.integers(2, 3))) for name in spread)
    extents = {d.name: d.extent for d in space}
    load = draw(accesses(extents, tile, draw(st.sampled_from(("x", "x", "y")))))
    stores = [draw(accesses(extents, tile, "y")) for _ in range(draw(st.integers(1, 2)))]
    statements = (
        Statement("vld", "v0", (), load),
        *(Statement("vst", "", ("v0",), store) for store in stores),
    )
    looped = (draw(st.sampled_from(names)),) if draw(st.integers(0, 3)) == 0 else ()
    return Kernel("random", space, (Phase(statements, looped),), tiling=Tiling(tuple(tile.items()), spcs))


class Walked:
    """A kernel's executions, and the points at which they run."""

    def __init__(self, kernel: Kernel) -> None:
        self.names = [d.name for d in kernel.par_dims]
        self.kernel = kernel
        reached = walk(with_probe(kernel), MACHINE)
        probes = [item for item in reached if item.view.buffer == PROBE and item.stores]
        self.tiles = {(item.spc, number): item.axes for number, item in enumerate(probes)}
        self.others = [item for item in reached if item.view.buffer != PROBE]
        self.repeated = {
            name for axis, name in enumerate(self.names) if len({axes[axis] for axes in self.tiles.values()}) > 1
        }

    def inside(self, point: Point) -> bool:
        return all(at < d.extent for at, d in zip(point, self.kernel.par_dims, strict=True))

    def points(self) -> Iterator[tuple[int, Point]]:
        """The SPC and every point of every tile, also of those beyond the space."""
        for (spc, _), axes in self.tiles.items():
            yield from ((spc, point) for point in product(*axes))

    def place(self, access: Access, point: Point) -> Point:
        at = dict(zip(self.names, point, strict=True))
        return tuple(evaluate(index, at) for index in access.index)

    def inner_elements(self) -> Iterator[int]:
        """The elements that points within the space touch."""
        for phase in self.kernel.phases:
            for access in (statement.access for statement in phase.statements if statement.access is not None):
                places = (self.place(access, point) for _, point in self.points() if self.inside(point))
                yield from (element(access.view, place) for place in places if inside(access.view, place))

    def told_apart(self, access: Access) -> set[str]:
        """The dimensions along which points do not touch the same for the same reason.

        A loop repeats the access for them, or it moves along them; of a store also if what it stores was loaded along
        them (for products all values are those of every dimension).
        """
        statements = [statement for phase in self.kernel.phases for statement in phase.statements]
        found = set(self.repeated) | moved(access)
        if any(statement.op == "vst" and statement.access == access for statement in statements):
            loads = [statement.access for statement in statements if statement.op == "vld"]
            found |= set().union(*map(moved, loads)) if self.kernel.contraction is None else set(self.names)
        return found

    def touched(self, access: Access, common: list[str], *, local: bool) -> dict[tuple[int, int], set[Point]]:
        """By SPC (of local buffers) and element: the places of the points along some dimensions."""
        found: dict[tuple[int, int], set[Point]] = defaultdict(set)
        axes = [self.names.index(name) for name in common]
        for spc, point in self.points():
            place = self.place(access, point)
            if inside(access.view, place):
                key = (spc if local else 0, element(access.view, place))
                found[key].add(tuple(point[axis] for axis in axes))
        return found


def moved(access: Access) -> set[str]:
    return {name for index in access.index for name, factor in index.terms if factor}


def meet(walked: Walked, one: Access, other: Access, *, local: bool) -> bool:
    """Whether two accesses touch an element at different points."""
    common = sorted(walked.told_apart(one) & walked.told_apart(other))
    first, second = (walked.touched(access, common, local=local) for access in (one, other))
    return any(a != b for key, places in first.items() for a in places for b in second.get(key, ()))


def says(proof: KernelProof, text: str) -> bool:
    return any(text in flaw.what for flaw in proof.flaws)


SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.filter_too_much]


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW_TO_DRAW)
@given(vector_kernels(), st.integers(-1, 1), st.booleans(), st.booleans())
def test_vector_kernels(kernel: Kernel, spare: int, of_inner: bool, local: bool) -> None:
    """The buffers end near the last element that is touched: within the space, or by any tile."""
    walked = Walked(kernel)
    last = max((at for item in walked.others for at in item.elements()), default=0)
    if of_inner:
        last = max(walked.inner_elements(), default=0)
    elements = max(1, last + 1 + spare)
    storages = {"x": storage(elements), "y": storage(elements, local=local)}
    proof = proof_of(kernel, storages)
    (phase,) = kernel.phases
    found = [statement.access for statement in phase.statements]
    stores = found[1:]

    inner = [(spc, point) for spc, point in walked.points() if walked.inside(point)]
    points = {point for _, point in inner}
    assert points == set(product(*(range(d.extent) for d in kernel.space)))
    assert len(inner) == len(points), "a point is computed twice"
    assert not says(proof, "SPC")

    leaves = any(not 0 <= at < elements for item in walked.others for at in item.elements())
    assert says(proof, "touches bytes") == leaves
    misses = any(not inside(a.view, walked.place(a, point)) for a in stores for point in points)
    assert says(proof, "outside the view") == misses
    beyond = any(
        inside(a.view, walked.place(a, point)) for a in stores for _, point in walked.points() if point not in points
    )
    assert says(proof, "beyond the iteration space") == beyond
    pairs = [(store, other) for at, store in enumerate(stores) for other in stores[at:]]
    together = any(meet(walked, *pair, local=local) for pair in pairs)
    together |= found[0].view.buffer == "y" and any(meet(walked, store, found[0], local=local) for store in stores)
    assert says(proof, "at another point") == together
    assert not [flaw for flaw in proof.flaws if "box" in flaw.what or "view cut" in flaw.what or "barrier" in flaw.what]

    for number, access in enumerate(found):
        held = local and access.view.buffer == "y"
        exact = {
            (0, spc if held else 0, 0, element(access.view, place))
            for spc, point in inner
            if inside(access.view, place := walked.place(access, point))
        }
        assert listed(proof.image(number)) == exact


@st.composite
def products(draw: st.DrawFn) -> Kernel:
    """`t[y, o] = x[y, c] * w[c, o]` in random tiles and blocks, the store somewhere."""
    extents = {name: draw(st.integers(1, MOST_STEPS)) for name in "yoc"}
    tile = {name: draw(st.integers(1, extent)) for name, extent in extents.items()}
    spcs = tuple((name, draw(st.integers(2, 4))) for name in ("y", "o") if draw(st.booleans()))
    tiling = Tiling(
        tuple(tile.items()),
        spcs,
        rows=draw(st.integers(1, 3)),
        columns=draw(st.integers(1, 2)),
        resident=draw(st.integers(0, 1)),
        stream=draw(st.booleans()),
        a_slots=MOST_STEPS * 3,
        b_slots=MOST_STEPS * 2,
    )
    if tiling.resident and draw(st.booleans()):
        tiling = replace(tiling, hoist=draw(st.sampled_from("ab")), stream=False)
    tiling = replace(tiling, deals=draw(st.sampled_from((1, 1, 2, 3))))
    if tiling.rows * tiling.columns > 1:
        tiling = replace(tiling, turns=draw(st.sampled_from(("tile", "block"))), programs=draw(st.integers(1, 2)))
    y, o = extents["y"], extents["o"]
    strides = draw(st.sampled_from(((o, 1), (1, y), (1, 1), (0, 1), (o + 1, 1))))
    steps = -(-extents["c"] // tile["c"])
    wound = Tiling(tiling.tile, spcs, 1, 1, 1, "b", True, a_slots=steps, b_slots=-(-steps // 2))
    if takes_wound(made_product(extents, wound, strides), wound) and draw(st.booleans()):
        tiling = wound
    return made_product(extents, tiling, strides)


def made_product(extents: dict[str, int], tiling: Tiling, strides: Point) -> Kernel:
    """`t[y, o] = x[y, c] * w[c, o]`."""
    space = tuple(Dimension(name, extents[name], kind) for name, kind in (("y", PAR), ("o", PAR), ("c", RED)))
    y, o, c = (extents[name] for name in "yoc")
    x = Access(View("x", 0, (y, c), (c, 1)), (Index((("y", 1),)), Index((("c", 1),))))
    w = Access(View("w", 0, (c, o), (o, 1)), (Index((("c", 1),)), Index((("o", 1),))))
    store = Access(View("t", 0, (y, o), strides), (Index((("y", 1),)), Index((("o", 1),))))
    phase = Phase((Statement("vacc", "v0"), Statement("vst", "", ("v0",), store)))
    contraction = Contraction(x, w, 1, 1, ("y",), ("o",), "tf32p")
    return Kernel("product", space, (phase,), contraction, tiling=tiling)


def takes_wound(kernel: Kernel, tiling: Tiling) -> bool:
    """Whether the rows of a product wind through its depth by a tiling, and may do so."""
    problems = winding_problems(kernel, kernel.contraction, tiling, tiling.a_slots)
    return winds_through_depth(kernel, tiling) and not list(problems)


DEALT = made_product(
    {"y": 2, "o": 23, "c": 2}, Tiling((("y", 2), ("o", 2), ("c", 2)), (("o", 2),), columns=2, deals=3), (23, 1)
)
"""Of 12 tiles of columns every SPC has two at each deal."""


@settings(max_examples=50, deadline=None, suppress_health_check=SLOW_TO_DRAW)
@given(products(), st.integers(-3, 3), st.booleans())
@example(DEALT, 0, True)
def test_products(kernel: Kernel, spare: int, local: bool) -> None:
    walked = Walked(kernel)
    extents = {d.name: d.extent for d in kernel.space}
    sizes = {"x": extents["y"] * extents["c"], "w": extents["c"] * extents["o"], "t": extents["y"] * extents["o"]}
    sizes = {name: max(1, size + spare) for name, size in sizes.items()}
    proof = proof_of(kernel, {name: storage(size, local=local and name == "t") for name, size in sizes.items()})
    store = kernel.phases[0].statements[1].access
    taken = [(spc, point) for spc, point in walked.points() if walked.inside(point)]
    inner = [point for _, point in taken]
    assert not says(proof, "SPC")
    assert sorted(inner) == list(product(range(extents["y"]), range(extents["o"])))
    assert says(proof, "touches bytes") == any(
        not 0 <= at < sizes[item.view.buffer] for item in walked.others for at in item.elements()
    )
    assert says(proof, "at another point") == meet(walked, store, store, local=local)
    assert not says(proof, "beyond the iteration space")
    made = {(0, spc if local else 0, 0, element(store.view, walked.place(store, point))) for spc, point in taken}
    assert listed(proof.image(2)) == made
    for number, item in enumerate((kernel.contraction.a, kernel.contraction.b, store)):
        loaded = {at for reached in walked.others if reached.view == item.view for at in reached.elements()}
        assert {position for *_, position in listed(proof.image(number))} == loaded


@pytest.mark.parametrize(("rows", "tile", "dilation"), [(4, 4, 1), (4, 2, 2), (1, 1, 2), (4, 3, 2)])
def test_patches_are_loaded_with_what_lies_between_their_taps(rows: int, tile: int, dilation: int) -> None:
    """Rows of an image of which every operation takes a window; the code's loads are the oracle."""
    space = tuple(Dimension(name, extent, PAR) for name, extent in (("y", rows), ("x", 6), ("o", 2)))
    space += (Dimension("r", 2, RED), Dimension("c", 3, RED))
    index = (Index((("y", 1), ("r", dilation)), -1), Index((("x", 1),)), Index((("c", 1),)))
    a = Access(View("x", 0, (5, 6, 3), (18, 3, 1)), index)
    b = Access(View("w", 0, (2, 3, 2), (6, 2, 1)), tuple(Index(((name, 1),)) for name in "rco"))
    store = Access(View("t", 0, (rows, 6, 2), (12, 2, 1)), tuple(Index(((name, 1),)) for name in "yxo"))
    phase = Phase((Statement("vacc", "v0"), Statement("vst", "", ("v0",), store)))
    tiling = Tiling((("y", tile), ("x", 6), ("o", 2), ("r", 1), ("c", 3)), resident=2, taps=("r",))
    contraction = Contraction(a, b, 2, 2, ("y", "x"), ("o",), "tf32p")
    kernel = Kernel("windows", space, (phase,), contraction, tiling=tiling)
    loaded = {at for item in walk(kernel, MACHINE) if item.view == a.view for at in item.elements()}
    sizes = {"x": max(loaded) + 1, "w": 12, "t": 12 * rows}
    proof = proof_of(kernel, {name: storage(size) for name, size in sizes.items()})
    reached = {position for *_, position in listed(proof.image(0))}
    assert reached <= loaded
    assert reached == loaded or rows % tile  # a tile that reaches beyond the space loads more
    assert not proof.flaws
    short = proof_of(kernel, {name: storage(size - (name == "x")) for name, size in sizes.items()})
    assert says(short, "touches bytes")


@given(st.integers(1, 6), st.integers(1, 6), st.integers(-2, 2), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_what_data_indexes(rows: int, count: int, start: int, elements: int) -> None:
    """Of an index from data only the range is known: all of it must be inside the view, and the buffer."""
    space = (Dimension("i", 4, PAR), Dimension("j", 3, PAR))
    still = Access(View("x", 0, (4, 1), (1, 0)), (Index((("i", 1),)), Index()))
    table = Access(View("w", 0, (rows, 3), (3, 1)), (Index((), start), Index((("j", 1),))))
    out = Access(View("y", 0, (4, 3), (3, 1)), (Index((("i", 1),)), Index((("j", 1),))))
    statements = (
        Statement("vld", "v0", (), still),
        Statement("vldx", "v1", ("v0",), table, index_axis=0, index_count=count),
        Statement("vst", "", ("v1",), out),
    )
    kernel = Kernel("gather", space, (Phase(statements),), tiling=Tiling((("i", 2), ("j", 3))))
    proof = proof_of(kernel, {"x": storage(4), "w": storage(elements), "y": storage(12)})
    reached = range(start, start + count)
    kept = [row for row in reached if 0 <= row < rows]
    assert says(proof, "outside the view") == (len(kept) < count)
    assert says(proof, "touches bytes") == any(row * 3 + 2 >= elements for row in kept)
    assert listed(proof.image(1)) == {(0, 0, 0, row * 3 + column) for row in kept for column in range(3)}


@given(st.integers(-3, 3), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_clamped_loads_take_the_nearest_element(start: int, extent: int) -> None:
    space = (Dimension("i", 4, PAR),)
    load = Access(View("x", 0, (extent,), (1,)), (Index((("i", 1),), start),), "clamp")
    out = Access(View("y", 0, (4,), (1,)), (Index((("i", 1),)),))
    statements = (Statement("vld", "v0", (), load), Statement("vst", "", ("v0",), out))
    kernel = Kernel("clamp", space, (Phase(statements),), tiling=Tiling((("i", 4),)))
    proof = proof_of(kernel, {"x": storage(extent), "y": storage(4)})
    nearest = {min(max(start + at, 0), extent - 1) for at in range(4)}
    assert {position for *_, position in listed(proof.image(0))} == nearest
    assert not proof.flaws


def test_stored_words_of_an_element_are_apart() -> None:
    """Two stores of the halves of 64-bit elements do not meet; with the same half they do."""
    space = (Dimension("i", 4, PAR),)
    index = (Index((("i", 1),)),)
    shifted = (Index((("i", 1),), 1),)
    views = [View("y", 0, (8,), (1,), seen="i32", word=word) for word in (0, 1)]
    wide = Storage(64, "i64", False, True, 1, 0, MACHINE.spcs_per_die)
    for second, meets in ((views[1], False), (views[0], True)):
        stores = (Access(views[0], index), Access(second, shifted))
        statements = (
            Statement("vmovi", "v0", (1.0,)),
            *(Statement("vst", "", ("v0",), store) for store in stores),
        )
        kernel = Kernel("words", space, (Phase(statements),), tiling=Tiling((("i", 2),)))
        assert says(proof_of(kernel, {"y": wide}), "at another point") == meets


def test_every_spc_has_its_own_tensor_buffer() -> None:
    """SPCs that write one element of L2 meet, in their tensor buffers they do not."""
    space = (Dimension("s", 3, PAR), Dimension("i", 4, PAR))
    store = Access(View("y", 0, (1, 4), (0, 1)), (Index(), Index((("i", 1),))))
    phase = Phase((Statement("vmovi", "v0", (1.0,)), Statement("vst", "", ("v0",), store)))
    kernel = Kernel("own", space, (phase,), tiling=Tiling((("s", 1), ("i", 4)), (("s", 3),)))
    assert says(proof_of(kernel, {"y": storage(4)}), "at another point")
    assert not proof_of(kernel, {"y": storage(4, local=True)}).flaws
    own = Phase((phase.statements[0], replace(phase.statements[1], access=_deeper(store))))
    two = Kernel("two", (Dimension("u", 2, PAR), *space), (own,), tiling=Tiling((("i", 4),), (("u", 2), ("s", 3))))
    assert not proof_of(two, {"y": storage(4, local=True)}).flaws
    fewer = replace(kernel, tiling=Tiling((("s", 1), ("i", 4)), (("s", 2),)))
    assert says(proof_of(fewer, {"y": storage(4, local=True)}), "at another point")


@pytest.mark.parametrize(
    ("missing", "step_bytes", "leaves"), [(0, 0, False), (1, 0, True), (0, 1, True), (-3, 1, False)]
)
def test_the_last_byte_counts(missing: int, step_bytes: int, leaves: bool) -> None:
    """Also in the last round, when the accesses have moved on."""
    space = (Dimension("i", 4, PAR),)
    load = Access(View("x", 0, (4,), (1,)), (Index((("i", 1),)),))
    kernel = Kernel("ends", space, (Phase((Statement("vld", "v0", (), load),)),), tiling=Tiling((("i", 4),)))
    held = Storage(16 - missing, "f32", False, False, 4, step_bytes, MACHINE.spcs_per_die)
    assert says(proof_of(kernel, {"x": held}), "touches bytes") == leaves


def _deeper(access: Access) -> Access:
    """The access with a still axis before its others."""
    view = access.view
    return Access(replace(view, dims=(1, *view.dims), strides=(0, *view.strides)), (Index(), *access.index))


def test_what_a_tile_reads_beyond_the_space_counts() -> None:
    """Only the point 3 of a space of 3 reads what the point 0 writes: its tile reaches there."""
    store = Access(View("y", 0, (3,), (1,)), (Index((("i", 1),)),))
    load = Access(View("y", 0, (3,), (1,)), (Index((("i", 2),), -6),))
    phase = Phase((Statement("vld", "v0", (), load), Statement("vst", "", ("v0",), store)))
    for tile, meets in ((2, True), (3, False)):
        kernel = Kernel("beyond", (Dimension("i", 3, PAR),), (phase,), tiling=Tiling((("i", tile),)))
        assert says(proof_of(kernel, {"y": storage(3)}), "at another point") == meets


def test_a_tile_that_reaches_beyond_the_space_must_stay_in_the_buffer() -> None:
    """Five elements in tiles of four: the second tile loads three elements more, unless the view ends."""
    for extent, leaves in ((8, True), (5, False)):
        load = Access(View("x", 0, (extent,), (1,)), (Index((("i", 1),)),))
        phase = Phase((Statement("vld", "v0", (), load),))
        kernel = Kernel("tiles", (Dimension("i", 5, PAR),), (phase,), tiling=Tiling((("i", 4),)))
        assert says(proof_of(kernel, {"x": storage(5)}), "touches bytes") == leaves


def test_a_dimension_that_is_spread_and_not_stored_along() -> None:
    """What a single tile collapses is stored once; two tiles store it twice."""
    space = (Dimension("i", 4, PAR), Dimension("j", 6, PAR))
    load = Access(View("x", 0, (4, 6), (6, 1)), (Index((("i", 1),)), Index((("j", 1),))))
    store = Access(View("y", 0, (4, 1), (1, 0)), (Index((("i", 1),)), Index()))
    statements = (
        Statement("vld", "v0", (), load),
        Statement("vredsum", "v1", ("v0",), dims=("j",)),
        Statement("vst", "", ("v1",), store),
    )
    for tile, meets in ((6, False), (3, True)):
        kernel = Kernel("sum", space, (Phase(statements),), tiling=Tiling((("i", 2), ("j", tile)), (("i", 2),)))
        proof = proof_of(kernel, {"x": storage(24), "y": storage(4)})
        assert says(proof, "at another point") == meets
