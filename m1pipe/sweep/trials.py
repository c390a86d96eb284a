"""Trials of a sweep, compared by their validation rows alone; the best sees the test rows once."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from m1pipe import seeds
from m1pipe.config import EncoderConfig
from m1pipe.data.matrix import Matrix
from m1pipe.data.recipe import Aligned, match_recipe
from m1pipe.data.splits import inner_split
from m1pipe.encoder.conditional import class_means
from m1pipe.encoder.plan import plan_training
from m1pipe.encoder.summary import Measurement, gene_scale, measure
from m1pipe.encoder.train import train_encoder
from m1pipe.encoder.train_together import pass_of, train_together
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import InputError
from m1pipe.models.pca import PCA
from m1pipe.settings import build
from m1pipe.sweep.config import SweepConfig

SCORE = "unexplained"
CURVES = ("epoch", "train_loss", "val_loss")


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of the three parts; the groups that keep together."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_rows(n_rows: int, config: SweepConfig, groups: np.ndarray | None) -> Split:
    """Training, validation and test rows.

    Parameters
    ----------
    n_rows : int
    config : SweepConfig
    groups : ndarray, shape (n_rows,), or None
        None is in two parts.

    Returns
    -------
    Split
    """
    rest, test = inner_split(np.arange(n_rows), config.test, config.seed, groups=groups)
    share = config.validation / (1 - config.test)
    seed = config.seed + seeds.VALIDATION_SPLIT
    training, validation = inner_split(rest, share, seed, groups=groups)
    return Split(training, validation, test)


def run_trial(
    matrix: Matrix, base: Mapping[str, Any], settings: Mapping[str, Any], split: Split
) -> tuple[Encoder, dict[str, Any]]:
    """Train one configuration and measure it on the validation rows.

    Parameters
    ----------
    matrix : Matrix
    base, settings : mapping
        Settings of all trials, and of this one.
    split : Split

    Returns
    -------
    encoder : Encoder
    found : dict
        `unexplained` (share of the standardised variance of the validation rows that the encoder
        leaves, 1 - R2), the same of PCA at equal latent size, sizes and times, and its losses by
        epoch under `history`.
    """
    config = build(EncoderConfig, base, settings, where="sweep")
    rows = np.concatenate([split.training, split.validation])
    encoder = train_encoder(matrix, config, rows=rows, validation=split.validation)
    return encoder, _found(encoder)


def run_together(
    matrix: Matrix, base: Mapping[str, Any], settings: Sequence[Mapping[str, Any]], split: Split
) -> list[tuple[Encoder, dict[str, Any]] | InputError]:
    """Train configurations of one shape (`in_passes`) in one pass; see `run_trial`.

    Returns
    -------
    list
        What `run_trial` returns for each, equal to rounding, or why it could not be trained.
    """
    rows = np.concatenate([split.training, split.validation])
    configs = [build(EncoderConfig, base, own, where="sweep") for own in settings]
    try:
        plans = [plan_training(matrix, c, rows=rows, validation=split.validation) for c in configs]
    except InputError as error:  # that of one shape on the same rows is that of all
        return [error] * len(configs)
    return [
        one if isinstance(one, InputError) else (one, _found(one)) for one in train_together(plans)
    ]


def in_passes(
    base: Mapping[str, Any], trials: Sequence[tuple[int, dict[str, Any]]], most: int
) -> list[list[tuple[int, dict[str, Any]]]]:
    """Trials, numbered, that are trained together: of one shape, and at most so many.

    Parameters
    ----------
    base : mapping
        Settings of all trials.
    trials : sequence of (int, dict)
        Number and settings.
    most : int
    """
    passes: list[list[tuple[int, dict[str, Any]]]] = []
    opened: dict[EncoderConfig, list[tuple[int, dict[str, Any]]]] = {}
    for number, settings in trials:
        shape = pass_of(build(EncoderConfig, base, settings, where="sweep"))
        if shape is None or shape not in opened or len(opened[shape]) == most:
            passes.append([])
            if shape is not None:
                opened[shape] = passes[-1]
        (passes[-1] if shape is None else opened[shape]).append((number, settings))
    return passes


def _found(encoder: Encoder) -> dict[str, Any]:
    """What a trial records of its encoder.

    Raises
    ------
    InputError
        If no gene varies among the validation rows: there is nothing to choose by.
    """
    summary = encoder.summary
    if summary["r2"] is None:
        raise InputError(
            "sweep: expected genes that vary among the validation rows; found none: give more "
            "samples, or other ones"
        )
    return {
        SCORE: 1.0 - summary["r2"],
        f"pca_{SCORE}": 1.0 - summary["pca_r2"],
        "val_loss": summary["val_loss"],
        "active_units": summary["active_units"],
        "n_parameters": summary["n_parameters"],
        "epochs": summary["epochs"],
        "best_epoch": summary["best_epoch"],
        "seconds": summary["seconds"],
        "history": {name: [row.get(name) for row in encoder.history] for name in CURVES},
    }


def measure_rows(
    encoder: Encoder, matrix: Matrix, rows: np.ndarray, *, pca: PCA | None = None
) -> Measurement:
    """Pass rows of a matrix through an encoder and a PCA, as the rows of its training are.

    Parameters
    ----------
    encoder : Encoder
    matrix : Matrix
    rows : ndarray of int, shape (n_rows,)
    pca : PCA, optional
        On the encoder's transformed scale. Left out: the encoder's own.

    Returns
    -------
    Measurement
        What is missing is left out.
    """
    aligned = seen_by(encoder, matrix)
    X, condition = encoder.scaler.apply(aligned.take(rows)), encoder.condition
    means = torch.from_numpy(class_means(encoder.pca.mean, condition))
    return measure(
        encoder.module,
        pca or encoder.pca,
        [X],
        gene_scale(encoder.scaler, encoder.pca),
        codes=encoder.codes(matrix, rows),
        shift=None if condition is None else condition.shift,
        means=means if np.isnan(X).any() else None,
    )


def seen_by(encoder: Encoder, matrix: Matrix) -> Aligned:
    """The matrix that an encoder was trained on through its recipe; missing levels stay NaN."""
    encoder.refuse_centred("sweep")
    match = match_recipe(matrix, encoder.recipe)
    return Aligned(matrix, encoder.recipe, match, keep_missing=True)


def unexplained(encoder: Encoder, matrix: Matrix, rows: np.ndarray) -> tuple[float, float]:
    """Share of the standardised variance of some rows that an encoder, and PCA, leave.

    Parameters
    ----------
    encoder : Encoder
    matrix : Matrix
    rows : ndarray of int, shape (n_rows,)

    Returns
    -------
    encoder, pca : float
        Squared residuals over squared deviations from the training means; what is missing is
        left out.
    """
    found = measure_rows(encoder, matrix, rows).r2()
    if found["r2"] is None or found["pca_r2"] is None:
        raise InputError("sweep: expected test rows that vary; found none that do")
    return 1.0 - found["r2"], 1.0 - found["pca_r2"]


def best_trial(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The trial whose validation rows are explained best; the first of equals.

    Raises
    ------
    InputError
        If no trial ended.
    """
    ended = [record for record in records if record.get(SCORE) is not None]
    if not ended:
        why = next((f": {record['error']}" for record in records if record.get("error")), "")
        raise InputError(f"sweep: expected a trial that ended; found none{why}")
    return min(ended, key=lambda record: float(record[SCORE]))


def as_run_config(base: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `m1pipe train --config` takes."""
    return dataclasses.asdict(build(EncoderConfig, base, settings, where="sweep"))
