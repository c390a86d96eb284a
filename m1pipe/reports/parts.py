"""Views beside the ladder: by number of labels, within strata, target by target."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.evaluation.learning_curve import curve_means
from m1pipe.evaluation.result import CrossvalResult, stratum_losses
from m1pipe.plots import breakdown, style
from m1pipe.reports.figures import WIDTH, row_colours
from m1pipe.reports.layout import Picture, Table
from m1pipe.reports.numbers import count, decimals_for, interval, number, p_cell, percent
from m1pipe.reports.terms import headline_phrase, loss_label, metric_of

Part = Table | Picture
_DASH = "\N{EN DASH}"
_MOST_STRATA = 15
_MOST_HISTOGRAMS = 6


def label_efficiency(result: CrossvalResult) -> list[Part]:
    """Curve of loss by number of training rows, its numbers, and the declared pairs at each."""
    if not len(result.curve):
        return []
    metrics = [result.metric]
    if "balanced_accuracy" in set(result.curve["metric"]):
        metrics.append("balanced_accuracy")
    means = curve_means(
        result.curve,
        metrics,
        n_folds=result.n_folds,
        n_samples=len(result.samples),
        by_strata=bool(result.info.get("leave_out")),
    )
    tables = [_means_table(result, means[means["metric"] == m], m) for m in metrics]
    return [_curve(result, means), *tables, *_curve_table(result)]


def within_strata(result: CrossvalResult) -> list[Part]:
    """Loss of every row in every stratum."""
    table = stratum_losses(result)
    if not len(table):
        return []
    spread = [float(table[model].std()) for model in result.models]
    digits = decimals_for(*spread, most=5)
    rows = [
        [str(line["stratum"]), f"{line['n']:,}", *(number(line[m], digits) for m in result.models)]
        for line in table.to_dict(orient="records")
    ]
    label = loss_label(result.metric, result.info.get("target_units"))
    name = result.info.get("leave_out") or result.info.get("stratify") or "stratum"
    note = "R2 within strata stands beside R2 across in the table of all models: a model that only"
    note += " knows the stratum has 0 within."
    return [
        Table(
            caption=f"{label[0].upper()}{label[1:]} by {name}, mean over test samples.",
            head=[str(name), "n", *result.models],
            rows=rows,
            note=note if "r2_within" in set(result.scores["metric"]) else "",
            folded=len(rows) > _MOST_STRATA,
        )
    ]


def by_target(result: CrossvalResult) -> list[Part]:
    """R2 of the targets, pairs target by target, and isoforms by their gene's number."""
    if not len(result.targets):
        return []
    found: list[Part] = [_histogram(result)]
    if result.info.get("r2_by_target"):
        found.append(_medians(result.info["r2_by_target"]))
    if result.info.get("per_target"):
        found.append(_pairs(result))
    if result.info.get("isoforms"):
        found.append(_isoforms(result))
    return found


def drawn(result: CrossvalResult) -> str:
    """How often every number of training rows was drawn, as a part of a sentence."""
    n_draws = int(result.info.get("draws") or 1)
    return "folds" if n_draws == 1 else f"folds and {n_draws} draws of the training samples of each"


def _curve(result: CrossvalResult, means: pd.DataFrame) -> Picture:
    curve = means[means["metric"] == result.metric]
    shown = [model for model in result.models if model != result.models[0]]
    figure, axes = style.panels(width=WIDTH, height=3.8)
    with style.styled():
        breakdown.plot_label_efficiency(
            axes[0, 0],
            curve,
            shown,
            yardstick=result.models[0],
            label=f"{metric_of(result.metric).label} as a share of that of {result.models[0]}",
            colours=row_colours(result),
        )
    return Picture(
        caption="Label efficiency: test loss of every model, divided by that of "
        f"{result.models[0]} with as many training samples, by the number of labelled training "
        f"samples (mean over {drawn(result)}, with its 95 % interval; the test folds are the same "
        "at every number; smaller sets lie within larger ones). Models on encoders are coloured.",
        alt="Loss by number of labelled training samples, for every model",
        source=style.data_uri(figure),
    )


def _means_table(result: CrossvalResult, means: pd.DataFrame, metric: str) -> Table:
    sizes = sorted(set(means["n_train"]))
    found = means.set_index(["model", "n_train"])
    half = (means["ci_high"] - means["ci_low"]).to_numpy(float) / 2
    digits = decimals_for(*half[np.isfinite(half)], most=4)
    rows = [
        [model, *(_with_interval(found.loc[(model, size)], digits) for size in sizes)]
        for model in result.models
    ]
    named = metric_of(metric)
    note = ""
    if metric == "balanced_accuracy":
        note = "Mean recall of the classes among the test samples of a fold. A class that no "
        note += "training sample of a draw has counts half a sample."
    return Table(
        caption=f"{named.label[0].upper()}{named.label[1:]} by number of labelled training samples "
        f"({named.better} is better): mean over {drawn(result)}, with its 95 % interval.",
        head=["model", *(f"{size:,}" for size in sizes)],
        rows=rows,
        note=note,
    )


def _with_interval(line: pd.Series, digits: int) -> str:
    value = number(line["value"], digits)
    if not np.isfinite(line["ci_low"]):
        return value
    return f"{value} ({interval(line['ci_low'], line['ci_high'], digits)})"


