"""Disjoint halves of every study's samples: one for fold changes, one for what they predict."""

import pandas as pd

from m1pipe.contrasts.config import ContrastsConfig
from m1pipe.contrasts.design import Skipped
from m1pipe.contrasts.differential import Contrasts, compute_contrasts
from m1pipe.data.matrix import Matrix
from m1pipe.errors import InputError


def compute_halves(
    matrix: Matrix, design: pd.DataFrame | None, config: ContrastsConfig
) -> tuple[Contrasts, Contrasts]:
    """Contrasts of two disjoint halves of the samples, the same ones in the same order.

    Parameters
    ----------
    matrix : Matrix
        Raw counts.
    design : DataFrame, shape (n_samples, n_columns), or None
        As for `compute_contrasts`.
    config : ContrastsConfig

    Returns
    -------
    first, second : Contrasts
        No sample of a contrast (nor subject, with `config.subject`) is in both. A contrast that
        only one half has is among the skipped ones.

    Raises
    ------
    InputError
        If no contrast has samples enough in both halves.
    """
    first, second = (compute_contrasts(matrix, design, config, half=half) for half in (1, 2))
    shared = [name for name in first.obs.index if name in second.obs.index]
    if not shared:
        raise InputError(
            f"contrasts: expected one with {config.min_samples} samples a side in each half; found "
            "none: lower --min-samples, or leave out --held-out"
        )
    return _only(first, shared), _only(second, shared)


def _only(found: Contrasts, names: list[str]) -> Contrasts:
    """Some of the contrasts; the others are skipped."""
    rows = found.obs.index.get_indexer(pd.Index(names))
    others = found.obs.index.drop(names)
    lost = [Skipped(str(name), "not in the other half") for name in others]
    return Contrasts(
        found.obs.iloc[rows],
        found.lfc[rows],
        found.statistic[rows],
        found.padj[rows],
        [*found.skipped, *lost],
    )
