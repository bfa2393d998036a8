"""The form of kernels: names do not count, everything else does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from birc.compiler.ir.kernel_form import form_of
from birc.compiler.ir.plan import Access, Contraction, Dimension, Index, Kernel, Phase, Statement, Tiling, View
from birc.compiler.ir.plan_access import moved, with_views


def access(buffer: str, *names: str, offset: int = 0) -> Access:
    view = View(buffer, offset, (4,) * len(names), tuple(4**n for n in range(len(names))))
    return Access(view, tuple(Index(((name, 1),)) for name in names))


def product() -> Kernel:
    """Rows times columns, plus a bias and what the result was before."""
    statements = (
        Statement("vacc", "v0"),
        Statement("vld", "v1", access=access("bias", "n", offset=4)),
        Statement("vadd", "v2", ("v0", "v1")),
        Statement("vld", "v3", access=access("out", "m", "n")),
        Statement("vadd", "v4", ("v2", "v3")),
        Statement("vst", arguments=("v4",), access=access("out", "m", "n")),
    )
    space = (Dimension("m", 4), Dimension("n", 4), Dimension("k", 4, "red"))
    contraction = Contraction(access("in", "m", "k"), access("weight", "k", "n"), 1, 1, ("m",), ("n",), "bf16")
    return Kernel("k0", space, (Phase(statements),), contraction, 64, ("MatMul",), Tiling((("m", 4), ("n", 4))))


def renamed(kernel: Kernel, names: dict[str, str]) -> Kernel:
    return with_views(kernel, lambda view: moved(view, names[view.buffer], view.offset))


NAMES = {"in": "a", "weight": "out", "bias": "in", "out": "b"}


def test_names_and_sources_do_not_count() -> None:
    kernel = product()
    other = replace(renamed(kernel, NAMES), name="other", sources=("Gemm", "Add"), macs=1)
    form = form_of(kernel)
    assert form_of(other).key == form.key
    assert form.buffers == ("in", "weight", "bias", "out")
    assert form_of(other).buffers == tuple(NAMES[name] for name in form.buffers)


def test_one_buffer_for_two_is_another_form() -> None:
    assert form_of(renamed(product(), {**NAMES, "bias": "b"})).key != form_of(product()).key


def test_several_kernels_share_names() -> None:
    """The second may read what the first one made, or something else."""
    first, second = product(), renamed(product(), {**NAMES, "in": "out"})
    apart = renamed(product(), {**NAMES, "in": "elsewhere"})
    assert form_of(first, second).key != form_of(first, apart).key
    assert form_of(first, None).key != form_of(first).key != form_of(None, first).key
    assert form_of(first, None).key != form_of(None, first).key


def test_who_asks_says_where_views_begin() -> None:
    there = with_views(product(), lambda v: moved(v, v.buffer, v.offset + 8 * (v.buffer == "weight")))

    def offset(view: View) -> int:
        return 0 if view.buffer == "weight" else view.offset

    assert form_of(there).key != form_of(product()).key
    assert form_of(there, offset=offset).key == form_of(product(), offset=offset).key


def changed(value: Any) -> Iterator[tuple[str, Any]]:
    """Every dataclass inside a value with one of its fields changed, at every depth: what, and the whole value."""
    if isinstance(value, tuple):
        for place, item in enumerate(value):
            yield from ((what, (*value[:place], other, *value[place + 1 :])) for what, other in changed(item))
    if not hasattr(value, "__dataclass_fields__"):
        return
    for field in fields(value):
        inside = getattr(value, field.name)
        yield f"{type(value).__name__}.{field.name}", replace(value, **{field.name: "another"})
        yield from ((what, replace(value, **{field.name: other})) for what, other in changed(inside))


def parts() -> Iterator[tuple[str, Kernel]]:
    """The product with one thing changed that counts; what is no kernel any more is left out."""
    without = {"Kernel.name", "Kernel.sources", "Kernel.macs", "Kernel.phases", "Kernel.contraction", "View.buffer"}
    without |= {"Kernel.space", "Access.index"}
    without |= {"Phase.statements", "Statement.access", "Contraction.a", "Contraction.b", "Access.view"}
    without |= {"Kernel.space", "Access.index", "Contraction.further"}
    for what, kernel in changed(product()):
        if what not in without:
            yield what, kernel


def test_all_else_counts() -> None:
    form = form_of(product()).key
    seen = set()
    for what, kernel in parts():
        assert form_of(kernel).key != form, what
        seen.add(what)
    for kind in (Kernel, Contraction, Phase, Statement, Access, View, Tiling):
        assert any(what.startswith(f"{kind.__name__}.") for what in seen)


def test_every_panel_counts() -> None:
    kernel = product()
    panels = tuple(Access(View("more", 0, (4, 4), (4, factor)), kernel.contraction.a.index) for factor in (1, 2))
    keys = [
        form_of(replace(kernel, contraction=replace(kernel.contraction, further=further))).key
        for further in ((), panels[:1], panels[1:], panels, panels[::-1])
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("missing", ["contraction", "phases"])
def test_what_is_not_there_counts(missing: str) -> None:
    nothing = () if missing == "phases" else None
    assert form_of(replace(product(), **{missing: nothing})).key != form_of(product()).key


def test_the_sign_of_a_zero_counts() -> None:
    def with_zero(zero: float) -> Kernel:
        (phase,) = product().phases
        *before, last = phase.statements
        added = (Statement("vmul", "v5", ("v4", zero)), replace(last, arguments=("v5",)))
        return replace(product(), phases=(Phase((*before, *added)),))

    assert form_of(with_zero(0.0)).key == form_of(with_zero(0.0)).key
    assert form_of(with_zero(0.0)).key != form_of(with_zero(-0.0)).key
