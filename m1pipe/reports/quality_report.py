"""The quality report: one self-contained page, and its numbers as JSON and CSV.

Captions and notes are in `templates/quality.html`; here are the numbers and figures in them.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m1pipe._version import __version__
from m1pipe.atomic import atomic_file, make_folder, write_json, write_text
from m1pipe.evaluation.result import to_plain
from m1pipe.plots import style
from m1pipe.plots import synthetic as plots
from m1pipe.reports.page import (
    ABSENT,
    BESIDE,
    DASH,
    Kind,
    Verdict,
    count,
    decimals_for,
    interval,
    listing,
    number,
    picture,
    render,
)
from m1pipe.synthesis.attacks import succeeded
from m1pipe.synthesis.quality import SYNTHETIC, QualityReport
from m1pipe.synthesis.scores import UNCALIBRATED, Score

PAGE = "quality.html"
QUALITY_FILES = ("quality.json", "quality.csv")
NEAR = 0.9
HEADLINE = (
    "ks_mean",
    "variance_ratio",
    "gamma",
    "correlation_rmse",
    "c2st_forest",
    "recall",
    "tstr_over_trtr",
)
PRIVACY_SCORE = "closer_to_train"
WIDEST_OF_NO_LEAK = 0.6  # an interval that reaches higher has not looked closely enough
_IN_SHORT = {
    "near": "near them in",
    "unlike real": "unlike them in",
    "falls short": "falls short in",
    "overshoots": "overshoots in",
    "failed": "not computed:",
}
_LEAK = {"leak": ": a leak", "unsure": ": a leak is not excluded", "not shown": ": no leak shown"}
_ARROWS = {
    "higher": "\N{UPWARDS ARROW}",
    "lower": "\N{DOWNWARDS ARROW}",
    "one": "\N{RIGHTWARDS ARROW} 1",
    "half": "\N{RIGHTWARDS ARROW} 0.5",
    "shown": "",
}


def write_quality(
    report: QualityReport,
    folder: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write `quality.html`, `quality.json` and `quality.csv`.

    Parameters
    ----------
    report : QualityReport
    folder : path
        Made if it is not there; these three files in it are replaced.
    provenance : mapping, optional
        Where the numbers came from (`m1pipe.provenance.make_provenance`).

    Returns
    -------
    Path
        Of `quality.html`, which needs no other file and no network.
    """
    folder = make_folder(folder)
    with atomic_file(folder / "quality.csv") as temporary:
        report.to_frame().to_csv(temporary, index=False)
    models = {
        model: {score.definition.name: score.row() for score in scores}
        for model, scores in report.scores.items()
    }
    alarms = [asdict(alarm) for alarm in report.alarms]
    content = {"models": models, "alarms": alarms, "info": report.info}
    write_json(folder / "quality.json", to_plain(content))
    page = folder / PAGE
    write_text(page, quality_html(report, provenance=provenance or {}))
    return page


def quality_html(report: QualityReport, *, provenance: Mapping[str, Any]) -> str:
    """Text of the page; the parameters are those of `write_quality`."""
    found, scores = verdicts(report), report.scores[SYNTHETIC]
    families = dict.fromkeys(score.definition.family for score in scores)
    return render(
        "quality.html",
        info=report.info,
        alarms=report.alarms,
        verdicts=found,
        headline=f"{_in_short(report)}.",
        privacy=privacy(report),
        calibrated=_calibrated(report),
        scores={
            family: _family([s for s in scores if s.definition.family == family])
            for family in families
        },
        pictures={"marginal": _genes(report), "joint": _samples(report)},
        models=list(report.scores),
        rivals=_rivals(report),
        provenance=provenance,
        version=str(provenance.get("m1pipe", __version__)),
        files=QUALITY_FILES,
        config=json.dumps(to_plain(report.info["settings"]), indent=2),
    )


def summary_line(report: QualityReport) -> str:
    """The answer in short: how many scores are like real samples', which are not, and privacy."""
    texts = [_in_short(report, without=("near",))]
    found, score = privacy(report), _telling(report)
    if found is not None and score is not None:
        texts.append(f"{_value(score)}{_LEAK.get(found.tag, '')}")
    return "\n  ".join(texts)


