"""Labels one by one: rank sums against scipy, shuffled labels not learned, planted ones learned."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as skm
from scipy.stats import mannwhitneyu, norm
from statsmodels.stats.multitest import multipletests

from m1pipe.evaluation.per_label import (
    FEWEST,
    LabelSums,
    LabelTally,
    add_label_sums,
    calibration_table,
    label_table,
    unlearned_labels,
)

N, L = 200, 30
FOLDS = np.arange(N) % 4


def _sums(labels: np.ndarray, p: dict[str, np.ndarray], groups: np.ndarray | None) -> LabelSums:
    parts = []
    for k in range(4):
        here = k == FOLDS
        tally = LabelTally(labels[here], None if groups is None else groups[here])
        for row, prediction in p.items():
            tally.add(row, [prediction[here]])
        parts.append(tally.close())
    return add_label_sums(parts)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def planted(rng) -> tuple[np.ndarray, np.ndarray]:
    """Labels of prevalence 0.2, the first ten of which the scores know something of."""
    labels = (rng.random((N, L)) < 0.2).astype(float)
    signal = np.where(np.arange(L) < 10, 1.5, 0.0)
    return labels, 1 / (1 + np.exp(2 - signal * labels - rng.normal(size=(N, L))))


def test_one_fold_is_the_rank_sum_test_of_scipy(planted):
    labels, p = planted
    p = np.round(p, 1)  # with ties
    tally = LabelTally(labels, None)
    tally.add("raw", [p])
    table = label_table([f"t{j}" for j in range(L)], *[tally.close()] * 2)
    for j in range(L):
        y = labels[:, j] == 1
        test = mannwhitneyu(
            p[y, j], p[~y, j], alternative="greater", use_continuity=False, method="asymptotic"
        )
        assert table["p_raw"][j] == pytest.approx(test.pvalue, rel=1e-9)
        assert table["roc_auc_raw"][j] == pytest.approx(skm.roc_auc_score(y, p[:, j]))
        ap = skm.average_precision_score(y, p[:, j])
        assert table["average_precision_raw"][j] == pytest.approx(ap)
        assert table["brier_raw"][j] == pytest.approx(skm.brier_score_loss(y, p[:, j]))
    expected = multipletests(table["p_raw"], method="fdr_bh")[1]
    np.testing.assert_allclose(table["q_raw"], expected)


def test_samples_are_ranked_within_their_fold_only(planted):
    """A prior that differs by fold ranks nothing, though pooled ranks would follow it."""
    labels, _ = planted
    prior = np.stack([labels[FOLDS != k].mean(axis=0) for k in range(4)])[FOLDS]
    assert min(skm.roc_auc_score(labels[:, j], prior[:, j]) for j in range(L)) < 0.45
    table = label_table([str(j) for j in range(L)], *[_sums(labels, {"prior": prior}, None)] * 2)
    np.testing.assert_allclose(table["roc_auc_prior"], 0.5)
    assert "p_prior" not in table and (table["verdict"] == "not learned").all()


def test_folds_are_strata(planted):
    labels, p = planted
    sums = _sums(labels, {"raw": p}, None)
    wins = variance = 0.0
    for k in range(4):
        here = k == FOLDS
        y, s = labels[here, 0] == 1, p[here, 0]
        u = mannwhitneyu(s[y], s[~y]).statistic
        wins += u - y.sum() * (~y).sum() / 2
        variance += y.sum() * (~y).sum() * (here.sum() + 1) / 12
    table = label_table([str(j) for j in range(L)], sums, sums)
    assert table["p_raw"][0] == pytest.approx(norm.sf(wins / np.sqrt(variance)), rel=1e-9)


def test_planted_labels_are_learned_shuffled_ones_are_not_and_rare_ones_are_not_tested(
    planted, rng
):
    labels, p = planted
    labels[:, 20] = 0
    labels[: FEWEST - 1, 20] = 1
    names = [f"t{j}" for j in range(L)]
    table = label_table(names, *[_sums(labels, {"raw": p, "prior": p * 0 + 0.2}, None)] * 2)
    verdict = table.set_index("label")["verdict"]
    assert (verdict[names[:10]] == "learned").sum() >= 9
    assert (verdict[[n for n in names[10:] if n != "t20"]] == "not learned").sum() >= 18
    assert verdict["t20"] == "too few" and np.isnan(table["q_raw"][20])
    assert table["learned_by"][0] == "raw" and table["n_positive"][20] == FEWEST - 1
    shuffled = rng.permuted(labels, axis=0)
    table = label_table(names, *[_sums(shuffled, {"raw": p}, None)] * 2)
    assert (table["verdict"] == "learned").sum() <= 1
    first, second = unlearned_labels(table)
    assert first.name == "labels_not_learned" and "t11" in first.text
    assert second.name == "labels_too_few" and "t20" in second.text


def test_groups_are_the_units(rng):
    """Contrasts of a study share labels and scores: taken as independent they reject too often."""
    group = np.repeat(np.arange(N // 4), 4)
    folds_of_groups = np.arange(N // 4) % 4
    shares = {True: [], False: []}
    for _ in range(20):
        labels = (rng.random((N // 4, L)) < 0.3).astype(float)[group]
        p = rng.random((N // 4, L))[group]
        for grouped in (True, False):
            parts = []
            for k in range(4):
                here = folds_of_groups[group] == k
                tally = LabelTally(labels[here], group[here] if grouped else None)
                tally.add("raw", [p[here]])
                parts.append(tally.close())
            sums = add_label_sums(parts)
            table = label_table([str(j) for j in range(L)], sums, sums)
            shares[grouped].append((table["p_raw"] < 0.05).mean())
    assert np.mean(shares[False]) > 0.15
    assert np.mean(shares[True]) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / (20 * L))


def test_rare_labels_are_counted_in_groups():
    labels = np.zeros((40, 2))
    labels[:8, 0] = 1  # eight samples of two groups
    labels[::4, 1] = 1
    tally = LabelTally(labels, np.repeat(np.arange(10), 4))
    tally.add("raw", [np.linspace(0, 1, 80).reshape(40, 2)])
    table = label_table(["narrow", "wide"], *[tally.close()] * 2)
    assert table["verdict"].tolist()[0] == "too few" and table["verdict"][1] != "too few"
    assert table["n_positive"].tolist() == [8, 10]


def test_seeds_are_averaged(planted):
    labels, p = planted
    alone = []
    for prediction in (p, p[:, ::-1]):
        tally = LabelTally(labels, None)
        tally.add("vae", [prediction])
        alone.append(tally.close())
    tally = LabelTally(labels, None)
    tally.add("vae", [p, p[:, ::-1]])
    both = tally.close()
    np.testing.assert_allclose(both.rows["vae"], np.mean([a.rows["vae"] for a in alone], axis=0))
    np.testing.assert_allclose(both.bins["vae"], np.mean([a.bins["vae"] for a in alone], axis=0))


def test_calibration_lines_are_means_of_bins(planted):
    labels, p = planted
    table = calibration_table(_sums(labels, {"raw": p}, None))
    assert table["n"].sum() == N * L
    assert table["predicted"].between(table["low"], table["high"]).all()
    assert (table["n"] * table["observed"]).sum() == pytest.approx(labels.sum())
    assert isinstance(table, pd.DataFrame) and set(table["model"]) == {"raw"}
