"""Bad models whose fault is the file, its bytes, or the structure of the graph."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import onnx
from bad_model import FLOAT, HUGE, INT64, BadModel, Make, changed, model_of, node, value, written
from onnx import helper


def honest() -> bytes:
    return model_of([node("Relu")], outputs=[value("y")]).SerializeToString()


def _socket(folder: Path) -> None:
    """The path of a socket is short, so that it is bound from inside the folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("model.onnx")
    finally:
        os.chdir(before)


def _sparse_file(folder: Path) -> None:
    with (folder / "model.onnx").open("wb") as file:
        file.truncate(2**40)


def _loop_of_links(folder: Path) -> None:
    (folder / "model.onnx").symlink_to("other.onnx")
    (folder / "other.onnx").symlink_to("model.onnx")


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    head = bytearray()
    while number > 127:
        head.append(number & 127 | 128)
        number >>= 7
    return bytes([*head, number])


def _nested(depth: int) -> bytes:
    """Graphs inside of nodes inside of graphs, as bytes: no library writes so many."""
    graph = b""
    for _ in range(depth):
        graph = _field(1, _field(4, b"If") + _field(5, _field(1, b"then_branch") + _field(6, graph)))
    return honest() + _field(7, graph)


def _nested_types(depth: int) -> bytes:
    kind = b""
    for _ in range(depth):
        kind = _field(4, _field(1, kind))
    return honest() + _field(7, _field(11, _field(1, b"x2") + _field(2, kind)))


def _mutated(seed: int) -> bytes:
    content, chance = bytearray(honest()), random.Random(seed)
    for _ in range(8):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


def _text(folder: Path) -> None:
    (folder / "model.onnx").write_text("import torch\n")


FILES: tuple[BadModel, ...] = (
    BadModel("file_missing", lambda folder: None, ("no such file",)),
    BadModel("file_folder", lambda folder: (folder / "model.onnx").mkdir(), ("folder",)),
    BadModel("file_pipe", lambda folder: os.mkfifo(folder / "model.onnx"), ("pipe",)),
    BadModel("file_socket", _socket, ("socket",)),
    BadModel("file_device", lambda folder: (folder / "model.onnx").symlink_to("/dev/zero"), ("device",)),
    BadModel("file_null", lambda folder: (folder / "model.onnx").symlink_to("/dev/null"), ("device",)),
    BadModel("file_loop_of_links", _loop_of_links, ("model.onnx",)),
    BadModel("file_sparse_terabyte", _sparse_file, (str(2**40), "at most")),
    BadModel("file_empty", written(b""), ("empty",)),
    BadModel("file_text", _text, ("not an ONNX model",)),
    BadModel("file_zeros", written(bytes(100_000)), ("not an ONNX model",)),
    BadModel("file_ones", written(b"\xff" * 100_000), ("not an ONNX model",)),
    BadModel("file_cut", written(honest()[:-9]), ("not an ONNX model",)),
    BadModel("file_length_beyond_end", written(b"\x3a\xff\xff\xff\xff\x07"), ("not an ONNX model",)),
    BadModel("file_endless_varint", written(b"\x08" + b"\xff" * 1000), ("not an ONNX model",)),
    BadModel("file_group", written(b"\x0b" * 50_000), ("not an ONNX model",)),
    BadModel("file_many_empty_nodes", written(_field(7, b"\x0a\x00" * 4_900_000)), ("fields", "bytes of memory")),
    BadModel("file_many_empty_tensors", written(_field(7, b"\x2a\x00" * 4_900_000)), ("fields", "bytes of memory")),
    BadModel("file_many_small_nodes", written(_field(7, b"\x0a\x02\x32\x00" * 2_400_000)), ("fields",)),
    BadModel("file_many_functions", written(honest() + b"\xca\x01\x00" * 3_300_000), ("fields",)),
    BadModel("file_many_nodes", written(_field(7, b"\x0a\x00" * 900_000)), ("not an ONNX model",)),
    BadModel("file_10000_graphs_deep", written(_nested(10_000)), ("do not decode",)),
    BadModel("file_30_graphs_deep", written(_nested(30)), ("graph",)),
    BadModel("file_10000_types_deep", written(_nested_types(10_000)), ("do not decode",)),
    BadModel("file_40_types_deep", written(_nested_types(40)), ("deep", "'x2'"), (0, 3, 4)),
    *(BadModel(f"file_mutated_{seed}", written(_mutated(seed)), (), (0, 3, 4)) for seed in range(8)),
)


def _drop(field: str) -> Make:
    return changed(lambda model: model.ClearField(field))


def _attribute(attribute: onnx.AttributeProto, op: str = "Softmax") -> Make:
    made = node(op)
    made.attribute.append(attribute)
    return written(model_of([made], outputs=[value("y")]))


