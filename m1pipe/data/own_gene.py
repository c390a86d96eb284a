"""Each target's own gene: an isoform names its gene, and X holds that gene's level, or does not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from m1pipe.data.matrix import Matrix
from m1pipe.data.names import match_genes

_NO_GENE = frozenset({"", "?", "nan", "None", "NA", "missing"})


@dataclass(frozen=True, eq=False)
class OwnGenes:
    """Levels of the genes that targets belong to.

    Attributes
    ----------
    values : ndarray of float32, shape (n_samples, n_own)
        Levels of those genes that X has, in X's units; NaN where one is missing.
    column : ndarray of int64, shape (n_targets,)
        Column of `values` that holds each target's own gene; -1 where X lacks it.
    """

    values: np.ndarray
    column: np.ndarray

    @property
    def has(self) -> np.ndarray:
        """Targets whose gene X has, ascending."""
        return np.flatnonzero(self.column >= 0)

    def take(self, rows: np.ndarray) -> "OwnGenes":
        """The same for some samples, in the order given.

        Parameters
        ----------
        rows : ndarray of int, shape (n_rows,)
        """
        return OwnGenes(self.values[rows], self.column)


def own_columns(
    genes: Sequence[str | None], available: Sequence[str], available_var: pd.DataFrame | None = None
) -> np.ndarray:
    """Column that holds each target's own gene.

    Parameters
    ----------
    genes : sequence of str or None, shape (n_targets,)
        Gene of each target; many targets may share one.
    available : sequence of str
        Genes of X, matched by name as everywhere (`m1pipe.data.names.match_genes`).
    available_var : DataFrame, optional
        Their annotations.

    Returns
    -------
    ndarray of int64, shape (n_targets,)
        -1 where the target names no gene, or X lacks it.
    """
    named = ["" if gene is None else str(gene) for gene in genes]
    wanted = [gene for gene in dict.fromkeys(named) if gene not in _NO_GENE]
    found = match_genes(wanted, list(available), available_var=available_var)
    place = dict(zip(wanted, found.columns.tolist(), strict=True))
    return np.array([place.get(gene, -1) for gene in named], dtype=np.int64)


def read_own_genes(columns: np.ndarray, matrix: Matrix, rows: np.ndarray) -> OwnGenes:
    """Read the levels of the targets' own genes.

    Parameters
    ----------
    columns : ndarray of int64, shape (n_targets,)
        From `own_columns`.
    matrix : Matrix
    rows : ndarray of int, shape (n_samples,)
        Rows of X that are wanted; none of their levels is infinite.
    """
    used, place = np.unique(columns[columns >= 0], return_inverse=True)
    column = np.full(columns.size, -1, dtype=np.int64)
    column[columns >= 0] = place
    return OwnGenes(matrix.take(rows, used), column)
