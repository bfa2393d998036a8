"""The report of a profile: latency, ledger, traffic, bounds and operations, as one JSON object or as text.

`docs/timing.md` defines every figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from birc.runtime.dtypes import dtype
from birc.runtime.machine import Machine
from birc.runtime.memory import byte_range
from birc.runtime.package_sources import RunSource
from birc.runtime.program import SPACES, Command, CommandLoop, Port, Program
from birc.runtime.report_text import render
from birc.runtime.residents import resident_bytes, resident_images
from birc.runtime.timing.result import CopyTiming, RunTiming, TimingResult
from birc.runtime.variant import BOUNDS

SCHEMA: Final = "birc.report/2"

# The word in `bound_by` for the class of the ledger that holds most of an operation's cycles.
_BOUND_WORDS: Final = {
    "tcore_useful": "tcore",
    "tcore_padding": "tcore",
    "vector": "vector",
    "wait_hbm": "hbm",
    "wait_l2_noc": "l2_noc",
    "wait_other_die": "d2d",
    "wait_dependency": "dependency",
}


@dataclass(frozen=True, slots=True)
class ReportMetadata:
    """What a report says that the program itself does not.

    `runs` names what each `run` command computes, in text order; it may be shorter than the program.
    `compulsory_bytes` is counted from the program when it is None. `bound_cycles` are the compiler's bounds by name
    (`birc.runtime.variant.BOUNDS`), None for a program that was not compiled from a graph.
    """

    model: str
    precision: str = "model"
    batch: int = 1
    runs: tuple[RunSource, ...] = ()
    sram_lower_bound_bytes: int | None = None
    compulsory_bytes: int | None = None
    device_nodes: int | None = None
    bound_cycles: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of `per_op`: a run of a kernel, or a copy."""

    name: str
    onnx_nodes: tuple[str, ...]
    engine: str
    start_us: float
    end_us: float
    flops: int
    bytes: int
    utilization: float
    bound_by: str


@dataclass(frozen=True, slots=True)
class Report:
    """One profile. `to_json` gives the published object; the fields are its keys, in its units."""

    model: str
    target: str
    precision: str
    batch: int
    latency_us: float
    latency_range_us: tuple[float, float] | None
    end_to_end_us: float
    throughput_per_s: float
    utilization: Mapping[str, float]
    ledger: Mapping[str, float]
    sram: Mapping[str, int | None]
    traffic: Mapping[str, int]
    bound_us: Mapping[str, float | None]
    load_us: Mapping[str, float]
    placement: Mapping[str, Any]
    per_op: tuple[Operation, ...]
    energy_j: Mapping[str, Any] | None = None
    warm: Mapping[str, Any] | None = None
    schema: str = field(default=SCHEMA)

    def to_json(self) -> dict[str, Any]:
        """The JSON object, keys in the published order."""
        plain = asdict(self)
        keys = (
            *("schema", "model", "target", "precision", "batch", "latency_us", "latency_range_us"),
            *("end_to_end_us", "throughput_per_s", "energy_j", "utilization", "ledger", "sram", "traffic"),
            *("bound_us", "load_us", "warm", "placement", "per_op"),
        )
        return {key: _plain(plain[key]) for key in keys}

    def render_text(self) -> str:
        """A text for people: summary, ledger, bounds, and the operations that take longest."""
        return render(self.to_json())


def build_report(
    program: Program,
    machine: Machine,
    timing: TimingResult,
    metadata: ReportMetadata,
    latency_range: tuple[float, float] | None = None,
    later: TimingResult | None = None,
) -> Report:
    """The report of one simulated execution; `latency_range` (`calibration.latency_range`) is in cycles.

    `later` is the execution of a call that finds constants on the chip.
    """
    latency_us = machine.cycles_to_us(timing.latency_cycles)
    compulsory = metadata.compulsory_bytes
    if compulsory is None:
        compulsory = compulsory_bytes(program)
    loads = _loads_us(machine, timing)
    return Report(
        model=metadata.model,
        target=machine.name,
        precision=metadata.precision,
        batch=metadata.batch,
        latency_us=latency_us,
        latency_range_us=_range_us(machine, latency_range),
        end_to_end_us=latency_us + _pcie_us(program, machine),
        throughput_per_s=metadata.batch / latency_us * 1e6 if latency_us else 0.0,
        utilization=_utilization(timing, loads, latency_us),
        ledger={name: float(cycles) for name, cycles in timing.ledger.items()},
        sram=_sram(program, machine, metadata),
        traffic=_traffic(timing, compulsory),
        bound_us=bounds_us(machine, metadata.bound_cycles, _roofline_us(machine, timing, compulsory)),
        load_us=loads,
        placement=_placement(metadata),
        per_op=_operations(program, machine, timing, metadata),
        warm=None if later is None else _warm(program, machine, later, metadata, compulsory),
    )


