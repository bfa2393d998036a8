"""The text form: what is printed reads back to the same text and the same bits; mistakes are placed."""

from __future__ import annotations

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import graphs

from birc.compiler.ir.errors import TextError
from birc.compiler.ir.files import data_path, load_graph, save_graph
from birc.compiler.ir.graph import Constant, Fate, Graph, Node, Value
from birc.compiler.ir.op import OpRow
from birc.compiler.ir.parser import parse_graph
from birc.compiler.ir.printer import external_constants, print_graph
from birc.compiler.ir.table import OPS
from birc.compiler.ir.types import TensorType
from birc.compiler.ir.verify import verify_graph
from birc.runtime.dtypes import DTYPES, dtype
from birc.runtime.errors import BadModelError

F32 = dtype("f32")


def same_bits(a: Graph, b: Graph) -> bool:
    return a.constants.keys() == b.constants.keys() and all(
        a.constants[name].type == b.constants[name].type
        and a.constants[name].data.tobytes() == b.constants[name].data.tobytes()
        and a.constants[name].is_splat == b.constants[name].is_splat
        for name in a.constants
    )


def assert_round_trips(graph: Graph) -> Graph:
    text = print_graph(graph)
    again = parse_graph(text, external_constants(graph))
    assert print_graph(again) == text
    assert same_bits(graph, again)
    return again


def sample_graph(entry: OpRow, at: int) -> Graph:
    """One node over a sample, its arrays as constants."""
    sample = entry.samples[at]
    names = [f"in:{place}" for place in range(len(sample.inputs))]
    constants = {name: Constant.of(array) for name, array in zip(names, sample.arrays(at), strict=True)}
    types = entry.output_types(sample.types, sample.attributes)
    node = Node(entry.name, tuple(names), (Value("y", types[0]),), sample.attributes, (f"{entry.name} node",))
    return Graph(entry.name, (), ("y",), (node,), constants)


@pytest.mark.parametrize("entry", OPS, ids=lambda entry: entry.name)
def test_every_sample_round_trips(entry: OpRow) -> None:
    for at in range(len(entry.samples)):
        graph = sample_graph(entry, at)
        verify_graph(assert_round_trips(graph))


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_random_graphs_round_trip(graph: Graph) -> None:
    verify_graph(assert_round_trips(graph))


ODD_BITS = {
    "f32": np.array([0.1, -0.0, math.inf, -math.inf, 1e-45, 3.4028235e38], np.float32),
    "f64": np.array([0.1, 5e-324, 1.7976931348623157e308]),
    "bf16": np.array([0.1, math.nan, 3e38], ml_dtypes.bfloat16),
    "i64": np.array([-(1 << 63), (1 << 63) - 1]),
    "u64": np.array([0, (1 << 64) - 1], np.uint64),
}


@pytest.mark.parametrize("name", [entry.name for entry in DTYPES])
def test_inline_constants_of_every_type_keep_their_bits(name: str) -> None:
    entry = dtype(name)
    values = np.arange(16).reshape(4, 4) % (2 if entry.kind == "bool" else 7)
    arrays = {
        "matrix": values.astype(entry.numpy),
        "scalar": values[0, 1].astype(entry.numpy),
        "none": np.zeros((0, 3), entry.numpy),
        "odd": ODD_BITS.get(name, np.zeros(1, entry.numpy)),
    }
    constants = {key: Constant.of(np.asarray(array)) for key, array in arrays.items()}
    constants["all"] = Constant.splat(1, TensorType(entry, (100, 100)))
    graph = Graph("constants", (), (), (), constants)
    assert not external_constants(graph)
    assert_round_trips(graph)


@given(st.binary(min_size=4, max_size=4))
def test_every_bit_pattern_of_f32_survives(pattern: bytes) -> None:
    data = np.frombuffer(pattern, np.float32).reshape(())
    assert_round_trips(Graph("bits", (), (), (), {"x": Constant.of(data)}))


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_any_name_survives(value: str, source: str, symbol: str) -> None:
    tensor = TensorType(F32, (symbol, 2))
    node = Node("neg", (value,), (Value(f"{value}'", tensor),), {}, (source,))
    fates = (Fate(f"{source}'", "merged", symbol, value),)
    graph = Graph(source, (Value(value, tensor),), (value,), (node,), {}, fates)
    again = assert_round_trips(graph)
    assert again.name == source
    assert again.inputs == graph.inputs
    assert again.nodes[0].sources == (source,)
    assert again.fates == fates


