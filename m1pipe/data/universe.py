"""The genes that totals were taken over before values were scaled, of which a model's may be a few.

Totals of a new file's counts are taken over the same genes.
"""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.data.matrix import Matrix
from m1pipe.data.units import BY_TOTAL, Units, to_linear
from m1pipe.errors import InputError, M1Warning

CLOSES = 0.05  # largest share by which a sum may miss the target sum: rounding, float16


@dataclass(frozen=True, eq=False)
class Universe:
    """Genes over which totals were taken before the values were scaled.

    Attributes
    ----------
    genes : tuple of str
    gene_names : DataFrame, shape (n_genes, n_columns)
        Their other names.
    closes : bool
        The training rows sum to their target sum over these genes, so that it was these. If not,
        genes were left out after the values were scaled, and nobody knows which.
    """

    genes: tuple[str, ...]
    gene_names: pd.DataFrame
    closes: bool = True

    def to_dict(self, model_genes: Sequence[str]) -> dict[str, Any]:
        """For JSON: how many, a digest, and what lies beyond the model's own genes.

        Parameters
        ----------
        model_genes : sequence of str
            Of a model, all of them in the universe.
        """
        own = set(model_genes)
        others = [place for place, gene in enumerate(self.genes) if gene not in own]
        names = self.gene_names.iloc[others]
        return {
            "n_genes": len(self.genes),
            "digest": digest(self.genes),
            "closes": self.closes,
            "others": [self.genes[place] for place in others],
            "other_names": {str(column): names[column].tolist() for column in names.columns},
        }

    @classmethod
    def from_dict(
        cls, stored: Mapping[str, Any], model_genes: Sequence[str], model_names: pd.DataFrame
    ) -> "Universe":
        """Universe stored by `to_dict`, the model's genes first.

        Raises
        ------
        ValueError
            If the genes are not those of the digest.
        """
        genes = (*model_genes, *stored["others"])
        if digest(genes) != stored["digest"]:
            raise ValueError("the genes that totals were taken over are not those of the digest")
        others = pd.DataFrame(
            stored["other_names"], index=pd.Index(stored["others"], dtype=object), dtype=object
        )
        return cls(genes, pd.concat([model_names, others]).fillna(""), bool(stored["closes"]))


def digest(genes: Iterable[str]) -> str:
    """SHA-256 of the names of genes, in whatever order."""
    return hashlib.sha256("\n".join(sorted(genes)).encode()).hexdigest()


def find_universe(
    genes: Sequence[str], gene_names: pd.DataFrame, units: Units, X: np.ndarray, where: str
) -> Universe | None:
    """The genes that a training file's totals were taken over: its own, if its rows sum so.

    Parameters
    ----------
    genes : sequence of str
        All genes of the file.
    gene_names : DataFrame, shape (n_genes, n_columns)
    units : Units
    X : ndarray, shape (n_rows, n_genes)
        Some of its training rows.
    where : str
        The file, for the warning.

    Returns
    -------
    Universe or None
        None where units are not made by totals.

    Warns
    -----
    M1Warning
        If the rows do not sum to the target sum.
    """
    if units.name not in BY_TOTAL or units.target_sum is None:
        return None
    whole = X[~np.isnan(X).any(axis=1)].astype(np.float64)  # what is missing is in no sum
    sums = to_linear(whole, units).sum(axis=1)
    off = np.abs(sums / units.target_sum - 1)
    closes = bool(len(off) == 0 or np.median(off) <= CLOSES)
    if not closes:
        text = (
            f"{where}: expected samples that sum to their target sum, {units.target_sum:.10g}, on "
            f"the linear scale; found {np.median(sums):.6g} (median): genes were left out after "
            "the samples were scaled, or the units are others. Raw counts cannot be brought to "
            "this scale later: train on the file of all genes and leave genes out by --min-variance"
        )
        warnings.warn(text, M1Warning, stacklevel=4)
    return Universe(tuple(genes), gene_names, closes)


def counted_columns(
    matrix: Matrix, units: Units, universe: Universe | None, min_coverage: float
) -> np.ndarray | None:
    """Columns of raw counts that totals are taken over, as in training.

    Parameters
    ----------
    matrix : Matrix
    units, universe
        Of the model's training data.
    min_coverage : float
        Smallest share of the genes of the training totals that must be found.

    Returns
    -------
    ndarray of int64, shape (n_columns,), or None
        None where no totals are taken, and for models that do not say over which genes they were
        taken: the model's own genes serve then, with a warning.

    Raises
    ------
    InputError
        If too few of the genes are found, or the training data had lost genes after they were
        scaled.
    """
    if not matrix.units.is_counts or units.is_counts or units.name == "unknown":
        return None
    where = str(matrix.path or "data")
    if universe is None:
        text = (
            f"{where}: the model does not say over which genes the totals of its training samples "
            "were taken: totals of these counts are taken over its own genes. If it was trained on "
            "some of the genes of its file, normalise the counts first (m1pipe convert)"
        )
        warnings.warn(text, M1Warning, stacklevel=4)
        return None
    if not universe.closes:
        raise InputError(
            f"{where}: expected {units}; found counts, and the training samples did not sum "
            "to their target sum: genes had been left out after scaling, and the model does not "
            "know which. Normalise the counts over all genes first (m1pipe convert --normalize "
            "total --log2p1)"
        )
    return _universe_columns(matrix, universe, min_coverage)


def _universe_columns(matrix: Matrix, universe: Universe, min_coverage: float) -> np.ndarray:
    """Columns of the genes of the training totals, ascending; says which are missing."""
    match = matrix.match(universe.genes, universe.gene_names)
    found = match.columns[match.columns >= 0]
    where, named = str(matrix.path or "data"), ", ".join(match.missing[:3])
    said = (
        f"totals are taken over {found.size:,} of the {len(universe.genes):,} genes of the "
        "training totals"
    )
    if match.coverage < min_coverage:
        raise InputError(
            f"{where}: {said} ({match.coverage:.1%}), missing are {named}, ...: give counts "
            "of all genes, or lower --min-coverage"
        )
    if match.missing:
        warnings.warn(f"{where}: {said}; missing such as {named}", M1Warning, stacklevel=5)
    return np.sort(found)
