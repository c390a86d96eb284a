"""The answer in sentences, for the page and the terminal: what each declared comparison shows.

A sentence claims a difference only where Holm's adjusted p is below 0.05; otherwise it says that
no difference is shown, never that models are equal. With fewer than three trained encoders it
speaks of those encoders, not of the model in general.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from m1pipe.evaluation.compare import declared_family
from m1pipe.evaluation.ladder import parse_model
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.evaluation.significance import holm
from m1pipe.reports.page import (
    ALPHA,
    Kind,
    Verdict,
    count,
    decimals_for,
    interval,
    listing,
    number,
    p_value,
    percent,
)
from m1pipe.reports.terms import headline_test, metric_of, spoken

ENOUGH_SEEDS = 3


def headline_rows(result: CrossvalResult) -> pd.DataFrame:
    """Comparisons of the headline metric by the headline test; empty where there are none."""
    table = result.comparisons
    if not len(table):
        return table
    return table[(table["test"] == headline_test(result.info)) & (table["metric"] == result.metric)]


def family(result: CrossvalResult) -> pd.DataFrame:
    """Declared comparisons by the headline test, those without an adjusted p value included."""
    table, info = headline_rows(result), result.info
    if not len(table):
        return table
    pairs = declared_family(list(info.get("encoders", {})), result.models, info.get("linear_rival"))
    named = pd.MultiIndex.from_frame(table[["model_a", "model_b"]]).isin(pairs)
    return table[table["p_holm"].notna() | (table["p"].isna() & named)]


def n_seeds(result: CrossvalResult, model: str) -> int:
    """Number of trained encoders behind a model's loss in one fold; 0 without an encoder."""
    if model in result.seed_losses:
        return len(result.seed_losses[model])
    return 1 if _encoder_of(result, model) is not None else 0


def _encoder_of(result: CrossvalResult, model: str) -> str | None:
    """Encoder whose latents a network, or a variant of it, is fitted to."""
    encoders = result.info.get("encoders", {})
    parsed = parse_model(model, encoders)
    plain = parsed.head == "network" and not parsed.own_gene
    return parsed.source if plain and parsed.source in encoders else None


def verdicts(result: CrossvalResult) -> list[Verdict]:
    """One sentence for each declared comparison, in the order of the table."""
    table = family(result)
    return [_verdict(row, result, len(table)) for row in table.to_dict(orient="records")]


def _verdict(row: Mapping[Any, Any], result: CrossvalResult, n_family: int) -> Verdict:
    a, b = str(row["model_a"]), str(row["model_b"])
    if not all(math.isfinite(row[k]) for k in ("difference", "ci_low", "ci_high", "p_holm")):
        text = f"{a} and {b} could not be compared: the test gave no number (see the warnings)."
        return Verdict("failed", text, row)
    n = n_seeds(result, a)
    tail = f"p {p_value(row['p_holm'])} after Holm over {count(n_family, 'comparison')}"
    tail += f", {count(n, 'encoder seed')}" if n else ""
    if row["p_holm"] >= ALPHA:
        return Verdict("open", f"{_no_difference(row)}, {tail}.", row)
    kind: Kind = "better" if row["difference"] < 0 else "worse"
    return Verdict(kind, f"{_subject(result, a)} {kind} than {_by_how_much(row)}, {tail}.", row)


def _by_how_much(row: Mapping[Any, Any]) -> str:
    """`raw by 0.12 (95 % CI 0.08 to 0.16)`, whichever of the two is better."""
    sign = -1 if row["difference"] < 0 else 1
    gap, *ends = (sign * row[k] for k in ("difference", "ci_low", "ci_high"))
    low, high = sorted(ends)
    digits = decimals_for((high - low) / 2)
    rival = spoken(str(row["model_b"]))
    return f"{rival} by {number(gap, digits)} (95 % CI {interval(low, high, digits)})"


def _no_difference(row: Mapping[Any, Any]) -> str:
    """`No difference between vae and ridge is shown: ...`, with what the interval leaves open."""
    a, b = row["model_a"], spoken(str(row["model_b"]))
    digits = decimals_for((row["ci_high"] - row["ci_low"]) / 2)
    gap, low, high = (
        f"{number(abs(row[k]), digits)} {'lower' if row[k] < 0 else 'higher'}"
        for k in ("difference", "ci_low", "ci_high")
    )
    return (
        f"No difference between {a} and {b} is shown: the loss of {a} is {gap} than that of {b} "
        f"(95 % CI {low} to {high})"
    )


