"""The machine: what the compiler and the engines know about a target.

A machine is read from a TOML file in which every figure carries its unit, source and confidence (`birc.runtime.figures`). The
fields of `Machine` are that file's schema: the annotation of a field gives its unit. Peaks are derived here from
the figures, never copied from a brochure.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, get_type_hints

from birc.runtime.errors import UsageError
from birc.runtime.figures import Figure, FigureType, read_assignment, read_figure

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

    # Memory. `tensor_buffer_bytes` and `l2_bytes` split `spc_sram_bytes`; the split is a choice of the compiler.
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
    hbm_efficiency: Fraction  # of a long stream; bounds use the raw rate
    noc_bytes_per_cycle: BytesPerCycle  # the port of one SPC
    l2_to_gib_bytes_per_cycle: BytesPerCycle
    tb_to_gib_bytes_per_cycle: BytesPerCycle
    l1_bytes_per_cycle_per_cu: BytesPerCycle
    d2d_bytes_per_cycle: BytesPerCycle
    pcie_bytes_per_cycle: BytesPerCycle

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

    def vector_lanes_per_spc(self) -> int:
        """Elements a cycle of one SPC's vector cores, for one arithmetic instruction."""
        return self.eus_per_spc * self.vector_lanes_per_eu

    def sfu_lanes_per_spc(self) -> int:
        """Elements a cycle of one SPC's special-function units."""
        return self.eus_per_spc * self.sfu_lanes_per_eu

    def hbm_bytes_per_cycle(self) -> float:
        """Raw HBM rate of the whole chip."""
        return self.hbm_sections * self.hbm_bytes_per_cycle_per_section

    def cycles_to_us(self, cycles: float) -> float:
        """Cycles of the core clock as microseconds."""
        return cycles / (self.clock_ghz * 1e3)

    def with_values(self, values: Mapping[str, float], *, source: str = "set by the caller") -> Machine:
        """This machine with other values for some figures, named as in `figures`; for sweeps and what-if questions.

        Raises `UsageError` for an unknown name or a value that cannot be.
        """
        figures = dict(self.figures)
        for name, value in values.items():
            where = f"{self.name}: {name}"
            expected = _expected_type(name, where)
            if name not in figures:
                raise UsageError("the machine has no such figure", where=where)
            figures[name] = read_assignment(figures[name], value, expected, where=where, source=source)
        return _build(self.name, self.vendor, figures)

    def with_dies(self, dies: int) -> Machine:
        """The same machine with only `dies` of its dies switched on. Raises `UsageError` when it has fewer."""
        if not 1 <= dies <= self.dies:
            raise UsageError(f"{self.name} has {self.dies} dies, {dies} were asked for")
        if dies == self.dies:
            return self
        return self.with_values({"dies": dies}, source=f"{dies} of {self.dies} dies switched on")


def _figure_types(schema: type) -> dict[str, FigureType]:
    """The figures among the fields of a dataclass: those whose annotation carries a unit."""
    hints = get_type_hints(schema, include_extras=True)
    return {
        name: hint.__metadata__[0]
        for name, hint in hints.items()
        if hasattr(hint, "__metadata__") and isinstance(hint.__metadata__[0], FigureType)
    }


MACHINE_FIGURES: Final = _figure_types(Machine)
FORMAT_FIGURES: Final = _figure_types(TcoreFormat)
_FORMATS: Final = "formats"


def machine_names() -> tuple[str, ...]:
    """The machines that come with birc, sorted."""
    folder = files("birc.runtime.machines")
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_machine(name_or_path: str | Path) -> Machine:
    """The machine of that name, or of the TOML file at that path.

    A description may start from one of the machines that come with birc (`base = "br100"`) and give only what differs.
    Raises `UsageError` naming the file and the field when the description is not whole and consistent.
    """
    names = machine_names()
    if isinstance(name_or_path, str) and name_or_path in names:
        return _load(files("birc.runtime.machines") / f"{name_or_path}.toml", names)
    path = Path(name_or_path)
    if path.suffix != ".toml":
        hint = f"one of {', '.join(names)}, or a path that ends in .toml"
        raise UsageError(f"there is no target {str(name_or_path)!r}", hint=hint)
    return _load(path, names)


def _load(file: Traversable | Path, names: Iterable[str]) -> Machine:
    content = _read_toml(file)
    where = file.name
    name, vendor = (_text(content, key, where) for key in ("name", "vendor"))
    figures = _read_figures(content, where)
    base = content.get("base")
    if base is not None:
        figures = {**_base_figures(base, names, where), **figures}
    _check_complete(figures, where)
    _check_consistent(figures, where)
    return _build(name, vendor, figures)


