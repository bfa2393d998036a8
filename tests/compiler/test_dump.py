"""Dumps: every text reads back, constants are stored once, and a compilation goes on from any text."""

from __future__ import annotations

import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from graph_maker import GraphMaker
from machines import with_quick_link
from networks import exported_network
from plan_stages import plan_stages
from safetensors import safe_open

from birc.codegen.program_code import generate
from birc.compiler.driver import Compilation, compile_model, resume
from birc.compiler.dump import CONSTANTS_FILE, DumpWriter, load_dump
from birc.compiler.dump_constants import ConstantsFile, is_constants_file, load_constants
from birc.compiler.ir.errors import TextError
from birc.compiler.ir.graph import Graph
from birc.compiler.ir.plan import Plan
from birc.compiler.ir.printer import external_constants, print_graph
from birc.runtime.assembly import program_text
from birc.runtime.errors import BadModelError, InternalError, UsageError
from birc.runtime.machine import load_machine
from birc.runtime.program import Program


def small_graph() -> Graph:
    make = GraphMaker()
    x = make.input(2, 32)
    return make.graph(make("add", make("mul", x, make.random(2, 32)), make.constant(1.0)))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_every_text_reads_back(tmp_path: Path) -> None:
    stages = plan_stages("gpt2", "tiny")
    generated = generate(stages.plans["allocate"], load_machine("tiny"))
    program = generated.program
    writer = DumpWriter(tmp_path / "texts")
    writer.graph(3, "fuse", stages.graph)
    for number, (phase, plan) in enumerate(stages.plans.items(), 4):
        writer.plan(number, phase, plan, stages.data)
    writer.program(13, "codegen", program, generated.with_parts(stages.data))
    names = sorted(path.name for path in (tmp_path / "texts").iterdir())
    plans = ["04_partition.plan", "05_tile.plan", "06_schedule.plan", "07_allocate.plan"]
    assert names == ["03_fuse.ir", *plans, "13_codegen.asm", CONSTANTS_FILE]

    graph = load_dump(tmp_path / "texts" / "03_fuse.ir")
    assert (graph.level, graph.phase, graph.step) == ("graph", "fuse", "")
    assert isinstance(graph.content, Graph)
    assert print_graph(graph.content) == print_graph(stages.graph)
    external = external_constants(stages.graph)
    assert graph.constants.keys() == external.keys()
    assert all(same(graph.content.constants[name].data, array) for name, array in external.items())

    for name, (phase, plan) in zip(plans, stages.plans.items(), strict=True):
        loaded = load_dump(tmp_path / "texts" / name)
        assert (loaded.level, loaded.phase, loaded.content) == ("plan", phase, plan)
        assert loaded.constants.keys() == stages.data.keys() | generated.parts.keys()
        assert all(same(loaded.constants[key], np.asarray(array)) for key, array in stages.data.items())

    assembly = load_dump(tmp_path / "texts" / "13_codegen.asm")
    assert (assembly.level, assembly.phase) == ("program", "codegen")
    assert isinstance(assembly.content, Program)
    assert program_text(assembly.content) == program_text(program)  # immediates are FP32 there
    assert assembly.constants.keys() == stages.data.keys() | generated.parts.keys()
    assert generated.parts
    for key, part in generated.parts.items():
        assert assembly.constants[key].size < stages.data[part.buffer].size


def test_compiling_goes_on_from_every_phase(tmp_path: Path) -> None:
    """And a program that is compiled from a text is the one that came of the model."""
    package = compile_model(exported_network("gpt2").model, target="tiny", dump_ir=tmp_path)
    assert package is not None
    texts = sorted(path for path in tmp_path.iterdir() if path.suffix in (".ir", ".plan"))
    whole = [path for path in texts if not load_dump(path).step]
    phases = [load_dump(path).phase for path in whole]
    assert phases == [
        "import",
        "canonicalize",
        "legalize",
        "fuse",
        "partition",
        "tile",
        "schedule",
        "allocate",
    ]
    for path in whole[::3]:
        again = resume(path, target="tiny")
        assert again is not None
        assert again.program == package.program, path.name


