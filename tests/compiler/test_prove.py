"""Finished plans are proved: those of real networks hold, and one fault in them is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from graph_maker import GraphMaker, random_inputs
from kernel_streams import Reached, listed, walk
from networks import EXPORTED, OTHER_OPSETS
from op_cases import larger, samples
from pipeline import Compiled, Values, compile_graph, compiled_plans
from plan_mutants import Mutant, mutants
from plan_stages import plan_stages
from small_networks import CONV, attention, few_rows, image_classifier, long_rows, movements, shortcut

from birc.codegen.program_code import generate
from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.plan import ExchangeStep, Kernel, KernelStep, Plan, View
from birc.compiler.ir.plan_verify import find_plan_problems
from birc.compiler.ir.proof.boxes import FastPath
from birc.compiler.ir.proof.kernel_proof import prove_kernel
from birc.compiler.ir.proof.prover import Prover
from birc.compiler.ir.proof.storage import kernels_of, storages
from birc.compiler.prove import new_prover
from birc.runtime.errors import BircError, UnsupportedError
from birc.runtime.machine import Machine, load_machine

Build = Callable[[GraphMaker], str]


def divided_image(make: GraphMaker) -> str:
    """One image through two convolutions that two dies divide: they exchange what they made at the end."""
    x = make.input(1, 32, 20, 20)
    inner = make("relu", make("conv2d", x, make.random(32, 32, 3, 3), **CONV))
    return make("conv2d", inner, make.random(32, 32, 3, 3), **CONV)


SMALL = {
    build.__name__: build
    for build in (image_classifier, attention, movements, long_rows, divided_image, few_rows, shortcut)
}


@cache
def small_plans(name: str, target: str) -> tuple[tuple[Compiled, ...], Values]:
    """Every plan of a small network, and inputs of it."""
    make = GraphMaker()
    graph = make.graph(SMALL[name](make))
    return tuple(compiled_plans(graph, target)), random_inputs(graph)


def flaws(plan: Plan, machine: Machine, prover: Prover | None = None) -> list[str]:
    return list((prover or new_prover()).flaws(plan, machine))


@pytest.mark.parametrize(("name", "target"), [("bert_base", "br100"), ("lstm", "tiny")])
def test_networks_are_proved(name: str, target: str) -> None:
    plan = plan_stages(name, target).plans["allocate"]
    prover = new_prover()
    prover.prove(plan, load_machine(target))
    steps = [step.kernels for step in plan.steps if isinstance(step, KernelStep)]
    kernels = [kernel for step in steps for kernel in dict.fromkeys(step) if kernel is not None]
    assert prover.kernels == len(kernels)
    assert prover.accesses >= 2 * len(kernels)
    assert prover.par_loops == sum(d.extent > 1 for kernel in kernels for d in kernel.par_dims)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["br100", "tiny"])
@pytest.mark.parametrize("name", [*EXPORTED, *OTHER_OPSETS])
def test_all_networks_are_proved(name: str, target: str) -> None:
    new_prover().prove(plan_stages(name, target).plans["allocate"], load_machine(target))


@pytest.mark.parametrize("target", ["br100", "tiny"])
@pytest.mark.parametrize("name", SMALL)
def test_every_plan_of_small_networks_is_proved(name: str, target: str) -> None:
    """One die and two, samples on SPCs, the batch in rounds, exchanges."""
    for compiled in small_plans(name, target)[0]:
        new_prover().prove(compiled.plan, compiled.machine)


def test_small_networks_have_what_a_plan_can_have() -> None:
    plans = [compiled.plan for name in SMALL for compiled in small_plans(name, "tiny")[0]]
    assert any(plan.repeat > 1 for plan in plans)
    assert any(plan.tensor_buffer_bytes for plan in plans)
    assert any(isinstance(step, ExchangeStep) for plan in plans for step in plan.steps)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["br100", "tiny"])
def test_every_op_is_proved(target: str) -> None:
    prover = new_prover()
    count = 0
    for case in (*samples(), *larger()):
        built = case.build()
        try:
            compiled = tuple(compiled_plans(built[0], target)) if built is not None else ()
        except UnsupportedError:
            continue
        for item in compiled:
            prover.prove(item.plan, item.machine)
            count += 1
    assert count > 1000


def test_what_is_seen_as_a_whole_is_proved() -> None:
    """Sums of the parts of a row, which lie along the last axis of registers beside the columns."""
    make = GraphMaker()
    x, moments = make.input(3, 8), make.input(2, 3, 4)
    scaled = make("scale_by_moments", x, moments, make.random(8), make.random(8), count=16, epsilon=1e-5)
    for compiled in compiled_plans(make.graph(scaled), "br100"):
        new_prover().prove(compiled.plan, compiled.machine)


def stored(kernel: Kernel, machine: Machine, limit: int) -> list[Reached]:
    """The stores of a kernel's code; nothing for large kernels."""
    points = np.prod([d.extent for d in kernel.par_dims])
    return [item for item in walk(kernel, machine) if item.stores] if points < limit else []


