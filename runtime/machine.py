"""The machine: what the compiler and the engines know about a target.

A machine is read from a TOML file in which every figure carries its unit, source and confidence. The fields
of `Machine` are that file's schema: the annotation of a field gives its unit. Peaks are derived here from the
figures, never copied from a brochure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, get_type_hints

from birc.runtime.errors import UsageError
from birc.runtime.figures import Figure, FigureType, read_assignment
from birc.runtime.machine_file import Schema, check_complete, format_key, format_names, read_description

Count: TypeAlias = Annotated[int, FigureType("count", whole=True)]
Bytes: TypeAlias = Annotated[int, FigureType("B", whole=True)]
Cycles: TypeAlias = Annotated[int, FigureType("cycle", whole=True)]
MacsPerCycle: TypeAlias = Annotated[int, FigureType("MAC/cycle", whole=True)]
BytesPerCycle: TypeAlias = Annotated[float, FigureType("B/cycle", whole=False)]
Fraction: TypeAlias = Annotated[float, FigureType("fraction", whole=False)]
Gigahertz: TypeAlias = Annotated[float, FigureType("GHz", whole=False)]
Watts: TypeAlias = Annotated[float, FigureType("W", whole=False)]


@dataclass(frozen=True, slots=True)
class TcoreFormat:
    """What the T-core does with one input format: its rate and the depth `k` of one operation."""

    macs_per_cycle_per_spc: MacsPerCycle
    k_unit: Count  # an operation's depth is a multiple of this
    k_max: Count
    bytes: Bytes  # of one input element in the input buffers


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """One target. Rates are per core clock cycle; "per SPC" and "per die" are in the names.

    Two machines are equal when their digests are: the sources' wording does not count.
    """

    name: str
    vendor: str
    digest: str  # SHA-256 over name, values, units and ranges
    figures: Mapping[str, Figure]  # by field name; "formats.bf16.k_max" for those of a format
    formats: Mapping[str, TcoreFormat]

    clock_ghz: Gigahertz
    tdp_w: Watts

    # The hierarchy: dies hold SPCs (in groups, the VMCs), SPCs hold CUs, CUs hold EUs, EUs run warps.
    dies: Count
    spcs_per_die: Count
    vmcs_per_die: Count
    cus_per_spc: Count
    eus_per_cu: Count

    # The vector cores. A vector register of an SPC holds one tile: one element for each lane of each warp.
    warp_lanes: Count
    warps_per_eu: Count
    vector_lanes_per_eu: Count
    sfu_lanes_per_eu: Count
    vector_tile_elements: Count
    vector_registers: Count
    vector_programs: Count
    issue_cycles: Cycles

    # The T-core of an SPC: one accumulator tile, fed from the two input buffers.
    tcore_rows: Count
    tcore_cols: Count
    accumulator_banks: Count
    gib_a_bytes: Bytes
    gib_b_bytes: Bytes

    # Its convolutions: windows of a patch of pixels, moved by one pixel from output to output.
    conv_tile_side: Count  # output pixels of one operation in each direction
    conv_kernel_max: Count
    conv_pad_max: Count
    conv_dilation_max: Count

    # Memory. `tensor_buffer_bytes` and `l2_bytes` split `spc_sram_bytes`; how is a choice of the compiler.
    spc_sram_bytes: Bytes
    tensor_buffer_bytes: Bytes
    l2_bytes: Bytes
    l2_line_bytes: Bytes
    granule_bytes: Bytes  # the least that a warp's load or store moves
    gsm_bytes_per_cu: Bytes
    hbm_bytes_per_die: Bytes
    hbm_sections_per_die: Count

    # Ports and links, each for one direction.
    hbm_bytes_per_cycle_per_section: BytesPerCycle
    hbm_efficiency: Fraction  # of a long stream
    noc_bytes_per_cycle: BytesPerCycle  # the port of one SPC
    l2_to_gib_bytes_per_cycle: BytesPerCycle
    tb_to_gib_bytes_per_cycle: BytesPerCycle
    l1_bytes_per_cycle_per_cu: BytesPerCycle
    d2d_bytes_per_cycle: BytesPerCycle
    pcie_bytes_per_cycle: BytesPerCycle
    host_bytes_per_cycle: BytesPerCycle  # what an operator on the host takes and gives

    # Latencies and fixed costs.
    hbm_latency_cycles: Cycles
    l2_local_latency_cycles: Cycles
    l2_remote_latency_cycles: Cycles
    l2_other_die_latency_cycles: Cycles
    tb_latency_cycles: Cycles
    accumulator_drain_cycles: Cycles
    tcore_fill_cycles: Cycles
    semaphore_cycles: Cycles
    spc_barrier_cycles: Cycles
    cross_spc_flag_cycles: Cycles
    die_barrier_cycles: Cycles
    cross_die_flag_cycles: Cycles
    dma_start_cycles: Cycles
    bind_cycles: Cycles
    launch_cycles: Cycles
    host_call_cycles: Cycles  # from the end of a program to the first operator on the host, and back
    host_node_cycles: Cycles

    # Limits that bound what may be in flight or named.
    dma_engines_per_die: Count
    outstanding_loads_per_warp: Count
    outstanding_loads_per_tcore_queue: Count
    semaphores_tcore: Count
    semaphores_spc: Count
    max_descriptors: Count
    max_dim: Count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Machine) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def spcs(self) -> int:
        return self.dies * self.spcs_per_die

    @property
    def conv_reach(self) -> int:
        """Pixels from the first to the last tap of the widest kernel, in one direction."""
        return (self.conv_kernel_max - 1) * self.conv_dilation_max

    @property
    def patch_pixels_max(self) -> int:
        """Pixels of the largest patch: what a whole tile of outputs needs of the widest kernel."""
        return (self.conv_tile_side + self.conv_reach) ** 2

    @property
    def spcs_per_vmc(self) -> int:
        return self.spcs_per_die // self.vmcs_per_die

    @property
    def eus_per_spc(self) -> int:
        return self.cus_per_spc * self.eus_per_cu

    @property
    def warps_per_spc(self) -> int:
        return self.eus_per_spc * self.warps_per_eu

    @property
    def hbm_sections(self) -> int:
        return self.dies * self.hbm_sections_per_die

    @property
    def hbm_bytes(self) -> int:
        """HBM capacity of the whole chip."""
        return self.dies * self.hbm_bytes_per_die

    @property
    def spcs_meet_cycles(self) -> int:
        """From the end of a kernel on the last SPC of a die to the start of the next one on any: by the SPCs' flags, or
        by a barrier."""
        return min(self.cross_spc_flag_cycles, self.die_barrier_cycles)

    @property
    def multicast_switch_cycles(self) -> int:
        """Changing the multicast mode takes a die barrier: every SPC has to be between two kernels."""
        return self.die_barrier_cycles

    def format(self, name: str) -> TcoreFormat:
        """The T-core format called `name`. Raises `UsageError` when the machine has none such."""
        found = self.formats.get(name)
        if found is None:
            known = ", ".join(self.formats)
            raise UsageError(f"{self.name} has no T-core format {name!r}", hint=f"one of {known}")
        return found

    def peak_macs_per_cycle(self, format_name: str) -> int:
        """Multiply-adds a cycle of all T-cores of the chip together."""
        return self.spcs * self.format(format_name).macs_per_cycle_per_spc

    def peak_flops_per_s(self, format_name: str) -> float:
        """Floating-point operations a second of all T-cores; a multiply-add is two."""
        return 2 * self.peak_macs_per_cycle(format_name) * self.clock_ghz * 1e9

    @property
    def vector_lanes_per_spc(self) -> int:
        """Elements a cycle of one SPC's vector cores, for one arithmetic instruction."""
        return self.eus_per_spc * self.vector_lanes_per_eu

    @property
    def sfu_lanes_per_spc(self) -> int:
        """Elements a cycle of one SPC's special-function units."""
        return self.eus_per_spc * self.sfu_lanes_per_eu

    def hbm_bytes_per_cycle(self) -> float:
        """Raw HBM rate of the whole chip."""
        return self.hbm_sections * self.hbm_bytes_per_cycle_per_section

    def streamed_cycles(self, num_bytes: float) -> float:
        """The least cycles of a program that moves so many bytes to and from HBM: before a launch nothing moves."""
        rate = self.dies * self.streamed_hbm_bytes_per_cycle()
        return self.launch_cycles + num_bytes / rate if num_bytes else 0.0

    def streamed_hbm_bytes_per_cycle(self) -> float:
        """Rate of the HBM of one die in a long stream."""
        return self.hbm_bytes_per_cycle() / self.dies * self.hbm_efficiency

    def tile_gap_cycles(self) -> int:
        """From the last operation of a tile to the first of the next: the sum leaves the array, is drained, is free."""
        if self.accumulator_banks > 1:
            return 0
        return self.tcore_fill_cycles + self.accumulator_drain_cycles + 2 * self.semaphore_cycles

    def cycles_to_us(self, cycles: float) -> float:
        """Cycles of the core clock as microseconds."""
        return cycles / (self.clock_ghz * 1e3)

    def with_values(self, values: Mapping[str, float], *, source: str = "set by the caller") -> Machine:
        """This machine with other values for some figures (named as in `figures`), to vary it.

        Raises `UsageError` for an unknown name or a value that cannot be.
        """
        figures = dict(self.figures)
        for name, value in values.items():
            where = f"{self.name}: {name}"
            expected = SCHEMA.expected(name, where=where)
            if name not in figures:
                raise UsageError("the machine has no such figure", where=where)
            figures[name] = read_assignment(figures[name], value, expected, where=where, source=source)
        _check_consistent(figures, where=self.name)
        return _build(self.name, self.vendor, figures)

    def with_dies(self, dies: int) -> Machine:
        """This machine with only `dies` of its dies switched on. Raises `UsageError` when it has fewer."""
        if not 1 <= dies <= self.dies:
            raise UsageError(f"{self.name} has {self.dies} dies, {dies} were asked for")
        if dies == self.dies:
            return self
        return self.with_values({"dies": dies}, source=f"{dies} of {self.dies} dies switched on")


