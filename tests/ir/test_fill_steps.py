"""Steps that fill tensor buffers: their text, what the verifier and the proof of plans say of wrong ones, lifetimes."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from filled_plan import FILL, FILLED, NEAR, PRODUCT, changed
from hypothesis import given
from hypothesis import strategies as st

from birc.compiler.ir.plan import (
    Buffer,
    CopyStep,
    Exchange,
    ExchangeStep,
    FillStep,
    KernelStep,
    Plan,
    View,
)
from birc.compiler.ir.plan_access import views_by_buffer
from birc.compiler.ir.plan_beside import spans
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.plan_verify import PHASES, find_plan_problems, verify_plan
from birc.compiler.passes.allocate import sent_at
from birc.compiler.passes.lifetimes import compulsory_bytes, lifetimes, streamed, users
from birc.compiler.passes.schedule import redirected
from birc.compiler.prove import new_prover
from birc.runtime.machine import load_machine

TINY = load_machine("tiny")
AFTER_LAST = ("    same\n  }\n}", "    same\n  }\n  " + FILL + "}")
TARGET, SOURCE = "%near dims [16, 8] strides [8, 1] from", "from %w.l2 dims [2, 16, 8] strides [8, 16, 1]"
Changes = tuple[tuple[str, str], ...]


def problems(text: str, phase: str = "allocate") -> list[str]:
    return [str(problem) for problem in find_plan_problems(parse_plan(text), phase, TINY)]


def flaws(text: str) -> list[str]:
    return list(new_prover().flaws(parse_plan(text), TINY))


def fill_of(plan: Plan) -> FillStep:
    (step,) = (step for step in plan.steps if isinstance(step, FillStep))
    return step


def test_the_plan_is_right() -> None:
    for phase in PHASES:
        verify_plan(parse_plan(FILLED), phase, TINY)
    assert not flaws(FILLED)


def test_text_looks_as_documented() -> None:
    plan = parse_plan(FILLED)
    step = fill_of(plan)
    assert step == FillStep(View("w.l2", 0, (2, 16, 8), (8, 16, 1)), View("near", 0, (16, 8), (8, 1)), 3)
    assert step.spcs == 2
    assert print_plan(plan) == FILLED


def numbers(rank: int, low: int = -9) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*(st.integers(low, 5000) for _ in range(rank)))


@st.composite
def views(draw: st.DrawFn) -> View:
    rank = draw(st.integers(0, 6))
    name = draw(st.sampled_from(["w", "w.near.2", "two words", "on", "dies", "from", "0x1"]))
    return View(name, draw(st.integers(0, 99)), draw(numbers(rank, 1)), draw(numbers(rank)))


@given(views(), views(), st.integers(0, 255))
def test_any_fill_round_trips(source: View, target: View, dies: int) -> None:
    plan = Plan("p", "tiny", "model", 2, (), (FillStep(source, target, dies),), (), ())
    assert parse_plan(print_plan(plan)) == plan


@pytest.mark.parametrize(
    ("source", "target", "count"),
    [((4, 16, 8), (16, 8), 4), ((2, 2, 16, 8), (16, 8), 4), ((16, 8), (16, 8), 1), ((3, 16), (16,), 3), ((5,), (), 5)],
)
def test_the_first_dimensions_number_the_spcs(source: tuple[int, ...], target: tuple[int, ...], count: int) -> None:
    step = FillStep(View("w", 0, source, (1,) * len(source)), View("near", 0, target, (1,) * len(target)), 1)
    assert step.spcs == count


class Mistake(NamedTuple):
    """What is changed, and what the verifier of plans says."""

    changes: Changes
    where: str
    what: str


MISTAKES = (
    Mistake(((NEAR, NEAR.replace("tb at 0x0", "l2 at 0x800")),), "step 1", "fills %near, which lies in l2"),
    Mistake(((NEAR, NEAR.replace("tb at 0x0", "hbm at 0xc00")),), "step 1", "fills %near, which lies in hbm"),
    Mistake(((SOURCE, SOURCE.replace("16, 8]", "8, 8]")),), "step 1", "fills [16, 8] with parts of [2, 8, 8]"),
    Mistake(((TARGET, TARGET.replace("[16, 8]", "[8, 8]")),), "step 1", "fills [8, 8] with parts of [2, 16, 8]"),
    Mistake(
        ((SOURCE, "from %w.l2 dims [16, 8] strides [16, 1]"), (TARGET, "%near dims [2, 16, 8] strides [0, 8, 1] from")),
        "step 1",
        "fills [2, 16, 8] with parts of [16, 8]",
    ),
    Mistake(((SOURCE, SOURCE.replace("[2, ", "[1, ")),), "step 1", "has parts for 1 SPCs, a die has 2"),
    Mistake(((SOURCE, "from %w.l2 dims [16, 8] strides [16, 1]"),), "step 1", "has parts for 1 SPCs, a die has 2"),
    Mistake(
        ((SOURCE, "from %w.l2 dims [2, 2, 16, 8] strides [8, 0, 16, 1]"),),
        "step 1",
        "has parts for 4 SPCs, a die has 2",
    ),
    Mistake(((TARGET, TARGET.replace("near", "far")),), "step 1", "views %far, which is not declared"),
    Mistake(((SOURCE, SOURCE.replace("w.l2", "far")),), "step 1", "views %far, which is not declared"),
    Mistake(((SOURCE, SOURCE + " offset 1"),), "step 1", "the view of %w.l2 spans elements 1 to 256, there are 256"),
    Mistake(
        ((TARGET, TARGET.replace(" from", " offset 8 from")),),
        "step 1",
        "the view of %near spans elements 8 to 135, there are 128",
    ),
    Mistake((("on dies 0x3", "on dies 0x7"),), "step 1", "fills on the dies 0x7, there are 2"),
    Mistake((("on dies 0x3", "on dies 0x0"),), "step 1", "fills on the dies 0x0, there are 2"),
    Mistake(((NEAR, NEAR.replace("f32 512", "bf16 256")),), "step 1", "fills bf16 with f32"),
    Mistake(((SOURCE, SOURCE + " as i32"),), "step 1", "copies what lies on the other die, or is seen as another type"),
    Mistake(
        ((TARGET, TARGET.replace(" from", " away true from")),),
        "step 1",
        "copies what lies on the other die, or is seen as another type",
    ),
    Mistake(
        (
            ("spcs [spc 2]", "spcs [spc 1]"),
            ("par spc 2", "par spc 1"),
            ("dims [2, 16, 8] strides [8, 16, 1]\n      }", "dims [1, 16, 8] strides [8, 16, 1]\n      }"),
        ),
        "step 3",
        "kernel 'product' divides SPCs otherwise than %near was dealt out",
    ),
    Mistake((("copy %w to %w.l2\n", ""),), "step 0, die 1", "reads %w.l2, which is not written there yet"),
    Mistake(((FILL, ""),), "step 2, die 0", "reads %near, which is not written there yet"),
    Mistake(((FILL, ""), AFTER_LAST), "step 2, die 1", "reads %near, which is not written there yet"),
    Mistake((("0x3\n", "0x1\n"),), "step 3, die 1", "reads %near, which is not written there yet"),
    Mistake((("0x3\n", "0x2\n"),), "step 3, die 0", "reads %near, which is not written there yet"),
    Mistake(
        (("live 0 to 3 mirrors", "live 0 to 1 mirrors"),),
        "buffer %w.l2",
        "lives in steps 0 to 1, is used in 0 to 3",
    ),
    Mistake(
        (("live 0 to 3 mirrors", "live 0 to 2 mirrors"),),
        "buffer %w.l2",
        "lives in steps 0 to 2, is used in 0 to 3",
    ),
    Mistake(((NEAR, NEAR.replace("1 to 3", "2 to 3")),), "buffer %near", "lives in steps 2 to 3, is used in 1 to 3"),
    Mistake((("tensor_buffer_bytes 1024", "tensor_buffer_bytes 256"),), "buffer %near", "ends at 0x200, tb at 0x100"),
    Mistake((("l2 at 0x400 live 2", "l2 at 0x0 live 2"),), "buffer %w.l2", "overlaps %h in l2, both live"),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what[:50])
def test_every_broken_rule_is_reported(mistake: Mistake) -> None:
    found = problems(changed(*mistake.changes))
    assert [problem for problem in found if problem.split(": ")[0] == mistake.where and mistake.what in problem], found


def test_a_constant_is_not_filled() -> None:
    """It lies in HBM, too, and the host alone writes it."""
    found = problems(changed((TARGET, TARGET.replace("near", "w"))))
    assert "step 1: fills %w, which lies in hbm" in found
    assert "step 1, die 0: writes %w, of role constant" in found


LESS = (TARGET, TARGET.replace("[16, 8]", "[15, 8]")), (SOURCE, SOURCE.replace("16, 8]", "15, 8]"))
FLAWS: tuple[tuple[Changes, str], ...] = (
    ((("copy %w to %w.l2\n", ""),), "step 0: fills with element 0 of %w.l2, which is not written on die 1"),
    (((FILL, ""),), "step 2, die 0, kernel 'product': b reads"),
    (((FILL, ""), AFTER_LAST), "step 2, die 1, kernel 'product': b reads"),
    ((("0x3\n", "0x2\n"),), "step 3, die 0, kernel 'product': b reads"),
    (LESS, "step 3, die 0, kernel 'product': b reads element 127 of SPC 1 of %near, which is not written there"),
    (((TARGET, TARGET.replace("[8, 1]", "[0, 1]")),), "step 3, die 1, kernel 'product': b reads element 127"),
    (((TARGET, TARGET.replace("[8, 1]", "[4, 1]")),), "step 3, die 1, kernel 'product': b reads element 127"),
    ((("live 0 to 3 mirrors", "live 0 to 1 mirrors"),), "%w.l2: is declared live in steps 0 to 1, but used at step"),
    ((("l2 at 0x400 live 2", "l2 at 0x0 live 2"),), "%h: shares l2 with %w.l2, both in use at step = 2"),
    (((NEAR, NEAR.replace("1 to 3", "2 to 3")),), "%near: is declared live in steps 2 to 3, but used at step = 1"),
)


@pytest.mark.parametrize(("changes", "what"), FLAWS, ids=[what[-50:] for _, what in FLAWS])
def test_the_proof_finds_what_is_not_filled(changes: Changes, what: str) -> None:
    found = flaws(changed(*changes))
    assert [flaw for flaw in found if what in flaw], found


def test_what_is_filled_from_is_used_until_somebody_has_waited() -> None:
    """Its copy may be on its way until the first kernel that reads what is filled."""
    plan = parse_plan(FILLED)
    lives = lifetimes(plan)
    assert lives["w.l2"] == (0, 3)
    assert lives["near"] == (1, 3)
    assert lives["h"] == (2, 3)
    assert spans(plan, users(plan)) == lives


def test_what_was_waited_for_is_free_again() -> None:
    """Of two kernels that read what is filled the first one waits."""
    plan = parse_plan(FILLED)
    steps = (*plan.steps, plan.steps[-1])
    assert lifetimes(replace(plan, steps=steps))["w.l2"] == (0, 3)
    assert lifetimes(replace(plan, steps=steps))["near"] == (1, 4)


def test_a_second_copy_keeps_its_source_longer() -> None:
    plan = parse_plan(FILLED)
    again = (*plan.steps, fill_of(plan), plan.steps[-1])
    assert lifetimes(replace(plan, steps=again))["w.l2"] == (0, 5)


def two_sources() -> Plan:
    """Each die fills the same place from a constant of its own."""
    plan = parse_plan(FILLED)
    first = fill_of(plan)
    second = replace(first, source=replace(first.source, buffer="u.l2"), dies=2)
    weights, copied = plan.buffer("w"), plan.buffer("w.l2")
    buffers = (
        *plan.buffers,
        replace(weights, name="u", address=0xC00),
        replace(copied, name="u.l2", home="u", address=0x1000),
    )
    copy, _, *kernels = plan.steps
    steps = (copy, CopyStep("u", "u.l2"), replace(first, dies=1), second, *kernels)
    return replace(plan, buffers=buffers, steps=steps)


def test_each_die_waits_for_its_own_copy() -> None:
    """That the other die's copy into the same place begins does not end the one before."""
    lives = lifetimes(two_sources())
    assert lives["w.l2"] == (0, 5)
    assert lives["u.l2"] == (1, 5)


