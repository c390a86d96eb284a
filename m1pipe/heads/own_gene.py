"""Each target's own gene as one more column of its ridge, with a penalty of its own.

With the ridge's penalty fixed, the joint fit of `Y = X w + own * slope` profiles to one division a
target: with M the ridge's residual operator, slope = own' M y / (own' M own + penalty). Both
penalties are those with the lowest squared error on inner folds, the ridge left out (an infinite
penalty) and the own genes left out among them.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from m1pipe.data.targets import OwnGenes
from m1pipe.heads.features import Rotation
from m1pipe.heads.linear import BLOCK_CELLS, LinearChoice, LinearPart, OwnTerm

PENALTIES = np.array([0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf])
"""Penalties of the slopes that are tried, times the training rows; infinity leaves them out."""
RIDGES = np.array([1.0, 10.0, 100.0, 1000.0, np.inf])
"""Penalties of the ridge beside them, times the one that it has alone."""

_NO_SPREAD = 1e-9  # of a standardised gene's sum of squares: nothing of it is its own


def fit_own_genes(
    rotation: Rotation,
    alpha: float,
    Y: np.ndarray,
    own: OwnGenes,
    *,
    folds: NDArray[np.intp],
    judged: NDArray[np.intp] | tuple[()] = (),
) -> LinearChoice:
    """Fit a ridge and a slope of the own gene to every target.

    Parameters
    ----------
    rotation : Rotation
        Of the inputs; without columns there is no ridge, and the rest is the training mean.
    alpha : float
        Penalty of the ridge alone.
    Y : ndarray, shape (n_rows, n_targets)
    own : OwnGenes
        Of the same rows, in X's units.
    folds : ndarray of int, shape (n_rows,)
        Inner folds, which choose the penalties.
    judged : ndarray of int
        Those without which a fit is wanted as well.

    Returns
    -------
    LinearChoice
        Chosen are `alpha` of the ridge, `own_penalty` of the slopes. Its losses are mean squared
        errors, of all rows and of those of every inner fold.
    """
    term = _untrained(own)
    genes = term.standardize(own.values).astype(np.float64)
    ridges = RIDGES if rotation.singular.size and np.isfinite(alpha) else np.array([np.inf])
    names = np.unique(folds)
    by_fold = np.zeros((names.size, ridges.size, PENALTIES.size))
    for number, fold in enumerate(names):
        part = _Part.of(rotation.scores, genes, Y, folds != fold)
        X, G, Y_out = (values[folds == fold] for values in (rotation.scores, genes, Y))
        for i, ridge in enumerate(ridges):
            by_fold[number, i] = _held_out_errors(part, alpha * ridge, X, G, Y_out, own)
    errors = by_fold.sum(axis=0)
    best, own_best = np.unravel_index(int(errors.argmin()), errors.shape)
    at, penalty = float(alpha * ridges[best]), float(PENALTIES[own_best])

    def fitted(rows: np.ndarray) -> LinearPart:
        return _fit(_Part.of(rotation.scores, genes, Y, rows), at, penalty, term, rotation)

    inner = [fitted(folds != fold) for fold in judged]
    chosen = {"alpha": at, "own_penalty": penalty}
    loss = float(errors.min()) / Y.size
    sizes = np.array([(folds == fold).sum() for fold in names])
    unit_losses = by_fold[:, best, own_best] / (sizes * Y.shape[1])
    return LinearChoice(fitted(np.ones(len(Y), dtype=bool)), inner, chosen, loss, unit_losses)


def _untrained(own: OwnGenes) -> OwnTerm:
    """The standardisation of own genes, and slopes of 0."""
    values = own.values
    mean, sd = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    constant = np.ptp(values, axis=0) == 0
    scale = np.where(constant, np.inf, np.maximum(sd, 1e-6))
    slope = np.zeros(own.column.size, dtype=np.float32)
    return OwnTerm(own.column, slope, mean.astype(np.float32), scale.astype(np.float32))


@dataclass(frozen=True, eq=False)
class _Part:
    """Some rows about their means, in the axes in which their products are diagonal."""

    n: int
    axes: NDArray[np.float64]  # (rank, rank), of the scores
    squares: NDArray[np.float64]  # (rank,)
    x_mean: NDArray[np.float64]
    y_mean: NDArray[np.float64]
    genes_mean: NDArray[np.float64]
    y_cross: NDArray[np.float64]  # products with the axes
    genes_cross: NDArray[np.float64]
    genes: NDArray[np.float64]  # (n, n_own), about their mean
    Y: np.ndarray  # (n, n_targets), as given

    @classmethod
    def of(cls, scores: np.ndarray, genes: np.ndarray, Y: np.ndarray, rows: np.ndarray) -> "_Part":
        X, G, own_Y = scores[rows], genes[rows], Y[rows]
        x_mean, g_mean = X.mean(axis=0), G.mean(axis=0)
        y_mean = own_Y.mean(axis=0, dtype=np.float64)
        X, G = X - x_mean, G - g_mean
        squares, axes = linalg.eigh(X.T @ X) if X.shape[1] else (np.zeros(0), np.zeros((0, 0)))
        turned = X @ axes
        y_cross = turned.T @ (own_Y - y_mean)
        return cls(
            len(X),
            axes,
            np.maximum(squares, 0),
            x_mean,
            y_mean,
            g_mean,
            y_cross,
            turned.T @ G,
            G,
            own_Y,
        )

    def solve(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Ridges of the targets and of the genes, (rank, n); 0 at an infinite penalty."""
        if not np.isfinite(alpha):
            return np.zeros_like(self.y_cross), np.zeros_like(self.genes_cross)
        weight = 1 / (self.squares + alpha)[:, None]
        return self.y_cross * weight, self.genes_cross * weight

    def slopes(
        self, of_y: np.ndarray, of_genes: np.ndarray, own: OwnGenes
    ) -> tuple[np.ndarray, np.ndarray]:
        """Products own' M y and own' M own of every target, 0 where its gene is missing."""
        spread = np.einsum("ij,ij->j", self.genes, self.genes)
        spread -= np.einsum("ij,ij->j", self.genes_cross, of_genes)
        product = np.zeros(own.column.size)
        step = max(1, BLOCK_CELLS // self.n)
        for start in range(0, own.has.size, step):
            targets = own.has[start : start + step]
            genes = own.column[targets]
            centred = self.Y[:, targets] - self.y_mean[targets]
            product[targets] = np.einsum("ij,ij->j", self.genes[:, genes], centred)
            product[targets] -= np.einsum("ij,ij->j", self.genes_cross[:, genes], of_y[:, targets])
        of_target = np.zeros(own.column.size)
        of_target[own.has] = spread[own.column[own.has]]
        return product, np.where(of_target > _NO_SPREAD * self.n, of_target, 0.0)


def _slope(product: np.ndarray, spread: np.ndarray, penalty: float) -> NDArray[np.float64]:
    if not np.isfinite(penalty):
        return np.zeros(product.size)
    return np.where(spread > 0, product / np.where(spread > 0, spread + penalty, 1.0), 0.0)


def _held_out_errors(
    part: _Part, alpha: float, scores: np.ndarray, genes: np.ndarray, Y: np.ndarray, own: OwnGenes
) -> NDArray[np.float64]:
    """Squared error over held-out rows and targets at every penalty of the slopes."""
    of_y, of_genes = part.solve(alpha)
    product, spread = part.slopes(of_y, of_genes, own)
    X = (scores - part.x_mean) @ part.axes
    free = genes - part.genes_mean - X @ of_genes
    slopes = [_slope(product, spread, float(p) * part.n) for p in PENALTIES]
    found = np.zeros(PENALTIES.size)
    step = max(1, BLOCK_CELLS // max(1, len(X)))
    for start in range(0, part.y_mean.size, step):
        here = slice(start, start + step)
        left = Y[:, here] - part.y_mean[here] - X @ of_y[:, here]
        column = own.column[here]
        gene = np.where(column >= 0, free[:, np.maximum(column, 0)], 0.0)
        base = np.einsum("ij,ij->", left, left)
        cross, square = np.einsum("ij,ij->j", gene, left), np.einsum("ij,ij->j", gene, gene)
        for i, slope in enumerate(slopes):
            own_slope = slope[here]
            found[i] += base + np.sum(own_slope * (own_slope * square - 2 * cross))
    return found


def _fit(
    part: _Part, alpha: float, penalty: float, term: OwnTerm, rotation: Rotation
) -> LinearPart:
    """Coefficients of the inputs and slopes at given penalties."""
    of_y, of_genes = part.solve(alpha)
    product, spread = part.slopes(of_y, of_genes, OwnGenes(part.genes, term.column))
    slope = _slope(product, spread, penalty * part.n)
    column = np.maximum(term.column, 0)
    weights = part.axes @ (of_y - of_genes[:, column] * slope)
    bias = part.y_mean - part.genes_mean[column] * slope - (part.x_mean + rotation.shift) @ weights
    coef = np.ascontiguousarray(rotation.lift(weights).T, dtype=np.float32)
    own = replace(term, slope=slope.astype(np.float32))
    return LinearPart(coef, bias.astype(np.float32), own)
