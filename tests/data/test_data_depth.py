"""Thinned counts: binomial means and spreads, one noise a sample, depths of the other file."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from m1pipe.data.depth import (
    Thinning,
    depth_ratio,
    depths,
    in_units,
    plan_thinning,
    thin_rows,
    thinned,
)
from m1pipe.data.matrix import Matrix
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix


def _counts(
    n: int, p: int = 50, *, mean: float = 100.0, name: str = "u", units: str = "counts"
) -> anndata.AnnData:
    """Counts of about n * p * mean, each sample of a depth of its own."""
    rng = np.random.default_rng([n, p, int(mean)])
    X = rng.poisson(rng.uniform(0.5, 1.5, (n, 1)) * mean * rng.uniform(0.2, 1.8, p))
    obs = pd.DataFrame(index=[f"{name}{i}" for i in range(n)])
    var = pd.DataFrame(index=[f"g{j}" for j in range(p)])
    return anndata.AnnData(X.astype(np.float32), obs, var, uns={"units": units})


@pytest.fixture
def deep() -> Matrix:
    return open_matrix(_counts(200))


@pytest.fixture
def shallow() -> Matrix:
    return open_matrix(_counts(80, mean=10.0, name="x"))


def _plan(deep: Matrix, other: Matrix, seed: int = 0) -> Thinning:
    return plan_thinning(deep, other, np.arange(deep.n_samples), seed=seed)


def _seen(deep: Matrix, plan: Thinning) -> np.ndarray:
    return thinned(deep, plan.kept, plan.seed, plan.totals).read()


def test_counts_are_kept_as_by_coins() -> None:
    X = np.full((1, 20_000), 40, dtype=np.float32)
    thin_rows(X, np.array([0.25]), np.array(["a"]), 0, where="data")
    found = np.bincount(X[0].astype(int), minlength=41)
    expected = stats.binom.pmf(np.arange(41), 40, 0.25) * 20_000
    enough = expected > 20
    assert found[~enough].sum() < 100
    chi2 = ((found - expected)[enough] ** 2 / expected[enough]).sum()
    assert stats.chi2.sf(chi2, enough.sum() - 1) > 1e-4


def test_depths_come_to_those_of_the_other_file(deep: Matrix, shallow: Matrix) -> None:
    before, wanted = deep.read().sum(axis=1), shallow.read().sum(axis=1)
    assert np.median(before) > 5 * np.median(wanted)
    plan = _plan(deep, shallow)
    after = _seen(deep, plan).sum(axis=1)
    assert stats.ks_2samp(after, wanted).pvalue > 0.01
    np.testing.assert_array_equal(after, plan.totals)
    assert plan.record["n_thinned"] == 200
    assert plan.record["n_left"] == plan.record["n_empty"] == 0
    assert plan.record["depth_before"] == pytest.approx(
        np.quantile(before, [0.05, 0.25, 0.5, 0.75, 0.95])
    )
    assert plan.record["depth_after"][2] == np.median(after)
    assert plan.record["depth_file"][2] == np.median(wanted)
    assert "median" in str(plan) and "200 of 200 samples thinned" in str(plan)


def test_two_kinds_of_depth_are_met_by_ranks(deep: Matrix) -> None:
    mixed = _counts(80, mean=2.0, name="x")
    mixed.X[:40] *= 20
    wanted = mixed.X.sum(axis=1)
    assert deep.read().sum(axis=1).min() < wanted.max()
    before, after = deep.read().sum(axis=1), _plan(deep, open_matrix(mixed)).totals
    half = np.argsort(before)[:100]
    assert 4 * after[half].max() < np.sort(wanted)[40]
    assert stats.spearmanr(before, after)[0] > 0.98
    reached = before >= np.quantile(wanted, (stats.rankdata(before) - 0.5) / 200)
    assert reached.sum() > 150
    expected = np.quantile(wanted, (stats.rankdata(before) - 0.5) / 200, method="inverted_cdf")
    np.testing.assert_allclose(after[reached], expected[reached], atol=5 * wanted.max() ** 0.5)


def test_nothing_is_added_and_rows_are_the_same_however_they_are_read(
    deep: Matrix, shallow: Matrix
) -> None:
    plan = _plan(deep, shallow)
    seen, whole = thinned(deep, plan.kept, 0, plan.totals), _seen(deep, plan)
    assert (whole <= deep.read()).all() and (whole == np.floor(whole)).all()
    np.testing.assert_array_equal(seen.take(np.array([7, 3, 150])), whole[[7, 3, 150]])
    np.testing.assert_array_equal(seen.rows(20, 30), whole[20:30])
    np.testing.assert_array_equal(seen.obs["total_counts"], whole.sum(axis=1))
    np.testing.assert_array_equal(_seen(deep, _plan(deep, shallow)), whole)
    assert (_seen(deep, _plan(deep, shallow, seed=1)) != whole).any()
    order = np.random.default_rng(0).permutation(200)
    other = open_matrix(_counts(200)[order])
    again = thinned(other, plan.kept[order], 0).read()
    np.testing.assert_array_equal(again, whole[order])


def test_genes_of_one_file_alone_do_not_count(deep: Matrix) -> None:
    alone = _counts(80, mean=10.0, name="x")
    alone.X[:, :10] *= 100
    alone.var_names = [f"other{j}" for j in range(10)] + [f"g{j}" for j in range(10, 50)]
    plan = _plan(deep, open_matrix(alone))
    assert plan.record["n_genes"] == 40
    after = _seen(deep, plan)
    assert np.median(after[:, 10:].sum(axis=1)) == pytest.approx(
        np.median(alone.X[:, 10:].sum(axis=1)), rel=0.15
    )
    share = after[:, :10].sum() / after.sum()
    assert share == pytest.approx(deep.read()[:, :10].sum() / deep.read().sum(), rel=0.05)


def test_samples_that_are_not_deeper_are_left(deep: Matrix) -> None:
    mixed = _counts(80, name="x")
    mixed.X[:40] = np.float32(1000.0)
    plan = _plan(deep, open_matrix(mixed))
    left = plan.kept == 1
    assert 80 < left.sum() == plan.record["n_left"] < 200
    np.testing.assert_array_equal(_seen(deep, plan)[left], deep.read()[left])


def test_samples_without_a_count_left_are_kept_out(deep: Matrix) -> None:
    poor = _counts(80, name="x")
    poor.X[:] = 0
    poor.X[:, 0] = 1
    plan = _plan(deep, open_matrix(poor))
    empty = plan.totals == 0
    assert 40 < empty.sum() == plan.record["n_empty"] < 120
    np.testing.assert_array_equal(plan.rows, np.flatnonzero(~empty))


def test_levels_with_their_totals_serve_as_well_as_counts(deep: Matrix, shallow: Matrix) -> None:
    counts = shallow.read()
    totals = counts.sum(axis=1, dtype=np.float64)
    units = Units("log2_normalized1", 1e4)
    levels = in_units(shallow, units, totals)
    np.testing.assert_allclose(
        levels.read(), np.log2(1 + 1e4 * counts / totals[:, None]), rtol=1e-5
    )
    np.testing.assert_array_equal(depths(levels), totals)
    some = np.arange(10, 30)
    np.testing.assert_allclose(depths(levels, some), counts[:, some].sum(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(depths(shallow, some), counts[:, some].sum(axis=1))
    assert _plan(deep, levels).record["depth_file"] == _plan(deep, shallow).record["depth_file"]
    assert depths(in_units(shallow, units)) is None


@pytest.mark.parametrize("name", ["normalized", "log2_normalized1", "ln_normalized1"])
def test_depth_over_some_genes_is_that_of_the_counts(name: str) -> None:
    counts = _counts(30)
    X, totals = counts.X.astype(np.float64), counts.X.sum(axis=1)
    levels = X / totals[:, None] * 1e4
    logs = {"log2_normalized1": np.log2, "ln_normalized1": np.log}
    levels = logs[name](levels + 1) if name in logs else levels
    made = anndata.AnnData(levels.astype(np.float32), counts.obs, counts.var)
    made.obs["total_counts"] = totals
    made.uns |= {"units": name, "target_sum": 1e4}
    some = np.array([3, 7, 8])
    np.testing.assert_allclose(depths(open_matrix(made), some), X[:, some].sum(axis=1), rtol=1e-5)


def test_what_cannot_be_thinned_is_refused(deep: Matrix, shallow: Matrix) -> None:
    logs = in_units(deep, Units("log2_normalized1", 1e4))
    with pytest.raises(InputError, match="thin_to: expected counts; found log2_normalized1"):
        _plan(logs, shallow)
    with pytest.raises(InputError, match=r"found log2_normalized1 .* without total_counts in obs"):
        _plan(deep, logs)
    strange = _counts(5, name="x")
    strange.var_names = [f"other{j}" for j in range(50)]
    with pytest.raises(InputError, match="found no shared gene"):
        _plan(deep, open_matrix(strange))
    halves = _counts(30)
    halves.X[3, 4] = 1.5
    with pytest.raises(InputError, match=r"expected whole counts.*sample 'u3'"):
        _plan(open_matrix(halves), shallow)


def test_a_sample_without_counts_has_no_levels(shallow: Matrix) -> None:
    gap = _counts(80, mean=10.0, name="x")
    gap.X[5] = 0
    levels = in_units(open_matrix(gap), Units("log2_normalized1", 1e4)).read()
    assert np.isnan(levels[5]).all()
    assert np.isfinite(np.delete(levels, 5, axis=0)).all()


def test_depth_ratio_is_that_of_medians_over_shared_genes(deep: Matrix) -> None:
    other = _counts(80, mean=10.0, name="x")[:, 10:].copy()
    found = depth_ratio(deep, open_matrix(other))
    assert found is not None
    assert found.n_genes == 40
    here, there = (np.median(X.sum(axis=1)) for X in (deep.read()[:, 10:], other.X))
    assert found.ratio == pytest.approx(here / there)
    assert found.apart
    back = depth_ratio(open_matrix(other), deep)
    assert back is not None
    assert back.ratio == pytest.approx(1 / found.ratio)
    assert back.apart
    same = depth_ratio(deep, deep)
    assert same is not None
    assert not same.apart
    assert depth_ratio(deep, open_matrix(_counts(9, units="tpm"))) is None
