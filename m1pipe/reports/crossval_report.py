"""The cross-validation report: one self-contained page, and the tables beside it.

Sentences, captions and notes are in `templates/crossval*.html`; here are the numbers in them.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from m1pipe._version import __version__
from m1pipe.atomic import write_text
from m1pipe.evaluation.compared_models import parse_model
from m1pipe.evaluation.result import CrossvalResult, ladder_table, to_plain
from m1pipe.reports import breakdown, figures, verdicts
from m1pipe.reports.files import (
    RESULT_FILES,
    crossval_settings,
    read_settings,
    uncomputed_scores,
    write_tables,
)
from m1pipe.reports.page import (
    ABSENT,
    DASH,
    Row,
    count,
    decimals_for,
    difference_cells,
    number,
    p_cell,
    pair_name,
    render,
)
from m1pipe.reports.terms import (
    GUARDS,
    HEADLINE_TEST,
    METRICS,
    MODELS,
    TESTS,
    guard_counts,
    headline_phrase,
    loss_label,
    metric_of,
    model_label,
    spoken,
)

_SEVERITIES = ("severe", "warning", "note")
_NO_P = (HEADLINE_TEST, "strata_flip", "bootstrap")
_MOST_VERDICTS = 6  # on the first screen
_MOST_PAIRS = 6  # of the best model and those nearest to it
_OF_FOLD = "training samples of the fold"


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
        Content of `provenance.json` and `config.json`; where left out, those files of the folder
        are read, if they are there.

    Returns
    -------
    Path
        Of `report.html`, which needs no other file and no network.
    """
    folder = Path(folder)
    write_tables(result, folder)
    if provenance is None:
        provenance = read_settings(folder / "provenance.json")
    if config is None:
        path = folder / "config.json"
        config = crossval_settings(path) if path.is_file() else {}
    page = folder / "report.html"
    write_text(page, report_html(result, provenance=provenance, config=config))
    return page


def report_html(
    result: CrossvalResult, *, provenance: Mapping[str, Any], config: Mapping[str, Any]
) -> str:
    """Text of the report page; the parameters are those of `write_report`."""
    ladder = ladder_table(result)
    info: Mapping[str, Any] = defaultdict(lambda: None, result.info)
    return render(
        "crossval.html",
        result=result,
        info=info,
        encoders=info["encoders"] or {},
        settings=defaultdict(lambda: None, config.get("crossval", config)),
        provenance=provenance,
        version=str(provenance.get("m1pipe", __version__)),
        config=json.dumps(to_plain(config), indent=2) if config else "not recorded",
        files=RESULT_FILES,
        baseline=spoken(result.models[0]),
        metric=metric_of(result.metric),
        metrics=set(result.scores["metric"]),
        loss=loss_label(result.metric, info["target_units"]),
        headline=headline_phrase(info),
        known_models=MODELS,
        **_answer(result, ladder),
        **_data(result),
        **_models(result, ladder),
        comparisons=_comparisons(result, str(ladder.index[0])),
        curve=breakdown.label_efficiency(result),
        strata=breakdown.by_stratum(result),
        targets=breakdown.by_target(result),
        labels=breakdown.by_label(result),
        by_fold=breakdown.by_fold(result),
        **_encoders(result),
    )


def _answer(result: CrossvalResult, ladder: pd.DataFrame) -> dict[str, Any]:
    """Sentences, what limits them, and the alarms, the severe ones first."""
    alarms = sorted(
        [*result.alarms, *uncomputed_scores(result)], key=lambda a: _SEVERITIES.index(a.severity)
    )
    known = " ".join(alarm.text for alarm in result.alarms)
    seeds = {model: verdicts.n_seeds(result, model) for model in result.models}
    return {
        "alarms": alarms,
        "guards": guard_counts(alarm.name for alarm in alarms),
        "looks_for": GUARDS,
        "found_checks": [f"{a.name.replace('_', ' ')}" for a in alarms],
        "answer": verdicts.answer(result),
        "beside_simple": verdicts.beside_simple(result),
        "winner": verdicts.winner(result, ladder),
        "target_note": verdicts.by_target(result),
        "verdicts": verdicts.verdicts(result),
        "shown_verdicts": _MOST_VERDICTS,
        "other_studies": verdicts.other_studies(result),
        "seeds": seeds,
        "few_seeds": {
            parse_model(model, result.info.get("encoders", {})).source: n
            for model, n in seeds.items()
            if 0 < n < verdicts.ENOUGH_SEEDS
        },
        "confounding": [
            t for t in map(str, result.info.get("confounding") or []) if t not in known
        ],
    }


