"""Folds and inner splits: disjoint, covering, reproducible, and never through a group.

The splitters are scikit-learn's. Labels and groups enter as codes in order of first appearance,
so that renaming them changes nothing.
"""

import warnings

import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.errors import InputError, M1Warning, counted


def make_folds(
    n_folds: int,
    repeats: int,
    seed: int,
    *,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    n: int | None = None,
    strata_is_label: bool = False,
) -> np.ndarray:
    """Fold of every sample, for repeated k-fold cross-validation.

    Parameters
    ----------
    n_folds, repeats : int
        Folds, and how often the samples are dealt anew.
    seed : int
        Of the shuffles; each repeat has its own.
    strata : ndarray, shape (n_samples,), optional
        Each fold gets its share of each stratum, as far as groups allow.
    groups : ndarray, shape (n_samples,), optional
        Samples of one group (a donor, say) share a fold.
    n : int, optional
        Number of samples, where neither strata nor groups are given.
    strata_is_label : bool
        The strata are the classes to predict: one smaller than the folds is refused, not warned
        about.

    Returns
    -------
    ndarray of int64, shape (repeats, n_samples)
        Values 0 to n_folds - 1; every fold has at least one sample.

    Raises
    ------
    InputError
        If there are fewer samples, groups or samples of a class than folds.
    """
    n = _count_samples(strata, groups, n)
    if n < n_folds:
        raise InputError(
            f"folds: expected at least as many samples as folds; found {n} samples for {n_folds} "
            "folds: lower --folds"
        )
    strata_codes = None if strata is None else _codes(strata)
    group_codes = None if groups is None else _codes(groups)
    n_groups = n if group_codes is None else int(group_codes.max()) + 1
    if n_groups < n_folds:
        raise InputError(
            f"folds: expected at least as many groups as folds; found {n_groups} groups for "
            f"{n_folds} folds: lower --folds, choose another --group, or say --group none where "
            "every sample stands for itself"
        )
    if strata is not None:
        _check_strata(strata, n_folds, strata_is_label)
        _check_label_groups(strata, group_codes, strata_is_label)
    states = [seeds.derived(seed, r) for r in range(repeats)]
    return np.stack([_deal(n, n_folds, state, strata_codes, group_codes) for state in states])


