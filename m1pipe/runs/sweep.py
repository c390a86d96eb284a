"""What `m1pipe sweep` does: a folder with every trial, resumed trial by trial."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from m1pipe.atomic import atomic_file, atomic_folder, write_json
from m1pipe.console import progress
from m1pipe.data.matrix import Matrix, open_matrix
from m1pipe.data.splits import resolve_groups
from m1pipe.errors import InputError
from m1pipe.plots.style import panels, save, styled
from m1pipe.plots.sweep import plot_sweep, plot_trials
from m1pipe.runs.provenance import make_provenance
from m1pipe.settings import to_dict
from m1pipe.sweep import (
    SCORE,
    Space,
    Split,
    SweepConfig,
    as_run_config,
    best_trial,
    planned_settings,
    run_trial,
    split_rows,
    suggested,
    unexplained,
)

PathLike = str | os.PathLike[str]
CONFIG_FILE, TABLE_FILE, RESULT_FILE, BEST_FILE = (
    "config.json",
    "sweep.csv",
    "sweep.json",
    "best.json",
)
FIGURE_FILE, TRIALS, BEST_RUN = "sweep.png", "trials", "best"


@dataclass(frozen=True, eq=False)
class Sweep:
    """What is tried on what.

    Attributes
    ----------
    data : path
    group : str or None
        As `resolve_groups` takes it.
    base : mapping
        Settings that all trials share.
    space : mapping or None
    space_table : mapping or None
        The same as it was written.
    config : SweepConfig
    """

    data: PathLike
    group: str | None
    base: Mapping[str, Any]
    space: Space | None
    space_table: Mapping[str, Any] | None
    config: SweepConfig

    def plain(self) -> dict[str, Any]:
        """What decides the result, for JSON."""
        record = {
            "sweep": to_dict(self.config),
            "base": dict(self.base),
            "space": self.space_table,
            "group": self.group,
            "data": make_provenance({"data": self.data})["inputs"],
        }
        return dict(json.loads(json.dumps(record)))


def run_sweep(
    sweep: Sweep, out: PathLike, *, trial: int | None = None, n_jobs: int = 1, force: bool = False
) -> str:
    """Run the trials that are not there yet, then the best one on the test rows.

    Parameters
    ----------
    sweep : Sweep
    out : path
        Folder: trials/NNNN.json, sweep.csv, sweep.json, sweep.png, best.json (for `m1pipe train
        --config`), best/ (the encoder).
    trial : int, optional
        Only this one (from 1), as an element of a job array; nothing is gathered.
    n_jobs : int
        Processes.
    force : bool
        Overwrite a sweep of other settings.

    Returns
    -------
    str
        One line about the best trial.

    Raises
    ------
    InputError
        If the folder holds another sweep, or there is nothing to try.
    """
    out = Path(out)
    planned = planned_settings(sweep.config, sweep.space)
    asks = sweep.space is not None and sweep.config.sampler == "optuna"
    if not planned and not asks:
        raise InputError("sweep: expected --neurons, --layers or --space; found none of them")
    _prepare(out, sweep, force)
    if trial is not None:
        if asks or not 1 <= trial <= len(planned):
            raise InputError(f"trial: expected 1 to {len(planned)}, not of Optuna; found {trial}")
        _run_one(sweep, out, trial, planned[trial - 1])
        return f"{_trial_file(out, trial)}: done"
    todo = [(i, s) for i, s in enumerate(planned, 1) if not _trial_file(out, i).exists()]
    for _ in progress(_run_all(sweep, out, todo, n_jobs), total=len(todo), label="trials"):
        pass
    if asks:
        _ask_optuna(sweep, out, len(planned))
    return _gather(sweep, out)


def _prepare(out: Path, sweep: Sweep, force: bool) -> None:
    """Make the folder, or see that it is one of this very sweep."""
    plain = sweep.plain()
    known = out / CONFIG_FILE
    if known.exists() and json.loads(known.read_text(encoding="utf-8")) == plain:
        return
    if out.exists() and any(out.iterdir()):
        if not known.exists() or not (out / TRIALS).is_dir():
            raise InputError(f"{out} exists already and is no sweep: choose another name")
        if not force:
            raise InputError(
                f"{out} holds a sweep of other settings or data: choose another name, or overwrite "
                "with --force"
            )
        shutil.rmtree(out)
    (out / TRIALS).mkdir(parents=True, exist_ok=True)
    write_json(
        out / "provenance.json", make_provenance({"data": sweep.data}, seed=sweep.config.seed)
    )
    write_json(known, plain)


def _run_all(
    sweep: Sweep, out: Path, todo: list[tuple[int, dict[str, Any]]], n_jobs: int
) -> Iterator[None]:
    run = partial(_run_numbered, sweep, out)
    if n_jobs == 1 or len(todo) < 2:
        yield from map(run, todo)
        return
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run, todo)


def _run_numbered(sweep: Sweep, out: Path, numbered: tuple[int, dict[str, Any]]) -> None:
    _run_one(sweep, out, *numbered)


def _run_one(sweep: Sweep, out: Path, number: int, settings: dict[str, Any]) -> None:
    """Run a trial and keep what it found; one that cannot be trained is kept with its reason."""
    record: dict[str, Any] = {"trial": number, "settings": settings, "error": None}
    with open_matrix(sweep.data) as matrix:
        try:
            _, found = run_trial(matrix, sweep.base, settings, _split(sweep, matrix))
        except InputError as error:
            found = {SCORE: None}
            record["error"] = str(error)
    write_json(_trial_file(out, number), record | found)


def _ask_optuna(sweep: Sweep, out: Path, n_planned: int) -> None:
    """Trials one after another, each knowing those before it."""
    assert sweep.space is not None
    for number in progress(
        range(n_planned + 1, n_planned + 1 + sweep.config.trials), label="trials"
    ):
        if _trial_file(out, number).exists():
            continue
        done = [r for r in _records(out)[n_planned:] if r[SCORE] is not None]
        known = [(_with_tuples(r["settings"]), float(r[SCORE])) for r in done]
        _run_one(sweep, out, number, suggested(sweep.space, sweep.config, known))


def _gather(sweep: Sweep, out: Path) -> str:
    """The table, the figure, the best configuration, and its one look at the test rows."""
    records = _records(out)
    best = best_trial(records)
    settings = _with_tuples(best["settings"])
    table = _table(records)
    with atomic_file(out / TABLE_FILE) as part:
        table.to_csv(part, index=False)
    write_json(out / BEST_FILE, as_run_config(sweep.base, settings))
    _draw(sweep, table, out)
    with open_matrix(sweep.data) as matrix:
        split = _split(sweep, matrix)
        encoder, _ = run_trial(matrix, sweep.base, settings, split)
        left, linear = unexplained(encoder, matrix, split.test)
    with atomic_folder(out / BEST_RUN, force=True) as part:
        encoder.save(part)
        write_json(part / CONFIG_FILE, to_dict(encoder.config))
    sizes = {"training": split.training.size, "validation": split.validation.size}
    result = {
        "best": best,
        "n_trials": len(records),
        "n_failed": sum(record["error"] is not None for record in records),
        "rows": {**sizes, "test": split.test.size},
        "test": {SCORE: left, f"pca_{SCORE}": linear},
    }
    write_json(out / RESULT_FILE, json.loads(json.dumps(result)))
    named = ", ".join(f"{name} {value}" for name, value in best["settings"].items())
    return (
        f"{out}: trial {best['trial']} of {len(records)} leaves least of the validation rows' "
        f"variance, {best[SCORE]:.3f} ({named}); of the test rows' {left:.3f}, PCA {linear:.3f}"
    )


def _draw(sweep: Sweep, table: pd.DataFrame, out: Path) -> None:
    """One panel a curve: neurons, layers, trials of the space."""
    ended = table.dropna(subset=[SCORE])
    n_neurons, n_layers = len(sweep.config.neurons), len(sweep.config.layers)
    parts = {
        "neurons": ended[ended["trial"] <= n_neurons],
        "layers": ended[ended["trial"].between(n_neurons + 1, n_neurons + n_layers)],
        "trials": ended[ended["trial"] > n_neurons + n_layers],
    }
    shown = [name for name, part in parts.items() if len(part)]
    with styled():
        figure, axes = panels(1, len(shown), width=3.6 * len(shown), height=2.8)
        for ax, name in zip(axes.ravel(), shown, strict=True):
            if name == "neurons":
                plot_sweep(ax, parts[name], "n_latent", label="neurons in one layer", log=True)
            elif name == "layers":
                label = f"layers, halving, {sweep.config.total:,} neurons in all"
                plot_sweep(ax, parts[name], "n_layers", label=label)
            else:
                plot_trials(ax, parts[name])
        save(figure, out / FIGURE_FILE)


def _table(records: list[dict[str, Any]]) -> pd.DataFrame:
    rows = []
    for record in records:
        rest = {k: v for k, v in record.items() if k not in ("trial", "settings")}
        hidden = record["settings"].get("hidden")
        layers = {} if hidden is None else {"n_layers": len(hidden) + 1}
        settings = {k: str(v) if isinstance(v, list) else v for k, v in record["settings"].items()}
        rows.append({"trial": record["trial"], **settings, **layers, **rest})
    return pd.DataFrame(rows)


def _records(out: Path) -> list[dict[str, Any]]:
    """What the trials found, in their order."""
    files = sorted((out / TRIALS).glob("[0-9]*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def _trial_file(out: Path, number: int) -> Path:
    return out / TRIALS / f"{number:04d}.json"


def _split(sweep: Sweep, matrix: Matrix) -> Split:
    groups = resolve_groups(matrix.obs, sweep.group)
    return split_rows(matrix.n_samples, sweep.config, groups)
