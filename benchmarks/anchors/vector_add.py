"""The vendor's vector addition of 2^20 FP32 elements on one die, as a mega kernel (one thread block an SPC).

Source: Biren, "BIRENSUPA 跟着例子学编程": 63 us with 512 threads an SPC, 38 to 40 us with 4096. The same
addition as an ordinary kernel, one small block a CU, takes 371 us; how blocks are handed to CUs is not
modelled.

A thread adds two pairs of numbers a round: the four loads are in flight at once, which is what
`outstanding_loads_per_warp` = 4 allows. An instruction covers one element of every thread.
"""

from __future__ import annotations

from anchors.notation import Layout, box, command, op, par, v, var
from birc.runtime.machine import Machine
from birc.runtime.program import Kernel, Program

ELEMENTS = 1 << 20
PAIRS_IN_FLIGHT = 2


def vector_add(machine: Machine, threads: int) -> Program:
    """The addition with `threads` threads an SPC, 512 to 4096."""
    spcs = machine.spcs_per_die
    rounds = ELEMENTS // (spcs * threads * PAIRS_IN_FLIGHT)
    layout = Layout()
    # A row of the view is what an SPC adds in one round.
    tensors = [layout.tensor((spcs * rounds, PAIRS_IN_FLIGHT * threads), "f32") for _ in range(3)]
    row = (var(0, rounds) + var(1), 1)
    parts = [(row, (pair * threads, threads)) for pair in range(PAIRS_IN_FLIGHT)]
    body = [
        *(op("vld", v(2 * pair + side), box(side, *part)) for pair, part in enumerate(parts) for side in range(2)),
        *(op("vadd", v(2 * pair), v(2 * pair), v(2 * pair + 1)) for pair in range(PAIRS_IN_FLIGHT)),
        *(op("vst", box(2, *part), v(2 * pair)) for pair, part in enumerate(parts)),
    ]
    kernel = Kernel("vector_add", (par(spcs, par(rounds, *body), level="spc"),))
    commands = (
        command("launch", (1 << spcs) - 1, "vector_add"),
        *(layout.bind(slot, tensor) for slot, tensor in enumerate(tensors)),
        command("run", 0, 0),
    )
    a, b, out = (layout.port(name, tensor) for name, tensor in zip(("a", "b", "out"), tensors, strict=True))
    return layout.program(f"vector_add_{threads}", machine, (kernel,), commands, inputs=(a, b), outputs=(out,))