@pytest.mark.parametrize(("name", "number"), [("image_classifier", 0), ("attention", 1), ("movements", 2)])
def test_what_is_proved_of_stores_is_what_the_code_stores(name: str, number: int) -> None:
    """Element by element, and that SPCs store different ones; all SPCs are walked through the loops of the code."""
    compiled = small_plans(name, "tiny")[0][number]
    machine, plan = compiled.machine, compiled.plan
    known = storages(plan, machine.spcs_per_die)
    spaces = {buffer.name: buffer.space for buffer in plan.buffers}
    compared = 0
    for kernel in dict.fromkeys(kernels_of(plan)):
        proof = prove_kernel(kernel, known, spaces, machine.spcs_per_die, new_prover().fast)
        found = stored(kernel, machine, 8_000)
        for at, touch in enumerate(proof.touches):
            if not touch.stores or not found:
                continue
            local = known[touch.access.view.buffer].is_local
            own = [
                (item.spc if local else 0, e)
                for item in found
                if item.view == touch.access.view
                for e in item.elements()
            ]
            assert len(set(own)) == len(own), "an element is stored twice"
            in_first_round = {(spc, at) for rounds, spc, _, at in listed(proof.image(at)) if rounds == 0}
            assert set(own) == in_first_round
            compared += 1
    assert compared >= 3


VALUES = (
    "load",
    "operand",
    "panel",
    "reduced extent",
    "store transposed",
    "input transposed",
    "input swapped strides",
    "output transposed",
    "input start of a piece",
    "input advance",
)
"""Kinds of mutants, or beginnings of their names, that may read the right memory at the wrong place: what is computed
then is another function, in bounds and in order. Only comparing values finds them."""

SAMPLED = (
    ("image_classifier", "tiny", 0),
    ("image_classifier", "tiny", 2),
    ("attention", "br100", 1),
    ("movements", "tiny", 0),
    ("divided_image", "tiny", 0),
    ("few_rows", "tiny", 0),
    ("shortcut", "tiny", 0),
)


def is_equivalent(mutant: Mutant, compiled: Compiled, inputs: Values, expected: Values) -> bool:
    """Whether the mutant computes the same bits."""
    try:
        program = generate(mutant.plan, compiled.machine).program
        found = replace(compiled, plan=mutant.plan, program=program).values(inputs)
    except BircError:
        return False
    return all(np.allclose(found[name], value, 1e-4, 1e-4) for name, value in expected.items())


def survivors(name: str, target: str, number: int, every: int) -> tuple[Counter[str], list[str]]:
    """How many mutants of each kind were found, and those that were not although they compute something else."""
    plans, inputs = small_plans(name, target)
    compiled = plans[number]
    prover = new_prover()
    found: Counter[str] = Counter()
    wrong = []
    expected: Values = {}
    for mutant in chosen(compiled.plan, every):
        if flaws(mutant.plan, compiled.machine, prover):
            found[mutant.kind] += 1
        elif not list(find_plan_problems(mutant.plan, "allocate", compiled.machine)):
            expected = expected or compiled.values(inputs)
            if not is_equivalent(mutant, compiled, inputs, expected):
                wrong.append(f"{mutant.kind}: {mutant.change}")
    return found, wrong


