"""Samples added to the classes of a training fold: how many, synthetic or drawn again.

The generator is handed in from above: comparison and synthesis know nothing of each other.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from m1pipe import seeds
from m1pipe.config import EncoderConfig, Sampler
from m1pipe.data.targets import Targets
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.settings import parse_ratio

FEW_ROWS = 60
"""Fewer training rows are not enough to make samples of and to choose settings by."""


@dataclass(frozen=True, eq=False)
class GeneratorRequest:
    """All that a generator is told: rows that a head is trained on, and what is wanted.

    Attributes
    ----------
    X : ndarray of float32, shape (n_rows, n_genes)
        Levels of these rows and of no others.
    codes : ndarray of int64, shape (n_rows,)
        Their classes.
    classes : tuple of str
        Names of the classes.
    genes : tuple of str
    units : Units
        Of X.
    wanted : ndarray of int64, shape (n_classes,)
        Samples to make of each class; 0 of a class without rows.
    seed : int
        Of everything drawn.
    device : str
    sampler : str
        Law of the latents of a generator that has them, as of `m1pipe generate`.
    """

    X: np.ndarray
    codes: np.ndarray
    classes: tuple[str, ...]
    genes: tuple[str, ...]
    units: Units
    wanted: np.ndarray
    seed: int
    device: str
    sampler: Sampler = "gmm"


class Generator(Protocol):
    """Is trained on the rows of a request, and makes the samples that it wants."""

    def __call__(self, request: GeneratorRequest, /) -> tuple[np.ndarray, np.ndarray]:
        """Levels in the units of the request, shape (n_made, n_genes), and their classes."""


def refuse_unfit(kind: str, n_rows: int) -> None:
    """Refuse what samples cannot be added to.

    Parameters
    ----------
    kind : str
        Of the targets.
    n_rows : int
        Training rows of the smallest training fold.

    Raises
    ------
    InputError
        If each sample does not belong to one class, or rows are too few to be held out for early
        stopping.
    """
    if kind not in ("binary", "multiclass"):
        found = "several labels" if kind == "multilabel" else "levels"
        raise InputError(
            f"augment: expected classes to predict (--label); found {found}: leave --augment out"
        )
    if n_rows < FEW_ROWS:
        raise InputError(
            f"augment: expected at least {FEW_ROWS} training rows in every fold; found {n_rows}: "
            "leave --augment out"
        )


def refuse_conditional(name: str, config: EncoderConfig | None) -> None:
    """Refuse an encoder that has to be told something of every sample.

    Raises
    ------
    InputError
        Naming the encoder and the column.
    """
    if config is not None and config.model.condition is not None:
        raise InputError(
            f"augment: expected encoders that are not conditional; found {name}, told "
            f"{config.model.condition}: leave it or --augment out"
        )


def wanted_counts(codes: np.ndarray, n_classes: int, augment: str | float) -> np.ndarray:
    """Samples to add to each class.

    Parameters
    ----------
    codes : ndarray of int, shape (n_rows,)
        Classes of the rows that a head takes its steps on.
    n_classes : int
    augment : "balance" or float
        Up to the largest class, or to so many times each class's own size (rounded).

    Returns
    -------
    ndarray of int64, shape (n_classes,)
        0 for a class without rows.
    """
    counts = np.bincount(codes, minlength=n_classes)
    ratio = parse_ratio(augment)
    more = counts.max() - counts if ratio is None else np.rint((ratio - 1) * counts)
    return np.asarray(np.where(counts > 0, more, 0).astype(np.int64))


def draw_again(rows: np.ndarray, codes: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """Rows of each class drawn with replacement.

    Parameters
    ----------
    rows : ndarray of int, shape (n_rows,)
    codes : ndarray of int, shape (n_rows,)
        Their classes.
    wanted : ndarray of int, shape (n_classes,)
    seed : int

    Returns
    -------
    ndarray of int64, shape (wanted.sum(),)
        By class, ascending.
    """
    rng = seeds.rng(seed, seeds.BOOTSTRAPPED_ROWS)
    drawn = [rng.choice(rows[codes == k], wanted[k]) for k in np.flatnonzero(wanted)]
    return np.concatenate([np.empty(0, dtype=np.int64), *drawn])


def make_request(
    X: np.ndarray,
    targets: Targets,
    rows: np.ndarray,
    augment: str | float,
    *,
    genes: tuple[str, ...],
    units: Units,
    seed: int,
    device: str,
    sampler: Sampler,
) -> GeneratorRequest:
    """What a generator is told of some rows of X, shape (n_samples, n_genes)."""
    codes = targets.values[rows]
    wanted = wanted_counts(codes, len(targets.names), augment)
    return GeneratorRequest(
        X[rows], codes, targets.names, genes, units, wanted, seed, device, sampler
    )


def synthesize(generator: Generator, request: GeneratorRequest) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a generator, looked at; it is not asked where none are wanted.

    Returns
    -------
    X : ndarray of float32, shape (n_made, n_genes)
    codes : ndarray of int64, shape (n_made,)

    Raises
    ------
    InputError
        If it made other numbers of samples than were wanted, or levels that are not finite.
    """
    n_genes = request.X.shape[1]
    if not request.wanted.any():
        return np.empty((0, n_genes), dtype=np.float32), np.empty(0, dtype=np.int64)
    X, codes = generator(request)
    made = np.bincount(codes, minlength=request.wanted.size)
    if made.tolist() != request.wanted.tolist() or X.shape != (codes.size, n_genes):
        raise InputError(
            f"augment: expected {request.wanted.tolist()} samples of the classes x {n_genes} genes "
            f"of the generator; found {made.tolist()}, an array of shape {X.shape}"
        )
    if not np.isfinite(X).all():
        raise InputError("augment: expected finite levels of the generator; found others")
    return X.astype(np.float32, copy=False), codes.astype(np.int64, copy=False)
