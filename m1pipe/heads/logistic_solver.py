"""Penalised logistic and softmax regression of several row subsets at once, by L-BFGS.

The scores are a rotation onto principal axes, so the Hessian is nearly diagonal: scaling each
coordinate by its root makes a few dozen steps enough whatever the penalty.
"""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from m1pipe.errors import M1Warning

_STEPS_A_RUN, _MOST_STEPS = 500, 20000
_ROWS_A_BLOCK = 1024


@dataclass(frozen=True)
class LogisticProblem:
    """Scores and 0/1 targets shared by all fits.

    Attributes
    ----------
    scores : ndarray, shape (n_samples, rank)
        Orthogonal, centred columns.
    targets : ndarray, shape (n_samples, n_outputs)
        With `softmax` one column a class, one 1 a row; else independent outputs.
    weight : ndarray, shape (n_samples, n_outputs) or (n_samples, 1)
        Of each loss; with `softmax` one column.
    softmax : bool
    offset : ndarray, shape (n_samples, n_outputs), or None
        Added to every linear prediction.
    """

    scores: NDArray[np.float64]
    targets: NDArray[np.float64]
    weight: NDArray[np.float64]
    softmax: bool
    offset: NDArray[np.float64] | None = None

    @cached_property
    def codes(self) -> NDArray[np.intp]:
        """Class of every row, (n_samples, 1, 1)."""
        return self.targets.argmax(axis=1)[:, None, None]

    def logits(
        self, weights: NDArray[np.float64], intercept: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Linear predictions of every row by every fit, (n_samples, n_fits, n_outputs)."""
        found = self.scores @ weights.reshape(len(weights), math.prod(weights.shape[1:]))
        found = found.reshape(len(self.scores), *weights.shape[1:]) + intercept
        return found if self.offset is None else found + self.offset[:, None, :]


@dataclass(frozen=True)
class Fits:
    """Coefficients of every fit.

    Attributes
    ----------
    weights : ndarray, shape (rank, n_fits, n_outputs)
    intercept : ndarray, shape (n_fits, n_outputs)
        An output that no training row of the fit has, or that all of them have (not with
        `softmax`), gets what half a row more, or less, would give it.
    """

    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def logits(self, problem: LogisticProblem) -> NDArray[np.float64]:
        """Linear predictions of every row by every fit, (n_samples, n_fits, n_outputs)."""
        return problem.logits(self.weights, self.intercept)

    def mean(self) -> "Fits":
        """One fit with the mean coefficients: near the fit of all rows, a start for it."""
        return Fits(self.weights.mean(axis=1, keepdims=True), self.intercept.mean(0, keepdims=True))


def solve(
    problem: LogisticProblem,
    train: NDArray[np.bool_],
    alpha: float,
    *,
    tolerance: float,
    start: Fits | None = None,
) -> Fits:
    """Minimise the weighted sum of log losses + alpha / 2 * sum weights^2 for each subset of rows.

    Parameters
    ----------
    problem : LogisticProblem
    train : ndarray of bool, shape (n_samples, n_fits)
        The rows of each fit.
    alpha : float
        Penalty, of the weights only.
    tolerance : float
        Largest entry of the preconditioned gradient at the solution: the total loss is then
        within about tolerance^2 / 2 a coefficient of its minimum.
    start : Fits, optional
        Coefficients to start from.

    Returns
    -------
    Fits

    Warns
    -----
    M1Warning
        If the tolerance is not reached.
    """
    share = (problem.weight * problem.targets).T @ train / (problem.weight.T @ train)
    share = share.T
    active = (share > 0) & (problem.softmax | (share < 1))
    theta = _initial(problem, share, active, start)
    scale = _preconditioner(problem, train, active, alpha, theta)
    theta /= scale
    weight = train[:, :, None] * problem.weight[:, None, :]
    objective = partial(
        _objective, scale=scale, problem=problem, weight=weight, active=active, alpha=alpha
    )
    steps = 0
    while True:
        result = minimize(
            objective,
            theta.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _STEPS_A_RUN, "gtol": tolerance, "ftol": 0, "maxcor": 20},
        )
        theta, steps = result.x, steps + result.nit
        if result.status != 1 or steps >= _MOST_STEPS:
            break
    slope = float(np.abs(result.jac).max())
    if slope > 10 * tolerance:
        warnings.warn(
            f"logistic regression at penalty {alpha:.3g} stopped after {steps} steps short of its "
            f"tolerance: gradient {slope:.2g}, expected {tolerance:.2g}",
            M1Warning,
            stacklevel=3,
        )
    solution = theta.reshape(scale.shape) * scale
    intercept = np.where(active, solution[-1], 0.0)
    if not active.all():
        logits = problem.logits(solution[:-1], solution[-1])
        intercept = np.where(active, intercept, _half_a_row(logits, problem, train, active, share))
    return Fits(solution[:-1], intercept)


def _half_a_row(
    logits: np.ndarray,
    problem: LogisticProblem,
    train: np.ndarray,
    active: np.ndarray,
    share: np.ndarray,
) -> NDArray[np.float64]:
    """Intercepts of outputs without a contrast in the training rows, (n_fits, n_outputs).

    With `softmax` an absent class gets 1 / (2 n) of what the others have in the mean over the n
    training rows, on the scale of logarithms.
    """
    n = train.sum(axis=0)[:, None]
    found: NDArray[np.float64]
    if not problem.softmax:
        found = np.where(share > 0.5, 1.0, -1.0) * np.log(2 * n + 1.0)
        return found
    known = logsumexp(np.where(active, logits, -np.inf), axis=2)
    found = (known * train).sum(axis=0)[:, None] / n - np.log(2 * n)
    return np.broadcast_to(found, share.shape)


def _objective(
    theta: np.ndarray,
    *,
    scale: np.ndarray,
    problem: LogisticProblem,
    weight: np.ndarray,
    active: np.ndarray,
    alpha: float,
) -> tuple[float, np.ndarray]:
    """Penalised total log loss of all fits and its gradient, in scaled coordinates."""
    solution = theta.reshape(scale.shape) * scale
    weights = solution[:-1]
    logits = problem.logits(weights, solution[-1])
    loss, residual = _losses(logits, problem, active)
    residual *= weight
    flat = residual.reshape(len(residual), -1)
    gradient = np.empty(scale.shape)
    gradient[:-1] = (problem.scores.T @ flat).reshape(weights.shape) + alpha * weights
    gradient[-1] = residual.sum(axis=0)
    total = float(np.sum(loss * weight) + alpha / 2 * np.vdot(weights, weights))
    return total, (gradient * scale).ravel()


def _losses(
    logits: np.ndarray, problem: LogisticProblem, active: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log losses, (n_samples, n_fits, n_outputs or 1), and their derivatives by the logits."""
    targets = problem.targets[:, None, :]
    if problem.softmax:
        shifted = logits if active.all() else np.where(active, logits, -np.inf)
        shifted = shifted - shifted.max(axis=2, keepdims=True)
        share = np.exp(shifted)
        total = share.sum(axis=2, keepdims=True)
        share /= total
        share -= targets * active
        own = np.take_along_axis(shifted, problem.codes, axis=2)
        return np.where(np.isfinite(own), np.log(total) - own, 0.0), share
    loss = (np.logaddexp(0, logits) - targets * logits) * active
    return loss, (expit(logits) - targets) * active


def _preconditioner(
    problem: LogisticProblem,
    train: np.ndarray,
    active: np.ndarray,
    alpha: float,
    solution: np.ndarray,
) -> NDArray[np.float64]:
    """Inverse root of the Hessian's diagonal at a solution, (rank + 1, n_fits, n_outputs)."""
    logits = problem.logits(solution[:-1], solution[-1])
    _, residual = _losses(logits, problem, active)
    p = residual + problem.targets[:, None, :] * active
    weight = train[:, :, None] * problem.weight[:, None, :]
    spread = (p * (1 - p) * weight).reshape(len(p), -1)
    hessian = np.full(solution.shape, alpha)
    for start in range(0, len(p), _ROWS_A_BLOCK):
        rows = slice(start, start + _ROWS_A_BLOCK)
        squares = problem.scores[rows].T ** 2
        hessian[:-1] += (squares @ spread[rows]).reshape(hessian[:-1].shape)
    hessian[-1] = spread.sum(axis=0).reshape(p.shape[1:])
    return 1 / np.sqrt(np.maximum(hessian, 1e-8))


def _initial(
    problem: LogisticProblem, share: np.ndarray, active: np.ndarray, start: Fits | None
) -> NDArray[np.float64]:
    """Coefficients to start from: those given, else no weights and the prior's log-odds."""
    theta = np.zeros((problem.scores.shape[1] + 1, *share.shape))
    safe = np.where(active, share, 0.5)
    theta[-1] = np.log(safe) - (0 if problem.softmax else np.log1p(-np.minimum(safe, 1 - 1e-12)))
    if start is not None:
        theta[:-1] = start.weights
        theta[-1] = start.intercept
    theta[-1] *= active
    return theta
