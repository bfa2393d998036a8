"""Where a node of a model went: the kernel that computes it, and why its neighbours are computed by others."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from birc.compiler.driver import CHOOSES_FORMS, Compilation, require_precision
from birc.compiler.explain_products import products_in_plan
from birc.compiler.importer.imported import PlacedNode
from birc.compiler.importer.importer import import_parts
from birc.compiler.importer.placement import DevicePart
from birc.compiler.importer.read import ModelSource
from birc.compiler.ir.graph import Graph, Node
from birc.compiler.ir.plan import Plan
from birc.compiler.passes.base import Pass, PassResult
from birc.compiler.passes.fuse import Fuse
from birc.compiler.passes.lower.lower import VIEWS, device_problem, left_in_panels
from birc.compiler.passes.lower.storage import kept_in_f32, stored_as
from birc.compiler.passes.refusal import Reason, Refusal
from birc.runtime.dtypes import dtype
from birc.runtime.errors import DoesNotFitError, UsageError
from birc.runtime.machine import load_machine

UNDECIDED: Final = "no plan fits, so that what plans decide, as the form of the graph, is not known"

SHARES: Final = ("matmul+softmax", "matmul+softmax+logsumexp")
"""The kinds of the kernels that compute shares of an attention."""


@dataclass(frozen=True, slots=True)
class Miss:
    """Two nodes in different kernels of which one reads the other's value, which takes `num_bytes` in memory."""

    producer: Node
    value: str
    reader: Node
    refusal: Refusal
    num_bytes: int


