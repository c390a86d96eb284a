"""Models compared pair by pair on the same folds: one tidy table of tests.

The headline is Nadeau & Bengio's corrected t over folds; Holm's correction is taken over a family
of pairs that is declared beforehand and over nothing else. Losses pair by sample id or not at all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from m1pipe.errors import InputError
from m1pipe.evaluation.compared_models import Pair, augmented_pairs, parse_model, transfer_pairs
from m1pipe.evaluation.significance import (
    TestResult,
    bootstrap_interval,
    clustered_t,
    group_means,
    holm,
    nadeau_bengio,
    paired_t,
    relative_difference,
    sign_flip,
    sign_flip_interval,
    wilcoxon,
)

COLUMNS = (
    "model_a",
    "model_b",
    "metric",
    "test",
    "difference",
    "ci_low",
    "ci_high",
    "statistic",
    "p",
    "p_holm",
    "effect",
    "n_independent",
)

EFFECTS = {
    "nadeau_bengio": "difference as a share of model_b's loss",
    "strata_flip": "difference as a share of model_b's loss",
    "paired_t": "d_z over samples",
    "clustered_t": "d_z over donors",
    "wilcoxon": "matched-pairs rank-biserial correlation",
    "sign_flip": "d_z over samples, or donors where they are known",
    "bootstrap": "d_z over samples, or donors where they are known",
}
"""What the column `effect` holds, by test; per-fold t-tests as `paired_t`."""


def declared_family(
    encoders: Sequence[str], models: Sequence[str], linear_rival: str | None
) -> list[Pair]:
    """Pairs of the declared family: each encoder against raw, mean (or prior) and linear.

    And each model with synthetic samples against the one without them and its controls, and those
    with a score of other studies' labels (`m1pipe.evaluation.compared_models.transfer_pairs`).

    Parameters
    ----------
    encoders : sequence of str
        Their names.
    models : sequence of str
        All that were run; a rival that was not is left out.
    linear_rival : str or None
        The linear model declared beforehand.
    """
    rivals = [r for r in ("raw", "mean", "prior", linear_rival) if r is not None and r in models]
    pairs = [(e, r) for e in encoders for r in dict.fromkeys(rivals) if e != r]
    parsed = [parse_model(name, encoders) for name in models]
    linear = linear_rival if linear_rival in models else None
    return [*pairs, *augmented_pairs(parsed), *transfer_pairs(parsed, linear)]


def compare(
    losses: Mapping[str, np.ndarray],
    folds: np.ndarray,
    *,
    pairs: Iterable[Pair] = (),
    family: Iterable[Pair] = (),
    groups: ArrayLike | None = None,
    metric: str = "mse",
    headline: str = "nadeau_bengio",
    seed: int = 0,
) -> pd.DataFrame:
    """Test every pair of models in every way, and correct the headline over the family.

    Parameters
    ----------
    losses : mapping of str to ndarray, shape (n_repeats, n_samples)
        Per-sample out-of-fold loss of each model, all in one order of samples.
    folds : ndarray of int, shape (n_repeats, n_samples)
        The test fold of each sample, from 0.
    pairs : iterable of (str, str)
        Pairs (a, b) that are shown, without a claim where they are not in the family.
    family : iterable of (str, str)
        The declared family; see `declared_family`. Its pairs are shown too.
    groups : array_like, shape (n_samples,), optional
        Donors. Where given they are the unit of every test but those named paired_t.
    metric : str
        Name of the loss, for the column.
    headline : str
        The test that Holm's correction is taken over: "nadeau_bengio", or "strata_flip" where
        every fold is a stratum that was left out.
    seed : int
        Of the drawn sign patterns and bootstrap samples.

    Returns
    -------
    DataFrame, columns `COLUMNS`
        `difference` is the loss of a minus that of b. Tests: nadeau_bengio; paired_t (every
        sample once, averaged over repeats); paired_t_repeat0_fold0, ...; clustered_t (with
        groups); wilcoxon; sign_flip; bootstrap (an interval, no p). `p_holm` is NaN outside the
        family and for every other test. `effect`: see `EFFECTS`.

    Raises
    ------
    ValueError
        If shapes differ, a loss is not finite, or a pair names an unknown model.
    """
    family = list(dict.fromkeys(family))
    wanted = list(dict.fromkeys([*family, *pairs]))
    _check(losses, folds, wanted)
    rows = [
        {"model_a": a, "model_b": b, "metric": metric, "test": test, **vars(result)}
        for a, b in wanted
        for test, result in _pair_tests(
            losses[a], losses[b], folds, groups=groups, seed=seed, headline=headline
        )
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    declared = pd.MultiIndex.from_frame(table[["model_a", "model_b"]]).isin(family)
    claimed = declared & (table["test"] == headline).to_numpy()
    table["p_holm"] = np.nan
    table.loc[claimed, "p_holm"] = holm(table.loc[claimed, "p"].to_numpy())
    return table


def fold_tests(
    losses: Mapping[str, np.ndarray], folds: np.ndarray, *, pairs: Iterable[Pair]
) -> pd.DataFrame:
    """Per-sample paired t-test inside each test fold: the published Table 1 layout.

    Parameters
    ----------
    losses : mapping of str to ndarray, shape (n_repeats, n_samples)
    folds : ndarray of int, shape (n_repeats, n_samples)
    pairs : iterable of (str, str)

    Returns
    -------
    DataFrame
        Columns model_a, model_b, repeat, fold, n_test, loss_a, loss_b, difference, ci_low,
        ci_high, statistic, p. These p values describe single trained models; they are neither
        averaged nor claimed.
    """
    pairs = list(pairs)
    _check(losses, folds, pairs)
    rows = []
    for a, b in pairs:
        for r, k, here in _each_fold(folds):
            loss_a, loss_b = losses[a][r][here], losses[b][r][here]
            test = paired_t(loss_a - loss_b)
            sizes = (len(loss_a), loss_a.mean(), loss_b.mean())
            interval = (test.difference, test.ci_low, test.ci_high)
            rows.append((a, b, r, k, *sizes, *interval, test.statistic, test.p))
    columns = "model_a model_b repeat fold n_test loss_a loss_b difference ci_low ci_high".split()
    return pd.DataFrame(rows, columns=[*columns, "statistic", "p"])


def compare_tables(
    losses: Mapping[str, pd.DataFrame | pd.Series],
    folds: pd.DataFrame | pd.Series,
    *,
    pairs: Iterable[Pair] | None = None,
    family: Iterable[Pair] = (),
    groups: pd.Series | None = None,
    metric: str = "mse",
) -> pd.DataFrame:
    """`compare` for tables that carry sample ids, in any order.

    Parameters
    ----------
    losses : mapping of str to DataFrame, shape (n_samples, n_repeats), or Series
        Per-sample losses of each model, indexed by sample id, one column a repeat.
    folds : DataFrame, shape (n_samples, n_repeats), or Series
        The test fold of each sample, likewise.
    pairs : iterable of (str, str), optional
        All pairs where None.
    family, metric
        As for `compare`.
    groups : Series, shape (n_samples,), optional
        Donor by sample id.

    Raises
    ------
    InputError
        If a table's sample ids repeat, or are not those of the folds: they are never paired by
        position.
    """
    samples = pd.Index(folds.index)
    _check_ids(samples, samples, "folds")
    arrays = {}
    for name, table in losses.items():
        _check_ids(samples, table.index, f"losses of {name}")
        arrays[name] = _by_repeat(table.loc[samples])
    if groups is not None:
        _check_ids(samples, groups.index, "groups")
        groups = groups.loc[samples]
    wanted = list(combinations(losses, 2)) if pairs is None else pairs
    return compare(
        arrays, _by_repeat(folds), pairs=wanted, family=family, groups=groups, metric=metric
    )


def fold_differences(
    loss_a: np.ndarray, loss_b: np.ndarray, folds: np.ndarray
) -> NDArray[np.float64]:
    """Difference of the mean test losses of every fold, shape (n_repeats * n_folds,).

    Parameters
    ----------
    loss_a, loss_b, folds : ndarray, shape (n_repeats, n_samples)
    """
    d = loss_a - loss_b
    return np.array([d[r][here].mean() for r, _, here in _each_fold(folds)])


def _pair_tests(
    a: np.ndarray,
    b: np.ndarray,
    folds: np.ndarray,
    *,
    groups: ArrayLike | None,
    seed: int,
    headline: str,
) -> Iterator[tuple[str, TestResult]]:
    """Name and result of every test of one pair."""
    d = a.mean(axis=0) - b.mean(axis=0)
    by_fold = fold_differences(a, b, folds)
    share = relative_difference(
        *(fold_differences(loss, np.zeros_like(b), folds) for loss in (a, b))
    )
    if len(by_fold) == 1:
        pass  # an outside set has no folds
    elif headline == "strata_flip":
        flip = sign_flip_interval(by_fold, seed=seed)
        yield "strata_flip", replace(flip, effect=share)
    else:
        corrected = nadeau_bengio(by_fold, n_folds=int(folds.max()) + 1)
        yield "nadeau_bengio", replace(corrected, effect=share)
    yield "paired_t", paired_t(d)
    for r, k, here in _each_fold(folds):
        yield f"paired_t_repeat{r}_fold{k}", paired_t(a[r][here] - b[r][here])
    units = d if groups is None else group_means(d, groups)
    if groups is not None:
        yield "clustered_t", clustered_t(d, groups)
    yield "wilcoxon", wilcoxon(units)
    flipped = sign_flip(units, seed=seed)
    yield "sign_flip", flipped
    low, high = bootstrap_interval(units, seed=seed)
    yield "bootstrap", replace(flipped, ci_low=low, ci_high=high, statistic=np.nan, p=np.nan)


def _each_fold(folds: np.ndarray) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Repeat, fold and the mask of its test samples."""
    for r, row in enumerate(folds):
        for k in np.unique(row):
            yield r, int(k), row == k