def test_a_plan_with_divided_constants_gives_the_same_package(tmp_path: Path) -> None:
    """Program and weights are the same bytes, whichever text of the plan they come from."""
    machine = with_quick_link("tiny")
    make = GraphMaker()
    x = make.input(4, 192)
    for _ in range(2):
        x = make("tanh", make("matmul", x, make.random(192, 193)))
        x = make("slice", x, starts=(0, 0), ends=(4, 192), steps=(1, 1))
    graph = make.graph(make("neg", x))
    compilation = Compilation(machine, dump=DumpWriter(tmp_path / "texts"))
    compiled = compilation.compile_graph(graph, "import")
    assert compiled is not None
    assert sum(key.endswith((".0", ".1")) for key in compiled.part.weights) == 4
    texts = sorted((tmp_path / "texts").glob("*.plan"))
    assert [path.suffixes for path in texts] == [[".plan"]] * 4
    for path in texts:
        dump = load_dump(path)
        assert isinstance(dump.content, Plan)
        again = Compilation(machine).compile_plan(dump.content, dump.constants, dump.phase)
        assert again is not None
        assert again.part.program == compiled.part.program
        assert again.part.weights.keys() == compiled.part.weights.keys()
        assert all(same(again.part.weights[key], array) for key, array in compiled.part.weights.items())


def test_a_package_from_a_plan_has_the_members_of_the_first(tmp_path: Path) -> None:
    """All but the manifest, which names the passes that were run."""
    package = compile_model(exported_network("gpt2").model, target="tiny", dump_ir=tmp_path / "texts")
    assert package is not None
    package.save(tmp_path / "first.birc")
    (text,) = (tmp_path / "texts").glob("*_allocate.plan")
    again = resume(text, target="tiny")
    assert again is not None
    again.save(tmp_path / "again.birc")
    with zipfile.ZipFile(tmp_path / "first.birc") as first, zipfile.ZipFile(tmp_path / "again.birc") as other:
        assert first.namelist() == other.namelist()
        for name in set(first.namelist()) - {"manifest.json"}:
            assert first.read(name) == other.read(name), name


def test_a_pass_within_a_phase_has_its_name(tmp_path: Path) -> None:
    DumpWriter(tmp_path).graph(2, "canonicalize.fold_constants", small_graph())
    loaded = load_dump(tmp_path / "02_canonicalize.fold_constants.ir")
    assert (loaded.phase, loaded.step) == ("canonicalize", "fold_constants")


@pytest.mark.parametrize("name", ["", "Fuse", "a/b", "../fuse", "fuse ir"])
def test_names_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InternalError, match="cannot be called"):
        DumpWriter(tmp_path).graph(0, name, small_graph())


def test_constants_are_stored_once_for_all_texts(tmp_path: Path) -> None:
    graph = small_graph()
    (name,) = external_constants(graph)
    writer = DumpWriter(tmp_path)
    writer.graph(0, "import", graph)
    size = (tmp_path / CONSTANTS_FILE).stat().st_size
    writer.graph(1, "canonicalize", graph)
    copy = graph.replace(constants={k: type(c)(c.type, c.data.copy()) for k, c in graph.constants.items()})
    writer.graph(2, "legalize", copy)
    assert (tmp_path / CONSTANTS_FILE).stat().st_size == size
    with safe_open(tmp_path / CONSTANTS_FILE, framework="numpy") as file:
        assert same(file.get_tensor(f"graph/{name}"), graph.constants[name].data)


