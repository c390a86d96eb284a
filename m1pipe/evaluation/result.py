"""What a cross-validation returns: losses by sample id, scores, comparisons, alarms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

Severity = Literal["note", "warning", "severe"]


@dataclass(frozen=True)
class Alarm:
    """One thing that the reader of a result should know before believing it.

    Attributes
    ----------
    name : str
        Short fixed name of the kind of alarm, such as "collapsed_predictor".
    severity : str
        "note", "warning", or "severe" (the result should not be believed as it stands).
    text : str
        One plain sentence or two, with the numbers.
    """

    name: str
    severity: Severity
    text: str

    def __post_init__(self) -> None:
        if self.severity not in get_args(Severity):
            raise ValueError(f"severity: expected one of {get_args(Severity)}: {self.severity!r}")

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"


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
        The same before averaging, for the rows that have several seeds.
    scores : DataFrame
        Columns model, repeat, fold, metric, value.
    seed_scores : DataFrame
        The same with a column seed, for the rows that have several seeds.
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
        Plain facts for the report: kind, metric, counts, units, encoders, what each row saw.

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
        """Names of the rows, in the order in which they were run."""
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
            f"CrossvalResult({len(self.samples)} samples, {design}; {self.metric}: {losses}; "
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
