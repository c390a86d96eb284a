import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from m1pipe.data.transforms import GeneTransform, fit_gene_transform, floored_scale
from m1pipe.errors import InputError


def make_rows(n: int = 60, p: int = 7, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, p)) * np.linspace(1, 3, p) + 5).astype(np.float32)


def test_standardize_is_scikit_learns() -> None:
    X = make_rows()
    fitted = fit_gene_transform("standardize", [X])
    oracle = StandardScaler().fit(X.astype(np.float64))
    np.testing.assert_allclose(fitted.location, oracle.mean_, rtol=1e-6)
    np.testing.assert_allclose(fitted.scale, oracle.scale_, rtol=1e-6)
    np.testing.assert_allclose(fitted.apply(X), oracle.transform(X), atol=2e-6)


def test_minmax_is_scikit_learns() -> None:
    X = make_rows()
    fitted = fit_gene_transform("minmax", [X])
    np.testing.assert_allclose(fitted.apply(X), MinMaxScaler().fit_transform(X), atol=1e-6)


def test_center_and_none() -> None:
    X = make_rows()
    np.testing.assert_allclose(
        fit_gene_transform("center", [X]).apply(X), X - X.mean(axis=0), atol=1e-5
    )
    np.testing.assert_array_equal(fit_gene_transform("none", [X]).apply(X), X)


@given(
    cuts=st.lists(st.integers(0, 60), max_size=6),
    kind=st.sampled_from(["standardize", "center", "minmax"]),
)
@settings(deadline=None)
def test_blocking_does_not_matter(cuts: list[int], kind: str) -> None:
    X = make_rows()
    whole = fit_gene_transform(kind, [X])
    parts = fit_gene_transform(kind, np.array_split(X, sorted(cuts)))
    np.testing.assert_allclose(parts.location, whole.location, rtol=1e-6)
    np.testing.assert_allclose(parts.scale, whole.scale, rtol=1e-6)


def test_moments_survive_a_large_offset() -> None:
    X = make_rows().astype(np.float64) + 1e8
    fitted = fit_gene_transform("standardize", np.array_split(X, 9))
    np.testing.assert_allclose(fitted.scale, X.std(axis=0), rtol=1e-5)


@pytest.mark.parametrize("kind", ["standardize", "minmax"])
def test_a_gene_constant_in_training_never_blows_up(kind: str) -> None:
    X = make_rows()
    X[:, 2] = 0.1  # sums of 0.1 round, so that a naive variance is not exactly 0
    fitted = fit_gene_transform(kind, np.array_split(X, 7))
    test = make_rows(seed=1)
    spreads = np.delete(fitted.scale, 2)
    assert fitted.scale[2] == pytest.approx(0.1 * np.median(spreads), rel=1e-6)
    assert np.abs(fitted.apply(test)).max() < 200


def test_scale_is_one_where_nothing_varies() -> None:
    fitted = fit_gene_transform("standardize", [np.full((5, 3), 0.1, dtype=np.float32)])
    np.testing.assert_array_equal(fitted.scale, np.ones(3))
    np.testing.assert_array_equal(floored_scale(np.array([0.0, 10.0, 10.0])), [1.0, 10.0, 10.0])


@pytest.mark.parametrize("kind", ["standardize", "center", "minmax", "none"])
def test_invert_takes_apply_back(kind: str) -> None:
    X = make_rows()
    before = X.copy()
    fitted = fit_gene_transform(kind, [X])
    np.testing.assert_allclose(fitted.invert(fitted.apply(X)), X, rtol=1e-5)
    np.testing.assert_array_equal(X, before)
    assert fitted.apply(X).dtype == np.float32


def test_stored_and_read_back_exactly() -> None:
    fitted = fit_gene_transform("standardize", [make_rows()])
    back = GeneTransform.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert back.kind == fitted.kind
    np.testing.assert_array_equal(back.location, fitted.location)
    np.testing.assert_array_equal(back.scale, fitted.scale)


def test_damaged_store_is_refused() -> None:
    good = fit_gene_transform("standardize", [make_rows()]).to_dict()
    with pytest.raises(InputError, match="expected kind, location and scale"):
        GeneTransform.from_dict({"kind": "standardize"})
    with pytest.raises(InputError, match="positive scales"):
        GeneTransform.from_dict({**good, "scale": [0.0] * 7})


def test_bad_training_rows_are_refused() -> None:
    with pytest.raises(InputError, match="at least one training row"):
        fit_gene_transform("standardize", [])
    with pytest.raises(InputError, match="expected one of standardize"):
        fit_gene_transform("zscore", [make_rows()])
    X = make_rows()
    X[3, 4] = np.nan
    with warnings.catch_warnings(), pytest.raises(InputError, match="gene column 4"):
        fit_gene_transform("center", [X])


def test_wrong_width_is_refused() -> None:
    fitted = fit_gene_transform("none", [make_rows()])
    with pytest.raises(ValueError, match="expected rows of 7 genes"):
        fitted.apply(make_rows(p=6))
