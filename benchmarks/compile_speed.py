"""How long the phases of the compiler take on graphs of many nodes: python benchmarks/compile_speed.py [NODES ...].

Two kinds of graphs: BERT of as many layers as have so many ONNX nodes, of which the compiler makes one kernel of ten,
and a chain of products, each of which becomes a kernel. Seconds are those of the processor, so other work on the
computer counts little. `fuse to allocate` includes finishing and timing all plans that are compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from workloads import bert_of_nodes

from birc.compiler import compile_model

NODES = (1000, 5000)
BEFORE, AFTER = "fuse", "codegen"
"""The first phase that is searched in, and the first one that is not."""
WIDTH = 192


@dataclass(frozen=True, slots=True)
class Speed:
    """What one compilation took."""

    nodes: int
    kernels: int
    searching_s: float
    all_s: float


def chain(nodes: int) -> onnx.ModelProto:
    """Products of a matrix with one weight after the other."""
    random = np.random.default_rng(0)
    weights = [(random.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32) for _ in range(nodes)]
    names = ["x", *(f"y{number}" for number in range(nodes))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[n], f"w{n}"], [names[n + 1]]) for n in range(nodes)],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [WIDTH, WIDTH])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [WIDTH, WIDTH])],
        [numpy_helper.from_array(weight, f"w{number}") for number, weight in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


GRAPHS: Mapping[str, Callable[[int], onnx.ModelProto]] = {"BERT": bert_of_nodes, "chain of products": chain}


def measure(model: onnx.ModelProto) -> Speed:
    """Compile a model for br100 in BF16."""
    started: dict[str, float] = {}
    begin = time.process_time()
    package = compile_model(
        model,
        precision="bf16",
        progress=lambda phase: started.setdefault(phase.partition(":")[0], time.process_time()) and None,
    )
    end = time.process_time()
    if package is None:
        raise SystemExit("the compilation stopped early")
    kernels = sum(len(package.run_sources(name)) for name in package.programs)
    return Speed(len(model.graph.node), kernels, started[AFTER] - started[BEFORE], end - begin)


def main() -> None:
    """Print a line for every graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", type=int, nargs="*", default=NODES)
    print(f"{'graph':20} {'nodes':>7} {'kernels':>8} {'fuse to allocate s':>19} {'all s':>8}")
    for nodes in parser.parse_args().nodes:
        for name, make in GRAPHS.items():
            speed = measure(make(nodes))
            print(
                f"{name:20} {speed.nodes:7,} {speed.kernels:8,} {speed.searching_s:19.2f} {speed.all_s:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