def _figure_types(dataclass_type: type) -> dict[str, FigureType]:
    """The figures among the fields of a dataclass: those whose annotation carries a `FigureType`."""
    hints = get_type_hints(dataclass_type, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", (None,))[0] for name, hint in hints.items()}
    return {name: mark for name, mark in marks.items() if isinstance(mark, FigureType)}


SCHEMA: Final = Schema(machine=_figure_types(Machine), tcore_format=_figure_types(TcoreFormat))


def machine_names() -> tuple[str, ...]:
    """The machines that come with birc, sorted."""
    entries = (entry.name for entry in files("birc.runtime.machines").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in entries if name.endswith(".toml")))


def load_machine(name_or_path: str | Path) -> Machine:
    """The machine of that name, or of the TOML file at that path.

    A description may start from one of the machines that come with birc (`base = "br100"`) and give only what
    differs.
    Raises `UsageError` naming the file and the field when the description is not whole and consistent.
    """
    if name_or_path in machine_names():
        return _load_shipped(str(name_or_path))
    path = Path(name_or_path)
    if path.suffix != ".toml":
        hint = f"one of {', '.join(machine_names())}, or a path that ends in .toml"
        raise UsageError(f"there is no target {str(name_or_path)!r}", hint=hint)
    return _load(path)