def test_other_data_under_a_name_is_an_error(tmp_path: Path) -> None:
    plan = plan_stages("gpt2", "tiny").plans["tile"]
    writer = DumpWriter(tmp_path)
    writer.plan(0, "tile", plan, {"w": np.arange(4.0)})
    writer.plan(1, "schedule", plan, {"w": np.arange(4.0)})
    with pytest.raises(InternalError, match="plan/w: the constant has other data"):
        writer.plan(2, "allocate", plan, {"w": np.arange(1.0, 5.0)})
    with pytest.raises(InternalError, match=r"plan/w: the constant was float64\[4\] .* and is float32\[4\]"):
        writer.plan(2, "allocate", plan, {"w": np.arange(4.0, dtype=np.float32)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00_tile.plan",
        "01_schedule.plan",
        CONSTANTS_FILE,
    ]


def arrays_of_all_kinds() -> dict[str, np.ndarray]:
    values = np.arange(12).reshape(3, 4) % 2
    types = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
    kinds = {f"numpy/{name}": values.astype(name) for name in types}
    packed = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"]
    kinds |= {f"packed/{name}": values.astype(getattr(ml_dtypes, name)) for name in packed}
    kinds["transposed"] = np.arange(6.0).reshape(2, 3).T
    kinds["repeated"] = np.broadcast_to(np.float32(2.5), (5, 7))
    kinds["empty"] = np.zeros((0, 3), np.float32)
    kinds["scalar"] = np.array(3, np.int64)
    kinds['a "name" with \n signs, and ümlauts'] = np.ones(3, np.float32)
    return kinds


def test_arrays_of_all_kinds_keep_their_bits(tmp_path: Path) -> None:
    path = tmp_path / CONSTANTS_FILE
    arrays = arrays_of_all_kinds()
    file = ConstantsFile(path)
    for name, array in arrays.items():  # one by one: the file is complete after each
        file.add({name: array})
    loaded = load_constants(path)
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert same(loaded[name], array), name
        assert loaded[name].flags.aligned


def test_the_header_grows_when_its_room_is_used_up(tmp_path: Path) -> None:
    path = tmp_path / CONSTANTS_FILE
    file = ConstantsFile(path)
    arrays = {f"{'long ' * 50}{number}": np.full(3, number, np.int32) for number in range(700)}
    for first in range(0, 700, 100):
        file.add(dict(list(arrays.items())[first : first + 100]))
    loaded = load_constants(path)
    assert all(same(loaded[name], array) for name, array in arrays.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONSTANTS_FILE]
    with safe_open(path, framework="numpy") as opened:
        assert arrays.keys() <= set(opened.keys())


def test_an_empty_file_is_complete_and_ours(tmp_path: Path) -> None:
    ConstantsFile(tmp_path / CONSTANTS_FILE)
    assert load_constants(tmp_path / CONSTANTS_FILE) == {}
    assert is_constants_file(tmp_path / CONSTANTS_FILE)


def test_a_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "thesis.txt"
    other.write_text("years of work")
    with pytest.raises(UsageError, match=r"holds other files \(thesis.txt\)"):
        DumpWriter(tmp_path)
    DumpWriter(tmp_path, overwrite=True).graph(0, "import", small_graph())
    assert other.read_text() == "years of work"
    assert (tmp_path / "00_import.ir").exists()


def test_an_earlier_dump_gives_way(tmp_path: Path) -> None:
    writer = DumpWriter(tmp_path / "deep" / "texts")
    writer.graph(0, "import", small_graph())
    writer.graph(7, "canonicalize", small_graph())
    kept = tmp_path / "deep" / "texts" / "notes.txt"
    kept.write_text("mine")
    again = DumpWriter(tmp_path / "deep" / "texts")
    again.graph(1, "fuse", small_graph())
    assert sorted(p.name for p in kept.parent.iterdir()) == ["01_fuse.ir", CONSTANTS_FILE, "notes.txt"]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is no directory for a dump"):
        DumpWriter(tmp_path / "file")


@pytest.mark.parametrize("name", ["net.onnx", "fuse.ir", "03_fuse.txt", "3_fuse.ir"])
def test_other_files_are_no_dumps(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("graph")
    with pytest.raises(UsageError, match="is no dumped text"):
        load_dump(tmp_path / name)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelError, match="cannot be read"):
        load_dump(tmp_path / "00_import.ir")
    (tmp_path / "00_import.ir").write_bytes(b"\xff\xfe")
    with pytest.raises(BadModelError, match="cannot be read"):
        load_dump(tmp_path / "00_import.ir")


@pytest.mark.parametrize(
    ("name", "text", "error", "what"),
    [
        ("00_import.ir", "graph 3", TextError, r"00_import.ir:1:7: expected a string"),
        ("00_tile.plan", 'plan "p"\non 3', TextError, r"00_tile.plan:2:4: expected a word, found '3'"),
        ("00_codegen.asm", "program 3", BadModelError, "00_codegen.asm:1:9: expected a text"),
    ],
)
def test_mistakes_in_a_text_are_placed(tmp_path: Path, name: str, text: str, error: type[Exception], what: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=what):
        load_dump(tmp_path / name)


def test_a_graph_needs_its_constants(tmp_path: Path) -> None:
    DumpWriter(tmp_path).graph(0, "import", small_graph())
    (tmp_path / CONSTANTS_FILE).unlink()
    with pytest.raises(TextError, match="data for %c0 beside the text"):
        load_dump(tmp_path / "00_import.ir")


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0[]", b"\x01\0\0\0\0\0\0\0{"])
def test_damaged_constants_are_refused(tmp_path: Path, damage: bytes) -> None:
    DumpWriter(tmp_path).graph(0, "import", small_graph())
    (tmp_path / CONSTANTS_FILE).write_bytes(damage)
    assert not is_constants_file(tmp_path / CONSTANTS_FILE)
    with pytest.raises(BadModelError):
        load_dump(tmp_path / "00_import.ir")


def test_cut_constants_are_refused(tmp_path: Path) -> None:
    DumpWriter(tmp_path).graph(0, "import", small_graph())
    path = tmp_path / CONSTANTS_FILE
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadModelError, match="the tensors end at"):
        load_dump(tmp_path / "00_import.ir")
