"""The report of a whole variant: its programs one after the other, with the host's steps between them.

Time on the host is modelled from named figures of the machine file (a call, its nodes, the bytes it takes and gives),
never measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from birc.runtime.dtypes import DTYPES
from birc.runtime.machine import Machine
from birc.runtime.package import Package
from birc.runtime.report import Operation, Report, ReportMetadata, bounds_us, build_report
from birc.runtime.residents import has_residents, later_calls
from birc.runtime.timing import simulate
from birc.runtime.timing.calibration import latency_range
from birc.runtime.timing.result import LEDGER_CLASSES
from birc.runtime.variant import BOUND_CYCLES, RESOURCE_BOUNDS, BoundaryTensor, Step, Variant

QUICKLY_WALKED: Final = 400
"""Instructions walked by one simulation up to which a profile adds the range of its latency unasked."""

_BITS: Final = {entry.name: entry.bits for entry in DTYPES}
_RESOURCES: Final = ("tcore", "vcore", "hbm", "d2d")
_LOADS: Final = RESOURCE_BOUNDS
_TRAFFIC: Final = ("hbm_bytes", "compulsory_bytes", "d2d_bytes")


def variant_report(package: Package, variant: Variant, with_range: bool | None = None) -> Report:
    """The report of one call of `variant`; `with_range` as in `Session.profile`."""
    reports = [None if step.on_host else _program_report(package, variant, step, with_range) for step in variant.steps]
    if len(reports) == 1 and reports[0] is not None:
        return reports[0]
    return _combined(package, variant, reports)


def host_us(machine: Machine, step: Step) -> float:
    """The time of a step on the host; dimensions that are not known before it runs count as one element."""
    num_bytes = sum(_known_bytes(tensor) for tensor in (*step.inputs, *step.outputs))
    cycles = (
        machine.host_call_cycles + len(step.nodes) * machine.host_node_cycles + num_bytes / machine.host_bytes_per_cycle
    )
    return machine.cycles_to_us(cycles)


def _known_bytes(tensor: BoundaryTensor) -> int:
    bits = _BITS.get(tensor.dtype, 8)
    return math.prod(1 if size is None else size for size in tensor.shape or ()) * bits // 8


def _program_report(package: Package, variant: Variant, step: Step, with_range: bool | None) -> Report:
    program, machine = package.programs[step.member], package.machine
    timing = simulate(program, machine)
    wanted = timing.walked <= QUICKLY_WALKED if with_range is None else with_range
    band = latency_range(program, machine) if wanted else None
    if band is not None:  # The machine's own figures fit the anchors as the drawn ones do.
        band = (min(band[0], timing.latency_cycles), max(band[1], timing.latency_cycles))
    alone = len(variant.steps) == 1
    bounds = _bound_cycles(variant)
    metadata = ReportMetadata(
        model=package.manifest.model,
        precision=package.manifest.precision,
        batch=_batch(variant),
        runs=package.run_sources(step.member),
        sram_lower_bound_bytes=variant.report.get("sram_lower_bound_bytes"),
        compulsory_bytes=variant.report.get("compulsory_bytes") if alone else None,
        device_nodes=variant.report.get("device_nodes"),
        bound_cycles=bounds if alone else None,
    )
    stays = alone and has_residents(program)
    later = simulate(later_calls(program), machine) if stays else None
    return build_report(program, machine, timing, metadata, band, later)


def _bound_cycles(variant: Variant) -> Mapping[str, int] | None:
    """The compiler's bounds over all programs of a variant; None when it has none."""
    found = {name: variant.report[key] for name, key in BOUND_CYCLES.items() if key in variant.report}
    return found if len(found) == len(BOUND_CYCLES) else None


def _batch(variant: Variant) -> int:
    sized = (tensor.shape[0] for tensor in variant.inputs if tensor.shape and tensor.shape[0] is not None)
    return int(variant.report.get("batch", next(sized, 1)))


def _combined(package: Package, variant: Variant, reports: Sequence[Report | None]) -> Report:
    """Sums of what adds up, maxima of what is used again, and times of operations from the first input on."""
    machine = package.machine
    device = [report for report in reports if report is not None]
    latency_us = sum(report.latency_us for report in device)
    operations, end_us = _operations(machine, variant, reports)
    roofline_us = sum(report.bound_us["roofline"] or 0.0 for report in device)
    bands = [report.latency_range_us for report in device]
    known = [band for band in bands if band is not None]
    return Report(
        model=package.manifest.model,
        target=machine.name,
        precision=package.manifest.precision,
        batch=_batch(variant),
        latency_us=latency_us,
        latency_range_us=_sum_of_bands(known) if known and len(known) == len(bands) else None,
        end_to_end_us=end_us,
        throughput_per_s=_batch(variant) / (latency_us or end_us) * 1e6 if end_us else 0.0,
        utilization=_weighted(device, latency_us),
        ledger=_ledger(device),
        sram={
            "peak_bytes": max((report.sram["peak_bytes"] or 0 for report in device), default=0),
            "capacity_bytes": machine.spcs * machine.spc_sram_bytes,
            "lower_bound_bytes": variant.report.get("sram_lower_bound_bytes"),
        },
        traffic={name: sum(report.traffic[name] for report in device) for name in _TRAFFIC},
        bound_us=bounds_us(machine, _bound_cycles(variant), roofline_us),
        load_us={name: sum(report.load_us[name] for report in device) for name in _LOADS},
        placement={
            "device_nodes": variant.report.get("device_nodes", 0),
            "host_nodes": len(variant.host_nodes),
            "host": _host_nodes(variant),
        },
        per_op=operations,
    )


def _sum_of_bands(bands: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(low for low, _ in bands), sum(high for _, high in bands)


def _weighted(reports: Sequence[Report], latency_us: float) -> Mapping[str, float]:
    """Utilizations over all programs, each weighed by its time."""
    if not latency_us:
        return dict.fromkeys(_RESOURCES, 0.0)
    return {
        name: sum(report.utilization[name] * report.latency_us for report in reports) / latency_us
        for name in _RESOURCES
    }


def _ledger(reports: Sequence[Report]) -> Mapping[str, float]:
    total = dict.fromkeys(LEDGER_CLASSES, 0.0)
    for report in reports:
        for name, cycles in report.ledger.items():
            total[name] += cycles
    return total


def _host_nodes(variant: Variant) -> list[dict[str, Any]]:
    return [{"name": node.name, "op_type": node.op_type, "reason": node.reason} for node in variant.host_nodes]


def _operations(
    machine: Machine, variant: Variant, reports: Sequence[Report | None]
) -> tuple[tuple[Operation, ...], float]:
    """The operations of all steps with their starts moved behind the steps before, and the end of the last step.

    Transfers over PCIe stand between a program and what comes before and after it.
    """
    operations: list[Operation] = []
    now_us = 0.0
    for step, report in zip(variant.steps, reports, strict=True):
        if report is None:
            duration = host_us(machine, step)
            names = tuple(node.name for node in step.nodes)
            operations.append(Operation(step.member, names, "host", now_us, now_us + duration, 0, 0, 0.0, "host"))
            now_us += duration
            continue
        moved = (
            replace(operation, start_us=operation.start_us + now_us, end_us=operation.end_us + now_us)
            for operation in report.per_op
        )
        operations.extend(moved)
        now_us += report.end_to_end_us
    return tuple(operations), now_us
