"""The text form of plans: what is printed reads back to the same plan; mistakes are placed."""

from __future__ import annotations

import dataclasses
import math
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_stages import plan_stages

from birc.compiler.ir import plan as plan_module
from birc.compiler.ir.errors import TextError
from birc.compiler.ir.plan import (
    Access,
    Boundary,
    Buffer,
    Contraction,
    CopyStep,
    Dimension,
    Index,
    Kernel,
    KernelStep,
    Phase,
    Plan,
    Statement,
    Tiling,
    View,
)
from birc.compiler.ir.plan_forms import TEMPLATES, index_text, read_index
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.text_form import Forms
from birc.compiler.ir.token_reader import TokenReader
from birc.runtime.errors import InternalError

NAMES = st.text(max_size=5) | st.sampled_from(["v0", "over", "fill", "same", "inf", "nan", "e1", "true", "_"])
PHASES = ("partition", "tile", "schedule", "allocate")


def assert_round_trips(plan: Plan) -> None:
    text = print_plan(plan)
    again = parse_plan(text)
    assert print_plan(again) == text
    assert repr(again) == repr(plan)  # not ==: a NaN immediate is equal to nothing, and -0.0 to 0.0


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("target", ["tiny", "br100"])
@pytest.mark.parametrize("network", ["mobilenet_v2", "gpt2"])
def test_plans_of_networks_round_trip_after_every_phase(network: str, target: str, phase: str) -> None:
    assert_round_trips(plan_stages(network, target).plans[phase])


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of an annotated type, tuples of at most two items."""
    if isinstance(hint, UnionType):
        return st.one_of(*map(values, get_args(hint)))
    if get_origin(hint) is tuple:
        element, *others = get_args(hint)
        if others == [...]:
            return st.lists(values(element), max_size=2).map(tuple)
        return st.tuples(*map(values, get_args(hint)))
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{field.name: values(hints[field.name]) for field in dataclasses.fields(hint)})
    return {int: st.integers(), float: st.floats(), bool: st.booleans(), str: NAMES, NoneType: st.none()}[hint]


@given(values(Plan))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_plan_round_trips(plan: Plan) -> None:
    """Every field of every class, also those that no pass fills yet, with any value of its type."""
    assert_round_trips(plan)


def with_access(access: Access) -> Plan:
    kernel = Kernel("k", (), (Phase((Statement("vld", "v0", (), access),)),))
    return Plan("p", "tiny", "model", 1, (), (KernelStep((kernel,)),), (), ())


def vectors(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*(st.integers(-5, 70_000) for _ in range(size)))


@st.composite
def accesses(draw: st.DrawFn) -> Access:
    """Accesses as passes make them: names of dimensions are short words."""
    rank = draw(st.integers(0, 6))
    lower = draw(st.just(()) | vectors(rank))
    seen, word = draw(st.sampled_from([("", 0), ("i32", 0), ("i32", 1), ("f16", 0)]))
    view = View(draw(st.text()), draw(st.integers()), draw(vectors(rank)), draw(vectors(rank)), lower, seen, word)
    names = st.sampled_from(["n", "y", "d0", "fill", "inf", "nan", "e1", "x1", "lower", "true", "_"])
    index = st.builds(Index, st.lists(st.tuples(names, st.integers(-9, 9))).map(tuple), st.integers(-300, 300))
    return Access(view, draw(st.tuples(*(index for _ in range(rank)))), draw(st.sampled_from(["zero", "lowest"])))


@given(accesses())
@settings(deadline=None)
def test_any_access_round_trips(access: Access) -> None:
    assert_round_trips(with_access(access))


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (Index(), "0"),
        (Index((), -3), "-3"),
        (Index((("y", 1),)), "y"),
        (Index((("y", 2), ("r", 1)), -3), "2 y +1 r -3"),
        (Index((("y", -1), ("r", -2)), 3), "-1 y -2 r +3"),
        (Index((("y", 0),)), "0 y"),
        (Index((("inf", 1),)), '"inf"'),
    ],
)
def test_spelling_of_coordinates(index: Index, text: str) -> None:
    assert index_text(index) == text
    assert read_index(TokenReader(text, "t")) == index


SMALL = """\
plan "small" on tiny dies 2 precision model macs 64 {
  buffer %x : f32 64 bytes input in hbm at 0x0 live 0 to 1
  buffer %"two words" : f32 256 bytes scratch in l2 mirrors %w
  input "x" : f32[4, 4] {
    piece 3 [0, 0] %x dims [4, 4] strides [4, 1]
  }
  run {
    kernel "k" macs 64 from "conv1" "relu 1" {
      space [par y 4, par o 4, red c 4]
      contract tf32p rows 1 [y] columns [o] depth 1
        a = %x[y -1, c] dims [4, 4] strides [4, 1]
        b = %"two words"[c, o] dims [4, 4] strides [4, 1] lower [-1, 0] offset 4
      tile [y 4, o 4] spcs [y 2] block 1 by 2 resident 1 hoist a
      phase {
        v0 = vacc
        v1 = vmax(v0, 0.0)
        "over" = vld %x[y, 0] dims [4, 1] strides [4, 0] fill lowest
        vst(v1) %x[y, o] dims [4, 4] strides [4, 1]
      }
      phase (c) {
        v2 = vfoldsum(over) over [c]
      }
    }
    same
  }
  run {
    idle
    kernel "empty" {
    }
  }
  copy %w to %"two words"
}
"""


def test_text_looks_as_documented() -> None:
    view = View("x", 0, (4, 4), (4, 1))
    y, o, c = (Index(((name, 1),)) for name in "yoc")
    other = View("two words", 4, (4, 4), (4, 1), (-1, 0))
    contraction = Contraction(
        Access(view, (Index((("y", 1),), -1), c)), Access(other, (c, o)), 1, 1, ("y",), ("o",), "tf32p"
    )
    edge = Access(View("x", 0, (4, 1), (4, 0)), (y, Index()), "lowest")
    kernel = Kernel(
        "k",
        (Dimension("y", 4), Dimension("o", 4), Dimension("c", 4, "red")),
        (
            Phase(
                (
                    Statement("vacc", "v0"),
                    Statement("vmax", "v1", ("v0", 0.0)),
                    Statement("vld", "over", (), edge),
                    Statement("vst", "", ("v1",), Access(view, (y, o))),
                )
            ),
            Phase((Statement("vfoldsum", "v2", ("over",), dims=("c",)),), ("c",)),
        ),
        contraction,
        64,
        ("conv1", "relu 1"),
        Tiling((("y", 4), ("o", 4)), (("y", 2),), 1, 2, 1, "a"),
    )
    plan = Plan(
        name="small",
        target="tiny",
        precision="model",
        dies=2,
        buffers=(
            Buffer("x", "f32", 64, "input", "hbm", 0, 0, 1),
            Buffer("two words", "f32", 256, "scratch", "l2", home="w"),
        ),
        steps=(
            KernelStep((kernel, kernel)),
            KernelStep((None, Kernel("empty", (), ()))),
            CopyStep("w", "two words"),
        ),
        inputs=(Boundary("x", "f32", (4, 4), ((3, (0, 0), view),)),),
        outputs=(),
        macs=64,
    )
    assert print_plan(plan) == SMALL
    assert parse_plan(SMALL) == plan


def test_blanks_and_comments_do_not_count() -> None:
    spread = SMALL.replace(" ", "  ").replace("\n", "  # remark\n").replace('"two  words"', '"two words"')
    assert print_plan(parse_plan(spread.replace('"relu  1"', '"relu 1"'))) == SMALL


@pytest.mark.parametrize(
    ("old", "new", "place", "expected"),
    [
        ('plan "small"', "plan small", "1:6", "expected a string, found 'small'"),
        ("dies 2", "dies two", "1:27", "expected a whole number, found 'two'"),
        ("dies 2", "dies 2.5", "1:27", "expected a whole number, found '2.5'"),
        ("buffer %x", "bufer %x", "2:3", "a statement (buffer, input, output, run, copy, fill, exchange, share)"),
        ("buffer %x :", "buffer %x", "2:13", "expected ':', found 'f32'"),
        ("par y 4", "par y", "9:19", "expected a whole number, found ','"),
        ("[y -1, c]", "[y - 1, c]", "11:18", "unexpected character '-'"),
        ("[y -1, c]", "[y -1, c", "11:24", "expected ',' or ']', found 'dims'"),
        ("[y -1, c]", "[y -1, =]", "11:22", "expected a coordinate such as 2 y +1 r -3, found '='"),
        ("phase (c) {", "phase (c) { {", "20:19", "expected a statement or '}', found '{'"),
        ("v1 = vmax(v0, 0.0)", "v1 = vmax(v0, 0.0", "17:9", "expected ',' or ')', found 'over'"),
        ("    idle", "    same", "27:5", "expected a statement to repeat"),
        ("      phase {", "      tile [y 4]\n      phase {", "14:7", "expected one 'tile' statement at most"),
        ("copy %w to", "copy %w into", "31:11", "expected 'to', found 'into'"),
        ('"two words"\n}\n', '"two words"\n}\n}\n', "33:1", "expected the end of the text"),
        ('"two words"\n}\n', '"two words"\n', "32:1", "expected a statement"),
    ],
)
def test_mistakes_are_placed(old: str, new: str, place: str, expected: str) -> None:
    assert old in SMALL
    with pytest.raises(TextError) as caught:
        parse_plan(SMALL.replace(old, new, 1), "net.plan")
    assert caught.value.where == f"net.plan:{place}"
    assert expected in caught.value.what


@pytest.mark.parametrize("value", [math.nan, -0.0, math.inf, -math.inf, 5e-324, 1e300, 0.1])
def test_immediates_keep_their_value(value: float) -> None:
    kernel = Kernel("k", (), (Phase((Statement("vmov", "v0", (value,)),)),))
    assert_round_trips(Plan("p", "tiny", "model", 1, (), (KernelStep((kernel,)),), (), ()))


def test_every_class_of_the_plan_has_a_form() -> None:
    named = [item for item in vars(plan_module).values() if isinstance(item, type)]
    classes = {item for item in named if dataclasses.is_dataclass(item)}
    assert classes == {*TEMPLATES, Index}


def test_a_field_that_no_template_names_is_spelt_by_its_name() -> None:
    base = [(field.name, get_type_hints(View)[field.name]) for field in dataclasses.fields(View)]
    added = [("bank", int), ("tags", tuple[str, ...], ()), ("is_packed", bool, False)]
    grown = dataclasses.make_dataclass("GrownView", [*base[:4], *added[:1], *added[1:]], frozen=True)
    forms = Forms()
    forms.declare(grown, "{buffer:value} at {offset}")
    record = grown("x", 1, (2,), (3,), 7, ("a b",), True)
    text = forms[grown].show(record)
    assert text == '%x at 1 dims [2] strides [3] bank 7 tags ["a b"] is_packed true'
    assert forms[grown].read(TokenReader(text, "t")) == record
    plain = grown("x", 1, (2,), (3,), 7)
    assert forms[grown].show(plain) == "%x at 1 dims [2] strides [3] bank 7"
    assert forms[grown].read(TokenReader(forms[grown].show(plain), "t")) == plain


def test_a_template_cannot_name_a_field_that_there_is_not() -> None:
    with pytest.raises(InternalError, match="'place', which is no field"):
        Forms().declare(View, "{buffer:value} at {place}")
    with pytest.raises(InternalError, match="no text form for values of type"):
        Forms().declare(Access, "{view}")
