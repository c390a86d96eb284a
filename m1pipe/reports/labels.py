"""Several labels a sample: how they are ranked, how well calibrated, and each by itself."""

import math

import pandas as pd

from m1pipe.evaluation.class_metrics import PRECISION_AT
from m1pipe.evaluation.leakage import OTHER, SAME
from m1pipe.evaluation.per_label import FEWEST, LEARNED, NOT_LEARNED, TOO_FEW
from m1pipe.evaluation.result import CrossvalResult, score_intervals
from m1pipe.plots import style
from m1pipe.plots.calibration import FEWEST_CELLS, plot_calibration
from m1pipe.reports.figures import WIDTH, row_colours
from m1pipe.reports.layout import Picture, Table
from m1pipe.reports.numbers import count, interval, number, percent
from m1pipe.reports.terms import ALPHA, metric_of

_RANKED = ("average_precision", "average_precision_micro")
_CALIBRATED = ("roc_auc", "brier", "calibration_error")
_CALIBRATION_NOTE = (
    "ROC AUC: mean over labels. Brier: mean squared distance of probability and 0/1 over cells; "
    "ECE: expected calibration error, the mean distance of probability and frequency over bins of "
    "probability. Differences from the linear model: score_intervals.csv."
)
_PREFIX = "average_precision_"
_MOST_SHOWN = 15
_MOST_LISTED = 200
_MOST_LINES = 7


def by_label(result: CrossvalResult) -> list[Table | Picture]:
    """Scores with intervals, calibration, and every label."""
    if not len(result.labels):
        return []
    return [*_scores(result), _calibration(result), _labels(result)]


def verdict_texts(result: CrossvalResult) -> list[str]:
    """How many labels were learned, and by what rule."""
    if not len(result.labels):
        return []
    n = result.labels["verdict"].value_counts()
    text = (
        f"Of {count(len(result.labels), 'label')} {n.get(LEARNED, 0):,} were learned by a model, "
        f"{n.get(NOT_LEARNED, 0):,} by none, and {n.get(TOO_FEW, 0):,} have fewer than {FEWEST} "
        "independent samples with or without them and were not tested. Learned: samples with the "
        "label stand above others of the same test fold more often than chance (one-sided "
        f"rank-sum test stratified by folds, q below {ALPHA} after Benjamini and Hochberg over all "
        "labels and models; where samples share a group, their covariance is added)."
    )
    return [*_origin_texts(result), text]


def _origin_texts(result: CrossvalResult) -> list[str]:
    """Whether this is prediction, or compression only."""
    texts = {
        SAME: "The labels were made from the same samples as what predicts them: how well they are "
        "found says how much of them a representation keeps. It is compression, not prediction.",
        OTHER: "The labels were made from other samples than what predicts them, replicates in the "
        "same studies: this is prediction, of what the studies' further samples show.",
    }
    text = texts.get(str(result.info.get("labels_from")))
    return [text] if text else []


def _scores(result: CrossvalResult) -> list[Table]:
    table = score_intervals(result)
    if not len(table):
        return []
    known = set(table["metric"])
    at_the_top = [f"precision_at_{k}" for k in PRECISION_AT if f"precision_at_{k}" in known]
    found = table.set_index(["model", "metric"])
    means = found["value"].unstack("metric")["average_precision"]
    order = means.sort_values(ascending=False).index
    tail = ", highest average precision first: means over folds with 95 % intervals of the "
    tail += "corrected resampled t, without a claim."
    return [
        Table(
            caption=f"{what}{tail}",
            head=["model", *(f"{metric_of(name).head}{metric_of(name).arrow}" for name in shown)],
            rows=[[str(m), *(_with_interval(found.loc[(m, s)]) for s in shown)] for m in order],
            note=note,
        )
        for what, shown, note in (
            ("Labels in order", (*_RANKED, *at_the_top), _ranking_note(result)),
            ("Labels one by one, and calibration", _CALIBRATED, _CALIBRATION_NOTE),
        )
    ]


def _with_interval(line: pd.Series) -> str:
    value = number(line["value"], 3)
    if not math.isfinite(line["ci_low"]):
        return value
    return f"{value} ({interval(line['ci_low'], line['ci_high'], 3)})"


def _ranking_note(result: CrossvalResult) -> str:
    text = (
        "Average precision: mean over labels; micro AP: over all cells. P@k: share of a sample's "
        "k highest-scored labels that are true, mean over all samples."
    )
    top = result.info.get("at_the_top")
    if not top:
        return text
    best = ", ".join(f"P@{k} {number(value, 3)}" for k, value in top["best"].items())
    return (
        f"{text} Labels in random order give P@k {number(top['chance'], 3)}, the prevalence; at "
        f"best {best} can be reached: {count(top['without'], 'sample')} have no label at all."
    )


def _calibration(result: CrossvalResult) -> Picture:
    shown = [model for model in result.models if model != result.models[0]]
    encoders = [m for m in shown if m in result.info.get("encoders", {})]
    shown = [*encoders, *(m for m in shown if m not in encoders)][:_MOST_LINES]
    figure, axes = style.panels(width=WIDTH * 0.7, height=4.2)
    with style.styled():
        plot_calibration(axes[0, 0], result.calibration, shown, colours=row_colours(result))
    return Picture(
        caption="Calibration over all labels and test samples: the share of true labels by "
        "predicted probability. Below the dashed line probabilities are too high, above it too "
        f"low. Bins of fewer than {FEWEST_CELLS} cells are left out; both scales are square roots.",
        alt=f"Share of true labels by predicted probability for {', '.join(shown)}",
        source=style.data_uri(figure),
    )


def _labels(result: CrossvalResult) -> Table:
    ap = [f"{_PREFIX}{model}" for model in result.models]
    table = result.labels.assign(best=result.labels[ap].max(axis=1))
    order = {LEARNED: 0, NOT_LEARNED: 1, TOO_FEW: 2}
    table = table.assign(place=table["verdict"].map(order))
    table = table.sort_values(["place", "best"], ascending=[True, False], kind="stable")
    rows = [
        [
            str(line["label"]),
            f"{line['n_positive']:,}",
            percent(line["prevalence"], 1),
            str(line["learned_by"]).replace(",", ", ") or str(line["verdict"]),
            *(number(line[name], 3) for name in ap),
        ]
        for line in table.head(_MOST_LISTED).to_dict(orient="records")
    ]
    return Table(
        caption="Every label: samples that have it, models that learned it, and its average "
        "precision under every model (mean, over samples with the label, of the precision at "
        "their score among the samples of their fold)."
        + (f" The first {_MOST_LISTED} of {len(table):,}." if len(table) > _MOST_LISTED else ""),
        head=[
            "label",
            "n",
            "prevalence",
            "learned by",
            *(n.removeprefix("average_precision_") for n in ap),
        ],
        rows=rows,
        note="By chance the average precision is about the prevalence, somewhat more where samples "
        "with the label are few. ROC AUC, Brier score, p and q of every label: labels.csv.",
        folded=len(rows) > _MOST_SHOWN,
    )