def test_views_of_a_die_are_those_that_it_fills_and_fills_from() -> None:
    plan = two_sources()
    (first, second) = (step for step in plan.steps if isinstance(step, FillStep))
    found = views_by_buffer(plan)
    assert [list(views) for views in found["w.l2"]] == [[first.source], []]
    assert [list(views) for views in found["u.l2"]] == [[], [second.source]]
    assert [next(iter(views)) for views in found["near"]] == [first.target, second.target]


def test_what_is_filled_from_is_read_in_parts() -> None:
    """As what kernels read tile by tile it is worth a copy in L2."""
    assert "w.l2" in streamed(parse_plan(FILLED))


def test_a_copy_that_begins_late_is_as_right() -> None:
    """In front of its kernel: nothing else is changed but lifetimes."""
    late = changed((FILL, ""), (PRODUCT, "  " + FILL + PRODUCT))
    lives = lifetimes(parse_plan(late))

    def alive(buffer: Buffer) -> Buffer:
        first, last = lives.get(buffer.name, (buffer.first, buffer.last))
        return replace(buffer, first=first, last=last)

    plan = parse_plan(late)
    plan = replace(plan, buffers=tuple(map(alive, plan.buffers)))
    assert isinstance(plan.steps[1], KernelStep)
    assert not [*find_plan_problems(plan, "allocate", TINY)]
    assert not [*new_prover().flaws(plan, TINY)]


