"""The tables of losses: the ladder of all rows, and every row in every fold."""

from typing import Any

import numpy as np
import pandas as pd

from m1pipe.evaluation.compare import fold_tests
from m1pipe.evaluation.result import CrossvalResult, fold_losses
from m1pipe.reports.layout import Table
from m1pipe.reports.numbers import decimals_for, number, p_cell
from m1pipe.reports.terms import ENSEMBLE_SUFFIX, METRICS, loss_label, metric_of
from m1pipe.reports.words import family

_WIDEST = 14
_MOST_SHOWN = 11
_DASH = "\N{EN DASH}"


def ladder(result: CrossvalResult, table: pd.DataFrame) -> Table:
    """Every row with its headline loss, its share of the yardstick's, its spreads, all scores.

    Parameters
    ----------
    result : CrossvalResult
        The result.
    table : DataFrame, shape (n_models, n_columns)
        Indexed by model, best first; columns as of `ladder_table`.
    """
    metric, means = metric_of(result.metric), result.to_frame().astype(float)
    others = [metric_of(name) for name in means.columns if name != result.metric]
    digits = decimals_for(*table["fold_sd"], most=5)
    head = [f"{metric.head}{metric.arrow}", "sd over folds", f"share of {result.models[0]}'s"]
    rows = [
        [*_loss_cells(result, line, digits), *_score_cells(result, means, str(line["model"]))]
        for line in table.reset_index().to_dict(orient="records")
    ]
    times = f", repeated {result.n_repeats} times" if result.n_repeats > 1 else ""
    return Table(
        caption=f"All models, best first: means over {result.n_folds} folds{times}, on test "
        "samples. Arrows point to better values.",
        head=["model", *head, "seeds", "sd over seeds", *(f"{m.head}{m.arrow}" for m in others)],
        rows=rows,
        note=_ladder_note(result),
        strong=frozenset({0}),
    )


def _loss_cells(result: CrossvalResult, line: dict[Any, Any], digits: int) -> list[str]:
    """Name, loss, spread over folds, share; for encoders also seeds and the spread of these."""
    model, n = str(line["model"]), int(line["n_seeds"])
    cells = [model, number(line["loss"], digits), number(line["fold_sd"], digits)]
    cells.append(number(line["share"], 3))
    if model not in result.info.get("encoders", {}) and model not in result.seed_losses:
        return [*cells, _DASH, _DASH]
    return [*cells, str(n), number(line["seed_sd"], digits + 1) if n > 1 else "one seed"]


def _score_cells(result: CrossvalResult, means: pd.DataFrame, model: str) -> list[str]:
    """All other scores; the constant yardstick has no correlation, which is no failure."""
    cells = []
    for metric in means.columns.drop(result.metric, errors="ignore"):
        value = float(means[metric][model])
        expected = metric == "pearson" and model == result.models[0]
        digits = 3 if metric in METRICS and abs(value) < 10 else None
        cells.append(_DASH if expected and not np.isfinite(value) else number(value, digits))
    return cells


def _ladder_note(result: CrossvalResult) -> str:
    metric = metric_of(result.metric)
    per = "per sample and target" if result.metric == "mse" else "per sample"
    label = loss_label(result.metric, result.info.get("target_units"))
    text = f"{metric.head}: {label} {per}; sd: standard deviation; share: divided by that of "
    text += f"{result.models[0]}. "
    if result.seed_losses:
        text += "A model with several encoder seeds shows the mean over them. "
        both = [m for m in result.seed_losses if f"{m}{ENSEMBLE_SUFFIX}" in result.models]
        text += _ensemble_note(result, both[0]) if both else ""
    if "r2" in set(result.scores["metric"]):
        text += "R2: pooled over targets, against the training means. "
    if "r2_within" in set(result.scores["metric"]):
        text += "R2 within: against the training means of the test sample's own stratum. "
    if "fraction_r2" in set(result.scores["metric"]):
        text += "R2 of fractions: of isoforms' shares of their gene, against those of the means. "
    if "pearson" in set(result.scores["metric"]):
        text += "Pearson: median over the targets that vary; a constant prediction has none."
    return text.strip()


