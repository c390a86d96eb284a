"""Per-sample losses and the scores of one test fold, each defined once for all models."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m1pipe.evaluation.class_metrics import (
    check_probabilities,
    class_scores,
    log_loss_per_sample,
)
from m1pipe.evaluation.label_metrics import label_scores, multilabel_loss_per_sample
from m1pipe.evaluation.level_metrics import level_scores, squared_error_per_sample

KINDS = ("regression", "binary", "multiclass", "multilabel")
HEADLINE = {
    "regression": "mse",
    "binary": "log_loss",
    "multiclass": "log_loss",
    "multilabel": "log_loss",
}
LOWER_IS_BETTER = frozenset({"mse", "mae", "log_loss", "brier", "calibration_error"})


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one set of test rows.

    Attributes
    ----------
    values : dict of str to float
        Every metric of the kind of target; NaN where it cannot be computed.
    notes : dict of str to str
        Why a metric is NaN, or what was left out of it, by metric.
    """

    values: dict[str, float]
    notes: dict[str, str]


def per_sample_loss(kind: str, prediction: ArrayLike, targets: ArrayLike) -> NDArray[np.float64]:
    """Headline loss of each sample.

    Parameters
    ----------
    kind : str
        "regression", "binary", "multiclass" or "multilabel".
    prediction : array_like
        Levels, shape (n_samples, n_targets); class probabilities, shape (n_samples, n_classes)
        (for two classes also the probability of the second, shape (n_samples,) or
        (n_samples, 1)); label probabilities, shape (n_samples, n_labels).
    targets : array_like
        True levels, shape (n_samples, n_targets); class codes, shape (n_samples,); or 0/1
        labels, shape (n_samples, n_labels).

    Returns
    -------
    ndarray of float64, shape (n_samples,)
        Mean squared error over the targets; or the log loss in nats, with probabilities clipped
        at `m1pipe.evaluation.class_metrics.PROBABILITY_FLOOR`; or its mean over the labels. The
        mean over samples is the score of the same name.

    Raises
    ------
    ValueError
        On an unknown kind, shapes that differ, or a prediction that is not finite or no
        probability.
    """
    predicted, true = _checked(kind, prediction, targets)
    if kind == "regression":
        return squared_error_per_sample(predicted, true)
    if kind == "multilabel":
        return multilabel_loss_per_sample(predicted, true)
    return log_loss_per_sample(predicted, true)


def explained_scores(
    kind: str,
    prediction: ArrayLike,
    targets: ArrayLike,
    train_mean: ArrayLike | None = None,
) -> Scores:
    """Every score of one model on one set of test rows, with notes on what is missing.

    Parameters
    ----------
    kind, prediction, targets
        As for `per_sample_loss`.
    train_mean : array_like, shape (n_targets,), optional
        Mean of every target over the training rows: what r2 measures against. Regression only.

    Returns
    -------
    Scores
        regression: mse, mae, r2 (pooled, 1 - SSE / SST, SST against the training means), pearson
        (median over the targets that vary). Classes: log_loss, accuracy, balanced_accuracy,
        macro_f1, roc_auc, average_precision. multilabel: the same and those of
        `m1pipe.evaluation.label_metrics.label_scores`. No metric is left out because it is NaN.
    """
    predicted, true = _checked(kind, prediction, targets)
    if kind == "regression":
        values, notes = level_scores(predicted, true, train_mean)
    elif kind == "multilabel":
        values, notes = label_scores(predicted, true)
    else:
        values, notes = class_scores(predicted, true)
    return Scores(values, notes)


def scores(
    kind: str,
    prediction: ArrayLike,
    targets: ArrayLike,
    train_mean: ArrayLike | None = None,
) -> dict[str, float]:
    """Values of `explained_scores`, by metric.

    Parameters
    ----------
    kind, prediction, targets, train_mean
        As for `explained_scores`: shapes (n_samples, n_outputs), and (n_targets,) of the mean.
    """
    return explained_scores(kind, prediction, targets, train_mean).values


def _checked(kind: str, prediction: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and targets as arrays of matching shapes; two classes as two columns."""
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}; found {kind!r}")
    predicted, true = np.asarray(prediction), np.asarray(targets)
    _check_finite(predicted, "prediction")
    _check_finite(true, "targets")
    if kind in ("binary", "multiclass"):
        if true.ndim != 1 or len(true) != len(predicted):
            raise ValueError(f"class codes: expected shape ({len(predicted)},): {true.shape}")
        return check_probabilities(predicted, true, binary=kind == "binary"), true
    if predicted.shape != true.shape or true.ndim != 2:
        raise ValueError(f"prediction {predicted.shape} and targets {true.shape} do not fit")
    if kind == "multilabel" and predicted.size and not 0 <= predicted.min() <= predicted.max() <= 1:
        raise ValueError("label probabilities: expected numbers in [0, 1]")
    return predicted, true


def _check_finite(values: np.ndarray, what: str) -> None:
    """Refuse NaN and infinity, naming the first row (row sums show them without a mask)."""
    sums = values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)
    if not np.isfinite(sums).all():
        row = int(np.flatnonzero(~np.isfinite(sums))[0])
        raise ValueError(f"{what}: expected finite numbers; row {row} holds another")
