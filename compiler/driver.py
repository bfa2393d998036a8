"""The driver: from an ONNX model through the named phases to a package. The one module that sees all layers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from birc.codegen.generated import Generated
from birc.codegen.program_code import generate
from birc.compiler.dump import CONSTANTS_FILE, Dump, DumpWriter, load_dump
from birc.compiler.fitting import Trial, advised
from birc.compiler.garbage import seldom_collected
from birc.compiler.importer.host_call import sub_model
from birc.compiler.importer.host_values import boundary_tensor
from birc.compiler.importer.imported import Imported
from birc.compiler.importer.importer import import_parts
from birc.compiler.importer.placement import HostPart as ImportedHostPart
from birc.compiler.importer.read import ModelSource, read_model
from birc.compiler.ir.errors import InvalidIRError
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Boundary, Plan
from birc.compiler.ir.plan_verify import PHASES as PLAN_PHASES
from birc.compiler.ir.plan_verify import verify_plan
from birc.compiler.ir.printer import print_graph
from birc.compiler.ir.proof.prover import Prover
from birc.compiler.passes.allocation.shortage import ShortageError
from birc.compiler.passes.base import OnPass, Pass, PassResult, run_pass, run_passes
from birc.compiler.passes.bounds import bounds, bounds_report
from birc.compiler.passes.canonicalize import CANONICALIZE, canonicalize
from birc.compiler.passes.constant_memory import DEFAULT_LIMIT_BYTES, check_bytes, check_constants
from birc.compiler.passes.divide_depth import DivideDepth
from birc.compiler.passes.divide_keys import DivideKeys, divide_keys_for
from birc.compiler.passes.fold_norms import FoldNorms
from birc.compiler.passes.fuse import Fuse, fuse_for
from birc.compiler.passes.legalize import LEGALIZE, legalize_passes
from birc.compiler.passes.lifetimes import compulsory_bytes, least_sram_bytes
from birc.compiler.passes.lower.lower import device_problem
from birc.compiler.passes.merge_products import MergeProducts
from birc.compiler.passes.quantized_products import QuantizedProducts, multiplies_quantised
from birc.compiler.passes.skip_masked import SkipMasked, skip_masked_for
from birc.compiler.passes.stack_products import StackProducts
from birc.compiler.plan_search import Finished, Found, PlanSearch
from birc.compiler.prove import new_prover
from birc.compiler.variants import Batch, Dims, PaddingProof, Sizes, largest, variant_sizes
from birc.runtime.errors import BadModelError, DoesNotFitError, UsageError
from birc.runtime.machine import Machine, load_machine
from birc.runtime.manifest import Manifest
from birc.runtime.package import Package
from birc.runtime.package_parts import DevicePart, HostPart, NewVariant
from birc.runtime.program import Port
from birc.runtime.variant import BOUND_CYCLES, BoundaryTensor

PHASES = (
    "import",
    "canonicalize",
    "legalize",
    "fuse",
    "partition",
    "tile",
    "schedule",
    "allocate",
    "codegen",
    "assemble",
)
"""Every phase in order. Graph text is written up to `fuse`, plan text up to `allocate`, assembly after `codegen`."""

GRAPH_PASSES: tuple[Pass, ...] = tuple(
    dict.fromkeys(
        (
            *(QuantizedProducts(), *CANONICALIZE, *LEGALIZE),
            *(StackProducts(), DivideDepth(), DivideKeys(), SkipMasked(), MergeProducts(), FoldNorms(), Fuse()),
        )
    )
)
"""The passes on graphs, each once, in the order of their first use."""

CHOOSES_FORMS: Final = 3
"""The level from which on plans choose between forms of a graph."""

PRECISIONS = ("model", "fp32", "bf16", "int8")
Progress = Callable[[str], None]
OnPlan = Callable[[str, Plan], None]
"""Sees a phase and the plan after it."""
Data = Mapping[str, np.ndarray]
Way = tuple[Sequence[Pass], Found | None]
"""The passes of the phase `fuse`, and the plan after them if it is known."""


@dataclass(frozen=True, slots=True)
class CompiledPart:
    """A program, and what a profile says of it that it does not itself."""

    part: DevicePart
    report: Mapping[str, int]


@dataclass(slots=True)
class Compilation:
    """One run of the phases: options, and what is written and reported on the way.

    `observe` sees every graph pass, `observe_plan` the plan after every phase.
    """

    machine: Machine
    precision: str = "model"
    opt_level: int = 3
    stop_after: str | None = None
    dump: DumpWriter | None = None
    tell: Progress = lambda _: None
    onnx_sha256: str | None = None
    variant: str = ""
    mem_limit_bytes: int = DEFAULT_LIMIT_BYTES
    prover: Prover | None = None
    observe: OnPass | None = None
    observe_plan: OnPlan | None = None
    resident_weights: bool = False
    passes: list[str] = field(default_factory=list)
    dumped: int = 0
    search: PlanSearch = field(init=False)

    def __post_init__(self) -> None:
        self.search = PlanSearch(
            self.machine,
            self.precision,
            self.opt_level,
            self.resident_weights,
            lambda what: self.progress(f"partition: {what}"),
        )

    def progress(self, phase: str) -> None:
        """Tell the phase, and the variant where there are several."""
        self.tell(f"{self.variant}: {phase}" if self.variant else phase)

    def compile_graph(self, graph: Graph, done: str) -> CompiledPart | None:
        """Go on from a graph after the phase `done`; None when `stop_after` comes first."""
        if self._runs("canonicalize", done):
            self.progress("canonicalize")
            passes = (QuantizedProducts(), *CANONICALIZE) if self.precision == "int8" else CANONICALIZE
            graph = canonicalize(graph, self._after_pass("canonicalize"), passes)
            self.dump_graph("canonicalize", graph)
        if self._stopped("canonicalize"):
            return None
        if self._runs("legalize", done):
            self.progress("legalize")
            graph = run_passes(graph, legalize_passes(self.machine.max_dim), self._after_pass("legalize"))
            self.dump_graph("legalize", graph)
        if self._stopped("legalize"):
            return None
        check_constants(graph, self.mem_limit_bytes)
        found: Found | None = None
        if self._runs("fuse", done):
            self.progress("fuse")
            steps, found = self._fusion(graph)
            graph = run_passes(graph, steps, self._after_pass("fuse"))
            self.dump_graph("fuse", graph)
        if self._stopped("fuse"):
            return None
        self.progress("partition")
        found = self.search.kept(found or self.search.plan(graph))
        found = self.search.rearranged(self.search.near(self.search.shared(found)))
        plan = replace(found.plan, bounds=bounds(found.lowered, self.machine).by_resource)
        self._dump_plan("partition", plan, found.lowered.data)
        if self._stopped("partition"):
            return None
        return self.compile_plan(plan, found.lowered.data, "partition", found.finished)

    def _fusion(self, graph: Graph) -> Way:
        """The passes of the phase `fuse`; and the plan, where plans decided between them."""
        if self.opt_level == 0:
            return (), None
        plain = (skip_masked_for(self.machine), MergeProducts(), fuse_for(self.machine, self.precision))
        if self.opt_level < CHOOSES_FORMS:
            return plain, None
        ways: list[tuple[Pass, ...]] = [plain]
        # Parts of FP32 operands are made of what lies together.
        stack = (StackProducts(),) if self.precision != "fp32" else ()
        deep = DivideDepth(self.machine.dies)
        for one in (deep, divide_keys_for(self.machine), *stack):
            if one.run(graph).changed:
                ways += [(one, *way) for way in ways]
        best, found = self.search.best_way(graph, ways) if len(ways) > 1 else (plain, None)
        square = replace(deep, square=True)
        if deep in best and len(square.deep(graph)) > len(deep.deep(graph)):
            best, found = self.search.faster_way(graph, (best, found), [square if one == deep else one for one in best])
        if self.precision != "bf16" or not FoldNorms(self.machine.tcore_cols).applies(graph):
            return best, found
        folded = self._folded(graph, best, (best, found))
        # A product may be fastest in parts, which the kernel of a norm adds up, only as long as that is not folded.
        return folded if best is plain else self._folded(graph, plain, folded)

    def _folded(self, graph: Graph, way: Sequence[Pass], known: Way) -> Way:
        """The known passes and the plan after them, or those of a way with norms folded into products, where the plan
        is faster after these."""
        for one in FoldNorms(self.machine.tcore_cols).ways(run_passes(graph, way[:-1])):
            faster = self.search.faster_way(graph, known, (*way[:-1], one, way[-1]))
            if faster[0] is not known[0]:
                return faster
            known = faster
        return known

    def compile_plan(self, plan: Plan, data: Data, done: str, finished: Finished | None = None) -> CompiledPart | None:
        """Go on from a plan after the phase `done`; the search may have `finished` it already."""
        for phase, step in self.search.steps:
            if self._runs(phase, done):
                self.progress(phase)
                known = finished and finished.phases[phase]
                plan = replace(known, bounds=plan.bounds) if known else step(plan, self.machine)
                self._dump_plan(phase, plan, data)
            if phase == "allocate" and self.prover is not None:
                self.progress("prove")
                self.prover.prove(plan, self.machine)
            if self._stopped(phase):
                return None
        self.progress("codegen")
        generated = finished.generated if finished else generate(plan, self.machine, self.search.writer)
        if self.dump is not None:
            self.dump.program(self._number(), "codegen", generated.program, generated.with_parts(data))
        if self._stopped("codegen"):
            return None
        self.progress("assemble")
        return self._part(plan, data, generated)

    def _part(self, plan: Plan, data: Data, generated: Generated) -> CompiledPart:
        program = generated.program
        return CompiledPart(
            DevicePart(
                program,
                generated.weights(data),
                _boundary(plan.inputs, program.inputs),
                _boundary(plan.outputs, program.outputs),
                generated.runs,
            ),
            {
                "batch": next((b.shape[0] for b in plan.inputs if b.shape), 1),
                "compulsory_bytes": compulsory_bytes(plan),
                "sram_lower_bound_bytes": least_sram_bytes(plan, self.machine),
                **bounds_report(plan.bounds),
            },
        )

    def package(self, name: str, variants: Sequence[NewVariant]) -> Package:
        """The package of compiled variants."""
        manifest = Manifest(
            model=name,
            target=self.machine.name,
            target_digest=self.machine.digest,
            precision=self.precision,
            options={
                "opt_level": self.opt_level,
                **({"resident_weights": True} if self.resident_weights else {}),
            },
            passes=tuple(dict.fromkeys(self.passes)) if len(variants) > 1 else tuple(self.passes),
            onnx_sha256=self.onnx_sha256,
        )
        return Package.create(variants, manifest, self.machine)

    def _runs(self, phase: str, done: str) -> bool:
        return PHASES.index(phase) > PHASES.index(done)

    def _stopped(self, phase: str) -> bool:
        return self.stop_after is not None and PHASES.index(phase) >= PHASES.index(self.stop_after)

    def _after_pass(self, phase: str) -> Callable[[Pass, Graph, PassResult], None]:
        def record(step: Pass, before: Graph, result: PassResult) -> None:
            self.passes.append(step.name)
            if self.observe is not None:
                self.observe(step, before, result)
            if result.changed and phase == "canonicalize":
                self.dump_graph(f"{phase}.{step.name}", result.graph)

        return record

    def _number(self) -> int:
        self.dumped += 1
        return self.dumped - 1

    def begin_part(self, folder: Path | None) -> None:
        """Begin a graph of its own, whose texts go into `folder`."""
        self.dump = None if folder is None else DumpWriter(folder)
        self.dumped = 0

    def dump_graph(self, name: str, graph: Graph) -> None:
        if self.dump is not None:
            self.dump.graph(self._number(), name, graph)

    def _dump_plan(self, phase: str, plan: Plan, data: Data) -> None:
        verify_plan(plan, phase, self.machine)
        self.passes.append(phase)
        if self.observe_plan is not None:
            self.observe_plan(phase, plan)
        if self.dump is not None:
            self.dump.plan(self._number(), phase, plan, data)


@seldom_collected()
def compile_model(
    model: ModelSource,
    target: str | Path | Machine = "br100",
    precision: str = "model",
    dims: Dims | None = None,
    batch: Batch | None = None,
    opt_level: int = 3,
    dump_ir: str | Path | None = None,
    stop_after: str | None = None,
    progress: Progress | None = None,
    mem_limit_bytes: int = DEFAULT_LIMIT_BYTES,
    prove: Prover | bool = False,
    resident_weights: bool = False,
) -> Package | None:
    """Compile an ONNX model (a path, the bytes of a file, or a `ModelProto`) for a target (name, path, or machine).

    `dims` fixes symbolic dimensions by name and `batch` the first dimension of every input; where several sizes are
    given, the package has a variant for every combination. With `dump_ir` each phase leaves its text in that folder
    (of several variants each in a folder of its own); after the phase `stop_after` the result is None. The constants
    may take `mem_limit_bytes`. With `prove` every program's plan is proved (a prover counts what it proved). With
    `resident_weights` the weights that kernels read tile by tile stay on the chip between calls. Raises the errors of
    `birc.runtime.errors`: unreadable model, unsupported operators, does not fit; an internal error when a proof fails.
    """
    compilation = _compilation(target, precision, opt_level, stop_after, progress, prove, resident_weights)
    compilation.mem_limit_bytes = mem_limit_bytes
    variants = variant_sizes(dims, batch)

    def imported_for(dims: Mapping[str, int], batch: int | None = None) -> Imported:
        imported = import_parts(read, dims, batch, device_problem, open_dims=stop_after == "import")
        imported.require_supported()
        return imported

    compilation.progress("import")
    read = read_model(model)
    top = largest(variants)
    whole = imported_for(top.dims, top.batch)
    if precision == "int8":
        _require_quantised(whole)
    compilation.onnx_sha256 = _digest(model)
    if whole.dimensions and stop_after is None:
        compilation.progress("import for other sizes")
    proof = PaddingProof(whole, imported_for) if stop_after is None else None
    made = []
    for number, sizes in enumerate(variants):
        compilation.variant = sizes.label if len(variants) > 1 else ""
        imported = whole if sizes == top else imported_for(sizes.dims, sizes.batch)
        if proof is not None:
            proof.compare(imported)
        folder = None if dump_ir is None else Path(dump_ir)
        if folder is not None and len(variants) > 1:
            folder /= f"variant{number}"
        try:
            made.append(_compiled_variant(compilation, imported, folder))
        except ShortageError as error:
            compilation.progress("look for what would fit")
            raise _advised(error, compilation, sizes, imported, imported_for) from error
    finished = [variant for variant in made if variant is not None]
    if proof is None or len(finished) < len(variants):
        return None
    axes, padding = proof.axes(), proof.padding()
    return compilation.package(whole.name, [replace(variant, axes=axes, padding=padding) for variant in finished])


def _advised(
    error: ShortageError,
    compilation: Compilation,
    sizes: Sizes,
    imported: Imported,
    imported_for: Callable[[Mapping[str, int]], Imported],
) -> ShortageError:
    """The error with what would fit instead, found by compiling that as far as memory is given out."""

    def attempt(trial: Trial) -> None:
        level, resident = min(compilation.opt_level, 1), compilation.resident_weights
        tried = _compilation(trial.machine, trial.precision, level, "allocate", None, False, resident)
        tried.mem_limit_bytes = compilation.mem_limit_bytes
        symbols = {symbol: trial.sizes[entry.name] for entry in imported.dimensions for symbol in entry.symbols}
        model = imported if trial.sizes == given else imported_for(symbols)
        _compiled_variant(tried, model, None)

    given = {entry.name: entry.size for entry in imported.dimensions}
    options = {name: f"--dim {name}=" if name in sizes.dims else "--batch " for name in given}
    return advised(error, Trial(given, compilation.precision, compilation.machine), options, attempt)


def _require_quantised(imported: Imported) -> None:
    """Raises `UsageError` for a model without products of quantised operands."""
    graphs = (part.graph for part in imported.parts if not isinstance(part, ImportedHostPart))
    if not any(map(multiplies_quantised, graphs)):
        raise UsageError(
            f"{imported.name} has no products of quantised operands",
            where="--precision int8",
            hint="quantise it first, as onnxruntime.quantization.quantize_static does, or use another precision",
        )


def _compiled_variant(compilation: Compilation, imported: Imported, dump_ir: Path | None) -> NewVariant | None:
    """All parts of a model compiled; several leave their dumps in folders of their own."""
    programs = sum(not isinstance(part, ImportedHostPart) for part in imported.parts)
    if compilation.resident_weights and programs > 1:
        raise DoesNotFitError(
            f"weights cannot stay on the chip: a call runs {programs} programs on it, with nodes on the host between",
            where=imported.name,
            hint="compile it without --resident-weights; birc check lists the nodes on the host",
        )
    parts: list[DevicePart | HostPart] = []
    reports: list[Mapping[str, int]] = []
    for number, part in enumerate(imported.parts):
        folder = dump_ir
        if folder is not None and len(imported.parts) > 1:
            folder /= f"part{number}"
        if isinstance(part, ImportedHostPart):
            parts.append(_host_part(imported, part, number, compilation.mem_limit_bytes))
            continue
        compilation.begin_part(folder)
        compilation.dump_graph("import", part.graph)
        if compilation.stop_after == "import":
            continue
        compiled = compilation.compile_graph(part.graph, "import")
        if compiled is not None:
            parts.append(compiled.part)
            reports.append(compiled.report)
    if len(parts) < len(imported.parts):
        return None
    return NewVariant(
        {entry.name: entry.size for entry in imported.dimensions},
        tuple(_tensor(imported, parts, name) for name in imported.inputs),
        tuple(_tensor(imported, parts, name) for name in imported.outputs),
        tuple(parts),
        _summed(reports),
    )


def _host_part(imported: Imported, part: ImportedHostPart, number: int, most_bytes: int) -> HostPart:
    held = {name: imported.constants[name] for call in part.calls for name in call.reads if name in imported.constants}
    check_bytes({name: data.nbytes for name, data in held.items() if isinstance(data, np.ndarray)}, most_bytes)
    model = sub_model(
        f"{imported.name}.{number}", part.calls, part.inputs, part.outputs, imported.constants, imported.functions
    )
    inputs, outputs = (
        tuple(boundary_tensor(name, imported.types[name]) for name in names) for names in (part.inputs, part.outputs)
    )
    return HostPart(model, inputs, outputs, tuple(call.node for call in part.calls))


def _tensor(imported: Imported, parts: Sequence[DevicePart | HostPart], name: str) -> BoundaryTensor:
    """An input or output of the model: as a program has it, if one does."""
    tensors = (
        tensor
        for part in parts
        if isinstance(part, DevicePart)
        for tensor in (*part.inputs, *part.outputs)
        if tensor.name == name
    )
    return next(tensors, None) or boundary_tensor(name, imported.types[name])


def _summed(reports: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """What a profile says that the programs do not, over all programs of a variant."""
    if not reports:
        return {}
    return {
        "batch": reports[0]["batch"],
        "compulsory_bytes": sum(report["compulsory_bytes"] for report in reports),
        "sram_lower_bound_bytes": max(report["sram_lower_bound_bytes"] for report in reports),
        **{name: sum(report[name] for report in reports) for name in reports[0] if name in BOUND_CYCLES.values()},
    }


@seldom_collected()
def resume(
    path: str | Path,
    target: str | Path = "br100",
    precision: str = "model",
    opt_level: int = 3,
    dump_ir: str | Path | None = None,
    stop_after: str | None = None,
    progress: Progress | None = None,
    prove: Prover | bool = False,
    resident_weights: bool = False,
) -> Package | None:
    """Go on from a text that an earlier run left with `dump_ir`, from the phase after it.

    `prove` and, up to the phase `allocate`, `resident_weights` are those of `compile_model`. Raises `BadModelError` for
    the text of a plan that breaks a rule, or of which a claim cannot be proved.
    """
    dump = load_dump(path)
    if isinstance(dump.content, Plan):
        precision = dump.content.precision
        if load_machine(target).name != dump.content.target:
            raise UsageError(f"the plan is for {dump.content.target}", where=str(path), hint="pass --target")
    compilation = _compilation(target, precision, opt_level, stop_after, progress, prove, resident_weights)
    compilation.begin_part(None if dump_ir is None else Path(dump_ir))
    if isinstance(dump.content, Plan):
        compiled = _compiled_text(compilation, dump.content, dump, path)
    elif isinstance(dump.content, Graph):
        # A text from within a phase is taken up at the beginning of that phase.
        done = PHASES[PHASES.index(dump.phase) - 1] if dump.step else dump.phase
        compiled = compilation.compile_graph(dump.content, done)
    else:
        raise UsageError("a program is finished: use `birc asm`", where=str(path))
    if compiled is None:
        return None
    part = compiled.part
    return compilation.package(dump.content.name, [NewVariant({}, part.inputs, part.outputs, (part,), compiled.report)])


def _compiled_text(compilation: Compilation, plan: Plan, dump: Dump, path: str | Path) -> CompiledPart | None:
    """A plan as somebody may have changed it: what is wrong with it is not birc's fault."""
    if dump.phase not in PLAN_PHASES:
        raise UsageError(f"no phase {dump.phase!r} leaves a plan", where=str(path), hint=f"one of {PLAN_PHASES}")
    missing = [b.name for b in plan.buffers if b.role == "constant" and b.name not in dump.constants]
    if missing:
        hint = f"keep {CONSTANTS_FILE} beside it"
        raise BadModelError(f"there are no values for the constant %{missing[0]}", where=str(path), hint=hint)
    try:
        verify_plan(plan, dump.phase, compilation.machine)
        return compilation.compile_plan(plan, dump.constants, dump.phase)
    except InvalidIRError as error:
        raise BadModelError(error.what, where=f"{path}: {error.where}", hint="change the text") from error