def verdicts(report: QualityReport) -> list[Verdict]:
    """One a headline score of fidelity, failed ones included, with what the score says."""
    found = []
    for score in _headline(report):
        kind, word = _kind(score)
        says = score.definition.meaning
        found.append(Verdict(kind, f"{_text(score)}. {says[0].upper()}{says[1:]}.", word=word))
    return found


def _headline(report: QualityReport) -> list[Score]:
    by_name = {score.definition.name: score for score in report.scores[SYNTHETIC]}
    return [by_name[name] for name in HEADLINE if name in by_name]


def privacy(report: QualityReport) -> Verdict | None:
    """Whether a leak was found; to find none is no good mark, since none may be seen."""
    found = _telling(report)
    if found is None:
        return None
    text = _text(found)
    if not math.isfinite(found.value):
        return Verdict("failed", text, word="failed")
    if found.definition.family == "attack":
        text += ": members of the training samples can be told from other samples."
        return Verdict("worse", text, word="leak")
    if found.low > 0.5:
        text += ": synthetic samples are too close to training samples."
        return Verdict("worse", text, word="leak")
    if not found.high <= WIDEST_OF_NO_LEAK:
        text += ": too few samples, a leak is neither shown nor excluded."
        return Verdict("open", text, word="unsure")
    return Verdict("open", f"{text}: no leak was found, which proves none.", word="not shown")


def _telling(report: QualityReport) -> Score | None:
    """The score that says most of privacy: that of distances, or an attack that found more."""
    scores = report.scores[SYNTHETIC]
    closer = next((s for s in scores if s.definition.name == PRIVACY_SCORE), None)
    told = succeeded(scores)
    return told[0] if told and not (closer is not None and closer.low > 0.5) else closer


def _in_short(report: QualityReport, *, without: Sequence[str] = ()) -> str:
    """How many headline scores are as those of real samples, and which are not."""
    found: dict[str, list[str]] = {}
    for score, verdict in zip(_headline(report), verdicts(report), strict=True):
        found.setdefault(verdict.tag, []).append(score.definition.title)
    n, total = len(found.pop("like real", [])), len(_headline(report))
    texts = [f"Like real samples in {n} of {count(total, 'score')}"]
    texts += [f"{_IN_SHORT[tag]} {listing(of)}" for tag, of in found.items() if tag not in without]
    return "; ".join(texts)


def _kind(score: Score) -> tuple[Kind, str]:
    """Style and word of the tag of a fidelity score."""
    if not math.isfinite(score.value):
        return "failed", "failed"
    if score.definition.ideal == "one":
        if score.low <= 1 <= score.high:
            return "better", "like real"
        if score.abs_log_ratio < -math.log(NEAR):
            return "open", "near"
        return "worse", "overshoots" if score.value > 1 else "falls short"
    higher = score.definition.ideal == "higher"
    if score.high >= score.ceiling if higher else score.low <= score.ceiling:
        return "better", "like real"
    return ("open", "near") if score.calibrated >= NEAR else ("worse", "unlike real")


def _value(score: Score) -> str:
    title = score.definition.title
    if not math.isfinite(score.value):
        return f"{title}: {score.error or score.not_applicable}"
    return f"{title} {number(score.value, _digits(score))}"


def _text(score: Score) -> str:
    text, digits = _value(score), _digits(score)
    if not math.isfinite(score.value):
        return text
    if math.isfinite(score.low):
        text += f" ({interval(score.low, score.high, digits)})"
    beside = {
        "real samples": score.ceiling,
        "worthless ones": score.floor,
        "mildly corrupted ones": score.corrupted,
    }
    known = [f"{name} {number(v, digits)}" for name, v in beside.items() if math.isfinite(v)]
    return f"{text}; {', '.join(known)}" if known else text


def _digits(score: Score) -> int:
    width = score.high - score.low
    return decimals_for(width / 2 if math.isfinite(width) else None, most=4)