def inner_split(
    rows: np.ndarray,
    fraction: float,
    seed: int,
    *,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Part of the training rows set aside for early stopping.

    Parameters
    ----------
    rows : ndarray of int, shape (n_rows,)
        Training rows, as indices into all samples.
    fraction : float
        Share to set aside, in (0, 1); with groups it is met as closely as they allow.
    seed : int
        Of the draw.
    strata, groups : ndarray, shape (n_samples,), optional
        Of all samples: `rows` picks from them. Strata are kept in proportion where they can be; a
        stratum's only row stays in training. A group is never on both sides.

    Returns
    -------
    train_rows, val_rows : ndarray of int64
        Disjoint, together `rows`, each in the order of `rows` and with at least one row.

    Raises
    ------
    InputError
        If there are fewer than two rows, or than two groups.
    """
    rows = np.asarray(rows, dtype=np.int64)
    strata_codes = None if strata is None else _codes(np.asarray(strata)[rows])
    group_codes = None if groups is None else _codes(np.asarray(groups)[rows])
    units = rows.size if group_codes is None else int(group_codes.max(initial=-1)) + 1
    if units < 2:
        raise InputError(
            f"validation: expected at least two {'rows' if groups is None else 'groups'} to hold "
            f"one out for early stopping; found {units}: give more samples or set the validation "
            "share to 0"
        )
    n_val = min(max(round(fraction * rows.size), 1), rows.size - 1)
    if group_codes is None:
        held_out = _draw_rows(n_val, _generator(seed), strata_codes, rows.size)
    else:
        held_out = _draw_groups(n_val, seed, strata_codes, group_codes)
    return rows[~held_out], rows[held_out]


def leave_out_folds(strata: np.ndarray) -> np.ndarray:
    """Folds that test one stratum each, in the order of the strata's names.

    Parameters
    ----------
    strata : ndarray of str, shape (n_samples,)

    Returns
    -------
    ndarray of int64, shape (1, n_samples)

    Raises
    ------
    InputError
        If there are fewer than two strata.
    """
    names, folds = np.unique(np.asarray(strata).astype(str), return_inverse=True)
    if names.size < 2:
        raise InputError(f"--leave-out-strata: expected at least two strata; found {names.size}")
    return folds.astype(np.int64)[None]


def draw_subset(
    rows: np.ndarray,
    size: int,
    seed: int,
    *,
    strata: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> np.ndarray:
    """Some of the training rows, smaller sets inside larger ones.

    Parameters
    ----------
    rows : ndarray of int, shape (n_rows,)
        Training rows, as indices into all samples.
    size : int
        How many; at most `n_rows`.
    seed : int
        Of the draw; sets of one seed are nested.
    strata : ndarray, shape (n_samples,), optional
        Of all samples. Every stratum gets one row before any gets two, where there is room; beyond
        that each gets its share.
    classes : ndarray, shape (n_samples,), optional
        What is predicted, of all samples. Before all else every class gets one row, and then every
        class a second, where there is room and it has one.

    Returns
    -------
    ndarray of int64, shape (size,)
        In the order of `rows`.
    """
    rows = np.asarray(rows, dtype=np.int64)
    generator = _generator(seed)
    codes = np.zeros(rows.size, dtype=np.int64) if strata is None else _codes(strata[rows])
    place = np.empty(rows.size)
    for code in range(int(codes.max(initial=-1)) + 1):
        own = generator.permutation(np.flatnonzero(codes == code))
        place[own] = (np.arange(own.size) + generator.random()) / own.size
        place[own[0]] -= 1
    if classes is not None:
        _put_classes_first(place, _codes(np.asarray(classes)[rows]))
    chosen = np.argsort(place, kind="stable")[:size]
    return rows[np.sort(chosen)]


def _put_classes_first(place: np.ndarray, codes: np.ndarray) -> None:
    """Move the first row of every class before all others, and its second behind these."""
    order = np.argsort(place, kind="stable")
    for code in range(int(codes.max(initial=-1)) + 1):
        for row, shift in zip(order[codes[order] == code], (4, 2), strict=False):
            place[row] -= shift


def _count_samples(strata: np.ndarray | None, groups: np.ndarray | None, n: int | None) -> int:
    lengths = {len(a) for a in (strata, groups) if a is not None} | (
        {n} if n is not None else set()
    )
    if len(lengths) != 1:
        raise ValueError(f"folds: expected one number of samples; found {sorted(lengths)}")
    return lengths.pop()


def _codes(values: np.ndarray) -> np.ndarray:
    """Integer codes in order of first appearance; a missing value is a value of its own."""
    codes, _ = pd.factorize(np.asarray(values, dtype=object), use_na_sentinel=False)
    return codes.astype(np.int64)


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))


def _check_strata(strata: np.ndarray, n_folds: int, is_label: bool) -> None:
    counts = pd.Series(np.asarray(strata, dtype=object)).value_counts(dropna=False)
    small = counts[counts < n_folds]
    if small.empty:
        return
    named = ", ".join(f"{name} ({count})" for name, count in list(small.items())[:5])
    if is_label:
        raise InputError(
            f"folds: expected at least {n_folds} samples of every class; found {named}: "
            + ("lower --folds, or " if small.min() > 1 else "")
            + "leave the class out of X (m1pipe convert --where 'COLUMN != \"CLASS\"')"
        )
    warnings.warn(
        f"{counted(small.size, 'stratum has', 'strata have')} fewer samples than the {n_folds} "
        "folds, so that some folds "
        f"lack them: {named}",
        M1Warning,
        stacklevel=3,
    )


def _check_label_groups(strata: np.ndarray, group_codes: np.ndarray | None, is_label: bool) -> None:
    """Warn where a class sits in one group: it is never both trained on and tested."""
    if group_codes is None or not is_label:
        return
    per_class = pd.Series(group_codes).groupby(np.asarray(strata, dtype=object)).nunique()
    lonely = [str(name) for name in per_class[per_class < 2].index]
    if lonely:
        warnings.warn(
            f"all samples of {', '.join(lonely)} are in one group: the fold that tests them has "
            "none to train on",
            M1Warning,
            stacklevel=3,
        )


def _deal(
    n: int, n_folds: int, state: int, strata: np.ndarray | None, groups: np.ndarray | None
) -> np.ndarray:
    """Fold of each of n samples, from codes."""
    from sklearn.model_selection import (  # a tenth of a second that no encoder needs
        GroupKFold,
        KFold,
        StratifiedGroupKFold,
        StratifiedKFold,
    )

    if strata is not None and np.bincount(strata).max() < n_folds:
        strata = None  # every stratum is smaller than the folds: there is nothing to balance
    options = {"n_splits": n_folds, "shuffle": True, "random_state": state}
    if groups is not None:
        splitter = (GroupKFold if strata is None else StratifiedGroupKFold)(**options)
    else:
        splitter = (KFold if strata is None else StratifiedKFold)(**options)
    folds = np.empty(n, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for fold, (_, test) in enumerate(splitter.split(np.zeros(n), strata, groups)):
            folds[test] = fold
    if strata is not None and np.unique(folds).size < n_folds:
        return _deal(n, n_folds, state, None, groups)  # a fold went empty: groups come first
    return folds


def _draw_rows(
    n_val: int, generator: np.random.Generator, strata: np.ndarray | None, n: int
) -> np.ndarray:
    """Mask of n_val rows, from each stratum its share up to rounding."""
    if strata is None:
        strata = np.zeros(n, dtype=np.int64)
    sizes = np.bincount(strata)
    place = np.empty(n)
    for stratum, size in enumerate(sizes):
        members = generator.permutation(np.flatnonzero(strata == stratum))
        place[members] = (np.arange(size) + generator.random()) / size + (size == 1)
    mask = np.zeros(n, dtype=bool)
    mask[np.argsort(place, kind="stable")[:n_val]] = True
    return mask


def _draw_groups(
    n_val: int, seed: int, strata: np.ndarray | None, groups: np.ndarray
) -> np.ndarray:
    """Mask of whole groups that hold about n_val rows, never all of them."""
    n_groups = int(groups.max()) + 1
    n_folds = round(groups.size / n_val)
    if strata is not None and 2 <= n_folds <= n_groups:
        folds = _deal(groups.size, n_folds, seeds.derived(seed, 0), strata, groups)
        return np.asarray(folds == 0)
    order = _generator(seed).permutation(n_groups)
    reached = np.cumsum(np.bincount(groups)[order])
    n_chosen = int(np.argmin(np.abs(reached - n_val))) + 1
    return np.isin(groups, order[: min(n_chosen, n_groups - 1)])
