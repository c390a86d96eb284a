"""The cross-validation report: one self-contained page, and the tables beside it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from m1pipe._version import __version__
from m1pipe.atomic import write_text
from m1pipe.errors import Alarm
from m1pipe.evaluation.result import CrossvalResult, ladder_table, to_plain
from m1pipe.reports import facts, figures, labels, pairs, parts, tables, words
from m1pipe.reports.files import RESULT_FILES, failed_scores, read_settings, write_tables
from m1pipe.reports.guards import guard_counts, guards
from m1pipe.reports.layout import Picture, Section, Table, render
from m1pipe.reports.methods import methods_text
from m1pipe.reports.numbers import count, listing
from m1pipe.reports.terms import (
    ALPHA,
    HEADLINE_TEST,
    MODELS,
    headline_phrase,
    headline_test,
    metric_of,
)

_IN_ANSWER = ("mean", "prior", "ridge", "logistic", "raw")
TAGS = {"better": "better", "worse": "worse", "open": "not shown", "failed": "failed"}


def write_report(
    result: CrossvalResult,
    folder: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write `report.html` and the tables of a cross-validation.

    Parameters
    ----------
    result : CrossvalResult
        What to report.
    folder : path
        The cross-validation's folder; made if it is not there. `report.html`, `summary.json`,
        `scores.csv`, `comparisons.csv`, `folds.csv` and `losses.h5` in it are replaced.
    provenance, config : mapping, optional
        What `provenance.json` and `config.json` hold; where left out, those files of the folder
        are read, if they are there.

    Returns
    -------
    Path
        Of `report.html`, which needs no other file and no network.
    """
    folder = Path(folder)
    write_tables(result, folder)
    page = folder / "report.html"
    found = {
        "provenance": read_settings(folder / "provenance.json")
        if provenance is None
        else provenance,
        "config": read_settings(folder / "config.json") if config is None else config,
    }
    write_text(page, report_html(result, **found))
    return page


def report_html(
    result: CrossvalResult, *, provenance: Mapping[str, Any], config: Mapping[str, Any]
) -> str:
    """Text of the report page; the parameters are those of `write_report`."""
    ladder = ladder_table(result)
    alarms = all_alarms(result)
    version = str(provenance.get("m1pipe", __version__))
    settings = config.get("crossval", config)
    methods, references = methods_text(result, version=version, settings=settings)
    return render(
        "crossval.html",
        title=_title(result),
        question=words.question(result),
        meta=_meta(result, provenance, version),
        severe=[alarm for alarm in alarms if alarm.severity == "severe"],
        warnings=[alarm for alarm in alarms if alarm.severity != "severe"],
        winner=words.winner(result, ladder),
        runner_up=words.runner_up(_gap(result, ladder)),
        verdicts=words.verdicts(result),
        tags=TAGS,
        direction=_direction(result),
        cautions=words.cautions(result),
        sections=[
            *_sections(result, ladder, provenance.get("inputs") or {}),
            Section("guards", "Guards", [], [_guards(result, alarms)]),
        ],
        methods=methods,
        references=references,
        provenance=facts.provenance(provenance),
        files_note=f"Beside this page: {', '.join(RESULT_FILES)}.",
        config=json.dumps(to_plain(config), indent=2) if config else "not recorded",
    )


def _guards(result: CrossvalResult, alarms: list[Alarm]) -> Table:
    return guards(guard_counts(a.name for a in alarms), result.info.get("not_checked", ()))


def all_alarms(result: CrossvalResult) -> list[Alarm]:
    """Alarms of the result, the severe ones first, and one for each score that is missing."""
    order = {"severe": 0, "warning": 1, "note": 2}
    known = " ".join(alarm.text for alarm in result.alarms)
    missing = [
        Alarm("score_not_computed", "warning", text)
        for text in failed_scores(result)
        if text not in known
    ]
    return sorted([*result.alarms, *missing], key=lambda alarm: order[alarm.severity])


def _title(result: CrossvalResult) -> str:
    names = listing(list(result.info.get("encoders", {}))) or "Models"
    return f"{names} against the genes: a cross-validated comparison"


def _meta(result: CrossvalResult, provenance: Mapping[str, Any], version: str) -> str:
    parts = [
        count(len(result.samples), "sample"),
        f"{result.n_folds} folds" + (f" x {result.n_repeats}" if result.n_repeats > 1 else ""),
        count(len(result.models), "model"),
        f"m1pipe {version}",
        str(provenance.get("started", "")).replace("T", " ").replace("+00:00", " UTC"),
    ]
    return " \N{MIDDLE DOT} ".join(part for part in parts if part)


def _direction(result: CrossvalResult) -> str:
    unit = {"mse": " (per sample and target)", "log_loss": " (nats per sample)"}
    named = [f"{name}: {MODELS[name]}" for name in result.models if name in _IN_ANSWER]
    return (
        f"Measured by {metric_of(result.metric).label}{unit.get(result.metric, '')} on test "
        f"samples; lower is better. Intervals and p values are those of the {_test(result)}; a "
        "difference is claimed where p after Holm is "
        f"below {ALPHA}. Models: {'; '.join(named)}."
    )


def _test(result: CrossvalResult) -> str:
    """The headline test, with its authors where it has some."""
    named = headline_test(result.info) == HEADLINE_TEST
    return headline_phrase(result.info) + (" (Nadeau and Bengio)" if named else "")


def _gap(result: CrossvalResult, ladder: pd.DataFrame) -> Mapping[Any, Any] | None:
    """Headline row of the winner minus the runner-up, turned round where it is stored so."""
    table = result.comparisons
    if len(ladder) < 2 or not len(table):
        return None
    first, second = ladder.index[:2]
    mine = table[(table["test"] == headline_test(result.info)) & (table["metric"] == result.metric)]
    for row in mine.to_dict(orient="records"):
        if (row["model_a"], row["model_b"]) == (first, second):
            return row
        if (row["model_a"], row["model_b"]) == (second, first):
            turned = {"difference": -row["difference"], "model_a": first, "model_b": second}
            return {**row, **turned, "ci_low": -row["ci_high"], "ci_high": -row["ci_low"]}
    return None


def _sections(
    result: CrossvalResult, ladder: pd.DataFrame, inputs: Mapping[str, Any]
) -> list[Section]:
    order = [str(model) for model in ladder.index]
    encoders = (
        figures.curves(result),
        figures.latent_health(result),
        facts.encoders(result),
        facts.chosen(result),
    )
    compared = _present(figures.differences(result), *pairs.comparisons(result))
    sections = [
        Section("data", "Data", [], [facts.data(result, inputs)]),
        Section(
            "ladder",
            "All models",
            [],
            [tables.ladder(result, ladder), figures.ladder(result, order), facts.seen(result)],
        ),
        Section("comparisons", "Comparisons", [], compared),
        Section(
            "labels",
            "How many labels it takes",
            words.label_texts(result),
            parts.label_efficiency(result),
        ),
        Section("strata", "Within strata", [], parts.within_strata(result)),
        Section("targets", "Target by target", [], parts.by_target(result)),
        Section(
            "by_label", "Label by label", labels.verdict_texts(result), labels.by_label(result)
        ),
        Section(
            "folds",
            "Fold by fold",
            [],
            [figures.fold_pairs(result, order), *tables.by_fold(result)],
        ),
        Section("encoders", "The encoders", [], _present(*encoders)),
    ]
    return [section for section in sections if section.parts]


def _present(*parts: "Table | Picture | None") -> "Sequence[Table | Picture]":
    return [part for part in parts if part is not None]
