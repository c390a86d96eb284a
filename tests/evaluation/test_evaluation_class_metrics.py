"""Scores of an order against scikit-learn and against every way to break a tie."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import sklearn.metrics as skm

from m1pipe.evaluation.class_metrics import (
    BIN_EDGES,
    PRECISION_AT,
    average_precisions,
    calibration_bins,
    calibration_error,
    label_scores,
    precisions_at,
    roc_aucs,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("levels", [3, 1000])
def test_columns_match_scikit_learn_with_ties_and_without(rng, levels):
    truth = rng.random((50, 8)) < 0.3
    score = np.round(rng.random((50, 8)) * levels) / levels
    assert (len(np.unique(score)) < 50) == (levels == 3)
    auc, ap = roc_aucs(truth, score), average_precisions(truth, score)
    for j in range(8):
        assert auc[j] == pytest.approx(skm.roc_auc_score(truth[:, j], score[:, j]))
        assert ap[j] == pytest.approx(skm.average_precision_score(truth[:, j], score[:, j]))


def test_a_column_of_one_outcome_has_no_score(rng):
    truth = np.array([[True, False, True]] * 3 + [[True, False, False]])
    for found in (
        roc_aucs(truth, rng.random((4, 3))),
        average_precisions(truth, rng.random((4, 3))),
    ):
        assert np.isnan(found[:2]).all() and np.isfinite(found[2])


@pytest.mark.parametrize("k", [1, 2, 4])
def test_precision_at_k_is_the_mean_over_all_ways_to_break_ties(rng, k):
    truth = rng.random((30, 5)) < 0.4
    score = np.round(rng.random((30, 5)) * 3)
    found = precisions_at(truth, score, k)
    for row, (y, s) in enumerate(zip(truth, score, strict=True)):
        orders = [o for o in permutations(range(5)) if all(np.diff(s[list(o)]) <= 0)]
        assert found[row] == pytest.approx(np.mean([y[list(o[:k])].mean() for o in orders]))


def test_equal_scores_have_the_precision_of_chance(rng):
    truth = rng.random((200, 9)) < 0.2
    p = np.full(truth.shape, 0.2)
    values = label_scores(p, truth.astype(float))
    for k in PRECISION_AT:
        assert values[f"precision_at_{k}"] == pytest.approx(truth.mean())
    perfect = label_scores(np.where(truth, 0.9, 0.1), truth.astype(float))
    n_true = truth.sum(axis=1)
    for k in PRECISION_AT:
        assert perfect[f"precision_at_{k}"] == pytest.approx((np.minimum(n_true, k) / k).mean())


def test_precision_at_k_needs_more_labels_than_k(rng):
    values = label_scores(rng.random((20, 3)), (rng.random((20, 3)) < 0.5).astype(float))
    assert "precision_at_1" in values and "precision_at_5" not in values


def test_brier_score_matches_scikit_learn(rng):
    labels = (rng.random((40, 4)) < 0.3).astype(float)
    p = rng.random((40, 4))
    expected = np.mean([skm.brier_score_loss(labels[:, j], p[:, j]) for j in range(4)])
    assert label_scores(p, labels)["brier"] == pytest.approx(expected)


def test_calibration_by_hand_and_folds_add_up(rng):
    p = rng.random((3000, 8)) ** 3
    truth = rng.random(p.shape) < p / 2  # probabilities twice too high
    bins = calibration_bins(p, truth)
    inside = [(p >= low) & (p < high) for low, high in pairwise(BIN_EDGES)]
    np.testing.assert_array_equal(bins[0], [mask.sum() for mask in inside])
    error = sum(
        mask.sum() * abs(p[mask].mean() - truth[mask].mean()) for mask in inside if mask.any()
    )
    assert calibration_error(bins) == pytest.approx(error / p.size)
    assert calibration_error(bins) == pytest.approx((p / 2).mean(), abs=0.01)
    np.testing.assert_allclose(
        calibration_bins(p[:100], truth[:100]) + calibration_bins(p[100:], truth[100:]), bins
    )
    assert (
        calibration_bins(np.array([[0.0, 1.0]]), np.array([[False, True]]))[0, [0, -1]].sum() == 2
    )