def _read_toml(file: Traversable | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the machine description: {error.strerror}", where=str(file)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"is not a TOML file: {error}", where=str(file)) from error


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageError("must be a text that is not empty", where=f"{where}: {key}")
    return value


def _base_figures(base: object, names: Iterable[str], where: str) -> Mapping[str, Figure]:
    """The figures of the machine that a description starts from; that one must be complete in itself."""
    if base not in names:
        raise UsageError(f"there is no machine {base!r}", where=f"{where}: base", hint=f"one of {', '.join(names)}")
    file = files("birc.runtime.machines") / f"{base}.toml"
    if "base" in _read_toml(file):
        raise UsageError(f"{base!r} itself has a base", where=f"{where}: base", hint="start from that one")
    return _load(file, names).figures


def _read_figures(content: Mapping[str, Any], where: str) -> dict[str, Figure]:
    """All figures of a description by field name; its tables are sections, which only group."""
    figures: dict[str, Figure] = {}
    for section, table in content.items():
        if section in ("name", "vendor", "base"):
            continue
        if not isinstance(table, dict):
            raise UsageError("is not a section", where=f"{where}: {section}", hint="figures stand in tables")
        for name, entry in _entries(section, table, where):
            place = f"{where}: {name}"
            if name in figures:
                raise UsageError(f"appears twice, again in section {section}", where=place)
            figures[name] = read_figure(entry, _expected_type(name, place), where=place, section=section)
    return figures


def _entries(section: str, table: Mapping[str, Any], where: str) -> Iterable[tuple[str, object]]:
    """The names and tables of the figures of a section; the formats have one more level."""
    if section != _FORMATS:
        yield from table.items()
        return
    for format_name, fields in table.items():
        prefix = f"{_FORMATS}.{format_name}"
        if not isinstance(fields, dict) or "." in format_name:
            raise UsageError("is not a table of figures with a plain name", where=f"{where}: {prefix}")
        yield from ((f"{prefix}.{field}", entry) for field, entry in fields.items())


def _expected_type(name: str, where: str) -> FigureType:
    """What the figure of that name accepts; `UsageError` for a name that is no field."""
    section, _, rest = name.partition(".")
    known, field = (FORMAT_FIGURES, rest.partition(".")[2]) if section == _FORMATS else (MACHINE_FIGURES, name)
    if field not in known:
        close = difflib.get_close_matches(field, known, n=1)
        raise UsageError("is not a field of a machine", where=where, hint=f"did you mean {close[0]}?" if close else None)
    return known[field]


def _format_names(figures: Iterable[str]) -> tuple[str, ...]:
    """The formats that have at least one figure, in the order of the file."""
    return tuple(dict.fromkeys(name.split(".")[1] for name in figures if name.startswith(f"{_FORMATS}.")))


def _check_complete(figures: Mapping[str, Figure], where: str) -> None:
    formats = _format_names(figures)
    if not formats:
        raise UsageError("has no T-core format", where=f"{where}: {_FORMATS}")
    of_formats = [f"{_FORMATS}.{name}.{field}" for name in formats for field in FORMAT_FIGURES]
    missing = [name for name in (*MACHINE_FIGURES, *of_formats) if name not in figures]
    if missing:
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(f"is missing{others}", where=f"{where}: {missing[0]}", hint='or start from another: base = "br100"')


def _check_consistent(figures: Mapping[str, Figure], where: str) -> None:
    """Figures that other figures fix have to agree with them."""
    value = {name: figure.value for name, figure in figures.items()}
    lanes = value["cus_per_spc"] * value["eus_per_cu"] * value["warps_per_eu"] * value["warp_lanes"]
    rules = [
        ("vmcs_per_die", value["spcs_per_die"] % value["vmcs_per_die"] == 0, "must divide spcs_per_die"),
        ("vector_tile_elements", value["vector_tile_elements"] == lanes, f"must be {lanes:g}, the lanes of all warps of an SPC"),
        (
            "spc_sram_bytes",
            value["tensor_buffer_bytes"] + value["l2_bytes"] <= value["spc_sram_bytes"],
            "is less than tensor_buffer_bytes + l2_bytes",
        ),
        ("l2_line_bytes", value["l2_line_bytes"] % value["granule_bytes"] == 0, "must be a multiple of granule_bytes"),
    ]
    for name in _format_names(figures):
        prefix = f"{_FORMATS}.{name}"
        whole = value[f"{prefix}.k_max"] % value[f"{prefix}.k_unit"] == 0
        rules.append((f"{prefix}.k_max", whole, "must be a multiple of k_unit"))
    for name, holds, complaint in rules:
        if not holds:
            raise UsageError(complaint, where=f"{where}: {name}")


def _build(name: str, vendor: str, figures: Mapping[str, Figure]) -> Machine:
    """The machine of these checked figures."""
    ordered = {key: figures[key] for key in MACHINE_FIGURES}
    formats = {}
    for format_name in _format_names(figures):
        keys = {field: f"{_FORMATS}.{format_name}.{field}" for field in FORMAT_FIGURES}
        ordered |= {key: figures[key] for key in keys.values()}
        formats[format_name] = TcoreFormat(**{field: _plain(figures[key]) for field, key in keys.items()})
    numbers = {key: _plain(figures[key]) for key in MACHINE_FIGURES}
    digest = _digest(name, ordered)
    return Machine(name=name, vendor=vendor, digest=digest, figures=ordered, formats=formats, **numbers)


def _plain(figure: Figure) -> Any:
    """The bare number: an int or a float as the field's type has it."""
    return figure.value


def _digest(name: str, figures: Mapping[str, Figure]) -> str:
    """SHA-256 of what decides results; a reworded source leaves it as it is."""
    content = {key: (figure.value, figure.unit, figure.low, figure.high) for key, figure in figures.items()}
    canonical = json.dumps({"name": name, "figures": content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
