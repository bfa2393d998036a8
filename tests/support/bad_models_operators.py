"""Bad models whose fault is an operator: attributes, operands and sizes that it cannot have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from bad_model import BOOL, FLOAT, HUGE, INT64, BadModel, Make, model_of, node, one, value, written
from onnx import helper

IMAGE = (1, 4, 8, 8)
KERNEL = np.ones((4, 4, 3, 3), np.float32)
LEAST = -(2**63)


def conv(known: Mapping[str, Any] | None = None, shape: Sequence[int] = IMAGE, **attributes: Any) -> Make:
    return one("Conv", ("x", "w"), shape, known=known or {"w": KERNEL}, **attributes)


def pool(op: str = "MaxPool", **attributes: Any) -> Make:
    return one(op, shape=IMAGE, **{"kernel_shape": [2, 2], **attributes})


def sized(op: str, *numbers: int, shape: Sequence[int] = (2, 3), kind: int = FLOAT, **attributes: Any) -> Make:
    """x, and a list of integers."""
    return one(op, ("x", "n"), shape, kind, {"n": np.array(numbers, np.int64)}, **attributes)


def sliced(start: int, end: int, axis: int = 0, step: int = 1) -> Make:
    known = {"s": [start], "e": [end], "a": [axis], "t": [step]}
    return one("Slice", ("x", "s", "e", "a", "t"), known=known)


def arithmetic(op: str, a: Any, b: Any, **attributes: Any) -> Make:
    """Two constants meet; the result is added to an input."""
    known = {"a": np.asarray(a), "b": np.asarray(b)}
    kind = helper.np_dtype_to_tensor_dtype(known["a"].dtype)
    nodes = [node(op, ("a", "b"), ("c",), **attributes), node("Add", ("x", "c"))]
    return written(model_of(nodes, [value("x", (2, 3), kind)], known=known))


def counted(start: int, limit: int, delta: int) -> Make:
    known = {"a": np.int64(start), "b": np.int64(limit), "c": np.int64(delta)}
    return one("Range", ("a", "b", "c"), known=known)


def recurrent(op: str, gates: int, hidden: int, **attributes: Any) -> Make:
    known = {"w": np.ones((1, gates * 4, 3), np.float32), "r": np.ones((1, gates * 4, 4), np.float32)}
    return one(op, ("x", "w", "r"), (2, 1, 3), known=known, hidden_size=hidden, **attributes)


def axis(op: str, number: int, **attributes: Any) -> BadModel:
    return BadModel(f"axis_{op}_{number}", one(op, axis=number, **attributes), (f"the_{op}",))


HONEST_OR_REFUSED = (0, 3, 4)

OPERATORS: tuple[BadModel, ...] = (
    *(axis(op, number) for op in ("Softmax", "Flatten", "LayerNormalization", "ArgMax", "Hardmax", "LogSoftmax")
      for number in (7, -9) if op != "LayerNormalization"),
    axis("Softmax", HUGE), axis("Softmax", LEAST), axis("Concat", 5), axis("Split", 4, num_outputs=1),
    BadModel("axis_LayerNormalization", one("LayerNormalization", ("x", "s"), known={"s": np.ones(3, np.float32)},
             axis=2**31), ("the_LayerNormalization", "axis")),
    BadModel("axis_LayerNormalization_9", one("LayerNormalization", ("x", "s"), known={"s": np.ones(3, np.float32)},
             axis=9), ("the_LayerNormalization",)),
    BadModel("axis_Transpose", one("Transpose", perm=[0, 0]), ("the_Transpose",)),
    BadModel("axis_Transpose_few", one("Transpose", perm=[0]), ("the_Transpose",)),
    BadModel("axis_Transpose_huge", one("Transpose", perm=[0, 2**31 - 1]), ("the_Transpose",)),
    BadModel("axis_ReduceSum", sized("ReduceSum", 9), ("the_ReduceSum",)),
    BadModel("axis_ReduceSum_twice", sized("ReduceSum", 1, 1), ("the_ReduceSum",)),
    BadModel("axis_Squeeze", sized("Squeeze", 0), ("the_Squeeze",)),
    BadModel("axis_Squeeze_beyond", sized("Squeeze", LEAST), ("the_Squeeze",)),
    BadModel("axis_Unsqueeze", sized("Unsqueeze", 40), ("the_Unsqueeze",)),
    BadModel("axis_Unsqueeze_twice", sized("Unsqueeze", 1, 1), ("the_Unsqueeze",)),
    BadModel("axis_Unsqueeze_70", sized("Unsqueeze", *range(70)), ("the_Unsqueeze",)),
    BadModel("axis_CumSum", one("CumSum", ("x", "a"), known={"a": np.int64(9)}), ("the_CumSum",)),
    BadModel("axis_Gather", one("Gather", ("x", "i"), known={"i": [0]}, axis=5), ("the_Gather",)),
    BadModel("conv_stride_0", conv(strides=[0, 1]), ("the_Conv", "strides")),
    BadModel("conv_stride_negative", conv(strides=[-1, 1]), ("the_Conv", "strides")),
    BadModel("conv_strides_many", conv(strides=[1] * 40), ("the_Conv",)),
    BadModel("conv_dilation_0", conv(dilations=[0, 0]), ("the_Conv", "dilations")),
    BadModel("conv_dilation_huge", conv(dilations=[2**31 - 1, 1]), ("the_Conv",)),
    BadModel("conv_group_0", conv(group=0), ("the_Conv", "group")),
    BadModel("conv_group_negative", conv(group=-4), ("the_Conv", "group")),
    BadModel("conv_group_3", conv(group=3), ("the_Conv",)),
    BadModel("conv_kernel_0", conv(kernel_shape=[0, 3]), ("the_Conv",)),
    BadModel("conv_kernel_differs", conv(kernel_shape=[5, 5]), ("the_Conv",)),
    BadModel("conv_kernel_empty", conv({"w": np.ones((4, 4, 0, 3), np.float32)}), ("the_Conv",), HONEST_OR_REFUSED),
    BadModel("conv_pads_negative", conv(pads=[-9, 0, 0, 0]), ("the_Conv",)),
    BadModel("conv_pads_huge", conv(pads=[2**31 - 1] * 4), ("the_Conv",)),
    BadModel("conv_pads_odd", conv(pads=[1, 1, 1]), ("the_Conv", "pads")),
    BadModel("conv_auto_pad", conv(auto_pad="SOMEHOW"), ("the_Conv", "SOMEHOW")),
    BadModel("conv_kernel_larger", conv(shape=(1, 4, 2, 2)), ("the_Conv",)),
    BadModel("conv_channels", conv(shape=(1, 5, 8, 8)), ("the_Conv",)),
    BadModel("conv_rank_1", conv(shape=(8,)), ("the_Conv",)),
    BadModel("conv_transpose_huge", one("ConvTranspose", ("x", "w"), IMAGE, known={"w": KERNEL},
             strides=[2**30, 2**30]), ("the_ConvTranspose",)),
    BadModel("conv_transpose_stride_0", one("ConvTranspose", ("x", "w"), IMAGE, known={"w": KERNEL}, strides=[0, 0]),
             ("the_ConvTranspose",)),
    BadModel("conv_transpose_output", one("ConvTranspose", ("x", "w"), IMAGE, known={"w": KERNEL},
             output_shape=[-5, 10]), ("the_ConvTranspose",)),
    BadModel("pool_stride_0", pool(strides=[0, 0]), ("the_MaxPool", "strides")),
    BadModel("pool_kernel_0", pool(kernel_shape=[0, 0]), ("the_MaxPool", "kernel_shape")),
    BadModel("pool_kernel_negative", pool(kernel_shape=[-2, 2]), ("the_MaxPool",)),
    BadModel("pool_kernel_huge", pool(kernel_shape=[2**31 - 1] * 2), ("the_MaxPool",)),
    BadModel("pool_pads_huge", pool(pads=[2**31 - 1] * 4), ("the_MaxPool",)),
    BadModel("pool_pads_larger", pool("AveragePool", pads=[10**6] * 4), ("the_AveragePool",)),
    BadModel("pool_without_kernel", one("AveragePool", shape=IMAGE), ("the_AveragePool",)),
    BadModel("lp_pool_p_0", pool("LpPool", p=0), ("the_LpPool",), HONEST_OR_REFUSED),
    BadModel("blocks_of_0", one("DepthToSpace", shape=IMAGE, blocksize=0), ("the_DepthToSpace",)),
    BadModel("blocks_negative", one("SpaceToDepth", shape=IMAGE, blocksize=-2), ("the_SpaceToDepth",)),
    BadModel("blocks_huge", one("DepthToSpace", shape=IMAGE, blocksize=2**31 - 1), ("the_DepthToSpace",)),
    BadModel("reshape_two_unknown", sized("Reshape", -1, -1), ("the_Reshape", "-1")),
    BadModel("reshape_other_count", sized("Reshape", 7), ("the_Reshape", "7")),
    BadModel("reshape_indivisible", sized("Reshape", -1, 4), ("the_Reshape",)),
    BadModel("reshape_negative", sized("Reshape", -6), ("the_Reshape", "-6")),
    BadModel("reshape_copies_beyond", sized("Reshape", 2, 3, 0), ("the_Reshape",)),
    BadModel("reshape_overflows", sized("Reshape", 2**32, 2**32, 6), ("the_Reshape",)),
    BadModel("reshape_zero_and_unknown", sized("Reshape", 0, -1, allowzero=1), ("the_Reshape",)),
    BadModel("reshape_by_floats", one("Reshape", ("x", "n"), known={"n": np.float32([6])}), ("the_Reshape",)),
    BadModel("expand_huge", sized("Expand", 10**6, 10**6, 2, 3), ("the_Expand", "limit")),
    BadModel("expand_beyond_int64", sized("Expand", HUGE, HUGE, 2, 3), ("the_Expand",)),
    BadModel("expand_negative", sized("Expand", -2, 2, 3), ("the_Expand",)),
    BadModel("expand_other", sized("Expand", 5, 3), ("the_Expand",)),
    BadModel("tile_huge", sized("Tile", 10**9, 10**9), ("the_Tile", "limit")),
    BadModel("tile_negative", sized("Tile", -1, 2), ("the_Tile", "-1")),
    BadModel("tile_few", sized("Tile", 2), ("the_Tile",)),
    BadModel("tile_beyond_int64", sized("Tile", HUGE, HUGE), ("the_Tile",)),
    BadModel("pad_huge", sized("Pad", 0, 0, 10**12, 10**12), ("the_Pad", "limit")),
    BadModel("pad_negative", sized("Pad", -9, 0, 0, 0), ("the_Pad",)),
    BadModel("pad_least", sized("Pad", LEAST, LEAST, LEAST, LEAST), ("the_Pad",)),
    BadModel("pad_few", sized("Pad", 1, 1), ("the_Pad",)),
    BadModel("pad_reflect_beyond", sized("Pad", 0, 50, 0, 50, mode="reflect"), ("the_Pad",), HONEST_OR_REFUSED),
    BadModel("pad_mode", sized("Pad", 0, 1, 0, 1, mode="sideways"), ("the_Pad", "sideways")),
    BadModel("slice_step_0", sliced(0, 2, step=0), ("the_Slice",)),
    BadModel("slice_least", sliced(LEAST, LEAST, step=LEAST), ("the_Slice",), HONEST_OR_REFUSED),
    BadModel("slice_axis", sliced(0, 1, axis=9), ("the_Slice",)),
    BadModel("slice_axis_least", sliced(0, 1, axis=LEAST), ("the_Slice",)),
    BadModel("slice_lists_differ", one("Slice", ("x", "s", "e"), known={"s": [0, 0], "e": [1]}), ("the_Slice",)),
    BadModel("split_absurd", one("Split", num_outputs=2**31 - 1), ("the_Split",)),
    BadModel("split_0", one("Split", num_outputs=0), ("the_Split",)),
    BadModel("split_negative_size", one("Split", ("x", "n"), known={"n": [-1, 3]}, outputs=("y", "z")), ("the_Split",)),
    BadModel("split_sum", one("Split", ("x", "n"), known={"n": [9, 9]}, outputs=("y", "z")), ("the_Split",)),
    BadModel("split_many_outputs", one("Split", outputs=("y", "z", "u", "v"), axis=0), ("the_Split",), (0, 3, 4)),
    BadModel("concat_shapes", one("Concat", ("x", "w"), known={"w": np.ones((4, 5), np.float32)}, axis=0),
             ("the_Concat",)),
    BadModel("concat_ranks", one("Concat", ("x", "w"), known={"w": np.ones(3, np.float32)}, axis=0), ("the_Concat",)),
    BadModel("concat_types", one("Concat", ("x", "w"), known={"w": np.ones((2, 3), np.int64)}, axis=0),
             ("the_Concat",)),
    BadModel("gather_index", one("Gather", ("x", "i"), known={"i": [7]}), ("the_Gather",), (0, 3, 4)),
    BadModel("gather_index_constant", written(model_of(
        [node("Gather", ("w", "i"), ("c",)), node("Add", ("x", "c"))],
        known={"w": np.ones((2, 3), np.float32), "i": [7]})), ("the_Gather",)),
    BadModel("gather_nd_rank", one("GatherND", ("x", "i"), known={"i": [[0, 0, 0, 0]]}), ("the_GatherND",)),
    BadModel("gather_nd_batch", one("GatherND", ("x", "i"), known={"i": [[0]]}, batch_dims=9), ("the_GatherND",)),
    BadModel("gather_elements_rank", one("GatherElements", ("x", "i"), known={"i": [0]}), ("the_GatherElements",)),
    BadModel("scatter_nd_shapes", one("ScatterND", ("x", "i", "u"),
             known={"i": [[0], [1]], "u": np.ones((1, 1), np.float32)}), ("the_ScatterND",)),
    BadModel("scatter_index", one("ScatterElements", ("x", "i", "u"),
             known={"i": [[9]], "u": np.ones((1, 1), np.float32)}), ("the_ScatterElements",), (0, 3, 4)),
    BadModel("matmul_depths", one("MatMul", ("x", "w"), known={"w": np.ones((7, 2), np.float32)}), ("the_MatMul",)),
    BadModel("gemm_ranks", one("Gemm", ("x", "w"), known={"w": np.ones(3, np.float32)}), ("the_Gemm",)),
    BadModel("add_shapes", one("Add", ("x", "w"), known={"w": np.ones(7, np.float32)}), ("the_Add",)),
    BadModel("add_types", one("Add", ("x", "w"), known={"w": np.ones(3, np.int64)}), ("the_Add",)),
    BadModel("topk_beyond", one("TopK", ("x", "k"), known={"k": [9]}, outputs=("y", "i")), ("the_TopK",)),
    BadModel("topk_negative", one("TopK", ("x", "k"), known={"k": [-1]}, outputs=("y", "i")), ("the_TopK",)),
    BadModel("topk_least", one("TopK", ("x", "k"), known={"k": [LEAST]}, outputs=("y", "i")), ("the_TopK",)),
    BadModel("range_huge", counted(0, 10**12, 1), ("the_Range", "1000000000000"), (3,)),
    BadModel("range_whole", counted(LEAST, HUGE, 1), ("the_Range",)),
    BadModel("range_step_0", counted(0, 5, 0), ("the_Range",)),
    BadModel("eye_huge", one("EyeLike", shape=(2**17, 2**17)), ("the_EyeLike",)),
    BadModel("eye_rank", one("EyeLike", shape=(2, 3, 4)), ("the_EyeLike",)),
    BadModel("one_hot_huge", one("OneHot", ("x", "d", "v"), (2**20,), INT64,
             {"d": np.int64(10**9), "v": np.float32([0, 1])}), ("the_OneHot",)),
    BadModel("one_hot_negative", one("OneHot", ("x", "d", "v"), (4,), INT64,
             {"d": np.int64(-3), "v": np.float32([0, 1])}), ("the_OneHot",)),
    BadModel("resize_huge", one("Resize", ("x", "", "", "n"), IMAGE, known={"n": [1, 4, 10**9, 10**9]}),
             ("the_Resize",)),
    BadModel("resize_scales_0", one("Resize", ("x", "", "s"), IMAGE, known={"s": np.float32([1, 1, 0, 0])}),
             ("the_Resize",), HONEST_OR_REFUSED),
    BadModel("resize_scales_negative", one("Resize", ("x", "", "s"), IMAGE, known={"s": np.float32([1, 1, -2, 2])}),
             ("the_Resize",)),
    BadModel("resize_scales_nan", one("Resize", ("x", "", "s"), IMAGE, known={"s": np.float32([1, 1, np.nan, 2])}),
             ("the_Resize",)),
    BadModel("resize_scales_infinite", one("Resize", ("x", "", "s"), IMAGE, known={"s": np.float32([1, 1, np.inf, 2])}),
             ("the_Resize",)),
    BadModel("resize_nothing", one("Resize", shape=IMAGE), ("the_Resize",)),
    BadModel("einsum_arrow", one("Einsum", equation="->->"), ("the_Einsum",)),
    BadModel("einsum_operands", one("Einsum", equation="ab,bc->ac"), ("the_Einsum",)),
    BadModel("einsum_letters", one("Einsum", equation="ab->" + "a" * 5000), ("the_Einsum",)),
    BadModel("einsum_long", one("Einsum", equation="," * 200_000), ("the_Einsum",)),
    BadModel("einsum_ellipses", one("Einsum", equation="......ab->b"), ("the_Einsum",)),
    BadModel("einsum_digits", one("Einsum", equation="12->21"), ("the_Einsum",)),
    BadModel("einsum_unknown_label", one("Einsum", equation="ab->az"), ("the_Einsum", "z")),
    BadModel("cast_unknown", one("Cast", to=99), ("the_Cast", "to")),
    BadModel("cast_absent", one("Cast"), ("the_Cast", "to")),
    BadModel("bits_shape", one("BitShift", ("x", "x"), kind=onnx.TensorProto.UINT8, direction="UP"),
             ("the_BitShift", "direction")),
    BadModel("clip_crossed", one("Clip", ("x", "a", "b"), known={"a": np.float32([1, 2]), "b": np.float32(0)}),
             ("the_Clip",)),
    BadModel("batch_norm_channels", one("BatchNormalization", ("x", "s", "s", "s", "s"), IMAGE,
             known={"s": np.ones(9, np.float32)}), ("the_BatchNormalization",)),
    BadModel("instance_norm_rank", one("InstanceNormalization", ("x", "s", "s"), (3,),
             known={"s": np.ones(3, np.float32)}), ("the_InstanceNormalization",)),
    BadModel("group_norm_0", one("GroupNormalization", ("x", "s", "s"), IMAGE, known={"s": np.ones(4, np.float32)},
             opset=21, num_groups=0), ("the_GroupNormalization",)),
    BadModel("lstm_hidden_absurd", recurrent("LSTM", 4, 2**31 - 1), ("the_LSTM",)),
    BadModel("lstm_hidden_0", recurrent("LSTM", 4, 0), ("the_LSTM",)),
    BadModel("gru_hidden_negative", recurrent("GRU", 3, -4), ("the_GRU",)),
    BadModel("rnn_direction", recurrent("RNN", 1, 4, direction="sideways"), ("the_RNN", "sideways")),
    BadModel("rnn_activation", recurrent("RNN", 1, 4, activations=["Frob"]), ("the_RNN", "Frob")),
    BadModel("lstm_long", one("LSTM", ("x", "w", "r"), (10**9, 1, 3), known={"w": np.ones((1, 16, 3), np.float32),
             "r": np.ones((1, 16, 4), np.float32)}, hidden_size=4), ("the_LSTM",), (3, 4, 0)),
    BadModel("attention_heads_0", one("Attention", ("x", "x", "x"), (1, 4, 8), opset=23, q_num_heads=0, kv_num_heads=0),
             ("the_Attention",)),
    BadModel("attention_heads_absurd", one("Attention", ("x", "x", "x"), (1, 4, 8), opset=23,
             q_num_heads=2**31 - 1, kv_num_heads=2**31 - 1), ("the_Attention",)),
    BadModel("dft_length", one("DFT", ("x", "n"), (1, 8, 1), known={"n": np.int64(10**12)}, opset=17), ("the_DFT",)),
    BadModel("window_huge", one("HannWindow", ("n",), known={"n": np.int64(10**12)}), ("the_HannWindow",)),
    BadModel("window_negative", one("HannWindow", ("n",), known={"n": np.int64(-5)}), ("the_HannWindow",)),
    BadModel("trees_unequal", one("TreeEnsembleRegressor", domain="ai.onnx.ml", nodes_treeids=[0],
             nodes_nodeids=[0, 1]), ("the_TreeEnsembleRegressor",)),
    BadModel("random", one("RandomNormal", (), shape=[2**31 - 1, 2**31 - 1]), ("the_RandomNormal",), (3, 4)),
)  # fmt: skip


def branch(*nodes: onnx.NodeProto, outputs: Sequence[str] = ("t",), inputs: Sequence[onnx.ValueInfoProto] = ()) -> Any:
    graph = model_of(nodes, outputs=outputs).graph
    del graph.input[:]
    graph.input.extend(inputs)
    return graph


def choice(then: Any, other: Any, known: Mapping[str, Any] | None = None) -> Make:
    made = node("If", ("c",), then_branch=then, else_branch=other)
    inputs = [value("x")] if known else [value("x"), value("c", (), BOOL)]
    return written(model_of([made], inputs, known=known))


RELU = branch(node("Relu", outputs=("t",)))
STEP = (value("i", (), INT64), value("k", (), BOOL))


def loop(trips: int, *, known: bool = True) -> Make:
    """x + x, a number of times."""
    body = branch(node("Identity", ("k",), ("again",)), node("Add", ("v", "x"), ("t",)), outputs=("again", "t"),
                  inputs=(*STEP, value("v")))  # fmt: skip
    numbers = {"n": np.int64(trips), "go": np.bool_(True)}
    return written(model_of([node("Loop", ("n", "go", "x"), body=body)], known=numbers if known else None))


def nested_choices(depth: int) -> Make:
    graph = RELU
    for _ in range(depth):
        graph = branch(helper.make_node("If", ["c"], ["t"], then_branch=graph, else_branch=RELU))
    return choice(graph, RELU)


CONTROL: tuple[BadModel, ...] = (
    BadModel("if_without_else", written(model_of([node("If", ("c",), then_branch=RELU)],
             [value("x"), value("c", (), BOOL)])), ("the_If",)),
    BadModel("if_without_outputs", choice(branch(node("Relu", outputs=("t",)), outputs=()), RELU), ("the_If",)),
    BadModel("if_unknown_name", choice(branch(node("Relu", ("q",), ("t",))), RELU), ("the_Relu", "'q'")),
    BadModel("if_unknown_output", choice(branch(node("Relu", outputs=("t",)), outputs=("z",)), RELU), ("'z'",)),
    BadModel("if_condition_of_floats", written(model_of([node("If", then_branch=RELU, else_branch=RELU)])),
             ("the_If",)),
    BadModel("if_branches_differ", choice(branch(node("Shape", outputs=("t",))), RELU), ("the_If",), HONEST_OR_REFUSED),
    BadModel("if_negative_tensor", choice(branch(node("Constant", (), ("t",), value=onnx.TensorProto(
        dims=[-4], data_type=FLOAT))), RELU), ("the_Constant", "-4")),
    BadModel("if_20_deep", nested_choices(20), ("deep",), (0, 3, 4)),
    BadModel("loop_absurd", loop(HUGE), ("the_Loop",), HONEST_OR_REFUSED),
    BadModel("loop_million", loop(10**6), ("the_Loop",), HONEST_OR_REFUSED),
    BadModel("loop_without_body", written(model_of([node("Loop", ("", "", "x"))])), ("the_Loop",)),
    BadModel("loop_body_without_outputs", written(model_of([node("Loop", ("n", "", "x"), body=branch(outputs=()))],
             known={"n": np.int64(3)})), ("the_Loop",)),
    BadModel("loop_count_missing", loop(3, known=False), ("the_Loop", "'n'")),
    BadModel("scan_without_inputs", written(model_of([node("Scan", num_scan_inputs=0, body=RELU)])), ("the_Scan",)),
    BadModel("scan_inputs_absurd", written(model_of([node("Scan", num_scan_inputs=2**31 - 1, body=RELU)])),
             ("the_Scan",)),
    BadModel("divided_by_zero", arithmetic("Div", np.int32([1]), np.int32([0])), ("the_Div",), HONEST_OR_REFUSED),
    BadModel("modulo_zero", arithmetic("Mod", np.int64([1]), np.int64([0])), ("the_Mod",), HONEST_OR_REFUSED),
    BadModel("least_by_minus_one", arithmetic("Div", np.int64([LEAST]), np.int64([-1])), (), HONEST_OR_REFUSED),
    BadModel("least_by_minus_one_32", arithmetic("Div", np.int32([-(2**31)]), np.int32([-1])), (), HONEST_OR_REFUSED),
    BadModel("shift_by_200", arithmetic("BitShift", np.uint8([1]), np.uint8([200]), direction="LEFT"), (),
             HONEST_OR_REFUSED),
    BadModel("power_overflows", arithmetic("Pow", np.int64([10]), np.int64([400])), (), HONEST_OR_REFUSED),
    BadModel("power_negative", arithmetic("Pow", np.int64([0]), np.int64([-1])), (), HONEST_OR_REFUSED),
    BadModel("sum_overflows", arithmetic("Add", np.int64([HUGE]), np.int64([HUGE])), (), HONEST_OR_REFUSED),
    BadModel("nan_to_integer", written(model_of(
        [node("Cast", ("n",), ("m",), to=INT64), node("Reshape", ("x", "m"))],
        known={"n": np.float32([np.nan, np.inf])})), ("the_Reshape",)),
    BadModel("shape_arithmetic_overflows", written(model_of(
        [node("Shape", outputs=("s",)), node("Mul", ("s", "h"), ("m",)), node("Expand", ("x", "m"))],
        known={"h": [2**62, 2**62]})), (), HONEST_OR_REFUSED),
    BadModel("shape_arithmetic_huge", written(model_of(
        [node("Shape", outputs=("s",)), node("Mul", ("s", "h"), ("m",)), node("ConstantOfShape", ("m",))],
        known={"h": [2**40, 2**40]})), ("the_ConstantOfShape",)),
    BadModel("doubling_60_times", written(model_of(
        [helper.make_node("Concat", [f"c{n}"] * 2, [f"c{n + 1}"], name=f"double_{n}", axis=0) for n in range(60)],
        [value("c0", (2, 3))], outputs=["c60"])), ("double_", "limit")),
    BadModel("doubling_constants", written(model_of(
        [helper.make_node("Concat", [f"c{n}"] * 2, [f"c{n + 1}"], name=f"double_{n}", axis=0) for n in range(60)],
        outputs=["c60"], known={"c0": np.float32([1, 2])})), ("double_", "limit")),
    BadModel("outer_products", written(model_of(
        [helper.make_node("Einsum", [f"c{n}"] * 2, [f"c{n + 1}"], name=f"outer_{n}",
                          equation=f"{'abcdefgh'[:2**n]},{'ijklmnop'[:2**n]}->{'abcdefgh'[:2**n]}{'ijklmnop'[:2**n]}")
         for n in range(4)], [value("c0", (1000,))], outputs=["c4"])), ("outer_", "limit")),
)  # fmt: skip
