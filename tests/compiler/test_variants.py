"""Several sizes in one package: what is compiled, which variant runs, and that padding changes no value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from birc.compiler import compile_model, resume
from birc.compiler.variants import variant_sizes
from birc.runtime import Package, load
from birc.runtime.errors import UsageError

RANDOM = np.random.default_rng(3)


def attention() -> onnx.ModelProto:
    """Samples do not meet, places of a sequence do; the weights are the same for all sizes."""
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        attention (float[b,s,64] x) => (float[b,s,64] y) {
            q = MatMul(x, w) t = Transpose<perm = [0, 2, 1]>(x) z = MatMul(q, t) [attend] p = Softmax(z)
            y = MatMul(p, x)
        }
    """)
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32) / 8
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return model


def compiled(model: onnx.ModelProto, **options) -> Package:
    package = compile_model(model, target="tiny", **options)
    assert package is not None
    return package


@pytest.fixture(scope="module")
def package() -> Package:
    return compiled(attention(), dims={"b": [1, 4], "s": [8, 16]})


def inputs(batch: int, length: int) -> dict[str, np.ndarray]:
    return {"x": RANDOM.standard_normal((batch, length, 64)).astype(np.float32)}


def test_every_combination_is_a_variant(package: Package) -> None:
    sizes = [dict(variant.dimensions) for variant in package.manifest.variants]
    assert sizes == [{"b": 1, "s": 8}, {"b": 1, "s": 16}, {"b": 4, "s": 8}, {"b": 4, "s": 16}]
    assert list(package.programs) == [f"programs/{number}.bin" for number in range(4)]
    assert [variant.inputs[0].shape for variant in package.manifest.variants][1] == (1, 16, 64)


