"""Every score against a closed form, a reference library or a brute-force loop."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import linalg, stats
from scipy.spatial.distance import cdist
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from statsmodels.stats.multitest import multipletests

from m1pipe.synthesis.c2st import (
    auc,
    auc_error,
    balanced_accuracy,
    logistic_scores,
    tell_apart,
)
from m1pipe.synthesis.dependence import correlation_scores, frechet_score
from m1pipe.synthesis.marginal import distances, fit_trend, gene_table, marginal_scores
from m1pipe.synthesis.mmd_prdc import bandwidth, mmd_p_value, mmd_score, prdc_scores
from m1pipe.synthesis.privacy import Distances, distance_values
from m1pipe.synthesis.resampling import drawn_apart, shuffled
from m1pipe.synthesis.utility import class_gaussian, expression_scores, rows_with_class


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two sets with ties at zero and genes of different spread."""
    spread = rng.uniform(0.3, 2, 30)
    H, A = (np.maximum(rng.normal(1, 1, (60, 30)) * spread, 0) for _ in range(2))
    assert (H == 0).any()
    return H.astype(np.float32), A.astype(np.float32)


def test_distances_are_scipys(pair: tuple[np.ndarray, np.ndarray]) -> None:
    H, A = pair
    ks, w1 = distances(H, A)
    for j in range(H.shape[1]):
        h, a = H[:, j].astype(float), A[:, j].astype(float)
        assert ks[j] == pytest.approx(stats.ks_2samp(h, a).statistic, abs=1e-12)
        assert w1[j] == pytest.approx(stats.wasserstein_distance(h, a), rel=1e-6)


def test_marginal_scores_follow_their_definitions(pair: tuple[np.ndarray, np.ndarray]) -> None:
    H, A = (X.astype(np.float64) for X in pair)
    got = marginal_scores(*pair, is_log=True)
    ks = np.array([stats.ks_2samp(h, a).statistic for h, a in zip(H.T, A.T, strict=True)])
    p = [stats.ks_2samp(h, a, method="asymp").pvalue for h, a in zip(H.T, A.T, strict=True)]
    raw = [np.exp2(X) - 1 for X in (H, A)]
    ratio = A.var(axis=0, ddof=1) / H.var(axis=0, ddof=1)
    expected = {
        "ks_mean": ks.mean(),
        "ks_median": np.median(ks),
        "ks_p95": np.quantile(ks, 0.95),
        "mean_r": stats.pearsonr(H.mean(axis=0), A.mean(axis=0))[0],
        "mean_rank_r": stats.spearmanr(H.mean(axis=0), A.mean(axis=0))[0],
        "mean_r_raw": stats.pearsonr(raw[0].mean(axis=0), raw[1].mean(axis=0))[0],
        "sd_r": stats.pearsonr(H.std(axis=0, ddof=1), A.std(axis=0, ddof=1))[0],
        "sd_rank_r": stats.spearmanr(H.std(axis=0), A.std(axis=0))[0],
        "sd_r_raw": stats.pearsonr(raw[0].std(axis=0), raw[1].std(axis=0))[0],
        "variance_ratio": stats.gmean(ratio),
        "variance_ratio_arithmetic": ratio.mean(),
        "variance_ratio_pooled": A.var(axis=0).sum() / H.var(axis=0).sum(),
        "variance_ratio_raw": stats.gmean(raw[1].var(axis=0) / raw[0].var(axis=0)),
        "variance_log_rms": np.sqrt(np.mean(np.log(ratio) ** 2)),
        "zero_gap": np.abs((H == 0).mean(axis=0) - (A == 0).mean(axis=0)).mean(),
        "zero_r": stats.pearsonr((H == 0).mean(axis=0), (A == 0).mean(axis=0))[0],
        "outside_range": ((A < H.min(axis=0)) | (A > H.max(axis=0))).mean(),
        "totals_ks": stats.ks_2samp(raw[0].sum(axis=1), raw[1].sum(axis=1)).statistic,
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-5, abs=1e-9), name
    significant = multipletests(p, 0.05, "fdr_bh")[0].mean()
    assert got["ks_significant"] == pytest.approx(significant, abs=0.04)


