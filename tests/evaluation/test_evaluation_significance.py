"""Single tests against scipy, statsmodels and values worked by hand."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.multitest import multipletests

from m1pipe.evaluation import significance as sig
from m1pipe.evaluation.significance import cohen_dz, relative_difference


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_nadeau_bengio_by_hand():
    """d = .1 to .5: mean .3, s^2 .025; (1/5 + 1/4) * .025 = .01125; t = 2 sqrt(2), df 4."""
    result = sig.nadeau_bengio([0.1, 0.2, 0.3, 0.4, 0.5], n_folds=5)
    t = 2 * np.sqrt(2)
    cdf = 0.5 + 3 / 8 * t / np.sqrt(3) * (1 - 8 / 3 / 12)  # Student's t with 4 df, closed form
    assert result.statistic == pytest.approx(t, rel=1e-12)
    assert result.p == pytest.approx(2 * (1 - cdf), rel=1e-10)
    assert result.ci_low == pytest.approx(0.3 - stats.t.ppf(0.975, 4) * np.sqrt(0.01125))
    assert result.n_independent == 5


def test_nadeau_bengio_is_scikit_learns_documented_formula(rng):
    """corrected_std = sqrt(var(d, ddof=1) * (1/kr + n_test/n_train)), 80 and 20 of 100 rows."""
    d = rng.normal(0.05, 0.2, 25)
    corrected_std = np.sqrt(np.var(d, ddof=1) * (1 / len(d) + 20 / 80))
    result = sig.nadeau_bengio(d, n_folds=5)
    assert result.statistic == pytest.approx(d.mean() / corrected_std, rel=1e-10)
    assert result.p == pytest.approx(2 * stats.t.sf(abs(d.mean() / corrected_std), 24), rel=1e-10)


def test_paired_t_matches_scipy(rng):
    a, b = rng.gamma(2, size=(2, 60))
    result = sig.paired_t(a - b)
    oracle = stats.ttest_rel(a, b)
    assert result.statistic == pytest.approx(oracle.statistic, rel=1e-10)
    assert result.p == pytest.approx(oracle.pvalue, rel=1e-10)
    interval = oracle.confidence_interval(0.95)
    assert (result.ci_low, result.ci_high) == pytest.approx(tuple(interval), rel=1e-10)


@pytest.mark.parametrize("n", [8, 40, 400])
def test_wilcoxon_matches_scipy_with_zeros_and_ties(rng, n):
    d = np.round(rng.normal(0.3, 1, n), 1)
    d[:2] = 0
    result = sig.wilcoxon(d)
    oracle = stats.wilcoxon(d, zero_method="pratt")
    assert (result.statistic, result.p) == pytest.approx((oracle.statistic, oracle.pvalue))


def test_rank_biserial_is_one_when_all_differences_agree_and_changes_sign():
    assert sig.wilcoxon([0.1, 0.2, 0.5]).effect == 1
    assert sig.wilcoxon([-0.1, -0.2, -0.5]).effect == -1
    # ranks 1, 2, 3; W+ = 1 + 3, W- = 2
    assert sig.wilcoxon([0.1, -0.2, 0.3]).effect == pytest.approx(2 / 6)


def test_clustered_t_is_the_t_test_of_donor_means(rng):
    groups = rng.permutation(np.repeat([f"d{i}" for i in range(9)], 6))
    d = rng.normal(size=54)
    means = [d[groups == g].mean() for g in np.unique(groups)]
    oracle = stats.ttest_1samp(means, 0)
    result = sig.clustered_t(d, groups)
    assert result.p == pytest.approx(oracle.pvalue, rel=1e-10)
    assert result.n_independent == 9


def test_clustered_t_equals_cluster_robust_regression_on_balanced_donors(rng):
    """With equal donors the cluster-robust (CR1) error of the mean is the error of the means."""
    groups = np.repeat(np.arange(12), 5)
    d = rng.normal(size=60) + np.repeat(rng.normal(size=12), 5)
    fit = smf.ols("d ~ 1", pd.DataFrame({"d": d})).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True}, use_t=True
    )
    correction = np.sqrt(12 / 11 * 59 / 59)  # CR1 against the plain sandwich
    means = d.reshape(12, 5).mean(axis=1)
    assert fit.bse["Intercept"] == pytest.approx(
        correction * np.sqrt(((means - d.mean()) ** 2).sum()) / 12
    )
    assert sig.clustered_t(d, groups).statistic == pytest.approx(fit.tvalues["Intercept"])


def test_donors_make_the_per_sample_test_anti_conservative(rng):
    """50 donors x 18 samples, intraclass correlation 0.2: per-sample t rejects far too often."""
    groups = np.repeat(np.arange(50), 18)
    p = {"sample": [], "donor": []}
    for _ in range(300):
        d = np.repeat(rng.normal(0, np.sqrt(0.2), 50), 18) + rng.normal(0, np.sqrt(0.8), 900)
        p["sample"].append(sig.paired_t(d).p)
        p["donor"].append(sig.clustered_t(d, groups).p)
    assert np.mean(np.array(p["sample"]) < 0.05) > 0.25
    assert np.mean(np.array(p["donor"]) < 0.05) < 0.08


def test_sign_flip_enumerates_all_patterns_of_few_units(rng):
    d = rng.normal(0.4, 1, 9)
    oracle = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", vectorized=False, n_resamples=np.inf
    )
    assert sig.sign_flip(d).p == pytest.approx(oracle.pvalue, rel=1e-10)
    assert sig.sign_flip([1.0, 2.0, 3.0]).p == pytest.approx(2 / 8)


def test_sign_flip_draws_are_seeded_and_close_to_the_t_test(rng):
    d = rng.normal(0.2, 1, 120)
    one, same, other = (sig.sign_flip(d, seed=s).p for s in (0, 0, 1))
    assert one == same != other
    assert one == pytest.approx(sig.paired_t(d).p, abs=0.01)
    assert sig.sign_flip(d + 100).p == pytest.approx(1e-4)


def test_bootstrap_interval_matches_scipys_bca(rng):
    """Both draw 20,000 times. An end is the 0.99 quantile or so, of density 0.027 a standard error:
    sqrt(0.0099 / 20000) / 0.027 = 0.026 of it, as much by the correction of bias; 4 of both's."""
    d = rng.gamma(1, size=80)
    oracle = stats.bootstrap((d,), np.mean, n_resamples=20000, method="BCa", rng=rng)
    low, high = sig.bootstrap_interval(d, n_draws=20000)
    error = 4 * 0.05 * d.std(ddof=1) / np.sqrt(80)
    assert low == pytest.approx(oracle.confidence_interval.low, abs=error)
    assert high == pytest.approx(oracle.confidence_interval.high, abs=error)


