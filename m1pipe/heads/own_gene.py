"""Each target's own gene as one more column of its ridge, with a penalty of its own.

With the ridge's penalty fixed, the joint fit of `Y = X w + own * slope` profiles to one division a
target: with M the ridge's residual operator, slope = own' M y / (own' M own + penalty). Both
penalties are those with the lowest squared error on inner folds, the ridge left out (an infinite
penalty) and the own genes left out among them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from m1pipe.artefacts import hold_in_rows
from m1pipe.data.targets import OwnGenes
from m1pipe.heads.features import Rotation
from m1pipe.heads.linear import LinearPart

PENALTIES = np.array([0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf])
"""Penalties of the slopes that are tried, times the training rows; infinity leaves them out."""
RIDGES = np.array([1.0, 10.0, 100.0, 1000.0, np.inf])
"""Penalties of the ridge beside them, times the one that it has alone."""

_BLOCK_CELLS = 2**21
_NO_SPREAD = 1e-9  # of a standardised gene's sum of squares: nothing of it is its own


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
        step = max(1, _BLOCK_CELLS // max(1, len(out)))
        for targets in (on[start : start + step] for start in range(0, on.size, step)):
            out[:, targets] += own[:, self.column[targets]] * self.slope[targets]

    @property
    def has_genes(self) -> bool:
        """Whether X has the gene of any target."""
        return bool((self.column >= 0).any())

    @property
    def share_on(self) -> float:
        """Share of the targets whose gene X has that use the term."""
        return float((self.slope[self.column >= 0] != 0).mean()) if self.has_genes else 0.0

    def to_state(self) -> dict[str, np.ndarray]:
        """Arrays from which `from_state` makes the same term."""
        return {f"own.{name}": value for name, value in vars(self).items()}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray]) -> "OwnTerm":
        """Term stored by `to_state`."""
        names = ("column", "slope", "location", "scale")
        return cls(**{name: arrays[f"own.{name}"] for name in names})


@dataclass(frozen=True, eq=False)
class OwnChoice:
    """The joint fit of all rows, and those without the folds that judge at the same penalties.

    Attributes
    ----------
    whole, inner : LinearPart and OwnTerm, or a tuple of such pairs
    facts : dict
        Penalties chosen: `alpha` of the ridge, `own_penalty` of the slopes.
    loss : float
        Mean squared error over the rows of the inner folds.
    unit_losses : ndarray, shape (n_folds,)
        That of every inner fold.
    """

    whole: tuple[LinearPart, OwnTerm]
    inner: tuple[tuple[LinearPart, OwnTerm], ...]
    facts: dict[str, Any]
    loss: float
    unit_losses: NDArray[np.float64]


def fit_own_genes(
    rotation: Rotation,
    alpha: float,
    Y: np.ndarray,
    own: OwnGenes,
    *,
    folds: NDArray[np.intp],
    judged: NDArray[np.intp] | tuple[()] = (),
) -> OwnChoice:
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
    OwnChoice
    """
    term = _untrained(own)
    genes = term.standardize(own.values).astype(np.float64)
    ridges = RIDGES if rotation.singular.size and np.isfinite(alpha) else np.array([np.inf])
    names = np.unique(folds)
    by_fold = np.zeros((names.size, ridges.size, PENALTIES.size))
    for number, fold in enumerate(names):
        part = _Part.of(rotation.scores, genes, Y, folds != fold)
        held_out = _HeldOut(rotation.scores, genes, Y, folds == fold)
        for i, ridge in enumerate(ridges):
            by_fold[number, i] = _held_out_errors(part, part.solve(alpha * ridge), held_out, own)
    errors = by_fold.sum(axis=0)
    best, chosen = np.unravel_index(int(errors.argmin()), errors.shape)
    at, penalty = float(alpha * ridges[best]), float(PENALTIES[chosen])

    def fitted(rows: np.ndarray) -> tuple[LinearPart, OwnTerm]:
        return _fit(_Part.of(rotation.scores, genes, Y, rows), at, penalty, term, rotation)

    inner = tuple(fitted(folds != fold) for fold in judged)
    facts = {"alpha": at, "own_penalty": penalty}
    loss = float(errors.min()) / Y.size
    sizes = np.array([(folds == fold).sum() for fold in names])
    unit_losses = by_fold[:, best, chosen] / (sizes * Y.shape[1])
    return OwnChoice(fitted(np.ones(len(Y), dtype=bool)), inner, facts, loss, unit_losses)


