"""Losses broken down: by number of labels, stratum, target, label and fold, as cells of tables."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.evaluation.class_metrics import PRECISION_AT
from m1pipe.evaluation.compare import fold_tests
from m1pipe.evaluation.learning_curve import curve_means
from m1pipe.evaluation.per_label import FEWEST, LEARNED, NOT_LEARNED, TOO_FEW
from m1pipe.evaluation.result import CrossvalResult, fold_losses, score_intervals, stratum_losses
from m1pipe.plots.comparison import FEWEST_CELLS
from m1pipe.reports import figures, verdicts
from m1pipe.reports.page import (
    DASH,
    Row,
    decimals_for,
    difference_cells,
    interval,
    number,
    p_cell,
    pair_name,
    percent,
)
from m1pipe.reports.terms import Metric, metric_of

_CALIBRATED = ("roc_auc", "brier", "calibration_error")
_MOST_LABELS = 200


def _with_interval(line: Row, digits: int) -> str:
    value = number(line["value"], digits)
    if not math.isfinite(line["ci_low"]):
        return value
    return f"{value} ({interval(line['ci_low'], line['ci_high'], digits)})"


def label_efficiency(result: CrossvalResult) -> dict[str, Any] | None:
    """Scores by number of training samples, and the declared pairs at each."""
    if not len(result.curve):
        return None
    metrics = [result.metric]
    metrics += ["balanced_accuracy"] if "balanced_accuracy" in set(result.curve["metric"]) else []
    means = curve_means(
        result.curve,
        metrics,
        n_folds=result.n_folds,
        n_samples=len(result.samples),
        by_strata=bool(result.info.get("leave_out")),
    )
    tests = [
        [pair_name(test), f"{test['n_train']:,}", *difference_cells(test)[1:], p_cell(test["p"])]
        for test in result.curve_tests.to_dict(orient="records")
    ]
    return {
        "texts": verdicts.label_efficiency(result),
        "figure": figures.label_efficiency(result, means),
        "sizes": sorted(set(means["n_train"])),
        "tables": {m: (metric_of(m), _by_size(result, means, m)) for m in metrics},
        "draws": int(result.info.get("draws") or 1),
        "tests": tests,
    }


def _by_size(result: CrossvalResult, means: pd.DataFrame, metric: str) -> list[list[str]]:
    means = means[means["metric"] == metric]
    half = (means["ci_high"] - means["ci_low"]).to_numpy(float) / 2
    digits = decimals_for(*half[np.isfinite(half)], most=4)
    found = means.set_index(["model", "n_train"])
    sizes = sorted(set(means["n_train"]))
    return [
        [model, *(_with_interval(found.loc[(model, size)], digits) for size in sizes)]
        for model in result.models
    ]


def by_stratum(result: CrossvalResult) -> list[list[str]]:
    """Loss of every model in every stratum."""
    table, models = stratum_losses(result), result.models
    digits = decimals_for(*(float(table[m].std()) for m in models if len(table)), most=5)
    return [
        [str(line["stratum"]), f"{line['n']:,}", *(number(line[m], digits) for m in models)]
        for line in table.to_dict(orient="records")
    ]


def by_target(result: CrossvalResult) -> dict[str, Any] | None:
    """The figure of the targets' R2, and isoforms of genes with several isoforms and with one."""
    if not len(result.targets):
        return None
    r2 = result.targets.filter(regex="^r2_")
    lines = result.info.get("isoforms") or []
    found = {(line["model"], line["kind"]): line["r2"] for line in lines}
    sizes = {line["kind"]: line["n_targets"] for line in lines}
    kinds = {kind: sizes[kind] for kind in ("several", "one") if kind in sizes}
    return {
        "figure": figures.r2_by_target(result),
        "n_varying": int(r2.notna().all(axis=1).sum()),
        "isoforms": kinds,
        "isoform_rows": [
            [model, *(number(found[model, kind], 3) for kind in kinds)]
            for model in result.models
            if any(name == model for name, _ in found)
        ],
    }


def by_label(result: CrossvalResult) -> dict[str, Any] | None:
    """Several labels a sample: how they are ranked, how well calibrated, and each by itself."""
    if not len(result.labels):
        return None
    n = result.labels["verdict"].value_counts()
    scores = score_intervals(result)
    known = set(scores["metric"]) if len(scores) else set()
    ranked = ["average_precision", "average_precision_micro"]
    ranked += [f"precision_at_{k}" for k in PRECISION_AT if f"precision_at_{k}" in known]
    return {
        "n": {"learned": n.get(LEARNED, 0), "not": n.get(NOT_LEARNED, 0), "few": n.get(TOO_FEW, 0)},
        "fewest": FEWEST,
        "fewest_cells": FEWEST_CELLS,
        "ranked": _scores_of_labels(scores, ranked),
        "calibrated": _scores_of_labels(scores, _CALIBRATED),
        "figure": figures.calibrated(result),
        "rows": _every_label(result)[:_MOST_LABELS],
    }


def _scores_of_labels(
    scores: pd.DataFrame, metrics: Sequence[str]
) -> tuple[list[Metric], list[list[str]]]:
    """Metrics and, for every model, their intervals; the highest average precision first."""
    if not len(scores):
        return [], []
    found = scores.set_index(["model", "metric"])
    means = found["value"].unstack("metric")["average_precision"]
    order = means.sort_values(ascending=False).index
    rows = [[str(m), *(_with_interval(found.loc[(m, s)], 3) for s in metrics)] for m in order]
    return [metric_of(name) for name in metrics], rows


def _every_label(result: CrossvalResult) -> list[list[str]]:
    """Every label: those that were learned first, then by its best average precision."""
    ap = [f"average_precision_{model}" for model in result.models]
    places = {LEARNED: 0, NOT_LEARNED: 1, TOO_FEW: 2}
    table = result.labels.assign(
        best=result.labels[ap].max(axis=1), place=result.labels["verdict"].map(places)
    ).sort_values(["place", "best"], ascending=[True, False], kind="stable")
    return [
        [
            str(line["label"]),
            f"{line['n_positive']:,}",
            percent(line["prevalence"], 1),
            str(line["learned_by"]).replace(",", ", ") or str(line["verdict"]),
            *(number(line[name], 3) for name in ap),
        ]
        for line in table.to_dict(orient="records")
    ]


def by_fold(result: CrossvalResult) -> dict[str, Any]:
    """Mean loss of every model in every fold, and p values within each fold."""
    table, losses = verdicts.family(result), fold_losses(result)
    pairs = [(r["model_a"], r["model_b"]) for r in table.to_dict(orient="records")]
    pairs = [(a, b) for a, b in pairs if b != result.models[0]]
    tests = fold_tests(result.losses, result.folds, pairs=pairs)
    p = tests.set_index(["model_a", "model_b", "repeat", "fold"])["p"].to_dict()
    wide = losses.pivot(index=["repeat", "fold"], columns="model", values="loss")[result.models]
    sizes = losses.groupby(["repeat", "fold"])["n_test"].first()
    digits = decimals_for(wide.std().min(), most=5)
    rows = [
        (
            f"{r + 1}.{k + 1}" if result.n_repeats > 1 else str(k + 1),
            [f"{n:,}", *(number(value, digits) for value in line)],
            [p_cell(p[(*pair, r, k)]) for pair in pairs],
        )
        for (r, k), n, line in zip(wide.index.to_list(), sizes, wide.to_numpy(float), strict=True)
    ]
    return {
        "pairs": [f"{a} {DASH} {b}" for a, b in pairs],
        "rows": rows,
        "means": ["", *(number(value, digits) for value in wide.mean())],
    }