def _check(losses: Mapping[str, np.ndarray], folds: np.ndarray, pairs: Iterable[Pair]) -> None:
    """Refuse unknown models, shapes that differ and losses that are not finite."""
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        if name not in losses:
            raise ValueError(f"no losses of {name!r}; models are {', '.join(losses)}")
        if losses[name].shape != folds.shape:
            raise ValueError(f"losses of {name}: expected {folds.shape}: {losses[name].shape}")
        if not np.isfinite(losses[name]).all():
            raise ValueError(f"losses of {name}: expected finite numbers")


def _check_ids(expected: pd.Index, found: pd.Index, what: str) -> None:
    """Refuse ids that repeat or are not the expected ones, in one line that names some."""
    if found.has_duplicates:
        first = found[found.duplicated()][0]
        raise InputError(f"{what}: expected unique sample ids; {first!r} occurs more than once")
    other = [f"{name!r}" for name in [*expected.difference(found), *found.difference(expected)][:3]]
    if other:
        raise InputError(
            f"{what}: expected the {len(expected)} sample ids of the folds; found {len(found)}, "
            f"and not in both: {', '.join(other)}; losses are paired by id, so both need the same"
        )


def _by_repeat(table: pd.DataFrame | pd.Series) -> np.ndarray:
    """Values as (n_repeats, n_samples)."""
    return np.atleast_2d(table.to_numpy().T)
