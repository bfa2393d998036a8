"""Preloads: weights are loaded while a barrier or an exchange is waited for, and nothing that may still be written."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from graph_maker import GraphMaker
from machines import with_quick_link
from pipeline import Compiled, compile_graph

from birc.runtime.machine import Machine, load_machine
from birc.runtime.program import Command, Program
from birc.runtime.timing import simulate

ROWS, DEPTH = 128, 128


def of_one_die(target: str) -> Machine:
    return load_machine(target).with_values({"dies": 1})


def integers(seed: int, rows: int = DEPTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2, 3, (rows, DEPTH)).astype(np.float32)


def words(program: Program) -> list[str]:
    """The commands but binds."""
    found = [item.mnemonic for item in program.commands if isinstance(item, Command)]
    return [mnemonic for mnemonic in found if mnemonic != "bind"]


def without_preloads(program: Program) -> Program:
    kept = [item for item in program.commands if not isinstance(item, Command) or item.mnemonic != "preload"]
    return replace(program, commands=tuple(kept))


def chain(machine: Machine) -> tuple[Compiled, dict[str, np.ndarray], np.ndarray]:
    """Three products, each of the one before by weights; the middle one by its own transpose too."""
    make = GraphMaker()
    x = make.input(ROWS, DEPTH)
    first, second = integers(1), integers(2)
    one = make("relu", make("matmul", x, make.constant(first)))
    two = make("relu", make("matmul", one, make.constant(second)))
    three = make("matmul", two, make("transpose", two, perm=(1, 0)))
    graph = make.graph(three)
    inputs = {x: integers(3, ROWS)}
    a = np.maximum(inputs[x].astype(np.float64) @ first, 0)
    b = np.maximum(a @ second, 0)
    return compile_graph(graph, machine), inputs, b @ b.T


def test_weights_come_before_the_barrier_and_what_was_just_computed_behind_it() -> None:
    case, inputs, expected = chain(of_one_die("tiny"))
    case.verify()
    commands = words(case.program)
    runs = [place for place, mnemonic in enumerate(commands) if mnemonic == "run"]
    gaps = [commands[before + 1 : after] for before, after in itertools.pairwise(runs)]
    assert ["preload", "barrier"] in gaps
    assert gaps[-1] == ["barrier"]  # both operands of the last product are new
    (name,) = case.values(inputs)
    for values in (case.values(inputs), *(case.step(inputs, "random", seed) for seed in range(3))):
        np.testing.assert_allclose(values[name], expected, rtol=1e-5)


def test_kernels_start_as_before_and_end_sooner() -> None:
    machine = of_one_die("br100")
    case, _, _ = chain(machine)
    early, plain = simulate(case.program, machine), simulate(without_preloads(case.program), machine)
    assert early.latency_cycles < plain.latency_cycles
    assert early.counts == plain.counts
    assert early.traffic == plain.traffic


def test_weights_come_during_an_exchange() -> None:
    machine = with_quick_link("tiny")
    case, inputs, expected = chain(machine)
    case.verify()
    commands = words(case.program)
    sent = commands.index("transfer")
    waiting = commands[sent : commands.index("run", sent)]
    assert waiting.index("preload") < waiting.index("wait")
    (name,) = case.values(inputs)
    np.testing.assert_allclose(case.step(inputs, "random", 1)[name], expected, rtol=1e-5)


def test_weights_come_before_the_barrier_that_makes_room_for_others() -> None:
    """On a chip with room for a few products' weights each copy waits for kernels, and B does not wait with it."""
    sizes = {"spc_sram_bytes": 3 << 17, "l2_bytes": 3 << 16, "tensor_buffer_bytes": 3 << 16}
    machine = of_one_die("br100").with_values(sizes)
    make = GraphMaker()
    x = result = make.input(64, 1024)
    weights = [np.random.default_rng(seed).integers(-1, 2, (1024, 1024)).astype(np.float32) for seed in range(6)]
    for number in weights:
        result = make("relu", make("matmul", result, make.constant(number)))
    case = compile_graph(make.graph(result), machine, "bf16")
    case.verify()
    commands = words(case.program)
    runs = [place for place, mnemonic in enumerate(commands) if mnemonic == "run"]
    gaps = [commands[before + 1 : after] for before, after in itertools.pairwise(runs)]
    making_room = [gap for gap in gaps if "copy" in gap and "barrier" in gap]
    assert making_room
    for gap in making_room:
        assert gap.index("preload") < gap.index("barrier") < gap.index("copy")
    inputs = {x: np.random.default_rng(9).integers(-1, 2, (64, 1024)).astype(np.float32)}
    (name,) = case.values(inputs)
    np.testing.assert_array_equal(case.step(inputs, "random", 1)[name], case.values(inputs)[name])
