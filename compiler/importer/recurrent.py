"""Lowering of RNN, GRU and LSTM: one product for the inputs of all steps, then the steps, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.floats import in_f32
from birc.compiler.importer.lowering import Lower, OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.recurrent_activations import Activation, read_activations
from birc.compiler.importer.shape import reshape, slice_axis
from birc.compiler.ir.types import TensorType
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

MOST_NODES: Final = 4_000
"""Nodes that the steps of one operator may take: every step has its own."""


@dataclass(frozen=True, slots=True)
class _Direction:
    """What the steps of one direction share. Matrices are transposed for products from the right.

    `recurrent` is [hidden, gates * hidden] as one matrix, or as two where GRU's candidate has a product of its own;
    `recurrent_bias` is what belongs inside the brackets of GRU's reset,
    "" when there is none; `peepholes` are three rows of `hidden`, or none.
    """

    hidden: int
    recurrent: tuple[str, ...]
    recurrent_bias: str
    peepholes: tuple[str, ...]
    activations: tuple[Activation, ...]


@dataclass(frozen=True, slots=True)
class _State:
    """What one step hands to the next: [batch, hidden] each. `cell` is "" but for LSTM."""

    output: str
    cell: str = ""


_Step = Callable[[OnnxNode, GraphBuilder, _Direction, str, _State], _State]
"""One step: from the gates' share of the input, [batch, gates * hidden], and the state to the next state."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """One of the three operators."""

    gates: int
    activations: tuple[str, ...]
    step: _Step


def _recurrent(cell: _Cell) -> Lower:
    """The lowering of one of the operators: all that they have in common."""

    def lower(node: OnnxNode, build: GraphBuilder) -> Results:
        x = _time_major(node, build, in_f32(build, node.input(0)))
        directions = _directions(node)
        activations = read_activations(node, cell.activations, len(directions))
        steps, batch, _ = build.shape(x)
        outputs, states = [], []
        for place, backwards in enumerate(directions):
            direction = _read_direction(node, build, cell, place, activations[place])
            gates = _input_share(node, build, cell, place, x)
            order = range(steps)[::-1] if backwards else range(steps)
            made, state = _run(
                node, build, cell, direction, gates, _initial(node, build, place, direction, batch), order
            )
            outputs.append(made)
            states.append(state)
        return _results(node, build, outputs, states, (steps, batch))

    return lower


def _directions(node: OnnxNode) -> tuple[bool, ...]:
    """For each direction whether it goes backwards in time."""
    name = node.string_attribute("direction", "forward")
    known = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if name not in known:
        raise BadModelError(f"direction {name!r} is none of {', '.join(known)}", where=node.where)
    return known[name]


def _time_major(node: OnnxNode, build: GraphBuilder, x: str) -> str:
    return build.emit("transpose", (x,), {"perm": (1, 0, 2)}) if node.int_attribute("layout", 0) else x


def _part(build: GraphBuilder, x: str, place: int) -> str:
    """Entry `place` of the first dimension, as f32; what is known now stays known, as one constant."""
    known = build.constant_of(x)
    if known is not None:
        return build.constant(np.ascontiguousarray(known[place]).astype(np.float32))
    return cast(build, reshape(build, slice_axis(build, x, 0, place, place + 1), build.shape(x)[1:]), dtype("f32"))


def _transposed(build: GraphBuilder, x: str) -> str:
    known = build.constant_of(x)
    if known is not None:
        return build.constant(np.ascontiguousarray(known.T))
    return build.emit("transpose", (x,), {"perm": (1, 0)})


def _sum(build: GraphBuilder, a: str, b: str) -> str:
    known = build.constant_of(a), build.constant_of(b)
    if known[0] is not None and known[1] is not None:
        return build.constant(known[0] + known[1])
    return build.emit("add", (a, b))


def _hidden(node: OnnxNode, build: GraphBuilder) -> int:
    size = build.shape(node.input(2))[-1]
    if node.int_attribute("hidden_size", size) != size:
        what = f"hidden_size is {node.int_attribute('hidden_size', size)}, the recurrent weights are for {size}"
        raise BadModelError(what, where=node.where)
    return size


def _biases(node: OnnxNode, build: GraphBuilder, cell: _Cell, place: int) -> tuple[str, str] | None:
    """The bias of all steps' inputs, and the one inside the brackets of GRU's reset ("" when there is none)."""
    if not node.optional(3):
        return None
    rows = cell.gates * _hidden(node, build)
    both = _part(build, node.input(3), place)
    first, second = _known_slice(build, both, 0, rows), _known_slice(build, both, rows, 2 * rows)
    if not _resets_after(node, cell):
        return _sum(build, first, second), ""
    split = rows // 3 * 2
    update = _sum(build, _known_slice(build, first, 0, split), _known_slice(build, second, 0, split))
    candidate = _known_slice(build, first, split, rows)
    return build.emit("concat", (update, candidate), {"axis": 0}), _known_slice(build, second, split, rows)


