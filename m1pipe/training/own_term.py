"""The own-gene term of a head: a multiple of each target's own gene, beside what the latents say.

With the hidden activations h of a trained head held fixed, the joint least-squares fit of
`y = f(h) + slope * gene` needs no further training: the gene is first freed of what a ridge on h
knows of it, and one division a target gives the slope. Held-out rows choose strengths, and switch
the term off where it does not pay: `m1pipe.training.own_choice`; where rows are few they give the
slopes as well: `m1pipe.training.own_crossed`.

The split of a partially linear model is that of Robinson 1988, Econometrica 56:931 (equation 3.6).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from m1pipe.arrays import hold_in_rows
from m1pipe.data.own_gene import OwnGenes

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

    def __post_init__(self) -> None:
        hold_in_rows(self)

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
        own = free_genes(self, hidden, values)
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
        """Term stored by `to_state`.

        Parameters
        ----------
        arrays : dict of str to ndarray
            Of the shapes that `to_state` stored.
        meta : dict
        """
        values = {k.removeprefix("own."): v for k, v in arrays.items() if k.startswith("own.")}
        penalty = np.inf if meta["penalty"] is None else float(meta["penalty"])
        return cls(**values, ridge=float(meta["ridge"]), penalty=penalty)


@dataclass(frozen=True, eq=False)
class Choice:
    """What held-out rows decide: strengths, and the targets whose term stays on.

    Attributes
    ----------
    ridge, penalty : float
        As of `OwnTerm`.
    on : ndarray of bool, shape (n_targets,)
    slope : ndarray, shape (n_targets,), or None
        Slopes that held-out rows gave; None: those of the rows that the term is fitted to.
    """

    ridge: float
    penalty: float
    on: np.ndarray
    slope: np.ndarray | None = None


def fit_term(
    hidden: np.ndarray, residuals: "Residuals", own: OwnGenes, rows: np.ndarray, choice: Choice
) -> OwnTerm:
    """Slopes on some rows, at strengths that were chosen before.

    Parameters
    ----------
    hidden : ndarray, shape (n_samples, n_hidden)
    residuals, own, rows
        As for `choose_term`.
    choice : Choice
    """
    term = start_term(hidden, own, rows, choice.ridge)
    slope = np.zeros(own.column.size, dtype=np.float32)
    if choice.slope is not None:
        slope += choice.slope * choice.on
    elif np.isfinite(choice.penalty):
        cross, square = cross_products(term, hidden, residuals, own, rows)
        slope += ridge_slopes(cross, square, rows.size, choice.penalty) * choice.on
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
        """Residuals of some rows and targets.

        Parameters
        ----------
        rows : ndarray of int, shape (n_rows,)
        targets : ndarray of int, shape (n_block,)

        Returns
        -------
        ndarray, shape (n_rows, n_block)
        """
        fitted = self.hidden[rows] @ self.weight[targets].T + self.bias[targets]
        out: np.ndarray = self.levels[np.ix_(rows, targets)] - fitted
        return out


def cross_products(
    term: OwnTerm, hidden: np.ndarray, residuals: Residuals, own: OwnGenes, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over rows of gene * residual and of gene^2, both of shape (n_targets,).

    Parameters
    ----------
    term : OwnTerm
        Which frees the genes of what the activations tell.
    hidden, residuals, own, rows
        As for `fit_term`.
    """
    free = free_genes(term, hidden[rows], own.values[rows])
    cross = np.zeros(own.column.size)
    for targets, genes in own_blocks(own, rows.size):
        left = residuals.block(rows, targets)
        cross[targets] = np.einsum("ij,ij->j", free[:, genes], left)
    square = np.einsum("ij,ij->j", free, free, dtype=np.float64)
    return cross, by_target(square, own)


def ridge_slopes(cross: np.ndarray, square: np.ndarray, n: int, penalty: float) -> np.ndarray:
    """Slope of every target, 0 where its gene is missing or tells nothing of its own.

    Parameters
    ----------
    cross, square : ndarray, shape (n_targets,)
        From `cross_products`.
    n : int
        Rows behind them.
    penalty : float
        Times the rows.
    """
    usable = square > 1e-6 * n
    bottom = np.where(usable, square + penalty * n, 1.0)
    return np.where(usable, cross / bottom, 0.0)


def start_term(
    hidden: np.ndarray,
    own: OwnGenes,
    rows: np.ndarray,
    ridge: float,
    *,
    scale_rows: np.ndarray | None = None,
) -> OwnTerm:
    """A term without slopes: the genes' scales, and what the activations tell of the genes.

    Parameters
    ----------
    hidden : ndarray, shape (n_samples, n_hidden)
    own, rows
        As for `fit_term`.
    ridge : float
        Its strength.
    scale_rows : ndarray of int, shape (n_scale_rows,), optional
        Rows that standardise the genes; `rows` where not given.
    """
    values = own.values[rows if scale_rows is None else scale_rows]
    constant = np.ptp(values, axis=0) == 0
    spread = values.std(axis=0, dtype=np.float64)
    scale = np.where(constant, np.inf, np.maximum(spread, 1e-6)).astype(np.float32)
    location = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    values = own.values[rows]
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


def free_genes(term: OwnTerm, hidden: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Standardised genes less what the activations tell of them, shape (n_samples, n_own)."""
    genes = np.subtract(values, term.location, dtype=np.float32) / term.scale
    known: np.ndarray = np.subtract(hidden, term.center, dtype=np.float32) @ term.weights
    free: np.ndarray = genes - known
    return free


def by_target(values: np.ndarray, own: OwnGenes) -> np.ndarray:
    """A number of every gene at each of its targets; 0 where the gene is missing.

    Parameters
    ----------
    values : ndarray, shape (n_own,)
    own : OwnGenes

    Returns
    -------
    ndarray of float64, shape (n_targets,)
    """
    found = np.zeros(own.column.size)
    found[own.has] = values[own.column[own.has]]
    return found


def own_blocks(own: OwnGenes, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Targets that have a gene, some at a time, and the column of it."""
    step = max(1, _BLOCK_CELLS // max(1, n))
    for start in range(0, own.has.size, step):
        targets = own.has[start : start + step]
        yield targets, own.column[targets]