def test_text_looks_as_documented() -> None:
    x = Value("x", TensorType(F32, (1, "N"), (1, 0)))
    body = Graph("pair", (Value("a", x.type),), ("b",), (Node("neg", ("a",), (Value("b", x.type),)),))
    nodes = (
        Node("group", ("x",), (Value("/y:0", x.type),), {"kind": "pair"}, ("neg 1", "neg2"), body),
        Node("clip", ("/y:0",), (Value("z", x.type),), {"minimum": -1.0, "maximum": math.inf}),
    )
    constants = {
        "w": Constant.of(np.zeros((3, 9), np.float32)),
        "one": Constant.of(np.array(1, np.float32)),
        "two": Constant.splat(2, TensorType(F32, (3, 9))),
        "list": Constant.of(np.array([[True, False]])),
    }
    fates = (Fate("dropout1", "removed", "canonicalize"), Fate("c", "merged", "fuse", "z"))
    graph = Graph("a net", (x,), ("z",), nodes, constants, fates)
    assert print_graph(graph) == (
        'graph "a net" {\n'
        "  input %x : f32[1,N]{1,0}\n"
        "  const %w : f32[3,9] = external\n"
        "  const %one : f32[] = 1.0\n"
        "  const %two : f32[3,9] = splat(2.0)\n"
        "  const %list : bool[1,2] = [true, false]\n"
        '  %/y:0 : f32[1,N]{1,0} = group(%x) {kind = "pair"} from "neg 1" "neg2" {\n'
        "    input %a : f32[1,N]{1,0}\n"
        "    %b : f32[1,N]{1,0} = neg(%a)\n"
        "    output %b\n"
        "  }\n"
        "  %z : f32[1,N]{1,0} = clip(%/y:0) {minimum = -1.0, maximum = inf}\n"
        "  output %z\n"
        '  fate "dropout1" removed by canonicalize\n'
        '  fate "c" merged by fuse into %z\n'
        "}\n"
    )
    assert_round_trips(graph)


def test_files_round_trip(tmp_path: Path) -> None:
    """Also elements that safetensors does not know (4 bits), and views that are not contiguous."""
    arrays = {
        "w": np.arange(60, dtype=np.float32).reshape(5, 12).T,
        "b": np.arange(20).astype(ml_dtypes.bfloat16),
        "q": np.arange(20).astype(ml_dtypes.int4),
    }
    graph = Graph("saved", (), (), (), {name: Constant.of(array) for name, array in arrays.items()})
    path = tmp_path / "net.ir"
    save_graph(graph, path)
    again = load_graph(path)
    assert print_graph(again) == print_graph(graph)
    assert same_bits(graph, again)
    save_graph(Graph("saved", (), (), ()), path)
    assert not data_path(path).exists()
    assert load_graph(path).constants == {}


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelError, match="cannot be read"):
        load_graph(tmp_path / "absent.ir")
    (tmp_path / "net.ir").write_text('graph "g" {}')
    (tmp_path / "net.safetensors").write_bytes(b"nonsense")
    with pytest.raises(BadModelError, match="cannot be read"):
        load_graph(tmp_path / "net.ir")


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "1:1", "expected 'graph', found 'the end'"),
        ('graph "g" {', "1:12", "expected a statement"),
        ('graph "g" {}\ninput', "2:1", "expected the end of the text"),
        ('graph "g" {\n  input %x f32[]\n}', "2:12", "expected ':', found 'f32'"),
        ('graph "g" {\n  input %x : f31[]\n}', "2:14", "expected an element type"),
        ('graph "g" {\n  input %x : f32[1,,2]\n}', "2:20", "expected a size or a symbol"),
        ('graph "g" {\n  input %x : f32[1 2]\n}', "2:20", r"expected ',' or '\]'"),
        ('graph "g" {\n  input %x : f32[1,2]{0}\n}', "2:14", "layout .* does not order"),
        ('graph "g" {\n  input %x : f32[1.5]\n}', "2:18", "expected a size or a symbol"),
        ('graph "g" {\n # a note\n  const %x : i8[2] = [1, 300]}', "3:26", "expected an element of type i8"),
        ('graph "g" {\n  const %x : i8[2] = [1]\n}', "2:22", "expected 2 elements"),
        ('graph "g" {\n  const %x : i8[N] = [1]\n}', "2:9", "expected a type without symbols"),
        ('graph "g" {\n  const %x : i8[2] = external\n}', "2:22", "there is none"),
        ('graph "g" {\n  const %x : i8[] = 1 const %x : i8[] = 1\n}', "2:29", "expected a new name"),
        ('graph "g" {\n  %y : f32[] = neg(x)\n}', "2:20", "expected a value or '_'"),
        ('graph "g" {\n  %y : f32[] = clip(%x) {a = f}\n}', "2:30", "expected a number, a string, a list"),
        ('graph "g" {\n  fate "a" lost by p\n}', "2:12", "expected folded or merged or removed"),
        ('graph "g" {\n  ?\n}', "2:3", r"unexpected character '\?'"),
        ('graph "g\\q" {}', "1:7", "is not a string"),
    ],
)
def test_mistakes_are_placed(text: str, place: str, message: str) -> None:
    with pytest.raises(TextError, match=message) as caught:
        parse_graph(text, file="net.ir")
    assert caught.value.where == f"net.ir:{place}"


@given(graphs(), st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_text_ends_in_our_error(graph: Graph, data: st.DataObject) -> None:
    text = print_graph(graph)
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.sampled_from(["", "%", '"', "{", "1", "x", "["])) + text[at + 1 :]
    try:
        parse_graph(damaged, external_constants(graph))
    except TextError as error:
        assert error.where is not None
