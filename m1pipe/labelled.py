"""Labelled samples that a model can be fitted to: genes, targets, strata and groups, paired."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.config import FitConfig
from m1pipe.console import log
from m1pipe.data.labels import as_text, read_column
from m1pipe.data.matrix import Matrix
from m1pipe.data.recipe import Aligned, Recipe, align, whole_recipe
from m1pipe.data.splits import resolve_groups
from m1pipe.data.targets import OwnGenes, Targets, load_targets, own_columns
from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.missing import fill_missing, level_means
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix


@dataclass(frozen=True, eq=False)
class Labelled:
    """Samples that a model can be fitted to.

    Attributes
    ----------
    aligned : Aligned
        Their file, in the genes and units of the recipe.
    rows : ndarray of int64, shape (n_samples,)
        Rows of it that have a target.
    targets : Targets
        Of those rows.
    strata, groups : ndarray, shape (n_samples,), or None
        Of those rows, for inner splits.
    encoder : Encoder or None
    """

    aligned: Aligned
    rows: np.ndarray
    targets: Targets
    strata: np.ndarray | None
    groups: np.ndarray | None
    encoder: Encoder | None

    def genes(self) -> np.ndarray:
        """Levels of the recipe's genes, missing ones at their mean, shape (n_samples, n_genes)."""
        return fill_missing(self.aligned.take(self.rows), self.aligned.recipe.gene_means)


def load_labelled(
    x: Any,
    config: FitConfig,
    *,
    y: Any = None,
    encoder: Encoder | str | os.PathLike[str] | None = None,
) -> Labelled:
    """Open what a model is to be fitted to; the parameters are those of `fit_predictor`.

    Raises
    ------
    InputError
        If nothing or both of `y` and the label are given, or the files do not fit together.
    """
    matrix = open_matrix(x)
    if isinstance(encoder, str | os.PathLike):
        encoder = load_encoder(encoder)
    levels = None if y is None else open_matrix(y)
    try:
        rows, targets, dropped = load_targets(
            matrix, y=levels, label=config.label, targets=config.targets
        )
    finally:
        if levels is not None and levels is not y:
            levels.close()
    for reason, n in dropped.items():
        log.info("left out: %d %s", n, reason)
    recipe = _gene_recipe(matrix, rows) if encoder is None else encoder.recipe
    groups = resolve_groups(matrix.obs, config.group)
    keeps = encoder is None or not encoder.module.of_counts
    return Labelled(
        aligned=align(matrix, recipe, min_coverage=config.min_coverage, keep_missing=keeps),
        rows=rows,
        targets=targets,
        strata=_strata(matrix.obs.iloc[rows], targets, config),
        groups=None if groups is None else groups[rows],
        encoder=encoder,
    )


def own_genes(data: Labelled) -> tuple[np.ndarray, OwnGenes]:
    """The recipe's genes that targets belong to, and their levels.

    Parameters
    ----------
    data : Labelled

    Returns
    -------
    used : ndarray of int64, shape (n_own,)
        Places of the genes in the recipe.
    own : OwnGenes

    Raises
    ------
    InputError
        If the targets name no gene of the recipe.
    """
    recipe, genes = data.aligned.recipe, data.targets.genes
    columns = (
        np.array([-1]) if genes is None else own_columns(genes, recipe.genes, recipe.gene_names)
    )
    if not (columns >= 0).any():
        raise InputError(
            "head: own_gene expects a column gene_id of Y's annotations that names genes of the "
            "model; found none: add it (m1pipe convert --var), or use --head plain"
        )
    used, place = np.unique(columns[columns >= 0], return_inverse=True)
    column = np.full(columns.size, -1, dtype=np.int64)
    column[columns >= 0] = place
    return used, OwnGenes(np.ascontiguousarray(data.genes()[:, used]), column)


def _gene_recipe(matrix: Matrix, rows: np.ndarray) -> Recipe:
    """Recipe of a model that takes the genes as they are; a gene without a level has mean 0."""
    return whole_recipe(matrix, rows, level_means(matrix.take(rows)))


def _strata(obs: pd.DataFrame, targets: Targets, config: FitConfig) -> np.ndarray | None:
    """What the inner split keeps in proportion: the named column, or the classes."""
    if config.stratify is None:
        return targets.values if targets.is_classes else None
    return as_text(read_column(obs, config.stratify, "stratify"))
