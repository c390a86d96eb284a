"""Scores of predicted probabilities of classes, of which each sample has one."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from m1pipe.evaluation.ranking import average_precisions, roc_aucs

PROBABILITY_FLOOR = 1e-7
"""Probabilities are clipped to [floor, 1 - floor] in every log loss, for every model alike: a
confident mistake costs at most 16.1 nats. It is the resolution of float32 near 1."""


def check_probabilities(
    prediction: np.ndarray, codes: np.ndarray, *, binary: bool
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


def log_loss_per_sample(probabilities: np.ndarray, codes: np.ndarray) -> NDArray[np.float64]:
    """Minus the log of the true class's clipped probability, in nats, shape (n_samples,)."""
    own = probabilities[np.arange(len(codes)), codes.astype(np.intp)]
    return -np.log(clipped(own))


def class_scores(
    probabilities: np.ndarray, codes: np.ndarray
) -> tuple[dict[str, float], dict[str, str]]:
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
    ranked, ranked_notes = ranking_scores(truth, probabilities[:, list(shown)], what="classes")
    return values | ranked, notes | ranked_notes


def ranking_scores(
    truth: np.ndarray, score: np.ndarray, *, what: str, suffix: str = ""
) -> tuple[dict[str, float], dict[str, str]]:
    """ROC-AUC and average precision, mean over the columns that have both outcomes.

    Parameters
    ----------
    truth : ndarray of bool, shape (n_samples, n_columns)
    score : ndarray, shape (n_samples, n_columns)
        The higher, the likelier.
    what : str
        What a column is, for the note.
    suffix : str
        Of the metrics' names.

    Returns
    -------
    values, notes : dict
        By metric; a note where columns were left out.
    """
    varies = np.asarray(truth.any(axis=0) & ~truth.all(axis=0))
    truth, score = truth[:, varies], score[:, varies]
    values = {
        f"roc_auc{suffix}": mean(roc_aucs(truth, score)),
        f"average_precision{suffix}": mean(average_precisions(truth, score)),
    }
    notes: dict[str, str] = {}
    for name in values:
        notes |= left_out(name, varies, f"{what} do not vary in these rows")
    return values, notes


def left_out(metric: str, kept: np.ndarray, why: str) -> dict[str, str]:
    """Note on the columns that a metric leaves out, if it leaves out any.

    Parameters
    ----------
    metric : str
    kept : ndarray of bool, shape (n_columns,)
    why : str
    """
    if kept.all():
        return {}
    lost = int((~kept).sum())
    end = ": left out" if kept.any() else ": not defined"
    return {metric: f"{lost} of {len(kept)} {why}{end}"}


def mean(values: np.ndarray) -> float:
    """Mean, or NaN of nothing (without numpy's warning).

    Parameters
    ----------
    values : ndarray, shape (n,)
    """
    return float(values.mean()) if len(values) else np.nan


def _f1(codes: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> float:
    """Unweighted mean of the F1 scores of `labels`."""
    return float(f1_score(codes, predicted, labels=labels, average="macro", zero_division=0.0))


def clipped(p: np.ndarray) -> NDArray[np.float64]:
    """Probabilities kept off 0 and 1.

    Parameters
    ----------
    p : ndarray of any shape

    Returns
    -------
    ndarray of float64, of the same shape
    """
    return np.clip(p.astype(np.float64), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