@cache
def _load_shipped(name: str) -> Machine:
    """A machine that comes with birc; its text takes as long to read as a small package to run."""
    return _load(_shipped(name))


def _shipped(name: str) -> Traversable:
    return files("birc.runtime.machines") / f"{name}.toml"


def _load(file: Traversable | Path) -> Machine:
    description = read_description(file, SCHEMA)
    figures = description.figures
    if description.base is not None:
        figures = {**_base_figures(description.base, where=f"{file.name}: base"), **figures}
    check_complete(figures, SCHEMA, where=file.name)
    _check_consistent(figures, where=file.name)
    return _build(description.name, description.vendor, figures)


def _base_figures(base: str, *, where: str) -> Mapping[str, Figure]:
    """The figures of the machine that a description starts from; that one must be complete in itself."""
    if base not in machine_names():
        hint = f"one of {', '.join(machine_names())}"
        raise UsageError(f"there is no machine {base!r}", where=where, hint=hint)
    description = read_description(_shipped(base), SCHEMA)
    if description.base is not None:
        hint = f"start from {description.base}"
        raise UsageError(f"{base!r} has a base of its own", where=where, hint=hint)
    return description.figures


def _check_consistent(figures: Mapping[str, Figure], *, where: str) -> None:
    """Figures that other figures fix have to agree with them."""
    value = {name: figure.value for name, figure in figures.items()}
    lanes = value["cus_per_spc"] * value["eus_per_cu"] * value["warps_per_eu"] * value["warp_lanes"]
    sram_parts = value["tensor_buffer_bytes"] + value["l2_bytes"]
    rules = [
        ("vmcs_per_die", value["spcs_per_die"] % value["vmcs_per_die"] == 0, "must divide spcs_per_die"),
        (
            "vector_tile_elements",
            value["vector_tile_elements"] == lanes,
            f"must be {lanes:g}: all lanes of an SPC's warps",
        ),
        (
            "spc_sram_bytes",
            sram_parts <= value["spc_sram_bytes"],
            "is less than tensor_buffer_bytes + l2_bytes",
        ),
        (
            "l2_line_bytes",
            value["l2_line_bytes"] % value["granule_bytes"] == 0,
            "must be a multiple of granule_bytes",
        ),
    ]
    for name in format_names(figures):
        k_max, k_unit = (format_key(name, field) for field in ("k_max", "k_unit"))
        rules.append((k_max, value[k_max] % value[k_unit] == 0, "must be a multiple of k_unit"))
    for name, holds, complaint in rules:
        if not holds:
            raise UsageError(complaint, where=f"{where}: {name}")


def _build(name: str, vendor: str, figures: Mapping[str, Figure]) -> Machine:
    """The machine of these complete and checked figures."""
    formats = format_names(figures)
    ordered = {key: figures[key] for key in SCHEMA.names(formats)}
    # The schema's types hold by now: an int where the field is whole. mypy cannot see through the names.
    numbers: dict[str, Any] = {key: figure.value for key, figure in ordered.items()}
    return Machine(
        name=name,
        vendor=vendor,
        digest=_digest(name, ordered),
        figures=ordered,
        formats={
            of: TcoreFormat(**{field: numbers[format_key(of, field)] for field in SCHEMA.tcore_format})
            for of in formats
        },
        **{field: numbers[field] for field in SCHEMA.machine},
    )


def _digest(name: str, figures: Mapping[str, Figure]) -> str:
    """SHA-256 of what decides results; a reworded source leaves it as it is."""
    content = {key: (figure.value, figure.unit, figure.low, figure.high) for key, figure in figures.items()}
    canonical = json.dumps({"name": name, "figures": content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
