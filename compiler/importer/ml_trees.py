"""Lowering of tree ensembles: every sample goes down all trees at once, one level a step.

Where it stands in each tree is a number; the tables of features, thresholds and branches are read there. A leaf leads
to itself, so that short trees wait for the deep ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import reduced, require_helpers
from birc.compiler.importer.floats import is_nan
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.ml_attributes import DOMAIN, floats, integers, required_floats, samples, words
from birc.compiler.importer.ml_scores import TRANSFORMS, labels_of_best, of_two_classes, transformed
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

_LARGEST_DEPTH: Final = 200
"""Steps from a root to a leaf, up to twenty nodes each."""

_COMPARE: Final = {"LEQ": "less_equal", "LT": "less", "GTE": "greater_equal", "GT": "greater", "EQ": "equal"}
_MODES: Final = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER")
"""In the order of the numbers that TreeEnsemble gives them."""

_AGGREGATES: Final = ("AVERAGE", "SUM", "MIN", "MAX")
"""In the order of the numbers that TreeEnsemble gives them."""


@dataclass(frozen=True, slots=True)
class _Branch:
    """A question: is the feature, compared by `mode` with the threshold, true? With `if_missing` a NaN is too."""

    feature: int
    mode: str
    threshold: float
    yes: int
    no: int
    if_missing: bool


@dataclass(frozen=True, slots=True)
class _Forest:
    """Branches by number (None: a leaf), the root of every tree, and what a leaf gives: (target, weight) pairs."""

    branches: tuple[_Branch | None, ...]
    roots: tuple[int, ...]
    weights: dict[int, list[tuple[int, float]]]

    def depth(self, node: OnnxNode) -> int:
        """Steps down the deepest tree. Raises `BadModelError` where branches lead in a circle."""
        level, depth = set(self.roots), 0
        while True:
            found = [self.branches[place] for place in level]
            level = {way for branch in found if branch is not None for way in (branch.yes, branch.no)}
            if not level:
                return depth
            depth += 1
            if depth > len(self.branches):
                raise BadModelError("branches of a tree lead in a circle", where=node.where)


def _reached(node: OnnxNode, build: GraphBuilder, x: str, forest: _Forest) -> str:
    """The leaf that each sample reaches in each tree: INT32 (samples, trees)."""
    rows, features = build.shape(x)
    depth, trees = forest.depth(node), len(forest.roots)
    if depth > _LARGEST_DEPTH:
        raise CannotLower(f"trees of depth {depth}, more than {_LARGEST_DEPTH}")
    if any(branch is not None and branch.feature >= features for branch in forest.branches):
        raise BadModelError(f"a branch asks for a feature beyond {features}", where=node.where)
    place = build.splat(0, build.type_of(x).with_dtype(dtype("i32")).with_shape((rows, trees)))
    place = build.emit("add", (place, build.constant(np.array(forest.roots, np.int32))))
    first = build.constant((np.arange(rows, dtype=np.int32) * features).reshape(rows, 1))
    flat = reshape(build, x, (rows * features,))

    def table(of: Callable[[_Branch], float | bool], leaf: Callable[[int], float], kind: type[np.generic]) -> str:
        entries = [leaf(i) if branch is None else of(branch) for i, branch in enumerate(forest.branches)]
        return build.constant(np.array(entries, kind))

    asked = table(lambda branch: branch.feature, lambda _: 0, np.int32)
    limits = table(lambda branch: branch.threshold, lambda _: 0.0, np.float32)
    yes = table(lambda branch: branch.yes, lambda leaf: leaf, np.int32)
    no = table(lambda branch: branch.no, lambda leaf: leaf, np.int32)
    missing = table(lambda branch: branch.if_missing, lambda _: 0, np.int32)
    tracks = any(branch is not None and branch.if_missing for branch in forest.branches)
    modes = sorted({branch.mode for branch in forest.branches if branch is not None})
    numbers = table(lambda branch: modes.index(branch.mode), lambda _: 0, np.int32)

    def read(source: str, index: str) -> str:
        return build.emit("gather", (source, index), {"axis": 0})

    for _ in range(depth):
        value = read(flat, build.emit("add", (read(asked, place), first)))
        limit = read(limits, place)
        holds = _compared(build, value, limit, modes, lambda at=place: read(numbers, at))  # type: ignore[misc]
        if tracks:
            is_missing = is_nan(build, value)
            goes = cast(build, read(missing, place), dtype("bool"))
            holds = build.emit("or", (holds, build.emit("and", (goes, is_missing))))
        place = build.emit("where", (holds, read(yes, place), read(no, place)))
    return place


def _compared(build: GraphBuilder, value: str, limit: str, modes: Sequence[str], number: Callable[[], str]) -> str:
    """The comparison of each branch's mode; `number` gives which of `modes` that is."""

    def one(mode: str) -> str:
        if mode == "NEQ":
            return build.emit("not", (build.emit("equal", (value, limit)),))
        return build.emit(_COMPARE[mode], (value, limit))

    result = one(modes[0])
    if len(modes) > 1:
        numbers = number()
        for place, mode in enumerate(modes[1:], 1):
            here = build.emit("equal", (numbers, build.scalar(place, numbers)))
            mine = build.emit("and", (here, one(mode)))
            others = build.emit("and", (build.emit("not", (here,)), result))
            result = build.emit("or", (mine, others))
    return result