def _warm(
    program: Program, machine: Machine, timing: TimingResult, metadata: ReportMetadata, compulsory: int
) -> dict[str, Any]:
    """The same figures for a call that finds on the chip what the first one brought there."""
    latency_us = machine.cycles_to_us(timing.latency_cycles)
    resident = {image.key: image.num_bytes for image in resident_images(program)}
    least = compulsory - sum(resident.values())
    return {
        "latency_us": latency_us,
        "throughput_per_s": metadata.batch / latency_us * 1e6 if latency_us else 0.0,
        "roofline_us": _roofline_us(machine, timing, least),
        "resident_bytes": resident_bytes(program),
        "traffic": _traffic(timing, least),
        "ledger": {name: float(cycles) for name, cycles in timing.ledger.items()},
    }


def _traffic(timing: TimingResult, compulsory: int) -> dict[str, int]:
    return {
        "hbm_bytes": int(timing.traffic.get("hbm", 0)),
        "compulsory_bytes": compulsory,
        "d2d_bytes": int(timing.traffic.get("d2d", 0)),
    }


def _range_us(machine: Machine, cycles: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if cycles is None else (machine.cycles_to_us(cycles[0]), machine.cycles_to_us(cycles[1]))


def port_bytes(ports: tuple[Port, ...]) -> int:
    """Bytes of these inputs or outputs, each counted once, in the types of the device."""
    return sum(math.prod(port.shape) * dtype(port.dtype).bits // 8 for port in ports)


def compulsory_bytes(program: Program) -> int:
    """Constants, inputs and outputs, each counted once: what no plan can avoid to move."""
    constants = {image.key: image.num_bytes for image in program.constants}
    return sum(constants.values()) + port_bytes(program.inputs) + port_bytes(program.outputs)


def _pcie_us(program: Program, machine: Machine) -> float:
    """Inputs to the card and outputs back, one after the other."""
    num_bytes = port_bytes(program.inputs) + port_bytes(program.outputs)
    return machine.cycles_to_us(num_bytes / machine.pcie_bytes_per_cycle)


def bounds_us(machine: Machine, cycles: Mapping[str, int] | None, roofline_us: float) -> dict[str, float | None]:
    """The compiler's bounds, None where there are none, with the roofline and the largest of all at the end."""
    found = {name: None if cycles is None else machine.cycles_to_us(cycles[name]) for name in BOUNDS}
    largest = max(roofline_us, found.pop("max") or 0.0)
    return {**found, "roofline": roofline_us, "max": largest}


def _roofline_us(machine: Machine, timing: TimingResult, compulsory: int) -> float:
    """The larger of the model's own multiply-adds at peak rate and the compulsory bytes at the raw rate of HBM."""
    useful = float(timing.ledger["tcore_useful"]) / machine.spcs
    memory = min(float(compulsory), float(timing.traffic.get("hbm", 0))) / machine.hbm_bytes_per_cycle()
    return machine.cycles_to_us(max(useful, memory))


def _loads_us(machine: Machine, timing: TimingResult) -> dict[str, float]:
    """For each resource: the time that this program's use of it takes at its raw rate, evenly used."""
    spcs = machine.spcs
    traffic = {name: float(num_bytes) for name, num_bytes in timing.traffic.items()}
    noc = max(traffic.get("noc in", 0.0), traffic.get("noc out", 0.0))
    cycles = {
        "tcore": timing.tcore_cycles / spcs,
        "vector": max(timing.alu_cycles, timing.sfu_cycles) / spcs,
        "hbm": traffic.get("hbm", 0.0) / machine.hbm_bytes_per_cycle(),
        "stream": machine.streamed_cycles(traffic.get("hbm", 0.0)),
        "l2": traffic.get("l2", 0.0) / (spcs * machine.l2_to_gib_bytes_per_cycle),
        "noc": noc / (spcs * machine.noc_bytes_per_cycle),
        "d2d": traffic.get("d2d one way", 0.0) / machine.d2d_bytes_per_cycle,
        "dependency": float(timing.dependency_cycles),
    }
    return {name: machine.cycles_to_us(value) for name, value in cycles.items()}


def _utilization(timing: TimingResult, loads: Mapping[str, float], latency_us: float) -> dict[str, float]:
    if not latency_us:
        return dict.fromkeys(("tcore", "vcore", "hbm", "d2d"), 0.0)
    return {
        "tcore": float(timing.ledger["tcore_useful"] / (timing.spcs * timing.latency_cycles)),
        "vcore": loads["vector"] / latency_us,
        "hbm": loads["hbm"] / latency_us,
        "d2d": loads["d2d"] / latency_us,
    }


def _sram(program: Program, machine: Machine, metadata: ReportMetadata) -> dict[str, int | None]:
    """The lines up to the highest that the program's views reach in L2 and tensor buffers, over all its SPCs."""
    ends, line = dict.fromkeys(SPACES, 0), machine.l2_line_bytes
    for descriptor in program.descriptors:
        ends[descriptor.space] = max(ends[descriptor.space], -(-byte_range(descriptor)[1] // line) * line)
    return {
        "peak_bytes": program.dies * (ends["l2"] + machine.spcs_per_die * ends["tb"]),
        "capacity_bytes": machine.spcs * machine.spc_sram_bytes,
        "lower_bound_bytes": metadata.sram_lower_bound_bytes,
    }


def _placement(metadata: ReportMetadata) -> dict[str, Any]:
    nodes = {node for run in metadata.runs for node in run.onnx_nodes}
    device = metadata.device_nodes if metadata.device_nodes is not None else len(nodes)
    return {"device_nodes": device, "host_nodes": 0, "host": []}


def _operations(
    program: Program, machine: Machine, timing: TimingResult, metadata: ReportMetadata
) -> tuple[Operation, ...]:
    """Runs and copies in the order of their starts."""
    runs = [command for command, mnemonic in enumerate(_mnemonics(program)) if mnemonic == "run"]
    sources = dict(zip(runs, metadata.runs, strict=False))
    operations = [_run_operation(run, machine, sources.get(run.command)) for run in timing.runs]
    operations += [_copy_operation(copy, machine) for copy in timing.copies]
    return tuple(sorted(operations, key=lambda operation: (operation.start_us, operation.end_us)))


def _mnemonics(program: Program) -> list[str]:
    """Those of all commands, in text order."""

    def below(items: tuple[Command | CommandLoop, ...]) -> list[str]:
        return [name for item in items for name in ([item.mnemonic] if isinstance(item, Command) else below(item.body))]

    return below(program.commands)


def _run_operation(run: RunTiming, machine: Machine, source: RunSource | None) -> Operation:
    suffix = f" [{', '.join(map(str, run.iteration))}]" if run.iteration else ""
    tcore_cycles = run.ledger["tcore_useful"] + run.ledger["tcore_padding"]
    duration = run.end_cycles - run.start_cycles
    bound_by = _BOUND_WORDS[run.bound_by]
    if bound_by == "dependency" and run.awaited:
        bound_by = f"dependency: {run.awaited[0][0]}"
    return Operation(
        name=(source.name if source else run.name) + suffix,
        onnx_nodes=source.onnx_nodes if source else (),
        engine="tcore" if tcore_cycles else "vector",
        start_us=machine.cycles_to_us(run.start_cycles),
        end_us=machine.cycles_to_us(run.end_cycles),
        flops=2 * run.useful_macs,
        bytes=int(run.traffic.get("hbm", 0)),
        utilization=float(run.ledger["tcore_useful"] / (machine.spcs * duration)) if duration else 0.0,
        bound_by=bound_by,
    )


def _copy_operation(copy: CopyTiming, machine: Machine) -> Operation:
    suffix = f" [{', '.join(map(str, copy.iteration))}]" if copy.iteration else ""
    link = copy.mnemonic == "transfer"
    return Operation(
        name=f"{copy.mnemonic} {copy.command}{suffix} on die {copy.die}",
        onnx_nodes=(),
        engine="link" if link else "dma",
        start_us=machine.cycles_to_us(copy.issued_cycles),
        end_us=machine.cycles_to_us(copy.end_cycles),
        flops=0,
        bytes=copy.num_bytes,
        utilization=0.0,
        bound_by="d2d" if link else "hbm" if copy.in_hbm else "l2_noc",
    )


def _plain(value: Any) -> Any:
    """Tuples and mappings as JSON knows them."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return value