def test_what_is_filled_from_comes_from_hbm_once() -> None:
    """No kernel reads the weights: it is the copy that makes them cross."""
    assert compulsory_bytes(parse_plan(FILLED)) == 3 * 1024
    assert compulsory_bytes(parse_plan(changed((FILL, "")))) == 2 * 1024


def test_another_place_of_the_weights_is_filled_from() -> None:
    """As kernels read a copy instead of what it mirrors; what is filled stays."""
    step = fill_of(parse_plan(FILLED))
    moved = redirected(step, {"w.l2": "other", "near": "elsewhere"})
    assert moved == replace(step, source=replace(step.source, buffer="other"))
    assert redirected(step, {"h": "other"}) == step


def test_shares_of_what_is_copied_on_are_sent_late() -> None:
    """Right behind an exchange for a kernel; for a copy not before it has to be, as others go first."""
    plan = parse_plan(FILLED)
    run, fill = plan.steps[-1], fill_of(plan)
    exchange = ExchangeStep((Exchange(View("h", 0, (16, 16), (16, 1)), 0),))
    before = [exchange, *[run] * 6]
    latest = sent_at([*[run] * 7, run], 7, 1.0, TINY)
    assert latest > 1
    assert sent_at([*before, run], 7, 1.0, TINY) == 1
    assert sent_at([*before, fill], 7, 1.0, TINY) == latest