def _ensemble_note(result: CrossvalResult, model: str) -> str:
    n = len(result.seed_losses[model])
    return (
        f"{model}{ENSEMBLE_SUFFIX}: the loss of the mean prediction of the {n} seeds, not the mean "
        "of their losses; it is in no declared comparison. "
    )


def by_fold(result: CrossvalResult) -> list[Table]:
    """Mean loss of every row in every fold, and p values within each fold.

    Returns
    -------
    list of Table
        One table where it is not too wide, else losses and p values apart.
    """
    label = loss_label(result.metric, result.info.get("target_units"))
    caption = f"{label[0].upper()}{label[1:]} on the test samples of every fold"
    tested = ", and p values of paired t-tests over the samples of that fold"
    left, right = _fold_cells(result), _fold_p_cells(result)
    left_head, right_head = left.pop(0), right.pop(0)
    last, folded = frozenset({len(left) - 1}), len(left) > _MOST_SHOWN
    groups = [("", 2), ("loss", len(result.models)), ("p, paired t", len(right_head))]
    if not right_head:
        return [Table(caption=f"{caption}.", head=left_head, rows=left, strong=last, folded=folded)]
    if len(left_head) + len(right_head) <= _WIDEST:
        both = [a + b for a, b in zip(left, right, strict=True)]
        table = Table(
            caption=f"{caption}{tested}.",
            groups=groups,
            head=left_head + right_head,
            rows=both,
            note=_fold_note(result),
            strong=last,
            folded=folded,
        )
        return [table]
    names = [[row[0], *cells] for row, cells in zip(left[:-1], right, strict=False)]
    return [
        Table(caption=f"{caption}.", head=left_head, rows=left, strong=last, folded=folded),
        Table(
            caption="p values of paired t-tests over the test samples of every fold.",
            head=["fold", *right_head],
            rows=names,
            note=_fold_note(result),
            folded=folded,
        ),
    ]


def _fold_cells(result: CrossvalResult) -> list[list[str]]:
    """Head, one row a fold, and the means: fold, test samples, loss of every row."""
    losses = fold_losses(result)
    wide = losses.pivot(index=["repeat", "fold"], columns="model", values="loss")[result.models]
    sizes = losses.groupby(["repeat", "fold"])["n_test"].first()
    digits = decimals_for(wide.std().min(), most=5)
    rows = [["fold", "n", *result.models]]
    for (r, k), n, line in zip(wide.index.to_list(), sizes, wide.to_numpy(float), strict=True):
        name = f"{r + 1}.{k + 1}" if result.n_repeats > 1 else str(k + 1)
        rows.append([name, f"{n:,}", *(number(value, digits) for value in line)])
    return [*rows, ["mean", "", *(number(value, digits) for value in wide.mean())]]


def _fold_p_cells(result: CrossvalResult) -> list[list[str]]:
    """Head, one row a fold and an empty last one: p of every declared pair but the yardstick's."""
    table = family(result)
    pairs = list(zip(table["model_a"], table["model_b"], strict=True)) if len(table) else []
    pairs = [(a, b) for a, b in pairs if b != result.models[0]]
    tests = fold_tests(result.losses, result.folds, pairs=pairs)
    p = tests.set_index(["model_a", "model_b", "repeat", "fold"])["p"].to_dict()
    folds = sorted({(r, k) for r, row in enumerate(result.folds) for k in np.unique(row)})
    rows = [[f"{a} {_DASH} {b}" for a, b in pairs]]
    rows += [[p_cell(p[(*pair, r, k)]) for pair in pairs] for r, k in folds]
    return [*rows, [""] * len(pairs)]


def _fold_note(result: CrossvalResult) -> str:
    text = (
        "These p values describe the models fitted in that fold, given their training rows: they "
        "leave out what another training set would have changed, are not adjusted, and are never "
        "averaged. The claim rests on the corrected test over folds."
    )
    if result.info.get("n_groups"):
        text += " Samples of one donor are not independent: with donors these p are too small."
    return text