def _known_slice(build: GraphBuilder, x: str, start: int, end: int) -> str:
    """Elements of the last dimension, known if `x` is."""
    known = build.constant_of(x)
    if known is None:
        return slice_axis(build, x, len(build.shape(x)) - 1, start, end)
    return build.constant(np.ascontiguousarray(known[..., start:end]))


def _resets_after(node: OnnxNode, cell: _Cell) -> bool:
    """Whether GRU's reset is applied to the product, with its bias, and not before it."""
    return cell.step is _gru_step and bool(node.int_attribute("linear_before_reset", 0))


def _read_direction(
    node: OnnxNode, build: GraphBuilder, cell: _Cell, place: int, activations: tuple[Activation, ...]
) -> _Direction:
    hidden = _hidden(node, build)
    biases = _biases(node, build, cell, place)
    peepholes: tuple[str, ...] = ()
    if cell.step is _lstm_step and node.optional(7):
        rows = _part(build, node.input(7), place)
        peepholes = tuple(_known_slice(build, rows, gate * hidden, (gate + 1) * hidden) for gate in range(3))
    recurrent = _transposed(build, _part(build, node.input(2), place))
    if build.shape(recurrent) != (hidden, cell.gates * hidden):
        what = f"recurrent weights of shape {list(build.shape(node.input(2)))} for {cell.gates} gates of {hidden}"
        raise BadModelError(what, where=node.where)
    matrices: tuple[str, ...] = (recurrent,)
    if cell.step is _gru_step and not _resets_after(node, cell):
        matrices = tuple(
            _known_slice(build, recurrent, start * hidden, end * hidden) for start, end in ((0, 2), (2, 3))
        )
    return _Direction(hidden, matrices, biases[1] if biases else "", peepholes, activations)


def _input_share(node: OnnxNode, build: GraphBuilder, cell: _Cell, place: int, x: str) -> str:
    """The inputs' products with the weights, and the biases, for all steps: [steps * batch, gates * hidden]."""
    steps, batch, size = build.shape(x)
    weights = _transposed(build, _part(build, node.input(1), place))
    product = build.emit("matmul", (reshape(build, x, (steps * batch, size)), weights))
    biases = _biases(node, build, cell, place)
    return build.emit("add", (product, biases[0])) if biases else product


def _initial(node: OnnxNode, build: GraphBuilder, place: int, direction: _Direction, batch: int) -> _State:
    """The state before the first step: given, or 0."""
    found = []
    for position in (5, 6):
        value = node.optional(position)
        if not value:
            found.append(build.splat(0.0, TensorType(dtype("f32"), (batch, direction.hidden))))
            continue
        if node.int_attribute("layout", 0):
            value = build.emit("transpose", (value,), {"perm": (1, 0, 2)})
        found.append(_part(build, value, place))
    return _State(found[0], found[1])


@dataclass(frozen=True, slots=True)
class _Lengths:
    """How long each sequence of the batch is: `value` a [batch, 1] at run time, or `known` now."""

    value: str
    known: np.ndarray | None

    def active(self, build: GraphBuilder, step: int) -> str | bool:
        """Whether each sequence still goes on at `step`: a [batch, 1], or one truth for all of them."""
        if self.known is None:
            return build.emit("greater", (self.value, build.scalar(step, self.value)))
        going = self.known > step
        return bool(going.all()) if going.all() or not going.any() else build.constant(going.reshape(-1, 1))


def _lengths(node: OnnxNode, build: GraphBuilder) -> _Lengths | None:
    value = node.optional(4)
    if not value:
        return None
    known = build.constant_of(value)
    return _Lengths(reshape(build, value, (*build.shape(value), 1)), known)


def _run(
    node: OnnxNode,
    build: GraphBuilder,
    cell: _Cell,
    direction: _Direction,
    gates: str,
    state: _State,
    order: range,
) -> tuple[list[str], _State]:
    """The outputs of all steps, by time, and the last state.

    After the end of a sequence its state stays as it is, and its outputs are 0. Backwards in time that is before
    its first step, so that each sequence is reversed within its own length.
    """
    batch = build.shape(state.output)[0]
    lengths = _lengths(node, build)
    zero = build.constant(np.zeros((), np.float32))
    outputs: dict[int, str] = {}
    for step in order:
        active = True if lengths is None else lengths.active(build, step)
        if active is False:
            outputs[step] = build.splat(0.0, build.type_of(state.output))
            continue
        if build.num_pending > MOST_NODES:
            raise CannotLower(f"unrolled, its {len(order)} steps take more than {MOST_NODES} nodes, the limit")
        share = slice_axis(build, gates, 0, step * batch, (step + 1) * batch)
        new = cell.step(node, build, direction, share, state)
        outputs[step] = new.output
        if isinstance(active, str):
            outputs[step] = build.emit("where", (active, new.output, zero)) if node.uses_output(0) else ""
            kept = build.emit("where", (active, new.output, state.output))
            new = _State(kept, build.emit("where", (active, new.cell, state.cell)) if new.cell else "")
        state = new
    return [outputs[step] for step in sorted(outputs)], state


