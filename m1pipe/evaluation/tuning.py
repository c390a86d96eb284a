"""Settings of in-fold encoders chosen within each training fold, where no test row is looked at.

For the choice, encoders and heads of the usual settings are trained without some training rows,
whose loss decides; then an encoder of the settings that won is trained on all training rows.
"""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from m1pipe.config import CrossvalConfig, EncoderConfig
from m1pipe.console import log
from m1pipe.data.splits import inner_split
from m1pipe.evaluation.augment import FEW_ROWS
from m1pipe.evaluation.metrics import per_sample_loss
from m1pipe.evaluation.problem import Problem
from m1pipe.evaluation.representations import EncoderRow, own_columns_of, train_in_fold
from m1pipe.evaluation.rows import Fold
from m1pipe.heads.fit import fit_head
from m1pipe.training.signals import StopFlag


def can_tune(problem: Problem) -> bool:
    """Whether every training fold has inner validation rows that can choose settings."""
    return problem.least_train >= FEW_ROWS and problem.config.head.validation > 0


def encoder_settings(row: EncoderRow, config: CrossvalConfig) -> list[EncoderConfig]:
    """What is tried for an in-fold row: as given first, then latent sizes by weights of the KL.

    Parameters
    ----------
    row : EncoderRow
        A plain autoencoder (beta 0) stays one; a frozen row has nothing to try.
    config : CrossvalConfig
        With `tune`: `tune_latents` and `tune_betas`.
    """
    if not row.in_fold:
        return []
    given = row.configs[0]
    if not config.tune:
        return [given]
    betas = config.tune_betas if given.model.beta > 0 else (0.0,)
    tried = [
        replace(given, model=replace(given.model, n_latent=n, beta=beta))
        for n, beta in product(config.tune_latents, betas)
    ]
    return [given, *(other for other in tried if other != given)]


def tune_encoder(
    row: EncoderRow,
    problem: Problem,
    split: Fold,
    X: np.ndarray,
    *,
    rows: np.ndarray,
    stop: StopFlag | None = None,
) -> tuple[EncoderRow, dict[str, Any]]:
    """The row with the settings that win on the inner validation rows of a training fold.

    Parameters
    ----------
    row : EncoderRow
        Trained inside the folds; its first seed stands for all in the choice.
    problem : Problem
    split : Fold
        Of whose test rows nothing is looked at.
    X : ndarray of float32, shape (n_samples, n_genes)
        Genes of the samples.
    rows : ndarray of int
        Rows of the matrix that an encoder of this fold may see.
    stop : StopFlag, optional

    Returns
    -------
    row : EncoderRow
        As it came in where nothing is tuned, or there are too few rows for an inner split.
    chosen : dict
        Values of the settings that won, their inner loss, and how many were tried; empty where
        nothing was.
    """
    tried = encoder_settings(row, problem.config)
    share = problem.config.head.validation
    if len(tried) < 2 or split.train.size < FEW_ROWS or share == 0:
        return row, {}
    _, held_out = inner_split(
        split.train, share, split.seed, strata=split.strata, groups=split.groups
    )
    seen = _without(problem, rows, held_out)
    losses = [
        _held_out_loss(replace(row, configs=(c,)), problem, split, X, held_out, seen, stop)
        for c in tried
    ]
    won = tried[int(np.argmin(losses))]
    log.info("%s: latent %d, beta %g of %d settings", row.name, *_shape(won).values(), len(tried))
    configs = tuple(replace(won, training=seed.training) for seed in row.configs)
    facts = {**_shape(won), "inner_loss": min(losses), "n_tried": len(tried)}
    return replace(row, configs=configs), facts


def _shape(config: EncoderConfig) -> dict[str, Any]:
    return {"n_latent": config.model.n_latent, "beta": config.model.beta}


def _without(problem: Problem, rows: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Rows of the matrix without some samples, and without unlabelled rows of their groups."""
    out = np.isin(rows, problem.rows[held_out])
    if problem.all_groups is not None:
        out |= np.isin(problem.all_groups[rows], problem.all_groups[problem.rows[held_out]])
    return rows[~out]


def _held_out_loss(
    row: EncoderRow,
    problem: Problem,
    split: Fold,
    X: np.ndarray,
    held_out: np.ndarray,
    seen: np.ndarray,
    stop: StopFlag | None,
) -> float:
    """Loss of a head on rows that neither it nor its encoder has seen."""
    gaps = problem.n_missing > 0
    (encoder,) = train_in_fold(
        row, problem.matrix, seen, groups=problem.all_groups, gaps=gaps, stop=stop
    )
    rows = split.train
    levels = own_columns_of(encoder, X[rows], problem.matrix)
    codes = _part(encoder.codes(problem.matrix, problem.rows), rows)
    latents = encoder.encode_array(levels, codes)
    targets, is_out = split.targets.take(rows), np.isin(rows, held_out)
    head = fit_head(
        latents,
        targets,
        problem.config.head,
        rows=np.flatnonzero(~is_out),
        seed=split.seed,
        scale="one",
        groups=_part(split.groups, rows),
    )
    predicted = head.predict(latents[is_out])
    return float(per_sample_loss(targets.kind, predicted, targets.values[is_out]).mean())


def _part(labels: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if labels is None else labels[rows]
