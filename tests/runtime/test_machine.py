"""The machine descriptions: published peaks follow from the figures; bad files are refused by field."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from importlib.resources import files

import pytest

from birc.runtime.errors import UsageError
from birc.runtime.figures import CONFIDENCES
from birc.runtime.machine import SCHEMA, Machine, TcoreFormat, load_machine, machine_names

BR100 = (files("birc.runtime.machines") / "br100.toml").read_text(encoding="utf-8")


@pytest.fixture
def load_changed(tmp_path):
    """Load a copy of the BR100 description after replacing one piece of its text."""

    def load(old: str, new: str) -> Machine:
        assert BR100.count(old) == 1, f"{old!r} must stand once in the description"
        return load_text(BR100.replace(old, new))

    def load_text(text: str) -> Machine:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return load_machine(path)

    load.text = load_text
    return load


def test_the_machines_that_ship():
    assert {"br100", "br104", "tiny"} <= set(machine_names())


@pytest.mark.parametrize("name", machine_names())
def test_every_machine_loads_under_its_own_name(name):
    machine = load_machine(name)
    assert machine.name == name
    assert machine == load_machine(name)
    assert len(machine.digest) == 64
    assert set(machine.figures) == set(SCHEMA.names(machine.formats))


@pytest.mark.parametrize("name", machine_names())
def test_plain_numbers_and_figures_agree(name):
    machine = load_machine(name)
    for field in SCHEMA.machine:
        assert getattr(machine, field) == machine.figures[field].value
    for of, tcore_format in machine.formats.items():
        for field in SCHEMA.tcore_format:
            assert getattr(tcore_format, field) == machine.figures[f"formats.{of}.{field}"].value


@pytest.mark.parametrize("name", machine_names())
def test_every_figure_says_where_it_comes_from(name):
    for key, figure in load_machine(name).figures.items():
        assert figure.source and figure.section and figure.confidence in CONFIDENCES, key
        if figure.confidence == "estimated":
            assert figure.low <= figure.value <= figure.high, key
        assert figure.source in str(figure)


def test_the_schema_covers_every_number_of_a_machine():
    plain = {"name", "vendor", "digest", "figures", "formats"}
    assert {field.name for field in dataclasses.fields(Machine)} - plain == set(SCHEMA.machine)
    assert {field.name for field in dataclasses.fields(TcoreFormat)} == set(SCHEMA.tcore_format)


def test_types_are_as_declared():
    machine = load_machine("br100")
    for field, expected in SCHEMA.machine.items():
        assert type(getattr(machine, field)) is (int if expected.whole else float), field


@pytest.mark.parametrize(
    ("name", "format_name", "published_tera_operations"),
    [
        ("br100", "s8", 2048),
        ("br100", "bf16", 1024),
        ("br100", "tf32p", 512),
        ("br104", "s8", 1024),
        ("br104", "bf16", 512),
        ("br104", "tf32p", 256),
    ],
)
def test_peaks_are_the_published_ones(name, format_name, published_tera_operations):
    """The vendor counts 1024 x 1024 as a million million."""
    assert load_machine(name).peak_flops_per_s(format_name) == published_tera_operations * 1024 * 1e9


def test_br100_as_published():
    machine = load_machine("br100")
    assert (machine.dies, machine.spcs, machine.eus_per_spc * machine.spcs) == (2, 32, 512)
    assert machine.warps_per_spc * machine.warp_lanes * machine.spcs == 128 * 1024  # threads
    assert machine.vector_lanes_per_spc * machine.spcs == 8192  # stream processors
    assert machine.spcs_per_vmc == 4
    assert machine.hbm_bytes == 64 * 2**30
    assert machine.hbm_bytes_per_cycle() == pytest.approx(1638.4)  # GB/s at 1 GHz
    assert machine.spc_sram_bytes * machine.spcs == 256 * 2**20


@pytest.mark.parametrize("name", machine_names())
def test_registers_follow_from_the_register_file(name):
    """The registers of an SPC hold 512 KB; a tile takes one 4-byte element for each lane of each warp."""
    machine = load_machine(name)
    assert machine.vector_tile_elements == machine.warps_per_spc * machine.warp_lanes
    assert machine.vector_registers * machine.vector_tile_elements * 4 == 512 * 2**10


@pytest.mark.parametrize("name", ["br100", "tiny"])
def test_every_format_takes_the_same_time_for_its_largest_operation(name):
    """64 x 64 outputs at full depth: 64 cycles, fed with 32 KB on each side."""
    machine = load_machine(name)
    for tcore_format in machine.formats.values():
        macs = machine.tcore_rows * machine.tcore_cols * tcore_format.k_max
        assert macs // tcore_format.macs_per_cycle_per_spc == 64
        assert machine.tcore_rows * tcore_format.k_max * tcore_format.bytes == 32 * 2**10


def test_br104_is_one_die_of_br100():
    whole, half = load_machine("br100"), load_machine("br104")
    differing = {key for key in whole.figures if whole.figures[key] != half.figures[key]}
    assert differing == {"dies", "tdp_w"}


def test_tiny_differs_only_in_sizes():
    whole, tiny = load_machine("br100"), load_machine("tiny")
    assert tiny.formats == whole.formats
    assert (tiny.spcs, tiny.hbm_bytes, tiny.gib_a_bytes + tiny.gib_b_bytes) == (4, 4 * 2**30, 32 * 2**10)
    assert (tiny.tensor_buffer_bytes, tiny.l2_bytes, tiny.spc_sram_bytes) == (2**15, 2**15, 2**16)
    latencies = [key for key in whole.figures if key.endswith("_latency_cycles")]
    assert latencies and all(whole.figures[key] == tiny.figures[key] for key in latencies)


def test_cycles_become_microseconds():
    machine = load_machine("br100")
    assert machine.cycles_to_us(5000) == 5.0
    assert machine.with_values({"clock_ghz": 2}).cycles_to_us(5000) == 2.5


def test_fewer_dies():
    machine = load_machine("br100")
    half = machine.with_dies(1)
    assert (half.dies, half.spcs, half.hbm_bytes) == (1, 16, 32 * 2**30)
    assert half != machine
    assert machine.with_dies(2) is machine
    assert "1 of 2 dies" in half.figures["dies"].source
    for dies in (0, 3):
        with pytest.raises(UsageError, match=f"has 2 dies, {dies}"):
            machine.with_dies(dies)


def test_other_values():
    machine = load_machine("br100")
    changed = machine.with_values({"hbm_latency_cycles": 800, "formats.bf16.k_max": 128})
    assert (changed.hbm_latency_cycles, changed.format("bf16").k_max) == (800, 128)
    nominal = machine.hbm_latency_cycles
    assert nominal != 800
    assert changed.digest != machine.digest
    assert hash(changed) != hash(machine)
    assert changed.with_values({"hbm_latency_cycles": nominal}).hbm_latency_cycles == nominal


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hbm_latency": 1}, "br100: hbm_latency: is not a field.*hbm_latency_cycles"),
        ({"dies": 1.5}, "br100: dies: value is 1.5, must be a whole number"),
        ({"dies": 0}, "br100: dies: value is 0, must be positive"),
        ({"hbm_efficiency": 1.1}, "hbm_efficiency: value is 1.1, a fraction"),
        ({"clock_ghz": float("nan")}, "clock_ghz: value is nan"),
        ({"formats.f4.k_max": 2}, "formats.f4.k_max: the machine has no such figure"),
        ({"vmcs_per_die": 3}, "vmcs_per_die: must divide spcs_per_die"),
    ],
)
def test_values_that_cannot_be(values, message):
    with pytest.raises(UsageError, match=message):
        load_machine("br100").with_values(values)


def test_an_unknown_format_is_refused_with_the_list():
    with pytest.raises(UsageError, match=r"br100 has no T-core format 'f64' \(one of tf32p, bf16, s8\)"):
        load_machine("br100").peak_macs_per_cycle("f64")


def test_an_unknown_machine_is_refused_with_the_list():
    with pytest.raises(UsageError, match=r"no target 'br1000' \(one of br100, br104"):
        load_machine("br1000")


DIES = 'dies = { value = 2, unit = "count", source = "Chips and Cheese", confidence = "stated" }'
RANGE = "low = 0.80, high = 0.95"  # of hbm_efficiency


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (DIES, "", "mine.toml: dies: is missing"),
        (DIES, "dies = 2", "mine.toml: dies: is not a table"),
        (DIES, DIES.replace("dies", "dice"), "mine.toml: dice: is not a field.*did you mean dies"),
        (DIES, DIES.replace("value = 2", "value = -2"), "dies: value is -2, must be positive"),
        (DIES, DIES.replace("value = 2", "value = 2.0"), "dies: value is 2.0, must be a whole number"),
        (DIES, DIES.replace("value = 2", "value = true"), "dies: value is True, not a number"),
        (DIES, DIES.replace("value = 2", 'value = "2"'), "dies: value is '2', not a number"),
        (DIES, DIES.replace("value = 2,", ""), "dies: has no 'value'"),
        (DIES, DIES.replace('"count"', '"die"'), "dies: unit is 'die', expected 'count'"),
        (DIES, DIES.replace("stated", "sure"), "dies: confidence is 'sure'.*stated, derived, estimated"),
        (DIES, DIES.replace("stated", "estimated"), "dies: is estimated but has no low and high"),
        (DIES, DIES.replace("Chips and Cheese", " "), "dies: has an empty source"),
        (DIES, DIES.replace(" }", ", note = 1 }"), "dies: unknown key 'note'"),
        (RANGE, "low = 0.80", "hbm_efficiency: has only one of low and high"),
        (RANGE, "low = 0.91, high = 0.95", "hbm_efficiency: value 0.9 lies outside"),
        (RANGE, "low = 0.80, high = 1.2", "hbm_efficiency: high is 1.2, a fraction"),
        ("value = 1.0, unit", "value = inf, unit", "clock_ghz: value is inf, must be positive"),
        ("[memory]", "[memory]\n" + DIES, "dies: appears twice, again in section memory"),
        ("[memory]", "[formats]\nf4 = 1\n[memory]", "formats.f4: is not a table"),
        ('name = "br100"', 'name = ""', "mine.toml: name: must be a text"),
        ('vendor = "Biren"', "", "mine.toml: vendor: must be a text"),
        ('vendor = "Biren"', 'vendor = "Biren"\nbase = "br1"', "mine.toml: base: there is no machine 'br1'"),
        ('vendor = "Biren"', 'vendor = "Biren"\nbase = "tiny"', "base: 'tiny' has a base of its own.*br100"),
        ('vendor = "Biren"', 'vendor = "Biren"\nspeed = 3', "mine.toml: speed: is not a section"),
        (
            "k_unit = { value = 32,",
            "k_unit = { value = 33,",
            "formats.bf16.k_max: must be a multiple of k_unit",
        ),
        ("value = 8_388_608", "value = 8_388_607", "spc_sram_bytes: is less than tensor_buffer_bytes"),
        ("value = 4_096", "value = 4_095", "vector_tile_elements: must be 4096"),
        ("granule_bytes = { value = 128", "granule_bytes = { value = 96", "l2_line_bytes: must be a mult"),
        ("[chip]", "[chip", "is not a TOML file"),
    ],
)
def test_bad_descriptions_are_refused_with_the_field(load_changed, old, new, message):
    with pytest.raises(UsageError, match=message):
        load_changed(old, new)


@pytest.mark.parametrize("field", sorted(SCHEMA.names(load_machine("br100").formats)))
def test_every_field_is_required(load_changed, field):
    content = tomllib.loads(BR100)
    key = field.rsplit(".", 1)[-1]
    for table in [*content.values(), *content["formats"].values()]:
        inside = isinstance(table, dict) and key in table
        if inside and (not field.startswith("formats.") or table is content["formats"][field.split(".")[1]]):
            del table[key]
    with pytest.raises(UsageError, match=f"{field}: is missing"):
        load_changed.text(as_toml(content))


def as_toml(content: dict) -> str:
    """TOML text of nested tables; inline tables are written as JSON-like pairs."""
    header = [f"{key} = {json.dumps(value)}" for key, value in content.items() if isinstance(value, str)]
    sections = {key: table for key, table in content.items() if isinstance(table, dict) and key != "formats"}
    sections |= {f"formats.{name}": table for name, table in content.get("formats", {}).items()}
    for name, table in sections.items():
        header.append(f"[{name}]")
        header += [f"{key} = {inline(figure)}" for key, figure in table.items()]
    return "\n".join(header)


def inline(figure: dict) -> str:
    pairs = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in figure.items())
    return f"{{ {', '.join(pairs)} }}"


def test_the_text_form_used_here_is_faithful(load_changed):
    assert load_changed.text(as_toml(tomllib.loads(BR100))) == load_machine("br100")


def test_a_description_of_ones_own(load_changed):
    small = load_changed.text('name = "mine"\nvendor = "me"\nbase = "br100"\n[chip]\n' + DIES.replace("2", "4"))
    assert (small.name, small.dies, small.spcs) == ("mine", 4, 64)
    assert small.formats == load_machine("br100").formats


def test_without_formats_nothing_can_be_multiplied(load_changed):
    content = tomllib.loads(BR100)
    del content["formats"]
    with pytest.raises(UsageError, match="formats: the machine has no T-core format"):
        load_changed.text(as_toml(content))


def test_the_digest_ignores_wording_and_order_but_no_number(load_changed):
    original = load_machine("br100")
    assert load_changed("nothing public; depth of the systolic array", "a guess") == original
    assert load_changed("[latency]", "[delays]") == original
    assert load_changed("low = 400", "low = 401") != original
    assert load_changed('name = "br100"', 'name = "other"') != original


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml: cannot read the machine description"):
        load_machine(tmp_path / "none.toml")


def test_a_machine_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_machine("br100").dies = 3
