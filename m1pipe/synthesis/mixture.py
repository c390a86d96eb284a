"""Mixtures of normals over latents: how many components and what covariances, by BIC.

The kinds of covariance are scikit-learn's; "standard" is N(0, I) and "shared" a mixture that was
fitted to more rows than these: neither has a parameter to pay for, which serves small classes.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from m1pipe import seeds
from m1pipe.artefacts import hold_in_rows
from m1pipe.data.transforms import floored_scale

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

KINDS = ("spherical", "diag", "tied", "full")
MOST_COMPONENTS = 16
MOST_ROWS = 4000
ROWS_PER_COMPONENT = 10
ROWS_PER_AXIS = 5  # of a full covariance: with fewer it closes round single samples
PATIENCE = 2  # numbers of components without a better BIC
REGULARIZER = 1e-3  # of the variance of each latent


@dataclass(frozen=True, eq=False)
class Mixture:
    """Weights, means and covariances of a mixture of normals.

    Attributes
    ----------
    kind : str
        One of `KINDS`, "standard" or "shared".
    weights : ndarray, shape (n_components,)
    means : ndarray, shape (n_components, n_dimensions)
    factors : ndarray, shape (n_components, n_dimensions, n_dimensions)
        Lower triangular; covariance = factor @ factor.T.
    """

    kind: str
    weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray

    def __post_init__(self) -> None:
        hold_in_rows(self)

    @property
    def n_components(self) -> int:
        """Number of normals."""
        return self.weights.size

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws of the mixture, float64, shape (n, n_dimensions)."""
        weights = self.weights / self.weights.sum()
        which = rng.choice(self.n_components, n, p=weights)
        noise = rng.standard_normal((n, self.means.shape[1]))
        drawn = np.empty_like(noise)
        for k in np.unique(which):
            here = which == k
            drawn[here] = self.means[k] + noise[here] @ self.factors[k].T
        return drawn

    def scaled(self, scale: np.ndarray) -> "Mixture":
        """The mixture of draws times these scales, shape (n_dimensions,)."""
        return Mixture(self.kind, self.weights, self.means * scale, self.factors * scale[:, None])

    def log_density(self, Z: np.ndarray) -> np.ndarray:
        """Natural log of the density at each row of Z, shape (n_samples,)."""
        parts = np.empty((self.n_components, len(Z)))
        for k, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            white = np.linalg.solve(factor, (Z - mean).T)
            constant = np.log(self.weights[k]) - np.log(np.diag(factor)).sum()
            parts[k] = constant - 0.5 * ((white**2).sum(axis=0) + len(mean) * np.log(2 * np.pi))
        top = parts.max(axis=0)
        return np.asarray(top + np.log(np.exp(parts - top).sum(axis=0)))


def standard(n_dimensions: int) -> Mixture:
    """The standard normal distribution."""
    eye = np.eye(n_dimensions)
    return Mixture("standard", np.ones(1), np.zeros((1, n_dimensions)), eye[None])


def fit_mixture(Z: np.ndarray, *, seed: int, shared: Mixture | None = None) -> Mixture:
    """The mixture with the lowest BIC.

    Parameters
    ----------
    Z : ndarray, shape (n_samples, n_dimensions)
        Latents; beyond `MOST_ROWS` a random part of them decides, and is fitted to.
    seed : int
        Of that part and of the starts.
    shared : Mixture, optional
        Fitted to more rows than these; a candidate without parameters of its own.

    Returns
    -------
    Mixture
        For every kind of covariance the number of components grows until `PATIENCE` numbers
        in a row brought no better BIC, or the rows are too few for more.

    References
    ----------
    Fraley & Raftery 2002, J. Am. Stat. Assoc. 97:611 (choice of components and covariance by
    BIC).
    """
    Z = np.asarray(Z, dtype=np.float64)
    if len(Z) > MOST_ROWS:
        Z = seeds.rng(seed, seeds.MIXTURE_ROWS).permutation(Z)[:MOST_ROWS]
    best = standard(Z.shape[1])
    lowest = -2 * best.log_density(Z).sum()
    if shared is not None and (bic := -2 * shared.log_density(Z).sum()) < lowest:
        best, lowest = Mixture("shared", shared.weights, shared.means, shared.factors), bic
    scale = floored_scale(Z.std(axis=0))
    offset = 2 * len(Z) * np.log(scale).sum()
    for kind in KINDS:
        found = _grow(Z / scale, kind, seed)
        if found is not None and found[1] + offset < lowest:
            best, lowest = _scaled(found[0], scale), found[1] + offset
    return best


def _grow(Z: np.ndarray, kind: str, seed: int) -> "tuple[GaussianMixture, float] | None":
    """The best mixture of one kind of covariance, and its BIC; None for too few rows."""
    best: tuple[GaussianMixture, float] | None = None
    since_best = 0
    for k in range(1, MOST_COMPONENTS + 1):
        if len(Z) < _fewest_rows(kind, k, Z.shape[1]) or since_best >= PATIENCE:
            break
        model = _fitted(Z, k, kind, seed)
        bic = float(model.bic(Z))
        if best is None or bic < best[1]:
            best, since_best = (model, bic), 0
        else:
            since_best += 1
    return best


def _fewest_rows(kind: str, n_components: int, n_dimensions: int) -> int:
    """Rows that a mixture needs, lest its likelihood grow without bound."""
    covariances = {"tied": 1, "full": n_components}.get(kind, 0)
    return max(ROWS_PER_COMPONENT * n_components, ROWS_PER_AXIS * n_dimensions * covariances)


def _fitted(Z: np.ndarray, k: int, kind: str, seed: int) -> "GaussianMixture":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        from sklearn.mixture import GaussianMixture  # a fifth of a second that no encoder needs

        return GaussianMixture(
            k, covariance_type=kind, reg_covar=REGULARIZER, random_state=seed % 2**32
        ).fit(Z)


def _scaled(model: "GaussianMixture", scale: np.ndarray) -> Mixture:
    """A fitted mixture on the scale of the latents."""
    n, d = model.means_.shape
    held = np.asarray(model.covariances_)
    if model.covariance_type == "spherical":
        factors = np.sqrt(held)[:, None, None] * np.eye(d)
    elif model.covariance_type == "diag":
        factors = np.sqrt(held)[:, :, None] * np.eye(d)
    else:
        factors = np.linalg.cholesky(np.broadcast_to(held, (n, d, d)))
    found = Mixture(
        model.covariance_type, np.asarray(model.weights_), np.asarray(model.means_), factors
    )
    return found.scaled(scale)
