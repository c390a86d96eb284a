"""What `m1pipe sweep` does: a folder with every trial, resumed trial by trial."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from m1pipe.artefacts import read_json, reading
from m1pipe.atomic import (
    PathLike,
    atomic_file,
    below,
    clear,
    locked,
    make_folder,
    refuse_folder,
    write_json,
)
from m1pipe.console import log, progress
from m1pipe.data.groups import resolve_groups
from m1pipe.data.matrix import Matrix
from m1pipe.encoder.trained import ENCODER_FILES, Encoder
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix
from m1pipe.plots.style import panels, save, styled
from m1pipe.plots.sweep import plot_sweep, plot_trials
from m1pipe.provenance import describe_input, make_provenance, seen_from
from m1pipe.settings import to_dict
from m1pipe.sweep.compression import FoldTrial, Reconstruction, planned_folds, run_fold, split_fold
from m1pipe.sweep.config import SweepConfig
from m1pipe.sweep.space import Space, planned_settings, suggested
from m1pipe.sweep.trials import (
    SCORE,
    Split,
    as_run_config,
    best_trial,
    in_passes,
    run_together,
    run_trial,
    split_rows,
    unexplained,
)
from m1pipe.workflow.sweep_folder import (
    RUN_FILES as BEST_RUN_FILES,
)
from m1pipe.workflow.sweep_folder import (
    TABLES,
    drop_weights,
    gather_folds,
    keep_if_best,
    read_records,
    save_fold,
    settle_best,
    trial_file,
)

Trial = dict[str, Any] | FoldTrial
Unit = list[tuple[int, Trial]]
CONFIG_FILE, TABLE_FILE, RESULT_FILE, BEST_FILE = (
    "config.json",
    "sweep.csv",
    "sweep.json",
    "best.json",
)
FIGURE_FILE, TRIALS, BEST_RUN = "sweep.png", "trials", "best"
PROVENANCE_FILE = "provenance.json"
ANEW = "remove the file, and it is made anew"
OWN_FILES = (
    *(CONFIG_FILE, TABLE_FILE, RESULT_FILE, BEST_FILE, FIGURE_FILE, PROVENANCE_FILE),
    *TABLES,
    *(f"{TRIALS}/[0-9]*.json", f"{TRIALS}/[0-9]*.safetensors"),
    *below(f"{TRIALS}/[0-9]*", ENCODER_FILES),
    *below(BEST_RUN, BEST_RUN_FILES),
)


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
            "data": describe_input(self.data)["sha256"],
        }
        return dict(json.loads(json.dumps(record)))


def run_sweep(
    sweep: Sweep,
    out: PathLike,
    *,
    trial: int | None = None,
    n_jobs: int = 1,
    together: int = 1,
    force: bool = False,
) -> str:
    """Run the trials that are not there yet, then the best one on the test rows.

    Parameters
    ----------
    sweep : Sweep
    out : path
        Folder: trials/NNNN.json, sweep.csv, sweep.json, sweep.png, best.json (for `m1pipe train
        --config`), best/ (the encoder); with folds the tables of `m1pipe.workflow.sweep_folder` in
        place of the best.
    trial : int, optional
        Only this one (from 1), as an element of a job array; nothing is gathered.
    n_jobs : int
        Processes.
    together : int
        Most trials trained in one pass by a process, where they have one shape.
    force : bool
        Overwrite a sweep of other settings.

    Returns
    -------
    str
        One line about the best trial, or about what reconstructs the test folds best.

    Raises
    ------
    InputError
        If the folder holds another sweep, or there is nothing to try.
    """
    out = Path(out)
    asks = sweep.space is not None and sweep.config.sampler == "optuna"
    planned = _planned(sweep)
    if not planned and not asks:
        raise InputError("sweep: expected --neurons, --layers or --space; found none of them")
    with locked(out, shared=trial is not None):
        return _run_locked(sweep, out, planned, trial, n_jobs, together, force=force)


def _run_locked(
    sweep: Sweep,
    out: Path,
    planned: list[Trial],
    trial: int | None,
    n_jobs: int,
    together: int,
    *,
    force: bool,
) -> str:
    """What `run_sweep` does in a folder that no other process works in."""
    asks = sweep.space is not None and sweep.config.sampler == "optuna"
    _prepare(out, sweep, force)
    if trial is not None:
        if asks or not 1 <= trial <= len(planned):
            raise InputError(f"trial: expected 1 to {len(planned)}, not of Optuna; found {trial}")
        _run_one(sweep, out, trial, planned[trial - 1])
        return f"{trial_file(out / TRIALS, trial)}: done"
    numbered = enumerate(planned, 1)
    todo = [(i, t) for i, t in numbered if not trial_file(out / TRIALS, i).exists()]
    units = _units(sweep, todo, together)
    for _ in progress(_run_all(sweep, out, units, n_jobs), total=len(units), label="trials"):
        pass
    if asks:
        _ask_optuna(sweep, out, len(planned))
    return _gather_folds(sweep, out) if sweep.config.folds else _gather(sweep, out)


def _planned(sweep: Sweep) -> list[Trial]:
    """Every trial that is known beforehand."""
    if not sweep.config.folds:
        return list(planned_settings(sweep.config, sweep.space))
    if sweep.space is not None:
        raise InputError("sweep --folds: expected --neurons alone; found --space beside it")
    return list(planned_folds(sweep.config, sweep.base))


def _prepare(out: Path, sweep: Sweep, force: bool) -> None:
    """Make the folder, or see that it is one of this very sweep."""
    plain = sweep.plain()
    known = out / CONFIG_FILE
    if known.exists() and read_json(known, "the settings of a sweep") == plain:
        return
    begun = known.exists()  # written last: without it a start was killed
    own = OWN_FILES if begun else (PROVENANCE_FILE, f"{TRIALS}/")
    what = "a sweep of other settings or data" if begun else "a sweep"
    refuse_folder(out, own, what=what, force=force or not begun)
    clear(out, own)
    make_folder(out / TRIALS)
    provenance = make_provenance({"data": sweep.data}, folder=out, seed=sweep.config.seed)
    write_json(out / PROVENANCE_FILE, provenance)
    write_json(known, plain)


def _units(sweep: Sweep, todo: Unit, together: int) -> list[Unit]:
    """Trials that are run as one: several where they may be trained together."""
    plain = [(number, trial) for number, trial in todo if isinstance(trial, dict)]
    if together == 1 or len(plain) < len(todo):
        return [[numbered] for numbered in todo]
    return [list(unit) for unit in in_passes(sweep.base, plain, together)]


def _run_all(sweep: Sweep, out: Path, units: list[Unit], n_jobs: int) -> Iterator[None]:
    run = partial(_run_unit, sweep, out)
    if n_jobs == 1 or len(units) < 2:
        yield from map(run, units)
        return
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run, units)


def _run_unit(sweep: Sweep, out: Path, unit: Unit) -> None:
    """Run one trial, or several in one pass."""
    settings = [trial for _, trial in unit if isinstance(trial, dict)]
    if len(unit) == 1 or len(settings) < len(unit):
        for number, trial in unit:
            _run_one(sweep, out, number, trial)
        return
    with open_matrix(sweep.data) as matrix:
        found = run_together(matrix, sweep.base, settings, _split(sweep, matrix))
    for (number, _), own, result in zip(unit, settings, found, strict=True):
        _keep(out, number, own, result)


def _run_one(sweep: Sweep, out: Path, number: int, trial: Trial) -> None:
    """Run a trial and keep what it found; one that cannot be trained is kept with its reason."""
    result: tuple[Encoder, dict[str, Any]] | InputError
    with open_matrix(sweep.data) as matrix:
        if isinstance(trial, FoldTrial):
            save_fold(out / TRIALS, number, trial, partial(_run_fold, sweep, matrix, trial))
            return
        try:
            result = run_trial(matrix, sweep.base, trial, _split(sweep, matrix))
        except InputError as error:
            result = error
    _keep(out, number, trial, result)


def _keep(
    out: Path,
    number: int,
    settings: dict[str, Any],
    result: tuple[Encoder, dict[str, Any]] | InputError,
) -> None:
    """Record a trial, or why it could not be trained."""
    record: dict[str, Any] = {"trial": number, "settings": settings, "error": None}
    if isinstance(result, InputError):
        keep_if_best(out / TRIALS, record | {SCORE: None, "error": str(result)}, None)
    else:
        keep_if_best(out / TRIALS, record | result[1], result[0])


def _run_fold(sweep: Sweep, matrix: Matrix, trial: FoldTrial) -> tuple[Reconstruction, Split]:
    split = split_fold(
        matrix.n_samples,
        sweep.config,
        resolve_groups(matrix.obs, sweep.group),
        repeat=trial.repeat,
        fold=trial.fold,
    )
    return run_fold(matrix, sweep.base, trial.settings, split), split


def _ask_optuna(sweep: Sweep, out: Path, n_planned: int) -> None:
    """Trials one after another, each knowing those before it."""
    assert sweep.space is not None
    for number in progress(
        range(n_planned + 1, n_planned + 1 + sweep.config.trials), label="trials"
    ):
        if trial_file(out / TRIALS, number).exists():
            continue
        done = [r for r in read_records(out / TRIALS)[n_planned:] if r[SCORE] is not None]
        known = [(_with_tuples(r["settings"]), float(r[SCORE])) for r in done]
        _run_one(sweep, out, number, suggested(sweep.space, sweep.config, known))


def _gather(sweep: Sweep, out: Path) -> str:
    """The table, the figure, the best configuration, and its one look at the test rows."""
    records = read_records(out / TRIALS)
    best = best_trial(records)
    table = _table(records)
    with atomic_file(out / TABLE_FILE) as part:
        table.to_csv(part, index=False)
    write_json(out / BEST_FILE, as_run_config(sweep.base, _with_tuples(best["settings"])))
    _draw(sweep, table, out)
    result = _known_result(out, best, len(records)) or _test_best(sweep, out, best, records)
    left, linear = result["test"][SCORE], result["test"][f"pca_{SCORE}"]
    named = ", ".join(f"{name} {value}" for name, value in best["settings"].items())
    log.info("trial %d: %s", best["trial"], named)
    return (
        f"{out}: of {len(records)} trials {best['trial']} is best, {best[SCORE]:.3f} of the "
        f"validation variance left; of the test variance {left:.3f} (PCA {linear:.3f})"
    )


def _known_result(out: Path, best: Mapping[str, Any], n_trials: int) -> dict[str, Any] | None:
    """The result of a sweep that was finished before: its test rows are not looked at again."""
    known = out / RESULT_FILE
    if not known.is_file() or not (out / BEST_RUN / "model.json").is_file():
        return None
    result = read_json(known, "the result of a sweep", remedy=ANEW)
    with reading(known, "the result of a sweep", remedy=ANEW):
        same = result["best"]["trial"] == best["trial"] and result["n_trials"] == n_trials
        float(result["test"][SCORE]), float(result["test"][f"pca_{SCORE}"])
    return result if same else None


def _test_best(
    sweep: Sweep, out: Path, best: Mapping[str, Any], records: list[dict[str, Any]]
) -> dict[str, Any]:
    """Put the best encoder into its folder, and measure it on the test rows."""
    with open_matrix(sweep.data) as matrix:
        split = _split(sweep, matrix)
        settings = _with_tuples(best["settings"])
        provenance = read_json(out / PROVENANCE_FILE, "the provenance of a sweep")
        encoder = settle_best(
            out / TRIALS,
            int(best["trial"]),
            out / BEST_RUN,
            provenance=seen_from(provenance, out / BEST_RUN, out),
            again=lambda: run_trial(matrix, sweep.base, settings, split)[0],
        )
        left, linear = unexplained(encoder, matrix, split.test)
    sizes = {"training": split.training.size, "validation": split.validation.size}
    result = {
        "best": {name: value for name, value in best.items() if name != "history"},
        "n_trials": len(records),
        "n_failed": sum(record["error"] is not None for record in records),
        "rows": {**sizes, "test": split.test.size},
        "test": {SCORE: left, f"pca_{SCORE}": linear},
    }
    write_json(out / RESULT_FILE, json.loads(json.dumps(result)))
    drop_weights(out / TRIALS)
    return result


def _gather_folds(sweep: Sweep, out: Path) -> str:
    """Tables, tests and figure of a comparison fold by fold."""
    with open_matrix(sweep.data) as matrix:
        return gather_folds(
            out,
            out / TRIALS,
            sweep.config,
            samples=matrix.samples,
            genes=matrix.genes,
            groups=resolve_groups(matrix.obs, sweep.group),
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
        rest = {k: v for k, v in record.items() if k not in ("trial", "settings", "history")}
        hidden = record["settings"].get("hidden")
        layers = {} if hidden is None else {"n_layers": len(hidden) + 1}
        settings = {k: str(v) if isinstance(v, list) else v for k, v in record["settings"].items()}
        rows.append({"trial": record["trial"], **settings, **layers, **rest})
    return pd.DataFrame(rows)


def _with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def _split(sweep: Sweep, matrix: Matrix) -> Split:
    groups = resolve_groups(matrix.obs, sweep.group)
    return split_rows(matrix.n_samples, sweep.config, groups)
