"""Isoform fractions: how the isoforms of a gene share it, and how well that is predicted."""

import numpy as np
import pandas as pd

from m1pipe.data.targets import Targets
from m1pipe.data.units import LN, LOG_OF, Units, to_linear

SMALLEST_TOTAL = 1.0
"""A gene whose isoforms sum to less in a sample (before the logarithm) has no fractions there."""

_BLOCK_CELLS = 2**21


def fraction_r2(prediction: np.ndarray, targets: Targets, mean: np.ndarray) -> float | None:
    """R2 of the isoforms' fractions against those that the training means give.

    Parameters
    ----------
    prediction : ndarray, shape (n_samples, n_targets)
    targets : Targets
        Of the same samples, with genes.
    mean : ndarray, shape (n_targets,)
        Training means.

    Returns
    -------
    float or None
        1 - SSE / SSE of the training means' fractions, over the isoforms of genes with several
        and the samples where the gene's total is at least `SMALLEST_TOTAL`. None where genes or
        a scale that can be summed are not known, or no gene has several isoforms.
    """
    units = targets.units
    if targets.genes is None or units.name not in (*LOG_OF, *LOG_OF.values(), LN):
        return None
    sse = base = 0.0
    for columns, starts in gene_blocks(targets.genes, len(prediction)):
        true, total = _fractions(targets.values[:, columns], starts, units)
        known = np.repeat(total >= SMALLEST_TOTAL, np.diff([*starts, columns.size]), axis=1)
        ours, _ = _fractions(prediction[:, columns], starts, units)
        theirs, _ = _fractions(mean[None, columns], starts, units)
        sse += float(((ours - true) ** 2)[known].sum())
        base += float(((theirs - true) ** 2)[known].sum())
    return 1 - sse / base if base > 0 else None


def gene_blocks(genes: tuple[str, ...], n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Targets of genes with several isoforms, gene by gene, some genes at a time.

    Returns
    -------
    list of (columns, starts)
        Targets, and where each gene begins among them.
    """
    codes = pd.Series(pd.factorize(np.asarray(genes, dtype=object))[0])
    several = np.flatnonzero(codes.groupby(codes).transform("size") > 1)
    order = several[np.argsort(codes[several], kind="stable")]
    first = np.flatnonzero(np.diff(codes[order], prepend=-1))
    step = max(1, _BLOCK_CELLS // max(1, n))
    blocks, begin = [], 0
    while begin < first.size:
        end = max(begin + 1, int(np.searchsorted(first, first[begin] + step)))
        stop = first[end] if end < first.size else order.size
        blocks.append((order[first[begin] : stop], first[begin:end] - first[begin]))
        begin = end
    return blocks


def _fractions(
    levels: np.ndarray, starts: np.ndarray, units: Units
) -> tuple[np.ndarray, np.ndarray]:
    """Fractions of each gene's total, equal ones where that is 0, and the totals."""
    linear = np.maximum(to_linear(levels.astype(np.float64), units), 0)
    total = np.add.reduceat(linear, starts, axis=1)
    sizes = np.diff([*starts, levels.shape[1]])
    spread = np.repeat(total, sizes, axis=1)
    equal = np.repeat(1 / sizes, sizes)
    return np.where(spread > 0, linear / np.where(spread > 0, spread, 1), equal), total
