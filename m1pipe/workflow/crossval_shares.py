"""The files behind a cross-validation folder: its plan, and one folder a share."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from m1pipe.artefacts import file_digest, read_json, read_table, reading, sealed
from m1pipe.atomic import atomic_folder, make_folder, write_json
from m1pipe.errors import Alarm, InputError
from m1pipe.evaluation.fold_results import Plan, Share, ShareKey
from m1pipe.evaluation.per_label import LabelSums
from m1pipe.evaluation.per_target import TargetSums
from m1pipe.evaluation.result import to_plain

PLAN = "plan.json"
WHAT, REMEDY = "a share of a cross-validation", "remove it, and run m1pipe crossval again"
SHARE_FILES = ("losses.h5", "scores.csv", "share.json")
Fingerprint = Mapping[str, str]
_LABEL_COUNTS = ("positive", "pairs", "positive_units", "negative_units")


def fingerprint(settings: Any, inputs: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """Hashes of what must be the same for shares to belong together.

    Parameters
    ----------
    settings : plain nested values
        All that decides a number, apart from the data.
    inputs : mapping
        Role to SHA-256 of its file.
    plan : Plan
        Its samples and folds.

    Returns
    -------
    dict
        Keys config, data, folds.
    """
    return {
        "config": _digest(settings),
        "data": _digest(dict(inputs)),
        "folds": _digest([plan.samples.tolist(), plan.folds.tolist()]),
    }


def write_plan(folder: Path, plan: Plan, marks: Fingerprint) -> None:
    """Write the plan into the folder of the shares."""
    make_folder(folder)
    values = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan)}
    values["alarms"] = [dataclasses.asdict(alarm) for alarm in plan.alarms]
    write_json(folder / PLAN, sealed(to_plain({**values, "fingerprint": marks})))


def read_plan(folder: Path) -> tuple[Plan, dict[str, str]]:
    """Plan and fingerprint that `write_plan` wrote.

    Raises
    ------
    InputError
        If there is none.
    """
    what = "the plan of a cross-validation (made by m1pipe crossval)"
    stored = read_json(folder / PLAN, what, remedy="run m1pipe crossval with --force")
    with reading(folder / PLAN, what, remedy="run m1pipe crossval with --force"):
        marks = dict(stored.pop("fingerprint"))
        for name in ("samples", "folds", "groups", "strata"):
            stored[name] = None if stored[name] is None else np.asarray(stored[name])
        stored["alarms"] = [Alarm(**alarm) for alarm in stored["alarms"]]
        stored["ladder"] = tuple(stored["ladder"])
        for name in ("encoders", "train_sizes", "target_names", "target_genes"):
            stored[name] = None if stored[name] is None else tuple(stored[name])
        plan = Plan(**stored)
        _check_plan(plan)
        return plan, marks


def _check_plan(plan: Plan) -> None:
    """Refuse a plan whose parts are not what they are to be."""
    n = len(plan.samples)
    if plan.folds.ndim != 2 or plan.folds.shape[1] != n or plan.folds.dtype.kind != "i":
        raise ValueError(f"folds are no whole numbers, one for each of {n:,} samples")
    for name in ("samples", "groups", "strata"):
        values = getattr(plan, name)
        if values is None and name != "samples":
            continue
        plain = all(
            value is None or isinstance(value, str | int | float) for value in values.tolist()
        )
        if values.shape != (n,) or not plain:
            raise ValueError(f"{name} are no names, one for each of {n:,} samples")
    if not isinstance(plan.info, dict):
        raise ValueError("info is no table")
    texts = (plan.ladder, plan.encoders, plan.target_names, plan.target_genes)
    if not all(isinstance(text, str) for row in texts for text in row or ()):
        raise ValueError("a row or a target has no name")


def share_folder(
    folder: Path, repeat: int, fold: int, n_train: int | None = None, draw: int = 0
) -> Path:
    """Where the share of a (repeat, fold), or of a draw of its training rows, is kept.

    >>> share_folder(Path("shares"), 0, 1, 30, 2).name, share_folder(Path("shares"), 0, 1, 30).name
    ('r0_f1_n30_d2', 'r0_f1_n30')
    """
    part = "" if n_train is None else f"_n{n_train}"
    return folder / (f"r{repeat}_f{fold}{part}" + (f"_d{draw}" if draw else ""))


def write_share(folder: Path, share: Share, marks: Fingerprint, *, force: bool = False) -> None:
    """Write a share; it appears under its name when it is complete."""
    target = share_folder(folder, *share.key)
    with atomic_folder(target, SHARE_FILES, what="a share", force=force) as part:
        with h5py.File(part / "losses.h5", "w") as file:
            samples = np.array(share.samples, dtype=object)
            file.create_dataset("samples", data=samples, dtype=h5py.string_dtype())
            for row, loss in share.losses.items():
                file[f"losses/{row}"] = loss
            if share.targets is not None:
                _write_targets(file.create_group("targets"), share.targets)
            if share.labels is not None:
                _write_labels(file.create_group("labels"), share.labels)
        share.scores.to_csv(part / "scores.csv", index=False, na_rep="NaN")
        facts = {
            "fingerprint": dict(marks),
            "sha256": {name: file_digest(part / name) for name in SHARE_FILES[:2]},
            "repeat": share.repeat,
            "fold": share.fold,
            "alarms": {
                row: [dataclasses.asdict(alarm) for alarm in alarms]
                for row, alarms in share.alarms.items()
            },
            "encoders": share.encoders,
            "chosen": share.chosen,
            "added": share.added,
        }
        write_json(part / "share.json", sealed(to_plain(facts)))


def read_share(folder: Path, key: ShareKey, marks: Fingerprint) -> Share | None:
    """A share that is done, or None.

    Raises
    ------
    InputError
        If it comes from other settings, data or folds, or is damaged.
    """
    path = share_folder(folder, *key)
    if not path.is_dir():
        return None
    facts = read_json(path / "share.json", WHAT, remedy=REMEDY)
    changed = [what for what in marks if facts.get("fingerprint", {}).get(what) != marks[what]]
    if changed:
        raise InputError(
            f"{path}: expected a share of this cross-validation; its {' and '.join(changed)} "
            "differ: remove it, or give what it was made with"
        )
    with reading(path, WHAT, remedy=REMEDY):
        for name, known in facts.get("sha256", {}).items():
            if file_digest(path / name) != known:
                raise ValueError(f"{name} is not as it was written")
        return _read_parts(path, key, facts)


def _read_parts(path: Path, key: ShareKey, facts: Mapping[str, Any]) -> Share:
    """Tables of a share, which may be damaged."""
    with h5py.File(path / "losses.h5") as file:
        samples = file["samples"].asstr()[...]
        losses = {row: file["losses"][row][...] for row in file["losses"]}
        targets = _read_targets(file["targets"]) if "targets" in file else None
        labels = _read_labels(file["labels"]) if "labels" in file else None
    if any(loss.shape[-1:] != samples.shape for loss in losses.values()):
        raise ValueError(f"losses are not all of {samples.size:,} samples")
    tables = {name: facts.get(name, {}) for name in ("encoders", "chosen", "added")}
    if not all(isinstance(table, dict) for table in tables.values()):
        raise ValueError("what is told of its encoders is no table")
    alarms = {row: [Alarm(**alarm) for alarm in alarms] for row, alarms in facts["alarms"].items()}
    repeat, fold, n_train, draw = key
    return Share(
        repeat,
        fold,
        samples,
        losses,
        _read_scores(path / "scores.csv"),
        alarms,
        tables["encoders"],
        targets,
        n_train,
        tables["chosen"],
        tables["added"],
        labels,
        draw,
    )


def _read_scores(path: Path) -> pd.DataFrame:
    """Scores of a share, bit for bit."""
    columns = ("model", "metric", "value")
    return read_table(path, WHAT, columns, remedy=REMEDY, dtype=dict.fromkeys(columns[:2], str))


def _write_targets(group: h5py.Group, sums: TargetSums) -> None:
    """Sums by target; rows and pairs in the order of their names' lists."""
    group.attrs["n_units"] = sums.n_units
    group["sst"] = sums.sst
    group.attrs["rows"], group.attrs["pairs"] = list(sums.sse), [list(p) for p in sums.pairs]
    for i, sse in enumerate(sums.sse.values()):
        group[f"sse{i}"] = sse
    for i, pair in enumerate(sums.pairs.values()):
        group[f"pair{i}"] = pair


