"""The tables of the cross-validation report, as texts ready to be set."""

from typing import Any

import numpy as np
import pandas as pd

from m1pipe.evaluation.compare import fold_tests
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.evaluation.tables import fold_losses
from m1pipe.reports.layout import Table
from m1pipe.reports.numbers import decimals_for, interval, number, p_cell, percent
from m1pipe.reports.terms import HEADLINE_TEST, METRICS, TESTS, metric_of, test_label
from m1pipe.reports.words import family

_WIDEST = 12


def ladder(result: CrossvalResult, table: pd.DataFrame) -> Table:
    """Every row with its headline loss, its share of the yardstick's, its spreads, all scores.

    Parameters
    ----------
    result : CrossvalResult
        The result.
    table : DataFrame
        As of `ladder_table`, best first.
    """
    metric, means = metric_of(result.metric), result.to_frame().astype(float)
    others = [name for name in means.columns if name != result.metric]
    digits = decimals_for(*table["fold_sd"], most=5)
    some_seeds = bool(table["seed_sd"].notna().any())
    seed_heads = ["seeds", "sd between seeds"] if some_seeds else []
    head = ["row", f"{metric.head} {metric.arrow}", "sd over folds"]
    head += [f"share of {result.models[0]}'s", *seed_heads]
    head += [f"{metric_of(m).head} {metric_of(m).arrow}" for m in others]
    rows = []
    for line in table.reset_index().to_dict(orient="records"):
        model = str(line["model"])
        cells = [model, number(line["loss"], digits), number(line["fold_sd"], digits)]
        cells.append(number(line["share"], 3))
        if some_seeds:
            cells += _seed_cells(result, model, line, digits)
        cells += [_score_cell(result, model, m, means[m][model]) for m in others]
        rows.append(cells)
    return Table(
        caption=f"All rows, best first: means over {_folds_phrase(result)} of test scores. "
        f"Arrows point to better values.",
        head=head,
        rows=rows,
        note=_ladder_note(result, some_seeds),
        strong=frozenset({0}),
    )


def _score_cell(result: CrossvalResult, model: str, metric: str, value: float) -> str:
    """A score; the correlation of the constant yardstick is undefined, which is no failure."""
    if metric == "pearson" and model == result.models[0] and not np.isfinite(value):
        return "\N{EN DASH}"
    return number(value, 3) if metric in METRICS and abs(value) < 10 else number(value)


def _seed_cells(result: CrossvalResult, model: str, line: dict[Any, Any], digits: int) -> list[str]:
    if model not in result.info.get("encoders", {}) and model not in result.seed_losses:
        return ["\N{EN DASH}", "\N{EN DASH}"]
    n = int(line["n_seeds"])
    return [str(n), number(line["seed_sd"], digits + 1) if n > 1 else "one seed"]


def _ladder_note(result: CrossvalResult, some_seeds: bool) -> str:
    metric = metric_of(result.metric)
    unit = result.info.get("target_units")
    text = f"{metric.head}: {metric.label} per sample"
    if result.metric == "mse":
        text += " and target" + (f", in squared units of the targets ({unit})" if unit else "")
    elif result.metric == "log_loss":
        text += ", in nats"
    text += f"; share: divided by that of {result.models[0]}."
    if some_seeds:
        text += " A row with several encoder seeds shows the mean over its seeds."
    if "pearson" in set(result.scores["metric"]):
        text += " Pearson: median over targets that vary; a constant prediction has none."
    return text


def _folds_phrase(result: CrossvalResult) -> str:
    times = f", repeated {result.n_repeats} times" if result.n_repeats > 1 else ""
    return f"{result.n_folds} folds{times}"


def by_fold(result: CrossvalResult) -> list[Table]:
    """Mean loss of every row in every fold, and p values within each fold.

    Returns
    -------
    list of Table
        One table where it is not too wide, else losses and p values apart.
    """
    losses = fold_losses(result)
    wide = losses.pivot(index=["repeat", "fold"], columns="model", values="loss")[result.models]
    sizes = losses.drop_duplicates(["repeat", "fold"]).set_index(["repeat", "fold"])["n_test"]
    digits = decimals_for(wide.std().min(), most=5)
    names = [_fold_name(result, r, k) for r, k in wide.index.to_list()]
    loss_rows = [
        [name, f"{n:,}", *(number(v, digits) for v in line)]
        for name, n, line in zip(names, sizes, wide.to_numpy(float), strict=True)
    ]
    means = ["mean", "", *(number(v, digits) for v in wide.mean())]
    pairs = _described_pairs(result)
    tests = fold_tests(result.losses, result.folds, pairs=pairs)
    p_values = tests.set_index(["model_a", "model_b", "repeat", "fold"])["p"].to_dict()
    p_rows = [[p_cell(p_values[(*pair, r, k)]) for pair in pairs] for r, k in wide.index]
    p_heads = [f"p {a} / {b}" for a, b in pairs]
    caption = f"Mean {metric_of(result.metric).label} on the test samples of every fold"
    head = ["fold", "n", *result.models]
    if len(head) + len(p_heads) <= _WIDEST:
        rows = [left + right for left, right in zip(loss_rows, p_rows, strict=True)]
        rows.append(means + [""] * len(pairs))
        return [
            Table(
                caption=f"{caption}, and p values of paired t-tests over the samples of that fold.",
                head=head + p_heads,
                rows=rows,
                note=_fold_note(result),
                strong=frozenset({len(rows) - 1}),
            )
        ]
    p_table = [[name, *right] for name, right in zip(names, p_rows, strict=True)]
    return [
        Table(
            caption=f"{caption}.",
            head=head,
            rows=[*loss_rows, means],
            strong=frozenset({len(loss_rows)}),
        ),
        Table(
            caption="p values of paired t-tests over the test samples of every fold.",
            head=["fold", *p_heads],
            rows=p_table,
            note=_fold_note(result),
        ),
    ]