def run_named_passes(path: str | Path, names: list[str]) -> str:
    """The text of a dumped graph after the named passes. Raises `UsageError` for an unknown pass."""
    dump = load_dump(path)
    if not isinstance(dump.content, Graph):
        raise UsageError("passes by name run on graphs, up to the phase `fuse`", where=str(path))
    known = {step.name: step for step in GRAPH_PASSES}
    graph = dump.content
    for name in names:
        if name not in known:
            raise UsageError(f"there is no pass {name!r}", where="--passes", hint=f"one of {', '.join(known)}")
        graph = run_pass(known[name], graph).graph
    return print_graph(graph)


def require_precision(precision: str) -> None:
    """Raises `UsageError` for one that is not in `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not available", hint=f"one of {', '.join(PRECISIONS)}")


def _compilation(
    target: str | Path | Machine,
    precision: str,
    opt_level: int,
    stop_after: str | None,
    progress: Progress | None,
    prove: Prover | bool,
    resident_weights: bool,
) -> Compilation:
    require_precision(precision)
    if stop_after is not None and stop_after not in PHASES:
        raise UsageError(f"there is no phase {stop_after!r}", hint=f"one of {', '.join(PHASES)}")
    return Compilation(
        target if isinstance(target, Machine) else load_machine(target),
        precision,
        opt_level,
        stop_after,
        tell=progress or (lambda _: None),
        prover=prove if isinstance(prove, Prover) else new_prover() if prove else None,
        resident_weights=resident_weights,
    )


def _digest(model: ModelSource) -> str:
    """SHA-256 of the model's bytes."""
    if isinstance(model, bytes):
        return hashlib.sha256(model).hexdigest()
    if isinstance(model, str | Path):
        with open(model, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _boundary(boundaries: tuple[Boundary, ...], ports: tuple[Port, ...]) -> tuple[BoundaryTensor, ...]:
    return tuple(
        BoundaryTensor(boundary.name, boundary.dtype, boundary.shape, port.dtype)
        for boundary, port in zip(boundaries, ports, strict=True)
    )
