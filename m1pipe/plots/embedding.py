"""Two dimensions for many: real samples, and synthetic ones placed among them."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh
from sklearn.decomposition import NMF, PCA
from sklearn.manifold import TSNE, smacof
from sklearn.metrics import euclidean_distances, pairwise_distances

from m1pipe.errors import InputError
from m1pipe.settings import check_choice

METHODS = {
    "pca": "PCA",
    "mds": "MDS",
    "tsne": "t-SNE",
    "umap": "UMAP",
    "nmf": "NMF",
    "diffusion": "diffusion map",
}
JOINT = ("mds", "tsne")
FEWEST = 5
MOST_COMPONENTS = 20  # for UMAP
NEIGHBOUR = 10  # whose distance is the width of the diffusion map's kernel


@dataclass(frozen=True, eq=False)
class Embedding:
    """Samples in two dimensions.

    Attributes
    ----------
    real : ndarray, shape (n_real, 2)
    synthetic : ndarray, shape (n_synthetic, 2)
        Empty where there were none.
    axes : (str, str)
        What the two axes are.
    fitted_on_real : bool
        Whether synthetic samples had no part in finding the axes.
    """

    real: np.ndarray
    synthetic: np.ndarray
    axes: tuple[str, str]
    fitted_on_real: bool


def embed(
    real: np.ndarray, synthetic: np.ndarray | None = None, method: str = "pca", *, seed: int = 0
) -> Embedding:
    """Place samples in two dimensions.

    Principal components, non-negative factors, UMAP and the diffusion map are fitted to the real
    samples and the synthetic ones are placed there; MDS and t-SNE can place no new sample and
    take both together. MDS, t-SNE and the diffusion map take distances of all values: in leading
    principal components of the real samples these would lie further apart than any others. UMAP,
    which pushes what it places among many noisy values outwards, gets a few such components.

    Parameters
    ----------
    real : ndarray, shape (n_real, n_features)
        At least 5 rows, 2 columns.
    synthetic : ndarray, shape (n_synthetic, n_features), optional
    method : str
        Key of `METHODS`.
    seed : int

    Returns
    -------
    Embedding

    Raises
    ------
    InputError
        On an unknown method, too few samples or none that differ, negative values for the
        factors, or UMAP where it is not installed.
    """
    check_choice("--method", method, METHODS)
    if len(real) < FEWEST or real.shape[1] < 2:
        raise InputError(
            f"samples: expected at least {FEWEST} with 2 values each; found {real.shape[0]} with "
            f"{real.shape[1]}"
        )
    if (real == real[0]).all():
        raise InputError(f"samples: expected some that differ; found {len(real)} that are the same")
    other = np.empty((0, real.shape[1]), real.dtype) if synthetic is None else synthetic
    if method == "pca":
        return _by_pca(real, other, seed)
    if method == "nmf":
        return _by_nmf(real, other, seed)
    if method in JOINT:
        both = np.concatenate([real, other])
        found = _mds(both, seed) if method == "mds" else _tsne(both, seed)
        places = found[: len(real)], found[len(real) :]
    elif method == "umap":
        places = _umap(real, other, seed)
    else:
        fitted = fit_diffusion_map(real)
        places = fitted.coordinates, fitted.place(other)
    names = {"mds": "MDS", "tsne": "t-SNE", "umap": "UMAP", "diffusion": "diffusion component"}
    return Embedding(*places, _numbered(names[method]), fitted_on_real=method not in JOINT)


def _by_pca(real: np.ndarray, other: np.ndarray, seed: int) -> Embedding:
    pca = PCA(2, svd_solver="randomized", random_state=seed)
    near, far = _placed(pca, real, other)
    first, second = pca.explained_variance_ratio_
    axes = f"PC 1 ({first:.1%} of the variance)", f"PC 2 ({second:.1%})"
    return Embedding(near, far, axes, fitted_on_real=True)


def _by_nmf(real: np.ndarray, other: np.ndarray, seed: int) -> Embedding:
    lowest = min(float(X.min()) for X in (real, other) if X.size)
    if lowest < 0:
        raise InputError(
            f"nmf: expected values of at least 0; found {lowest:.4g}: choose another --method"
        )
    nmf = NMF(2, init="nndsvda", random_state=seed, max_iter=1000, tol=1e-3)
    near, far = _placed(nmf, real, other)
    return Embedding(near, far, _numbered("NMF factor"), fitted_on_real=True)


def _placed(model: Any, real: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real samples by a model that is fitted to them, and others by the same model."""
    near = model.fit_transform(np.asarray(real, dtype=np.float64))
    return near, model.transform(np.asarray(other, dtype=np.float64)) if len(other) else near[:0]