def _fold_name(result: CrossvalResult, repeat: int, fold: int) -> str:
    return f"{repeat + 1}.{fold + 1}" if result.n_repeats > 1 else str(fold + 1)


def _described_pairs(result: CrossvalResult) -> list[tuple[str, str]]:
    """Declared pairs, those with the yardstick left out: there the answer is never in doubt."""
    table = family(result)
    pairs = list(zip(table["model_a"], table["model_b"], strict=True)) if len(table) else []
    return [(a, b) for a, b in pairs if b != result.models[0]]


def _fold_note(result: CrossvalResult) -> str:
    text = (
        "These p values describe the models fitted in that fold, given their training rows: they "
        "leave out what another training set would have changed, are not adjusted, and are never "
        "averaged. The claim rests on the corrected test over folds."
    )
    if result.info.get("n_groups"):
        text += " Samples of one donor are not independent: with donors these p are too small."
    return text


def comparisons(result: CrossvalResult) -> list[Table]:
    """The declared family, the headline test first and the others beside it; then all pairs.

    Returns
    -------
    list of Table
        Empty where nothing was compared.
    """
    declared = family(result)
    found = [_family_table(result, declared)] if len(declared) else []
    table = result.comparisons
    if len(table):
        same = (table["test"] == HEADLINE_TEST) & (table["metric"] == result.metric)
        others = table[same].drop(index=declared.index)
        found += [_pairs_table(result, others)] if len(others) else []
    return found


def _family_table(result: CrossvalResult, declared: pd.DataFrame) -> Table:
    """One row a declared pair: the headline with its interval, then p values that describe."""
    names = dict.fromkeys(result.comparisons["test"])
    beside = [t for t in names if t in TESTS and t not in (HEADLINE_TEST, "bootstrap")]
    head = [*_PAIR_HEAD, "p", "p Holm", "d_z", *(f"p {test_label(test)}" for test in beside)]
    rows = []
    for row in declared.to_dict(orient="records"):
        cells = [*_pair_cells(row), p_cell(row["p"]), p_cell(row["p_holm"])]
        cells.append(_effect_cell(result, row))
        cells += [_beside_cell(result, row, test) for test in beside]
        rows.append(cells)
    return Table(
        caption=f"Declared comparisons: corrected resampled t-test over "
        f"{int(declared['n_independent'].max())} fold means, Holm over {len(declared)}; "
        f"to its right what other tests say. {_difference_phrase(result)}",
        head=head,
        rows=rows,
        note=_FAMILY_NOTE + (_DONOR_NOTE if result.info.get("n_groups") else ""),
    )


_PAIR_HEAD = ("comparison", "difference", "95 % CI", "of rival")
_FAMILY_NOTE = (
    "The interval is that of the corrected test, not adjusted for several comparisons; of rival: "
    "the difference as a share of the second row's loss; d_z: mean over standard deviation of the "
    "differences of the independent units (donors where known, else samples). A difference is "
    "claimed where p Holm is below 0.05. The tests to the right are conditional on the models "
    "trained here (another training set would have given others), are not adjusted and carry no "
    "claim; n: independent units; Wilcoxon and sign flips assume symmetric differences."
)
_DONOR_NOTE = (
    " Samples of one donor are not independent: the paired t over samples ignores that and "
    "rejects too often."
)


def _pairs_table(result: CrossvalResult, others: pd.DataFrame) -> Table:
    rows = [[*_pair_cells(row), p_cell(row["p"])] for row in others.to_dict(orient="records")]
    return Table(
        caption=f"All other pairs by the same test, without a claim. {_difference_phrase(result)}",
        head=[*_PAIR_HEAD, "p, not adjusted"],
        rows=rows,
        note="Every test of every pair: comparisons.csv.",
        folded=True,
    )


def _difference_phrase(result: CrossvalResult) -> str:
    label = metric_of(result.metric).label
    return f"Difference: {label} of the first row minus the second; negative: the first is better."


def _pair_cells(row: dict[Any, Any]) -> list[str]:
    digits = decimals_for(row["ci_high"] - row["ci_low"], row["difference"])
    return [
        f"{row['model_a']} \N{EN DASH} {row['model_b']}",
        number(row["difference"], digits),
        interval(row["ci_low"], row["ci_high"], digits),
        percent(row["effect"], 1),
    ]


def _effect_cell(result: CrossvalResult, row: dict[Any, Any]) -> str:
    """d_z over donors where they are known, else over samples."""
    found = [_same_pair(result, row, test) for test in ("clustered_t", "paired_t")]
    return next((number(test["effect"], 2) for test in found if test), "\N{EN DASH}")


def _beside_cell(result: CrossvalResult, row: dict[Any, Any], test: str) -> str:
    """Its p by another test, with the number of units."""
    found = _same_pair(result, row, test)
    return f"{p_cell(found['p'])} (n {found['n_independent']:,})" if found else "\N{EN DASH}"


def _same_pair(result: CrossvalResult, row: dict[Any, Any], test: str) -> dict[Any, Any]:
    """Row of another test of the same pair and metric; empty where there is none."""
    table, keys = result.comparisons, ["model_a", "model_b", "metric"]
    same = (table[keys] == [row[key] for key in keys]).all(axis=1) & (table["test"] == test)
    found = table[same].to_dict(orient="records")
    return found[0] if found else {}
