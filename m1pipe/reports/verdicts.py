"""The answer in sentences, for the page and the terminal: yes or no, by how much, how sure.

A sentence claims a difference only where Holm's adjusted p is below 0.05; otherwise it says that
no difference is shown, never that models are equal. With fewer than three trained encoders it
speaks of those encoders, not of the model in general. Percentages are of the other model's loss.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from m1pipe.evaluation.compare import declared_family
from m1pipe.evaluation.compared_models import LINEAR_TRANSFER, parse_model
from m1pipe.evaluation.result import CrossvalResult, best_text, ladder_table
from m1pipe.evaluation.significance import holm
from m1pipe.reports.page import (
    ALPHA,
    Kind,
    Verdict,
    decimals_for,
    listing,
    number,
    p_value,
    percent,
)
from m1pipe.reports.terms import headline_test, metric_of, spoken

ENOUGH_SEEDS = 3
MOST_CLAUSES = 3  # encoders that the answer treats one by one
_MOST_PERCENT = 900
_MOST_NAMES = 6
_RELATION = {"better": "better than", "worse": "worse than", "open": "not shown to differ from"}


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
    """One sentence for each declared comparison, those with the baseline last."""
    found = [
        sentence(row, str(row["model_a"]), spoken(str(row["model_b"])))
        for row in family(result).to_dict(orient="records")
    ]
    rival = result.info.get("linear_rival")
    places = {rival: 0, "raw": 1, result.models[0]: 3}
    return sorted(found, key=lambda verdict: places.get(verdict.row["model_b"], 2))


def sentence(row: Mapping[Any, Any], a: str, b: str) -> Verdict:
    """What one comparison shows, its p adjusted by Holm; an interval is given with either answer.

    Parameters
    ----------
    row : mapping
        By the names of the columns of `comparisons.csv`, `effect` as a share of b's loss.
    a, b : str
        What the models are called.
    """
    if not all(math.isfinite(row[k]) for k in ("difference", "ci_low", "ci_high", "p_holm")):
        text = f"{a} and {b} could not be compared: the test gave no number."
        return Verdict("failed", text, row)
    how_much = f"{_lower_or_higher(row)}, p {p_value(row['p_holm'])}"
    if row["p_holm"] >= ALPHA:
        text = f"No difference between {a} and {b} is shown: the loss of {a} is {how_much}."
        return Verdict("open", text, row)
    kind: Kind = "better" if row["difference"] < 0 else "worse"
    return Verdict(kind, f"{a} is {kind} than {b}: its loss is {how_much}.", row)


def _shares(row: Mapping[Any, Any]) -> tuple[float, float, float]:
    """Difference and ends of its interval as shares of the second model's loss."""
    gap, low, high = (float(row[k]) for k in ("difference", "ci_low", "ci_high"))
    loss = gap / row["effect"] if row["effect"] else math.nan
    return float(gap / loss), float(low / loss), float(high / loss)


def _lower_or_higher(row: Mapping[Any, Any]) -> str:
    """`12 % lower (95 % CI 8 % to 16 % lower)`, in units of the loss where shares are not known."""
    values, unit = [100 * share for share in _shares(row)], " %"
    digits = _digits(*values)
    if not all(abs(value) <= _MOST_PERCENT for value in values):
        values, unit = [float(row[k]) for k in ("difference", "ci_low", "ci_high")], ""
        digits = decimals_for((values[2] - values[1]) / 2)
    gap, low, high = (f"{number(abs(value), digits)}{unit}" for value in values)
    ways = ["lower" if value < 0 else "higher" for value in values]
    if ways[1] == ways[2]:
        nearest, farthest = (low, high) if ways[1] == "higher" else (high, low)
        return f"{gap} {ways[0]} (95 % CI {nearest} to {farthest} {ways[1]})"
    return f"{gap} {ways[0]} (95 % CI {low} {ways[1]} to {high} {ways[2]})"


def _digits(gap: float, low: float, high: float) -> int:
    """Decimals of a percentage: those that its interval supports, one more where it would be 0."""
    digits = decimals_for((high - low) / 2, significant=1)
    return digits + 1 if math.isfinite(gap) and gap and not round(gap, digits) else digits