def _curve_table(result: CrossvalResult) -> list[Table]:
    table = result.curve_tests
    if not len(table):
        return []
    rows = []
    for line in table.to_dict(orient="records"):
        digits = decimals_for((line["ci_high"] - line["ci_low"]) / 2)
        rows.append(
            [
                f"{line['model_a']} {_DASH} {line['model_b']}",
                f"{line['n_train']:,}",
                number(line["difference"], digits),
                interval(line["ci_low"], line["ci_high"], digits),
                percent(line["effect"], 1),
                p_cell(line["p"]),
            ]
        )
    return [
        Table(
            caption="The declared pairs at every number of labelled training samples, without a "
            "claim.",
            head=["comparison", "n", "difference", "95 % CI", "relative", "p, not adjusted"],
            rows=rows,
            note=f"By the {headline_phrase(result.info)}. Negative: the first is better. "
            + _variance_note(result),
        )
    ]


def _variance_note(result: CrossvalResult) -> str:
    if result.info.get("leave_out"):
        return "The draws are averaged within each stratum."
    if int(result.info.get("draws") or 1) > 1:
        return (
            "Its variance has two parts: between the folds, corrected as that of whole folds, and "
            "between the draws of a fold, which share part of their training samples."
        )
    return (
        "With part of the training rows the ratio of test to training samples is still taken as "
        "that of the folds: the raw ratio would leave the test no power."
    )


def _histogram(result: CrossvalResult) -> Picture:
    r2 = {
        model: result.targets[f"r2_{model}"].to_numpy(float)
        for model in _shown(result)
        if f"r2_{model}" in result.targets
    }
    figure, axes = style.panels(width=WIDTH, height=3.2)
    with style.styled():
        breakdown.plot_r2_histogram(axes[0, 0], r2, colours=style.colours(list(r2)))
    known = np.isfinite(next(iter(r2.values())))
    return Picture(
        caption=f"R2 of every target ({count(int(known.sum()), 'target')} that vary), against its "
        "training means, test samples of all folds. Values below -0.5 are counted there.",
        alt="Histogram of R2 by target",
        source=style.data_uri(figure),
    )


def _medians(found: Mapping[str, Any]) -> Table:
    rows = [
        [line["model"], number(line["median"], 3), percent(line["above_zero"], 1)]
        for line in found["models"]
    ]
    n_without = found["n_hardly_vary"] + found["n_constant"]
    note = "Above 0: share of the targets that a model predicts better than their training mean."
    if n_without:
        note += (
            f" {n_without:,} of {found['n_targets']:,} targets have no R2 and are left out: "
            f"{found['n_constant']:,} are the same in all test samples, {found['n_hardly_vary']:,} "
            "hardly vary (squares about the training mean at most 1e-4 of the usual target's)."
        )
    return Table(
        caption="R2 by target: the middle one, and how many are above 0.",
        head=["model", "median R2", "R2 above 0"],
        rows=rows,
        note=note,
    )


def _shown(result: CrossvalResult) -> Sequence[str]:
    """Encoders first, then the rows that they are compared with."""
    encoders = [m for m in result.models if m in result.info.get("encoders", {})]
    others = [m for m in result.models[1:] if m not in encoders]
    first = [m for m in ("ridge", "ridge_gene", "raw") if m in others]
    own = [f"{m}_gene" for m in encoders if f"{m}_gene" in others]
    return [*encoders, *own, *first][:_MOST_HISTOGRAMS] or others[:_MOST_HISTOGRAMS]


def _pairs(result: CrossvalResult) -> Table:
    rows = [
        [
            f"{line['model_a']} {_DASH} {line['model_b']}",
            f"{line['n_targets']:,}",
            percent(line["improved"], 1),
            f"{line['better']:,}",
            f"{line['worse']:,}",
        ]
        for line in result.info["per_target"]
    ]
    unit = "donors" if result.info.get("n_groups") else "samples"
    return Table(
        caption="Pairs of models target by target.",
        head=["comparison", "targets", "first is better", "clearly better", "clearly worse"],
        rows=rows,
        note="First is better: share of targets with a lower error under the first model. Clearly: "
        f"q below 0.05 (t-test over {unit} of the first repeat, Benjamini and Hochberg over all "
        "targets). These tests describe the models trained here. Every target: targets.csv.",
    )


def _isoforms(result: CrossvalResult) -> Table:
    lines = result.info["isoforms"]
    found = {(line["model"], line["kind"]): line for line in lines}
    sizes = {line["kind"]: line["n_targets"] for line in lines}
    kinds = [kind for kind in ("several", "one") if kind in sizes]
    rows = [
        [model, *(number(found[model, kind]["r2"], 3) for kind in kinds)]
        for model in result.models
        if (model, kinds[0]) in found
    ]
    return Table(
        caption="Isoforms of genes with several isoforms among the targets, and of genes with one.",
        head=["model", *(f"R2, {kind} ({count(sizes[kind], 'isoform')})" for kind in kinds)],
        rows=rows,
        note="Pooled over targets and test samples, against the training means. Of a gene with one "
        "isoform the own gene all but is the target.",
    )
