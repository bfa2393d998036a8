"""Where memory is too small: the error says how much is missing and what would fit, and that does fit."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial

import pytest
from networks import EXAMPLES_FOLDER

from birc.compiler.driver import compile_model
from birc.compiler.fitting import Outcome, Trial, advised, best_outcome, least_shortage
from birc.compiler.passes.allocation.shortage import ShortageError
from birc.runtime.errors import BircError, DoesNotFitError, UsageError
from birc.runtime.machine import Machine, load_machine

DIGITS = EXAMPLES_FOLDER / "digits" / "digits.onnx"
TINY = load_machine("tiny")


def with_hbm(num_bytes: int) -> Machine:
    """A BR100 with less HBM."""
    return replace(load_machine("br100"), name="small", hbm_bytes_per_die=num_bytes)


def short(needed: int, capacity: int) -> ShortageError:
    return ShortageError("too much", where="here", hint="none", needed_bytes=needed, capacity_bytes=capacity)


def test_what_is_said_to_fit_fits() -> None:
    machine = with_hbm(400_000)
    with pytest.raises(ShortageError) as caught:
        compile_model(DIGITS, target=machine, batch=3600, stop_after="allocate")
    error = caught.value
    assert error.needed_bytes > error.capacity_bytes == 400_000
    text = str(error)
    assert f"{error.needed_bytes} bytes must lie in HBM of a die, which has 400000" in text
    assert text.index("'image'") < text.index("(node ")  # the largest first
    fitting = re.search(r"what would fit: --batch (\d+), or --precision bf16, or --target br100\)$", text)
    assert fitting is not None
    batch = int(fitting[1])
    allocated = partial(compile_model, DIGITS, target=machine, opt_level=1, stop_after="allocate")
    allocated(batch=batch)
    allocated(batch=3600, precision="bf16")
    with pytest.raises(ShortageError):
        allocated(batch=batch + 100)


def test_no_size_helps_against_constants() -> None:
    with pytest.raises(ShortageError, match=r"\(what would fit: --target br100\)$"):
        compile_model(DIGITS, target=with_hbm(50_000), batch=8)


def test_of_several_variants_the_one_that_does_not_fit_is_told() -> None:
    with pytest.raises(ShortageError, match=r"what would fit: --batch 1\d\d\d, or"):
        compile_model(DIGITS, target=with_hbm(400_000), batch=(8, 3600), stop_after="allocate")


def test_an_error_keeps_what_it_knows() -> None:
    error = short(5, 3)
    again = copy.copy(error.with_hint("another"))
    assert (type(again), str(again)) == (ShortageError, "here: too much (another)")
    assert (error.exit_code, error.with_hint("x").needed_bytes, error.with_hint("x").capacity_bytes) == (5, 5, 3)


def test_of_several_plans_the_one_that_needs_least_is_told() -> None:
    tiles, large, small = DoesNotFitError("no tile fits"), short(9, 3), short(5, 3)
    assert least_shortage([large, small, tiles]) is small
    assert least_shortage([large, tiles]) is large
    assert least_shortage([tiles]) is tiles


Needs = Callable[[Trial], int]


def advice(needs: Needs, capacity: int, sizes: dict[str, int], precision: str = "model") -> tuple[str, list[Trial]]:
    """The hint where a program needs so many bytes, and the trials that were made."""
    tried: list[Trial] = []

    def attempt(trial: Trial) -> None:
        tried.append(trial)
        if needs(trial) > capacity:
            raise short(needs(trial), capacity)

    given = Trial(sizes, precision, TINY)
    options = {name: f"--dim {name}=" for name in sizes}
    hint = advised(short(needs(given), capacity), given, options, attempt).hint
    return str(hint), tried


def test_a_size_is_found_beside_what_does_not_depend_on_it() -> None:
    hint, tried = advice(lambda trial: 1000 + 10 * trial.sizes["n"], 3000, {"n": 500}, "bf16")
    assert hint == "what would fit: --dim n=200"
    # First as if all were in proportion, then by the difference; the rest are targets.
    assert [trial.sizes["n"] for trial in tried][:3] == [250, 200, 500]


def test_every_dimension_is_tried_by_itself() -> None:
    hint, _ = advice(lambda trial: 10 * trial.sizes["n"] * trial.sizes["m"], 3000, {"n": 10, "m": 60}, "bf16")
    assert hint == "what would fit: --dim n=5, or --dim m=30"


@pytest.mark.parametrize("constant", [3000, 4000])
def test_a_dimension_that_cannot_help_is_not_named(constant: int) -> None:
    hint, tried = advice(lambda trial: constant + trial.sizes["n"], 3000, {"n": 500}, "bf16")
    assert hint.startswith("no smaller size")
    assert len(tried) <= 3 + 3  # sizes, targets


def test_precisions_and_targets_are_named_where_they_fit() -> None:
    hint, _ = advice(lambda trial: 4000 if trial.precision == "fp32" else 2000, 3000, {}, "fp32")
    assert hint == "what would fit: --precision model, or --precision bf16"
    hint, _ = advice(lambda trial: 4000 if trial.machine.name == "tiny" else 2000, 3000, {})
    assert hint == "what would fit: --target br100"


def test_what_fails_for_another_reason_does_not_help() -> None:
    def attempt(trial: Trial) -> None:
        raise UsageError("not that")

    error: BircError = advised(short(9, 3), Trial({"n": 8}, "model", TINY), {"n": "--batch "}, attempt)
    assert error.hint == "no smaller size, other precision or other target was found to fit"


@pytest.mark.parametrize(
    ("outcomes", "best"),
    [
        ([(1000, 50)], 0),
        ([(1000, 50), (900, 500)], 1),
        ([(1000, 50), (990, 500)], 0),
        ([(1000, 50), (980, 500), (970, 40)], 2),
        ([(1020, 50), (1000, 500)], 0),
        ([(1021, 50), (1000, 500)], 1),
        ([(1010, 50), (1000, 50), (1000, 50)], 1),
    ],
)
def test_of_plans_about_as_fast_the_one_with_the_least_traffic(outcomes: list[tuple[int, int]], best: int) -> None:
    assert best_outcome([Outcome(latency, Fraction(traffic)) for latency, traffic in outcomes]) == best
