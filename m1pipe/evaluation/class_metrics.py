"""Scores of predicted probabilities: of classes, one a sample, and of labels, any number."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import f1_score

PROBABILITY_FLOOR = 1e-7
"""Probabilities are clipped to [floor, 1 - floor] in every log loss, for every model alike: a
confident mistake costs at most 16.1 nats. It is the resolution of float32 near 1."""
PRECISION_AT = (1, 5)
"""Numbers of highest-scored labels of a sample whose precision is a score."""
BIN_EDGES = np.array([0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
"""Ends of the bins of calibration: narrow near 0, where most probabilities of rare labels are."""
_THRESHOLD = 0.5


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


def class_scores(probabilities: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    """Scores of class probabilities.

    Parameters
    ----------
    probabilities : ndarray, shape (n_samples, n_classes)
    codes : ndarray of int, shape (n_samples,)

    Returns
    -------
    dict
        log_loss, accuracy, balanced_accuracy (mean recall of the classes that occur), macro_f1
        (over classes that occur or are predicted), roc_auc and average_precision (of the second
        class of two; else the mean over classes of one against the rest).
    """
    n_classes = probabilities.shape[1]
    codes = codes.astype(np.intp)
    predicted = probabilities.argmax(axis=1)
    counts = np.bincount(codes, minlength=n_classes)
    recall = np.bincount(codes[predicted == codes], minlength=n_classes)[counts > 0]
    shown = [1] if n_classes == 2 else list(range(n_classes))
    truth = np.stack([codes == c for c in shown], axis=1)
    return {
        "log_loss": float(log_loss_per_sample(probabilities, codes).mean()),
        "accuracy": float((predicted == codes).mean()),
        "balanced_accuracy": float((recall / counts[counts > 0]).mean()),
        "macro_f1": _f1(codes, predicted, labels=np.union1d(codes, predicted)),
        **ranking_scores(truth, probabilities[:, shown]),
    }


def ranking_scores(truth: np.ndarray, score: np.ndarray, *, suffix: str = "") -> dict[str, float]:
    """ROC-AUC and average precision, mean over the columns that have both outcomes.

    Parameters
    ----------
    truth : ndarray of bool, shape (n_samples, n_columns)
    score : ndarray, shape (n_samples, n_columns)
        The higher, the likelier.
    suffix : str
        Of the metrics' names.
    """
    varies = np.asarray(truth.any(axis=0) & ~truth.all(axis=0))
    truth, score = truth[:, varies], score[:, varies]
    return {
        f"roc_auc{suffix}": mean(roc_aucs(truth, score)),
        f"average_precision{suffix}": mean(average_precisions(truth, score)),
    }


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


def ratio(a: np.ndarray, b: np.ndarray) -> NDArray[np.float64]:
    """Quotient of arrays of one shape, in float64; NaN where b is 0."""
    return np.asarray(np.divide(a, b, out=np.full(np.shape(b), np.nan), where=b > 0))


def roc_aucs(truth: np.ndarray, score: np.ndarray) -> NDArray[np.float64]:
    """Area under the ROC curve of each column.

    Parameters
    ----------
    truth : ndarray of bool, shape (n_samples, n_columns)
    score : ndarray, shape (n_samples, n_columns)

    Returns
    -------
    ndarray of float64, shape (n_columns,)
        Share of the pairs of a true and another sample in which the true one scores higher, ties
        counting one half (Mann and Whitney 1947); NaN for a column without both.
    """
    n_true = truth.sum(axis=0, dtype=np.float64)
    ranks = rankdata(score, axis=0)
    wins = (ranks * truth).sum(axis=0) - n_true * (n_true + 1) / 2
    pairs = n_true * (len(truth) - n_true)
    return ratio(wins, pairs)


def precision_sums(truth: np.ndarray, score: np.ndarray) -> NDArray[np.float64]:
    """Sum over the true samples of the precision down to their score, for each column.

    Divided by the number of true samples it is the average precision without interpolation
    (scikit-learn's `average_precision_score`): samples of one score stand or fall together.

    Parameters
    ----------
    truth : ndarray of bool, shape (n_samples, n_columns)
    score : ndarray, shape (n_samples, n_columns)

    Returns
    -------
    ndarray of float64, shape (n_columns,)
    """
    n_above = rankdata(-score, method="max", axis=0).astype(np.intp)
    order = np.argsort(-score, axis=0, kind="stable")
    hits = np.take_along_axis(truth, order, axis=0).cumsum(axis=0)
    precision = np.take_along_axis(hits, n_above - 1, axis=0) / n_above
    return np.asarray((precision * truth).sum(axis=0))


def average_precisions(truth: np.ndarray, score: np.ndarray) -> NDArray[np.float64]:
    """Average precision of each column; NaN for one without both outcomes.

    Parameters
    ----------
    truth : ndarray of bool, shape (n_samples, n_columns)
    score : ndarray, shape (n_samples, n_columns)
    """
    n_true = truth.sum(axis=0)
    varies = (n_true > 0) & (n_true < len(truth))
    return ratio(precision_sums(truth, score), np.where(varies, n_true, 0))


def precisions_at(truth: np.ndarray, score: np.ndarray, k: int) -> NDArray[np.float64]:
    """Share of each sample's k highest-scored columns that are true, shape (n_samples,).

    Columns that tie for the last places count by the share of them that is true: the mean over
    all ways to break the tie, so that equal scores have the precision of chance.

    Parameters
    ----------
    truth : ndarray of bool, shape (n_samples, n_columns)
    score : ndarray, shape (n_samples, n_columns)
    k : int
        At least 1, at most n_columns.
    """
    last = -np.partition(-score, k - 1, axis=1)[:, [k - 1]]
    above, tied = score > last, score == last
    places_left = k - above.sum(axis=1)
    hits = (truth & above).sum(axis=1) + places_left * (truth & tied).sum(axis=1) / tied.sum(axis=1)
    return np.asarray(hits / k)


def multilabel_loss_per_sample(
    probabilities: np.ndarray, labels: np.ndarray
) -> NDArray[np.float64]:
    """Binary log loss in nats, mean over the labels, shape (n_samples,)."""
    p = np.asarray(probabilities, dtype=np.float64)
    own = np.where(labels > _THRESHOLD, p, 1 - p)
    return np.asarray(-np.log(clipped(own)).mean(axis=1))


def label_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores of label probabilities, as means over labels (macro) and over all cells (micro).

    Parameters
    ----------
    probabilities, labels : ndarray, shape (n_samples, n_labels)
        Probabilities, and 0/1.

    Returns
    -------
    dict
        log_loss, accuracy (share of right cells), balanced_accuracy, macro_f1, roc_auc,
        average_precision (means over the labels where they are defined), micro_f1,
        roc_auc_micro, average_precision_micro; precision_at_K for each K of `PRECISION_AT` below
        the number of labels (mean over samples, those without any label included; a random order
        has the prevalence); brier (mean squared distance of probability and 0/1 over all cells)
        and calibration_error.
    """
    truth, guess = labels > _THRESHOLD, probabilities > _THRESHOLD
    hits, n_pos, n_guess = (truth & guess).sum(0), truth.sum(0), guess.sum(0)
    n_neg, right_neg = (~truth).sum(0), (~truth & ~guess).sum(0)
    both, any_pos = (n_pos > 0) & (n_neg > 0), n_pos + n_guess > 0
    f1 = 2 * hits[any_pos] / (n_pos + n_guess)[any_pos]
    balanced = (hits[both] / n_pos[both] + right_neg[both] / n_neg[both]) / 2
    cells = (truth.reshape(-1, 1), probabilities.reshape(-1, 1))
    return {
        "log_loss": float(multilabel_loss_per_sample(probabilities, labels).mean()),
        "accuracy": float((truth == guess).mean()),
        "balanced_accuracy": mean(balanced),
        "macro_f1": mean(f1),
        "micro_f1": float(2 * hits.sum() / (n_pos + n_guess).sum()) if any_pos.any() else np.nan,
        **ranking_scores(truth, probabilities),
        **ranking_scores(*cells, suffix="_micro"),
        **_at_the_top(truth, probabilities),
        "brier": float(((probabilities - truth) ** 2).mean()),
        "calibration_error": calibration_error(calibration_bins(probabilities, truth)),
    }


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
