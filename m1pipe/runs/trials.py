"""The folder of a sweep's trials: what each found, and the encoder of the best so far."""

import os
import shutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from m1pipe.artefacts import read_json, reading
from m1pipe.atomic import atomic_folder, write_json, write_text
from m1pipe.config import EncoderConfig
from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.trained import ENCODER_FILES, MIXTURE_FILE, Encoder
from m1pipe.owned import foreign_file
from m1pipe.runs.apply import QUANTILES_FILE
from m1pipe.runs.card import CARD_FILE, model_card
from m1pipe.settings import build, to_dict
from m1pipe.sweep.trials import SCORE

WHAT = "the encoder of a trial"
RUN_FILES = (
    *ENCODER_FILES,
    MIXTURE_FILE,
    QUANTILES_FILE,
    "config.json",
    "provenance.json",
    CARD_FILE,
)
PathLike = str | os.PathLike[str]


def trial_file(folder: Path, number: int) -> Path:
    """What trial `number` (from 1) found; there when the trial is done."""
    return folder / f"{number:04d}.json"


def read_records(folder: Path) -> list[dict[str, Any]]:
    """What the trials found, in their order; each file is read once, and kept in memory."""
    files = sorted(folder.glob("[0-9]*.json"))
    return [_read_record(file, file.stat().st_mtime_ns, file.stat().st_ino) for file in files]


@lru_cache(maxsize=2**16)
def _read_record(file: Path, _changed: int, _inode: int) -> dict[str, Any]:
    """A record, which stays as it is once it is there, until its file is another one."""
    remedy = "remove the file, and the trial is run again"
    record = read_json(file, "what a trial found", remedy=remedy)
    with reading(file, "what a trial found", remedy=remedy):
        int(record["trial"])
        build(EncoderConfig, dict(record.get("settings", {})), where=str(file))
        if record.get(SCORE) is not None:
            float(record[SCORE])
    return record


def keep_if_best(folder: Path, record: Mapping[str, Any], encoder: Encoder | None) -> None:
    """Record a trial; keep its encoder if no trial known by now did better, and only the best's.

    Trials in other processes may end at the same time: an encoder stands before its record, and
    goes only when the record of a better one stands.

    Parameters
    ----------
    folder : Path
    record : mapping
        With `trial` and the score.
    encoder : Encoder or None
        None where it could not be trained.
    """
    number, score = int(record["trial"]), record[SCORE]
    if encoder is not None and score < min(_scores(folder).values(), default=float("inf")):
        with atomic_folder(_weights(folder, number), ENCODER_FILES, what=WHAT, force=True) as part:
            encoder.save(part)
    write_json(trial_file(folder, number), dict(record))
    scores = _scores(folder)
    best = min(scores, key=lambda trial: (scores[trial], trial), default=None)
    for trial in scores:
        if trial != best:
            shutil.rmtree(_weights(folder, trial), ignore_errors=True)  # perhaps gone by now


def settle_best(
    folder: Path,
    number: int,
    out: PathLike,
    *,
    provenance: Mapping[str, Any],
    again: Callable[[], Encoder],
) -> Encoder:
    """Make the run folder of the best trial from the encoder that was kept.

    Parameters
    ----------
    folder : Path
    number : int
        Of the best trial.
    out : path
        Replaced.
    provenance : mapping
        Of the sweep.
    again : callable
        Trains it anew, where its encoder was not kept.

    Returns
    -------
    Encoder
    """
    kept = _weights(folder, number)
    encoder = load_encoder(kept) if (kept / "model.json").is_file() else again()
    with atomic_folder(out, RUN_FILES, what=WHAT, force=True) as part:
        encoder.save(part)
        write_json(part / "config.json", to_dict(encoder.config))
        write_json(part / "provenance.json", dict(provenance))
        write_text(part / CARD_FILE, model_card(encoder, str(out), provenance))
    return encoder


def drop_weights(folder: Path) -> None:
    """Let go of the encoder that was kept, once it is in its place and was measured."""
    for kept in folder.glob("[0-9][0-9][0-9][0-9]*/"):
        if foreign_file(kept, ENCODER_FILES) is None:
            shutil.rmtree(kept)


def _weights(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}"


def _scores(folder: Path) -> dict[int, float]:
    """Score of every trial that ended, by its number."""
    return {
        int(record["trial"]): float(record[SCORE])
        for record in read_records(folder)
        if record.get(SCORE) is not None
    }
