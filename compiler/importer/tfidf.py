"""Lowering of TfIdfVectorizer: how often known n-grams of whole numbers stand in each row.

All n-grams of one length at one distance are compared with all their places at once.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from birc.compiler.importer.builder import GraphBuilder
from birc.compiler.importer.casts import cast
from birc.compiler.importer.counting import reduced, require_helpers
from birc.compiler.importer.lowering import OpType, Results
from birc.compiler.importer.onnx_node import CannotLower, OnnxNode
from birc.compiler.importer.shape import reshape, slice_axis
from birc.runtime.dtypes import dtype
from birc.runtime.errors import BadModelError

_LARGEST_COMPARISONS: Final = 1000
"""Positions of n-grams times distances, a few nodes each."""


def _tfidf_vectorizer(node: OnnxNode, build: GraphBuilder) -> Results:
    """Counts (TF), whether there are any (IDF), or counts (TFIDF); the last two times the weight of the n-gram."""
    if not node.has("pool_int64s"):
        raise CannotLower("its n-grams are strings")
    x, shape = node.input(0), build.shape(node.input(0))
    places = node.ints_attribute("ngram_indexes")
    columns, mode = max(places) + 1, node.string_attribute("mode", "TF")
    rows = shape[0] if len(shape) == 2 else 1
    tokens = reshape(build, x, (rows, shape[-1] if shape else 1))
    found: list[str] = []
    where: list[int] = []
    for grams, indices in _pools(node, places):
        count = _counts(node, build, tokens, grams)
        if count:
            found.append(count)
            where.extend(indices)
    if len(set(where)) != len(where):
        raise CannotLower("two n-grams share a column of the result")
    zeros = build.splat(0, build.type_of(tokens).with_dtype(dtype("f32")).with_shape((rows, 1)))
    source = np.full(columns, len(where))
    source[where] = np.arange(len(where))
    counts = build.emit("concat", (*found, zeros), {"axis": 1})
    result = build.emit("gather", (counts, build.constant(source)), {"axis": 1})
    if mode == "IDF":
        result = cast(build, build.emit("greater", (result, build.scalar(0, result))), dtype("f32"))
    elif mode not in ("TF", "TFIDF"):
        raise BadModelError(f"mode {mode!r} of TfIdfVectorizer", where=node.where)
    if mode != "TF" and node.has("weights"):
        weights = np.zeros(columns, np.float32)
        weights[list(places)] = np.asarray(node.attributes["weights"], np.float32)
        result = build.emit("mul", (result, build.constant(weights)))
    return reshape(build, result, (*shape[:-1], columns))


def _pools(node: OnnxNode, places: tuple[int, ...]) -> list[tuple[np.ndarray, list[int]]]:
    """The n-grams of each length that is asked for, one a row, and their columns of the result.

    Of equal n-grams the last counts.
    """
    pool = np.asarray(node.ints_attribute("pool_int64s"), np.int64)
    begins = (*node.ints_attribute("ngram_counts"), len(pool))
    lengths = range(node.int_attribute("min_gram_length", 1), node.int_attribute("max_gram_length", 1) + 1)
    pools, first = [], 0
    for length, (begin, end) in enumerate(pairwise(begins), 1):
        grams = pool[begin:end].reshape(-1, length)
        columns = places[first : first + len(grams)]
        first += len(grams)
        last = {tuple(gram): row for row, gram in enumerate(grams.tolist())}
        kept = sorted(last.values())
        if length in lengths and kept:
            pools.append((grams[kept], [columns[row] for row in kept]))
    return pools


def _counts(node: OnnxNode, build: GraphBuilder, tokens: str, grams: np.ndarray) -> str:
    """How often each n-gram stands in each row, at any distance of its members up to the greatest; FP32.

    Single tokens have no distance. "" when no row is long enough.
    """
    rows, tokens_in_row = build.shape(tokens)
    count, length = grams.shape
    distances = range(1, node.int_attribute("max_skip_count", 0) + 2) if length > 1 else range(1, 2)
    if len(distances) * length > _LARGEST_COMPARISONS:
        raise CannotLower(f"n-grams of {length} members at {len(distances)} distances")
    total = ""
    for distance in distances:
        begins = tokens_in_row - distance * (length - 1)
        if begins < 1:
            break
        require_helpers(rows * begins * count, "the comparison with all n-grams")
        matches = ""
        for member in range(length):
            seen = slice_axis(build, tokens, 1, member * distance, member * distance + begins)
            wanted = build.constant(grams[:, member].astype(build.type_of(tokens).dtype.numpy))
            equal = build.emit("equal", (reshape(build, seen, (rows, begins, 1)), wanted))
            matches = build.emit("and", (matches, equal)) if matches else equal
        found = reduced(build, "reduce_sum", cast(build, matches, dtype("f32")), 1)
        total = build.emit("add", (total, found)) if total else found
    return total


OP_TYPES: Final[tuple[OpType, ...]] = (OpType("TfIdfVectorizer", _tfidf_vectorizer),)