@dataclass(frozen=True, slots=True)
class ExplainedKernel:
    """A kernel by its name in plans and profiles, with its nodes in order; `kind` names its anchors."""

    name: str
    kind: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a name: `notes` say what happened on the way; no `nodes` are left of what was folded."""

    name: str
    notes: tuple[str, ...]
    nodes: tuple[Node, ...]
    kernels: tuple[ExplainedKernel, ...]
    misses: tuple[Miss, ...]


@dataclass(frozen=True, slots=True)
class ExplainedPart:
    """One graph for the device: as imported, as fusion found it, the kernels, and what has two of them.

    Where no plan fits the target, `shortage` says why: what plans decide is not known then.
    """

    imported: Graph
    graph: Graph
    kernels: tuple[ExplainedKernel, ...]
    misses: tuple[Miss, ...]
    shortage: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All graphs of a model for the device; `places` are the ONNX nodes by name."""

    model: str
    parts: tuple[ExplainedPart, ...]
    places: Mapping[str, PlacedNode]

    @property
    def kernels(self) -> tuple[ExplainedKernel, ...]:
        return tuple(kernel for part in self.parts for kernel in part.kernels)

    @property
    def misses(self) -> tuple[Miss, ...]:
        """All pairs of neighbours with two kernels, the largest tensors first."""
        return tuple(sorted((miss for part in self.parts for miss in part.misses), key=lambda miss: -miss.num_bytes))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not known since no plan fits the target, and why none does."""
        return tuple(dict.fromkeys(f"{UNDECIDED}: {part.shortage}" for part in self.parts if part.shortage))

    def find(self, name: str) -> Found:
        """What became of an ONNX node or of a value. Raises `UsageError`, with the nearest names, for neither."""
        plain = name.removeprefix("%")
        place = self.places.get(plain)
        if place is not None and place.place == "host":
            return Found(plain, (f"{plain}: {place.op_type} on the host, since {place.reason}",), (), (), ())
        found = [item for part in self.parts if (item := _found(part, plain)) is not None]
        if place is None and not any(item.nodes for item in found):
            maker = next((node.name for node in self.places.values() if plain in node.outputs), None)
            if maker is not None:
                of_maker = self.find(maker)
                return replace(of_maker, name=plain, notes=(_made_by(plain, maker), *of_maker.notes))
            if not found:
                raise UsageError(
                    f"{plain!r} is no node of the model, nor a value that one computes",
                    where="NODE",
                    hint=self._hint(plain),
                )
        title = (f"{plain}: {place.op_type}",) if place is not None else ()
        return Found(
            plain,
            tuple(dict.fromkeys((*title, *(note for item in found for note in item.notes), *self.notes))),
            tuple(node for item in found for node in item.nodes),
            tuple(kernel for item in found for kernel in item.kernels),
            tuple(miss for item in found for miss in item.misses),
        )

    def _hint(self, name: str) -> str:
        values = (value for node in self.places.values() for value in node.outputs)
        names = (name for part in self.parts for name in _names(part))
        known = dict.fromkeys((*self.places, *values, *names))
        near = difflib.get_close_matches(name, known, n=3)
        return f"did you mean {' or '.join(near)}?" if near else "without NODE all near misses are listed, with names"


def explain_model(
    model: ModelSource,
    target: str | Path = "br100",
    precision: str = "model",
    dims: Mapping[str, int] | None = None,
    batch: int | None = None,
) -> Explanation:
    """Compile an ONNX model up to fusion, or to the plan where shares are multiplied, and keep what was decided.

    Raises what `compile_model` raises: an unreadable model, unsupported operators.
    """
    require_precision(precision)
    machine = load_machine(target)
    imported = import_parts(model, dims, batch, device_problem)
    imported.require_supported()
    parts = []
    for part in imported.parts:
        if isinstance(part, DevicePart):
            parts.append(_part(part.graph, Compilation(machine, precision)))
    return Explanation(imported.name, tuple(parts), {node.name: node for node in imported.nodes})


@dataclass(slots=True)
class _Observed:
    """The fusion of a compilation as it happened: the pass, the graph before and after it, and its kernels.

    Where these multiply shares, the compilation goes on to its tiled plan.
    """

    compilation: Compilation
    step: Fuse = field(default_factory=Fuse)
    before: Graph | None = None
    after: Graph | None = None
    unmade: Set[str] = frozenset()
    kernels: tuple[ExplainedKernel, ...] = ()
    plan: Plan | None = None

    def compile(self, graph: Graph) -> str:
        """Compile a graph so far; one that does not fit has no plan. Says why it does not."""
        compilation = self.compilation
        compilation.stop_after, compilation.observe, compilation.observe_plan = "fuse", self._passed, self._planned
        try:
            compilation.compile_graph(graph, "import")
        except DoesNotFitError as error:
            if self.after is None and compilation.opt_level < CHOOSES_FORMS:
                raise
            return str(error)
        return ""

    def _passed(self, step: Pass, before: Graph, result: PassResult) -> None:
        if isinstance(step, Fuse):
            self.step, self.before, self.after = step, before, result.graph
            self.unmade = left_in_panels(result.graph, self.compilation.machine, self.compilation.precision)
            self.kernels = _kernels(before, result.graph, self.unmade)
            if _products_of_shares(self.kernels):
                self.compilation.stop_after = "tile"

    def _planned(self, phase: str, plan: Plan) -> None:
        if phase == "tile":
            self.plan = plan


def _kernels(before: Graph, after: Graph, unmade: Set[str]) -> tuple[ExplainedKernel, ...]:
    members = {node.name: node for node in before.nodes}
    return tuple(
        ExplainedKernel(
            node.name,
            str(node.attributes.get("kind", node.op)),
            tuple(members[inner.name] for inner in node.body.nodes) if node.body is not None else (node,),
        )
        for node in after.nodes
        if node.op not in VIEWS and node.name not in unmade
    )


def _part(imported: Graph, compilation: Compilation) -> ExplainedPart:
    seen = _Observed(compilation)
    shortage = seen.compile(imported)
    if shortage and seen.after is None:  # Plans were to choose between forms of the graph: it is the plain one.
        seen = _Observed(Compilation(compilation.machine, compilation.precision, CHOOSES_FORMS - 1))
        seen.compile(imported)
    graph, unmade = seen.before or imported, seen.unmade
    members = {node.name: node for node in graph.nodes}
    refusals = {
        pair: Refusal(Reason.VIEW, f"%{names[0]} is nowhere as a whole: products take its pieces where they lie")
        if (names := [name for name in pair if name in unmade])
        else refusal
        for pair, refusal in seen.step.decide(graph).refusals.items()
    }
    if seen.plan is not None and seen.after is not None:
        found = products_in_plan(seen.plan, seen.after, compilation.machine)
        pairs = _products_of_shares(seen.kernels)
        refusals |= {key: found[names] for names, key in pairs.items() if names in found}
    kept = kept_in_f32(graph)

    def num_bytes(value: str) -> int:
        type = graph.type_of(value)
        stored = stored_as(type.dtype, compilation.precision, in_f32=value in kept)
        return dtype(stored).bytes_for(type.num_elements)

    misses = tuple(
        Miss(producer, value, members[reader], refusal, num_bytes(value))
        for (reader, value), refusal in refusals.items()
        if (producer := graph.producer(value)) is not None
    )
    return ExplainedPart(imported, graph, seen.kernels, misses, shortage)


def _products_of_shares(kernels: Sequence[ExplainedKernel]) -> dict[tuple[str, str], tuple[str, str]]:
    """By two kernels, of which one ends with a softmax of a product, the product that reads that as rows, and which."""
    made = {kernel.name for kernel in kernels if kernel.kind in SHARES}
    return {
        (node.inputs[0], kernel.name): (node.name, node.inputs[0])
        for kernel in kernels
        for node in kernel.nodes
        if node.op == "matmul" and node.inputs[0] in made
    }


def _found(part: ExplainedPart, name: str) -> Found | None:
    """What became of a name within one graph; None when it knows no such name."""
    notes: list[str] = []
    nodes = _nodes(part, name, notes)
    if not nodes and not notes:
        return None
    wanted = {id(node) for node in nodes}
    kernels = tuple(kernel for kernel in part.kernels if any(id(node) in wanted for node in kernel.nodes))
    misses = tuple(miss for miss in part.misses if id(miss.producer) in wanted or id(miss.reader) in wanted)
    return Found(name, tuple(notes), tuple(nodes), kernels, misses)


def _nodes(part: ExplainedPart, name: str, notes: list[str]) -> Sequence[Node]:
    """The nodes that stand for an ONNX node or make a value; `notes` takes what happened to it on the way."""
    seen = set[str]()
    while name and name not in seen:
        seen.add(name)
        producer = part.graph.producer(name)
        nodes = [node for node in part.graph.nodes if name in node.sources] or ([producer] if producer else [])
        if nodes:
            return nodes
        if part.graph.has_value(name):
            what = "a constant" if name in part.graph.constants else "an input of the program"
            notes.append(f"%{name} is {what}: no kernel computes it; it is read by {_readers(part.graph, name)}")
            return ()
        fate = next((fate for fate in part.graph.fates if fate.source == name), None)
        if fate is not None:
            into = f" into %{fate.into}" if fate.into else ""
            notes.append(f"{name}: {fate.fate} by the pass {fate.by}{into}")
            name = fate.into
            continue
        before = part.imported.producer(name)
        if before is not None and before.sources:
            notes.append(_made_by(name, ", ".join(before.sources)))
            name = before.sources[0]
        elif before is None and part.imported.has_value(name):
            notes.append(f"%{name} is a constant or an input of the program: no kernel reads it under this name")
    return ()


def _made_by(value: str, nodes: str) -> str:
    return f"%{value} is of the ONNX node {nodes}"


def _readers(graph: Graph, name: str) -> str:
    return ", ".join(f"%{node.name}" for node in graph.users(name)) or "nothing"


def _names(part: ExplainedPart) -> Iterator[str]:
    for graph in (part.imported, part.graph):
        yield from (value.name for value in graph.inputs)
        yield from graph.constants
        for node in graph.nodes:
            yield from node.sources
            yield from (value.name for value in node.outputs)
