"""What batches leave in the latents, beside what is left of columns that are worth keeping."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from m1pipe import seeds
from m1pipe.data.confounding import as_levels
from m1pipe.encoder.conditional import batch_names

N_NEIGHBOURS = 15
_MOST_SAMPLES = 2000  # whose neighbours are looked at
_MOST_LEVELS = 30


def what_is_left(
    latents: np.ndarray, genes: Iterable[np.ndarray], obs: pd.DataFrame, batch: Sequence[str]
) -> dict[str, Any]:
    """How far batches and other columns explain the latents, and the genes.

    Parameters
    ----------
    latents : ndarray, shape (n_samples, n_latent)
    genes : iterable of ndarray, each of shape (n_block, n_genes)
        Of the same samples, standardised; NaN counts as the mean.
    obs : DataFrame, shape (n_samples, n_columns)
    batch : sequence of str
        Columns that name the batch together.

    Returns
    -------
    dict
        `column`, the name of the batch; `r2`, by column the adjusted R2 of the genes and of the
        latents on its values, the batch first; `mixing`, as of `neighbour_mixing`; `n_neighbours`.
    """
    names = batch_names(obs, batch).astype(str)
    column = ",".join(batch)
    codes = {column: pd.factorize(names)[0]}
    for name in obs.columns.difference(list(batch)):
        values = as_levels(obs[name])
        if values is not None and values.nunique() <= _MOST_LEVELS:
            codes[str(name)] = pd.factorize(values.reindex(range(len(obs))))[0]
    of_genes = adjusted_r2(genes, list(codes.values()))
    of_latents = adjusted_r2([latents], list(codes.values()))
    pairs = zip(of_genes, of_latents, strict=True)
    return {
        "column": column,
        "r2": dict(zip(codes, map(list, pairs), strict=True)),
        "mixing": neighbour_mixing(latents, codes[column]),
        "n_neighbours": N_NEIGHBOURS,
    }


def adjusted_r2(blocks: Iterable[np.ndarray], columns: Sequence[np.ndarray]) -> list[float]:
    """Share of the variance of all variables together that the groups of a column explain.

    Parameters
    ----------
    blocks : iterable of ndarray, each of shape (n_block, n_variables)
        Rows in order, about one another's mean or any constant; NaN counts as 0.
    columns : sequence of ndarray of int, shape (n_samples,)
        Group of every row; -1: left out.

    Returns
    -------
    list of float
        1 - (1 - R2) (n - 1) / (n - groups) for every column; about 0 where it tells nothing.
    """
    sums: list[np.ndarray] = []
    squares, start = np.zeros(len(columns)), 0
    for block in blocks:
        X = np.nan_to_num(block.astype(np.float64))
        sums = sums or [np.zeros((codes.max() + 1, X.shape[1])) for codes in columns]
        for i, codes in enumerate(columns):
            here = codes[start : start + len(X)]
            known = X[here >= 0]
            np.add.at(sums[i], here[here >= 0], known)
            squares[i] += np.vdot(known, known)
        start += len(X)
    found = []
    for total, square, codes in zip(sums, squares, columns, strict=True):
        counts = np.bincount(codes[codes >= 0])
        n, k = counts.sum(), len(counts)
        centre = (total.sum(axis=0) ** 2).sum() / n
        between = ((total**2).sum(axis=1) / counts).sum() - centre
        within = square - centre - between
        found.append(float(1 - within / (n - k) * (n - 1) / (within + between)))
    return found


def neighbour_mixing(latents: np.ndarray, batches: np.ndarray) -> float:
    """Share of nearest neighbours of other batches, over what chance would give.

    Parameters
    ----------
    latents : ndarray, shape (n_samples, n_latent)
    batches : ndarray of int, shape (n_samples,)

    Returns
    -------
    float
        1 where batches are mixed as by chance, 0 where every sample lies among its own.
    """
    n = len(latents)
    k = min(N_NEIGHBOURS, n - 1)
    drawn = np.arange(n)
    if n > _MOST_SAMPLES:
        drawn = seeds.rng(0, seeds.MEASURED_ROWS).choice(n, _MOST_SAMPLES, replace=False)
    _, near = cKDTree(latents).query(latents[drawn], k=k + 1)
    others = near != drawn[:, None]
    others[others.all(axis=1), -1] = False  # a copy stands in the place of the sample itself
    own = batches[drawn][:, None]
    seen = ((batches[near] != own) & others).sum(axis=1) / k
    counts = np.bincount(batches)
    chance = 1 - (counts[batches[drawn]] - 1) / (n - 1)
    return float(seen.mean() / chance.mean())
