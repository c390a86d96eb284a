"""Tidy tables of a cross-validation: folds, losses, the ladder of models, the summary."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.evaluation.result import CrossvalResult
from m1pipe.evaluation.significance import nadeau_bengio


def fold_table(result: CrossvalResult) -> pd.DataFrame:
    """Tidy folds: columns sample, repeat, fold; one row a sample and repeat."""
    n_repeats, n = result.folds.shape
    return pd.DataFrame(
        {
            "sample": np.tile(result.samples, n_repeats),
            "repeat": np.repeat(np.arange(n_repeats), n),
            "fold": result.folds.ravel(),
        }
    )


def loss_table(result: CrossvalResult) -> pd.DataFrame:
    """Per-sample loss averaged over repeats, indexed by sample id, one column a model.

    Returns
    -------
    DataFrame, shape (n_samples, n_models)
        What `m1pipe.evaluation.compare.compare_tables` pairs by id.
    """
    columns = {name: loss.mean(axis=0) for name, loss in result.losses.items()}
    return pd.DataFrame(columns, index=pd.Index(result.samples, name="sample"))


def fold_losses(result: CrossvalResult) -> pd.DataFrame:
    """Mean test loss of every model in every fold: columns model, repeat, fold, n_test, loss."""
    rows = [
        {
            "model": model,
            "repeat": r,
            "fold": k,
            "n_test": int(here.sum()),
            "loss": loss[r][here].mean(),
        }
        for model, loss in result.losses.items()
        for r in range(result.n_repeats)
        for k in np.unique(result.folds[r])
        for here in [result.folds[r] == k]
    ]
    return pd.DataFrame(rows, columns=["model", "repeat", "fold", "n_test", "loss"])


def stratum_losses(result: CrossvalResult) -> pd.DataFrame:
    """Mean loss of every model in every stratum.

    Returns
    -------
    DataFrame
        Columns stratum, n (samples), and one a model; the most frequent stratum first. Empty where
        strata are not known.
    """
    if result.strata is None:
        return pd.DataFrame()
    table = loss_table(result).groupby(np.asarray(result.strata), sort=True).mean()
    counts = pd.Series(result.strata).value_counts()
    table.insert(0, "n", counts.reindex(table.index))
    table = table.rename_axis("stratum").reset_index()
    return table.sort_values("n", ascending=False, kind="stable", ignore_index=True)


def ladder_table(result: CrossvalResult) -> pd.DataFrame:
    """One row a model, best first: its loss, and how it stands to the yardstick.

    Returns
    -------
    DataFrame
        Indexed by model. `loss` is the mean over folds, as in the headline test; `share` that
        divided by the first model's (the training mean or the prior); `skill` is 1 - share;
        `fold_sd` the standard deviation over folds; `n_seeds` and `seed_sd` the number of encoder
        seeds and the standard deviation of the loss between them (NaN below two seeds).
    """
    by_fold = fold_losses(result).groupby("model", sort=False)["loss"]
    table = pd.DataFrame({"loss": by_fold.mean(), "fold_sd": by_fold.std()})
    yardstick = float(table["loss"].iloc[0]) if len(table) else np.nan
    table["share"] = table["loss"] / yardstick if yardstick > 0 else np.nan
    table["skill"] = 1 - table["share"]
    table = table[["loss", "share", "skill", "fold_sd"]]
    seeds = {m: v.mean(axis=(1, 2)) for m, v in result.seed_losses.items()}
    table["n_seeds"] = [len(seeds[m]) if m in seeds else 1 for m in table.index]
    table["seed_sd"] = [
        float(np.std(seeds[m], ddof=1)) if m in seeds and len(seeds[m]) > 1 else np.nan
        for m in table.index
    ]
    return table.rename_axis("model").sort_values("loss", kind="stable")


def score_intervals(result: CrossvalResult) -> pd.DataFrame:
    """Every score of every model with its interval, and its difference from the linear rival's.

    Returns
    -------
    DataFrame
        Columns model, metric, value, ci_low, ci_high, and difference, difference_low,
        difference_high against the linear row of the declared family (NaN without one). Intervals
        are 95 % and of the corrected resampled t (`nadeau_bengio`), without a claim; empty where
        strata were left out in turn.
    """
    if result.info.get("leave_out") or not len(result.scores):
        return pd.DataFrame()
    wide = result.scores.pivot_table(
        index=["repeat", "fold"], columns=["metric", "model"], values="value", dropna=False
    )
    rival = result.info.get("linear_rival")
    lines = []
    for metric in dict.fromkeys(result.scores["metric"]):
        for model in result.models:
            line = {"model": model, "metric": metric}
            line |= _interval(wide[metric, model], ("value", "ci_low", "ci_high"), result.n_folds)
            if rival in result.models and model != rival:
                names = ("difference", "difference_low", "difference_high")
                line |= _interval(wide[metric, model] - wide[metric, rival], names, result.n_folds)
            lines.append(line)
    return pd.DataFrame(lines)


def _interval(values: pd.Series, names: tuple[str, str, str], n_folds: int) -> dict[str, float]:
    """Mean over folds and its interval; NaN where a fold has no number."""
    if not np.isfinite(values.to_numpy(float)).all():
        return dict.fromkeys(names, np.nan)
    found = nadeau_bengio(values.to_numpy(float), n_folds)
    return dict(zip(names, (found.difference, found.ci_low, found.ci_high), strict=True))


def summary_dict(result: CrossvalResult) -> dict[str, Any]:
    """Plain summary ready for JSON: the content of `summary.json`.

    Returns
    -------
    dict
        {"models": {name: {metric: mean, ..., "folds": [...]}}, "comparisons": [...],
        "warnings": [...], "info": {...}}; NaN and infinity become None.
    """
    by_fold = fold_losses(result)
    models: dict[str, Any] = {}
    for model, row in result.to_frame().iterrows():
        models[str(model)] = {str(k): v for k, v in row.items()}
        models[str(model)]["folds"] = by_fold.loc[by_fold["model"] == model, "loss"].tolist()
    summary = {
        "models": models,
        "comparisons": result.comparisons.to_dict(orient="records"),
        "warnings": [
            {"name": a.name, "severity": a.severity, "text": a.text} for a in result.alarms
        ],
        "info": result.info,
    }
    found: dict[str, Any] = to_plain(summary)
    return found


def to_plain(value: Any) -> Any:
    """Copy of nested results as what JSON knows: lists, dicts, numbers; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