def _signed(row: Mapping[Any, Any]) -> str:
    """`+51 %`; empty where it is not known."""
    values = [100 * share for share in _shares(row)]
    if values[0] > _MOST_PERCENT:
        return f"more than {1 + _MOST_PERCENT // 100} times its loss"
    sign = "+" if values[0] > 0 else ""
    text = f"{sign}{number(values[0], _digits(*values))} %"
    return text if math.isfinite(values[0]) else ""


def answer(result: CrossvalResult) -> Verdict:
    """Whether the encoders predict better than the linear model and the same model on the genes.

    Returns
    -------
    Verdict
        A sentence that begins with Yes, No, In part, Undecided or Unknown; one for each of these
        where the encoders differ.
    """
    by_encoder: dict[str, list[Verdict]] = {}
    for verdict in verdicts(result):
        if str(verdict.row["model_a"]) in result.info.get("encoders", {}):
            by_encoder.setdefault(str(verdict.row["model_a"]), []).append(verdict)
    groups: dict[str, dict[str, list[Verdict]]] = {}
    for model, found in by_encoder.items():
        rivals = [v for v in found if v.row["model_b"] != result.models[0]] or found
        groups.setdefault(_overall([v.kind for v in rivals]), {})[model] = rivals
    if not groups:
        return Verdict("open", "No encoder was compared with another model, so nothing is claimed.")
    texts = []
    for word, group in groups.items():
        names = listing([*list(group)[:_MOST_NAMES], *_more(len(group) - _MOST_NAMES)])
        what = _one_by_one(result, group) if len(by_encoder) <= MOST_CLAUSES else _ranges(group)
        told = len(groups) > 1 or len(by_encoder) > MOST_CLAUSES
        texts.append(f"{word}{f' for {names}' if told else ''}: {what}.")
    kinds: dict[str, Kind] = {"Yes": "better", "No": "worse", "Unknown": "failed"}
    kind = kinds.get(next(iter(groups)), "open") if len(groups) == 1 else "open"
    return Verdict(kind, " ".join(texts))


def _overall(kinds: Sequence[Kind]) -> str:
    """The answer for an encoder, from its comparisons."""
    if "better" in kinds:
        return "Yes" if set(kinds) == {"better"} else "In part"
    if "worse" in kinds:
        return "No"
    return "Undecided" if "open" in kinds else "Unknown"


def _more(n: int) -> list[str]:
    return [f"{n} more"] if n > 0 else []


def _one_by_one(result: CrossvalResult, group: Mapping[str, Sequence[Verdict]]) -> str:
    """`vae is worse than ridge (+51 %) and not shown to differ from ...`, an encoder a clause."""
    return "; ".join(f"{_subject(result, model)} {against(own)}" for model, own in group.items())


def against(found: Sequence[Verdict]) -> str:
    """`better than ridge (-3 %) and not shown to differ from ...`, one kind after another."""
    kinds = dict.fromkeys(verdict.kind for verdict in found)
    return listing(
        f"{_RELATION.get(kind, 'without a comparison with')} "
        + listing(
            (_rival(verdict) for verdict in found if verdict.kind == kind),
            "or" if kind == "open" else "and",
        )
        for kind in kinds
    )


def _rival(verdict: Verdict) -> str:
    name = str(verdict.row["model_b"])
    size = _signed(verdict.row) if verdict.kind != "failed" else ""
    if name == "raw":
        return f"the same model on the genes ({', '.join(filter(None, (name, size)))})"
    return f"{spoken(name)}{f' ({size})' if size else ''}"


def _ranges(group: Mapping[str, Sequence[Verdict]]) -> str:
    """Smallest and largest difference from each rival, for many encoders."""
    by_rival: dict[str, list[tuple[float, str]]] = {}
    for verdict in (verdict for own in group.values() for verdict in own):
        size = (_shares(verdict.row)[0], _signed(verdict.row))
        by_rival.setdefault(str(verdict.row["model_b"]), []).append(size)
    texts = []
    for rival, sizes in by_rival.items():
        known = sorted(size for size in sizes if size[1])
        ends = list(dict.fromkeys([known[0][1], known[-1][1]])) if known else ["unknown"]
        texts.append(f"{' to '.join(ends)} from {spoken(rival)}")
    return f"their loss differs by {listing(texts)}"


