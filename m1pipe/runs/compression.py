"""What `m1pipe sweep --folds` leaves: tables and tests of AE, VAE and PCA at equal latent size.

sweep.csv has a row a fold, model and latent size, summary.csv their means, comparisons.csv the
differences with intervals and tests, genes.csv.gz and contrasts.csv.gz R2 of every gene and sample.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load as unpack_arrays

from m1pipe.arrays import pack_arrays
from m1pipe.atomic import atomic_file, write_json
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
from m1pipe.runs.trials import read_records, trial_file
from m1pipe.sweep.config import SweepConfig
from m1pipe.sweep.folds import FoldTrial, Reconstruction
from m1pipe.sweep.trials import Split

SHARED = ("deviations", "sst", "samples", "genes")


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
    with atomic_file(_arrays_file(folder, number)) as part:
        part.write_bytes(pack_arrays(arrays))
    record = {"trial": number, **asdict(trial), "units": found.n_components, **found.facts}
    write_json(trial_file(folder, number), record)


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
    tables = {
        "sweep.csv": table,
        "summary.csv": summary,
        "comparisons.csv": tests,
        "genes.csv.gz": gene_table(scores, dict(enumerate(genes))),
        "contrasts.csv.gz": contrast_table(scores, dict(enumerate(samples))),
    }
    for name, each in tables.items():
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
        arrays = unpack_arrays(_arrays_file(trials, record["trial"]).read_bytes())
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
    """The row of the highest R2."""
    row = summary.iloc[[int(summary[HEADLINE].to_numpy().argmax())]]
    return {str(name): row[name].iloc[0] for name in row.columns}


def _verdict(summary: pd.DataFrame, tests: pd.DataFrame) -> str:
    """The best of every latent size, and how many declared differences are shown."""
    parts = []
    for n_latent, part in summary.groupby("n_latent", sort=False):
        best = _best(part)
        parts.append(f"{best['model']} {best[HEADLINE]:.3f} at {n_latent}")
    declared = tests[tests["p_bh"].notna()]
    shown = declared[declared["p_bh"] < 0.05]
    better = int((shown["difference"] > 0).sum())
    return (
        f"highest R2 of the test folds: {', '.join(parts)}; of {len(declared)} declared differences"
        f" {better} show a network ahead of PCA and {len(shown) - better} behind it (BH 5 %)"
    )


def _arrays_file(folder: Path, number: int) -> Path:
    return trial_file(folder, number).with_suffix(".safetensors")


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_file(path) as part:
        packed = {"method": "gzip", "mtime": 0} if path.suffix == ".gz" else None
        table.to_csv(part, index=False, compression=packed)
