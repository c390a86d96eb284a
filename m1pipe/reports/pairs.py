"""The tables of comparisons: the declared family, and every other pair without a claim."""

from typing import Any

import pandas as pd

from m1pipe.evaluation.result import CrossvalResult
from m1pipe.reports.layout import Table
from m1pipe.reports.numbers import decimals_for, interval, number, p_cell, percent
from m1pipe.reports.terms import (
    HEADLINE_TEST,
    TESTS,
    headline_phrase,
    headline_test,
    loss_label,
)
from m1pipe.reports.words import family

_DASH = "\N{EN DASH}"
_PAIR_HEAD = ("comparison", "difference", "95 % CI", "relative")
_NO_P = (HEADLINE_TEST, "strata_flip", "bootstrap")
_FAMILY_NOTE = (
    "The interval is that of the headline test, not adjusted for several comparisons; relative: "
    "the difference as a share of the second model's loss. A difference is claimed where p Holm is "
    "below 0.05. The tests to the right are conditional on the models trained here (another "
    "training set would have given others), are not adjusted and carry no claim; n: their units; "
    "d_z: mean over standard deviation of the differences of those units (donors where they are "
    "known, else samples). Wilcoxon and sign flips assume symmetric differences."
)
_DONOR_NOTE = (
    " Samples of one donor are not independent: the t-test over samples ignores that and rejects "
    "too often."
)


def comparisons(result: CrossvalResult) -> list[Table]:
    """The declared family, the headline test first and the others beside it; then all pairs.

    Returns
    -------
    list of Table
        Empty where nothing was compared.
    """
    declared = family(result)
    found = [_family_table(result, declared)] if len(declared) else []
    found += [_equivalence_table(result)] if result.info.get("equivalence") else []
    table = result.comparisons
    if len(table):
        same = (table["test"] == headline_test(result.info)) & (table["metric"] == result.metric)
        others = table[same].drop(index=declared.index)
        found += [_pairs_table(result, others)] if len(others) else []
    return found


def _family_table(result: CrossvalResult, declared: pd.DataFrame) -> Table:
    """One row a declared pair: the headline with its interval, then p values that describe."""
    names = dict.fromkeys(result.comparisons["test"])
    beside = [test for test in names if test in TESTS and test not in _NO_P]
    n_units = [_units(result, test) for test in beside]
    rows = [_family_row(result, row, beside) for row in declared.to_dict(orient="records")]
    n_folds, phrase = int(declared["n_independent"].max()), headline_phrase(result.info)
    return Table(
        caption=f"Declared comparisons. {_difference_phrase(result)}",
        groups=[
            ("", 1),
            (f"{phrase} ({n_folds}), Holm over {len(declared)}", 5),
            ("d_z, and p of other tests: describe only", 1 + len(beside)),
        ],
        head=[
            *_PAIR_HEAD,
            "p",
            "p Holm",
            "d_z",
            *(
                f"{TESTS[test]} (n\N{NO-BREAK SPACE}{n})"
                for test, n in zip(beside, n_units, strict=True)
            ),
        ],
        rows=rows,
        note=_FAMILY_NOTE + (_DONOR_NOTE if result.info.get("n_groups") else ""),
    )


def _equivalence_table(result: CrossvalResult) -> Table:
    """One row a declared pair: how probable it is that the first is better, the same, worse."""
    share = percent(result.info["equivalence"]["rope_share"], 1)
    rows = []
    for line in result.info["equivalence"]["pairs"]:
        cells = [number(line[name], 3) for name in ("p_lower", "p_same", "p_higher")]
        rows.append([f"{line['model_a']} {_DASH} {line['model_b']}", *cells])
    return Table(
        caption="Probability that the first model is better, practically the same, or worse.",
        head=["comparison", "better", "the same", "worse"],
        rows=rows,
        note="Bayesian correlated t-test over folds (Corani and Benavoli 2015; Benavoli et al. "
        "2017), flat prior. The same: a difference of at most "
        f"{share} of the second model's loss. It describes, and carries no claim.",
    )


def _family_row(result: CrossvalResult, row: dict[Any, Any], beside: list[str]) -> list[str]:
    found = [_same_pair(result, row, test) for test in beside]
    effects = [_same_pair(result, row, test) for test in ("clustered_t", "paired_t")]
    return [
        *_pair_cells(row),
        p_cell(row["p"]),
        p_cell(row["p_holm"]),
        next((number(test["effect"], 2) for test in effects if test), _DASH),
        *(p_cell(test["p"]) if test else _DASH for test in found),
    ]


def _units(result: CrossvalResult, test: str) -> str:
    """Number of independent units behind a test, such as `400`."""
    table = result.comparisons
    sizes = table.loc[table["test"] == test, "n_independent"].astype(int)
    low, high = int(sizes.min()), int(sizes.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _same_pair(result: CrossvalResult, row: dict[Any, Any], test: str) -> dict[Any, Any]:
    """Row of another test of the same pair and metric; empty where there is none."""
    table, keys = result.comparisons, ["model_a", "model_b", "metric"]
    same = (table[keys] == [row[key] for key in keys]).all(axis=1) & (table["test"] == test)
    found = table[same].to_dict(orient="records")
    return found[0] if found else {}


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
    label = loss_label(result.metric, result.info.get("target_units"))
    return (
        f"Difference: {label} of the first model minus the second; "
        "lower is better, so a negative difference favours the first."
    )


def _pair_cells(row: dict[Any, Any]) -> list[str]:
    digits = decimals_for((row["ci_high"] - row["ci_low"]) / 2)
    return [
        f"{row['model_a']} {_DASH} {row['model_b']}",
        number(row["difference"], digits),
        interval(row["ci_low"], row["ci_high"], digits),
        percent(row["effect"], 1),
    ]
