"""Scores of predicted probabilities of labels, of which each sample has any number."""

import numpy as np
from numpy.typing import NDArray

from m1pipe.evaluation.class_metrics import clipped, left_out, mean, ranking_scores
from m1pipe.evaluation.ranking import precisions_at

PRECISION_AT = (1, 5)
"""Numbers of highest-scored labels of a sample whose precision is a score."""

BIN_EDGES = np.array([0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
"""Ends of the bins of calibration: narrow near 0, where most probabilities of rare labels are."""

_THRESHOLD = 0.5


def multilabel_loss_per_sample(
    probabilities: np.ndarray, labels: np.ndarray
) -> NDArray[np.float64]:
    """Binary log loss in nats, mean over the labels, shape (n_samples,)."""
    p = np.asarray(probabilities, dtype=np.float64)
    own = np.where(labels > _THRESHOLD, p, 1 - p)
    found: NDArray[np.float64] = -np.log(clipped(own)).mean(axis=1)
    return found


def label_scores(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, float], dict[str, str]]:
    """Scores of label probabilities, as means over labels (macro) and over all cells (micro).

    Parameters
    ----------
    probabilities, labels : ndarray, shape (n_samples, n_labels)
        Probabilities, and 0/1.

    Returns
    -------
    values : dict
        log_loss, accuracy (share of right cells), balanced_accuracy, macro_f1, roc_auc,
        average_precision (means over the labels where they are defined), micro_f1,
        roc_auc_micro, average_precision_micro; precision_at_K for each K of `PRECISION_AT` below
        the number of labels (mean over samples, those without any label included; a random order
        has the prevalence); brier (mean squared distance of probability and 0/1 over all cells)
        and calibration_error.
    notes : dict
        Why one of them is NaN, or how many labels were left out.
    """
    truth, guess = labels > _THRESHOLD, probabilities > _THRESHOLD
    hits, n_pos, n_guess = (truth & guess).sum(0), truth.sum(0), guess.sum(0)
    n_neg, right_neg = (~truth).sum(0), (~truth & ~guess).sum(0)
    both, any_pos = (n_pos > 0) & (n_neg > 0), n_pos + n_guess > 0
    f1 = 2 * hits[any_pos] / (n_pos + n_guess)[any_pos]
    balanced = (hits[both] / n_pos[both] + right_neg[both] / n_neg[both]) / 2
    values = {
        "log_loss": float(multilabel_loss_per_sample(probabilities, labels).mean()),
        "accuracy": float((truth == guess).mean()),
        "balanced_accuracy": mean(balanced),
        "macro_f1": mean(f1),
        "micro_f1": float(2 * hits.sum() / (n_pos + n_guess).sum()) if any_pos.any() else np.nan,
    }
    notes = left_out("balanced_accuracy", both, "labels do not vary in these rows")
    notes |= left_out("macro_f1", any_pos, "labels neither occur nor are predicted")
    if not any_pos.any():
        notes["micro_f1"] = "no label occurs or is predicted in these rows"
    macro, macro_notes = ranking_scores(truth, probabilities, what="labels")
    micro, micro_notes = ranking_scores(
        truth.reshape(-1, 1), probabilities.reshape(-1, 1), what="label cells", suffix="_micro"
    )
    values |= macro | micro | _at_the_top(truth, probabilities)
    values["brier"] = float(((probabilities - truth) ** 2).mean())
    values["calibration_error"] = calibration_error(calibration_bins(probabilities, truth))
    return values, notes | macro_notes | micro_notes


def calibration_bins(probabilities: np.ndarray, truth: np.ndarray) -> NDArray[np.float64]:
    """Cells by their probability: how many, their probabilities and true ones summed.

    Parameters
    ----------
    probabilities : ndarray, shape (n_samples, n_labels)
    truth : ndarray of bool, shape (n_samples, n_labels)

    Returns
    -------
    ndarray of float64, shape (3, n_bins)
        Bins between `BIN_EDGES`, the upper end of the last one included. Those of several folds
        add up.
    """
    p, y = (np.asarray(part, dtype=np.float64).ravel() for part in (probabilities, truth))
    place = np.digitize(p, BIN_EDGES[1:-1])
    n_bins = len(BIN_EDGES) - 1
    weights = (None, p, y)
    return np.stack([np.bincount(place, w, minlength=n_bins).astype(np.float64) for w in weights])


def calibration_error(bins: np.ndarray) -> float:
    """Expected calibration error: mean distance of probability and frequency, over cells.

    Parameters
    ----------
    bins : ndarray, shape (3, n_bins)
        From `calibration_bins`.

    References
    ----------
    Naeini et al. 2015, AAAI; bins of their own widths here.
    """
    return float(np.abs(bins[1] - bins[2]).sum() / bins[0].sum())


def _at_the_top(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Precision at each k that is below the number of labels."""
    known = [k for k in PRECISION_AT if k < truth.shape[1]]
    return {f"precision_at_{k}": mean(precisions_at(truth, probabilities, k)) for k in known}
