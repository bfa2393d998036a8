"""The before/after example in the docstring of every pass is what the pass does."""

from __future__ import annotations

from inspect import cleandoc
from textwrap import dedent

import numpy as np
import pytest
from graph_maker import random_inputs

from birc.compiler.ir.interpreter import run_graph
from birc.compiler.ir.parser import parse_graph
from birc.compiler.ir.printer import print_graph
from birc.compiler.ir.verify import verify_graph
from birc.compiler.passes.base import Pass, run_pass
from birc.compiler.passes.canonicalize import CANONICALIZE
from birc.compiler.passes.divide_depth import DivideDepth
from birc.compiler.passes.divide_keys import DivideKeys
from birc.compiler.passes.fold_norms import FoldNorms
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.legalize import LEGALIZE
from birc.compiler.passes.merge_products import MergeProducts
from birc.compiler.passes.quantized_products import QuantizedProducts
from birc.compiler.passes.stack_products import StackProducts

FUSION = (StackProducts(), DivideDepth(), DivideKeys(), MergeProducts(), FoldNorms(), Fuse())
PASSES = tuple(dict.fromkeys((QuantizedProducts(), *CANONICALIZE, *LEGALIZE, *FUSION)))


def example(step: Pass) -> tuple[str, str]:
    text = cleandoc(type(step).__doc__ or "")
    before, after = text.split("before:\n")[1].split("after:\n")
    return dedent(before).strip(), dedent(after).strip()


@pytest.mark.parametrize("step", PASSES, ids=lambda step: step.name)
def test_example(step: Pass) -> None:
    before, after = example(step)
    graph = parse_graph(before)
    verify_graph(graph)
    assert print_graph(graph).strip() == before
    result = run_pass(step, graph)
    assert result.changed
    assert print_graph(result.graph).strip() == after
    inputs = random_inputs(graph)
    expected = run_graph(graph, inputs)
    for name, actual in run_graph(result.graph, inputs).items():
        np.testing.assert_allclose(actual, expected[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("step", PASSES, ids=lambda step: step.name)
def test_pass_is_named_after_its_file(step: Pass) -> None:
    assert type(step).__module__.rsplit(".", 1)[-1] == step.name