def _read_targets(group: h5py.Group) -> TargetSums:
    rows = [str(row) for row in group.attrs["rows"]]
    pairs = [(str(a), str(b)) for a, b in np.reshape(group.attrs["pairs"], (-1, 2))]
    return TargetSums(
        sst=group["sst"][...],
        sse={row: group[f"sse{i}"][...] for i, row in enumerate(rows)},
        pairs={pair: group[f"pair{i}"][...] for i, pair in enumerate(pairs)},
        n_units=int(group.attrs["n_units"]),
    )


def _write_labels(group: h5py.Group, sums: LabelSums) -> None:
    """Sums by label; rows in the order of their names' list."""
    group.attrs["n"], group.attrs["rows"] = sums.n, list(sums.rows)
    for name in _LABEL_COUNTS:
        group[name] = getattr(sums, name)
    for i, row in enumerate(sums.rows):
        group[f"row{i}"], group[f"bins{i}"] = sums.rows[row], sums.bins[row]


def _read_labels(group: h5py.Group) -> LabelSums:
    rows = [str(row) for row in group.attrs["rows"]]
    return LabelSums(
        n=int(group.attrs["n"]),
        **{name: group[name][...] for name in _LABEL_COUNTS},
        rows={row: group[f"row{i}"][...] for i, row in enumerate(rows)},
        bins={row: group[f"bins{i}"][...] for i, row in enumerate(rows)},
    )


def _digest(value: Any) -> str:
    text = json.dumps(to_plain(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