def test_weights_are_shared(package: Package) -> None:
    alone = compiled(attention(), dims={"b": 4, "s": 16})
    together = sum(array.nbytes for array in package.weights.values())
    assert together < 2 * sum(array.nbytes for array in alone.weights.values())


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        compiled(attention(), dims={"b": [2, 1], "s": 8}).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("batch", "length", "dimensions", "padded"),
    [
        (1, 8, {"b": 1, "s": 8}, {}),
        (4, 16, {"b": 4, "s": 16}, {}),
        (3, 8, {"b": 4, "s": 8}, {"b": (3, 4)}),
        (2, 16, {"b": 4, "s": 16}, {"b": (2, 4)}),
    ],
)
def test_the_smallest_that_fits_runs(package: Package, batch, length, dimensions, padded) -> None:
    session, given = load(package), inputs(batch, length)
    (expected,) = ReferenceEvaluator(attention()).run(None, given)
    found = session.run(given)["y"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert session.last_run is not None
    assert (session.last_run.dimensions, session.last_run.padded) == (dimensions, padded)


@pytest.mark.parametrize(
    ("batch", "length", "message"),
    [
        (
            1,
            5,
            r"'x' has the shape \[1,5,64\].*b=1, s=8; b=1, s=16;.*s cannot be padded: node 'attend' \(softmax\) mixes",
        ),
        (5, 8, r"'x' has the shape \[5,8,64\].*none holds b=5, s=8 \(compile the model for b=5, s=8 too\)"),
        (0, 8, "none holds b=0"),
    ],
)
def test_what_no_variant_takes_is_said(package: Package, batch: int, length: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(package).run(inputs(batch, length))


def test_other_differences_are_no_matter_of_variants(package: Package) -> None:
    with pytest.raises(UsageError, match=r"must be f32\[1,8,64\], got f32\[1,8,63\]"):
        load(package).run({"x": np.zeros((1, 8, 63), np.float32)})
    with pytest.raises(UsageError, match=r"got f64\[3,8,64\]"):
        load(package).run({"x": np.zeros((3, 8, 64))})


def test_inputs_must_agree_on_a_dimension() -> None:
    text = '<ir_version: 8, opset_import: ["" : 18]> m (float[n,4] a, float[n,4] b) => (float[n,4] y) { y = Add(a, b) }'
    session = load(compiled(parser.parse_model(text), dims={"n": 8}))
    with pytest.raises(UsageError, match="dimension 'n' is 3 in input 'a' and 4 in 'b'"):
        session.run({"a": np.zeros((3, 4), np.float32), "b": np.zeros((4, 4), np.float32)})


def test_nameless_first_dimensions_are_one_batch() -> None:
    text = '<ir_version: 8, opset_import: ["" : 18]> m (float[a,4] x, float[b,4] z) => (float[c,4] y) { y = Add(x, z) }'
    session = load(compiled(parser.parse_model(text), batch=[2, 8]))
    given = {name: RANDOM.standard_normal((5, 4)).astype(np.float32) for name in "xz"}
    np.testing.assert_array_equal(session.run(given)["y"], given["x"] + given["z"])
    assert session.last_run is not None
    assert session.last_run.padded == {"batch": (5, 8)}


def test_what_is_added_asks_for_nothing_new() -> None:
    """Indices that zeros would lead out of their range."""
    text = """<ir_version: 8, opset_import: ["" : 18]> m (int64[n] i) => (float[n,2] y)
        <float[3,2] table = {1, 2, 3, 4, 5, 6}, int64 less = {5}> { j = Sub(i, less) y = Gather(table, j) }"""
    session = load(compiled(parser.parse_model(text), dims={"n": 8}))
    table = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(session.run({"i": np.array([5, 7, 6])})["y"], table[[0, 2, 1]])


def test_a_variant_is_profiled_by_its_dimensions(package: Package) -> None:
    session = load(package)
    assert session.profile(variant={"b": 4, "s": 16}).batch == 4
    assert session.profile(variant={"s": 16}).to_json() == session.profile(variant=1).to_json()
    with pytest.raises(UsageError, match=r"no variant with s=9 \(there is b=1, s=8; b=1"):
        session.profile(variant={"s": 9})
    with pytest.raises(UsageError, match="no variant 4"):
        session.profile(variant=4)


def test_each_variant_is_told_of_and_dumped(tmp_path: Path) -> None:
    told: list[str] = []
    package = compiled(attention(), dims={"b": [1, 2], "s": 8}, dump_ir=tmp_path, progress=told.append)
    assert {"b=1, s=8: tile", "b=2, s=8: tile", "import for other sizes"} <= set(told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["variant0", "variant1"]
    assert {path.name for path in (tmp_path / "variant0").iterdir()} == {
        path.name for path in (tmp_path / "variant1").iterdir()
    }
    assert package.manifest.passes.count("tile") == 1


def test_a_dump_of_one_variant_goes_on(tmp_path: Path) -> None:
    package = compiled(attention(), dims={"b": [1, 2], "s": 8}, dump_ir=tmp_path)
    again = compile_model_from(tmp_path / "variant1")
    assert again.programs["programs/0.bin"].kernels == package.programs["programs/1.bin"].kernels


def compile_model_from(folder: Path) -> Package:
    package = resume(next(folder.glob("*_fuse.ir")), target="tiny")
    assert package is not None
    return package


@pytest.mark.parametrize(
    ("dims", "batch", "message"),
    [
        ({"a": list(range(1, 9)), "b": list(range(1, 10))}, None, "72 combinations of sizes, the limit is 64"),
        ({"a": []}, None, "'a' is given no size"),
    ],
)
def test_sizes_that_cannot_be(dims, batch, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        variant_sizes(dims, batch)


def test_sizes_given_twice_are_one() -> None:
    assert len(variant_sizes({"a": [4, 4, 8]}, [1, 1])) == 2
    assert [sizes.label for sizes in variant_sizes({"a": 4}, [1, 8])] == ["batch=1, a=4", "batch=8, a=4"]


def test_host_steps_are_in_variants_but_not_padded() -> None:
    text = '<ir_version: 8, opset_import: ["" : 18]> m (float[n,4] x) => (int64[2,k] y) { z = Relu(x) y = NonZero(z) }'
    package = compiled(parser.parse_model(text), dims={"n": [2, 4]})
    session = load(package)
    given = {"x": RANDOM.standard_normal((4, 4)).astype(np.float32)}
    np.testing.assert_array_equal(session.run(given)["y"], np.array(np.nonzero(given["x"] > 0)))
    with pytest.raises(UsageError, match=r"n cannot be padded: node 'NonZero_1' \(NonZero\) runs on the host"):
        session.run({"x": np.zeros((3, 4), np.float32)})