def _subject(result: CrossvalResult, model: str) -> str:
    """What the sentence is about, with its verb: the model, or only the encoders trained here."""
    n = n_seeds(result, model)
    if n == 0 or n >= ENOUGH_SEEDS:
        return f"{model} is"
    if result.info["encoders"][_encoder_of(result, model)].get("mode") == "fold":
        times = "once" if n == 1 else "twice"
        return f"The {model} encoder trained {times} in each fold is"
    if n == 1:
        return f"The one trained {model} encoder is"
    return f"The {n} trained {model} encoders are"


def winner(result: CrossvalResult, ladder: pd.DataFrame) -> str:
    """Which model has the lowest loss of all.

    Parameters
    ----------
    result : CrossvalResult
    ladder : DataFrame, shape (n_models, n_columns)
        Columns loss and share, indexed by model, best first.
    """
    best = ladder.iloc[0]
    text = (
        f"Of the {len(ladder)} models compared, {ladder.index[0]} has the lowest "
        f"{metric_of(result.metric).label}: {number(best['loss'])}"
    )
    if math.isfinite(best["share"]) and ladder.index[0] != result.models[0]:
        text += f", {percent(best['share'], 1)} of that of {spoken(result.models[0])}"
    return f"{text}."


def runner_up(result: CrossvalResult, ladder: pd.DataFrame) -> str:
    """How far the second best model is behind; parameters as of `winner`."""
    row = next(
        (
            row
            for row in headline_rows(result).to_dict(orient="records")
            if {row["model_a"], row["model_b"]} == set(ladder.index[:2])
        ),
        None,
    )
    if row is None or not math.isfinite(row["difference"] + row["ci_low"]):
        return "How far the runner-up is behind could not be computed."
    low, gap, high = (row[k] for k in ("ci_low", "difference", "ci_high"))
    if row["model_a"] == ladder.index[0]:
        low, gap, high = -high, -gap, -low
    digits = decimals_for((high - low) / 2)
    text = (
        f"The runner-up, {spoken(str(ladder.index[1]))}, is behind by {number(gap, digits)} "
        f"(95 % CI {interval(low, high, digits)}; p {p_value(row['p'])}, not adjusted)"
    )
    if low <= 0 <= high:
        text += ": these data do not tell the two apart"
    return f"{text}. The pair was picked after seeing the results, so no claim is made for it."


def label_efficiency(result: CrossvalResult) -> list[str]:
    """From which number of training samples on each encoder beats the linear model, if any."""
    tests, rival = result.curve_tests, result.info.get("linear_rival")
    if not len(tests) or rival is None:
        return []
    encoders = list(result.info.get("encoders", {}))
    table = tests[tests["model_a"].isin(encoders) & (tests["model_b"] == rival)]
    table = table.assign(p_holm=holm(table["p"].to_numpy(float)))
    holm_phrase = f"Holm over the {count(len(table), 'comparison')} of this curve"
    return [
        _from_how_many(
            result, str(model), spoken(str(rival)), own.sort_values("n_train"), holm_phrase
        )
        for model, own in table.groupby("model_a", sort=False)
    ]


def _from_how_many(
    result: CrossvalResult, model: str, rival: str, table: pd.DataFrame, holm_phrase: str
) -> str:
    shown = (table["difference"] < 0) & (table["p_holm"] < ALPHA)
    better, others = ([int(n) for n in table["n_train"][mask]] for mask in (shown, ~shown))
    samples = "labelled training samples"
    if not better:
        return (
            f"At none of {listing(others)} {samples} {model} is shown to be better than {rival} "
            f"({holm_phrase})."
        )
    where = f"at {listing(better)} {samples}, and not shown to be at {listing(others)}"
    if not others or better[0] > others[-1]:
        where = f"from {better[0]:,} {samples} on"
    return (
        f"{_subject(result, model)} better than {rival} {where} (p below {ALPHA} at each after "
        f"{holm_phrase})."
    )
