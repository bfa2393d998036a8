"""Lowerings of the ai.onnx.ml operators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from lowering_case import F32, I64, Case, case, f32, ints
from onnx import numpy_helper

ML = "ai.onnx.ml"
X = f32(6, 4)
WHOLE = np.random.default_rng(3).integers(-4, 5, (6, 4))
NAN = np.float32(np.nan)
HOLED = np.where(np.abs(X) < 0.6, NAN, X)
WEIGHTS = np.linspace(-1.0, 1.5, 12).round(3)


def ml(op: str, *inputs: np.ndarray, version: int = 1, **others: Any) -> Case:
    return replace(case(op, *inputs, domain=ML, **others), domain_version=version)


FEATURES = (
    ml("ArrayFeatureExtractor", X, ints(3, 1)),
    ml("ArrayFeatureExtractor", X[0], ints(3, 1, 1)),
    ml("ArrayFeatureExtractor", WHOLE, np.array([[2, 0]], I64)),
    ml("Binarizer", X, threshold=0.3),
    ml("Binarizer", WHOLE.astype(np.int32), threshold=-1.5, oracle="onnx"),
    ml("FeatureVectorizer", X, f32(6, 2), inputdimensions=[4, 2]),
    ml("FeatureVectorizer", X, f32(6, 2), inputdimensions=[3, 5]),
    ml("Imputer", HOLED, imputed_value_floats=[1.0, 2.0, 3.0, 4.0], replaced_value_float=float("nan")),
    ml("Imputer", WHOLE, imputed_value_int64s=[9], replaced_value_int64=2, oracle="onnx"),
    ml("LabelEncoder", WHOLE, version=2, keys_int64s=[3, -2, 0], values_int64s=[30, 20, 10], default_int64=7),
    ml("LabelEncoder", WHOLE, version=2, keys_int64s=[3, -2, 0], values_floats=[0.5, 2.0, 1.0]),
    ml("LabelEncoder", HOLED, version=4, keys_floats=[float("nan"), 9.0], values_int64s=[4, 5], default_int64=0),
    ml(
        "LabelEncoder",
        WHOLE.astype(np.int32),
        version=4,
        keys_tensor=numpy_helper.from_array(np.array([1, 2], np.int32)),
        values_tensor=numpy_helper.from_array(np.array([5, 6], np.int16)),
        default_tensor=numpy_helper.from_array(np.array([-7], np.int16)),
        oracle="onnx",
    ),
    ml("Normalizer", np.abs(X), norm="MAX"),
    ml("Normalizer", X, norm="L1"),
    ml("Normalizer", X, norm="L2", oracle="onnx"),
    ml("Normalizer", np.zeros((2, 3), F32), norm="L1"),
    ml("OneHotEncoder", WHOLE, cats_int64s=[3, -2, 0]),
    ml("OneHotEncoder", WHOLE[0].astype(F32), cats_int64s=list(range(-4, 5)), zeros=0),
    ml("Scaler", X, offset=[0.5, 1.0, -2.0, 0.0], scale=[2.0, 0.5, 1.0, -1.0]),
    ml("Scaler", WHOLE, offset=[0.5], scale=[3.0], oracle="onnxruntime"),
)

LINEAR = {"coefficients": WEIGHTS.tolist(), "intercepts": [0.1, -0.2, 0.3]}
LINES = (
    ml("LinearRegressor", X, targets=3, **LINEAR),
    ml("LinearRegressor", X[0], targets=1, coefficients=[1.0, 2.0, 3.0, 4.0]),
    *(
        ml("LinearClassifier", X, outputs=2, classlabels_ints=[5, 3, 9], post_transform=word, **LINEAR)
        for word in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")
    ),
    *(
        ml(
            "LinearClassifier",
            X,
            outputs=2,
            classlabels_ints=[5, 3],
            post_transform=word,
            coefficients=[1.0, -2.0, 0.5, 1.5],
            intercepts=[0.1],
        )
        for word in ("NONE", "LOGISTIC")
    ),
)

# Two trees over features 0 to 3: (feature, mode, threshold, yes, no), a leaf without.
TREES = (
    ((0, "BRANCH_LEQ", 0.2, 1, 2), (2, "BRANCH_LT", -0.5, 3, 4), (1, "BRANCH_LEQ", 0.7, 5, 6), *((None,) * 4)),
    ((3, "BRANCH_LEQ", 0.0, 1, 2), None, None),
)
MIXED = (
    ((0, "BRANCH_GT", 0.2, 1, 2), (2, "BRANCH_GTE", -0.5, 3, 4), (1, "BRANCH_NEQ", 0.7, 5, 6), *((None,) * 4)),
    ((3, "BRANCH_EQ", 0.0, 1, 2), None, None),
)


def trees(forest: tuple[Any, ...], kind: str, targets: int, *, missing: int = 0, low: float = -1.0) -> dict[str, Any]:
    """The attributes of the older operators; every leaf gives to the targets in turn, the first to all."""
    nodes = [(tree, place, entry) for tree, entries in enumerate(forest) for place, entry in enumerate(entries)]
    leaves = [(tree, place) for tree, place, entry in nodes if entry is None]
    pairs = [
        (leaf, target)
        for number, leaf in enumerate(leaves)
        for target in range(targets)
        if target == number % targets or not number
    ]
    rows = [entry or (0, "LEAF", 0.0, 0, 0) for _, _, entry in nodes]
    return {
        "nodes_treeids": [tree for tree, _, _ in nodes],
        "nodes_nodeids": [place for _, place, _ in nodes],
        "nodes_featureids": [row[0] for row in rows],
        "nodes_modes": [row[1] for row in rows],
        "nodes_values": [row[2] for row in rows],
        "nodes_truenodeids": [row[3] for row in rows],
        "nodes_falsenodeids": [row[4] for row in rows],
        "nodes_missing_value_tracks_true": [missing * (place % 2) for place in range(len(rows))],
        f"{kind}_treeids": [leaf[0] for leaf, _ in pairs],
        f"{kind}_nodeids": [leaf[1] for leaf, _ in pairs],
        f"{kind}_ids": [target for _, target in pairs],
        f"{kind}_weights": np.linspace(low, 2.0, len(pairs)).round(3).tolist(),
    }


def tensor(*values: float, kind: type[np.generic] = F32) -> Any:
    return numpy_helper.from_array(np.array(values, kind))


MEMBERS = {
    "n_targets": 2,
    "nodes_featureids": [0, 1, 0],
    "nodes_modes": tensor(6, 0, 6, kind=np.uint8),
    "nodes_splits": tensor(0.0, 0.5, 0.0),
    "nodes_truenodeids": [0, 1, 3],
    "nodes_falsenodeids": [1, 2, 4],
    "nodes_trueleafs": [1, 1, 1],
    "nodes_falseleafs": [0, 0, 1],
    "membership_values": tensor(1.0, 2.0, -3.0, np.nan, 0.0, np.nan),
    "leaf_targetids": [0, 1, 0, 0, 1],
    "leaf_weights": tensor(1.5, 2.5, 9.0, -1.0, 4.0),
    "tree_roots": [0],
}
FORESTS = (
    *(
        ml("TreeEnsembleRegressor", X, n_targets=2, aggregate_function=word, **trees(TREES, "target", 2))
        for word in ("SUM", "AVERAGE", "MIN", "MAX")
    ),
    ml("TreeEnsembleRegressor", WHOLE.astype(F32), n_targets=1, base_values=[0.5], **trees(TREES, "target", 1)),
    ml("TreeEnsembleRegressor", HOLED, n_targets=1, **trees(MIXED, "target", 1, missing=1)),
    *(
        ml(
            "TreeEnsembleClassifier",
            X,
            outputs=2,
            classlabels_int64s=[4, 8, 6],
            post_transform=word,
            base_values=[0.1, 0.2, 0.3],
            **trees(TREES, "class", 3),
        )
        for word in ("NONE", "SOFTMAX", "LOGISTIC")
    ),
    *(
        ml(
            "TreeEnsembleClassifier",
            X,
            outputs=2,
            classlabels_int64s=[4, 8],
            post_transform=word,
            **trees(TREES, "class", 1, low=low),
        )
        for word, low in (("NONE", -1.0), ("LOGISTIC", -1.0), ("NONE", 0.1))
    ),
    ml("TreeEnsemble", WHOLE.astype(F32), version=5, oracle="onnx", **MEMBERS),
    ml("TreeEnsemble", WHOLE.astype(F32), version=5, oracle="onnx", aggregate_function=0, **MEMBERS),
)

SUPPORT = f32(7, 4)
PAIRS = {"support_vectors": SUPPORT.reshape(-1).tolist(), "vectors_per_class": [3, 2, 2]}
KERNELS = (
    {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0]},
    {"kernel_type": "RBF", "kernel_params": [0.3, 0.0, 0.0]},
    {"kernel_type": "POLY", "kernel_params": [0.3, 0.5, 3.0]},
    {"kernel_type": "SIGMOID", "kernel_params": [0.3, 0.1, 0.0]},
)
MACHINES = (
    *(
        ml(
            "SVMRegressor",
            X,
            n_supports=7,
            support_vectors=PAIRS["support_vectors"],
            coefficients=WEIGHTS[:7].tolist(),
            rho=[0.25],
            tolerance=1e-4,
            **kernel,
        )
        for kernel in KERNELS
    ),
    ml("SVMRegressor", X, coefficients=WEIGHTS[:4].tolist(), rho=[0.25], one_class=1, kernel_params=[0.0, 0.0, 0.0]),
    *(
        ml(
            "SVMClassifier",
            X,
            outputs=2,
            classlabels_ints=[4, 8, 6],
            coefficients=f32(2, 7).reshape(-1).tolist(),
            rho=[0.25, -0.5, 0.1],
            tolerance=1e-4,
            **PAIRS,
            **kernel,
        )
        for kernel in KERNELS
    ),
)

CASES = (*MACHINES, *FEATURES, *LINES, *FORESTS)