def _subject(result: CrossvalResult, model: str) -> str:
    """What the sentence is about, with its verb: the model, or only the encoders trained here."""
    n = n_seeds(result, model)
    if n == 0 or n >= ENOUGH_SEEDS:
        return f"{model} is"
    if result.info["encoders"][_encoder_of(result, model)].get("mode") == "fold":
        times = "once" if n == 1 else "twice"
        return f"the {model} encoder trained {times} in each fold is"
    if n == 1:
        return f"the one trained {model} encoder is"
    return f"the {n} trained {model} encoders are"


def by_target(result: CrossvalResult) -> str:
    """Why fewer or more targets may be better than the mean says; empty where they agree."""
    differences = {
        (row["model_a"], row["model_b"]): row["difference"]
        for row in family(result).to_dict(orient="records")
        if row["model_b"] != result.models[0]
    }
    for pair in result.info.get("per_target") or []:
        gap = differences.get((pair["model_a"], pair["model_b"]), math.nan)
        share = pair["improved"]
        if gap * (share - 0.5) <= 0 or not math.isfinite(gap):
            continue
        way = "higher" if gap > 0 else "lower"
        return (
            f"{pair['model_a']} predicts {percent(share, 0)} of the {pair['n_targets']:,} targets "
            f"better than {pair['model_b']}, and yet its mean loss is {way}: targets that vary "
            "most weigh most in the mean, and each counts once among the targets."
        )
    return ""


def beside_simple(result: CrossvalResult) -> str:
    """How the best model with an encoder stands to the best simple one with the same samples.

    That is a model on principal components of the same samples; where each target's own gene is an
    input, one with own genes. The pair is chosen by its losses, so its p is that of one test and no
    claim of the family. Empty where there is no such pair.
    """
    encoders = result.info.get("encoders", {})
    losses = ladder_table(result)["loss"]
    models = [parse_model(str(name), encoders) for name in losses.index]
    models = [model for model in models if not (model.variant or model.transfer)]
    best = next((model for model in models if model.source in encoders), None)
    if best is None:
        return ""
    simple = [m for m in models if m.source not in encoders and m.own_gene == best.own_gene]
    rivals = [m.name for m in simple if best.own_gene or m.source in ("pca", "pca_fold")]
    row = _pair(headline_rows(result), best.name, rivals[0]) if rivals else None
    if row is None or not math.isfinite(row["p"]):
        return ""
    kinds: tuple[Kind, Kind] = ("better", "worse")
    kind: Kind = kinds[row["difference"] > 0] if row["p"] < ALPHA else "open"
    what = "with own genes and no encoder" if best.own_gene else "on PCA"
    pair = against([Verdict(kind, "", row)])
    return f"Best with an encoder: {best.name}, {pair}, the best {what}."


def _pair(table: pd.DataFrame, a: str, b: str) -> dict[Any, Any] | None:
    """The test of a against b, turned round where it is of b against a."""
    for row in table.to_dict(orient="records"):
        if (row["model_a"], row["model_b"]) == (a, b):
            return row
        if (row["model_a"], row["model_b"]) == (b, a):
            share = row["effect"]
            turned = {"model_a": a, "model_b": b, "difference": -row["difference"]}
            turned |= {"ci_low": -row["ci_high"], "ci_high": -row["ci_low"]}
            return {**row, **turned, "effect": -share / (1 + share) if share > -1 else math.nan}
    return None


def summary(result: CrossvalResult, page: str | Path) -> str:
    """The answers, a line each, and the models of the lowest losses behind the page's path.

    Above them what the plan says, where there was one.
    """
    losses = ladder_table(result)["loss"].reindex(result.models)
    declared = result.info.get("declared", {}).get("text")
    answers = [declared, answer(result).text, beside_simple(result), *label_efficiency(result)]
    return "\n".join([*filter(None, answers), f"{page}: {best_text(result.metric, losses)}"])


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


