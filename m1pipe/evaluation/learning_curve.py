"""Learning curves: scores by number of training rows, with their tests and intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from m1pipe.evaluation.compared_models import Pair
from m1pipe.evaluation.significance import (
    TestResult,
    draws_t,
    relative_difference,
    sign_flip_interval,
)


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
    return np.asarray(table.to_numpy(np.float64))


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