def _title(score: Score) -> str:
    return f"{score.definition.title} {_ARROWS[score.definition.ideal]}".strip()


def _cell(value: float, digits: int) -> str:
    return number(value, digits) if math.isfinite(value) else DASH


def _family(scores: Sequence[Score]) -> dict[str, Any]:
    """Cells of all scores of a family, those that failed with their reason."""
    has_corrupted = any(math.isfinite(score.corrupted) for score in scores)
    return {
        "has_corrupted": has_corrupted,
        "units": sorted({score.n_independent for score in scores if score.n_independent}),
        "rows": [_cells(score, has_corrupted) for score in scores],
    }


def _cells(score: Score, has_corrupted: bool) -> list[str]:
    digits, says = _digits(score), score.definition.meaning
    is_fidelity = score.definition.family not in UNCALIBRATED
    value = ABSENT if score.error else DASH
    if math.isfinite(score.value):
        value = number(score.value, digits)
    else:
        says += f" [{score.error or 'does not apply: ' + score.not_applicable}]"
    has_interval = math.isfinite(score.low) and math.isfinite(score.high)
    return [
        _title(score),
        says,
        value,
        interval(score.low, score.high, digits) if has_interval else DASH,
        _cell(score.ceiling, digits),
        *([_cell(score.floor, digits)] if is_fidelity else []),
        *([_cell(score.corrupted, digits)] if has_corrupted else []),
        *([_cell(score.calibrated, 2)] if is_fidelity else []),
    ]


def _rivals(report: QualityReport) -> list[list[str]]:
    """Headline scores that rivals have, one column a model, real samples beside them."""
    rows = []
    for score in _headline(report):
        if score.definition.family == "utility" or score.not_applicable:
            continue
        digits = _digits(score)
        same = [report.score(score.definition.name, model) for model in report.scores]
        values = [DASH if s.not_applicable else number(s.value, digits) for s in same]
        rows.append([_title(score), _cell(score.ceiling, digits), *values])
    return rows


def _calibrated(report: QualityReport) -> str | None:
    """The figure of all calibrated scores."""
    table, models = report.to_frame(), list(report.scores)
    usable = table[table["model"] == SYNTHETIC].set_index("title")["calibrated"].notna()
    table = table[table["title"].map(usable).fillna(False).astype(bool)]
    if not len(table):
        return None

    def draw(axes: np.ndarray) -> None:
        ax = axes[0, 0]
        plots.plot_calibrated(ax, table, models, colours=style.colours(models))
        if len(models) > 1:
            ax.figure.legend(loc="outside upper left", ncols=2)

    return picture(draw, width=BESIDE, height=1.4 + 0.21 * table["title"].nunique())


def _genes(report: QualityReport) -> str:
    """Means and standard deviations of genes, and their KS statistics."""
    genes: pd.DataFrame = report.pictures["genes"]
    moments = {
        "mean": [genes[f"mean_{side}"].to_numpy(float) for side in "ha"],
        "sd": [(genes[f"variance_{side}"] ** 0.5).to_numpy(float) for side in "ha"],
    }

    def draw(axes: np.ndarray) -> None:
        for ax, (unit, sides) in zip(axes[0], moments.items(), strict=False):
            plots.plot_agreement(ax, *sides, title=f"gene {unit}s", unit=unit)
        ceiling = report.score("ks_mean").ceiling
        plots.plot_ks(axes[0, 2], genes["ks"].to_numpy(), title="KS", ceiling=ceiling)

    return picture(draw, 1, 3, height=3.0)


def _samples(report: QualityReport) -> str:
    """Samples in two principal components, and correlations of pairs of genes."""
    shown = report.pictures

    def draw(axes: np.ndarray) -> None:
        places = shown["holdout_pcs"], shown["synthetic_pcs"]
        plots.plot_components(axes[0, 0], *places, title="samples")
        correlations = shown["correlations"]
        plots.plot_agreement(axes[0, 1], *correlations, title="gene-gene correlations", unit="r")

    return picture(draw, 1, 2, height=3.8)
