"""Lowering of the linear models of ai.onnx.ml."""

from __future__ import annotations

from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.ml_attributes import DOMAIN, floats, integers, required_floats, samples, words
from birc.compiler.importer.ml_scores import labels_of_best, of_two_classes, transformed
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.runtime.errors import BadModelError


def _scores(node: OnnxNode, build: GraphBuilder) -> str:
    """Features times coefficients plus intercepts: (samples, targets)."""
    x, coefficients = samples(node, build), required_floats(node, "coefficients")
    features = build.shape(x)[1]
    if features == 0 or len(coefficients) % features:
        raise BadModelError(f"{len(coefficients)} coefficients for {features} features", where=node.where)
    matrix = np.ascontiguousarray(coefficients.reshape(-1, features).T)
    product = build.emit("matmul", (x, build.constant(matrix)))
    intercepts = floats(node, "intercepts")
    if intercepts is None or not len(intercepts):
        return product
    return build.emit("add", (product, build.constant(intercepts)))


def _linear_regressor(node: OnnxNode, build: GraphBuilder) -> Results:
    scores = _scores(node, build)
    if build.shape(scores)[1] != node.int_attribute("targets", 1):
        raise BadModelError(f"coefficients for {build.shape(scores)[1]} targets", where=node.where)
    return transformed(node, build, scores, node.string_attribute("post_transform", "NONE"))


def _linear_classifier(node: OnnxNode, build: GraphBuilder) -> Results:
    """The label of the largest score, and the scores. One score of two classes is that of the second."""
    if words(node, "classlabels_strings"):
        raise CannotLower("its labels are strings")
    scores, labels = _scores(node, build), integers(node, "classlabels_ints")
    transform = node.string_attribute("post_transform", "NONE")
    if build.shape(scores)[1] == 1:
        return _of_one_score(build, scores, labels, transform)[: len(node.outputs)]
    if len(labels) != build.shape(scores)[1]:
        raise BadModelError(f"{len(labels)} labels for {build.shape(scores)[1]} scores", where=node.where)
    chosen = labels_of_best(build, scores, labels)
    return (chosen, transformed(node, build, scores, transform))[: len(node.outputs)]


def _of_one_score(build: GraphBuilder, score: str, labels: np.ndarray, transform: str) -> tuple[str, str]:
    """The second of two labels where the score is positive."""
    if len(labels) != 2:
        raise CannotLower(f"{len(labels)} labels for one score")
    return of_two_classes(build, score, labels, transform, limit=0.0, is_share=True)


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("LinearClassifier", _linear_classifier, domain=DOMAIN),
    OpType("LinearRegressor", _linear_regressor, domain=DOMAIN),
)