def _mds(points: np.ndarray, seed: int) -> np.ndarray:
    """Metric MDS by majorisation, from the leading principal components."""
    found = smacof(
        pairwise_distances(points),
        n_components=2,
        init=PCA(2, svd_solver="randomized", random_state=seed).fit_transform(points),
        n_init=1,
        max_iter=100,
        random_state=seed,
        normalized_stress=False,
    )
    return found[0]


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    perplexity = min(30.0, (len(points) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    return model.fit_transform(points)


def _umap(real: np.ndarray, other: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    n_components = min(MOST_COMPONENTS, max(2, len(real) // 20), real.shape[1])
    pca = PCA(n_components, svd_solver="randomized", random_state=seed)
    near, far = _placed(pca, real, other)
    model = _umap_class()(
        n_neighbors=min(15, len(near) - 1), random_state=seed, transform_seed=seed, n_jobs=1
    )
    places = model.fit_transform(near)
    return places, model.transform(far) if len(far) else places[:0]


def _umap_class() -> Any:
    """UMAP's class; what it says of a package that it does not need here is left unsaid."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
            from umap import UMAP
    except ImportError:
        raise InputError(
            "umap: expected the package umap-learn; found none: pip install 'm1pipe[umap]', or "
            "choose another --method"
        ) from None
    return UMAP


def _numbered(name: str) -> tuple[str, str]:
    return f"{name} 1", f"{name} 2"


@dataclass(frozen=True, eq=False)
class DiffusionMap:
    """A diffusion map of points, and what placing new points takes.

    With the kernel k between points, q(x) = sum_y k(x, y) and the walk
    p(x, y) = [k(x, y) / q(y)] / sum_y' [k(x, y') / q(y')], the right eigenvectors psi of p and
    their eigenvalues l give the coordinates l psi(x) of one step. Dividing by q takes out how
    densely the points lie (alpha = 1).

    Attributes
    ----------
    points : ndarray, shape (n, n_features)
    widths : ndarray, shape (n,)
        Of the kernel at each point: the distance to its tenth neighbour.
    density : ndarray, shape (n,)
        q.
    eigenvalues : ndarray, shape (n_components,)
        Falling; the trivial one, 1, is left out.
    eigenvectors : ndarray, shape (n, n_components)

    References
    ----------
    Coifman & Lafon 2006, Applied and Computational Harmonic Analysis 21:5, section 3; the local
    widths as in Haghverdi et al. 2016, Nature Methods 13:845, for the method that Haghverdi,
    Buettner & Theis 2015, Bioinformatics 31:2989 brought to single cells.
    """

    points: np.ndarray
    widths: np.ndarray
    density: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray

    @property
    def coordinates(self) -> np.ndarray:
        """Of the points themselves, shape (n, n_components)."""
        return self.eigenvectors * self.eigenvalues

    def place(self, points: np.ndarray) -> np.ndarray:
        """Coordinates of new points by the walk from them to the known ones (Nystroem).

        Parameters
        ----------
        points : ndarray, shape (n_new, n_features)

        Returns
        -------
        ndarray, shape (n_new, n_components)
            At a known point: its own coordinates.
        """
        if not len(points):
            return np.empty((0, self.eigenvalues.size))
        distances = euclidean_distances(points, self.points)
        widths = _widths(distances)
        walk = _walk(_log_kernel(distances, widths, self.widths), self.density)
        return walk @ self.eigenvectors


def fit_diffusion_map(points: np.ndarray, n_components: int = 2) -> DiffusionMap:
    """Diffusion map of points.

    Parameters
    ----------
    points : ndarray, shape (n, n_features)
        More than `n_components` of them; the memory is that of their pairs.
    n_components : int

    Returns
    -------
    DiffusionMap

    Raises
    ------
    ValueError
        If there are too few points.
    """
    n = len(points)
    if n <= n_components + 1:
        raise ValueError(f"points: expected more than {n_components + 1}; found {n}")
    distances = euclidean_distances(points)
    widths = _widths(distances)
    kernel = np.exp(_log_kernel(distances, widths, widths))
    density = kernel.sum(axis=1)
    kernel /= np.outer(density, density)
    root = np.sqrt(kernel.sum(axis=1))
    # The symmetric twin of the walk has its eigenvalues, and its eigenvectors times the root.
    kernel /= np.outer(root, root)
    values, vectors = eigh(kernel, subset_by_index=[n - n_components - 1, n - 2])
    vectors = vectors[:, ::-1] / root[:, None]
    vectors *= np.sqrt(n) / np.linalg.norm(vectors, axis=0)
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(n_components)])
    return DiffusionMap(points, widths, density, values[::-1], vectors * signs)


def _widths(distances: np.ndarray) -> np.ndarray:
    """Distance to the tenth neighbour, a point itself being the first; never zero."""
    k = min(NEIGHBOUR, distances.shape[1]) - 1
    found = np.partition(distances, k, axis=1)[:, k]
    positive = distances[distances > 0]
    floor = 1e-3 * float(np.median(positive)) if positive.size else 1.0
    return np.maximum(found, floor)


def _log_kernel(distances: np.ndarray, widths: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Logarithm of the Gaussian kernel with the widths of both its points."""
    squares = widths[:, None] ** 2 + others[None] ** 2
    scale = np.log(2 * np.outer(widths, others) / squares) / 2
    return scale - distances**2 / (2 * squares)


def _walk(log_kernel: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Probabilities of the steps from each row; also where all are far away."""
    logits = log_kernel - np.log(density)
    steps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return steps / steps.sum(axis=1, keepdims=True)
