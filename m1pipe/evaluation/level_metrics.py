"""Errors of predicted levels: squared and absolute, pooled R2, correlation per target.

Wide target matrices (150,000 isoforms) are read by blocks of columns in float64, so that nothing
of their size is held a second time.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

_BLOCK_CELLS = 2**20


def squared_error_per_sample(prediction: np.ndarray, targets: np.ndarray) -> NDArray[np.float64]:
    """Mean over targets of the squared error, shape (n_samples,)."""
    total = np.zeros(len(targets))
    for columns in _column_blocks(targets.shape):
        error = _error(prediction[:, columns], targets[:, columns])
        total += np.einsum("ij,ij->i", error, error)
    found: NDArray[np.float64] = total / targets.shape[1]
    return found


def target_table(
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
) -> tuple[dict[str, float], dict[str, str]]:
    """Pooled errors, R2 against the training means, and the median correlation of a target.

    Parameters
    ----------
    prediction, targets : ndarray, shape (n_samples, n_targets)
    train_mean : array_like, shape (n_targets,), optional
        Needed by r2. It is taken in the precision of the prediction, so that predicting exactly
        these means scores exactly 0.

    Returns
    -------
    values : dict
        mse, mae, r2, pearson.
    notes : dict
        Why one of them is NaN, or how many targets were left out.
    """
    table = target_table(prediction, targets, train_mean)
    n_cells, n_targets = targets.size, targets.shape[1]
    sse, sst = float(table["sse"].sum()), float(table["sst"].sum(skipna=False))
    varies = ~table["constant"]
    notes: dict[str, str] = {}
    if train_mean is None:
        notes["r2"] = "the training means were not given"
    elif sst == 0:
        notes["r2"] = "no target departs from its training mean in these rows"
    if not varies.any():
        notes["pearson"] = "every target is constant in these rows"
    elif table.loc[varies, "constant_prediction"].all():
        notes["pearson"] = "the prediction is constant for every target"
    elif not varies.all():
        notes["pearson"] = f"{int((~varies).sum())} of {n_targets} targets are constant: left out"
    undefined = not varies.any() or bool(table.loc[varies, "constant_prediction"].all())
    values = {
        "mse": sse / n_cells,
        "mae": float(table["sae"].sum()) / n_cells,
        "r2": 1 - sse / sst if sst > 0 else np.nan,
        "pearson": np.nan if undefined else float(table.loc[varies, "pearson"].median()),
    }
    return values, notes


def _error(prediction: np.ndarray, targets: np.ndarray) -> NDArray[np.float64]:
    """Difference in float64."""
    found: NDArray[np.float64] = np.subtract(prediction, targets, dtype=np.float64)
    return found


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