def test_holm_matches_statsmodels_and_keeps_nan(rng):
    p = rng.uniform(0, 0.1, 7)
    np.testing.assert_allclose(sig.holm(p), multipletests(p, method="holm")[1], rtol=1e-10)
    got = sig.holm([0.01, np.nan, 0.02])
    np.testing.assert_allclose(got, [0.03, np.nan, 0.04])
    assert len(sig.holm([])) == 0


def test_effect_sizes_by_hand():
    a, b = np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.0, 5.0])
    d = np.array([-1.0, 0.0, -1.0])
    assert cohen_dz(a - b) == pytest.approx(d.mean() / np.std(d, ddof=1))
    assert relative_difference(a, b) == pytest.approx(-2 / 9)
    assert relative_difference(b, b) == 0


@pytest.mark.parametrize("name", ["paired_t", "wilcoxon", "sign_flip"])
def test_no_difference_at_all_has_p_of_one(name):
    result = getattr(sig, name)(np.zeros(30))
    assert result.p == 1
    assert result.effect == 0


def test_flat_or_single_differences_are_nan_without_a_warning():
    flat = np.linspace(0, 1, 6) + 0.3 - np.linspace(0, 1, 6)
    assert np.ptp(flat) > 0  # rounding
    for result in (
        sig.paired_t(flat),
        sig.nadeau_bengio(flat, n_folds=3),
        sig.paired_t([0.3]),
        sig.clustered_t(flat, np.zeros(6)),
    ):
        assert np.isnan(result.p)
        assert result.difference == pytest.approx(0.3)
    assert sig.nadeau_bengio(np.zeros(5), n_folds=5).p == 1
    assert np.isnan(cohen_dz(flat))
    assert sig.bootstrap_interval(flat) == pytest.approx((0.3, 0.3))
    assert np.isnan(sig.bootstrap_interval([0.3])).all()
    assert sig.wilcoxon([0.3]).p == 1


