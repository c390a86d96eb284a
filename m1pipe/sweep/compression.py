"""Encoders and PCA at equal latent size, fold by fold: how well each reconstructs the test fold.

Nothing of a test fold has a say before it is reconstructed, once: transform, genes, encoder and
components are of the training fold, of which a part decides when training stops.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from m1pipe.config import EncoderConfig
from m1pipe.data.matrix import Matrix
from m1pipe.data.splits import inner_split, make_folds
from m1pipe.encoder.plan import raw_blocks
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import InputError
from m1pipe.models.pca import PCA, fit_pca
from m1pipe.settings import build
from m1pipe.sweep.config import SweepConfig
from m1pipe.sweep.trials import Split, measure_rows, run_trial, seen_by

PCA_ROW, PCA_FOLD_ROW = "pca", "pca_fold"
KEPT_FACTS = ("epochs", "best_epoch", "n_parameters", "seconds", "history")


@dataclass(frozen=True, kw_only=True)
class FoldTrial:
    """One network in one fold.

    Attributes
    ----------
    repeat, fold : int
        From 0.
    settings : dict
        Latent size and beta.
    """

    repeat: int
    fold: int
    settings: dict[str, Any]


def planned_folds(config: SweepConfig, base: Mapping[str, Any]) -> list[FoldTrial]:
    """Every network of every fold: autoencoder and VAE, or the one that the base settles on.

    Raises
    ------
    InputError
        If the base asks for a conditional model.
    """
    model = build(EncoderConfig, base, where="sweep").model
    if model.condition is not None:
        raise InputError(
            f"sweep --folds: expected no condition, which PCA is not told; found {model.condition}"
        )
    betas = (model.beta,) if "beta" in base else (0.0, model.beta)
    return [
        FoldTrial(repeat=r, fold=k, settings={"n_latent": width, "beta": beta})
        for r in range(config.repeats)
        for k in range(config.folds)
        for width in config.neurons
        for beta in dict.fromkeys(betas)
    ]


def split_fold(
    n_rows: int, config: SweepConfig, groups: np.ndarray | None, *, repeat: int, fold: int
) -> Split:
    """Test rows of a fold; of the others a part (`validation` of all rows) stops training.

    Parameters
    ----------
    n_rows : int
    config : SweepConfig
    groups : ndarray, shape (n_rows,), or None
        None is in two parts.
    repeat, fold : int
        From 0.

    Returns
    -------
    Split
    """
    folds = make_folds(config.folds, config.repeats, config.seed, groups=groups, n=n_rows)
    test = folds[repeat] == fold
    share = min(config.validation / (1 - 1 / config.folds), 0.5)
    seed = config.seed + 1 + repeat * config.folds + fold
    training, validation = inner_split(np.flatnonzero(~test), share, seed, groups=groups)
    return Split(training, validation, np.flatnonzero(test))


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What models of one latent size leave of a test fold, on standardised genes.

    Attributes
    ----------
    errors, sse : dict of str to ndarray, shapes (n_samples,) and (n_genes,)
        By model, "ae" or "vae", "pca" (of the rows that the network takes steps on) and
        "pca_fold" (of all rows of the training fold): mean squared residual of each sample, and
        sum of the squared residuals of each gene, over the levels that are known.
    deviations, sst : ndarray, shapes (n_samples,) and (n_genes,)
        The same of the training means.
    genes : ndarray of int64, shape (n_genes,)
        Columns of the matrix.
    n_components : dict of str to int
        Units of each model: PCA has no more than the rows that it is fitted to, less one.
    facts : dict
        Epochs and times of the network, and its losses by epoch (`history`).
    """

    errors: dict[str, np.ndarray]
    sse: dict[str, np.ndarray]
    deviations: np.ndarray
    sst: np.ndarray
    genes: np.ndarray
    n_components: dict[str, int]
    facts: dict[str, Any]


def run_fold(
    matrix: Matrix, base: Mapping[str, Any], settings: Mapping[str, Any], split: Split
) -> Reconstruction:
    """Train a network on a training fold and reconstruct the test fold with it and with PCA.

    Parameters
    ----------
    matrix : Matrix
    base, settings : mapping
        Settings of all trials, and of this one.
    split : Split

    Returns
    -------
    Reconstruction
    """
    encoder, facts = run_trial(matrix, base, settings, split)
    name = "vae" if encoder.config.model.beta > 0 else "ae"
    wide = fold_pca(encoder, matrix, np.concatenate([split.training, split.validation]))
    own = measure_rows(encoder, matrix, split.test)
    other = measure_rows(encoder, matrix, split.test, pca=wide)
    return Reconstruction(
        errors={name: own.errors, PCA_ROW: own.pca_errors, PCA_FOLD_ROW: other.pca_errors},
        sse={name: own.sse, PCA_ROW: own.pca_sse, PCA_FOLD_ROW: other.pca_sse},
        deviations=own.deviations,
        sst=own.sst,
        genes=seen_by(encoder, matrix).match.columns,
        n_components={
            name: encoder.n_latent,
            PCA_ROW: len(encoder.pca.components),
            PCA_FOLD_ROW: len(wide.components),
        },
        facts={key: facts[key] for key in KEPT_FACTS},
    )


def fold_pca(encoder: Encoder, matrix: Matrix, rows: np.ndarray) -> PCA:
    """Components of rows on an encoder's scale and of its width; missing levels at their mean.

    Parameters
    ----------
    encoder : Encoder
        Not conditional.
    matrix : Matrix
    rows : ndarray of int, shape (n_rows,)
    """
    aligned = seen_by(encoder, matrix)
    rows = np.sort(rows)
    return fit_pca(
        lambda: (encoder.inputs(block) for block in raw_blocks(aligned, rows)),
        encoder.n_latent,
        seed=encoder.config.training.seed,
    )
