"""`m1pipe verify`: a result made again from its inputs, and every number of its tables compared."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from m1pipe._version import __version__
from m1pipe.artefacts import read_arrays, read_json, read_table, reading
from m1pipe.config import CrossvalConfig, EncoderConfig
from m1pipe.console import log
from m1pipe.encoder.trained import LEVELS_FILE
from m1pipe.errors import InputError
from m1pipe.evaluation.encoders import FOLD_PREFIX
from m1pipe.io.hdf5 import split_address
from m1pipe.provenance import environment_changes, find_input, read_provenance
from m1pipe.reports.files import EXTRA_FILES, crossval_settings, write_tables
from m1pipe.settings import build
from m1pipe.workflow.crossval_inputs import SETTINGS, CrossvalRun
from m1pipe.workflow.crossval_run import SHARES, gathered, run_crossval
from m1pipe.workflow.crossval_shares import PLAN, read_plan, share_folder
from m1pipe.workflow.declared_plan import DECLARED, declaration, read_declaration
from m1pipe.workflow.training_run import run_training

SAME, ELSEWHERE = 1e-6, 1e-4
"""Tolerances of numbers: in the same environment, and in another one."""
TABLES = ("folds.csv", "scores.csv", "comparisons.csv", "losses.h5", *EXTRA_FILES, "summary.json")
ARRAYS = ("model.safetensors", "pca.safetensors", LEVELS_FILE)
RUN_TABLES = ("samples.csv", "history.csv", *ARRAYS, "model.json")
COMPARED = {
    "model.json": (
        *("config.model", "recipe", "transform", "condition", "center_within", "latent_scale"),
        *("thinning", "summary"),
    ),
    "summary.json": ("models", "comparisons", "warnings", "info.equivalence", "info.declared"),
}
"""Parts of the JSON files: the others hold paths and costs."""
UNCOMPARED = ("seconds", "device", "precision", "precision_gap")
UNTOLD = "copies_seen_by_encoder"
"""A warning that is given only where the data that an encoder was trained on are there."""
SELECTED = {
    "validation": "validation_file",
    "dropped samples": "drop_samples_of",
    "thinned to": "thin_to",
    "aliases": "aliases",
}


def verify(
    folder: Path,
    *,
    only: tuple[int, int] | None = None,
    search: Path | None = None,
    tolerance: float | None = None,
) -> tuple[bool, str]:
    """Make a result again in a temporary folder, and compare.

    Parameters
    ----------
    folder : Path
        Of `m1pipe train` or `m1pipe crossval`, finished; it is only read.
    only : (int, int), optional
        Repeat and fold (from 0) of a cross-validation that are run again; its tables are made
        again from the folds that are there.
    search : Path, optional
        A folder in which inputs that were moved are looked for.
    tolerance : float, optional
        Largest difference of two numbers, at most 1, as `distance` takes it. None: `SAME`, or
        `ELSEWHERE` where the environment is another one.

    Returns
    -------
    verified : bool
    line : str
        The verdict.

    Raises
    ------
    InputError
        If the folder holds no finished result, or an input is missing or has changed.
    """
    if tolerance is not None and not 0 <= tolerance <= 1:
        raise InputError(f"--tolerance: expected a number from 0 to 1; found {tolerance}")
    config, known = read_json(folder / "config.json", "a result"), read_provenance(folder)
    kind = "crossval" if "crossval" in config else "train" if "training" in config else None
    if kind is None or known is None:
        raise InputError(
            f"{folder}: expected the folder of m1pipe crossval or m1pipe train; found another one"
        )
    if kind == "train" and only is not None:
        raise InputError(f"--fold: expected a cross-validation; found the run {folder}")
    found = {r: find_input(r, file, folder, search) for r, file in known["inputs"].items()}
    with tempfile.TemporaryDirectory(prefix="m1pipe-verify-") as place:
        again = Path(place) / "again"
        if kind == "train":
            _train(config, _as_named(found, known["inputs"], Path(place)), again)
            names = list(RUN_TABLES)
        else:
            _crossval(config, found, again, only)
            if known.get("m1pipe") == __version__:
                _refuse_other_settings(folder, again)
            names = _tables(folder, again, only)
        changes = environment_changes(known, read_provenance(again) or {})
        for change in changes:
            log.info("another environment: %s", change)
        if tolerance is None:
            tolerance = ELSEWHERE if changes else SAME
        return _judge(folder, names, again, tolerance)


def _train(config: Mapping[str, Any], found: Mapping[str, str], again: Path) -> None:
    """Train an encoder again."""
    chosen = build(EncoderConfig, config, where="config.json")
    files: dict[str, Any] = {name: found[role] for role, name in SELECTED.items() if role in found}
    chosen = replace(chosen, selection=replace(chosen.selection, **files))
    run_training([found[r] for r in found if r.split(" ")[0] == "data"], again, chosen)


def _as_named(found: Mapping[str, str], inputs: Mapping[str, Any], place: Path) -> dict[str, str]:
    """Inputs under the names that they had: those of several training files are their batches."""
    named = {}
    for role, address in found.items():
        file, part = split_address(address)
        link = place / role / Path(inputs[role]["path"]).name
        named[role] = address
        if file.name != link.name:
            link.parent.mkdir()
            link.symlink_to(file.resolve())
            named[role] = f"{link}#{part}" if part else str(link)
    return named


def _crossval(
    config: Mapping[str, Any], found: Mapping[str, str], again: Path, only: tuple[int, int] | None
) -> None:
    """Run a cross-validation again, or one fold of it."""
    run = CrossvalRun.read({name: value for name, value in config.items() if name != "crossval"})
    encoders = {
        name: tuple(_item(item, f"{name} {i}", found) for i, item in enumerate(items, start=1))
        for name, items in run.encoders.items()
    }
    files: dict[str, Any] = {
        role: found[role] for role in ("x", "y", "multilabel", "aliases") if role in found
    }
    source = tuple(found[f"source {i}"] for i in range(1, len(run.source) + 1))
    run = replace(run, **files, encoders=encoders, source=source)
    chosen = build(CrossvalConfig, config["crossval"], where="config.json")
    run_crossval(run, chosen, again, only=only, report=False)


def _tables(folder: Path, again: Path, only: tuple[int, int] | None) -> list[str]:
    """Write the tables of a cross-validation made again; the files that are compared.

    Of one fold its shares first, and then the tables that the shares of the folder make.
    """
    shares = []
    if only is not None:
        name = share_folder(Path(), *only).name
        made = [p.name for p in sorted((again / SHARES).iterdir()) if p.name.startswith(name)]
        shares = [f"{SHARES}/{m}/{file}" for m in made for file in ("scores.csv", "losses.h5")]
        if not (folder / "summary.json").is_file():
            return shares
    result = gathered(again if only is None else folder)
    digest = _marks(folder if _has_plan(folder) else again).get("plan")
    if digest is not None and (folder / DECLARED).is_file():
        said = declaration(
            read_declaration(folder / DECLARED, digest),
            result,
            stored=crossval_settings(folder / "config.json"),
            provenance=read_provenance(folder) or {},
            folds=_marks(again)["folds"],
        )
        result = replace(result, info={**result.info, "declared": said})
    write_tables(result, again)
    return [*shares, *TABLES]


def _has_plan(folder: Path) -> bool:
    return (folder / SHARES / PLAN).is_file()


def _marks(folder: Path) -> dict[str, str]:
    return read_plan(folder / SHARES)[1]


def _refuse_other_settings(folder: Path, again: Path) -> None:
    """Refuse a `config.json`, or a provenance, that is not that of the shares beside it."""
    there, here = _marks(folder) if _has_plan(folder) else {}, _marks(again)
    changed = [what for what in ("config", "data") if there and there.get(what) != here[what]]
    if changed:
        raise InputError(
            f"{folder}: expected config.json and provenance.json as {SHARES}/{PLAN} was made with; "
            f"found other {' and '.join(changed)}: put the files back"
        )


def _item(item: str, role: str, found: Mapping[str, str]) -> str:
    """An encoder of the comparison where it lies now."""
    if role in found:
        weights = Path(found[role])
        return str(weights.parent if weights.name == "model.safetensors" else weights)
    settings = found.get(f"{role}{SETTINGS}")
    return item if settings is None else f"{FOLD_PREFIX}{settings}"


def _parts(path: Path) -> dict[str, pd.DataFrame]:
    """Tables of one file, by their names in it; none where there is no such file."""
    if not path.is_file():
        return {}
    what = "a result of m1pipe"
    if path.suffix == ".csv":
        return {"": read_table(path, what).drop(columns="seconds", errors="ignore")}
    if path.suffix == ".json":
        stored = read_json(path, what)
        with reading(path, what):
            told = [w for w in stored.get("warnings", ()) if w["name"] != UNTOLD]
        return {"": _leaves({**stored, "warnings": told}, COMPARED[path.name])}
    if path.suffix == ".safetensors":
        arrays = read_arrays(path, what, finite=False)[0]
    else:
        arrays = {}
        with reading(path, what), h5py.File(path) as file:
            file.visititems(lambda name, part: arrays.update(_array(name, part)))
    return {f" {name}": _as_table(array) for name, array in arrays.items()}


def _leaves(stored: Mapping[str, Any], parts: tuple[str, ...]) -> pd.DataFrame:
    """Values of nested tables and lists, by their path: a number, or a text."""
    rows = [
        (key, value, "") if type(value) in (int, float) else (key, np.nan, str(value))
        for key, value in _walk(stored)
        if f"{key}.".startswith(tuple(f"{part}." for part in parts))
        and key.rpartition(".")[2] not in UNCOMPARED
    ]
    return pd.DataFrame(rows, columns=["key", "number", "text"]).astype({"number": np.float64})


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping | list):
        yield key, value
        return
    for name, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _walk(part, f"{key}.{name}" if key else str(name))


def _array(name: str, part: h5py.Dataset | h5py.Group) -> dict[str, np.ndarray]:
    if isinstance(part, h5py.Group):
        return {}
    return {name: part.asstr()[...] if h5py.check_string_dtype(part.dtype) else part[...]}


def _as_table(array: np.ndarray) -> pd.DataFrame:
    """Rows of the last axis; numbers of every kind as float64."""
    rows = array.reshape(-1, array.shape[-1]) if array.ndim > 1 else np.atleast_2d(array)
    return pd.DataFrame(rows if rows.dtype == object else rows.astype(np.float64))


def _judge(folder: Path, names: Sequence[str], again: Path, tolerance: float) -> tuple[bool, str]:
    """The verdict: the largest difference, or the first that is beyond the tolerance."""
    worst, n_tables, n_numbers = 0.0, 0, 0
    for name in names:
        there, here = _parts(folder / name), _parts(again / name)
        for part in dict.fromkeys([*there, *here]):
            if part not in there or part not in here:
                where = "here" if part in there else "there"
                return False, f"{folder}: not verified: {name}{part}: no such table {where}"
            unit = _largest(here[part]) if name.endswith((".h5", ".safetensors")) else 0.0
            largest, place = distance(there[part], here[part], tolerance, unit=unit)
            if place:
                return False, f"{folder}: not verified: {name}{part}, {place}"
            worst, n_tables = max(worst, largest), n_tables + 1
            n_numbers += int(there[part].select_dtypes("number").count().sum())
    if n_tables == 0:
        raise InputError(f"{folder}: expected tables of a finished result; found none")
    how = f"equal to {tolerance:g} (largest difference {worst:.1g})" if worst else "equal"
    tables = "1 table" if n_tables == 1 else f"{n_tables} tables"
    return True, f"{folder}: verified: {how}, {n_numbers:,} numbers of {tables}"


def _largest(array: pd.DataFrame) -> float:
    """Size of the largest finite number; 0 where there are none."""
    values = array.select_dtypes("number").abs().to_numpy()
    return float(values[np.isfinite(values)].max(initial=0.0))


def distance(
    there: pd.DataFrame, here: pd.DataFrame, tolerance: float, *, unit: float = 0.0
) -> tuple[float, str]:
    """How far two tables are apart.

    Parameters
    ----------
    there, here : DataFrame
    tolerance : float
        Largest difference that counts as none, as a share of the larger number. Numbers below 100
        times the tolerance count as that: of the difference of two losses rounding leaves less.
    unit : float
        What smaller numbers count as, if that is more: of an array its largest number.

    Returns
    -------
    largest : float
        Largest difference of two numbers; infinite where texts, or what is missing, differ.
    place : str
        The first row, and its first column, that are farther apart than the tolerance, with both
        values; empty where there are none.
    """
    if list(there) != list(here) or len(there) != len(here):
        return np.inf, f"{_shape(there)} there, {_shape(here)} made again"
    apart, least = np.zeros(there.shape), max(unit, min(1.0, 100 * tolerance))
    for j in range(there.shape[1]):
        apart[:, j] = _apart(there.iloc[:, j], here.iloc[:, j], least)
    beyond = np.argwhere(~(apart <= tolerance))
    if not len(beyond):
        return float(apart.max(initial=0.0)), ""
    i, j = beyond[0]
    keys = [str(value) for value in there.iloc[i] if isinstance(value, str) and value]
    named = f" ({', '.join(keys)})" if keys else ""
    values = f"{there.iat[i, j]!s} there, {here.iat[i, j]!s} made again"
    return float(apart.max()), f"row {i + 1}{named}, column {there.columns[j]}: {values}"


def _apart(a: pd.Series, b: pd.Series, least: float) -> np.ndarray:
    """Distance of every pair of values."""
    if not all(pd.api.types.is_numeric_dtype(column) for column in (a, b)):
        same = a.astype(str).to_numpy() == b.astype(str).to_numpy()
        return np.where(same, 0.0, np.inf)
    x, y = a.to_numpy(float), b.to_numpy(float)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):  # of what is missing, infinite, or twice 0
        far = np.abs(x - y) / np.maximum(least, np.maximum(np.abs(x), np.abs(y)))
    return np.where(same, 0.0, np.where(np.isnan(far), np.inf, far))


def _shape(table: pd.DataFrame) -> str:
    return f"{len(table):,} rows of {', '.join(map(str, list(table)[:8]))}"
