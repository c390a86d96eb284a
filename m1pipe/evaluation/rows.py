"""One split as every model sees it, and what each predicts of its test rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from m1pipe.config import CrossvalConfig
from m1pipe.data.own_gene import OwnGenes
from m1pipe.data.targets import Targets
from m1pipe.evaluation.ladder import (
    GENES,
    NOTHING,
    OWN_SUFFIX,
    has_own_term,
    model_of,
    tuned_settings,
)
from m1pipe.heads.added import AddedRows
from m1pipe.heads.features import Covariance
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.start import HeadJob

HEAD_ROWS = 2048
_BLOCK_CELLS = 2**24
Joined = dict[tuple[int, int], np.ndarray]


@dataclass(frozen=True, eq=False)
class Fold:
    """One split, as every model sees it.

    Attributes
    ----------
    targets : Targets
        Of all samples; those of the test rows are only ever compared with.
    train, test : ndarray of int64
        Rows to fit on and rows to predict.
    strata, groups : ndarray, shape (n_samples,), or None
        For inner splits.
    order : ndarray of int, shape (n_samples,)
        Fold of every sample, over which the heads' row order is spread.
    seed : int
        The same for every model.
    order_seed : int
        Of the order in which all folds of a repeat go through the rows.
    own : OwnGenes or None
        Levels of the targets' own genes, of all samples.
    """

    targets: Targets
    train: np.ndarray
    test: np.ndarray
    strata: np.ndarray | None
    groups: np.ndarray | None
    order: np.ndarray
    seed: int
    order_seed: int
    own: OwnGenes | None = None


@dataclass(frozen=True, eq=False)
class RowFit:
    """What a fitted model predicts of the test rows, and whether its network is alive.

    Attributes
    ----------
    prediction : ndarray, shape (n_test, n_targets) or (n_test, n_classes)
        Levels or probabilities.
    dead_share : float
        Share of the hidden units that are dead over the training rows.
    own_share : float or None
        Share of the targets with a gene in X whose own-gene term is on; None without the term.
    chosen : dict
        What inner folds chose, as of `m1pipe.heads.fitted.FittedHead`.
    """

    prediction: np.ndarray
    dead_share: float = 0.0
    own_share: float | None = None
    chosen: dict[str, Any] = field(default_factory=dict)


def fitted_as(name: str, config: CrossvalConfig) -> str:
    """Name of the model whose fit a model is, or is a part of.

    The linear model on some inputs is the linear part of the head on them, and the ensemble of an
    encoder's seeds the mean of their predictions.

    >>> from m1pipe.config import CrossvalConfig
    >>> [fitted_as(name, CrossvalConfig()) for name in ("ridge_gene", "vae_linear", "vae_ridge")]
    ['raw_gene', 'vae', 'vae_ridge']
    >>> fitted_as("vae_ensemble", CrossvalConfig())
    'vae'
    """
    model = model_of(name)
    if model.ensemble:
        return model.inputs
    if model.part != "linear" or model.with_genes or model.prior or model.inputs == NOTHING:
        return name
    if config.recipe != "best" or config.tune or config.head.own_gene:
        return name
    head = "raw" if model.inputs == GENES else model.inputs
    return head + (OWN_SUFFIX if model.own_gene else "")


def head_jobs(
    name: str,
    arrays: Sequence[np.ndarray],
    fold: Fold,
    config: CrossvalConfig,
    *,
    genes: np.ndarray | None = None,
    covariance: Covariance | None = None,
    added: Sequence[AddedRows] = (),
    joined: Joined | None = None,
) -> list[HeadJob]:
    """What is to be fitted for a model in one fold, one a seed.

    Parameters
    ----------
    name : str
        Of a model that is not constant.
    arrays : sequence of ndarray of float32, shape (n_samples, n_features)
        The model's inputs, one a seed.
    fold : Fold
    config : CrossvalConfig
    genes : ndarray of float32, shape (n_samples, n_genes), optional
        For a model that has the genes beside its inputs.
    covariance : Covariance, optional
        For a model whose coefficients have it as their prior.
    added : sequence of AddedRows
        What is trained on beside the training rows, one a seed.
    joined : dict, optional
        Genes with inputs beside them, by their identities: those that are made are added to it, and
        used again while these arrays are in memory.
    """
    model = model_of(name)
    own = fold.own if has_own_term(name, config) else None
    jobs = []
    for i, X in enumerate(arrays):
        n_beside = 0
        if model.with_genes and genes is not None:
            n_beside, key = X.shape[1], (id(genes), id(X))
            known = {} if joined is None else joined
            if key not in known:
                known[key] = np.concatenate([genes, X], axis=1)
            X = known[key]
        jobs.append(
            HeadJob(
                X=X,
                rows=fold.train,
                configs=tuned_settings(name, config),
                seed=fold.seed,
                scale="each" if model.inputs == GENES or n_beside else "one",
                own=own,
                added=added[i] if added else None,
                n_beside=n_beside,
                covariance=covariance if model.prior else None,
            )
        )
    return jobs


def constant_row(name: str, fold: Fold) -> RowFit:
    """What a constant predicts of the test rows."""
    predict = stratum_prediction if name == "stratum_mean" else constant_prediction
    return RowFit(predict(fold))


def predict_row(name: str, head: FittedHead, X: np.ndarray, fold: Fold) -> RowFit:
    """What a model predicts of the test rows.

    Parameters
    ----------
    name : str
        Of a model that is fitted as the head was, or as its linear part.
    head : FittedHead
    X : ndarray of float32, shape (n_samples, n_features)
        The inputs that the head was fitted to, of all samples.
    fold : Fold
    """
    if model_of(name).part == "linear" and not head.is_linear:
        head = head.linear_part()
    levels = None if head.own is None or fold.own is None else fold.own.values[fold.test]
    dead = dead_share(head, X[fold.train[:HEAD_ROWS]])
    share = None if head.own is None else head.own.share_on
    return RowFit(head.predict(X[fold.test], levels), dead, share, head.chosen)


def ensemble_row(name: str, heads: Sequence[tuple[FittedHead, np.ndarray]], fold: Fold) -> RowFit:
    """The mean of what the seeds of an encoder predict of the test rows: levels or probabilities.

    Parameters
    ----------
    name : str
        Of the encoder's own model.
    heads : sequence of (FittedHead, ndarray of float32, shape (n_samples, n_features))
        One a seed, with what it was fitted to.
    fold : Fold
    """
    total = None
    for head, X in heads:  # predictions are large: two are in memory at a time
        own = predict_row(name, head, X, fold).prediction
        total = own.copy() if total is None else np.add(total, own, out=total)
    if total is None:
        raise ValueError(f"{name}: expected heads of its seeds; found none")
    return RowFit(total / len(heads))


def train_mean(fold: Fold) -> np.ndarray:
    """Mean of every target over the training rows; class frequencies for classes.

    Returns
    -------
    ndarray of float64, shape (n_targets,) or (n_classes,)
        A class or label that no training row has, or that all have, counts half a row, as in the
        other models.
    """
    values, train = fold.targets.values, fold.train
    if fold.targets.is_classes:
        counts = np.bincount(values[train], minlength=len(fold.targets.names)).astype(np.float64)
        counts[counts == 0] = 0.5
        found: np.ndarray = counts / counts.sum()
        return found
    if fold.targets.kind == "multilabel":
        share = values[train].mean(axis=0, dtype=np.float64)
        without = (share == 0) | (share == 1)
        labelled: np.ndarray = np.where(
            without, (share * train.size + 0.5) / (train.size + 1), share
        )
        return labelled
    width = max(1, _BLOCK_CELLS // max(train.size, 1))  # nothing of their size is held twice
    starts = range(0, values.shape[1], width)
    parts = [values[:, s : s + width][train].mean(axis=0, dtype=np.float64) for s in starts]
    return np.concatenate(parts)


def constant_prediction(fold: Fold) -> np.ndarray:
    """The training mean (or the class frequencies) for every test row."""
    mean = train_mean(fold)
    return np.broadcast_to(mean, (fold.test.size, mean.size))


def stratum_prediction(fold: Fold) -> np.ndarray:
    """Training mean of each test sample's own stratum, which is thereby taken as known.

    A stratum without training rows gets the mean of all.
    """
    if fold.strata is None:
        raise ValueError("strata: this split has none")
    values, strata = fold.targets.values, np.asarray(fold.strata, dtype=object)
    out = np.tile(train_mean(fold), (fold.test.size, 1))
    for stratum in set(strata[fold.test]):
        own = fold.train[strata[fold.train] == stratum]
        if own.size:
            out[strata[fold.test] == stratum] = values[own].mean(axis=0, dtype=np.float64)
    return out


def dead_share(head: FittedHead, X: np.ndarray) -> float:
    """Share of a head's hidden units that put out the same for every row.

    Parameters
    ----------
    head : FittedHead
    X : ndarray, shape (n_samples, n_features)
    """
    if head.module.hidden is None:
        return 0.0
    device = next(head.module.parameters()).device
    x = torch.from_numpy(head.features.apply(X)).to(device)
    still = []
    with torch.no_grad():
        for layer in head.module.hidden:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                still.append(x.amax(0) - x.amin(0) <= 1e-6)
    return float(torch.cat(still).double().mean()) if still else 0.0
