"""Panels: the left operand of a product as several tensors side by side along the depth, each where it lies.

The last axis of a panel counts its depth from where the panel begins; before it and behind it the panel is zero. An
operation of the T-core takes its depth from one panel, which is the one that is loaded for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from birc.compiler.ir.plan import Access, Contraction, Kernel


def panel_span(panel: Access) -> tuple[int, int]:
    """The depths at which a panel begins and ends."""
    view = panel.view
    begin = (view.lower[-1] if view.lower else 0) - panel.index[-1].constant
    return begin, begin + view.dims[-1]


def panel_problems(kernel: Kernel, contraction: Contraction) -> Iterator[str]:
    """What is wrong with the panels of a product that has several: each ends before the next one begins."""
    terms = contraction.a.index[-1].terms
    reds = {d.name: d.extent for d in kernel.red_dims}
    for panel in contraction.panels:
        if (
            len(panel.index) != contraction.rows + 1
            or panel.index[-1].terms != terms
            or dict(terms).keys() != reds.keys()
        ):
            yield f"%{panel.view.buffer} is no panel: its last axis, behind those of rows, must count all of the depth"
            return
    depth = 1 + sum(factor * (reds[name] - 1) for name, factor in terms)
    spans = [panel_span(panel) for panel in contraction.panels]
    apart = all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    if spans[0][0] or spans[-1][1] > depth or not apart:
        words = ", ".join(f"{begin} to {end - 1}" for begin, end in spans)
        yield f"has panels of depths {words}, must be from 0 to {depth - 1} one behind the other"


def panel_tiling_problems(contraction: Contraction, tile: Mapping[str, int]) -> Iterator[str]:
    """Where the operations of a product would take their depth from two panels."""
    terms = dict(contraction.a.index[-1].terms)
    step = max(tile[name] for name in terms)
    apart = [factor for name, factor in terms.items() if tile[name] == 1]
    begins = [panel_span(panel)[0] for panel in contraction.further]
    if any(place % step for place in (*(factor for factor in apart if step > 1), *begins)):
        yield f"an operation takes {step} of the depth at once, but panels begin at {', '.join(map(str, begins))}"
