"""L2-penalised logistic regression of classes and labels, exactly reduced.

The rows are rotated onto their own space first, so that the cost does not grow with the genes. All
inner folds of the search for the penalty are fitted at once, from strong penalties to weak ones,
each starting where the last ended.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logsumexp, softmax

from m1pipe.heads.features import Rotation, rotate
from m1pipe.heads.inner_folds import fold_names, inner_folds, missed_share
from m1pipe.heads.logistic_solver import Fits, LogisticProblem, solve
from m1pipe.heads.ridge import LinearFit

GRID = np.logspace(2, -5, 15)  # times a quarter of the mean eigenvalue of X'X
_INNER_TOLERANCE, _FINAL_TOLERANCE = 1e-4, 1e-6  # of the gradient, times the root of the samples
_CLEAR_RISE = 1.02  # of the criterion over its best: weaker penalties are not tried


@dataclass(frozen=True, kw_only=True)
class LogisticFit(LinearFit):
    """A fitted logistic regression; the other attributes are those of `LinearFit`.

    Attributes
    ----------
    weights : ndarray, shape (rank, n_outputs)
        One output for two classes, else one a class (softmax) or a label.
    intercept : ndarray, shape (n_outputs,)
        A class that no training row has, or a label that never varies there, gets the log-odds
        that half a row more would give it.
    kind : str
        "binary", "multiclass" or "multilabel".
    alphas, losses : ndarray, shape (n_tried,)
        Penalties tried (1 / C of scikit-learn) and their log losses over the inner folds.
    criterion : ndarray, shape (n_tried,)
        Those with `MISSED_ROWS` missed rows more, by whose minimum the penalty is chosen.
    unit_losses : ndarray, shape (n_held_out,)
        That of every row of the inner folds at the penalty chosen.
    inner : Fits or None
        Coefficients on the basis of every inner fold at that penalty, of the centred scores.
    """

    kind: str
    criterion: NDArray[np.float64]
    inner: Fits | None = None

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities: (n_samples, n_classes), two columns for two classes, or a label each."""
        scores = np.asarray(X, dtype=np.float64) @ self.basis
        return probabilities(scores @ self.weights + self.intercept, self.kind)


def fit_logistic(
    X: ArrayLike | Rotation,
    targets: ArrayLike,
    *,
    kind: str,
    n_classes: int | None = None,
    groups: ArrayLike | None = None,
    folds: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    alphas: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    seed: int = 0,
) -> LogisticFit:
    """Logistic regression, its one penalty chosen by the log loss of inner stratified folds.

    With n rows, `MISSED_ROWS` / (n + 1) of each row's loss is that of the likeliest other class.

    Parameters
    ----------
    X : array_like, shape (n_samples, n_features), or Rotation
        Scaled inputs, or scores, of the training rows, or their rotation.
    targets : array_like
        Class codes, shape (n_samples,), for "binary" and "multiclass"; 0/1, shape (n_samples,
        n_labels), for "multilabel".
    kind : str
        "binary", "multiclass" or "multilabel".
    n_classes : int, optional
        Number of classes where some may be missing from these rows.
    groups : array_like, shape (n_samples,), optional
        Donors, which the inner folds keep together.
    folds : array_like of int, shape (n_samples,), optional
        Inner fold of each row, in place of those that are dealt here; -1: in no fold, always
        trained on.
    weight : array_like, shape (n_samples, n_labels or 1), optional
        Of each loss, here and in the inner folds; its mean counts nothing. None: all alike.
    alphas : array_like, optional
        Penalties to try, strongest first, until the loss has clearly risen; a single one is
        taken as it is. None: half decades about the mean eigenvalue of X'X.
    offset : array_like, shape (n_samples, n_outputs), optional
        Added to every linear prediction, here and in the inner folds; `predict` leaves it out.
    seed : int
        Of the inner folds.

    Returns
    -------
    LogisticFit
        Minimises the weighted sum of log losses + alpha / 2 * sum coef^2, the intercept free.

    Raises
    ------
    ValueError
        If the kind is unknown or the shapes do not fit.
    """
    coded = _output_columns(targets, kind, n_classes)
    rotation = X if isinstance(X, Rotation) else rotate(X)
    if len(coded) != len(rotation.left):
        raise ValueError(f"targets: expected {len(rotation.left)} rows; found {len(coded)}")
    of_row = np.ones((len(coded), 1)) if weight is None else np.asarray(weight, dtype=np.float64)
    problem = LogisticProblem(
        rotation.left * rotation.singular,
        coded,
        of_row / of_row.mean(axis=0),
        softmax=kind == "multiclass",
        offset=None if offset is None else np.asarray(offset, dtype=np.float64),
    )
    dealt = inner_folds(targets, kind, groups, seed) if folds is None else np.asarray(folds)
    search = _search(problem, dealt, _grid(rotation, alphas))
    alpha = float(search["alphas"][int(np.argmin(search["criterion"]))])
    everything = np.ones((len(coded), 1), dtype=bool)
    tolerance = _FINAL_TOLERANCE * np.sqrt(len(coded))
    start = search["inner"].mean() if "inner" in search else None
    fit = solve(problem, everything, alpha, tolerance=tolerance, start=start)
    weights, intercept = fit.weights[:, 0], fit.intercept[0]
    intercept = intercept - rotation.shift @ weights
    return LogisticFit(rotation.basis, weights, intercept, alpha, kind=kind, **search)


