"""The decision in words: what each declared comparison shows, who is ahead, what to mind.

A sentence claims a difference only where Holm's adjusted p is below 0.05; it says "nothing is
shown" otherwise, never "equal". Fewer than three trained encoders carry no sentence about the
model in general.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from m1pipe.evaluation.compare import declared_family
from m1pipe.evaluation.ladder import plain_row
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.evaluation.significance import holm
from m1pipe.reports.numbers import (
    count,
    decimals_for,
    interval,
    listing,
    number,
    p_value,
    percent,
)
from m1pipe.reports.terms import (
    ALPHA,
    ENOUGH_SEEDS,
    RECOMMENDED_REPEATS,
    headline_test,
    metric_of,
    spoken,
)

Kind = Literal["better", "worse", "open", "failed"]


@dataclass(frozen=True)
class Verdict:
    """One declared comparison in words.

    Attributes
    ----------
    kind : str
        "better", "worse", "open" (nothing is shown) or "failed" (it could not be computed).
    model, rival : str
        The two rows.
    text : str
        The sentence, with its numbers.
    """

    kind: Kind
    model: str
    rival: str
    text: str


def family(result: CrossvalResult) -> pd.DataFrame:
    """Declared comparisons by the headline test, those without an adjusted p value included."""
    table, info = result.comparisons, result.info
    if not len(table):
        return table
    mine = (table["test"] == headline_test(info)) & (table["metric"] == result.metric)
    pairs = declared_family(list(info.get("encoders", {})), result.models, info.get("linear_rival"))
    named = pd.MultiIndex.from_frame(table[["model_a", "model_b"]]).isin(pairs)
    return table[mine & (table["p_holm"].notna() | (table["p"].isna() & named))]


def n_seeds(result: CrossvalResult, model: str) -> int:
    """Number of trained encoders behind one fold's loss of a row; 0 where there is no encoder."""
    if model in result.seed_losses:
        return len(result.seed_losses[model])
    return 1 if plain_row(model) in result.info.get("encoders", {}) else 0


def question(result: CrossvalResult) -> str:
    """The question that the cross-validation answers."""
    info = result.info
    if info.get("kind") == "regression":
        what = f"the levels of {count(info.get('n_targets'), 'target')}"
    else:
        what = str(info.get("label") or "the labels")
    names = listing(list(info.get("encoders", {}))) or "learned"
    return (
        f"Do the latent features of trained encoders ({names}) predict {what} better than the "
        f"genes themselves, a linear model and {spoken(result.models[0])} - by how much, and how "
        "sure is that?"
    )


def verdicts(result: CrossvalResult) -> list[Verdict]:
    """One sentence for each declared comparison, in the order of the table."""
    table = family(result)
    return [_verdict(row, result, len(table)) for row in table.to_dict(orient="records")]


def _verdict(row: Mapping[Any, Any], result: CrossvalResult, n_family: int) -> Verdict:
    a, b = str(row["model_a"]), str(row["model_b"])
    if not all(math.isfinite(row[k]) for k in ("difference", "ci_low", "ci_high", "p_holm")):
        text = f"{a} and {b} could not be compared: the test gave no number (see the warnings)."
        return Verdict("failed", a, b, text)
    tail = f"p {p_value(row['p_holm'])} after Holm over {count(n_family, 'comparison')}"
    tail += _seed_phrase(result, a)
    if row["p_holm"] >= ALPHA:
        return Verdict("open", a, b, _open_text(row, tail))
    kind: Kind = "better" if row["difference"] < 0 else "worse"
    return Verdict(kind, a, b, _claim_text(row, kind, _subject(result, a), tail))


def _claim_text(row: Mapping[Any, Any], kind: Kind, subject: str, tail: str) -> str:
    """`vae is better than raw by 0.12 (95 % CI 0.08 to 0.16), p = ...`."""
    sign = -1 if kind == "better" else 1
    gap, *ends = (sign * row[k] for k in ("difference", "ci_low", "ci_high"))
    low, high = sorted(ends)
    digits = decimals_for((high - low) / 2)
    return (
        f"{subject} {kind} than {spoken(str(row['model_b']))} by {number(gap, digits)} "
        f"(95 % CI {interval(low, high, digits)}), {tail}."
    )


def _open_text(row: Mapping[Any, Any], tail: str) -> str:
    """`No difference between vae and ridge is shown: ...`, with what the interval leaves open."""
    gap, low, high = (row[k] for k in ("difference", "ci_low", "ci_high"))
    digits = decimals_for((high - low) / 2)
    a, b = row["model_a"], spoken(str(row["model_b"]))
    return (
        f"No difference between {a} and {b} is shown: the loss of {a} is "
        f"{_sided(gap, digits)} than that of {b} (95 % CI {_sided(low, digits)} to "
        f"{_sided(high, digits)}), {tail}."
    )


def _sided(value: float, digits: int) -> str:
    return f"{number(abs(value), digits)} {'lower' if value < 0 else 'higher'}"


def _subject(result: CrossvalResult, model: str) -> str:
    """Who the sentence is about, with its verb: the model, or only the encoders trained here."""
    n = n_seeds(result, model)
    if n == 0 or n >= ENOUGH_SEEDS:
        return f"{model} is"
    if result.info["encoders"][plain_row(model)].get("mode") == "fold":
        times = "once" if n == 1 else "twice"
        return f"The {model} encoder trained {times} in each fold is"
    if n == 1:
        return f"The one trained {model} encoder is"
    return f"The {n} trained {model} encoders are"