def _function(name: str, *calls: str, repeat: int = 1) -> onnx.FunctionProto:
    """A function that calls others in turn."""
    nodes, last = [], "a"
    for place, call in enumerate(calls * repeat):
        nodes.append(onnx.NodeProto(op_type=call, domain="local", input=[last], output=[f"b{place}"]))
        last = f"b{place}"
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    return onnx.FunctionProto(name=name, domain="local", input=["a"], output=[last], node=nodes, opset_import=opsets)


def _calling(*functions: onnx.FunctionProto) -> Make:
    return written(model_of([node("f0", domain="local")], outputs=[value("y")], functions=functions))


def _laughs() -> Make:
    """Each function calls the next ten times."""
    functions = [_function(f"f{place}", f"f{place + 1}", repeat=10) for place in range(12)]
    last = onnx.FunctionProto(name="f12", domain="local", input=["a"], output=["b"],
                              opset_import=[helper.make_opsetid("", 18)])  # fmt: skip
    last.node.add(op_type="Relu", input=["a"], output=["b"])
    return _calling(*functions, last)


def _invalid_utf8(field: str) -> Make:
    marker = b"MARKER"
    model = model_of([node("Relu")], outputs=[value("y")])
    if field == "node":
        model.graph.node[0].name = "MARKER"
    elif field == "input":
        model.graph.node[0].input[0] = "MARKER"
    elif field == "op_type":
        model.graph.node[0].op_type = "MARKER"
    elif field == "initializer":
        model.graph.initializer.add(name="MARKER", data_type=FLOAT)
    else:
        model.opset_import[1].domain = "MARKER"
    return written(model.SerializeToString().replace(marker, b"\xff\xfe\xfd\xfc\x80\x80"))


def _named(name: str) -> Make:
    return written(model_of([helper.make_node("NoSuchOp", ["x"], ["y"], name=name)]))


