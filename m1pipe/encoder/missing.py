"""Missing levels: counted before training, imputed for the encoder, left out of the likelihood.

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
from typing import TYPE_CHECKING

import numpy as np
import torch

from m1pipe.data.recipe import Aligned
from m1pipe.encoder.summary import gene_scale
from m1pipe.errors import InputError, M1Warning, counted
from m1pipe.models.mlp import evaluating
from m1pipe.models.pca import PCA
from m1pipe.models.vae import known_only

if TYPE_CHECKING:
    from m1pipe.encoder.trained import Encoder

FEW_VALUES = 10
NAMED = 5
MOST_ROUNDS = 100
TOLERANCE = 1e-3  # of a gene's standard deviation
SLACK = 0.1  # nats a sample
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


def count_missing(
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
        The likelihood is of counts, which needs the total of every sample.

    Returns
    -------
    Missing or None
        None where nothing is missing.

    Raises
    ------
    InputError
        If a gene has no level in any training row, or levels of counts are missing.

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
            f"{where}: expected whole counts, as a likelihood of counts needs every sample's "
            f"total; found {n_values + found:,} missing: take another --likelihood on normalised "
            "logarithms, or convert without --missing keep"
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
            f"{counted(names.size, 'gene')} ({_listed(names)}): leave them out"
        )
    few = genes[known < FEW_VALUES]
    if few.size:
        warnings.warn(
            f"{where}: {counted(few.size, 'gene has', 'genes have')} under {FEW_VALUES} levels "
            "in the training rows, and "
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
    return (total / n_known).astype(np.float32)


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
    """Rows with their missing levels imputed by means.

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


def impute_array(encoder: "Encoder", X: np.ndarray, codes: np.ndarray | None = None) -> np.ndarray:
    """Rows whose missing levels are expected ones, given those that are there.

    They begin at the training means; sample after sample is encoded and decoded, and what is
    missing replaced by what comes out, until that stays the same, or the latents become less
    probable given the levels that are there: so it ends where an encoder that was trained on
    levels at their means is not at home. Where decoder and encoder are linear, latents become
    ever more probable, and the fixed point is the mean of the missing levels given the others.

    Parameters
    ----------
    encoder : Encoder
    X : ndarray, shape (n_samples, n_genes)
        The encoder's genes in the units of training; NaN where a level is missing.
    codes : ndarray of int64, shape (n_samples,), optional
        Class of each row, for a conditional model.

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)
        Without NaN; levels that were there are unchanged.

    References
    ----------
    Rezende, Mohamed & Wierstra 2014, arXiv:1401.4082, section 6.1 (by draws; here by means).
    """
    missing = np.isnan(X)
    filled = np.where(missing, encoder.recipe.gene_means, X).astype(np.float32)
    open_rows = np.flatnonzero(missing.any(axis=1))
    best = np.full(open_rows.size, -np.inf)
    for _ in range(MOST_ROUNDS):
        if not open_rows.size:
            break
        own = None if codes is None else codes[open_rows]
        after, moved, nats = _round(encoder, filled[open_rows], missing[open_rows], own)
        good = nats >= best - SLACK
        filled[open_rows[good]] = after[good]
        goes_on = good & (moved > TOLERANCE)
        open_rows, best = open_rows[goes_on], np.maximum(best, nats)[goes_on]
    return filled


def _round(
    encoder: "Encoder", before: np.ndarray, missing: np.ndarray, codes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows filled anew, how far the farthest level moved, log p(known, z) but for a constant."""
    module, scaler = encoder.module, encoder.scaler
    x, known = torch.from_numpy(scaler.apply(before)), torch.from_numpy(~missing)
    classes = None if codes is None else torch.from_numpy(codes)
    with evaluating(module), torch.no_grad():
        z = module.encode_mu(x, classes)
        eta = module.decode(z, classes, module.library(x))
        nats = known_only(module.likelihood.log_prob(x, eta), known).sum(1)
        if module.config.beta > 0:
            nats = nats - 0.5 * z.square().sum(1)
        fitted = scaler.invert(module.likelihood.mean(eta).numpy())
    after = np.where(missing, fitted, before)
    change = np.abs(encoder.inputs(after, codes) - encoder.inputs(before, codes))
    return after, (change / gene_scale(scaler, encoder.pca)).max(axis=1), nats.numpy()
