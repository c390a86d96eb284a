"""Joint fidelity in principal components: unbiased MMD, precision, recall, density, coverage."""

from functools import partial

import numpy as np
from scipy.spatial.distance import cdist, pdist

from m1pipe import seeds
from m1pipe.synthesis.scores import POSITIVE, SHARE, Definition, Values

NEIGHBOURS = 5
_definition = partial(Definition, "joint")
MMD = (
    _definition(
        "mmd2",
        "MMD squared, unbiased",
        "lower",
        "distance of the distributions by a Gaussian kernel; about 0, also below, where they agree",
    ),
)
MMD_P = (
    _definition(
        "mmd_p",
        "MMD, permutation p",
        "shown",
        "chance of such an MMD if both had one distribution",
        SHARE,
        has_interval=False,
    ),
)
PRDC = (
    _definition(
        "precision",
        "precision",
        "higher",
        "share of synthetic samples that lie among real ones",
        SHARE,
    ),
    _definition(
        "recall",
        "recall",
        "higher",
        "share of real samples that lie among the synthetic ones",
        SHARE,
    ),
    _definition(
        "density", "density", "higher", "how many real samples lie about a synthetic one", POSITIVE
    ),
    _definition(
        "coverage", "coverage", "higher", "share of real samples with a synthetic one nearby", SHARE
    ),
)


def bandwidth(H: np.ndarray) -> float:
    """Median distance between the held-out samples, the same for all that is compared with them.

    Parameters
    ----------
    H : ndarray, shape (n_samples, n_components)
    """
    return float(np.median(pdist(H)))


def mmd_score(H: np.ndarray, A: np.ndarray, sigma: float) -> Values:
    """Unbiased squared maximum mean discrepancy, kernel exp(-d^2 / (2 sigma^2)).

    Parameters
    ----------
    H, A : ndarray, shape (n_samples, n_components)
        The same number of rows in both.
    sigma : float
        See `bandwidth`.

    Returns
    -------
    mapping with "mmd2"

    References
    ----------
    Gretton et al. 2012, JMLR 13:723, equation 3.
    """
    kernel = _kernel(np.concatenate([H, A]), sigma)
    first = np.zeros((len(kernel), 1))
    first[: len(H)] = 1
    return {"mmd2": float(_mmd(kernel, first)[0])}


def mmd_p_value(
    H: np.ndarray, A: np.ndarray, sigma: float, *, n_permutations: int, seed: int
) -> Values:
    """Permutation test of MMD: which set a sample belongs to is drawn anew.

    Parameters
    ----------
    H, A : ndarray, shape (n_samples, n_components)
    sigma
        As for `mmd_score`.
    n_permutations, seed : int

    Returns
    -------
    mapping with "mmd_p"
        The observed assignment counts as one of them, so that it is never 0.
    """
    kernel = _kernel(np.concatenate([H, A]), sigma)
    rng = seeds.rng(seed, seeds.MMD_PERMUTATIONS)
    first = np.zeros((len(kernel), n_permutations + 1))
    first[: len(H), 0] = 1
    for k in range(1, n_permutations + 1):
        first[rng.permutation(len(kernel))[: len(H)], k] = 1
    values = _mmd(kernel, first)
    reached = np.sum(values[1:] >= values[0] - 1e-12)
    return {"mmd_p": float((1 + reached) / (1 + n_permutations))}


def _kernel(rows: np.ndarray, sigma: float) -> np.ndarray:
    """Kernel of all pairs, 0 on the diagonal."""
    if not sigma > 0:
        raise ValueError("the held-out samples do not differ: the kernel has no width")
    kernel: np.ndarray = cdist(rows, rows, "sqeuclidean")
    kernel *= -1 / (2 * sigma**2)
    np.exp(kernel, out=kernel)
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _mmd(kernel: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Unbiased MMD^2 for every column of `first`, which marks (1) the rows of the first set."""
    n = first[:, 0].sum()
    m = len(first) - n
    rows = kernel @ first
    within = np.einsum("ij,ij->j", first, rows)
    across = rows.sum(axis=0) - within
    other = kernel.sum() - within - 2 * across
    return np.asarray(within / (n * (n - 1)) + other / (m * (m - 1)) - 2 * across / (n * m))


def prdc_scores(H: np.ndarray, A: np.ndarray, k: int = NEIGHBOURS) -> Values:
    """Precision, recall, density and coverage with balls that reach to the k-th neighbour.

    Parameters
    ----------
    H, A : ndarray, shape (n_samples, n_components)
        Hold-out, and the samples to be scored; the same number of rows.
    k : int
        Neighbours, the sample itself not counted.

    Returns
    -------
    mapping of every name in `PRDC` to a float

    References
    ----------
    Naeem et al. 2020, arXiv:2002.09797.
    """
    if len(H) <= k or len(A) <= k:
        raise ValueError(f"{k} neighbours need more than {k} samples; found {min(len(H), len(A))}")
    radius_h, radius_a = _radii(H, k), _radii(A, k)
    across = cdist(H, A)
    in_real = across < radius_h[:, None]
    return {
        "precision": float(in_real.any(axis=0).mean()),
        "recall": float((across < radius_a[None, :]).any(axis=1).mean()),
        "density": float(in_real.sum() / (k * len(A))),
        "coverage": float(in_real.any(axis=1).mean()),
    }


def _radii(rows: np.ndarray, k: int) -> np.ndarray:
    return np.asarray(np.partition(cdist(rows, rows), k, axis=1)[:, k])
