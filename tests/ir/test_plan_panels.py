"""Left operands in panels: what is wrong with them is reported, and their text reads back."""

from __future__ import annotations

import pytest
from graph_maker import GraphMaker
from pipeline import Compiled, compile_graph
from plan_mutants import mutants
from small_networks import shortcut

from birc.compiler.ir.plan import Contraction, Kernel, KernelStep, Plan
from birc.compiler.ir.plan_panels import panel_span
from birc.compiler.ir.plan_parser import parse_plan
from birc.compiler.ir.plan_printer import print_plan
from birc.compiler.ir.plan_verify import find_plan_problems
from birc.runtime.machine import load_machine

VALID = """\
plan "panels" on tiny dies 2 precision model macs 24576 {
  buffer %x : f32 1024 bytes input in hbm at 0x0 live 0 to 0
  buffer %y : f32 512 bytes input in hbm at 0x400 live 0 to 0
  buffer %z : f32 384 bytes input in hbm at 0x600 live 0 to 0
  buffer %w : f32 10240 bytes constant in hbm at 0x800 live 0 to 0
  buffer %out : f32 1024 bytes output in hbm at 0x4000 live 0 to 1
  input "x" : f32[8, 32] {
    piece 3 [0, 0] %x dims [8, 32] strides [32, 1]
  }
  input "y" : f32[8, 16] {
    piece 3 [0, 0] %y dims [8, 16] strides [16, 1]
  }
  input "z" : f32[8, 12] {
    piece 3 [0, 0] %z dims [8, 12] strides [12, 1]
  }
  output "out" : f32[8, 32] {
    piece 1 [0, 0] %out dims [8, 32] strides [32, 1]
  }
  run {
    kernel "product" macs 15360 {
      space [par y 8, par o 32, red c 80]
      contract tf32p rows 1 [y] columns [o] depth 1
        a = %x[y, c] dims [8, 32] strides [32, 1]
        and %y[y, c -32] dims [8, 16] strides [16, 1] %z[y, c -64] dims [8, 12] strides [12, 1]
        b = %w[c, o] dims [80, 32] strides [32, 1]
      tile [y 8, o 32, c 16]
      phase {
        v0 = vacc
        vst(v0) %out[y, o] dims [8, 32] strides [32, 1]
      }
    }
    idle
  }
}
"""
MACHINE = load_machine("tiny")


def kernel_of(plan: Plan) -> tuple[Kernel, Contraction]:
    step = plan.steps[0]
    assert isinstance(step, KernelStep)
    assert step.kernel.contraction is not None
    return step.kernel, step.kernel.contraction


def problems(text: str, phase: str = "tile") -> str:
    return "\n".join(map(str, find_plan_problems(parse_plan(text), phase, MACHINE)))


def test_a_valid_plan_has_no_problems_and_reads_back() -> None:
    assert not problems(VALID)
    plan = parse_plan(VALID)
    assert print_plan(plan) == VALID
    assert [panel_span(panel) for panel in kernel_of(plan)[1].panels] == [(0, 32), (32, 48), (64, 76)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("c -32", "c -31", "panels of depths 0 to 31, 31 to 46, 64 to 75, must be from 0 to 79 one behind the other"),
        ("c -32", "c -64", "panels of depths 0 to 31, 64 to 79, 64 to 75"),
        ("c -64", "c -70", "panels of depths 0 to 31, 32 to 47, 70 to 81"),
        ("a = %x[y, c]", "a = %x[y, c +1]", "panels of depths -1 to 30, 32 to 47"),
        ("c -32", "c -36", "an operation takes 16 of the depth at once, but panels begin at 36, 64"),
        ("c 16]", "c 20]", "an operation takes 20 of the depth at once, but panels begin at 32, 64"),
        (
            "[y, c -32]",
            "[y, 2 c -32]",
            "%y is no panel: its last axis, behind those of rows, must count all of the depth",
        ),
        ("[y, c -32] dims [8, 16]", "[c -32, y] dims [16, 8]", "a depth axis moves with y"),
        ("[y, c -32]", "[0, c -32]", "the row axes do not move with every row dimension"),
        ("%y[y, c -32] dims [8, 16] strides [16, 1]", "%y[y, c -32] dims [8, 16] strides [16, 1] fill lowest", "fills"),
    ],
)
def test_what_is_wrong_is_reported(old: str, new: str, message: str) -> None:
    assert VALID.count(old) == 1
    assert message in problems(VALID.replace(old, new))


def test_chunks_of_a_depth_in_two_end_where_operations_do() -> None:
    """Of 40 steps of a chunk one operation takes 16: the third would go on in the next chunk."""
    text = VALID.replace("red c 80]", "red k 2, red c 40]").replace(", c 16]", ", c 8]")
    text = text.replace("[y, c]", "[y, 40 k +1 c]").replace("c -", "40 k +1 c -").replace("[c, o]", "[40 k +1 c, o]")
    assert not problems(text)
    assert "an operation takes 16 of the depth at once" in problems(text.replace("c 8]", "c 16]"))


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    make = GraphMaker()
    return compile_graph(make.graph(shortcut(make)), "tiny")


def test_panels_in_another_order_or_place_are_refused(compiled: Compiled) -> None:
    seen = 0
    for mutant in mutants(compiled.plan):
        moves_depth = mutant.kind == "panel coordinate" and "depth" in mutant.change
        if mutant.kind == "panel order" or moves_depth:
            assert list(find_plan_problems(mutant.plan, "allocate", compiled.machine)), mutant.change
            seen += 1
    assert seen >= 3