def _seed_phrase(result: CrossvalResult, model: str) -> str:
    n = n_seeds(result, model)
    return f", {count(n, 'encoder seed')}" if n else ""


def label_texts(result: CrossvalResult) -> list[str]:
    """From which number of training samples on each encoder beats the linear rival, if any."""
    tests, rival = result.curve_tests, result.info.get("linear_rival")
    if not len(tests) or rival is None:
        return []
    encoders = list(result.info.get("encoders", {}))
    table = tests[tests["model_a"].isin(encoders) & (tests["model_b"] == rival)]
    table = table.assign(p_holm=holm(table["p"].to_numpy(float)))
    return [
        _label_text(result, str(model), str(rival), own.sort_values("n_train"), len(table))
        for model, own in table.groupby("model_a", sort=False)
    ]


def _label_text(
    result: CrossvalResult, model: str, rival: str, table: pd.DataFrame, n_family: int
) -> str:
    shown = (table["difference"] < 0) & (table["p_holm"] < ALPHA)
    better, others = ([int(n) for n in table["n_train"][mask]] for mask in (shown, ~shown))
    family = f"Holm over the {count(n_family, 'comparison')} of this curve"
    if not better:
        return (
            f"At none of {_sizes(others)} {model} is shown to be better than {spoken(rival)} "
            f"({family})."
        )
    if not others or better[0] > others[-1]:
        where = f"from {better[0]:,} labelled training samples on"
    else:
        where = f"at {_sizes(better)}, and not shown to be at {listing([f'{n:,}' for n in others])}"
    return (
        f"{_subject(result, model)} better than {spoken(rival)} {where} (p below {ALPHA} at each "
        f"after {family})."
    )


def _sizes(sizes: list[int]) -> str:
    return f"{listing([f'{n:,}' for n in sizes])} labelled training samples"


def winner(result: CrossvalResult, ladder: pd.DataFrame) -> str:
    """Which model has the lowest loss of all.

    Parameters
    ----------
    result : CrossvalResult
        The result.
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


def runner_up(gap: Mapping[Any, Any] | None) -> str:
    """How far the runner-up is behind.

    Parameters
    ----------
    gap : mapping, optional
        Row of the headline test: the best model minus the runner-up.
    """
    if gap is None or not math.isfinite(gap["difference"] + gap["ci_low"]):
        return "How far the runner-up is behind could not be computed."
    low, high = -gap["ci_high"], -gap["ci_low"]
    digits = decimals_for((high - low) / 2)
    text = (
        f"The runner-up, {spoken(gap['model_b'])}, is behind by "
        f"{number(-gap['difference'], digits)} (95 % CI {interval(low, high, digits)}; "
        f"p {p_value(gap['p'])}, not adjusted)"
    )
    if low <= 0 <= high:
        text += ": these data do not tell the two apart"
    return f"{text}. The pair was picked after seeing the results, so no claim is made for it."


def cautions(result: CrossvalResult) -> list[str]:
    """What limits the sentences above: repeats, seeds, donors, confounding."""
    found = [_repeats_caution(result), _seeds_caution(result), _groups_caution(result)]
    alarmed = " ".join(alarm.text for alarm in result.alarms)
    confounding = [str(text) for text in result.info.get("confounding") or []]
    found += [text for text in confounding if text not in alarmed]
    return [text for text in found if text]


def _repeats_caution(result: CrossvalResult) -> str:
    if result.info.get("leave_out"):
        return (
            f"{result.n_folds} strata were left out in turn, and strata are the independent units:"
            f" p cannot fall below {max(2 / 2**result.n_folds, 1e-4):.2g}. Strata weigh the same,"
            " however many samples they have; intervals are of the t over strata."
        )
    if result.n_repeats >= RECOMMENDED_REPEATS:
        return ""
    k, r = result.n_folds, result.n_repeats
    done = f"One round of {k} folds was run" if r == 1 else f"{k} folds were run {r} times"
    return (
        f"{done}; 5 x 5 folds (--folds 5 --repeats 5) are recommended where they can be "
        f"afforded. The headline test here has {k * r - 1} degrees of freedom, there 24, and so "
        "finds smaller differences."
    )


def _seeds_caution(result: CrossvalResult) -> str:
    few = {m: n_seeds(result, m) for m in result.models if 0 < n_seeds(result, m) < ENOUGH_SEEDS}
    if not few:
        return ""
    named = listing([f"{model} ({count(n, 'seed')})" for model, n in few.items()])
    return (
        f"Fewer than three encoder seeds stand behind {named}: what is said of them holds for "
        "the encoders trained here and does not carry to the model in general, because one "
        "trained encoder is one draw."
    )


def _groups_caution(result: CrossvalResult) -> str:
    n_groups = result.info.get("n_groups")
    if not n_groups:
        return ""
    if result.info.get("leave_out"):
        return (
            f"{count(len(result.samples), 'sample')} come from {count(n_groups, 'donor')}, and a "
            "donor may stand on both sides of a split; the tests beside the headline average the "
            "differences within donor."
        )
    return (
        f"{count(len(result.samples), 'sample')} come from {count(n_groups, 'donor')}: donors "
        "are the independent units. No donor stands on both sides of a split, and the tests "
        "beside the headline average the differences within donor, each donor weighing the same."
    )
