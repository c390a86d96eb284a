"""Scores of predicted probabilities: classes (each sample has one) and labels (any number)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

PROBABILITY_FLOOR = 1e-7
"""Probabilities are clipped to [floor, 1 - floor] in every log loss, for every model alike: a
confident mistake costs at most 16.1 nats. It is the resolution of float32 near 1."""

_THRESHOLD = 0.5


def check_probabilities(
    prediction: NDArray, codes: NDArray, *, binary: bool
) -> NDArray[np.float64]:
    """Class probabilities as columns.

    Parameters
    ----------
    prediction : ndarray, shape (n_samples, n_classes)
        With `binary` also (n_samples,) or (n_samples, 1): the probability of the second class.
    codes : ndarray of int, shape (n_samples,)
        True classes.

    Returns
    -------
    ndarray of float64, shape (n_samples, n_classes)

    Raises
    ------
    ValueError
        If a row does not sum to 1 (within 1e-3), a value leaves [0, 1], or a code has no column.
    """
    p = np.asarray(prediction, dtype=np.float64)
    if binary and (p.ndim == 1 or p.shape[1] == 1):
        p = np.column_stack([1 - p.ravel(), p.ravel()])
    if p.ndim != 2 or (binary and p.shape[1] != 2):
        raise ValueError(f"probabilities: expected one column a class; found shape {p.shape}")
    if len(p) and (p.min() < -1e-6 or np.abs(p.sum(axis=1) - 1).max() > 1e-3):
        raise ValueError("probabilities: expected rows of numbers in [0, 1] that sum to 1")
    if len(codes) and not 0 <= codes.min() <= codes.max() < p.shape[1]:
        raise ValueError(f"class codes: expected 0 to {p.shape[1] - 1}; found {codes.max()}")
    return p


def log_loss_per_sample(probabilities: NDArray, codes: NDArray) -> NDArray[np.float64]:
    """Minus the log of the true class's clipped probability, in nats, shape (n_samples,)."""
    own = probabilities[np.arange(len(codes)), codes.astype(np.intp)]
    return -np.log(_clipped(own))


def multilabel_loss_per_sample(probabilities: NDArray, labels: NDArray) -> NDArray[np.float64]:
    """Binary log loss in nats, mean over the labels, shape (n_samples,)."""
    p = np.asarray(probabilities, dtype=np.float64)
    own = np.where(labels > _THRESHOLD, p, 1 - p)
    return -np.log(_clipped(own)).mean(axis=1)


def class_scores(probabilities: NDArray, codes: NDArray) -> tuple[dict[str, float], dict[str, str]]:
    """Scores of class probabilities.

    Parameters
    ----------
    probabilities : ndarray, shape (n_samples, n_classes)
    codes : ndarray of int, shape (n_samples,)

    Returns
    -------
    values : dict
        log_loss, accuracy, balanced_accuracy (mean recall of the classes that occur), macro_f1
        (over classes that occur or are predicted), roc_auc and average_precision (of the second
        class of two; else the mean over classes of one against the rest).
    notes : dict
        Why one of them is NaN, or which classes were left out.
    """
    n_classes = probabilities.shape[1]
    codes = codes.astype(np.intp)
    predicted = probabilities.argmax(axis=1)
    counts = np.bincount(codes, minlength=n_classes)
    recall = np.bincount(codes[predicted == codes], minlength=n_classes)[counts > 0]
    values = {
        "log_loss": float(log_loss_per_sample(probabilities, codes).mean()),
        "accuracy": float((predicted == codes).mean()),
        "balanced_accuracy": float((recall / counts[counts > 0]).mean()),
        "macro_f1": _f1(codes, predicted, labels=np.union1d(codes, predicted)),
    }
    notes: dict[str, str] = {}
    absent = int((counts == 0).sum())
    if absent:
        text = f"{absent} of {n_classes} classes have no sample in these rows: left out"
        notes |= {"balanced_accuracy": text, "macro_f1": text}
    shown = [1] if n_classes == 2 else range(n_classes)
    truth = np.stack([codes == c for c in shown], axis=1)
    ranked, ranked_notes = _ranking_scores(truth, probabilities[:, list(shown)], what="classes")
    return values | ranked, notes | ranked_notes


def label_scores(
    probabilities: NDArray, labels: NDArray
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
        roc_auc_micro, average_precision_micro.
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
        "balanced_accuracy": _mean(balanced),
        "macro_f1": _mean(f1),
        "micro_f1": float(2 * hits.sum() / (n_pos + n_guess).sum()) if any_pos.any() else np.nan,
    }
    notes = _left_out("balanced_accuracy", both, "labels do not vary in these rows")
    notes |= _left_out("macro_f1", any_pos, "labels neither occur nor are predicted")
    if not any_pos.any():
        notes["micro_f1"] = "no label occurs or is predicted in these rows"
    macro, macro_notes = _ranking_scores(truth, probabilities, what="labels")
    micro, micro_notes = _ranking_scores(
        truth.reshape(-1, 1), probabilities.reshape(-1, 1), what="label cells", suffix="_micro"
    )
    return values | macro | micro, notes | macro_notes | micro_notes


def _ranking_scores(
    truth: NDArray, score: NDArray, *, what: str, suffix: str = ""
) -> tuple[dict[str, float], dict[str, str]]:
    """ROC-AUC and average precision, mean over the columns that have both outcomes."""
    varies = np.asarray(truth.any(axis=0) & ~truth.all(axis=0))
    metrics: dict[str, Callable[..., float]] = {
        f"roc_auc{suffix}": roc_auc_score,
        f"average_precision{suffix}": average_precision_score,
    }
    values: dict[str, float] = {}
    notes: dict[str, str] = {}
    for name, metric in metrics.items():
        each = [metric(truth[:, j], score[:, j]) for j in np.flatnonzero(varies)]
        values[name] = _mean(np.asarray(each))
        notes |= _left_out(name, varies, f"{what} do not vary in these rows")
    return values, notes


def _left_out(metric: str, kept: NDArray, why: str) -> dict[str, str]:
    """Note on the columns that a metric leaves out, if it leaves out any."""
    if kept.all():
        return {}
    lost = int((~kept).sum())
    end = ": left out" if kept.any() else ": not defined"
    return {metric: f"{lost} of {len(kept)} {why}{end}"}


def _mean(values: NDArray) -> float:
    """Mean, or NaN of nothing (without numpy's warning)."""
    return float(values.mean()) if len(values) else np.nan


def _f1(codes: NDArray, predicted: NDArray, labels: NDArray) -> float:
    """Unweighted mean of the F1 scores of `labels`."""
    return float(f1_score(codes, predicted, labels=labels, average="macro", zero_division=0.0))


def _clipped(p: NDArray) -> NDArray[np.float64]:
    """Probabilities kept off 0 and 1."""
    return np.clip(p.astype(np.float64), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
