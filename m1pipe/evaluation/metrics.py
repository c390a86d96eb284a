"""Losses of samples and scores of test folds, each defined once for all models; those of levels."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from m1pipe.data.targets import Targets
from m1pipe.data.units import LN, LOG_OF, Units, to_linear
from m1pipe.evaluation.class_metrics import (
    check_probabilities,
    class_scores,
    label_scores,
    log_loss_per_sample,
    multilabel_loss_per_sample,
)

KINDS = ("regression", "binary", "multiclass", "multilabel")
HEADLINE = {
    "regression": "mse",
    "binary": "log_loss",
    "multiclass": "log_loss",
    "multilabel": "log_loss",
}
HARDLY_VARIES = 1e-4  # of the mean over targets: a hundredth of the usual standard deviation
_BLOCK_CELLS = 2**20
SMALLEST_TOTAL = 1.0
"""A gene whose isoforms sum to less in a sample (before the logarithm) has no fractions there."""
_FRACTION_CELLS = 2**21


def headline(kind: str, level_loss: str) -> str:
    """Name of the headline loss; `level_loss` is that of levels, from the configuration."""
    return level_loss if kind == "regression" else HEADLINE[kind]


def target_spread(train: np.ndarray) -> NDArray[np.float64]:
    """Standard deviation of each target, by which the standardised loss divides its errors.

    Parameters
    ----------
    train : ndarray, shape (n_samples, n_targets)

    Returns
    -------
    ndarray, shape (n_targets,)
        Infinite where a target hardly varies (variance at most `HARDLY_VARIES` of the mean of all
        targets): it does not count.
    """
    variance = train.var(axis=0, dtype=np.float64)
    return np.where(variance > HARDLY_VARIES * variance.mean(), np.sqrt(variance), np.inf)


def per_sample_loss(
    kind: str, prediction: ArrayLike, targets: ArrayLike, spread: np.ndarray | None = None
) -> NDArray[np.float64]:
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
    spread : ndarray, shape (n_targets,), optional
        From `target_spread`; errors of levels are divided by it.

    Returns
    -------
    ndarray of float64, shape (n_samples,)
        Mean squared error over the targets (of finite spread); or the log loss in nats, with
        probabilities clipped at `m1pipe.evaluation.class_metrics.PROBABILITY_FLOOR`; or its mean
        over the labels. The mean over samples is the score of the same name.

    Raises
    ------
    ValueError
        On an unknown kind, shapes that differ, or a prediction that is not finite or no
        probability.
    """
    predicted, true = _checked(kind, prediction, targets)
    if kind == "regression":
        return squared_error_per_sample(predicted, true, spread)
    if kind == "multilabel":
        return multilabel_loss_per_sample(predicted, true)
    return log_loss_per_sample(predicted, true)


def scores(
    kind: str,
    prediction: ArrayLike,
    targets: ArrayLike,
    train_mean: ArrayLike | None = None,
) -> dict[str, float]:
    """Every score of one model on one set of test rows.

    Parameters
    ----------
    kind, prediction, targets
        As for `per_sample_loss`: shapes (n_samples, n_outputs).
    train_mean : array_like, shape (n_targets,), optional
        Mean of every target over the training rows: what r2 measures against. Regression only.

    Returns
    -------
    dict of str to float
        regression: mse, mae, r2 (pooled, 1 - SSE / SST, SST against the training means), pearson
        (median over the targets that vary). Classes: log_loss, accuracy, balanced_accuracy,
        macro_f1, roc_auc, average_precision. multilabel: the same and those of
        `m1pipe.evaluation.class_metrics.label_scores`. NaN where a score is not defined.
    """
    predicted, true = _checked(kind, prediction, targets)
    if kind == "regression":
        return level_scores(predicted, true, train_mean)
    return label_scores(predicted, true) if kind == "multilabel" else class_scores(predicted, true)


