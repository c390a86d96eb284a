"""What the samples of a file go through before a network sees them, stored with every model.

Genes are matched by name, values brought to the units of training, and genes that a file lacks
take their training mean, so that a model applied years later does what was done in training.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.console import log, over_rows
from m1pipe.data.matrix import Matrix, are_levels, check_finite
from m1pipe.data.names import (
    NAME_COLUMNS,
    GeneMatch,
    refuse_duplicates,
    require_coverage,
)
from m1pipe.data.unit_guess import check_units, looks_other
from m1pipe.data.units import BY_TOTAL, Units, convert_units
from m1pipe.data.universe import Universe, counted_columns, find_universe
from m1pipe.errors import InputError, all_but

MIN_COVERAGE = 0.8
SUMMED_ROWS = 256  # that show whether samples sum to the target sum
MISSING_FILE = "missing_genes.csv"


@dataclass(frozen=True, eq=False)
class Recipe:
    """The genes and units that a model was trained on.

    Attributes
    ----------
    genes : tuple of str
        In the order of the network's inputs.
    units : Units
        Of the training data.
    gene_means : ndarray of float32, shape (n_genes,)
        Training means, in `units`.
    gene_names : DataFrame, shape (n_genes, n_columns)
        Other names of the genes (columns symbol, gene_id, gene_name), as far as they were known.
    universe : Universe or None
        Genes over which the totals of the training samples were taken; None where units are not
        made by totals, and for models that do not say.
    """

    genes: tuple[str, ...]
    units: Units
    gene_means: np.ndarray
    gene_names: pd.DataFrame
    universe: Universe | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings for JSON, without the means."""
        named = {column: self.gene_names[column].tolist() for column in self.gene_names.columns}
        universe = None if self.universe is None else self.universe.to_dict(self.genes)
        entries = {"genes": list(self.genes), "gene_names": named, **self.units.to_uns()}
        return {**entries, "universe": universe}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], gene_means: np.ndarray) -> "Recipe":
        """Recipe stored by `to_dict`, with its means, shape (n_genes,)."""
        genes = tuple(stored["genes"])
        if len(genes) != gene_means.size:
            raise ValueError(f"{len(genes)} genes and {gene_means.size} means")
        names = pd.DataFrame(stored["gene_names"], index=pd.Index(genes, dtype=object))
        universe = stored.get("universe")
        return cls(
            genes=genes,
            units=Units(stored["units"], stored.get("target_sum")),
            gene_means=gene_means,
            gene_names=names,
            universe=None if universe is None else Universe.from_dict(universe, genes, names),
        )


def whole_recipe(matrix: Matrix, rows: np.ndarray, gene_means: np.ndarray) -> Recipe:
    """Recipe of a model of all genes of a file.

    Parameters
    ----------
    matrix : Matrix
    rows : ndarray of int, shape (n_rows,)
        Training rows.
    gene_means : ndarray of float32, shape (n_genes,)

    Raises
    ------
    InputError
        If a gene's name comes twice.
    """
    check_units(matrix)
    genes, names, where = tuple(matrix.genes.tolist()), name_columns(matrix.var), _where(matrix)
    refuse_duplicates(genes, f"{where}: genes")
    some = rows[np.linspace(0, rows.size - 1, min(rows.size, SUMMED_ROWS)).astype(np.int64)]
    by_total = matrix.units.name in BY_TOTAL
    X = matrix.take(some) if by_total else np.empty((0, len(genes)), dtype=np.float32)
    universe = find_universe(genes, names, matrix.units, X, where)
    return Recipe(genes, matrix.units, gene_means, names, universe)


