"""What a cross-validation returns, and its tidy tables: losses, folds, scores, summary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.errors import Alarm, counted
from m1pipe.evaluation.significance import nadeau_bengio


@dataclass(frozen=True, repr=False)
class CrossvalResult:
    """Out-of-fold losses and scores of every model on the same folds.

    Attributes
    ----------
    samples : ndarray of str, shape (n_samples,)
        Sample ids, unique; the order of every per-sample array here.
    folds : ndarray of int, shape (n_repeats, n_samples)
        The fold that each sample was tested in, from 0.
    losses : dict of str to ndarray, shape (n_repeats, n_samples)
        Per-sample out-of-fold loss of each model; for encoders with several seeds the mean over
        seeds. The first model is the yardstick (the training mean, or the prior).
    seed_losses : dict of str to ndarray, shape (n_seeds, n_repeats, n_samples)
        The same before averaging, for the models that have several seeds.
    scores : DataFrame
        Columns model, repeat, fold, metric, value.
    seed_scores : DataFrame
        The same with a column seed, for the models that have several seeds.
    comparisons : DataFrame
        As returned by `m1pipe.evaluation.compare.compare`.
    alarms : list of Alarm
        What to know before believing the numbers.
    strata : ndarray of str, shape (n_samples,), or None
        Stratum of every sample, where strata are known.
    curve : DataFrame
        Columns model, n_train, draw, repeat, fold, metric, value; empty without `--train-sizes`.
    curve_tests : DataFrame
        The declared pairs at each number of training rows.
    targets : DataFrame
        One row a target, from `m1pipe.evaluation.per_target.target_table`; empty for classes.
    labels : DataFrame
        One row a label, from `m1pipe.evaluation.per_label.label_table`; empty but for multilabel.
    calibration : DataFrame
        One row a model and bin of probability; empty but for multilabel.
    info : dict
        Plain facts for the report: kind, metric, counts, units, encoders, what each model saw.

    Raises
    ------
    ValueError
        If the arrays do not fit each other, or sample ids repeat.
    """

    samples: np.ndarray
    folds: np.ndarray
    losses: Mapping[str, np.ndarray]
    scores: pd.DataFrame
    comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    seed_losses: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed_scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    alarms: list[Alarm] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    strata: np.ndarray | None = None
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)
    curve_tests: pd.DataFrame = field(default_factory=pd.DataFrame)
    targets: pd.DataFrame = field(default_factory=pd.DataFrame)
    labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    calibration: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        n = len(self.samples)
        if len(set(self.samples)) != n:
            raise ValueError("samples: ids must be unique")
        if self.folds.ndim != 2 or self.folds.shape[1] != n:
            raise ValueError(f"folds: expected shape (n_repeats, {n}); found {self.folds.shape}")
        for name, loss in self.losses.items():
            if loss.shape != self.folds.shape:
                raise ValueError(f"losses of {name}: expected shape {self.folds.shape}")
        for name, loss in self.seed_losses.items():
            if loss.shape[1:] != self.folds.shape:
                raise ValueError(f"seed losses of {name}: expected (n_seeds, *{self.folds.shape})")

    @property
    def models(self) -> list[str]:
        """Names of the models, in the order in which they were run."""
        return list(self.losses)

    @property
    def n_repeats(self) -> int:
        """Number of repeats of the cross-validation."""
        return int(self.folds.shape[0])

    @property
    def n_folds(self) -> int:
        """Number of folds of one repeat."""
        return int(self.folds.max()) + 1

    @property
    def metric(self) -> str:
        """Name of the headline metric, whose per-sample values `losses` holds."""
        return str(self.info.get("metric", "loss"))

    def to_frame(self) -> pd.DataFrame:
        """One row a model: the mean of every metric over repeats and folds.

        Returns
        -------
        DataFrame, shape (n_models, n_metrics)
            Indexed by model. NaN where a metric could be computed in no fold.
        """
        return score_table(self.scores, self.models)

    def __repr__(self) -> str:
        design = f"{self.n_folds} folds" + (f" x {self.n_repeats}" if self.n_repeats > 1 else "")
        losses = ", ".join(f"{m} {np.mean(v):.4g}" for m, v in self.losses.items())
        return (
            f"CrossvalResult({counted(len(self.samples), 'sample')}, {design}; {self.metric}: "
            f"{losses}; "
            f"{len(self.alarms)} {'guard speaks' if len(self.alarms) == 1 else 'guards speak'})"
        )


def score_table(scores: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """Mean of every metric over repeats and folds, models in the given order.

    Parameters
    ----------
    scores : DataFrame
        Columns model, repeat, fold, metric, value. NaN values are left out of the means.
    models : list of str
        Row order.

    Returns
    -------
    DataFrame, shape (n_models, n_metrics)
        Metrics in the order of their first appearance.
    """
    means = scores.groupby(["model", "metric"], sort=False)["value"].mean().unstack("metric")
    order = list(dict.fromkeys(scores["metric"]))
    return means.reindex(index=pd.Index(models, name="model"), columns=order)


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


def best_text(metric: str, losses: "pd.Series[float]", most: int = 3) -> str:
    """The models of the lowest losses in a line, beside the yardstick, which is the first.

    >>> best_text("mse", pd.Series({"mean": 1.2, "ridge": 0.24, "raw": 0.256, "vae": 0.23}))
    'mse vae 0.23, ridge 0.24, raw 0.256 (best of 4 models; mean 1.2)'
    """
    best = losses.sort_values(kind="stable")[:most]
    named = ", ".join(f"{model} {loss:.4g}" for model, loss in best.items())
    if len(losses) <= most:
        return f"{metric} {named}"
    yardstick = "" if losses.index[0] in best else f"; {losses.index[0]} {losses.iloc[0]:.4g}"
    return f"{metric} {named} (best of {len(losses)} models{yardstick})"


def score_intervals(result: CrossvalResult) -> pd.DataFrame:
    """Every score of every model with its interval, and its difference from the linear rival's.

    Returns
    -------
    DataFrame
        Columns model, metric, value, ci_low, ci_high, and difference, difference_low,
        difference_high against the linear model of the declared family (NaN without one). Intervals
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