def chosen(plan: Plan, every: int) -> Iterator[Mutant]:
    """Of every kind that concerns where memory is touched, the first and then some."""
    seen: Counter[str] = Counter()
    for mutant in mutants(plan):
        if not mutant.kind.startswith(VALUES):
            seen[mutant.kind] += 1
            if seen[mutant.kind] % every == 1 % every or mutant.kind.startswith("exchange dropped"):
                yield mutant


def test_mutants_are_found_or_equivalent() -> None:
    total: Counter[str] = Counter()
    for name, target, number in SAMPLED[1:]:
        found, wrong = survivors(name, target, number, 61)
        assert not wrong
        total += found
    assert total.total() >= 100
    for kind in (
        "store offset", "store coordinate", "store stride", "store swapped strides", "store overlapping par",
        "larger extent", "smaller extent", "lifetime", "address", "size", "missing part", "wrong die part",
        "drop KernelStep", "drop CopyStep", "drop ExchangeStep", "exchange sender", "exchange offset",
        "exchange dropped", "output missing piece", "output dies of a piece", "rounds",
    ):  # fmt: skip
        assert total[kind], kind


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target", "number"), SAMPLED)
def test_all_mutants_are_found_or_equivalent(name: str, target: str, number: int) -> None:
    found, wrong = survivors(name, target, number, 1)
    assert not wrong
    assert found.total() > 100


def test_a_failed_proof_names_kernel_access_and_point() -> None:
    """The store of a kernel leaves out one coordinate of its index: points of that loop meet."""
    compiled = small_plans("movements", "tiny")[0][1]
    mutant = next(item for item in mutants(compiled.plan) if item.kind == "store overlapping par")
    with pytest.raises(InvalidIRError) as caught:
        new_prover().prove(mutant.plan, compiled.machine)
    text = str(caught.value)
    assert text.startswith("proof of plan")
    assert "kernel 'v" in text
    assert "vst %v" in text
    assert "writes the element that vst" in text
    assert " at d0 = " in text or " at d" in text
    assert caught.value.problems


def test_kernels_of_equal_structure_are_proved_once() -> None:
    make = GraphMaker()
    compiled = compile_graph(make.graph(*(make("softmax", make.input(4, 8), axis=1) for _ in range(3))))
    plan, machine = compiled.plan, compiled.machine
    calls: Counter[View] = Counter()
    fast = new_prover().fast

    def region(view: View) -> object:
        calls[view] += 1
        return fast.region(view)

    prover = Prover(replace(fast, region=region))
    prover.prove(plan, machine)
    first = calls.total()
    assert first < prover.accesses
    prover.prove(plan, machine)
    assert calls.total() == first


@pytest.mark.parametrize("fault", ["small", "large", "tight", "range"])
def test_boxes_of_the_fast_path_are_compared(fault: str) -> None:
    """A strided box that has lost or gained elements, a view cut down too far, a byte range that ends too early."""
    fast = new_prover().fast

    def region(view: View) -> object:
        found = fast.region(view)
        if fault == "small":
            return replace(found, dims=found.dims[:-1])
        return replace(found, dims=(*found.dims, (1, 2))) if fault == "large" else found

    def tight(access: object, sizes: dict[str, int], indexed: int | None) -> object:
        return fast.tight(access, {name: max(1, size - (fault == "tight")) for name, size in sizes.items()}, indexed)

    def byte_range(view: View, buffer: object) -> tuple[str, int, int]:
        space, first, end = fast.byte_range(view, buffer)
        return space, first, end - (fault == "range")

    compiled = small_plans("movements", "tiny")[0][1]
    texts = {"small": "misses element", "large": "has element", "tight": "misses one", "range": "by which barriers"}
    found = flaws(compiled.plan, compiled.machine, Prover(FastPath(region, tight, byte_range)))
    assert any(texts[fault] in text for text in found)


def test_a_view_against_the_order_of_elements() -> None:
    """A negative stride: the strided box begins with the last coordinate."""
    fast = new_prover().fast
    box = fast.region(View("x", 10, (3, 4), (-4, 1)))
    elements = {10 - 4 * row + column for row in range(3) for column in range(4)}
    assert (box.offset, box.end) == (min(elements), max(elements) + 1)
    assert box.dims == ((1, 12),)
