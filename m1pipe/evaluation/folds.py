"""Folds of a comparison: how they are dealt, and one split as every model sees it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from m1pipe.config import CrossvalConfig
from m1pipe.data.labels import as_text, read_column
from m1pipe.data.splits import leave_out_folds, make_folds
from m1pipe.data.targets import OwnGenes, Targets, name_classes
from m1pipe.encoder.missing import fill_missing, level_means
from m1pipe.errors import InputError, counted, did_you_mean

_BLOCK_CELLS = 2**24


@dataclass(frozen=True, eq=False)
class Fold:
    """One split, as every model sees it.

    Attributes
    ----------
    targets : Targets
        Of all samples; those of the test rows are only ever compared with.
    train, test : ndarray of int64
        Rows to fit on and rows to predict.
    strata, groups : ndarray, shape (n_samples,), or None
        For inner splits.
    order : ndarray of int, shape (n_samples,), or None
        Fold of every sample, over which the heads' row order is spread.
    seed : int
        The same for every model.
    order_seed : int
        Of the order in which all folds of a repeat go through the rows.
    own : OwnGenes or None
        Levels of the targets' own genes, of all samples.
    """

    targets: Targets
    train: np.ndarray
    test: np.ndarray
    strata: np.ndarray | None
    groups: np.ndarray | None
    order: np.ndarray | None
    seed: int
    order_seed: int
    own: OwnGenes | None = None


def train_mean(fold: Fold) -> np.ndarray:
    """Mean of every target over the training rows; class frequencies for classes.

    Returns
    -------
    ndarray of float64, shape (n_targets,) or (n_classes,)
        A class or label that no training row has, or that all have, counts half a row, as in the
        other models.
    """
    values, train = fold.targets.values, fold.train
    if fold.targets.is_classes:
        counts = np.bincount(values[train], minlength=len(fold.targets.names)).astype(np.float64)
        counts[counts == 0] = 0.5
        return np.asarray(counts / counts.sum())
    if fold.targets.kind == "multilabel":
        share = values[train].mean(axis=0, dtype=np.float64)
        without = (share == 0) | (share == 1)
        labelled: np.ndarray = np.where(
            without, (share * train.size + 0.5) / (train.size + 1), share
        )
        return labelled
    width = max(1, _BLOCK_CELLS // max(train.size, 1))  # nothing of their size is held twice
    starts = range(0, values.shape[1], width)
    parts = [values[:, s : s + width][train].mean(axis=0, dtype=np.float64) for s in starts]
    return np.concatenate(parts)


def fill_fold(X: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Levels with those that are missing at their gene's mean over the training rows.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_genes)
        NaN where a level is missing.
    train : ndarray of int, shape (n_train,)
        No other row has a part in what is filled in.

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)
        X itself where nothing is missing. A gene without a level in any training row is 0 in all
        rows: nothing can be learned of it.
    """
    if not np.isnan(X).any():
        return X
    seen = X[train]
    filled = fill_missing(X, level_means(seen))
    filled[:, np.isnan(seen).all(axis=0)] = 0
    return filled


def fill_own(own: OwnGenes | None, train: np.ndarray) -> OwnGenes | None:
    """The targets' own genes as `fill_fold` leaves genes; None where there are none.

    Parameters
    ----------
    own : OwnGenes or None
    train : ndarray of int, shape (n_train,)
    """
    return None if own is None else replace(own, values=fill_fold(own.values, train))


def deal_folds(
    obs: pd.DataFrame,
    targets: Targets,
    groups: np.ndarray | None,
    config: CrossvalConfig,
    label: str | None,
    *,
    whole: bool = False,
) -> tuple[np.ndarray | None, np.ndarray]:
    """Strata of the samples, and their test fold in every repeat, or the left-out strata in turn.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    targets : Targets
    groups : ndarray, shape (n_samples,), or None
    config : CrossvalConfig
    label : str or None
        Column that is predicted.
    whole : bool
        No sample is tested.

    Returns
    -------
    strata : ndarray of object, shape (n_samples,), or None
    folds : ndarray of int64, shape (n_repeats, n_samples)
        -1 for a sample that is not tested.

    Raises
    ------
    InputError
        If a column cannot be used, or a number of training rows is more than a fold has.
    """
    strata, is_label = _find_strata(obs, targets, config.stratify, label)
    if whole:
        return strata, np.full((1, targets.n), -1)
    if config.leave_out is not None:
        folds = leave_out_folds(_left_out_strata(obs, config.leave_out, label))
    else:
        folds = make_folds(
            config.folds,
            config.repeats,
            config.seed,
            strata=strata,
            groups=groups,
            n=targets.n,
            strata_is_label=is_label,
        )
    _check_sizes(config.train_sizes, folds)
    return strata, folds


def _left_out_strata(obs: pd.DataFrame, column: str, label: str | None) -> np.ndarray:
    """Values of the column whose strata are left out in turn.

    Raises
    ------
    InputError
        If there is no such column, it is the label, or a sample has no entry.
    """
    if column not in obs.columns or column == label:
        others = [str(name) for name in obs.columns if name != label]
        raise InputError(
            f"--leave-out-strata: expected a column of obs that is not the label "
            f"({', '.join(others) or 'none'}); found {column!r}{did_you_mean(column, others)}"
        )
    read = read_column(obs, column, "--leave-out-strata")
    absent = read.isna()
    if absent.any():
        raise InputError(
            f"--leave-out-strata: expected an entry of every sample in {column!r}; "
            f"{int(absent.sum())} have none, such as {obs.index[absent][0]}: leave them out of X"
        )
    return as_text(read)


def _check_sizes(sizes: Sequence[int], folds: np.ndarray) -> None:
    """Refuse a number of training rows that some fold does not have.

    Raises
    ------
    InputError
        With the largest size there can be.
    """
    counts = [int((row != k).sum()) for row in folds for k in np.unique(row)]
    if sizes and max(sizes) >= min(counts):
        raise InputError(
            f"--train-sizes: expected sizes below the {min(counts)} training rows of the smallest "
            f"training fold; found {max(sizes)}"
        )


def _find_strata(
    obs: pd.DataFrame, targets: Targets, column: str | None, label: str | None
) -> tuple[np.ndarray | None, bool]:
    """What the folds are stratified by, and whether that is the label itself.

    Raises
    ------
    InputError
        If there is no such column, or it holds as many values as samples.
    """
    if column is None or column == label:
        if targets.is_classes:
            return name_classes(targets), True
        if column is None:
            return None, False
    read = read_column(obs, column, "stratify")
    values = as_text(read)
    values[read.isna().to_numpy()] = "missing"
    if len(set(values)) == len(values):
        raise InputError(
            f"stratify: expected a column with few values; found a value of its own for each of "
            f"{counted(len(values), 'sample')} in {column!r}"
        )
    return values, False