def test_a_gene_may_be_constant_and_raw_scores_need_a_logarithm(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    H, A = (X.copy() for X in pair)
    H[:, 0], A[:, 1] = 3, 0
    ratio = np.delete(A.var(axis=0) / H.var(axis=0).clip(1e-30), [0, 1])
    got = marginal_scores(H, A, is_log=False)
    assert got["variance_ratio"] == pytest.approx(stats.gmean(ratio), rel=1e-4)
    for name in ("mean_r_raw", "sd_r_raw", "variance_ratio_raw", "totals_ks"):
        assert isinstance(got[name], str)
    assert isinstance(marginal_scores(H + 1, A + 1, is_log=False)["zero_r"], str)


def test_the_trend_is_found_and_departures_are_seen(rng: np.random.Generator) -> None:
    level = np.exp(rng.uniform(0, 3, 400))
    X, H, S = (level * np.exp(0.4 * rng.normal(size=(300, 400))) for _ in range(3))
    trend = fit_trend(X, is_log=False)
    slope = np.polyfit(trend.log_mean, trend.log_variance, 1)[0]
    assert slope == pytest.approx(2, abs=0.1)
    assert marginal_scores(H, S, trend, is_log=False)["trend_excess"] == pytest.approx(0, abs=0.05)
    flat = S.mean(axis=0) + rng.normal(size=S.shape)
    assert marginal_scores(H, flat, trend, is_log=False)["trend_excess"] > 1
    assert not np.isfinite(marginal_scores(H, S, is_log=False)["trend_excess"])


def test_blocks_of_genes_change_nothing(
    pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gene_table(*pair, is_log=True)
    monkeypatch.setattr("m1pipe.synthesis.marginal._BLOCK", 7)
    np.testing.assert_allclose(gene_table(*pair, is_log=True), whole, rtol=1e-6)


@pytest.mark.parametrize("block", [7, 30, 1024])
def test_correlation_scores_are_those_of_the_whole_matrices(
    rng: np.random.Generator, block: int
) -> None:
    mix = rng.normal(size=(5, 30))
    H, A = (rng.normal(size=(80, 5)) @ mix + rng.normal(size=(80, 30)) for _ in range(2))
    A[:, 4] = 1.5
    kept = np.delete(np.arange(30), 4)
    c_h, c_a = np.corrcoef(H[:, kept].T), np.corrcoef(A[:, kept].T)
    upper = np.triu_indices(29, 1)
    got = correlation_scores(H.astype(np.float32), A.astype(np.float32), block)
    gap = c_h[upper] - c_a[upper]
    expected = {
        "gamma": stats.pearsonr(1 - c_h[upper], 1 - c_a[upper])[0],
        "correlation_rmse": np.sqrt(np.mean(gap**2)),
        "frobenius": np.linalg.norm(c_h - c_a) / np.linalg.norm(c_h),
        "correlation_similarity": np.mean(1 - np.abs(gap) / 2),
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-4), name


def test_constant_samples_have_no_correlations(pair: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="0 of 30 genes vary"):
        correlation_scores(pair[0], np.ones_like(pair[0]))


def test_frechet_has_its_closed_form(rng: np.random.Generator) -> None:
    H, A = rng.normal(size=(50, 4)), rng.normal(1, 2, size=(50, 4)) @ rng.normal(size=(4, 4))
    c_h, c_a = np.cov(H.T), np.cov(A.T)
    root = linalg.sqrtm(c_h @ c_a).real
    gap = H.mean(axis=0) - A.mean(axis=0)
    expected = gap @ gap + np.trace(c_h + c_a - 2 * root)
    assert frechet_score(H, A)["frechet"] == pytest.approx(expected, rel=1e-8)
    assert frechet_score(H, H)["frechet"] == pytest.approx(0, abs=1e-9)
    assert frechet_score(H, H + 2)["frechet"] == pytest.approx(16, rel=1e-9)


def test_mmd_is_the_double_loop(rng: np.random.Generator) -> None:
    H, A = rng.normal(size=(12, 3)), rng.normal(0.5, 1, size=(12, 3))
    sigma = bandwidth(H)
    assert sigma == pytest.approx(np.median([np.linalg.norm(a - b) for i, a in enumerate(H)
                                             for b in H[i + 1:]]))  # fmt: skip

    def mean_kernel(P: np.ndarray, Q: np.ndarray, skip: bool) -> float:
        values = [
            np.exp(-np.sum((p - q) ** 2) / (2 * sigma**2))
            for i, p in enumerate(P)
            for j, q in enumerate(Q)
            if not (skip and i == j)
        ]
        return float(np.mean(values))

    expected = mean_kernel(H, H, True) + mean_kernel(A, A, True) - 2 * mean_kernel(H, A, False)
    assert mmd_score(H, A, sigma)["mmd2"] == pytest.approx(expected, rel=1e-9)


def test_mmd_is_unbiased_and_its_p_value_uniform(rng: np.random.Generator) -> None:
    values, p_values = [], []
    for _ in range(60):
        H, A = rng.normal(size=(2, 30, 3))
        sigma = bandwidth(H)
        values.append(mmd_score(H, A, sigma)["mmd2"])
        p_values.append(mmd_p_value(H, A, sigma, n_permutations=99, seed=1)["mmd_p"])
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert mmd_p_value(H, A + 2, sigma, n_permutations=99, seed=1)["mmd_p"] == 0.01


def test_prdc_is_the_loop_of_its_definition(rng: np.random.Generator) -> None:
    H, A = rng.normal(size=(25, 3)), rng.normal(0.3, 1.2, size=(25, 3))
    k = 5
    reach_h = np.sort(cdist(H, H), axis=1)[:, k]
    reach_a = np.sort(cdist(A, A), axis=1)[:, k]
    inside = [[np.linalg.norm(h - a) < r for a in A] for h, r in zip(H, reach_h, strict=True)]
    among = [[np.linalg.norm(h - a) < r for h in H] for a, r in zip(A, reach_a, strict=True)]
    expected = {
        "precision": np.any(inside, axis=0).mean(),
        "recall": np.any(among, axis=0).mean(),
        "density": np.sum(inside) / (k * len(A)),
        "coverage": np.any(inside, axis=1).mean(),
    }
    assert prdc_scores(H, A) == pytest.approx(expected)
    with pytest.raises(ValueError, match="more than 5 samples"):
        prdc_scores(H[:5], A[:5])


def test_auc_and_its_error_are_the_references(rng: np.random.Generator) -> None:
    positive, negative = rng.normal(0.7, 1, 80).round(1), rng.normal(0, 1, 90).round(1)
    truth = np.repeat([1, 0], [80, 90])
    both = np.concatenate([positive, negative])
    assert auc(positive, negative) == pytest.approx(roc_auc_score(truth, both), abs=1e-12)
    draws = [
        auc(rng.choice(positive, 80), rng.choice(negative, 90)) for _ in range(2000)
    ]  # a bootstrap
    assert auc_error(positive, negative) == pytest.approx(np.std(draws), rel=0.1)


def test_balanced_accuracy_is_scikit_learns(rng: np.random.Generator) -> None:
    true = np.array([0, 0, 0, 1, 2, 2, 2, 2])
    predicted = np.array([0, 1, 0, 1, 2, 2, 0, 1])
    assert balanced_accuracy(true, predicted) == balanced_accuracy_score(true, predicted)
    assert balanced_accuracy(true, np.full(8, 7)) == 0


def test_logistic_in_the_rows_coordinates_is_the_same_model(rng: np.random.Generator) -> None:
    from sklearn.linear_model import LogisticRegression

    X, codes = rng.normal(size=(20, 50)), np.repeat([0, 1], 10)
    X[codes == 1, :5] += 1
    test = rng.normal(size=(7, 50))
    plain = LogisticRegression(C=0.01, tol=1e-8, max_iter=1000).fit(X, codes)
    np.testing.assert_allclose(
        logistic_scores(X, codes, test), plain.predict_proba(test), atol=1e-3
    )


@pytest.mark.parametrize("learner", ["c2st_logistic", "c2st_forest"])
def test_classifiers_are_blind_to_equals_and_see_a_shift(
    rng: np.random.Generator, learner: str
) -> None:
    """`error` is of the scores as they are; that models are trained on them, fold by fold, makes
    the AUC of equals spread 1.5 times as far (100 draws): here three of such errors."""
    H, A = rng.normal(size=(2, 100, 8))
    equal = tell_apart(H, A, learner, seed=0)
    assert abs(equal.auc - 0.5) < 3 * 1.5 * equal.error
    shifted = tell_apart(H, A + 1, learner, seed=0)
    assert shifted.auc > 0.9
    assert shifted.error < 0.03


def test_a_donors_samples_do_not_help_a_classifier(rng: np.random.Generator) -> None:
    """Twenty donors with ten samples each: apart from the donors, both sets are one law."""
    groups = np.repeat([f"d{i}" for i in range(20)], 10)
    centre = 3 * rng.normal(size=(20, 30))
    H = np.repeat(centre, 10, axis=0) + 0.1 * rng.normal(size=(200, 30))
    A = 3 * rng.normal(size=(200, 30))
    naive = tell_apart(H, A, "c2st_forest", seed=0)
    grouped = tell_apart(H, A, "c2st_forest", groups=(groups, None), seed=0)
    assert naive.auc > 0.8
    assert grouped.auc < naive.auc - 0.1


def test_with_few_donors_on_both_sides_equals_still_read_one_half() -> None:
    """Pooled over folds the AUC of two sets of four donors each would be far below 0.5."""
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sets, groups = [], []
        for side in ("h", "a"):
            centre = np.repeat(rng.normal(size=(4, 10)), 20, axis=0)
            sets.append(centre + rng.normal(size=(80, 10)))
            groups.append(np.repeat([f"{side}{i}" for i in range(4)], 20))
        found.append(tell_apart(*sets, "c2st_logistic", groups=tuple(groups), seed=0).auc)
    assert np.mean(found) == pytest.approx(0.5, abs=3 * np.std(found) / np.sqrt(20))
    with pytest.raises(ValueError, match="of one donor"):
        tell_apart(*sets, "c2st_logistic", groups=(np.repeat("d", 80), None), seed=0)


def test_a_linear_classifier_cannot_tell_genes_drawn_apart(rng: np.random.Generator) -> None:
    loadings = 0.5 * rng.normal(size=(10, 100))
    H, X = (rng.normal(size=(200, 10)) @ loadings + rng.normal(size=(200, 100)) for _ in range(2))
    apart = drawn_apart(X, 0)
    assert np.isin(apart[:, 3], X[:, 3]).all()
    told = tell_apart(H, apart, "c2st_logistic", seed=0)
    assert told.auc > 0.4
    assert tell_apart(H, shuffled(X, 0), "c2st_logistic", seed=0).auc < told.auc - 0.05
    assert tell_apart(H, apart, "c2st_forest", seed=0).auc > 0.8


def test_distance_scores_follow_their_definitions(rng: np.random.Generator) -> None:
    X, H, S = rng.normal(size=(3, 200, 4))
    d = Distances(cdist(S, X), cdist(S, H), cdist(H, X))
    got = distance_values(d)
    near = np.sort(d.s_x, axis=1)
    members, others = -d.s_x.min(axis=0), -d.s_h.min(axis=0)
    expected = {
        "closer_to_train": np.mean(d.s_x.min(axis=1) < d.s_h.min(axis=1)),
        "dcr_median": np.median(near[:, 0]),
        "dcr_p5": np.quantile(near[:, 0], 0.05),
        "nndr_p5": np.quantile(near[:, 0] / near[:, 1], 0.05),
        "membership_auc": roc_auc_score(np.repeat([1, 0], 200), np.append(members, others)),
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value), name
    leaked = distance_values(Distances(cdist(X, X), cdist(X, H), cdist(H, X)))
    assert leaked["closer_to_train"] == leaked["membership_auc"] == 1
    assert leaked["nndr_p5"] == leaked["dcr_median"] == 0


def test_class_gaussian_has_each_classs_moments(rng: np.random.Generator) -> None:
    codes = np.repeat([0, 1], [30, 60])
    X = rng.normal(size=(90, 3)) @ rng.normal(size=(3, 3)) + codes[:, None]
    rows = rows_with_class(X, np.array(["a", "b"], dtype=object)[codes], np.array(["a", "b"]))
    drawn = class_gaussian(rows, 30_000, rng)
    assert np.mean(drawn.codes) == pytest.approx(2 / 3, abs=0.02)
    for code in (0, 1):
        own, made = X[codes == code], drawn.X[drawn.codes == code]
        np.testing.assert_allclose(made.mean(axis=0), own.mean(axis=0), atol=0.1)
        np.testing.assert_allclose(np.cov(made.T), np.cov(own.T), rtol=0.1, atol=0.1)


def test_expression_scores_find_the_planted_genes(rng: np.random.Generator) -> None:
    codes = np.repeat([0.0, 1.0], 60)

    def made(n_changed: int) -> np.ndarray:
        X = rng.normal(size=(120, 200))
        X[codes == 1, :n_changed] += 2
        return np.column_stack([X, codes])

    H = made(40)
    same, half = expression_scores(H, made(40)), expression_scores(H, made(20))
    # a set finds its 40 and about 1.7 others at a false discovery rate of 0.04; 8 in one of 2,000
    assert same["de_recovery"] > 40 / 49
    assert same["de_false"] < 9 / 49
    assert half["de_recovery"] == pytest.approx(0.5, abs=0.1)
    assert same["de_r"] > half["de_r"] + 0.1
    t = stats.ttest_ind(H[codes == 0, :-1], H[codes == 1, :-1], equal_var=False)
    found = multipletests(t.pvalue, 0.05, "fdr_bh")[0]
    exact = expression_scores(H, H)
    assert found.sum() >= 40
    assert (exact["de_recovery"], exact["de_false"]) == (1, 0)
    with pytest.raises(ValueError, match="no class has 4 samples"):
        expression_scores(H[:3], H[:3])


def test_scores_need_no_torch() -> None:
    check = "import sys, m1pipe.reports.quality_report; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
