"""The page of a fitted model on outside samples: its scores, what they are measured by, guards."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from m1pipe._version import __version__
from m1pipe.evaluation.outside import LINEAR, MODEL, Outside
from m1pipe.evaluation.result import to_plain
from m1pipe.plots import comparison, style
from m1pipe.reports import facts
from m1pipe.reports.layout import Picture, Section, Table, render
from m1pipe.reports.numbers import count, decimals_for, interval, number, p_cell, percent
from m1pipe.reports.terms import ALPHA, TESTS, loss_label, metric_of, spoken
from m1pipe.reports.words import Verdict

WIDTH = 9.2
EVALUATION_FILES = ("losses.csv", "scores.csv", "comparisons.csv", "summary.json")
GUARDS = (
    ("samples fitted on", "the model's own samples among these, by id", "fitted_on"),
    ("genes", "fewer of the model's genes than --min-coverage, units of another kind", None),
    ("targets", "units of another kind; classes unknown to the model are left out", None),
)
TAGS = {"better": "better", "worse": "worse", "open": "not shown", "failed": "failed"}
_DASH = "\N{EN DASH}"


def evaluation_html(
    result: Outside, *, provenance: Mapping[str, Any], config: Mapping[str, Any]
) -> str:
    """Text of a page that needs no other file and no network.

    Parameters
    ----------
    result : Outside
    provenance : mapping
        As `m1pipe.provenance.make_provenance` makes it.
    config : mapping
        Settings of the model.
    """
    severe = [alarm for alarm in result.alarms if alarm.severity == "severe"]
    return render(
        "page.html",
        title="A fitted model on outside samples",
        question=_question(result),
        meta=_meta(result, provenance),
        severe=severe,
        warnings=[alarm for alarm in result.alarms if alarm not in severe],
        answer=_answer(result),
        verdicts=[
            {"kind": v.kind, "tag": TAGS[v.kind], "text": v.text} for v in outside_verdicts(result)
        ],
        how_to_read=_how_to_read(result),
        sections=[
            Section("scores", "Scores", [], [_scores(result), _differences(result)]),
            Section("comparisons", "Comparisons", [], [_comparisons(result)]),
            Section("data", "Data", [], [_data(result)]),
            Section("guards", "Guards", [], [_guards(result)]),
        ],
        provenance=facts.provenance(provenance),
        files_note=f"Beside this page: {', '.join(EVALUATION_FILES)}.",
        config=json.dumps(to_plain(config), indent=2),
    )


def outside_verdicts(result: Outside) -> list[Verdict]:
    """One sentence for each declared pair."""
    return [_verdict(row) for row in _declared(result).to_dict(orient="records")]


def _verdict(row: Mapping[Any, Any]) -> Verdict:
    a, b = str(row["model_a"]), _named(str(row["model_b"]))
    if not pd.notna([row["difference"], row["p_holm"]]).all():
        return Verdict("failed", a, b, f"The {a} and {b} could not be compared.")
    digits = decimals_for((row["ci_high"] - row["ci_low"]) / 2)
    numbers = (
        f"difference in loss {number(row['difference'], digits)} "
        f"(95 % CI {interval(row['ci_low'], row['ci_high'], digits)}), "
        f"p {p_cell(row['p_holm'])} after Holm"
    )
    if row["p_holm"] >= ALPHA:
        text = f"No difference between the model and {b} is shown: {numbers}."
        return Verdict("open", a, b, text)
    better = row["difference"] < 0
    text = f"The model is {'better' if better else 'worse'} than {b}: {numbers}."
    return Verdict("better" if better else "worse", a, b, text)


def _declared(result: Outside) -> pd.DataFrame:
    """The declared pairs by the test that carries a claim."""
    table = result.comparisons
    return table[table["test"].eq(_headline(result)) & table["model_a"].eq(MODEL)]


def _headline(result: Outside) -> str:
    return "clustered_t" if result.info["n_groups"] else "paired_t"


def _named(row: str) -> str:
    return "the linear model on the genes" if row == LINEAR else spoken(row)


def _question(result: Outside) -> str:
    info = result.info
    kinds = {"regression": ("target", None), "multilabel": ("label", None)}
    what = count(info["n_targets"], *kinds.get(info["kind"], ("class", "classes")))
    return (
        f"How well does a fitted model predict {what} of {count(info['n'], 'sample')} from "
        "outside, beside the training mean and a linear model on the genes?"
    )


def _meta(result: Outside, provenance: Mapping[str, Any]) -> str:
    donors = result.info["n_groups"]
    parts = [
        count(result.info["n"], "sample"),
        count(donors, "donor") if donors else "",
        f"m1pipe {provenance.get('m1pipe', __version__)}",
        str(provenance.get("started", "")).replace("T", " ").replace("+00:00", " UTC"),
    ]
    return " \N{MIDDLE DOT} ".join(part for part in parts if part)


def _answer(result: Outside) -> str:
    means = result.losses.mean()
    label = loss_label(result.info["metric"], result.info["units"])
    others = [f"{number(float(means[row]))} of {_named(row)}" for row in means.index.drop(MODEL)]
    return (
        f"The model's {label} is {number(float(means[MODEL]))}, beside {' and '.join(others)}: "
        f"{percent(float(means[MODEL] / means.iloc[0]), 1)} of that of {_named(means.index[0])}."
    )


def _how_to_read(result: Outside) -> str:
    unit = "donors, each weighing the same" if result.info["n_groups"] else "samples"
    return (
        f"Lower losses are better. Tests are paired t-tests over {unit}; a difference is claimed "
        f"where p after Holm over the two declared pairs is below {ALPHA}. They speak of this "
        "trained model: another training set would have given another."
    )


def _scores(result: Outside) -> Table:
    wide = result.scores.pivot(index="model", columns="metric", values="value")
    first = list(dict.fromkeys(result.scores["metric"]))
    rows = [
        [row, *(_score(row, metric, wide, str(result.losses.columns[0])) for metric in first)]
        for row in result.losses.mean().sort_values().index
    ]
    heads = [f"{metric_of(name).head}{metric_of(name).arrow}" for name in first]
    return Table(
        caption="Scores on the outside samples, lowest loss first. Arrows point to better values.",
        head=["row", *heads],
        rows=rows,
        note="The training mean (or the class frequencies) and the linear row were fitted to the "
        "samples that the model was fitted to, and are stored with it. R2: pooled over targets, "
        "against the training means.",
        strong=frozenset({0}),
    )


def _score(row: str, metric: str, wide: pd.DataFrame, constant: str) -> str:
    value = float(wide[metric][row])
    if pd.isna(value) and row == constant:
        return _DASH  # a constant prediction has no correlation
    return number(value, 3 if abs(value) < 10 else None)


def _differences(result: Outside) -> Picture:
    table = _declared(result)
    names = [f"{a} {_DASH} {b}" for a, b in zip(table["model_a"], table["model_b"], strict=True)]
    figure, axes = style.panels(width=WIDTH, height=0.9 + 0.4 * len(table))
    with style.styled():
        comparison.plot_differences(
            axes[0, 0],
            table.assign(name=names),
            label=f"difference in {metric_of(result.info['metric']).label}; left: model is better",
        )
    return Picture(
        caption="Declared comparisons: mean difference (diamond) with its 95 % interval, not "
        "adjusted (bar).",
        alt="Differences in loss with intervals: " + ", ".join(names),
        source=style.data_uri(figure),
    )


def _comparisons(result: Outside) -> Table:
    rows = []
    for row in result.comparisons.to_dict(orient="records"):
        if row["test"] not in TESTS:
            continue
        digits = 4 if pd.isna(row["ci_low"]) else decimals_for(row["ci_high"] - row["ci_low"])
        rows.append(
            [
                f"{row['model_a']} {_DASH} {row['model_b']}",
                TESTS[row["test"]],
                number(row["difference"], digits),
                _DASH
                if pd.isna(row["ci_low"])
                else interval(row["ci_low"], row["ci_high"], digits),
                _DASH if row["test"] == "bootstrap" else p_cell(row["p"]),
                _DASH if pd.isna(row["p_holm"]) else p_cell(row["p_holm"]),
                f"{row['n_independent']:,}",
            ]
        )
    return Table(
        caption="Every test of every pair; the one with an adjusted p carries the claim.",
        head=["comparison", "test", "difference", "95 % CI", "p", "p Holm", "units"],
        rows=rows,
        n_text=2,
    )


def _data(result: Outside) -> Table:
    info = result.info
    rows = [
        ["samples scored", count(info["n"])],
        ["donors", count(info["n_groups"]) if info["n_groups"] else "none: samples are the units"],
        ["targets scored", f"{info['n_targets']:,} of the model's {info['n_model_targets']:,}"],
        ["units", str(info["units"])],
        *([f"left out: {why}", f"{n:,}"] for why, n in info["dropped"].items()),
    ]
    return Table(caption="What was scored.", head=[], rows=rows, n_text=2)


def _guards(result: Outside) -> Table:
    raised = {alarm.name: alarm.text for alarm in result.alarms}
    rows = [
        [name, what, raised.get(key, "none found") if key else "none found (it would have stopped)"]
        for name, what, key in GUARDS
    ]
    rows += [[a.name, a.severity, a.text] for a in result.alarms if a.name != "fitted_on"]
    return Table(
        caption="What was looked for.", head=["guard", "finds", "result"], rows=rows, n_text=3
    )
