"""The quality report: one self-contained page, and its numbers as JSON and CSV."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m1pipe._version import __version__
from m1pipe.atomic import atomic_file, make_folder, write_json, write_text
from m1pipe.evaluation.result import to_plain
from m1pipe.reports import facts, quality_parts
from m1pipe.reports.layout import Section, render
from m1pipe.reports.numbers import count
from m1pipe.synthesis.quality import SYNTHETIC, QualityReport

PAGE = "quality.html"
QUALITY_FILES = ("quality.json", "quality.csv")
HOW_TO_READ = (
    "Every fidelity score compares the samples with the hold-out, which the generator never saw, "
    "at equal sizes. \N{LEFT DOUBLE QUOTATION MARK}Real\N{RIGHT DOUBLE QUOTATION MARK} is what "
    "real training samples reach in their place. Like real: the interval holds what real samples "
    "reach; near: within a tenth of the way from the floor."
)


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
    table = report.to_frame()
    with atomic_file(folder / "quality.csv") as temporary:
        table.to_csv(temporary, index=False)
    models = {
        model: {score.definition.name: score.row() for score in scores}
        for model, scores in report.scores.items()
    }
    alarms = [{"name": a.name, "severity": a.severity, "text": a.text} for a in report.alarms]
    content = {"models": models, "alarms": alarms, "info": report.info}
    write_json(folder / "quality.json", to_plain(content))
    page = folder / PAGE
    write_text(page, quality_html(report, provenance=provenance or {}))
    return page


def quality_html(report: QualityReport, *, provenance: Mapping[str, Any]) -> str:
    """Text of the page; the parameters are those of `write_quality`."""
    return render(
        "page.html",
        title="Quality of synthetic expression profiles",
        question=_question(report),
        meta=_meta(report, provenance),
        severe=[alarm for alarm in report.alarms if alarm.severity == "severe"],
        warnings=[alarm for alarm in report.alarms if alarm.severity != "severe"],
        answer=quality_parts.answer(report),
        verdicts=quality_parts.verdicts(report),
        how_to_read=HOW_TO_READ,
        sections=_sections(report),
        provenance=facts.provenance(provenance),
        files_note=f"Beside this page: {', '.join(QUALITY_FILES)}.",
        config=json.dumps(to_plain(report.info["settings"]), indent=2),
    )


def summary_line(report: QualityReport) -> str:
    """The headline scores in a line."""
    return "; ".join(
        text
        for name, text in quality_parts.headline_texts(report).items()
        if name in ("gamma", "ks_mean", "variance_ratio", "c2st_forest", "closer_to_train")
    )


def _question(report: QualityReport) -> str:
    n = report.info["n"]
    return (
        f"How close do {count(n['synthetic'], 'synthetic sample')} come to real ones that the "
        f"generator, trained on {count(n['real'])}, never saw ({count(n['holdout'])} held out)?"
    )


def _meta(report: QualityReport, provenance: Mapping[str, Any]) -> str:
    info = report.info
    parts = [
        count(info["n_genes"], "gene"),
        f"scale: {info['scale']}",
        f"{count(info['size'], 'sample')} a side",
        f"m1pipe {provenance.get('m1pipe', __version__)}",
        str(provenance.get("started", "")).replace("T", " ").replace("+00:00", " UTC"),
    ]
    return " \N{MIDDLE DOT} ".join(part for part in parts if part)


def _sections(report: QualityReport) -> list[Section]:
    scores = report.scores[SYNTHETIC]
    out = [Section("overview", "At a glance", [], quality_parts.overview(report))]
    for family, (title, text) in quality_parts.FAMILIES.items():
        mine = [score for score in scores if score.definition.family == family]
        if mine:
            table = quality_parts.family_table(title, mine)
            pictures = quality_parts.family_pictures(report, family)
            out.append(Section(family, title, [text], [table, *pictures]))
    if len(report.scores) > 1:
        text = (
            "Simple generators trained on the same real samples, scored in the same way: what the "
            "synthetic samples have to beat. They have no classes, and so no utility scores."
        )
        out.append(Section("rivals", "Rivals", [text], [quality_parts.rivals_table(report)]))
    out.append(Section("rules", "How the scores are made", quality_parts.rules(report), []))
    return out
