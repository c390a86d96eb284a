"""Features as a head sees them: scaled by its training rows, rotated where they outnumber these.

Genes have scales of their own. Latents and PCA scores share one: what a latent carries shows in its
spread, and dividing each by its own would make noise count like signal.

A ridge-penalised linear model with a free intercept is unchanged by centring X and by an
orthogonal rotation of its columns, and puts no weight outside the row space. So a model of 20,531
genes on 317 samples is one of 316 scores.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from m1pipe.artefacts import hold_in_rows
from m1pipe.data.transforms import GeneTransform, fit_gene_transform

Scale = Literal["each", "one", "none"]
BLOCK_ROWS = 1024
_RANK_TOLERANCE = 1e-12  # of the largest eigenvalue: the rounding of a float64 Gram matrix
_CENTRING_TOLERANCE = 1e-26  # of the sum of squares before centring: the rounding of the means


@dataclass(frozen=True)
class Rotation:
    """Thin singular value decomposition X - center = U diag(singular) basis'.

    Attributes
    ----------
    center : ndarray, shape (n_features,)
    basis : ndarray, shape (n_features, rank)
        Orthonormal columns.
    left : ndarray, shape (n_samples, rank)
        U, orthonormal columns.
    singular : ndarray, shape (rank,)
        Positive singular values, largest first.
    on_axes : bool
        The basis is the identity: the columns of X are orthogonal already.
    """

    center: NDArray[np.float64]
    basis: NDArray[np.float64]
    left: NDArray[np.float64]
    singular: NDArray[np.float64]
    on_axes: bool = False

    @property
    def scores(self) -> NDArray[np.float64]:
        """Scores of the rotated rows themselves, shape (n_samples, rank)."""
        return self.left * self.singular

    @property
    def shift(self) -> NDArray[np.float64]:
        """Scores of the origin with its sign turned, shape (rank,)."""
        return self.center if self.on_axes else self.center @ self.basis

    @classmethod
    def empty(cls, n_samples: int, n_features: int) -> "Rotation":
        """The rotation of rows of which nothing is told."""
        basis = np.zeros((n_features, 0))
        return cls(np.zeros(n_features), basis, np.zeros((n_samples, 0)), np.zeros(0))

    def lift(self, weights: np.ndarray) -> np.ndarray:
        """Coefficients of the features from those of the scores, (rank, k) -> (n_features, k)."""
        return weights if self.on_axes else self.basis @ weights

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores (X - center) @ basis, shape (n_samples, rank)."""
        return np.asarray(X, dtype=np.float64) @ self.basis - self.center @ self.basis


def rotate(X: ArrayLike) -> Rotation:
    """Rotation of X onto its row space, from the smaller of its two Gram matrices.

    Parameters
    ----------
    X : array_like, shape (n_samples, n_features)

    Returns
    -------
    Rotation
        Directions of a variance below 1e-12 of the largest are left out, and those that are
        rounding errors of the centring: features constant in these rows get no weight.

    Raises
    ------
    ValueError
        If X is not a finite matrix of at least two rows.
    """
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or len(X) < 2 or not np.isfinite(X.sum()):
        raise ValueError(f"X: expected a finite matrix of at least two rows; found {X.shape}")
    center = X.mean(axis=0)
    if X.shape[1] == 0:
        return Rotation(center, np.zeros((0, 0)), np.zeros((len(X), 0)), np.zeros(0), True)
    centred = X - center
    wide = centred.shape[0] <= centred.shape[1]
    gram = centred @ centred.T if wide else centred.T @ centred
    values, vectors = linalg.eigh(gram, overwrite_a=True, check_finite=False, driver="evd")
    floor = max(_RANK_TOLERANCE * values[-1], _CENTRING_TOLERANCE * np.vdot(X, X))
    keep = values > floor
    vectors, singular = vectors[:, keep][:, ::-1], np.sqrt(values[keep][::-1])
    other = (centred.T @ vectors if wide else centred @ vectors) / singular
    left, basis = (vectors, other) if wide else (other, vectors)
    return Rotation(center, basis, left, singular)


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """From features to the inputs of a head.

    Attributes
    ----------
    scaler : GeneTransform
        Subtracts a location and divides by a scale; infinite for a feature that is constant in the
        training rows, which is then 0 everywhere.
    basis : ndarray of float32, shape (n_features, n_inputs), or None
        Onto the training rows' own space, where the features outnumber the rows; None: the scaled
        features are the inputs.
    """

    scaler: GeneTransform
    basis: np.ndarray | None

    def __post_init__(self) -> None:
        hold_in_rows(self)

    @property
    def n_inputs(self) -> int:
        """Width of what a head sees."""
        return self.scaler.location.size if self.basis is None else self.basis.shape[1]

    def apply(self, X: np.ndarray, dtype: type = np.float32) -> np.ndarray:
        """Inputs of a head.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_features)
        dtype : type
            Of the result, and of the product with the basis.

        Returns
        -------
        ndarray, shape (n_samples, n_inputs)
        """
        scaled: np.ndarray = self.scaler.apply(X).astype(dtype, copy=False)
        return scaled if self.basis is None else scaled @ self.basis.astype(dtype)


