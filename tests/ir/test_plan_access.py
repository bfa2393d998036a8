"""Changing what kernels access: everything else of a view, an access and a statement stays."""

from __future__ import annotations

from dataclasses import fields, replace

from birc.compiler.ir.plan import Access, Dimension, Index, Kernel, Phase, Statement, View
from birc.compiler.ir.plan_access import moved, with_views

VIEW = View("x", 3, (4, 5), (5, 1), (1, 0), "bf16", 1, away=True)
ACCESS = Access(VIEW, (Index((("m", 1),)), Index((("n", 1),), 2)), "clamp")
STATEMENT = Statement("vldx", "v1", ("v0",), ACCESS, ("n",), 1, 7)


def test_nothing_here_is_what_it_is_by_itself() -> None:
    """Or a field that is forgotten would not show."""
    for item in (VIEW, ACCESS, STATEMENT):
        defaults = {field.name: field.default for field in fields(item)}
        assert all(getattr(item, name) != default for name, default in defaults.items())


def test_a_view_is_moved() -> None:
    assert moved(VIEW, "y", 9) == replace(VIEW, buffer="y", offset=9)
    assert moved(VIEW, "x", 3) is VIEW


def test_views_of_statements_are_changed_and_nothing_else() -> None:
    kernel = Kernel("k", (Dimension("m", 4), Dimension("n", 5)), (Phase((STATEMENT,), ("m",)),))
    other = replace(STATEMENT, access=replace(ACCESS, view=replace(VIEW, buffer="y")))
    changed = with_views(kernel, lambda view: moved(view, "y", view.offset))
    assert changed == replace(kernel, phases=(Phase((other,), ("m",)),))
    assert with_views(kernel, lambda view: view) is kernel
