"""Missing levels in training: looked for once, filled in for the encoder, out of the likelihood.

A missing level enters the encoder as its gene's training mean (of the sample's class, for a
conditional model) and has no part in the likelihood, so that what is maximised bounds the
likelihood of the levels that are there.

References
----------
Nazabal et al. 2020, Pattern Recognit. 107:107501, section 3 (the bound of the observed levels).
Mattei & Frellsen 2019, arXiv:1812.02633, section 3.2 (missing inputs at a constant).
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from m1pipe.data.recipe import Aligned
from m1pipe.encoder.condition import Condition
from m1pipe.errors import InputError, M1Warning
from m1pipe.pca import PCA

FEW_VALUES = 10
NAMED = 5
Blocks = Iterator[np.ndarray]


@dataclass(frozen=True, eq=False)
class Missing:
    """How much is missing of the rows that a training uses.

    Attributes
    ----------
    n_values : int
        Missing levels of training and validation rows.
    n_levels : int
        All of their levels.
    n_known : ndarray of int64, shape (n_genes,)
        Levels of each gene that the training rows have.
    """

    n_values: int
    n_levels: int
    n_known: np.ndarray

    def __str__(self) -> str:
        return (
            f"{self.n_values:,} of {self.n_levels:,} levels ({self.n_values / self.n_levels:.2%})"
        )


def look_for_missing(
    source: Aligned, training: Blocks, held_out: Blocks, *, counted: bool
) -> Missing | None:
    """Count the missing levels of the rows of a training.

    Parameters
    ----------
    source : Aligned
        Gives the names.
    training, held_out : iterator of ndarray, each of shape (n_rows, n_genes)
        Levels, NaN where one is missing.
    counted : bool
        The law is one of counts, which needs the total of every sample.

    Returns
    -------
    Missing or None
        None where nothing is missing.

    Raises
    ------
    InputError
        If a gene has no level in any training row, or levels are missing under a law of counts.

    Warns
    -----
    M1Warning
        If a gene has few levels.
    """
    n_values, n_rows, genes = _count(training, source.shape[1])
    found, n_held_out, _ = _count(held_out, source.shape[1])
    if not n_values + found:
        return None
    where = str(source.matrix.path or "data")
    if counted:
        raise InputError(
            f"{where}: expected whole counts, as a law of counts needs every sample's total; found "
            f"{n_values + found:,} missing: take another --likelihood on normalised logarithms, or "
            "convert without --missing keep"
        )
    known = n_rows - genes
    _check_genes(np.asarray(source.recipe.genes, dtype=object), known, where)
    return Missing(n_values + found, (n_rows + n_held_out) * source.shape[1], known)


def _count(blocks: Blocks, n_genes: int) -> tuple[int, int, np.ndarray]:
    """Missing levels in all, rows, and missing levels by gene."""
    n_rows, genes = 0, np.zeros(n_genes, dtype=np.int64)
    for X in blocks:
        n_rows += len(X)
        if np.isnan(X.sum()):
            genes += np.isnan(X).sum(axis=0)
    return int(genes.sum()), n_rows, genes


def _check_genes(genes: np.ndarray, known: np.ndarray, where: str) -> None:
    """Refuse genes without a level, warn of those with few."""
    if not known.all():
        names = genes[known == 0]
        raise InputError(
            f"{where}: expected a level of every gene in at least one training row; found none of "
            f"{names.size:,} genes ({_listed(names)}): leave them out"
        )
    few = genes[known < FEW_VALUES]
    if few.size:
        warnings.warn(
            f"{where}: {few.size:,} genes have under {FEW_VALUES} levels in the training rows, and "
            f"are hardly learned: {_listed(few)}",
            M1Warning,
            stacklevel=2,
        )


def _listed(names: np.ndarray) -> str:
    return ", ".join(map(str, names[:NAMED])) + (", ..." if names.size > NAMED else "")


def known_means(blocks: Blocks, n_known: np.ndarray) -> np.ndarray:
    """Mean of each gene's levels that are there.

    Parameters
    ----------
    blocks : iterator of ndarray, each of shape (n_rows, n_genes)
        Transformed training rows, NaN where a level is missing.
    n_known : ndarray of int, shape (n_genes,)

    Returns
    -------
    ndarray of float32, shape (n_genes,)
    """
    total = np.zeros(n_known.size)
    for X in blocks:
        total += np.nansum(X, axis=0, dtype=np.float64)
    means: np.ndarray = (total / n_known).astype(np.float32)
    return means


def level_means(X: np.ndarray) -> np.ndarray:
    """Mean of each gene's levels that are there, of rows in memory; 0 where there are none.

    Parameters
    ----------
    X : ndarray of float32, shape (n_rows, n_genes)
        NaN where a level is missing.

    Returns
    -------
    ndarray of float32, shape (n_genes,)
    """
    return known_means(iter([X]), np.maximum((~np.isnan(X)).sum(axis=0), 1))


def fill_missing(X: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Rows with their missing levels at these means.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_genes)
        NaN where a level is missing.
    means : ndarray of float32, shape (n_genes,) or (n_samples, n_genes)

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)
        X itself where nothing is missing.
    """
    return np.where(np.isnan(X), means, X) if np.isnan(X.sum()) else X


def known_variances(pca: PCA, n_rows: int, n_known: np.ndarray) -> np.ndarray:
    """Variance of each gene's levels that are there, of components fitted to filled rows.

    Parameters
    ----------
    pca : PCA
        A filled level lies at its mean, and adds nothing to the squares about it.
    n_rows : int
    n_known : ndarray of int, shape (n_genes,)

    Returns
    -------
    ndarray of float32, shape (n_genes,)
    """
    variances: np.ndarray = pca.gene_variances * (n_rows / n_known)
    return variances.astype(np.float32)


def class_means(mean: np.ndarray, condition: Condition | None) -> np.ndarray:
    """What missing levels stand at, float32, shape (n_classes, n_genes); one class for none.

    Parameters
    ----------
    mean : ndarray of float32, shape (n_genes,)
        Of the training rows, on the transformed scale.
    condition : Condition or None
    """
    return mean[None] if condition is None else mean + condition.shift