@dataclass(frozen=True, eq=False)
class Covariance:
    """Covariance of standardised features: components, and the same variance in all other ways.

    Attributes
    ----------
    components : ndarray, shape (n_components, n_features)
        Orthonormal rows.
    variances : ndarray, shape (n_components,)
    rest : float
        Positive.
    """

    components: np.ndarray
    variances: np.ndarray
    rest: float

    def root(self, power: float) -> tuple[np.ndarray, NDArray[np.float64]]:
        """Components, and by how much each is stretched by the covariance to half this power.

        In units of what the other directions are stretched by.
        """
        ratio = np.maximum(self.variances.astype(np.float64), self.rest) / self.rest
        return self.components, ratio ** (power / 2)


@dataclass(frozen=True)
class View:
    """How the features of one model are weighed against each other; the penalty sees it.

    Attributes
    ----------
    ratio : float or None
        Of two blocks: how much the second counts, by its total spread as a share of that of the
        first; 0 shuts it off, infinity the first one.
    power : float or None
        Of a covariance that is the prior of the coefficients.
    """

    ratio: float | None = None
    power: float | None = None

    def chosen(self) -> dict[str, float]:
        """Plain values for a report: `share` of the second block, from 0 to 1, and `power`."""
        found = {} if self.power is None else {"power": self.power}
        if self.ratio is not None:
            found["share"] = 1.0 if np.isinf(self.ratio) else self.ratio / (1 + self.ratio)
        return found


RATIOS = (0.0, 0.3, 1.0, 3.0, np.inf)
POWERS = (0.0, 0.25, 0.5, 1.0)


def views(n_beside: int, covariance: Covariance | None) -> tuple[View, ...]:
    """What is tried for a model; a single one has nothing to choose.

    Parameters
    ----------
    n_beside : int
        Width of the second block of features.
    covariance : Covariance or None
    """
    if n_beside:
        return tuple(View(ratio=ratio) for ratio in RATIOS)
    if covariance is not None:
        return tuple(View(power=power) for power in POWERS)
    return (View(),)