def _data(result: CrossvalResult) -> dict[str, Any]:
    """Sizes of the folds, and synthetic samples of every class, on average over them."""
    sizes = [int((row == k).sum()) for row in result.folds for k in range(result.n_folds)]
    added = result.info.get("added") or []
    names = added[0]["classes"] if added else ()
    means = {name: round(sum(f["classes"][name] for f in added) / len(added)) for name in names}
    return {"fold_sizes": (min(sizes), max(sizes)), "added": means if added else None}


def _models(result: CrossvalResult, ladder: pd.DataFrame) -> dict[str, Any]:
    """All models, best first, with what each is and what it was fitted on."""
    means, order = result.to_frame().astype(float), [str(model) for model in ladder.index]
    others = [name for name in means.columns if name != result.metric]
    digits = decimals_for(*ladder["fold_sd"], most=5)
    encoders, seen = result.info.get("encoders", {}), result.info.get("rows", {})
    by_target = (result.info.get("r2_by_target") or {}).get("models", [])
    if by_target:
        means["r2_median"] = pd.Series({line["model"]: line["median"] for line in by_target})
        others = [*others[: others.index("r2") + 1], "r2_median", *others[others.index("r2") + 1 :]]
    return {
        "order": order,
        "ladder": [
            [
                *_loss_cells(result, line, digits),
                *_score_cells(result, means, others, str(line["model"])),
            ]
            for line in ladder.reset_index().to_dict(orient="records")
        ],
        "other_metrics": [metric_of(name) for name in others],
        "ensemble": _first_ensemble(result),
        "ladder_figure": figures.ladder(result, order),
        "seen": [
            [
                model,
                model_label(model, encoders) or DASH,
                _seen(seen.get(model), sources=bool(result.info.get("source"))),
            ]
            for model in result.models
        ],
    }


def _first_ensemble(result: CrossvalResult) -> str | None:
    """The first encoder whose seeds' mean prediction is a model of its own."""
    parsed = [parse_model(name, result.info.get("encoders", {})) for name in result.models]
    sources = [model.source for model in parsed if model.head == "ensemble"]
    return next((name for name in result.seed_losses if name in sources), None)


def _loss_cells(result: CrossvalResult, line: Row, digits: int) -> list[str]:
    """Name, loss, spread over folds, share; for encoders also seeds and the spread of these."""
    model, n = str(line["model"]), int(line["n_seeds"])
    cells = [model, number(line["loss"], digits), number(line["fold_sd"], digits)]
    cells.append(number(line["share"], 3))
    if model not in result.info.get("encoders", {}) and model not in result.seed_losses:
        return [*cells, DASH, DASH]
    return [*cells, str(n), number(line["seed_sd"], digits + 1) if n > 1 else "one seed"]


def _score_cells(
    result: CrossvalResult, means: pd.DataFrame, metrics: Sequence[str], model: str
) -> list[str]:
    """All other scores; the constant baseline has no correlation, which is no failure."""
    values = {metric: float(means[metric][model]) for metric in metrics}
    none = {"pearson", "r2_median"} if model == result.models[0] else set()
    return [
        DASH
        if metric in none and not math.isfinite(value)
        else number(value, 3 if metric in METRICS and abs(value) < 10 else None)
        for metric, value in values.items()
    ]


def _seen(parts: Any, *, sources: bool) -> str:
    """What a model has beside the training samples of the fold, which every model has.

    What it sees of other studies, their samples or labels, is said where there are `sources`.
    """
    if not isinstance(parts, Mapping):
        return str(parts or "not recorded")
    beside = [
        f"{name}: {text}"
        for name, text in parts.items()
        if text and not f"{text},".startswith(f"{_OF_FOLD},") and (sources or name != "sees")
    ]
    return "; ".join(beside) or DASH


def _comparisons(result: CrossvalResult, best: str) -> dict[str, Any]:
    """The declared family, other tests of the same pairs beside it, and the best against all."""
    declared, table = verdicts.family(result), result.comparisons
    others = verdicts.headline_rows(result).drop(index=declared.index)
    if len(others):
        with_best = others[["model_a", "model_b"]] == best
        nearest = others["difference"].abs().sort_values().index
        others = others.loc[[i for i in nearest if with_best.loc[i].any()][:_MOST_PAIRS]]
    names = dict.fromkeys(table["test"]) if len(table) else {}
    beside = [test for test in names if test in TESTS and test not in _NO_P]
    found = {
        (row["model_a"], row["model_b"], row["test"]): row
        for row in table[::-1].to_dict(orient="records")
        if row["metric"] == result.metric
    }
    rows, other_tests = [], []
    for row in declared.to_dict(orient="records"):
        rows.append([*difference_cells(row), p_cell(row["p"]), p_cell(row["p_holm"])])
        same = {test: found.get((row["model_a"], row["model_b"], test)) for test in TESTS}
        effects = [number(e["effect"], 2) for e in (same["clustered_t"], same["paired_t"]) if e]
        tests = [p_cell(t["p"]) if (t := same[test]) else DASH for test in beside]
        other_tests.append([pair_name(row), (effects or [DASH])[0], *tests])
    return {
        "figure": figures.differences(result),
        "rows": rows,
        "other_tests": other_tests,
        "n_folds": int(declared["n_independent"].max()) if rows else 0,
        "beside": [f"{TESTS[t]} (n\N{NO-BREAK SPACE}{_units(table, t)})" for t in beside],
        "best": best,
        "others": [
            [*difference_cells(r), p_cell(r["p"])] for r in others.to_dict(orient="records")
        ],
    }


