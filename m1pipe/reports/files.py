"""Tables of a cross-validation folder: written for people and programs, read back bit for bit."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from m1pipe.artefacts import read_json, read_table, reading
from m1pipe.atomic import atomic_file, make_folder, write_json
from m1pipe.config import CrossvalConfig
from m1pipe.errors import Alarm, InputError
from m1pipe.evaluation.result import (
    CrossvalResult,
    fold_table,
    score_intervals,
    stratum_losses,
    summary_dict,
)
from m1pipe.reports.terms import guard_counts, metric_of
from m1pipe.settings import build, to_dict

FORMAT_VERSION = 1
REMEDY = "gather it again with m1pipe report"
RESULT_FILES = ("summary.json", "scores.csv", "comparisons.csv", "folds.csv", "losses.h5")
EXTRA_FILES = (
    *("seed_scores.csv", "histories.csv", "label_efficiency.csv", "label_efficiency_tests.csv"),
    *("targets.csv", "labels.csv", "calibration.csv", "score_intervals.csv", "strata.csv"),
)


def write_tables(result: CrossvalResult, folder: Path) -> None:
    """Write `summary.json`, `scores.csv`, `comparisons.csv`, `folds.csv` and `losses.h5`.

    `seed_scores.csv` joins them where a model has several encoder seeds, `histories.csv` where
    training curves are known, `strata.csv` where strata are, `label_efficiency.csv` and its tests
    with several numbers of training samples, `targets.csv` where levels are predicted,
    `labels.csv`, `calibration.csv` and `score_intervals.csv` where several labels are. NaN is
    written as `NaN` in the tables and as null in the summary, where a warning goes with it.

    Parameters
    ----------
    result : CrossvalResult
        What to write.
    folder : Path
        Made if it is not there; files of the same names are replaced, each when complete.
    """
    make_folder(folder)
    _write_csv(result.scores, folder / "scores.csv")
    _write_csv(result.comparisons, folder / "comparisons.csv")
    _write_csv(fold_table(result), folder / "folds.csv")
    extra = (
        *(result.seed_scores, history_table(result), result.curve, result.curve_tests),
        *(result.targets, result.labels, result.calibration),
        score_intervals(result) if len(result.labels) else result.labels,
        stratum_losses(result),
    )
    for name, table in zip(EXTRA_FILES, extra, strict=True):
        if len(table):
            _write_csv(table, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    _write_losses(result, folder / "losses.h5")
    write_json(folder / "summary.json", _summary(result))


def read_result(folder: str | Path) -> CrossvalResult:
    """Result that `write_tables` wrote.

    Parameters
    ----------
    folder : path
        A cross-validation folder.

    Returns
    -------
    CrossvalResult
        Its losses, folds and scores are bit for bit those that were written.

    Raises
    ------
    InputError
        If a file is missing or is not one of ours.
    """
    folder = Path(folder)
    missing = [name for name in RESULT_FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: expected a finished cross-validation; found no {', '.join(missing)}"
        )
    summary = read_settings(folder / "summary.json")
    with reading(folder, "a finished cross-validation", remedy=REMEDY):
        return CrossvalResult(
            **_read_losses(folder / "losses.h5"),
            scores=_read_csv(folder / "scores.csv"),
            comparisons=_read_csv(folder / "comparisons.csv"),
            seed_scores=_read_csv(folder / "seed_scores.csv"),
            curve=_read_curve(folder / "label_efficiency.csv"),
            curve_tests=_read_csv(folder / "label_efficiency_tests.csv"),
            targets=_read_csv(folder / "targets.csv"),
            labels=_read_csv(folder / "labels.csv"),
            calibration=_read_csv(folder / "calibration.csv"),
            alarms=[Alarm(a["name"], a["severity"], a["text"]) for a in summary["warnings"]],
            info=_with_histories(summary.get("info", {}), _read_csv(folder / "histories.csv")),
        )


def history_table(result: CrossvalResult) -> pd.DataFrame:
    """Training curves of all encoders.

    Returns
    -------
    DataFrame
        Columns model, run (from 0), epoch, and the losses that were recorded.
    """
    parts = [
        pd.DataFrame(run["history"]).assign(model=name, run=i)
        for name, facts in result.info.get("encoders", {}).items()
        for i, run in enumerate(facts.get("runs", []))
        if run.get("history")
    ]
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    keys = ["model", "run", "epoch"]
    return table[[*keys, *table.columns.drop(keys)]]


def _with_histories(info: dict[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """Facts with the training curves back in their places."""
    for name, facts in info.get("encoders", {}).items():
        for i, run in enumerate(facts.get("runs", [])):
            mine = table[(table["model"] == name) & (table["run"] == i)] if len(table) else table
            run["history"] = mine.drop(columns=["model", "run"], errors="ignore").to_dict("records")
    return info


def read_settings(path: Path) -> dict[str, Any]:
    """Content of a JSON file; empty where there is no such file.

    Raises
    ------
    InputError
        If it is not JSON.
    """
    if not path.is_file():
        return {}
    return read_json(path, "JSON written by m1pipe", remedy=REMEDY)


def crossval_settings(path: Path) -> dict[str, Any]:
    """What a cross-validation was asked for; what an older folder does not name is the default.

    Raises
    ------
    InputError
        If the file is not there or holds no such settings.
    """
    what = "the settings of a cross-validation"
    stored = read_json(path, what)
    with reading(path, what):
        config = build(CrossvalConfig, stored["crossval"], where=str(path))
    return {**stored, "crossval": to_dict(config)}


def uncomputed_scores(result: CrossvalResult) -> list[Alarm]:
    """An alarm for each model and metric that could not be computed, unless there is one already.

    The correlation of the baseline is not among them: a constant prediction has none.
    """
    known = " ".join(alarm.text for alarm in result.alarms)
    found = []
    for (model, metric), values in result.scores.groupby(["model", "metric"], sort=False)["value"]:
        n_failed = int((~np.isfinite(values.to_numpy(float))).sum())
        where = f"in {n_failed} of {len(values)} folds"
        text = f"{metric_of(str(metric)).head} of {model} could not be computed {where}."
        if n_failed and (model, metric) != (result.models[0], "pearson") and text not in known:
            found.append(Alarm("score_not_computed", "warning", text))
    return found


def _summary(result: CrossvalResult) -> dict[str, Any]:
    """Summary with a warning for every score that is not a number; curves are left to a table."""
    alarms = [*result.alarms, *uncomputed_scores(result)]
    summary = summary_dict(dataclasses.replace(result, alarms=alarms))
    for facts in summary["info"].get("encoders", {}).values():
        for run in facts.get("runs", []):
            run.pop("history", None)
    summary["guards"] = guard_counts(alarm.name for alarm in alarms)
    return summary


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, na_rep="NaN", lineterminator="\n")


def _read_curve(path: Path) -> pd.DataFrame:
    """The curve by number of training samples; where no draw is written there is one."""
    curve = _read_csv(path)
    if len(curve) and "draw" not in curve:
        curve.insert(list(curve).index("n_train") + 1, "draw", 0)
    return curve


def _read_csv(path: Path) -> pd.DataFrame:
    """Table of a file; empty where there is no such file, or nothing in it."""
    if not path.is_file():
        return pd.DataFrame()
    if not path.read_bytes().strip():
        return pd.DataFrame()
    texts = ("model", "model_a", "model_b", "target", "gene", "label", "learned_by")
    return read_table(
        path, "a table written by m1pipe", remedy=REMEDY, dtype=dict.fromkeys(texts, str)
    )


def _write_losses(result: CrossvalResult, path: Path) -> None:
    """All losses as one array, models first, so that any name of a model is safe."""
    seeds = [(name, loss) for name, several in result.seed_losses.items() for loss in several]
    with atomic_file(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(format_version=FORMAT_VERSION, metric=result.metric)
        _write_texts(file, "samples", list(result.samples))
        _write_texts(file, "models", result.models)
        file["folds"] = result.folds
        if result.strata is not None:
            _write_texts(file, "strata", list(result.strata))
        file["losses"] = np.stack([np.asarray(v) for v in result.losses.values()])
        _write_texts(file, "seed_models", [name for name, _ in seeds])
        file["seed_losses"] = (
            np.stack([np.asarray(loss) for _, loss in seeds])
            if seeds
            else np.empty((0, *result.folds.shape))
        )


def _write_texts(file: h5py.File, name: str, texts: Sequence[str]) -> None:
    file.create_dataset(name, data=np.array(list(texts), dtype=object), dtype=h5py.string_dtype())


def _read_losses(path: Path) -> dict[str, Any]:
    """Arguments of CrossvalResult that `losses.h5` holds."""
    with reading(path, "losses written by m1pipe", remedy=REMEDY):
        with h5py.File(path) as file:
            texts = {k: file[k].asstr()[...] for k in ("samples", "models", "seed_models")}
            folds, losses, seeds = (file[k][...] for k in ("folds", "losses", "seed_losses"))
            strata = file["strata"].asstr()[...] if "strata" in file else None
        names = list(dict.fromkeys(texts["seed_models"]))
        n_samples = len(texts["samples"])
        if {array.shape[-1] for array in (folds, losses, seeds)} != {n_samples}:
            raise ValueError(f"its arrays are not all of {n_samples:,} samples")
        return {
            "samples": texts["samples"],
            "folds": folds,
            "strata": strata,
            "losses": dict(zip(texts["models"], losses, strict=True)),
            "seed_losses": {name: seeds[texts["seed_models"] == name] for name in names},
        }