def _columns(build: GraphBuilder, x: str, hidden: int, gate: int, count: int = 1) -> str:
    return slice_axis(build, x, 1, gate * hidden, (gate + count) * hidden)


def _rnn_step(node: OnnxNode, build: GraphBuilder, direction: _Direction, share: str, state: _State) -> _State:
    """H = f(X W + H R + bias)"""
    product = build.emit("matmul", (state.output, direction.recurrent[0]))
    return _State(direction.activations[0].apply(build, build.emit("add", (product, share))))


def _gru_step(node: OnnxNode, build: GraphBuilder, direction: _Direction, share: str, state: _State) -> _State:
    """z, r = f(X W + H R + bias); h = g(X W + (r H) R + bias), or with r (H R + bias); H = h + z (H - h)"""
    hidden, previous = direction.hidden, state.output
    f, g = direction.activations
    after = bool(node.int_attribute("linear_before_reset", 0))
    if after:
        product = build.emit("matmul", (previous, direction.recurrent[0]))
        joint = build.emit("add", (_columns(build, product, hidden, 0, 2), _columns(build, share, hidden, 0, 2)))
    else:
        product = build.emit("matmul", (previous, direction.recurrent[0]))
        joint = build.emit("add", (product, _columns(build, share, hidden, 0, 2)))
    both = f.apply(build, joint)
    update, reset = _columns(build, both, hidden, 0), _columns(build, both, hidden, 1)
    if after:
        candidate = _columns(build, product, hidden, 2)
        if direction.recurrent_bias:
            candidate = build.emit("add", (candidate, direction.recurrent_bias))
        candidate = build.emit("mul", (reset, candidate))
    else:
        candidate = build.emit("matmul", (build.emit("mul", (reset, previous)), direction.recurrent[1]))
    candidate = g.apply(build, build.emit("add", (candidate, _columns(build, share, hidden, 2))))
    kept = build.emit("mul", (update, build.emit("sub", (previous, candidate))))
    return _State(build.emit("add", (candidate, kept)))


def _lstm_step(node: OnnxNode, build: GraphBuilder, direction: _Direction, share: str, state: _State) -> _State:
    """i, o, f = f(X W + H R + P C + bias); c = g(X W + H R + bias); C = f C + i c; H = o h(C)

    The output gate's peephole sees the new cell. Coupled gates forget what they do not take in: f = 1 - i.
    """
    hidden = direction.hidden
    f, g, h = direction.activations
    product = build.emit("matmul", (state.output, direction.recurrent[0]))
    sums = build.emit("add", (product, share))

    def gate(place: int, peephole: int, cell: str) -> str:
        x = _columns(build, sums, hidden, place)
        if direction.peepholes:
            x = build.emit("add", (x, build.emit("mul", (direction.peepholes[peephole], cell))))
        return f.apply(build, x)

    taken = gate(0, 0, state.cell)
    if node.int_attribute("input_forget", 0):
        forgotten = build.emit("sub", (build.scalar(1, taken), taken))
    else:
        forgotten = gate(2, 2, state.cell)
    candidate = g.apply(build, _columns(build, sums, hidden, 3))
    cell = build.emit("add", (build.emit("mul", (forgotten, state.cell)), build.emit("mul", (taken, candidate))))
    return _State(build.emit("mul", (gate(1, 1, cell), h.apply(build, cell))), cell)


def _results(
    node: OnnxNode,
    build: GraphBuilder,
    outputs: list[list[str]],
    states: list[_State],
    extent: tuple[int, int],
) -> tuple[str, ...]:
    """Y, Y_h and Y_c as far as they are asked for, in the layout and the type of the operator."""
    steps, batch = extent
    hidden = build.shape(states[0].output)[1]
    kind = build.type_of(node.input(0)).dtype
    by_batch = bool(node.int_attribute("layout", 0))
    results = []
    if node.outputs:
        every = ""
        if node.uses_output(0):
            sides = [reshape(build, _joined(build, made, 0), (steps, 1, batch, hidden)) for made in outputs]
            every = cast(build, _joined(build, sides, 1), kind)
            every = build.emit("transpose", (every,), {"perm": (2, 0, 1, 3)}) if by_batch else every
        results.append(every)
    for position, last in enumerate(([state.output for state in states], [state.cell for state in states]), 1):
        if position >= len(node.outputs):
            break
        value = ""
        if node.uses_output(position):
            sides = [reshape(build, state, (1, batch, hidden)) for state in last]
            value = cast(build, _joined(build, sides, 0), kind)
            value = build.emit("transpose", (value,), {"perm": (1, 0, 2)}) if by_batch else value
        results.append(value)
    return tuple(results)


def _joined(build: GraphBuilder, parts: list[str], axis: int) -> str:
    return parts[0] if len(parts) == 1 else build.emit("concat", parts, {"axis": axis})


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("GRU", _recurrent(_Cell(3, ("Sigmoid", "Tanh"), _gru_step))),
    OpType("LSTM", _recurrent(_Cell(4, ("Sigmoid", "Tanh", "Tanh"), _lstm_step))),
    OpType("RNN", _recurrent(_Cell(1, ("Tanh",), _rnn_step))),
)