def _aggregated(build: GraphBuilder, place: str, forest: _Forest, targets: int, aggregate: str) -> str:
    """What the leaves give to each target, over all trees: (samples, targets). A target without a leaf gets 0."""
    rows, trees = build.shape(place)
    require_helpers(max(len(forest.branches), rows * trees) * targets, "the table of leaves")
    is_extreme = aggregate in ("MIN", "MAX")
    neutral = np.inf if aggregate == "MIN" else -np.inf if aggregate == "MAX" else 0.0
    combine = {"MIN": min, "MAX": max}.get(aggregate, lambda old, new: old + new)
    table = np.full((len(forest.branches), targets), neutral, np.float32)
    for leaf, pairs in forest.weights.items():
        for target, weight in pairs:
            table[leaf, target] = combine(table[leaf, target], np.float32(weight))
    given = build.emit("gather", (build.constant(table), place), {"axis": 0})
    row = {"MIN": "reduce_min", "MAX": "reduce_max"}.get(aggregate, "reduce_sum")
    result = reduced(build, row, given, 1)
    if is_extreme:
        is_empty = build.emit("equal", (result, build.scalar(neutral, result)))
        result = build.emit("where", (is_empty, build.scalar(0, result), result))
    return build.emit("div", (result, build.scalar(trees, result))) if aggregate == "AVERAGE" else result


def _listed_forest(node: OnnxNode, kind: str) -> _Forest:
    """The forest of the older operators: nodes by tree and number, weights by tree, node and target (`kind`)."""
    trees, numbers = integers(node, "nodes_treeids").tolist(), integers(node, "nodes_nodeids").tolist()
    index = {pair: place for place, pair in enumerate(zip(trees, numbers, strict=True))}
    given = node.attributes.get("nodes_modes", ())
    modes = [str(mode).removeprefix("BRANCH_") for mode in given] if isinstance(given, tuple) else []
    features, limits = integers(node, "nodes_featureids").tolist(), required_floats(node, "nodes_values")
    yes, no = integers(node, "nodes_truenodeids").tolist(), integers(node, "nodes_falsenodeids").tolist()
    missing = integers(node, "nodes_missing_value_tracks_true").tolist() or [0] * len(trees)
    branches: list[_Branch | None] = []
    for place, mode in enumerate(modes):
        if mode == "LEAF":
            branches.append(None)
            continue
        ways = [index.get((trees[place], way)) for way in (yes[place], no[place])]
        if None in ways or (mode != "NEQ" and mode not in _COMPARE):
            raise BadModelError(f"node {numbers[place]} of tree {trees[place]}: {mode}", where=node.where)
        branches.append(
            _Branch(features[place], mode, float(limits[place]), ways[0] or 0, ways[1] or 0, bool(missing[place]))
        )
    roots: dict[int, int] = {}
    for place, tree in enumerate(trees):
        roots.setdefault(tree, place)
    weights: dict[int, list[tuple[int, float]]] = {}
    owners = zip(integers(node, f"{kind}_treeids").tolist(), integers(node, f"{kind}_nodeids").tolist(), strict=True)
    amounts = required_floats(node, f"{kind}_weights").tolist()
    for owner, target, weight in zip(owners, integers(node, f"{kind}_ids").tolist(), amounts, strict=True):
        weights.setdefault(index[owner], []).append((target, weight))
    return _Forest(tuple(branches), tuple(roots.values()), weights)


def _tree_ensemble_regressor(node: OnnxNode, build: GraphBuilder) -> Results:
    forest, targets = _listed_forest(node, "target"), node.int_attribute("n_targets", 1)
    place = _reached(node, build, samples(node, build), forest)
    scores = _aggregated(build, place, forest, targets, node.string_attribute("aggregate_function", "SUM"))
    scores = _based(node, build, scores)
    return transformed(node, build, scores, node.string_attribute("post_transform", "NONE"))


def _based(node: OnnxNode, build: GraphBuilder, scores: str) -> str:
    """Scores plus the base values, where there are any."""
    base = floats(node, "base_values")
    return scores if base is None or not len(base) else build.emit("add", (scores, build.constant(base)))


