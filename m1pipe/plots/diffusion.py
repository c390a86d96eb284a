"""Diffusion maps: coordinates in which near means many short ways, and places of new points."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from sklearn.metrics import euclidean_distances

NEIGHBOUR = 10


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
        found: np.ndarray = self.eigenvectors * self.eigenvalues
        return found

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
        found: np.ndarray = walk @ self.eigenvectors
        return found


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
    found: np.ndarray = scale - distances**2 / (2 * squares)
    return found


def _walk(log_kernel: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Probabilities of the steps from each row; also where all are far away."""
    logits = log_kernel - np.log(density)
    steps = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = steps / steps.sum(axis=1, keepdims=True)
    return found
