"""What is put together beside the losses: R2 within strata, curves, targets, labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.evaluation.compare import Pair
from m1pipe.evaluation.effects import relative_difference
from m1pipe.evaluation.per_label import (
    LabelSums,
    add_label_sums,
    calibration_table,
    label_table,
)
from m1pipe.evaluation.per_target import (
    TargetSums,
    add_sums,
    isoform_classes,
    pair_summary,
    r2_summary,
    target_table,
)
from m1pipe.evaluation.significance import TestResult, draws_t, sign_flip_interval

STRATUM_ROW = "stratum_mean"


def add_within(
    scores: pd.DataFrame, losses: Mapping[str, np.ndarray], folds: np.ndarray
) -> pd.DataFrame:
    """Scores with R2 within strata: 1 - loss / loss of the strata's training means.

    Parameters
    ----------
    scores : DataFrame
        Columns model, repeat, fold, metric, value.
    losses : mapping of str to ndarray, shape (n_repeats, n_samples)
        Squared errors of every row; without `stratum_mean` the scores are returned as they are.
    folds : ndarray of int, shape (n_repeats, n_samples)
    """
    if STRATUM_ROW not in losses:
        return scores
    lines = [
        {
            "model": model,
            "repeat": r,
            "fold": int(k),
            "metric": "r2_within",
            "value": -relative_difference(loss[r][row == k], losses[STRATUM_ROW][r][row == k]),
        }
        for model, loss in losses.items()
        for r, row in enumerate(folds)
        for k in np.unique(row)
    ]
    return pd.concat([scores, pd.DataFrame(lines)], ignore_index=True)


def label_curve(parts: Sequence[tuple[int, int, pd.DataFrame]]) -> pd.DataFrame:
    """Scores of every row at every number of training rows, the mean over seeds.

    Parameters
    ----------
    parts : sequence of (int, int, DataFrame)
        Number of training rows of a fold, their draw, and the scores by seed, shape (n_scores,
        n_columns).

    Returns
    -------
    DataFrame
        Columns model, n_train, draw, repeat, fold, metric, value; empty without parts.
    """
    if not parts:
        return pd.DataFrame()
    tables = [scores.assign(n_train=n, draw=draw) for n, draw, scores in parts]
    table = pd.concat(tables, ignore_index=True)
    keys = ["model", "n_train", "draw", "repeat", "fold", "metric"]
    return table.groupby(keys, sort=False)[["value"]].mean().reset_index()


def curve_tests(
    curve: pd.DataFrame,
    pairs: Sequence[Pair],
    *,
    metric: str,
    n_folds: int,
    n_samples: int,
    by_strata: bool,
) -> pd.DataFrame:
    """Each pair at each number of training rows, without a claim.

    Parameters
    ----------
    curve : DataFrame, shape (n_scores, 7)
        From `label_curve`.
    pairs : sequence of (str, str)
    metric : str
        The headline loss.
    n_folds : int
        k of one repeat: the corrected test takes n_test / n_train as 1 / (k - 1) at every size,
        since the ratio of a few labels would leave it no power.
    n_samples : int
    by_strata : bool
        The folds are left-out strata: signs are flipped over them instead.

    Returns
    -------
    DataFrame
        Columns n_train, model_a, model_b, difference, ci_low, ci_high, p, effect (relative).
    """
    if not len(curve):
        return pd.DataFrame()
    loss = curve[curve["metric"] == metric]
    lines = []
    for n_train in sorted(set(loss["n_train"].astype(int))):
        part = loss[loss["n_train"] == n_train]
        wide = {model: by_draw(own) for model, own in part.groupby("model")}
        for a, b in pairs:
            test = test_of_draws(
                wide[a] - wide[b],
                n_train,
                n_folds=n_folds,
                n_samples=n_samples,
                by_strata=by_strata,
            )
            found = {k: getattr(test, k) for k in ("difference", "ci_low", "ci_high", "p")}
            effect = relative_difference(wide[a].ravel(), wide[b].ravel())
            lines.append(
                {"n_train": n_train, "model_a": a, "model_b": b, **found, "effect": effect}
            )
    return pd.DataFrame(lines)


def by_draw(scores: pd.DataFrame) -> np.ndarray:
    """Values of one model, metric and number of training rows, shape (n_folds, n_draws)."""
    table = scores.pivot(index=["repeat", "fold"], columns="draw", values="value")
    found: np.ndarray = table.to_numpy(np.float64)
    return found


def test_of_draws(
    values: np.ndarray, n_train: int, *, n_folds: int, n_samples: int, by_strata: bool
) -> TestResult:
    """The headline test of differences, or the interval of scores, over folds and draws.

    Parameters
    ----------
    values : ndarray, shape (n_folds of all repeats, n_draws)
    n_train, n_folds, n_samples, by_strata
        As for `curve_tests`.
    """
    if by_strata:
        return sign_flip_interval(values.mean(axis=1))
    return draws_t(values, n_folds, n_train, n_samples)


def curve_means(
    curve: pd.DataFrame, metrics: Sequence[str], *, n_folds: int, n_samples: int, by_strata: bool
) -> pd.DataFrame:
    """Mean of every model at every number of training rows, with its interval.

    Parameters
    ----------
    curve : DataFrame, shape (n_scores, 7)
        From `label_curve`.
    metrics : sequence of str
    n_folds, n_samples, by_strata
        As for `curve_tests`.

    Returns
    -------
    DataFrame
        Columns metric, n_train, model, value, ci_low, ci_high, n_draws.
    """
    lines = []
    chosen = curve[curve["metric"].isin(list(metrics))].astype({"n_train": int})
    for (metric, _, model), own in chosen.groupby(["metric", "n_train", "model"], sort=True):
        values, n_train = by_draw(own), int(own["n_train"].iloc[0])
        found = test_of_draws(
            values, n_train, n_folds=n_folds, n_samples=n_samples, by_strata=by_strata
        )
        line = {"metric": metric, "n_train": n_train, "model": model, "value": found.difference}
        line |= {"ci_low": found.ci_low, "ci_high": found.ci_high, "n_draws": values.shape[1]}
        lines.append(line)
    return pd.DataFrame(lines)


def gather_targets(
    names: Sequence[str] | None,
    genes: Sequence[str] | None,
    parts: Sequence[tuple[int, TargetSums | None]],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The view by target, and what it says in short.

    Parameters
    ----------
    names, genes : sequence of str, or None
        Of the targets.
    parts : sequence of (int, TargetSums or None)
        Repeat and sums of every fold.

    Returns
    -------
    table : DataFrame
        From `m1pipe.evaluation.per_target.target_table`; empty where there is none.
    info : dict
        `r2_by_target` (from `r2_summary`, of all rows but the first, the training mean),
        `per_target` (pairs) and `isoforms` (R2 by the number of isoforms), where there are any.
    """
    sums = [(repeat, part) for repeat, part in parts if part is not None]
    if names is None or len(sums) < len(parts):
        return pd.DataFrame(), {}
    every = add_sums([part for _, part in sums])
    once = add_sums([part for repeat, part in sums if repeat == 0])
    table = target_table(names, genes, every, once)
    info: dict[str, Any] = {
        "r2_by_target": r2_summary(table, list(every.sse)[1:]),
        "per_target": pair_summary(table, list(once.pairs)),
    }
    by_kind = isoform_classes(table, every)
    return table, {**info, "isoforms": by_kind} if by_kind else info


def gather_labels(
    names: Sequence[str] | None, parts: Sequence[tuple[int, LabelSums | None]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The view by label, and the calibration of every row; empty where there are no labels.

    Parameters
    ----------
    names : sequence of str, or None
        Of the labels.
    parts : sequence of (int, LabelSums or None)
        Repeat and sums of every fold.
    """
    sums = [(repeat, part) for repeat, part in parts if part is not None]
    if names is None or not sums or len(sums) < len(parts):
        return pd.DataFrame(), pd.DataFrame()
    every = add_label_sums([part for _, part in sums])
    once = add_label_sums([part for repeat, part in sums if repeat == 0])
    return label_table(names, every, once), calibration_table(every)
