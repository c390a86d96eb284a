"""Missing levels from the others of the same sample."""

import numpy as np

from m1pipe.encoder.summary import gene_scale
from m1pipe.encoder.trained import Encoder

MOST_ROUNDS = 100
TOLERANCE = 1e-3  # of a gene's standard deviation


def impute_array(encoder: Encoder, X: np.ndarray, codes: np.ndarray | None = None) -> np.ndarray:
    """Rows whose missing levels are expected ones, given those that are there.

    They begin at the training means; sample after sample is encoded and decoded, and what is
    missing replaced by what comes out, until that stays the same or moves farther than in the
    round before. Where decoder and encoder are
    linear, the fixed point is the mean of the missing levels given the others.

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
    scale = gene_scale(encoder.scaler, encoder.pca)
    last = np.full(open_rows.size, np.inf)
    for _ in range(MOST_ROUNDS):
        if not open_rows.size:
            break
        before = filled[open_rows]
        told = None if codes is None else codes[open_rows]
        fitted = encoder.reconstruct_array(before, told)
        after = np.where(missing[open_rows], fitted, before)
        change = np.abs(encoder.inputs(after, told) - encoder.inputs(before, told)) / scale
        moved = change.max(axis=1)
        nearer = moved <= last
        filled[open_rows[nearer]] = after[nearer]
        goes_on = nearer & (moved > TOLERANCE)
        open_rows, last = open_rows[goes_on], moved[goes_on]
    return filled