def test_losses_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        sig.paired_t([0.1, np.nan])
    with pytest.raises(ValueError, match="groups: expected 3"):
        sig.clustered_t([1.0, 2.0, 3.0], ["a", "b"])
    with pytest.raises(ValueError, match="a sample has none"):
        sig.clustered_t([1.0, 2.0], ["a", None])
    with pytest.raises(ValueError, match="at least 2"):
        sig.nadeau_bengio([0.1, 0.2], n_folds=1)


def exchangeable_rivals(rng: np.random.Generator, gap: float) -> np.ndarray:
    """Fold differences, 10 x 5 folds on 100 rows, of two equally good one-feature regressions.

    y = x0 + x1 + noise; model a sees x0, model b sees x1 (times 1 - gap): a true null at gap 0.
    """
    n, n_folds, n_repeats = 100, 5, 10
    x = rng.normal(size=(n, 2))
    y = x @ [1.0, 1.0 - gap] + rng.normal(size=n)
    differences = []
    for _ in range(n_repeats):
        for test in np.array_split(rng.permutation(n), n_folds):
            train = np.setdiff1d(np.arange(n), test)
            mean_x, mean_y = x[train].mean(axis=0), y[train].mean()
            xc, yc = x[train] - mean_x, y[train] - mean_y
            slope = xc.T @ yc / (xc**2).sum(axis=0)
            error = y[test, None] - mean_y - (x[test] - mean_x) * slope
            differences.append(np.diff((error**2).mean(axis=0))[0])
    return np.array(differences)


def test_null_simulation_corrected_test_holds_and_naive_does_not(rng):
    d = [exchangeable_rivals(rng, gap=0.0) for _ in range(400)]
    corrected = np.mean([sig.nadeau_bengio(x, n_folds=5).p < 0.05 for x in d])
    naive = np.mean([sig.paired_t(x).p < 0.05 for x in d])
    assert corrected < 0.09  # 0.05 plus three and a half standard errors
    assert naive > 0.3


def test_corrected_test_sees_a_real_difference(rng):
    d = [exchangeable_rivals(rng, gap=0.9) for _ in range(100)]
    assert np.mean([sig.nadeau_bengio(x, n_folds=5).p < 0.05 for x in d]) > 0.8


def test_equal_rank_sums_are_no_lack_of_differences() -> None:
    found = sig.wilcoxon([3.0, -1.0, -2.0])  # ranks 3 against 1 + 2
    assert (found.statistic, found.effect) == (3, 0)


def test_two_units_have_an_interval_and_one_has_none() -> None:
    assert sig.bootstrap_interval([0.0, 1.0]) == pytest.approx((0, 1))
    assert np.isnan(sig.bootstrap_interval([1.0])).all()


def test_the_interval_of_symmetric_differences_with_ties_is_symmetric() -> None:
    """Many resamples have the very mean: counted as below it they would shift the interval."""
    low, high = sig.bootstrap_interval([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert low == pytest.approx(-high, abs=0.21)  # means come in steps of 0.2
