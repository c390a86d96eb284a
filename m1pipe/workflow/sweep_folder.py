"""The folder of a sweep: what each trial found, the encoder of the best, tables of the folds."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.artefacts import pack_arrays, read_arrays, read_json, reading, sealed
from m1pipe.atomic import (
    PathLike,
    atomic_file,
    atomic_folder,
    foreign_file,
    write_bytes,
    write_json,
    write_text,
)
from m1pipe.config import EncoderConfig
from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.trained import (
    CARD_FILE,
    ENCODER_FILES,
    MIXTURE_FILE,
    QUANTILES_FILE,
    Encoder,
)
from m1pipe.evaluation.compression import (
    HEADLINE,
    FoldScores,
    compare_models,
    contrast_table,
    fold_table,
    gene_table,
    summary_table,
)
from m1pipe.plots.style import panels, save, styled
from m1pipe.plots.sweep import plot_compression
from m1pipe.settings import build, to_dict
from m1pipe.sweep.compression import FoldTrial, Reconstruction
from m1pipe.sweep.config import SweepConfig
from m1pipe.sweep.trials import SCORE, Split
from m1pipe.workflow.model_card import model_card

WHAT = "the encoder of a trial"
RUN_FILES = (
    *ENCODER_FILES,
    MIXTURE_FILE,
    QUANTILES_FILE,
    "config.json",
    "provenance.json",
    CARD_FILE,
)
TABLES = ("sweep.csv", "summary.csv", "comparisons.csv", "genes.csv.gz", "contrasts.csv.gz")
SHARED = ("deviations", "sst", "samples", "genes")


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
    write_json(trial_file(folder, number), sealed(record))
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


def save_fold(
    folder: Path,
    number: int,
    trial: FoldTrial,
    run: Callable[[], tuple[Reconstruction, Split]],
) -> None:
    """Run a network in a fold and keep what it, and PCA, leave of the test rows.

    Parameters
    ----------
    folder : Path
        Of trials.
    number : int
        Of the trial, from 1.
    trial : FoldTrial
    run : callable
    """
    found, split = run()
    arrays = {"deviations": found.deviations, "sst": found.sst, "genes": found.genes}
    arrays["samples"] = split.test
    for name, errors in found.errors.items():
        arrays |= {f"errors {name}": errors, f"sse {name}": found.sse[name]}
    write_bytes(_arrays_file(folder, number), pack_arrays(arrays, finite=False))
    record = {"trial": number, **asdict(trial), "units": found.n_components, **found.facts}
    write_json(trial_file(folder, number), sealed(record))


def gather_folds(
    out: Path,
    trials: Path,
    config: SweepConfig,
    *,
    samples: np.ndarray,
    genes: np.ndarray,
    groups: np.ndarray | None,
) -> str:
    """Write the tables, the tests and the figure.

    Parameters
    ----------
    out, trials : Path
        Folder of the sweep, and of its trials.
    config : SweepConfig
    samples, genes : ndarray of str, shapes (n_samples,) and (n_genes,)
        Names in the order of the matrix.
    groups : ndarray, shape (n_samples,), or None
        What keeps together: the unit of the bootstrap.

    Returns
    -------
    str
        One line about what reconstructs best.
    """
    scores = read_scores(trials)
    summary = summary_table(table := fold_table(scores), config.folds)
    tests = compare_models(scores, config.folds, groups=groups, seed=config.seed)
    by_gene = gene_table(scores, dict(enumerate(genes)))
    by_contrast = contrast_table(scores, dict(enumerate(samples)))
    for name, each in zip(TABLES, (table, summary, tests, by_gene, by_contrast), strict=True):
        _write(each, out / name)
    with styled():
        figure, axes = panels(1, 2, width=7.2, height=2.8)
        plot_compression(axes.ravel()[0], summary, table, HEADLINE, label="R2, pooled")
        plot_compression(
            axes.ravel()[1], summary, table, "r2_contrast_mean", label="R2 by contrast, mean"
        )
        save(figure, out / "sweep.png")
    best = _best(summary)
    result = {"best": dict(best), "folds": config.folds, "repeats": config.repeats}
    write_json(out / "sweep.json", json.loads(json.dumps(result, default=float)))
    return f"{out}: {_verdict(summary, tests)}"


def read_scores(trials: Path) -> list[FoldScores]:
    """What every model leaves of every test fold; PCA, which all networks share, once.

    Parameters
    ----------
    trials : Path
        Folder that `save_fold` has filled.
    """
    scores, seen = [], set()
    for record in read_records(trials):
        file = _arrays_file(trials, record["trial"])
        remedy = f"remove {trial_file(trials, record['trial'])}, and the trial is run again"
        arrays, _ = read_arrays(file, "residuals of a trial", remedy=remedy, finite=False)
        width = record["settings"]["n_latent"]
        for model, n_components in record["units"].items():
            key = (record["repeat"], record["fold"], model, width)
            if key in seen:
                continue
            seen.add(key)
            one = FoldScores(
                repeat=record["repeat"],
                fold=record["fold"],
                model=model,
                n_latent=width,
                n_components=n_components,
                errors=arrays[f"errors {model}"],
                sse=arrays[f"sse {model}"],
                **{name: arrays[name] for name in SHARED},
            )
            scores.append(one)
    return scores


def _best(summary: pd.DataFrame) -> dict[str, Any]:
    """The row of the highest R2, its missing numbers as None."""
    row = summary.iloc[[int(summary[HEADLINE].fillna(-np.inf).to_numpy().argmax())]]
    row = row.astype(object).where(row.notna(), None)
    return {str(name): row[name].iloc[0] for name in row.columns}


def _verdict(summary: pd.DataFrame, tests: pd.DataFrame) -> str:
    """The best of all, and how many declared differences are shown."""
    best = _best(summary)
    declared = tests[tests["p_bh"].notna()]
    shown = declared[declared["p_bh"] < 0.05]
    better = int((shown["difference"] > 0).sum())
    return (
        f"highest R2 of the test folds {best[HEADLINE]:.3f}: {best['model']}, {best['n_latent']} "
        f"latents\n  {better} of {len(declared)} tests: network ahead of PCA, "
        f"{len(shown) - better} behind (BH 5 %)"
    )


def _arrays_file(folder: Path, number: int) -> Path:
    return trial_file(folder, number).with_suffix(".safetensors")


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_file(path) as part:
        packed = {"method": "gzip", "mtime": 0} if path.suffix == ".gz" else None
        table.to_csv(part, index=False, compression=packed)