def _untrained(own: OwnGenes) -> OwnTerm:
    """The standardisation of own genes, and slopes of 0."""
    values = own.values
    mean, sd = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    constant = np.ptp(values, axis=0) == 0
    scale = np.where(constant, np.inf, np.maximum(sd, 1e-6))
    slope = np.zeros(own.column.size, dtype=np.float32)
    return OwnTerm(own.column, slope, mean.astype(np.float32), scale.astype(np.float32))


@dataclass(frozen=True, eq=False)
class _Solved:
    """Ridges of the targets and of the genes at one penalty, in the part's own axes."""

    y: NDArray[np.float64]  # (rank, n_targets)
    genes: NDArray[np.float64]  # (rank, n_own)


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

    def solve(self, alpha: float) -> _Solved:
        """Coefficients of the axes; none at an infinite penalty."""
        if not np.isfinite(alpha):
            return _Solved(np.zeros_like(self.y_cross), np.zeros_like(self.genes_cross))
        weight = 1 / (self.squares + alpha)[:, None]
        return _Solved(self.y_cross * weight, self.genes_cross * weight)

    def slopes(self, solved: _Solved, own: OwnGenes) -> tuple[np.ndarray, np.ndarray]:
        """Products own' M y and own' M own of every target, 0 where its gene is missing."""
        spread = np.einsum("ij,ij->j", self.genes, self.genes)
        spread -= np.einsum("ij,ij->j", self.genes_cross, solved.genes)
        product = np.zeros(own.column.size)
        for targets, genes in _blocks(own, self.n):
            centred = self.Y[:, targets] - self.y_mean[targets]
            product[targets] = np.einsum("ij,ij->j", self.genes[:, genes], centred)
            product[targets] -= np.einsum(
                "ij,ij->j", self.genes_cross[:, genes], solved.y[:, targets]
            )
        of_target = np.zeros(own.column.size)
        of_target[own.has] = spread[own.column[own.has]]
        return product, np.where(of_target > _NO_SPREAD * self.n, of_target, 0.0)


@dataclass(frozen=True, eq=False)
class _HeldOut:
    """The rows of an inner fold."""

    scores: np.ndarray
    genes: np.ndarray
    Y: np.ndarray
    rows: np.ndarray


def _slope(product: np.ndarray, spread: np.ndarray, penalty: float) -> NDArray[np.float64]:
    if not np.isfinite(penalty):
        return np.zeros(product.size)
    return np.where(spread > 0, product / np.where(spread > 0, spread + penalty, 1.0), 0.0)


def _held_out_errors(
    part: _Part, solved: _Solved, held_out: _HeldOut, own: OwnGenes
) -> NDArray[np.float64]:
    """Squared error over held-out rows and targets at every penalty of the slopes."""
    product, spread = part.slopes(solved, own)
    X = (held_out.scores[held_out.rows] - part.x_mean) @ part.axes
    free = held_out.genes[held_out.rows] - part.genes_mean - X @ solved.genes
    slopes = [_slope(product, spread, float(p) * part.n) for p in PENALTIES]
    found = np.zeros(PENALTIES.size)
    places = np.flatnonzero(held_out.rows)
    step = max(1, _BLOCK_CELLS // max(1, len(X)))
    for start in range(0, part.y_mean.size, step):
        here = slice(start, start + step)
        left = held_out.Y[places, here] - part.y_mean[here] - X @ solved.y[:, here]
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
) -> tuple[LinearPart, OwnTerm]:
    """Coefficients of the inputs and slopes at given penalties."""
    own = OwnGenes(part.genes, term.column)
    solved = part.solve(alpha)
    product, spread = part.slopes(solved, own)
    slope = _slope(product, spread, penalty * part.n)
    column = np.maximum(term.column, 0)
    weights = part.axes @ (solved.y - solved.genes[:, column] * slope)
    bias = part.y_mean - part.genes_mean[column] * slope - (part.x_mean + rotation.shift) @ weights
    coef = np.ascontiguousarray(rotation.lift(weights).T, dtype=np.float32)
    linear = LinearPart(coef, bias.astype(np.float32))
    return linear, OwnTerm(term.column, slope.astype(np.float32), term.location, term.scale)


def _blocks(own: OwnGenes, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Targets that have a gene, some at a time, and the column of it."""
    step = max(1, _BLOCK_CELLS // n)
    for start in range(0, own.has.size, step):
        targets = own.has[start : start + step]
        yield targets, own.column[targets]