def _grid(rotation: Rotation, alphas: ArrayLike | None) -> NDArray[np.float64]:
    """Penalties to try, strongest first."""
    if alphas is not None:
        return np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    mean = float(np.mean(rotation.singular**2)) if len(rotation.singular) else 1.0
    return GRID * mean / 4


def _output_columns(targets: ArrayLike, kind: str, n_classes: int | None) -> NDArray[np.float64]:
    """Targets as 0/1 columns: one for two classes, else one a class or label."""
    values = np.asarray(targets)
    if kind == "multilabel" and values.ndim == 2:
        return values.astype(np.float64)
    if kind not in ("binary", "multiclass") or values.ndim != 1:
        raise ValueError(f"targets: shape {values.shape} does not fit the kind {kind!r}")
    if kind == "binary":
        return values.astype(np.float64)[:, None]
    width = int(values.max()) + 1 if n_classes is None else n_classes
    return np.eye(width)[values.astype(np.intp)]


def probabilities(logits: np.ndarray, kind: str) -> NDArray[np.float64]:
    """Class or label probabilities of logits, the outputs on the last axis."""
    if kind == "multiclass":
        return softmax(logits, axis=-1)
    p = expit(logits)
    return p if kind == "multilabel" else np.concatenate([1 - p, p], axis=-1)


def _search(problem: LogisticProblem, folds: np.ndarray, grid: np.ndarray) -> dict[str, Any]:
    """Try penalties, strongest first, on the rows that each inner fold leaves out.

    What is found is named as the attributes of `LogisticFit`.
    """
    names = fold_names(folds)
    if len(names) == 0 or (folds == names[0]).all():  # nothing is left out, or nothing left
        middle, unknown = len(grid) // 2, np.array([np.nan])
        tried = {"alphas": grid[middle : middle + 1], "losses": unknown, "criterion": unknown}
        return tried | {"unit_losses": np.zeros(0)}
    train = folds[:, None] != names
    out = np.flatnonzero(folds >= 0)
    place = np.searchsorted(names, folds[out])[:, None, None]
    tolerance = _INNER_TOLERANCE * np.sqrt(len(folds))
    losses, criterion = [], []
    fit, best, of_rows = None, None, None
    for alpha in grid:
        fit = solve(problem, train, float(alpha), tolerance=tolerance, start=fit)
        logits = np.take_along_axis(fit.logits(problem)[out], place, axis=1)[:, 0]
        loss, missed = _row_losses(logits, problem, out)
        found = loss + missed_share(len(out)) * (missed - loss)
        losses.append(float(loss.mean()))
        criterion.append(float(found.mean()))
        if criterion[-1] == min(criterion):
            best, of_rows = fit, found
        rises_twice = len(criterion) > 2 and criterion[-1] > criterion[-2] > criterion[-3]
        if rises_twice or criterion[-1] > _CLEAR_RISE * min(criterion):
            break
    return {
        "alphas": grid[: len(losses)],
        "losses": np.array(losses),
        "criterion": np.array(criterion),
        "inner": best,
        "unit_losses": of_rows,
    }


def _row_losses(
    logits: np.ndarray, problem: LogisticProblem, rows: np.ndarray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted log loss of some rows, and that of the likeliest other class; mean over labels."""
    coded, weight = problem.targets[rows], problem.weight[rows]
    if problem.softmax:
        total = logsumexp(logits, axis=1, keepdims=True)
        is_own = coded > 0.5
        losses = total - logits[is_own][:, None]
        missed = total - np.where(is_own, -np.inf, logits).max(axis=1, keepdims=True)
    else:
        total = np.logaddexp(0, logits)
        losses, missed = total - coded * logits, total - (1 - coded) * logits
    return np.mean(losses * weight, axis=1), np.mean(missed * weight, axis=1)
