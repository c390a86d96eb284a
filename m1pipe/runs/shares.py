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

from m1pipe.atomic import atomic_folder, write_json
from m1pipe.errors import InputError
from m1pipe.evaluation.per_label import LabelSums
from m1pipe.evaluation.per_target import TargetSums
from m1pipe.evaluation.result import Alarm
from m1pipe.evaluation.shares import Plan, Share, ShareKey
from m1pipe.evaluation.tables import to_plain

PLAN = "plan.json"
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
    folder.mkdir(parents=True, exist_ok=True)
    values = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan)}
    values["alarms"] = [dataclasses.asdict(alarm) for alarm in plan.alarms]
    write_json(folder / PLAN, to_plain({**values, "fingerprint": marks}))


def read_plan(folder: Path) -> tuple[Plan, dict[str, str]]:
    """Plan and fingerprint that `write_plan` wrote.

    Raises
    ------
    InputError
        If there is none.
    """
    stored = read_json(folder / PLAN, "the plan of a cross-validation (made by m1pipe crossval)")
    try:
        marks = dict(stored.pop("fingerprint"))
        for name in ("samples", "folds", "groups", "strata"):
            stored[name] = None if stored[name] is None else np.asarray(stored[name])
        stored["alarms"] = [Alarm(**alarm) for alarm in stored["alarms"]]
        stored["ladder"] = tuple(stored["ladder"])
        for name in ("encoders", "train_sizes", "target_names", "target_genes"):
            stored[name] = None if stored[name] is None else tuple(stored[name])
        return Plan(**stored), marks
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / PLAN}: not written by this version of m1pipe: {error}"
        ) from None


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
    with atomic_folder(target, force=force) as part:
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
        write_json(part / "share.json", to_plain(facts))


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
    facts = read_json(path / "share.json", "a share of a cross-validation")
    changed = [what for what in marks if facts.get("fingerprint", {}).get(what) != marks[what]]
    if changed:
        raise InputError(
            f"{path}: expected a share of this cross-validation; its {' and '.join(changed)} "
            "differ: remove it, or give what it was made with"
        )
    try:
        with h5py.File(path / "losses.h5") as file:
            samples = file["samples"].asstr()[...]
            losses = {row: file["losses"][row][...] for row in file["losses"]}
            targets = _read_targets(file["targets"]) if "targets" in file else None
            labels = _read_labels(file["labels"]) if "labels" in file else None
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: expected losses written by m1pipe; {error}") from None
    scores = _read_scores(path / "scores.csv")
    alarms = {row: [Alarm(**alarm) for alarm in alarms] for row, alarms in facts["alarms"].items()}
    repeat, fold, n_train, draw = key
    return Share(
        repeat,
        fold,
        samples,
        losses,
        scores,
        alarms,
        facts["encoders"],
        targets,
        n_train,
        facts.get("chosen", {}),
        facts.get("added", {}),
        labels,
        draw,
    )


def _read_scores(path: Path) -> pd.DataFrame:
    """Scores of a share, bit for bit."""
    return pd.read_csv(
        path,
        dtype={"model": str, "metric": str},
        keep_default_na=False,
        na_values=["NaN"],
        float_precision="round_trip",
    )


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


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Object in a JSON file of a cross-validation folder.

    Raises
    ------
    InputError
        If the file, called `what` in the message, is missing or damaged.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: expected {what}; found no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected {what}; {error}") from None
    return value
