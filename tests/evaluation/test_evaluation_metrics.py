"""Losses and scores against scikit-learn and scipy, and the originals' faulty mean baseline."""

import numpy as np
import pytest
import sklearn.metrics as skm
from scipy import stats

from m1pipe.evaluation.class_metrics import PROBABILITY_FLOOR
from m1pipe.evaluation.metrics import (
    HEADLINE,
    KINDS,
    per_sample_loss,
    scores,
    target_errors,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_regression_matches_scikit_learn_and_scipy(rng):
    y = rng.normal(size=(40, 7))
    prediction = y + rng.normal(size=y.shape)
    train_mean = rng.normal(size=7)
    got = scores("regression", prediction, y, train_mean)
    assert got["mse"] == pytest.approx(skm.mean_squared_error(y, prediction), rel=1e-12)
    assert got["mae"] == pytest.approx(skm.mean_absolute_error(y, prediction), rel=1e-12)
    r = [stats.pearsonr(prediction[:, j], y[:, j]).statistic for j in range(7)]
    assert got["pearson"] == pytest.approx(np.median(r), rel=1e-12)
    sse, sst = ((prediction - y) ** 2).sum(), ((train_mean - y) ** 2).sum()
    assert got["r2"] == pytest.approx(1 - sse / sst, rel=1e-12)


def test_r2_equals_scikit_learns_where_the_training_mean_is_the_test_mean(rng):
    y = rng.normal(size=(30, 4))
    prediction = y + rng.normal(size=y.shape)
    table = target_errors(prediction, y, y.mean(axis=0))
    np.testing.assert_allclose(table["r2"], skm.r2_score(y, prediction, multioutput="raw_values"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mean_row_has_r2_of_exactly_zero(rng, dtype):
    train, test = rng.gamma(2, size=(50, 9)), rng.gamma(2, size=(20, 9)).astype(np.float32)
    mean = train.mean(axis=0)
    prediction = np.broadcast_to(mean.astype(dtype), test.shape)
    result = scores("regression", prediction, test, mean)
    assert result["r2"] == 0
    assert np.isnan(result["pearson"])


def test_mean_of_the_last_batch_is_no_baseline(rng):
    """The original scored the mean of the last test batch: its error is 1 + 1/n too high."""
    n_last, n_targets = 60, 4000
    test = rng.normal(size=(5 * n_last, n_targets)) + 3
    honest = per_sample_loss("regression", np.full_like(test, 3.0), test).mean()
    last = np.broadcast_to(test[-n_last:].mean(axis=0), test[:-n_last].shape)
    faulty = per_sample_loss("regression", last, test[:-n_last]).mean()
    assert faulty / honest == pytest.approx(1 + 1 / n_last, abs=0.003)
    assert scores("regression", last, test[:-n_last], np.full(n_targets, 3.0))["r2"] < 0


def test_wide_targets_read_in_blocks_give_the_same(rng, monkeypatch):
    y = rng.normal(size=(11, 57)).astype(np.float32)
    prediction = (y + rng.normal(size=y.shape)).astype(np.float32)
    whole = scores("regression", prediction, y, np.zeros(57))
    loss = per_sample_loss("regression", prediction, y)
    monkeypatch.setattr("m1pipe.evaluation.metrics._BLOCK_CELLS", 50)
    assert scores("regression", prediction, y, np.zeros(57)) == pytest.approx(whole, rel=1e-12)
    np.testing.assert_allclose(per_sample_loss("regression", prediction, y), loss, rtol=1e-12)


def test_constant_targets_are_left_out_of_the_correlation(rng):
    y = rng.normal(size=(25, 5))
    y[:, 2] = 1.5
    prediction = y + rng.normal(size=y.shape)
    result = scores("regression", prediction, y, np.zeros(5))
    r = [stats.pearsonr(prediction[:, j], y[:, j]).statistic for j in (0, 1, 3, 4)]
    assert result["pearson"] == pytest.approx(np.median(r))


def test_a_constant_prediction_of_some_targets_counts_as_no_correlation(rng):
    y = rng.normal(size=(25, 3))
    prediction = y.copy()
    prediction[:, :2] = 0
    assert scores("regression", prediction, y, np.zeros(3))["pearson"] == 0


def test_scores_that_cannot_be_computed_are_nan():
    y = np.ones((4, 3))
    result = scores("regression", y, y, np.ones(3))
    assert result["mse"] == 0
    for metric in ("r2", "pearson"):
        assert np.isnan(result[metric])


def test_binary_matches_scikit_learn_in_all_three_shapes(rng):
    codes = rng.integers(0, 2, 60)
    p = np.clip(0.5 + 0.3 * (codes - 0.5) + 0.2 * rng.normal(size=60), 0.01, 0.99)
    got = scores("binary", p, codes)
    assert got["log_loss"] == pytest.approx(skm.log_loss(codes, p), rel=1e-12)
    assert got["accuracy"] == pytest.approx(skm.accuracy_score(codes, p > 0.5))
    assert got["balanced_accuracy"] == pytest.approx(skm.balanced_accuracy_score(codes, p > 0.5))
    assert got["macro_f1"] == pytest.approx(skm.f1_score(codes, p > 0.5, average="macro"))
    assert got["roc_auc"] == pytest.approx(skm.roc_auc_score(codes, p))
    assert got["average_precision"] == pytest.approx(skm.average_precision_score(codes, p))
    assert scores("binary", p[:, None], codes) == got
    assert scores("binary", np.column_stack([1 - p, p]), codes) == got


def test_multiclass_matches_scikit_learn(rng):
    codes = rng.integers(0, 4, 80)
    p = softmax(rng.normal(size=(80, 4)) + 1.5 * np.eye(4)[codes])
    got = scores("multiclass", p, codes)
    guess = p.argmax(axis=1)
    assert got["log_loss"] == pytest.approx(skm.log_loss(codes, p), rel=1e-12)
    assert got["balanced_accuracy"] == pytest.approx(skm.balanced_accuracy_score(codes, guess))
    assert got["macro_f1"] == pytest.approx(skm.f1_score(codes, guess, average="macro"))
    assert got["roc_auc"] == pytest.approx(skm.roc_auc_score(codes, p, multi_class="ovr"))
    assert got["average_precision"] == pytest.approx(skm.average_precision_score(codes, p))


def test_multilabel_matches_scikit_learn(rng):
    labels = (rng.uniform(size=(70, 5)) < 0.4).astype(np.float32)
    p = np.clip(0.5 * labels + 0.6 * rng.uniform(size=labels.shape), 0.01, 0.99)
    got = scores("multilabel", p, labels)
    each = [skm.log_loss(labels[:, j], p[:, j]) for j in range(5)]
    assert got["log_loss"] == pytest.approx(np.mean(each), rel=1e-12)
    assert got["accuracy"] == pytest.approx(1 - skm.hamming_loss(labels, p > 0.5))
    for average in ("macro", "micro"):
        suffix = "_micro" if average == "micro" else ""
        assert got[f"{average}_f1"] == pytest.approx(skm.f1_score(labels, p > 0.5, average=average))
        auc = skm.roc_auc_score(labels, p, average=average)
        assert got[f"roc_auc{suffix}"] == pytest.approx(auc)
        precision = skm.average_precision_score(labels, p, average=average)
        assert got[f"average_precision{suffix}"] == pytest.approx(precision)
    balanced = [skm.balanced_accuracy_score(labels[:, j], p[:, j] > 0.5) for j in range(5)]
    assert got["balanced_accuracy"] == pytest.approx(np.mean(balanced))


def test_a_class_absent_from_the_test_rows_is_left_out(rng):
    codes = rng.integers(0, 2, 40)
    p = softmax(rng.normal(size=(40, 3)))
    result = scores("multiclass", p, codes)
    auc = [skm.roc_auc_score(codes == c, p[:, c]) for c in (0, 1)]
    assert result["roc_auc"] == pytest.approx(np.mean(auc))


def test_one_class_only_makes_ranking_scores_nan():
    result = scores("binary", np.array([0.2, 0.7]), np.array([1, 1]))
    assert np.isnan(result["roc_auc"])
    assert result["accuracy"] == 0.5


def test_labels_that_never_occur_leave_multilabel_scores_defined(rng):
    labels = np.zeros((30, 3))
    labels[:, 0] = rng.integers(0, 2, 30)
    p = rng.uniform(0.01, 0.4, size=labels.shape)
    result = scores("multilabel", p, labels)
    assert result["roc_auc"] == pytest.approx(skm.roc_auc_score(labels[:, 0], p[:, 0]))
    empty = scores("multilabel", np.zeros((4, 2)), np.zeros((4, 2)))
    for metric in ("micro_f1", "macro_f1", "roc_auc", "roc_auc_micro"):
        assert np.isnan(empty[metric])


def test_certain_mistakes_cost_the_stated_floor():
    loss = per_sample_loss("binary", np.array([0.0, 1.0]), np.array([1, 1]))
    np.testing.assert_allclose(loss, [-np.log(PROBABILITY_FLOOR), -np.log1p(-PROBABILITY_FLOOR)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_headline_score_is_the_mean_of_the_per_sample_losses(rng, kind):
    n = 20
    prediction = softmax(rng.normal(size=(n, 2 if kind == "binary" else 3)))
    classes = kind in ("binary", "multiclass")
    targets = rng.integers(0, 2, n) if classes else rng.integers(0, 2, (n, 3)).astype(float)
    loss = per_sample_loss(kind, prediction, targets)
    assert loss.shape == (n,)
    assert loss.dtype == np.float64
    assert loss.mean() == pytest.approx(scores(kind, prediction, targets)[HEADLINE[kind]])


def test_wrong_input_is_refused():
    y = np.zeros((3, 2))
    with pytest.raises(ValueError, match="kind"):
        per_sample_loss("ranking", y, y)
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 2\)"):
        per_sample_loss("regression", y, y[:2])
    with pytest.raises(ValueError, match="prediction: expected finite numbers; row 1"):
        per_sample_loss("regression", np.array([[0.0], [np.nan]]), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="sum to 1"):
        per_sample_loss("multiclass", np.full((2, 3), 0.5), np.array([0, 1]))
    with pytest.raises(ValueError, match="class codes: expected 0 to 1; found 2"):
        per_sample_loss("multiclass", np.full((2, 2), 0.5), np.array([0, 2]))
    with pytest.raises(ValueError, match="label probabilities"):
        per_sample_loss("multilabel", y + 2, y)
    with pytest.raises(ValueError, match="training means"):
        scores("regression", y, y, np.zeros(3))