def _tree_ensemble_classifier(node: OnnxNode, build: GraphBuilder) -> Results:
    """The label of the largest score, and the scores.

    Weights of one class alone decide between two: the second label where they are positive, or, if there are only
    positive ones, more than a half (as onnxruntime does; ONNX does not say).
    """
    if words(node, "classlabels_strings"):
        raise CannotLower("its labels are strings")
    forest, labels = _listed_forest(node, "class"), integers(node, "classlabels_int64s")
    transform = node.string_attribute("post_transform", "NONE")
    classes = set(integers(node, "class_ids").tolist())
    place = _reached(node, build, samples(node, build), forest)
    if len(classes) > 1 or len(labels) > 2:
        scores = _based(node, build, _aggregated(build, place, forest, len(labels), "SUM"))
        chosen = labels_of_best(build, scores, labels)
        return (chosen, transformed(node, build, scores, transform))[: len(node.outputs)]
    base = floats(node, "base_values")
    if len(labels) != 2 or (base is not None and len(base) > 1):
        raise CannotLower(f"{len(labels)} labels, weights of one class and several base values")
    single = {leaf: [(0, weight) for _, weight in pairs] for leaf, pairs in forest.weights.items()}
    lone = _Forest(forest.branches, forest.roots, single)
    score = _based(node, build, _aggregated(build, place, lone, 1, "SUM"))
    is_share = all(weight >= 0 for pairs in single.values() for _, weight in pairs)
    limit = 0.5 if is_share else 0.0
    return of_two_classes(build, score, labels, transform, limit=limit, is_share=is_share)[: len(node.outputs)]


def _tree_ensemble(node: OnnxNode, build: GraphBuilder) -> Results:
    """The operator that stands for both others since version 5: branches and leaves are listed apart."""
    forest, targets = _joined_forest(node), node.int_attribute("n_targets", 1)
    kept = build.type_of(node.input(0)).dtype
    place = _reached(node, build, samples(node, build), forest)
    aggregate = _AGGREGATES[node.int_attribute("aggregate_function", 1)]
    scores = _aggregated(build, place, forest, targets, aggregate)
    return cast(build, transformed(node, build, scores, TRANSFORMS[node.int_attribute("post_transform", 0)]), kept)


def _joined_forest(node: OnnxNode) -> _Forest:
    """Branches first, then leaves; the members of a set become a chain of branches that ask for one each."""
    modes = required_floats(node, "nodes_modes").astype(int).tolist()
    features, limits = integers(node, "nodes_featureids").tolist(), required_floats(node, "nodes_splits").tolist()
    ways = [
        [way + (len(modes) if is_leaf else 0) for way, is_leaf in zip(*lists, strict=True)]
        for lists in (
            (integers(node, "nodes_truenodeids").tolist(), integers(node, "nodes_trueleafs").tolist()),
            (integers(node, "nodes_falsenodeids").tolist(), integers(node, "nodes_falseleafs").tolist()),
        )
    ]
    missing = integers(node, "nodes_missing_value_tracks_true").tolist() or [0] * len(modes)
    targets, weights = integers(node, "leaf_targetids").tolist(), required_floats(node, "leaf_weights").tolist()
    sets = _member_sets(node, modes)
    branches: list[_Branch | None] = [None] * (len(modes) + len(weights))
    for place, mode in enumerate(modes):
        members = sets.get(place, [limits[place]])
        name = "EQ" if place in sets else _MODES[mode]
        at = place
        for step, member in enumerate(members):
            is_last = step == len(members) - 1
            no = ways[1][place] if is_last else len(branches)
            branches[at] = _Branch(features[place], name, member, ways[0][place], no, bool(missing[place]))
            if not is_last:
                at = len(branches)
                branches.append(None)
    given = {len(modes) + leaf: [pair] for leaf, pair in enumerate(zip(targets, weights, strict=True))}
    return _Forest(tuple(branches), tuple(integers(node, "tree_roots").tolist()), given)


def _member_sets(node: OnnxNode, modes: Sequence[int]) -> dict[int, list[float]]:
    """The members that each branch of mode MEMBER looks for: lists in the order of the branches, a NaN behind each."""
    asking = [place for place, mode in enumerate(modes) if mode == _MODES.index("MEMBER")]
    if not asking:
        return {}
    values = required_floats(node, "membership_values")
    ends = np.flatnonzero(np.isnan(values)).tolist()
    if len(ends) != len(asking):
        raise BadModelError(f"{len(ends)} sets of members for {len(asking)} branches", where=node.where)
    begins = [0, *(end + 1 for end in ends[:-1])]
    return {place: values[b:e].tolist() or [np.nan] for place, b, e in zip(asking, begins, ends, strict=True)}


OP_TYPES: Final[tuple[OpType, ...]] = (
    OpType("TreeEnsemble", _tree_ensemble, since=5, domain=DOMAIN),
    OpType("TreeEnsembleClassifier", _tree_ensemble_classifier, domain=DOMAIN),
    OpType("TreeEnsembleRegressor", _tree_ensemble_regressor, domain=DOMAIN),
)