def other_studies(result: CrossvalResult) -> list[str]:
    """Whether other studies are worth it, by their samples or their labels; one line a size.

    Of all training samples first, then of every smaller number of them; empty without sources.
    """
    rival, info = result.info.get("linear_rival"), result.info
    if rival is None or not info.get("source"):
        return []
    encoder = next(iter(info.get("encoders", {})), None)
    names = {
        "their labels": next((m for m in result.models if m in LINEAR_TRANSFER), None),
        "their samples": encoder,
        "both together": None if encoder is None else f"{encoder}_transfer",
    }
    wanted = {what: name for what, name in names.items() if name in result.models}
    tables = [("With all labels of a training fold,", headline_rows(result))]
    for n_train in info.get("train_sizes") or ():
        curve = result.curve_tests
        tables.append((f"With {n_train:,} labels,", curve[curve["n_train"] == n_train]))
    lines = []
    for when, table in tables:
        pairs = table[table["model_b"] == rival].set_index("model_a")
        rows = {what: pairs.loc[name] for what, name in wanted.items() if name in pairs.index}
        if rows:
            lines.append(_worth(when, rows, str(rival)))
    return lines


def _worth(when: str, rows: Mapping[str, Any], rival: str) -> str:
    """Which part of other studies lowers the loss of the linear model, and by how much."""
    shown = [what for what, row in rows.items() if row["ci_high"] < 0]
    answer = f"{listing(shown)} lower" if shown else "no part of them is shown to lower"
    parts = [f"{what} {_lower_or_higher(row)}" for what, row in rows.items()]
    return f"{when} {answer} the loss of {rival}: {'; '.join(parts)}; not adjusted."


def label_efficiency(result: CrossvalResult) -> list[str]:
    """At which numbers of training samples each encoder is better or worse than the linear model.

    A difference is claimed where p is below 0.05 after Holm over all encoders and numbers.
    """
    tests, rival = result.curve_tests, result.info.get("linear_rival")
    if not len(tests) or rival is None:
        return []
    encoders = list(result.info.get("encoders", {}))
    table = tests[tests["model_a"].isin(encoders) & (tests["model_b"] == rival)]
    table = table.assign(p_holm=holm(table["p"].to_numpy(float)))
    return [
        _by_number(result, str(model), spoken(str(rival)), own.sort_values("n_train"))
        for model, own in table.groupby("model_a", sort=False)
    ]


def _by_number(result: CrossvalResult, model: str, rival: str, table: pd.DataFrame) -> str:
    samples = "labelled training samples"
    shown = table["p_holm"] < ALPHA
    parts = {
        "better": table[shown & (table["difference"] < 0)],
        "worse": table[shown & (table["difference"] > 0)],
        "open": table[~shown],
    }
    sizes = {kind: [int(n) for n in part["n_train"]] for kind, part in parts.items()}
    if len(parts["open"]) == len(table):
        return f"At none of {listing(sizes['open'])} {samples} is {model} shown to differ from " + (
            f"{rival} ({_range(table)}), with p adjusted over them."
        )
    texts = []
    for kind, part in parts.items():
        others = [n for k, found in sizes.items() for n in found if k != kind]
        where = f"at {listing(sizes[kind])} {samples}"
        if others and sizes[kind] and kind != "open" and sizes[kind][0] > max(others):
            where = f"from {sizes[kind][0]:,} {samples} on"
        if len(part):
            texts.append(f"{_RELATION[kind]} {rival} {where} ({_range(part)})")
    text = f"{_subject(result, model)} {listing(texts)}."
    return text[0].upper() + text[1:] if text.startswith("the ") else text


def _range(table: pd.DataFrame) -> str:
    """Smallest and largest relative difference: `-3.1 % to -0.4 %`."""
    rows = sorted(table.to_dict(orient="records"), key=lambda row: float(row["effect"]))
    return " to ".join(dict.fromkeys(_signed(row) for row in (rows[0], rows[-1])))
