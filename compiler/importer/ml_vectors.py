"""Lowering of support vector machines: kernels of the samples with all support vectors, then sums of them."""

from __future__ import annotations

from itertools import combinations
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import reduced, require_helpers
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.ml_attributes import DOMAIN, floats, integers, required_floats, samples, words
from birc.compiler.importer.ml_scores import labels_of_best, transformed
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError


def _kernels(node: OnnxNode, build: GraphBuilder, x: str, vectors: np.ndarray) -> str:
    """The kernel of every sample (rows) with every vector (columns); FP32."""
    kind = node.string_attribute("kernel_type", "LINEAR")
    given = floats(node, "kernel_params")
    gamma, offset, degree = [*(() if given is None else given.tolist()), 0.0, 0.0, 0.0][:3]
    if kind == "RBF":
        rows, features = build.shape(x)
        require_helpers(rows * len(vectors) * features, "the distances to all vectors")
        apart = build.emit("sub", (reshape(build, x, (rows, 1, features)), build.constant(vectors)))
        squares = reduced(build, "reduce_sum", build.emit("mul", (apart, apart)), 2)
        return build.emit("exp", (build.emit("mul", (squares, build.scalar(-gamma, squares))),))
    product = build.emit("matmul", (x, build.constant(np.ascontiguousarray(vectors.T))))
    if kind == "LINEAR":
        return product
    line = build.emit("mul", (product, build.scalar(gamma, product)))
    line = build.emit("add", (line, build.scalar(offset, product)))
    if kind == "SIGMOID":
        return build.emit("tanh", (line,))
    if kind == "POLY":
        return build.emit("pow", (line, build.scalar(int(degree), line)))
    raise BadModelError(f"kernel {kind!r}", where=node.where)


def _vectors(node: OnnxNode, features: int, count: int) -> np.ndarray:
    """The support vectors, one a row."""
    vectors = required_floats(node, "support_vectors")
    if len(vectors) != count * features:
        raise BadModelError(f"{len(vectors)} numbers for {count} vectors of {features} features", where=node.where)
    return vectors.reshape(count, features)


def _svm_regressor(node: OnnxNode, build: GraphBuilder) -> Results:
    """Kernels times coefficients plus rho; without vectors the coefficients are those of the features."""
    x, rho = samples(node, build), required_floats(node, "rho")
    coefficients, count = required_floats(node, "coefficients"), node.int_attribute("n_supports", 0)
    kernels = _kernels(node, build, x, _vectors(node, build.shape(x)[1], count)) if count else x
    score = build.emit("matmul", (kernels, build.constant(coefficients.reshape(-1, 1))))
    score = build.emit("add", (score, build.scalar(rho[0], score)))
    if node.int_attribute("one_class", 0):
        positive = build.emit("greater", (score, build.scalar(0, score)))
        score = build.emit("where", (positive, build.scalar(1, score), build.scalar(-1, score)))
    return transformed(node, build, score, node.string_attribute("post_transform", "NONE"))


def _svm_classifier(node: OnnxNode, build: GraphBuilder) -> Results:
    """Of more than two classes: every pair votes for one, and the scores are those of the pairs."""
    labels, per_class = integers(node, "classlabels_ints"), integers(node, "vectors_per_class")
    if words(node, "classlabels_strings"):
        raise CannotLower("its labels are strings")
    if len(labels) < 3 or node.has("prob_a") or not len(per_class):
        raise CannotLower("two classes, probabilities and classes without vectors are not on the device")
    x, count = samples(node, build), int(per_class.sum())
    kernels = _kernels(node, build, x, _vectors(node, build.shape(x)[1], count))
    coefficients = required_floats(node, "coefficients").reshape(-1, count)
    ends = np.cumsum(per_class)
    spans = [slice(int(end - size), int(end)) for end, size in zip(ends, per_class, strict=True)]
    pairs = list(combinations(range(len(labels)), 2))
    weights = np.zeros((count, len(pairs)), np.float32)
    for column, (first, second) in enumerate(pairs):
        weights[spans[first], column] = coefficients[second - 1, spans[first]]
        weights[spans[second], column] = coefficients[first, spans[second]]
    scores = build.emit("matmul", (kernels, build.constant(weights)))
    scores = build.emit("add", (scores, build.constant(required_floats(node, "rho")[: len(pairs)])))
    chosen = labels_of_best(build, _votes(build, scores, pairs, len(labels)), labels)
    transform = node.string_attribute("post_transform", "NONE")
    return (chosen, transformed(node, build, scores, transform))[: len(node.outputs)]


def _votes(build: GraphBuilder, scores: str, pairs: list[tuple[int, int]], classes: int) -> str:
    """How many pairs each class wins: the first of a pair where its score is positive, else the second. INT32."""
    rows = build.shape(scores)[0]
    table = np.zeros((2, classes, len(pairs)), np.bool_)
    for column, (first, second) in enumerate(pairs):
        table[0, first, column] = table[1, second, column] = True
    positive = build.emit("greater", (scores, build.scalar(0, scores)))
    positive = reshape(build, positive, (rows, 1, len(pairs)))
    wins = build.emit("and", (positive, build.constant(table[0])))
    losses = build.emit("and", (build.emit("not", (positive,)), build.constant(table[1])))
    return reduced(build, "reduce_sum", cast(build, build.emit("or", (wins, losses)), dtype("i32")), 2)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("SVMClassifier", _svm_classifier, domain=DOMAIN),
    OpType("SVMRegressor", _svm_regressor, domain=DOMAIN),
)