def _units(table: pd.DataFrame, test: str) -> str:
    """Number of independent units behind a test, such as `400`."""
    sizes = table.loc[table["test"] == test, "n_independent"].astype(int)
    low, high = int(sizes.min()), int(sizes.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _encoders(result: CrossvalResult) -> dict[str, Any]:
    """Health of every trained encoder, and what inner folds chose for every model."""
    encoders = result.info.get("encoders", {})
    runs = [(name, run) for name, facts in encoders.items() for run in facts.get("runs", [])]
    return {
        "curves": figures.curves(result),
        "latent_health": figures.latent_health(result),
        "runs": [_run_cells(name, encoders[name], run) for name, run in runs],
        "run_data": sorted({str(run["data"]) for _, run in runs if run.get("data")}),
        "depths": sorted({str(run["depth"]) for _, run in runs if run.get("depth")}),
        "chosen": _chosen(result),
        "active_kl": figures.ACTIVE_KL,
        "most_curves": figures.MOST_CURVES,
    }


def _run_cells(name: str, facts: Row, run: Row) -> list[str]:
    """One trained encoder: its training, active units, reconstruction, library size."""
    width = run.get("n_latent") or facts.get("n_latent")
    of_all = f" / {width}" if width else ""
    epoch, r = run.get("best_epoch"), run.get("library_size_r")
    return [
        name,
        str(run.get("path") or f"seed {run.get('seed', ABSENT)}"),
        count(run.get("n_train")),
        ABSENT if epoch is None else str(epoch),
        DASH if facts.get("beta") == 0 else f"{run.get('active_kl', ABSENT)}{of_all}",
        f"{run.get('active_mu', ABSENT)}{of_all}",
        number(run.get("r2"), 3),
        number(run.get("pca_r2"), 3),
        DASH if r is None else number(r, 2),
    ]


def _chosen(result: CrossvalResult) -> list[list[str]]:
    """What inner folds chose for every model, from the lowest to the highest over test folds."""
    by_model: dict[str, list[Row]] = {}
    for line in result.info.get("chosen") or []:
        by_model.setdefault(str(line["row"]), []).append(line)
    return [_chosen_cells(m, by_model[m]) for m in result.models if m in by_model]


def _chosen_cells(model: str, lines: Sequence[Row]) -> list[str]:
    heads = [line.get("head") or {} for line in lines]
    kept = [int(head.get("epochs") or 0) for head in heads]
    hidden = ["-".join(map(str, head.get("hidden") or ())) or None for head in heads]
    alone = sum(head.get("linear") is False for head in heads)
    settings: dict[str, list[Any]] = {
        "latent": [line.get("n_latent") for line in lines],
        "beta": [line.get("beta") for line in lines],
        "share of latents": [head.get("share") for head in heads],
        "share of the score": [head.get("score") for head in heads],
        "power": [head.get("power") for head in heads],
        "own-gene penalty": [head.get("own_penalty") for head in heads],
        "linear part": [f"left out in {alone} of {len(heads)}"] if alone else [],
        "hidden": hidden,
        "learning rate": [head.get("lr") for head in heads],
    }
    texts = [f"{name} {text}" for name, values in settings.items() if (text := _spread(values))]
    return [
        model,
        _spread([head.get("alpha") for head in heads]) or DASH,
        f"{sum(epochs > 0 for epochs in kept)}/{len(kept)}",
        _spread([epochs for epochs in kept if epochs]) or DASH,
        "; ".join(texts) or DASH,
    ]


def _spread(values: Sequence[Any]) -> str:
    """Lowest to highest of what is known; of texts the first and the last."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if isinstance(known[0], str):
        low, high = known[0], known[-1]
    else:
        low, high = f"{float(min(known)):.3g}", f"{float(max(known)):.3g}"
    return low if low == high else f"{low} to {high}"