class Aligned:
    """A matrix seen through a recipe: its rows in the recipe's genes and units.

    Attributes
    ----------
    matrix : Matrix
        What is read.
    match : GeneMatch
        Where the recipe's genes stand in it.
    present : ndarray of bool, shape (n_genes,)
        Genes of the recipe that the matrix has.
    keep_missing : bool
        Leave NaN in place, in place of refusing it.
    keep_lacking : bool
        Put NaN where the matrix lacks a gene, in place of the training mean.
    counted : ndarray of int64, shape (n_columns,), or None
        Columns that totals of raw counts are taken over; None: those of the recipe's genes.
    """

    def __init__(
        self,
        matrix: Matrix,
        recipe: Recipe,
        match: GeneMatch,
        counted: np.ndarray | None = None,
        *,
        keep_missing: bool = False,
        keep_lacking: bool = False,
    ) -> None:
        self.matrix = matrix
        self.recipe = recipe
        self.match = match
        self.present = match.columns >= 0
        as_it_is = np.array_equal(match.columns, np.arange(matrix.n_genes))
        self._columns = None if as_it_is else match.columns[self.present]
        self.counted = counted
        self.keep_missing, self.keep_lacking = keep_missing, keep_lacking
        known = "unknown" not in (matrix.units.name, recipe.units.name)
        self._converts = known and matrix.units != recipe.units

    @property
    def shape(self) -> tuple[int, int]:
        """Samples of the matrix and genes of the recipe."""
        return self.matrix.n_samples, len(self.recipe.genes)

    def take(self, indices: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Rows by index.

        Parameters
        ----------
        indices : ndarray of int, shape (n,)
        out : ndarray of float32, C-contiguous, shape (n, n_genes), optional
            Filled and returned where the matrix has all genes; a fresh array otherwise.

        Returns
        -------
        ndarray of float32, shape (n, n_genes)
            In the recipe's genes and units; missing genes at their training mean.

        Raises
        ------
        InputError
            If a value is not finite, or a sample cannot be normalised. Where NaN is kept: if it
            is all that a sample has.
        """
        room = out if self.present.all() else None
        X = self.matrix.take(indices, self._columns, out=room)
        if not are_levels(X):
            self._check(X, np.asarray(indices))
        if self._converts:
            totals = self.totals(indices, X)
            X = convert_units(X, self.matrix.units, self.recipe.units, totals)
        if self.present.all():
            return X
        filled = np.tile(self.recipe.gene_means, (len(X), 1))
        if self.keep_lacking:
            filled[:] = np.nan
        filled[:, self.present] = X
        return filled

    def blocks(self, n_rows: int = 1024) -> Iterator[tuple[int, int, np.ndarray]]:
        """All rows in order: start, stop and an array of shape (stop - start, n_genes)."""
        n = self.matrix.n_samples
        spans = ((start, min(start + n_rows, n)) for start in range(0, n, n_rows))
        for start, stop in over_rows(spans, n):
            yield start, stop, self.take(np.arange(start, stop))

    def _check(self, X: np.ndarray, indices: np.ndarray) -> None:
        """Refuse what is not finite, but for NaN where it is kept and not all that there is."""
        if not self.keep_missing:
            check_finite(X, self.matrix, indices, columns=self._columns)
        missing = np.isnan(X)
        check_finite(np.where(missing, 0, X), self.matrix, indices, columns=self._columns)
        empty = np.flatnonzero(missing.all(axis=1))
        if empty.size:
            sample = self.matrix.samples[indices[empty[0]]]
            raise InputError(
                f"{_where(self.matrix)}: expected a level of at least one of the model's genes in "
                f"every sample; found none in {sample!r} ({empty.size} such samples): leave them "
                f"out, m1pipe convert --where {all_but(sample)}"
            )

    def totals(self, indices: np.ndarray, X: np.ndarray | None = None) -> np.ndarray | None:
        """Library sizes over the genes that training totals were taken over.

        Parameters
        ----------
        indices : ndarray of int, shape (n,)
        X : ndarray, shape (n, n_found), optional
            Counts of these rows in the recipe's genes; read anew where they are not given.

        Returns
        -------
        ndarray of float64, shape (n,), or None
            None where the matrix holds no counts that are to be normalised.

        Raises
        ------
        InputError
            If a sample has none, or one is missing.
        """
        if not (self._converts and self.matrix.units.is_counts):
            return None
        if self.counted is not None:
            X = self.matrix.take(indices, self.counted)
        elif X is None:
            X = self.matrix.take(indices, self.match.columns[self.present])
        totals: np.ndarray = X.sum(axis=1, dtype=np.float64)
        unknown = np.flatnonzero(np.isnan(totals))
        if unknown.size:
            raise InputError(
                f"{_where(self.matrix)}: expected whole counts to normalise; found NaN in sample "
                f"{self.matrix.samples[indices[unknown[0]]]!r}, whose total is not known then: "
                "normalise them before values go missing"
            )
        empty = np.flatnonzero(~(totals > 0))
        if empty.size:
            sample = self.matrix.samples[indices[empty[0]]]
            raise InputError(
                f"{_where(self.matrix)}: expected counts to normalise; found none in sample "
                f"{sample!r} ({empty.size} such samples) over the genes of the training totals: "
                f"leave them out, m1pipe convert --where {all_but(sample)}"
            )
        return totals


def align(
    matrix: Matrix,
    recipe: Recipe,
    *,
    min_coverage: float = MIN_COVERAGE,
    keep_missing: bool = False,
    keep_lacking: bool = False,
) -> Aligned:
    """See a file through a recipe.

    Parameters
    ----------
    matrix : Matrix
    recipe : Recipe
        Of the model.
    min_coverage : float
        Smallest share of the recipe's genes that must be found.
    keep_missing, keep_lacking : bool
        As for `Aligned`.

    Returns
    -------
    Aligned

    Raises
    ------
    InputError
        If too few genes are found, a name occurs twice, or the units cannot be converted.
    """
    check_units(matrix)
    match = match_recipe(matrix, recipe, min_coverage=min_coverage)
    n_wanted = match.columns.size
    found = f"{n_wanted - len(match.missing):,} of {n_wanted:,} genes found ({match.how})"
    others = f", {match.n_extra:,} others not used" if match.n_extra else ""
    log.info("%s: %s%s", _where(matrix), found, others)
    counted = counted_columns(matrix, recipe.units, recipe.universe, min_coverage)
    return Aligned(
        matrix, recipe, match, counted, keep_missing=keep_missing, keep_lacking=keep_lacking
    )


def match_recipe(
    matrix: Matrix, recipe: Recipe, *, min_coverage: float = MIN_COVERAGE
) -> GeneMatch:
    """Where the recipe's genes stand in a matrix, by name and by the matrix's aliases.

    Raises
    ------
    InputError
        As `align`.
    """
    where = _where(matrix)
    try:
        match = matrix.match(recipe.genes, recipe.gene_names)
        _try_conversion(matrix, recipe.units)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    require_coverage(match, min_coverage, where)
    return match


def missing_table(
    matrix: Matrix, recipes: Mapping[str, Recipe], *, min_coverage: float = MIN_COVERAGE
) -> str:
    """Genes that a matrix lacks: `missing_genes.csv` of a folder, columns model and gene.

    Parameters
    ----------
    matrix : Matrix
    recipes : mapping of str to Recipe
        By the name of the model that they belong to.
    min_coverage : float
        Smallest share of a recipe's genes that must be found.

    Raises
    ------
    InputError
        As `align`.
    """
    rows = [
        (name, gene)
        for name, recipe in recipes.items()
        for gene in match_recipe(matrix, recipe, min_coverage=min_coverage).missing
    ]
    return pd.DataFrame(rows, columns=["model", "gene"]).to_csv(index=False)


def missing_uns(missing: Sequence[str], caution: str = "") -> dict[str, Any]:
    """The same for a file, as an entry of its `uns`; empty where nothing is to be said.

    Parameters
    ----------
    missing : sequence of str
        Genes that were not there.
    caution : str
        From `unknown_units`.
    """
    entry: dict[str, Any] = {"missing_genes": np.array(missing, dtype=object)} if missing else {}
    entry |= {"caution": caution} if caution else {}
    return {"m1pipe": entry} if entry else {}


def name_columns(var: pd.DataFrame) -> pd.DataFrame:
    """Columns of var, shape (n_genes, n_columns), that hold other names of the genes, as text."""
    kept = [column for column in NAME_COLUMNS if column in var.columns]
    return var[kept].astype(object).where(var[kept].notna(), "").astype(str)


def _try_conversion(matrix: Matrix, want: Units) -> None:
    """Raise what a conversion of values would raise; where units are unknown, by their looks.

    Raises
    ------
    InputError
        If there is no way, or values of unknown units look as if they were never logged where
        logarithms are wanted.
    """
    have = matrix.units
    if have.name == "unknown" and want.is_log and matrix.n_samples and matrix.n_genes:
        raw = looks_other(matrix.some_rows(), want)
        if raw:
            raise InputError(
                f"expected {want}; found values of unknown units that look like {raw}: say what "
                "they are, m1pipe convert --units"
            )
    convert_units(np.ones((1, 1), dtype=np.float32), have, want)


def unknown_units(matrix: Matrix, want: Units) -> str:
    """What is said, where it lasts, of values of unknown units; empty where units are known."""
    if matrix.units.name != "unknown" or want.name == "unknown":
        return ""
    return (
        f"the units of {_where(matrix)} are not recorded: its values were taken as {want}. If they "
        "are anything else the results mean nothing: say the units, m1pipe convert --units."
    )


def _where(matrix: Matrix) -> str:
    return str(matrix.path or "data")
