"""The page of a fitted model on outside samples: its scores, differences and checks.

Captions and notes are in `templates/evaluate.html`; here are the numbers and figures in them.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from m1pipe._version import __version__
from m1pipe.evaluation.external_validation import LINEAR, MODEL, Outside
from m1pipe.evaluation.result import to_plain
from m1pipe.plots import comparison
from m1pipe.reports.page import (
    BESIDE,
    DASH,
    Verdict,
    decimals_for,
    interval,
    number,
    p_cell,
    picture,
    render,
)
from m1pipe.reports.terms import TESTS, loss_label, metric_of, spoken
from m1pipe.reports.verdicts import against, sentence

EVALUATION_FILES = ("losses.csv", "scores.csv", "comparisons.csv", "summary.json")


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
    metrics = list(dict.fromkeys(result.scores["metric"]))
    losses, verdicts = result.losses.mean(), outside_verdicts(result)
    return render(
        "evaluate.html",
        info=result.info,
        alarms=result.alarms,
        headline=f"The model is {against(verdicts)}.",
        verdicts=verdicts,
        loss=loss_label(result.info["metric"], result.info["units"]),
        losses={_named(str(model)): float(loss) for model, loss in losses.items()},
        metrics=[metric_of(name) for name in metrics],
        scores=[_scores(result, str(m), metrics) for m in losses.sort_values().index],
        differences=_differences(result),
        comparisons=[
            _comparison(row)
            for row in result.comparisons.to_dict(orient="records")
            if row["test"] in TESTS
        ],
        provenance=provenance,
        version=str(provenance.get("m1pipe", __version__)),
        files=EVALUATION_FILES,
        config=json.dumps(to_plain(config), indent=2),
    )


def outside_verdicts(result: Outside) -> list[Verdict]:
    """One sentence for each declared pair, the linear model first."""
    losses = result.losses.mean()
    rows = _declared(result).to_dict(orient="records")
    found = []
    for row in sorted(rows, key=lambda row: row["model_b"] != LINEAR):
        rival = _named(str(row["model_b"]))
        share = row["difference"] / losses[row["model_b"]] if losses[row["model_b"]] else math.nan
        one = sentence({**row, "model_b": rival, "effect": share}, "the model", rival)
        found.append(replace(one, text=one.text[0].upper() + one.text[1:]))
    return found


def _declared(result: Outside) -> pd.DataFrame:
    """The declared pairs by the test that supports a claim."""
    headline = "clustered_t" if result.info["n_groups"] else "paired_t"
    table = result.comparisons
    return table[table["test"].eq(headline) & table["model_a"].eq(MODEL)]


def _named(model: str) -> str:
    return "the linear model on the genes" if model == LINEAR else spoken(model)


def _scores(result: Outside, model: str, metrics: list[str]) -> list[str]:
    """A model and its scores; a constant prediction has no correlation, which is no failure."""
    mine = result.scores[result.scores["model"] == model].set_index("metric")["value"]
    values = [float(mine.get(metric, np.nan)) for metric in metrics]
    is_constant = model == str(result.losses.columns[0])
    return [
        model,
        *(
            DASH if np.isnan(v) and is_constant else number(v, 3 if abs(v) < 10 else None)
            for v in values
        ),
    ]


def _differences(result: Outside) -> str:
    table = _declared(result)
    names = [f"{a} {DASH} {b}" for a, b in zip(table["model_a"], table["model_b"], strict=True)]
    label = f"difference in {metric_of(result.info['metric']).label}; left: model is better"
    return picture(
        lambda axes: comparison.plot_differences(axes[0, 0], table.assign(name=names), label=label),
        width=BESIDE,
        height=0.9 + 0.4 * len(table),
    )


def _comparison(row: Mapping[Any, Any]) -> list[str]:
    """One test of one pair."""
    has_interval = pd.notna(row["ci_low"])
    digits = decimals_for(row["ci_high"] - row["ci_low"]) if has_interval else 4
    return [
        f"{row['model_a']} {DASH} {row['model_b']}",
        TESTS[row["test"]],
        number(row["difference"], digits),
        interval(row["ci_low"], row["ci_high"], digits) if has_interval else DASH,
        DASH if row["test"] == "bootstrap" else p_cell(row["p"]),
        DASH if pd.isna(row["p_holm"]) else p_cell(row["p_holm"]),
        f"{row['n_independent']:,}",
    ]
