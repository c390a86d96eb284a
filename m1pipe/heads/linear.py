"""The linear part of a head: ridge or logistic regression at its exact solution.

Beside the solution of all training rows stand those of inner folds at the same penalty, by which
it is judged whether a hidden part adds anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg

from m1pipe.artefacts import hold_in_rows
from m1pipe.data.targets import Targets
from m1pipe.heads.features import Rotation
from m1pipe.heads.inner_folds import fold_names
from m1pipe.heads.logistic import fit_logistic
from m1pipe.heads.ridge import fit_ridge
from m1pipe.models.heads import balanced_weight

BLOCK_CELLS = 2**21


@dataclass(frozen=True, eq=False)
class OwnTerm:
    """A multiple of each target's own gene.

    Attributes
    ----------
    column : ndarray of int64, shape (n_targets,)
        Column of each target's gene among the levels given; -1 where X lacks it.
    slope : ndarray of float32, shape (n_targets,)
        Of the standardised gene, in the targets' units; 0 where there is none.
    location, scale : ndarray of float32, shape (n_own,)
        Standardisation; a gene that is constant in the training rows has an infinite scale.
    """

    column: np.ndarray
    slope: np.ndarray
    location: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        hold_in_rows(self)

    def standardize(self, values: np.ndarray) -> NDArray[np.float32]:
        """Standardised levels of the genes, float32, shape (n_samples, n_own)."""
        found: NDArray[np.float32] = np.subtract(values, self.location, dtype=np.float32)
        found /= self.scale
        return found

    def add_to(self, out: np.ndarray, values: np.ndarray) -> None:
        """Add the term to predictions, in place.

        Parameters
        ----------
        out : ndarray, shape (n_samples, n_targets)
        values : ndarray, shape (n_samples, n_own)
            Levels of the genes, in X's units.
        """
        own = self.standardize(values)
        on = np.flatnonzero(self.slope)
        step = max(1, BLOCK_CELLS // max(1, len(out)))
        for targets in (on[start : start + step] for start in range(0, on.size, step)):
            out[:, targets] += own[:, self.column[targets]] * self.slope[targets]

    def to_state(self) -> dict[str, np.ndarray]:
        """Arrays from which `from_state` makes the same term."""
        return {f"own.{name}": value for name, value in vars(self).items()}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray]) -> "OwnTerm":
        """Term stored by `to_state`."""
        names = ("column", "slope", "location", "scale")
        return cls(**{name: arrays[f"own.{name}"] for name in names})


@dataclass(frozen=True, eq=False)
class LinearPart:
    """Coefficients of a head's inputs, and of each target's own gene.

    Attributes
    ----------
    weight : ndarray of float32, shape (n_outputs, n_inputs)
    bias : ndarray of float32, shape (n_outputs,)
        Levels in the targets' units, or logits.
    own : OwnTerm or None
    """

    weight: np.ndarray
    bias: np.ndarray
    own: OwnTerm | None = None


@dataclass(frozen=True, eq=False)
class LinearChoice:
    """The linear part of all rows, and those of the inner folds.

    Attributes
    ----------
    whole : LinearPart
    inner : list of LinearPart
        Fitted without the rows of each fold that judges, at the same penalties.
    chosen : dict
        What was chosen: the penalty `alpha`.
    loss : float
        On left-out rows: the mean squared error, or of classes the log loss with
        `m1pipe.heads.inner_folds.MISSED_ROWS` missed rows more.
    unit_losses : ndarray, shape (n_units,)
        That of every left-out row, group or fold; empty where nothing is left out.
    """

    whole: LinearPart
    inner: list[LinearPart]
    chosen: dict[str, Any]
    loss: float
    unit_losses: NDArray[np.float64]


def fit_linear(
    rotation: Rotation,
    targets: Targets,
    *,
    folds: NDArray[np.intp],
    groups: np.ndarray | None,
    weight: np.ndarray | None,
    judged: NDArray[np.intp],
    offset: np.ndarray | None = None,
) -> LinearChoice:
    """Fit the linear part of a head.

    Parameters
    ----------
    rotation : Rotation
        Of the inputs of the training rows.
    targets : Targets
        Of the training rows.
    folds : ndarray of int, shape (n_rows,)
        Inner fold of each row; -1: always trained on.
    groups : ndarray, shape (n_rows,), or None
        Left out together where levels choose the penalty of a ridge.
    weight : ndarray, shape (n_rows, 1 or n_labels), or None
        Of every loss of classes, from `class_weights`.
    judged : ndarray of int
        Inner folds without which a solution is wanted as well.
    offset : ndarray, shape (n_rows, n_outputs), optional
        Added to levels or logits beside what is fitted here.

    Returns
    -------
    LinearChoice
    """
    if targets.kind == "regression":
        if offset is not None:
            targets = replace(targets, values=targets.values - offset)
        if len(targets.values) < 3:
            return _constant(rotation, targets, len(judged))
        ridge = fit_ridge(rotation, targets.values, groups=groups)
        whole = LinearPart(_float32(rotation.lift(ridge.weights).T), _float32(ridge.intercept))
        inner = _inner_ridges(rotation, targets, folds, judged, ridge.alpha)
        loss = float(ridge.losses.min())
        return LinearChoice(whole, inner, {"alpha": ridge.alpha}, loss, ridge.unit_losses)
    fit = fit_logistic(
        rotation,
        targets.values,
        kind=targets.kind,
        n_classes=len(targets.names),
        folds=folds,
        weight=weight,
        offset=offset,
    )
    whole = LinearPart(_float32(rotation.lift(fit.weights).T), _float32(fit.intercept))
    shift = rotation.shift
    parts = []
    if fit.inner is not None:
        for k in np.searchsorted(fold_names(folds), judged):
            weights, intercept = fit.inner.weights[:, k], fit.inner.intercept[k]
            coef = rotation.lift(weights)
            parts.append(LinearPart(_float32(coef.T), _float32(intercept - shift @ weights)))
    loss = float(fit.criterion.min())
    return LinearChoice(whole, parts, {"alpha": fit.alpha}, loss, fit.unit_losses)


def class_weights(targets: Targets, of_class: np.ndarray | None = None) -> np.ndarray:
    """Weight of every loss, (n_samples, 1), or for several labels (n_samples, n_labels).

    Parameters
    ----------
    targets : Targets
        Classes or labels.
    of_class : ndarray, shape (n_classes,), optional
        Weight of each class; balanced where it is not given.
    """
    values = targets.values
    weight = of_class
    if weight is None:
        found = balanced_weight(targets.kind, torch.from_numpy(values), len(targets.names))
        if found is None:
            raise ValueError(f"class weights: expected classes or labels; found {targets.kind}")
        weight = found.numpy()
    if targets.kind == "multilabel":
        return np.where(values > 0.5, weight[1], weight[0])
    return np.asarray(weight)[values][:, None]


def _constant(rotation: Rotation, targets: Targets, n_inner: int) -> LinearChoice:
    """The mean alone, where two rows leave nothing to choose a penalty by."""
    mean = targets.values.mean(axis=0, dtype=np.float64)
    weight = np.zeros((mean.size, len(rotation.basis)), dtype=np.float32)
    part = LinearPart(weight, _float32(mean))
    return LinearChoice(part, [part] * n_inner, {"alpha": np.inf}, np.nan, np.zeros(0))


def _inner_ridges(
    rotation: Rotation, targets: Targets, folds: np.ndarray, judged: np.ndarray, alpha: float
) -> list[LinearPart]:
    """Ridges of the same penalty without the rows of each fold that judges.

    In the rotated inputs X'X is diagonal; what the left-out rows add to it, to X'Y and to the means
    is taken off.
    """
    if not len(judged):
        return []
    scores = rotation.scores
    Y = targets.values
    mean = Y.mean(axis=0, dtype=np.float64)
    shift = rotation.shift
    products = scores.T @ (Y - mean)
    parts = []
    for fold in judged:
        out = folds == fold
        n = int((~out).sum())
        X_out, Y_out = scores[out], Y[out] - mean
        x_mean, y_mean = -X_out.sum(axis=0) / n, -Y_out.sum(axis=0) / n
        gram = np.diag(rotation.singular**2 + alpha) - X_out.T @ X_out
        gram -= n * np.outer(x_mean, x_mean)
        cross = products - X_out.T @ Y_out - n * np.outer(x_mean, y_mean)
        coef = linalg.solve(gram, cross, assume_a="pos", overwrite_a=True, overwrite_b=True)
        intercept = mean + y_mean - (x_mean + shift) @ coef
        parts.append(LinearPart(_float32(rotation.lift(coef).T), _float32(intercept)))
    return parts


def _float32(values: np.ndarray) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, dtype=np.float32)
