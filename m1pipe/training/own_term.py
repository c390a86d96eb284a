"""The own-gene term of a head: a multiple of each target's own gene, beside what the latents say.

With the hidden activations h of a trained head held fixed, the joint least-squares fit of
`y = f(h) + slope * gene` needs no further training: the gene is first freed of what a ridge on h
knows of it, and one division a target gives the slope. The strength of that ridge and the penalty
of the slopes are chosen on held-out rows, where the term is also switched off, for all targets or
for single ones, if it does not pay.

The split of a partially linear model is that of Robinson 1988, Econometrica 56:931 (equation 3.6).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from m1pipe.data.own_gene import OwnGenes

RIDGES = (0.1, 1.0, 10.0)
"""Strengths of the ridge on h that are tried, times the mean variance of an activation."""
PENALTIES = np.array([0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
"""Penalties of the slopes that are tried, times the rows; leaving the term out is always tried."""
WORSE_BY = 1.0
"""Standard errors by which the held-out error of a target must rise to switch its term off."""
_BLOCK_CELLS = 2**21


@dataclass(frozen=True, eq=False)
class OwnTerm:
    """What is added to a head's levels.

    Attributes
    ----------
    column : ndarray of int64, shape (n_targets,)
        Column of each target's own gene among the genes below; -1 where there is none.
    slope : ndarray of float32, shape (n_targets,)
        Multiple of the gene; 0 where the term is off.
    location, scale : ndarray of float32, shape (n_own,)
        Standardisation of the genes; the scale of a gene that was constant is infinite.
    center : ndarray of float32, shape (n_hidden,)
        Mean activations.
    weights : ndarray of float32, shape (n_hidden, n_own)
        What the activations tell of the standardised genes.
    ridge, penalty : float
        The strengths that were chosen; the penalty is infinite where the term is off altogether.
    """

    column: np.ndarray
    slope: np.ndarray
    location: np.ndarray
    scale: np.ndarray
    center: np.ndarray
    weights: np.ndarray
    ridge: float
    penalty: float

    def add(self, out: np.ndarray, hidden: np.ndarray, values: np.ndarray) -> None:
        """Add the term to levels in place.

        Parameters
        ----------
        out : ndarray, shape (n_samples, n_targets)
        hidden : ndarray, shape (n_samples, n_hidden)
            Activations of the same samples.
        values : ndarray, shape (n_samples, n_own)
            Levels of the genes, in X's units.
        """
        if not self.slope.any():
            return
        own = _free(self, hidden, values)
        on = np.flatnonzero(self.slope)
        for start in range(0, on.size, step := max(1, _BLOCK_CELLS // max(1, len(out)))):
            targets = on[start : start + step]
            out[:, targets] += own[:, self.column[targets]] * self.slope[targets]

    @property
    def share_on(self) -> float:
        """Share of the targets whose gene X has that use the term."""
        return float((self.slope[self.column >= 0] != 0).mean()) if self.has_genes else 0.0

    @property
    def has_genes(self) -> bool:
        """Whether X has the gene of any target."""
        return bool((self.column >= 0).any())

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and values for JSON, from which `from_state` makes the same term."""
        names = ("column", "slope", "location", "scale", "center", "weights")
        return (
            {f"own.{name}": getattr(self, name) for name in names},
            {"ridge": self.ridge, "penalty": None if np.isinf(self.penalty) else self.penalty},
        )

    @classmethod
    def from_state(cls, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> "OwnTerm":
        """Term stored by `to_state`."""
        values = {k.removeprefix("own."): v for k, v in arrays.items() if k.startswith("own.")}
        penalty = np.inf if meta["penalty"] is None else float(meta["penalty"])
        return cls(**values, ridge=float(meta["ridge"]), penalty=penalty)


@dataclass(frozen=True, eq=False)
class Choice:
    """What held-out rows decide: strengths, and the targets whose term stays on."""

    ridge: float
    penalty: float
    on: np.ndarray


def choose_term(
    hidden: np.ndarray,
    residuals: "Residuals",
    own: OwnGenes,
    *,
    rows: np.ndarray,
    held_out: np.ndarray,
) -> Choice:
    """Strengths with the lowest squared error on rows that the head was not fitted to.

    Parameters
    ----------
    hidden : ndarray, shape (n_samples, n_hidden)
    residuals : Residuals
        Of the head without the term.
    own : OwnGenes
        Of the same samples.
    rows, held_out : ndarray of int
        Rows that fit the slopes, and rows that judge them.
    """
    best, least = Choice(RIDGES[0], np.inf, np.zeros(own.column.size, dtype=bool)), 0.0
    for ridge in RIDGES:
        sums = _Sums.of(_start_term(hidden, own, rows, ridge), hidden, residuals, own, rows)
        judged = sums.judge(hidden, residuals, own, held_out)
        for penalty in PENALTIES:
            slope = sums.slopes(penalty)
            change = judged.change(slope)
            if change.sum() < least:
                on = change <= WORSE_BY * judged.error_of_change(slope)
                best, least = Choice(ridge, float(penalty), on), float(change.sum())
    return best


def fit_term(
    hidden: np.ndarray, residuals: "Residuals", own: OwnGenes, rows: np.ndarray, choice: Choice
) -> OwnTerm:
    """Slopes on some rows, at strengths that were chosen before.

    Parameters
    ----------
    hidden, residuals, own, rows
        As for `choose_term`.
    choice : Choice
    """
    term = _start_term(hidden, own, rows, choice.ridge)
    slope = np.zeros(own.column.size, dtype=np.float32)
    if np.isfinite(choice.penalty):
        slope += _Sums.of(term, hidden, residuals, own, rows).slopes(choice.penalty) * choice.on
    return OwnTerm(**{**vars(term), "slope": slope, "penalty": choice.penalty})


@dataclass(frozen=True, eq=False)
class Residuals:
    """Levels less those of a linear layer on activations, made a block of targets at a time.

    Attributes
    ----------
    levels : ndarray, shape (n_samples, n_targets)
    hidden : ndarray, shape (n_samples, n_hidden)
    weight, bias : ndarray, shape (n_targets, n_hidden) and (n_targets,)
    """

    levels: np.ndarray
    hidden: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def block(self, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Residuals of some rows and targets."""
        fitted = self.hidden[rows] @ self.weight[targets].T + self.bias[targets]
        out: np.ndarray = self.levels[np.ix_(rows, targets)] - fitted
        return out


@dataclass(frozen=True, eq=False)
class _Judged:
    """Sums over held-out rows from which the change of every target's error follows."""

    cross: np.ndarray  # gene * residual
    square: np.ndarray  # gene^2
    fourth: np.ndarray  # its moments with the residual, for the spread of the change
    third: np.ndarray
    second: np.ndarray
    n: int

    def change(self, slope: np.ndarray) -> np.ndarray:
        """Change of each target's sum of squared errors."""
        return slope**2 * self.square - 2 * slope * self.cross

    def error_of_change(self, slope: np.ndarray) -> np.ndarray:
        """Standard error of that sum over rows."""
        squared = slope**4 * self.fourth - 4 * slope**3 * self.third + 4 * slope**2 * self.second
        spread = squared - self.change(slope) ** 2 / self.n
        return np.sqrt(np.maximum(spread, 0))


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over the fitting rows from which the slopes follow."""

    term: OwnTerm
    cross: np.ndarray
    square: np.ndarray
    n: int

    @classmethod
    def of(
        cls,
        term: OwnTerm,
        hidden: np.ndarray,
        residuals: Residuals,
        own: OwnGenes,
        rows: np.ndarray,
    ) -> "_Sums":
        free = _free(term, hidden[rows], own.values[rows])
        cross = np.zeros(own.column.size)
        for targets, genes in _blocks(own, rows.size):
            left = residuals.block(rows, targets)
            cross[targets] = np.einsum("ij,ij->j", free[:, genes], left)
        square = np.einsum("ij,ij->j", free, free, dtype=np.float64)
        return cls(term, cross, _by_target(square, own), rows.size)

    def slopes(self, penalty: float) -> np.ndarray:
        """Slope of every target, 0 where its gene is missing or tells nothing of its own."""
        usable = self.square > 1e-6 * self.n
        bottom = np.where(usable, self.square + penalty * self.n, 1.0)
        return np.where(usable, self.cross / bottom, 0.0)

    def judge(
        self, hidden: np.ndarray, residuals: Residuals, own: OwnGenes, rows: np.ndarray
    ) -> _Judged:
        free = _free(self.term, hidden[rows], own.values[rows])
        found = np.zeros((5, own.column.size))
        for targets, genes in _blocks(own, rows.size):
            x = free[:, genes].astype(np.float64)
            both = x * residuals.block(rows, targets)
            parts = (both, x * x, x**4, x * x * both, both * both)
            found[:, targets] = [part.sum(axis=0) for part in parts]
        return _Judged(found[0], found[1], found[2], found[3], found[4], rows.size)


def _start_term(hidden: np.ndarray, own: OwnGenes, rows: np.ndarray, ridge: float) -> OwnTerm:
    """A term without slopes: the genes' scales, and what the activations tell of the genes."""
    values = own.values[rows]
    constant = np.ptp(values, axis=0) == 0
    spread = values.std(axis=0, dtype=np.float64)
    scale = np.where(constant, np.inf, np.maximum(spread, 1e-6)).astype(np.float32)
    location = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    center = hidden[rows].mean(axis=0, dtype=np.float64)
    activations = hidden[rows] - center
    gram = activations.T @ activations
    gram += (ridge * np.trace(gram) / len(gram) + 1e-9) * np.eye(len(gram))
    genes = (values - location) / scale
    weights = np.linalg.solve(gram, activations.T @ genes)
    return OwnTerm(
        column=own.column,
        slope=np.zeros(own.column.size, dtype=np.float32),
        location=location,
        scale=scale,
        center=center.astype(np.float32),
        weights=weights.astype(np.float32),
        ridge=ridge,
        penalty=np.inf,
    )


def _free(term: OwnTerm, hidden: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Standardised genes less what the activations tell of them, shape (n_samples, n_own)."""
    genes = np.subtract(values, term.location, dtype=np.float32) / term.scale
    known: np.ndarray = np.subtract(hidden, term.center, dtype=np.float32) @ term.weights
    free: np.ndarray = genes - known
    return free


def _by_target(values: np.ndarray, own: OwnGenes) -> np.ndarray:
    """A number of every gene at each of its targets; 0 where the gene is missing."""
    found = np.zeros(own.column.size)
    found[own.has] = values[own.column[own.has]]
    return found


def _blocks(own: OwnGenes, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Targets that have a gene, some at a time, and the column of it."""
    step = max(1, _BLOCK_CELLS // max(1, n))
    for start in range(0, own.has.size, step):
        targets = own.has[start : start + step]
        yield targets, own.column[targets]