STRUCTURES: tuple[BadModel, ...] = (
    BadModel("graph_missing", _drop("graph"), ("graph",)),
    BadModel("opset_missing", _drop("opset_import"), ("operator set",)),
    BadModel("ir_version_missing", _drop("ir_version"), ("IR version",)),
    BadModel("ir_version_absurd", changed(lambda m: setattr(m, "ir_version", HUGE)), ("model",)),
    BadModel("ir_version_negative", changed(lambda m: setattr(m, "ir_version", -1)), ("model",)),
    BadModel("opset_zero", changed(lambda m: None, opset=0), ("operator set 0",)),
    BadModel("opset_negative", changed(lambda m: None, opset=-3), ("operator set -3",)),
    BadModel("opset_absurd", changed(lambda m: None, opset=HUGE), (f"operator set {HUGE}",)),
    BadModel("opset_twice", changed(lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 12))), ("12", "18")),
    BadModel("no_outputs", changed(lambda m: m.graph.ClearField("output")), ("no outputs",)),
    BadModel("no_nodes", changed(lambda m: m.graph.ClearField("node")), ("'y'", "no node")),
    BadModel("input_without_name", changed(lambda m: m.graph.input.add()), ("input 1",)),
    BadModel("input_twice", changed(lambda m: m.graph.input.append(value("x"))), ("'x'", "twice")),
    BadModel("input_without_type", changed(lambda m: m.graph.input[0].ClearField("type")), ("x",)),
    BadModel("input_without_shape", written(model_of([node("Relu")], [value("x", None)], [value("y")])), ("'x'",)),
    BadModel("input_of_unknown_type", changed(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99)),
             ("'x'", "99")),
    BadModel("input_negative_size", written(model_of([node("Relu")], [value("x", (2, -3))], [value("y")])),
             ("'x'", "-3")),
    BadModel("input_beyond_int64", written(model_of([node("Relu")], [value("x", (2**40, 2**40))], [value("y")])),
             ("'x'", "2^63")),
    BadModel("input_beyond_machines", written(model_of([node("Relu")], [value("x", (2**20, 2**22))], [value("y")])),
             ("'x'", "limit")),
    BadModel("input_of_80_dimensions", written(model_of([node("Relu")], [value("x", (1,) * 80)], [value("y", None)])),
             ("'x'", "80", "64")),
    BadModel("output_unknown", changed(lambda m: m.graph.output.append(value("z"))), ("'z'",)),
    BadModel("output_without_name", changed(lambda m: m.graph.output.add()), ("output 1",)),
    BadModel("output_defined_twice", changed(lambda m: m.graph.node.append(node("Neg"))), ("'y'", "twice")),
    BadModel("output_is_initializer",
             changed(lambda m: m.graph.initializer.append(helper.make_tensor("y", 1, [1], [1.0]))), ("'y'", "twice")),
    BadModel("initializer_twice",
             changed(lambda m: m.graph.initializer.extend([helper.make_tensor("w", 1, [1], [1.0])] * 2)),
             ("'w'", "twice")),
    BadModel("node_without_op_type", changed(lambda m: m.graph.node[0].ClearField("op_type")), ("op_type",)),
    BadModel("node_reads_nothing_known", changed(lambda m: m.graph.node[0].input.__setitem__(0, "nowhere")),
             ("the_Relu", "'nowhere'")),
    BadModel("node_reads_itself", changed(lambda m: m.graph.node[0].input.__setitem__(0, "y")), ("the_Relu", "'y'")),
    BadModel("node_without_inputs", changed(lambda m: m.graph.node[0].ClearField("input")), ("the_Relu",)),
    BadModel("node_with_900_inputs", changed(lambda m: m.graph.node[0].input.extend(["x"] * 900)), ("the_Relu",)),
    BadModel("node_with_900_outputs",
             changed(lambda m: m.graph.node[0].output.extend(f"o{place}" for place in range(900))), ("the_Relu",)),
    BadModel("cycle", written(model_of([node("Neg", ["b"], ["a"]), node("Abs", ["a"], ["b"])], outputs=["b"])),
             ("the_Neg", "'b'", "cycle")),
    BadModel("unsorted", written(model_of([node("Neg", ["b"], ["y"]), node("Abs", ["x"], ["b"])])),
             ("the_Neg", "the_Abs")),
    BadModel("attribute_without_name", _attribute(onnx.AttributeProto(type=2, i=1)), ("the_Softmax", "no name")),
    BadModel("attribute_of_no_kind", _attribute(onnx.AttributeProto(name="axis", i=1)), ("the_Softmax", "'axis'")),
    BadModel("attribute_of_unknown_kind", written(
        model_of([node("Softmax", axis=1)], outputs=[value("y")]).SerializeToString().replace(
            b"\xa0\x01\x02", b"\xa0\x01\x63")), ("the_Softmax", "'axis'")),
    BadModel("attribute_of_other_kind", _attribute(onnx.AttributeProto(name="axis", type=1, f=1.0)),
             ("the_Softmax", "axis")),
    BadModel("attribute_graph_for_int", _attribute(helper.make_attribute("axis", model_of([node("Relu")]).graph)),
             ("the_Softmax",)),
    BadModel("attribute_kind_and_field_differ", _attribute(onnx.AttributeProto(name="axis", type=2, f=1.0)),
             ("the_Softmax", "'axis'", "holds f")),
    BadModel("attribute_twice", changed(lambda m: m.graph.node[0].attribute.extend(
        [helper.make_attribute("a", 1)] * 2)), ("the_Relu", "'a'", "twice")),
    BadModel("attribute_unknown", _attribute(helper.make_attribute("frobnicate", 1)), ("the_Softmax", "frobnicate")),
    BadModel("attribute_reference_outside", _attribute(onnx.AttributeProto(name="axis", type=2, ref_attr_name="k")),
             ("the_Softmax",)),
    BadModel("domain_unknown", written(model_of([node("Magic", domain="nowhere")], outputs=[value("y")])),
             ("the_Magic", "nowhere")),
    BadModel("operator_unknown", written(model_of([node("NoSuchOp")], outputs=[value("y")])), ("the_NoSuchOp",)),
    BadModel("operator_newer", written(model_of([node("Gelu")], outputs=[value("y")], opset=9)), ("the_Gelu",)),
    BadModel("function_calls_itself", _calling(_function("f0", "f0")), ("f0",)),
    BadModel("functions_call_each_other", _calling(_function("f0", "f1"), _function("f1", "f0")), ("f0 -> f1",)),
    BadModel("functions_billion_laughs", _laughs(), ("stand for",)),
    BadModel("functions_100_deep", _calling(*(_function(f"f{n}", f"f{n + 1}") for n in range(100)), _function("f100")),
             ("deep",)),
    BadModel("function_without_name", changed(lambda m: m.functions.append(_function("", "f1"))), ("function",)),
    BadModel("function_twice", changed(lambda m: m.functions.extend([_function("f0", "g")] * 2)), ("f0",)),
    BadModel("function_output_unknown", changed(lambda m: m.functions.append(
        onnx.FunctionProto(name="f0", domain="local", output=["z"]))), ("'f0'", "'z'")),
    BadModel("function_with_too_many_arguments", _calling(_function("f0", "f1"), _function("f1")), ("f1",), (0, 3, 4)),
    *(BadModel(f"utf8_{field}", _invalid_utf8(field), ("UTF-8",))
      for field in ("node", "input", "op_type", "initializer", "domain")),
    BadModel("name_with_line_breaks", _named("a\nb\x1b[31m\r"), ("NoSuchOp",)),
    BadModel("name_of_a_megabyte", _named("n" * 2**20), ("nnnn",)),
    BadModel("value_info_negative", changed(lambda m: m.graph.value_info.append(value("q", (-5,), INT64))),
             ("'q'", "-5")),
)  # fmt: skip