def fit_features(
    X: np.ndarray,
    scale: Scale,
    *,
    view: View = View(),
    n_beside: int = 0,
    covariance: Covariance | None = None,
) -> tuple[FeatureMap, np.ndarray, Rotation | None]:
    """Scale and rotate training rows.

    Parameters
    ----------
    X : ndarray of float32, shape (n_rows, n_features)
    scale : "each", "one" or "none"
        Every feature by its own standard deviation (with a floor), all by one number, or neither
        shifted nor scaled nor rotated.
    view : View
    n_beside : int
        So many last features are a second block, which has one scale.
    covariance : Covariance, optional
        That `view.power` speaks of.

    Returns
    -------
    features : FeatureMap
    inputs : ndarray of float32, shape (n_rows, n_inputs)
        Of these rows; of mean square 1 unless left as they are.
    rotation : Rotation or None
        Of the inputs; None where they are left as they are.
    """
    if scale == "none" or X.shape[1] == 0:
        none = fit_gene_transform("none", [X[:1]])
        rotation = None if scale == "none" else rotate(X)
        return FeatureMap(none, None), np.ascontiguousarray(X, dtype=np.float32), rotation
    scaler = _each(X) if scale == "each" else _together(X)
    if n_beside and view.ratio is not None:
        scaler = _beside(X, n_beside, view.ratio)
    inputs, turn = scaler.apply(X), None
    if covariance is not None and view.power:
        turn = _stretch(covariance, view.power)
        inputs = inputs @ turn
    rotation = rotate(inputs)
    if inputs.shape[1] <= len(inputs) or not rotation.singular.size:
        return FeatureMap(scaler, turn), inputs, rotation
    spread = np.sqrt(np.mean(rotation.singular**2) / len(X))
    basis = (rotation.basis / spread).astype(np.float32)
    basis = basis if turn is None else turn @ basis
    inputs = (rotation.left * (rotation.singular / spread)).astype(np.float32)
    inputs += (rotation.shift / spread).astype(np.float32)
    # The rotation of rows that lie along its axes already, about their rounding of a mean.
    center, axes = rotation.shift / spread, np.eye(rotation.singular.size)
    own = Rotation(center, axes, rotation.left, rotation.singular / spread, on_axes=True)
    return FeatureMap(scaler, basis), inputs, own


def _each(X: np.ndarray) -> GeneTransform:
    """Standardisation with a floor; a constant feature is shut off."""
    starts = range(0, len(X), BLOCK_ROWS)
    scaler = fit_gene_transform("standardize", (X[s : s + BLOCK_ROWS] for s in starts))
    return GeneTransform(scaler.kind, scaler.location, _shut(X, scaler.scale))


def _together(X: np.ndarray) -> GeneTransform:
    """Centring, and one scale that gives the features a mean variance of 1."""
    location = X.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(np.mean(X.var(axis=0, dtype=np.float64)))
    scale = np.full(location.size, spread if spread > 0 else 1.0, dtype=np.float32)
    return GeneTransform("standardize", location.astype(np.float32), _shut(X, scale))


def _beside(X: np.ndarray, n_beside: int, ratio: float) -> GeneTransform:
    """Features each by its spread, and a block of others by one, so that their spreads compare."""
    first, second = _each(X[:, :-n_beside]), _together(X[:, -n_beside:])
    n_live = max(1, int(np.isfinite(first.scale).sum()))
    weight = np.sqrt(n_live / n_beside) * ratio
    own = first.scale if np.isfinite(ratio) else np.full_like(first.scale, np.inf)
    other = second.scale / (weight if np.isfinite(weight) else 1.0) if weight else np.inf
    location = np.concatenate([first.location, second.location])
    scales = np.concatenate([own, np.broadcast_to(other, second.scale.shape)])
    return GeneTransform(first.kind, location, scales.astype(np.float32))


def _stretch(covariance: Covariance, power: float) -> np.ndarray:
    """What features are multiplied by, shape (n_features, n_features)."""
    components, stretch = covariance.root(power)
    out: np.ndarray = (components.T * (stretch - 1)) @ components
    out[np.diag_indices_from(out)] += 1
    return out.astype(np.float32)


def _shut(X: np.ndarray, scale: np.ndarray) -> NDArray[np.float32]:
    """The scale, infinite where a feature has one value in all rows."""
    constant = (X == X[0]).all(axis=0)
    return np.where(constant, np.inf, scale).astype(np.float32)
