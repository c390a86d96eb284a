"""The view by label: how each is ranked and calibrated, and which cannot be learned.

What a fold says of its test samples is sums over them, which add up over folds: no prediction is
kept. Samples are only ever ranked against those of their own fold, which one model predicted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from m1pipe.errors import Alarm
from m1pipe.evaluation.class_metrics import BIN_EDGES, calibration_bins, precision_sums, ratio
from m1pipe.evaluation.compared_models import CONSTANTS
from m1pipe.evaluation.per_target import ALPHA
from m1pipe.evaluation.significance import benjamini_hochberg

FEWEST = 5  # groups (or samples) with a label, and without, for it to be tested
STATISTICS = ("wins", "variance", "shared", "precision", "squared")
LEARNED, NOT_LEARNED, TOO_FEW = "learned", "not learned", "too few"
_MOST_NAMED = 20


@dataclass(frozen=True, eq=False)
class LabelSums:
    """Sums over the test samples of one fold, or of several.

    Attributes
    ----------
    n : int
        Samples.
    positive, pairs : ndarray, shape (n_labels,)
        Samples with the label; pairs of one with and one without it in the same fold.
    positive_units, negative_units : ndarray, shape (n_labels,)
        Groups (samples, where these are not grouped) with any sample with, or without, the label.
    rows : dict of str to ndarray, shape (len(STATISTICS), n_labels)
        Of every model, the mean over its seeds: pairs ranked right (ties one half), the variance of
        their number where labels say nothing, what samples of one group add to it, the precision
        at each positive's score, the squared distance of probability and 0/1.
    bins : dict of str to ndarray, shape (3, n_bins)
        Of every model: `m1pipe.evaluation.class_metrics.calibration_bins`.
    """

    n: int
    positive: np.ndarray
    pairs: np.ndarray
    positive_units: np.ndarray
    negative_units: np.ndarray
    rows: Mapping[str, np.ndarray] = field(default_factory=dict)
    bins: Mapping[str, np.ndarray] = field(default_factory=dict)


class LabelTally:
    """Takes the predictions of one model after the other.

    Parameters
    ----------
    labels : ndarray, shape (n_test, n_labels)
        0/1 of the test samples.
    groups : ndarray, shape (n_test,), or None
        Of which samples are not independent.
    """

    def __init__(self, labels: np.ndarray, groups: np.ndarray | None) -> None:
        self.truth = labels > 0.5
        self.unit = np.arange(len(labels)) if groups is None else pd.factorize(groups)[0]
        self.rows: dict[str, np.ndarray] = {}
        self.bins: dict[str, np.ndarray] = {}

    def add(self, model: str, predictions: Sequence[np.ndarray]) -> None:
        """Take a model's label probabilities of the test samples, one array a seed.

        Parameters
        ----------
        model : str
        predictions : sequence of ndarray, each of shape (n_test, n_labels)
        """
        each = [self._statistics(np.asarray(p, dtype=np.float64)) for p in predictions]
        self.rows[model] = np.mean(each, axis=0)
        self.bins[model] = np.mean([calibration_bins(p, self.truth) for p in predictions], axis=0)

    def close(self) -> LabelSums:
        """The sums of all models."""
        positive = self.truth.sum(axis=0)
        with_label, without = _sums(self.truth, self.unit), _sums(~self.truth, self.unit)
        return LabelSums(
            n=len(self.truth),
            positive=positive,
            pairs=positive * (len(self.truth) - positive),
            positive_units=(with_label > 0).sum(axis=0),
            negative_units=(without > 0).sum(axis=0),
            rows=self.rows,
            bins=self.bins,
        )

    def _statistics(self, score: np.ndarray) -> np.ndarray:
        """`STATISTICS` of one seed, shape (len(STATISTICS), n_labels)."""
        truth, n = self.truth, len(self.truth)
        positive = truth.sum(axis=0, dtype=np.float64)
        negative = n - positive
        place = rankdata(score, axis=0) - (n + 1) / 2
        wins = (place * truth).sum(axis=0) + positive * negative / 2
        spread = (place**2).sum(axis=0)
        variance = positive * negative / (n * max(n - 1, 1)) * spread
        part = (truth - positive / n) * place
        shared = (_sums(part, self.unit) ** 2).sum(axis=0) - (part**2).sum(axis=0)
        squared = ((score - truth) ** 2).sum(axis=0)
        return np.stack([wins, variance, shared, precision_sums(truth, score), squared])


def add_label_sums(parts: Sequence[LabelSums]) -> LabelSums:
    """Sums over several folds; of their models those that the first one has."""
    counts = ("positive", "pairs", "positive_units", "negative_units")
    return LabelSums(
        n=sum(part.n for part in parts),
        **{name: np.sum([getattr(part, name) for part in parts], axis=0) for name in counts},
        rows={model: np.sum([p.rows[model] for p in parts], axis=0) for model in parts[0].rows},
        bins={model: np.sum([p.bins[model] for p in parts], axis=0) for model in parts[0].bins},
    )


def label_table(names: Sequence[str], every: LabelSums, once: LabelSums) -> pd.DataFrame:
    """One row a label: how frequent it is, how each model ranks it, whether any learned it.

    A model has learned a label where it ranks samples with the label above others of the same fold
    more often than chance: a one-sided rank-sum test stratified by folds, with q below `ALPHA`
    after Benjamini and Hochberg over all labels and models tested. Its variance is that of random
    labels, given the scores; where groups have several samples their covariance, as observed, is
    added if it is positive. Labels that fewer than `FEWEST` groups (or samples) have, or lack,
    are not tested.

    Parameters
    ----------
    names : sequence of str
    every : LabelSums
        Over all folds and repeats.
    once : LabelSums
        Over the folds of the first repeat: every sample once. The tests are of these.

    Returns
    -------
    DataFrame
        label, n_positive, prevalence, verdict ("learned", "not learned", "too few"), learned_by
        (models, separated by commas), and for each model average_precision_MODEL (mean over samples
        with the label of the precision at their score), roc_auc_MODEL, brier_MODEL, and p_MODEL,
        q_MODEL but for constants.
    """
    table = pd.DataFrame({"label": list(names), "n_positive": once.positive})
    table["prevalence"] = once.positive / once.n
    enough = (np.minimum(once.positive_units, once.negative_units) >= FEWEST) & (once.pairs > 0)
    tested = [model for model in once.rows if model not in CONSTANTS]
    p = np.array([_p_value(once, once.rows[model]) for model in tested]).reshape(-1, len(names))
    known = np.where(enough, p, np.nan).ravel()
    q = benjamini_hochberg(known, missing="drop").reshape(p.shape)
    learned = q < ALPHA
    by = [",".join(np.array(tested)[column]) for column in learned.T] if tested else ""
    verdict = np.where(learned.any(axis=0), LEARNED, NOT_LEARNED)
    table["verdict"], table["learned_by"] = np.where(enough, verdict, TOO_FEW), by
    for model, found in every.rows.items():
        sums = dict(zip(STATISTICS, found, strict=True))
        table[f"average_precision_{model}"] = ratio(sums["precision"], every.positive)
        table[f"roc_auc_{model}"] = ratio(sums["wins"], every.pairs)
        table[f"brier_{model}"] = sums["squared"] / every.n
    for model, p_row, q_row in zip(tested, p, q, strict=True):
        table[f"p_{model}"], table[f"q_{model}"] = np.where(enough, p_row, np.nan), q_row
    return table


def calibration_table(every: LabelSums) -> pd.DataFrame:
    """One line a model and bin that has cells: model, low, high, n, predicted, observed (means)."""
    lines = [
        {"model": model, "low": low, "high": high, "n": n, "predicted": p / n, "observed": y / n}
        for model, bins in every.bins.items()
        for low, high, n, p, y in zip(BIN_EDGES[:-1], BIN_EDGES[1:], *bins, strict=True)
        if n > 0
    ]
    return pd.DataFrame(lines)


def unlearned_labels(table: pd.DataFrame) -> list[Alarm]:
    """The labels that no model learned, and those that were not tested, by name.

    Parameters
    ----------
    table : DataFrame, shape (n_labels, n_columns)
        From `label_table`.
    """
    found = []
    tails = {
        NOT_LEARNED: f"were not learned by any model (rank-sum test by folds, q >= {ALPHA:g})",
        TOO_FEW: f"have fewer than {FEWEST} independent samples with or without them: not tested",
    }
    for verdict, tail in tails.items():
        names = table.loc[table["verdict"] == verdict, "label"].tolist()
        if names:
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            listed = ", ".join(map(str, names[:_MOST_NAMED])) + more
            text = f"{len(names)} of {len(table)} labels {tail}: {listed}. All: labels.csv."
            name = "labels_not_learned" if verdict == NOT_LEARNED else "labels_too_few"
            found.append(Alarm(name, "note", text))
    return found


def _p_value(sums: LabelSums, found: np.ndarray) -> np.ndarray:
    """One-sided p of more pairs ranked right than half of them; NaN where all scores tie."""
    wins, variance, shared = found[:3]
    total = variance + np.maximum(shared, 0)
    z = ratio(wins - sums.pairs / 2, np.sqrt(total))
    return np.asarray(norm.sf(z))


def _sums(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Sums of rows by their unit, shape (n_units, n_columns)."""
    out = np.zeros((int(unit.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(out, unit, values)
    return out


def gather_labels(
    names: Sequence[str] | None, parts: Sequence[tuple[int, LabelSums | None]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The view by label, and the calibration of every model; empty where there are no labels.

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