def _checked(kind: str, prediction: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and targets as arrays of matching shapes; two classes as two columns."""
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}; found {kind!r}")
    predicted, true = np.asarray(prediction), np.asarray(targets)
    _refuse_not_finite(predicted, "prediction")
    _refuse_not_finite(true, "targets")
    if kind in ("binary", "multiclass"):
        if true.ndim != 1 or len(true) != len(predicted):
            raise ValueError(f"class codes: expected shape ({len(predicted)},): {true.shape}")
        return check_probabilities(predicted, true, binary=kind == "binary"), true
    if predicted.shape != true.shape or true.ndim != 2:
        raise ValueError(f"prediction {predicted.shape} and targets {true.shape} do not fit")
    if kind == "multilabel" and predicted.size and not 0 <= predicted.min() <= predicted.max() <= 1:
        raise ValueError("label probabilities: expected numbers in [0, 1]")
    return predicted, true


def _refuse_not_finite(values: np.ndarray, what: str) -> None:
    """Refuse NaN and infinity, naming the first row (row sums show them without a mask)."""
    sums = values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)
    if not np.isfinite(sums).all():
        row = int(np.flatnonzero(~np.isfinite(sums))[0])
        raise ValueError(f"{what}: expected finite numbers; row {row} holds another")


def squared_error_per_sample(
    prediction: np.ndarray, targets: np.ndarray, spread: np.ndarray | None = None
) -> NDArray[np.float64]:
    """Mean over targets of the squared error, shape (n_samples,); divided by their spread first."""
    total = np.zeros(len(targets))
    for columns in _column_blocks(targets.shape):
        error = _error(prediction[:, columns], targets[:, columns])
        if spread is not None:
            error = error / spread[columns]
        total += np.einsum("ij,ij->i", error, error)
    n = targets.shape[1] if spread is None else max(int(np.isfinite(spread).sum()), 1)
    return np.asarray(total / n)


def target_errors(
    prediction: np.ndarray, targets: np.ndarray, train_mean: ArrayLike | None = None
) -> pd.DataFrame:
    """Errors of every target over the test rows.

    Parameters
    ----------
    prediction, targets : ndarray, shape (n_samples, n_targets)
    train_mean : array_like, shape (n_targets,), optional
        Training mean of every target; NaN columns `sst` and `r2` without it.

    Returns
    -------
    DataFrame, one row a target
        sse, sae (sums of squared and absolute errors), sst (squared distance from the training
        mean), r2 = 1 - sse / sst (NaN where sst is 0), pearson (NaN where the target is constant
        over these rows, 0 where only the prediction is), constant, constant_prediction.
    """
    base = _as_baseline(train_mean, prediction, targets.shape[1])
    parts = []
    for columns in _column_blocks(targets.shape):
        predicted, true = prediction[:, columns], targets[:, columns]
        error = _error(predicted, true)
        from_mean = _error(np.broadcast_to(base[columns], true.shape), true)
        parts.append(
            {
                "sse": np.einsum("ij,ij->j", error, error),
                "sae": np.abs(error).sum(axis=0),
                "sst": np.einsum("ij,ij->j", from_mean, from_mean),
                "pearson": correlation(predicted, true),
                "constant": np.ptp(true, axis=0) == 0,
                "constant_prediction": np.ptp(predicted, axis=0) == 0,
            }
        )
    table = pd.DataFrame({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})
    table.insert(3, "r2", 1 - table["sse"] / table["sst"].where(table["sst"] > 0))
    return table


def correlation(prediction: np.ndarray, targets: np.ndarray) -> NDArray[np.float64]:
    """Pearson correlation of each column.

    Parameters
    ----------
    prediction, targets : ndarray, shape (n_samples, n_targets)

    Returns
    -------
    ndarray, shape (n_targets,)
        NaN where the target is constant; 0 where only the prediction is (it tells nothing).
    """
    x = prediction - prediction.mean(axis=0, dtype=np.float64)
    y = targets - targets.mean(axis=0, dtype=np.float64)
    norm = np.sqrt(np.einsum("ij,ij->j", x, x) * np.einsum("ij,ij->j", y, y))
    flat = (np.ptp(prediction, axis=0) == 0) | (norm == 0)
    r = np.where(flat, 0.0, np.einsum("ij,ij->j", x, y) / np.where(flat, 1.0, norm))
    return np.where(np.ptp(targets, axis=0) == 0, np.nan, np.clip(r, -1, 1))


def level_scores(
    prediction: np.ndarray, targets: np.ndarray, train_mean: ArrayLike | None = None
) -> dict[str, float]:
    """Pooled errors, R2 against the training means, and the median correlation of a target.

    Parameters
    ----------
    prediction, targets : ndarray, shape (n_samples, n_targets)
    train_mean : array_like, shape (n_targets,), optional
        Needed by r2. It is taken in the precision of the prediction, so that predicting exactly
        these means scores exactly 0.

    Returns
    -------
    dict
        mse, mae, r2 (NaN where no target departs from its training mean), pearson (over the targets
        that vary; NaN where there are none, or the prediction is constant for all of them).
    """
    table = target_errors(prediction, targets, train_mean)
    sse, sst = float(table["sse"].sum()), float(table["sst"].sum(skipna=False))
    varying = table[~table["constant"]]
    told = not varying["constant_prediction"].all()
    return {
        "mse": sse / targets.size,
        "mae": float(table["sae"].sum()) / targets.size,
        "r2": 1 - sse / sst if sst > 0 else np.nan,
        "pearson": float(varying["pearson"].median()) if told else np.nan,
    }


def _error(prediction: np.ndarray, targets: np.ndarray) -> NDArray[np.float64]:
    """Difference in float64."""
    return np.asarray(np.subtract(prediction, targets, dtype=np.float64))


def _as_baseline(
    train_mean: ArrayLike | None, prediction: np.ndarray, n_targets: int
) -> np.ndarray:
    """Training means in the prediction's precision; NaN where they are not given."""
    if train_mean is None:
        return np.full(n_targets, np.nan)
    base = np.asarray(train_mean, dtype=prediction.dtype)
    if base.shape != (n_targets,):
        raise ValueError(f"training means: expected shape ({n_targets},); found {base.shape}")
    return base


def _column_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of columns of about a million cells."""
    width = max(1, _BLOCK_CELLS // max(1, shape[0]))
    for start in range(0, shape[1], width):
        yield slice(start, start + width)


def fraction_r2(prediction: np.ndarray, targets: Targets, mean: np.ndarray) -> float | None:
    """R2 of the isoforms' fractions against those that the training means give.

    Parameters
    ----------
    prediction : ndarray, shape (n_samples, n_targets)
    targets : Targets
        Of the same samples, with genes.
    mean : ndarray, shape (n_targets,)
        Training means.

    Returns
    -------
    float or None
        1 - SSE / SSE of the training means' fractions, over the isoforms of genes with several
        and the samples where the gene's total is at least `SMALLEST_TOTAL`. None where genes or
        a scale that can be summed are not known, or no gene has several isoforms.
    """
    units = targets.units
    if targets.genes is None or units.name not in (*LOG_OF, *LOG_OF.values(), LN):
        return None
    sse = base = 0.0
    for columns, starts in gene_blocks(targets.genes, len(prediction)):
        true, total = _fractions(targets.values[:, columns], starts, units)
        known = np.repeat(total >= SMALLEST_TOTAL, np.diff([*starts, columns.size]), axis=1)
        ours, _ = _fractions(prediction[:, columns], starts, units)
        theirs, _ = _fractions(mean[None, columns], starts, units)
        sse += float(((ours - true) ** 2)[known].sum())
        base += float(((theirs - true) ** 2)[known].sum())
    return 1 - sse / base if base > 0 else None


def gene_blocks(genes: tuple[str, ...], n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Targets of genes with several isoforms, gene by gene, some genes at a time.

    Returns
    -------
    list of (columns, starts)
        Targets, and where each gene begins among them.
    """
    codes = pd.Series(pd.factorize(np.asarray(genes, dtype=object))[0])
    several = np.flatnonzero(codes.groupby(codes).transform("size") > 1)
    order = several[np.argsort(codes[several], kind="stable")]
    first = np.flatnonzero(np.diff(codes[order], prepend=-1))
    step = max(1, _FRACTION_CELLS // max(1, n))
    blocks, begin = [], 0
    while begin < first.size:
        end = max(begin + 1, int(np.searchsorted(first, first[begin] + step)))
        stop = first[end] if end < first.size else order.size
        blocks.append((order[first[begin] : stop], first[begin:end] - first[begin]))
        begin = end
    return blocks


def _fractions(
    levels: np.ndarray, starts: np.ndarray, units: Units
) -> tuple[np.ndarray, np.ndarray]:
    """Fractions of each gene's total, equal ones where that is 0, and the totals."""
    linear = np.maximum(to_linear(levels.astype(np.float64), units), 0)
    total = np.add.reduceat(linear, starts, axis=1)
    sizes = np.diff([*starts, levels.shape[1]])
    spread = np.repeat(total, sizes, axis=1)
    equal = np.repeat(1 / sizes, sizes)
    return np.where(spread > 0, linear / np.where(spread > 0, spread, 1), equal), total
