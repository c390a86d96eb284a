"""How each row of the ladder is fitted on one training fold."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from m1pipe.config import CrossvalConfig, HeadConfig
from m1pipe.data.own_gene import OwnGenes
from m1pipe.data.targets import Targets
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.evaluation.ladder import (
    GENE_ROWS,
    LINEAR_ROWS,
    OWN_GENE,
    base_row,
    has_own_term,
    head_config,
    tuned_settings,
)
from m1pipe.evaluation.linear import fit_ridge
from m1pipe.evaluation.logistic import fit_logistic
from m1pipe.evaluation.own_linear import predict_own_gene
from m1pipe.evaluation.variants import WEIGHTED, variant_of
from m1pipe.models.heads import balanced_weight
from m1pipe.training.added import AddedRows
from m1pipe.training.fit_heads import FEW_ROWS, fit_head, with_own_genes
from m1pipe.training.fitted_head import FittedHead

HEAD_ROWS = 2048
SUBSET = 2  # a head on fewer than 1 in so many rows is trained on these alone


_BLOCK_CELLS = 2**24


@dataclass(frozen=True, eq=False)
class Fold:
    """One split, as every row sees it.

    Attributes
    ----------
    targets : Targets
        Of all samples; those of the test rows are only ever compared with.
    train, test : ndarray of int64
        Rows to fit on and rows to predict.
    strata, groups : ndarray, shape (n_samples,), or None
        For the inner split.
    order : ndarray of int, shape (n_samples,)
        Fold of every sample, over which the heads' row order is spread.
    seed : int
        The same for every row of the ladder.
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
    """A fitted row: its predictions of the test rows, and whether its network is alive.

    Attributes
    ----------
    prediction : ndarray, shape (n_test, n_targets) or (n_test, n_classes)
        Levels or probabilities.
    dead_share : float
        Share of the hidden units that are dead over the training rows.
    own_share : float or None
        Share of the targets with a gene in X whose own-gene term is on; None without the term.
    chosen : dict
        Settings of the head that won on inner validation rows, where several were tried.
    """

    prediction: np.ndarray
    dead_share: float = 0.0
    own_share: float | None = None
    chosen: dict[str, Any] = field(default_factory=dict)


def fit_row(
    row: str,
    X: np.ndarray | None,
    fold: Fold,
    config: CrossvalConfig,
    *,
    head: FittedHead | None = None,
    added: AddedRows | None = None,
) -> RowFit:
    """Fit one row of the ladder on the training rows and predict the test rows.

    Parameters
    ----------
    row : str
        Name of the row; any name that is not one of `ALL_ROWS` is an encoder's.
    X : ndarray of float32, shape (n_samples, n_features), or None
        The row's representation of all samples; None for a constant row.
    fold : Fold
    config : CrossvalConfig
        Settings of the heads.
    head : FittedHead, optional
        Of a feed-forward row, without its own-gene term, where it was trained already.
    added : AddedRows, optional
        What a feed-forward row is trained on beside the training rows.

    Returns
    -------
    RowFit
    """
    if row == "stratum_mean":
        return RowFit(stratum_prediction(fold))
    if row in (OWN_GENE, "ridge_gene"):
        return _fit_own_linear(X, fold)
    if X is None:
        return RowFit(constant_prediction(fold))
    if row in LINEAR_ROWS:
        balance = config.head.class_weight == "balanced"
        return _fit_linear(X, fold, standardize=row in GENE_ROWS, balance=balance)
    if variant_of(row) == WEIGHTED:
        config = replace(config, augment=None, head=replace(config.head, class_weight="balanced"))
    own = fold.own if has_own_term(row, config) else None
    chosen: dict[str, Any] = {}
    if head is None:
        tried = tuned_settings(config)
        no_inner = fold.train.size < FEW_ROWS or config.head.validation == 0  # that could choose
        if len(tried) == 1 or no_inner:
            tried = [head_config(base_row(row), config)]
        head = _fit_head(X, own, fold, tried, added)
        chosen = _chosen(head, tried)
    elif own is not None:
        head = _add_own(head, X, own, fold, head_config(base_row(row), config))
    levels = None if own is None else own.values[fold.test]
    dead = dead_share(head, X[fold.train[:HEAD_ROWS]])
    return RowFit(head.predict(X[fold.test], levels), dead, _own_share(head), chosen)


def _fit_head(
    X: np.ndarray,
    own: OwnGenes | None,
    fold: Fold,
    tried: Sequence[HeadConfig],
    added: AddedRows | None,
) -> FittedHead:
    """The best of some heads on the training rows; where these are few of all, on them alone."""
    if SUBSET * fold.train.size < fold.targets.n:
        X = np.ascontiguousarray(X[fold.train])
        own = None if own is None else own.take(fold.train)
        fold = _train_alone(fold)
    heads = [
        fit_head(
            X,
            fold.targets,
            settings,
            rows=fold.train,
            seed=fold.seed,
            strata=fold.strata,
            groups=fold.groups,
            order_seed=fold.order_seed,
            folds_order=fold.order,
            own=own,
            added=added,
        )
        for settings in tried
    ]
    return min(heads, key=inner_loss)


def _add_own(
    head: FittedHead, X: np.ndarray, own: OwnGenes, fold: Fold, config: HeadConfig
) -> FittedHead:
    return with_own_genes(
        head,
        X,
        fold.targets,
        own,
        rows=fold.train,
        validation=config.validation,
        seed=fold.seed,
        strata=fold.strata,
        groups=fold.groups,
    )


def inner_loss(head: FittedHead) -> float:
    """Loss on the inner validation rows; infinite where there were none."""
    return min((row.get("val_loss", np.inf) for row in head.history.rows), default=np.inf)


def _train_alone(fold: Fold) -> Fold:
    """The training rows as if there were no others."""
    strata, groups = (None if v is None else v[fold.train] for v in (fold.strata, fold.groups))
    return replace(
        fold,
        targets=fold.targets.take(fold.train),
        train=np.arange(fold.train.size),
        test=np.arange(0),
        strata=strata,
        groups=groups,
        order=np.zeros(fold.train.size, dtype=np.int64),
    )


def _chosen(head: FittedHead, tried: Sequence[HeadConfig]) -> dict[str, Any]:
    """Width and rate of the head that won, where several were tried."""
    if len(tried) < 2:
        return {}
    widths = [m.out_features for m in head.module.hidden if isinstance(m, nn.Linear)]
    rate = head.history.rows[0]["lr"]
    return {"hidden": widths, "lr": rate, "inner_loss": inner_loss(head), "n_tried": len(tried)}


def _own_share(head: FittedHead) -> float | None:
    return None if head.own is None else head.own.share_on


def _fit_own_linear(X: np.ndarray | None, fold: Fold) -> RowFit:
    """Each target on its own gene; with the genes given, beside a ridge on all of them."""
    if fold.own is None:
        raise ValueError("own genes: this split has none")
    train, test = fold.train, fold.test
    genes = None
    new = np.zeros((test.size, 0))
    if X is not None:
        scaler = fit_gene_transform("standardize", [X[train]])
        genes, new = scaler.apply(X[train]), scaler.apply(X[test])
    levels = fold.targets.values[train]
    own, own_test = fold.own.take(train), fold.own.take(test)
    return RowFit(predict_own_gene(levels, own, own_test, X=genes, X_test=new))


def train_mean(fold: Fold) -> np.ndarray:
    """Mean of every target over the training rows; class frequencies for classes.

    Returns
    -------
    ndarray of float64, shape (n_targets,) or (n_classes,)
    """
    values, train = fold.targets.values, fold.train
    if fold.targets.is_classes:
        counts = np.bincount(values[train], minlength=len(fold.targets.names))
        found: np.ndarray = counts / counts.sum()
        return found
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


def _fit_linear(X: np.ndarray, fold: Fold, *, standardize: bool, balance: bool) -> RowFit:
    """Ridge for levels, penalised logistic regression for classes."""
    train, test = X[fold.train], X[fold.test]
    if standardize:
        scaler = fit_gene_transform("standardize", [train])
        train, test = scaler.apply(train), scaler.apply(test)
    targets = fold.targets.values[fold.train]
    if fold.targets.kind == "regression":
        ridge = fit_ridge(train, targets)
        return RowFit(ridge.predict(test))
    logistic = fit_logistic(
        train,
        targets,
        kind=fold.targets.kind,
        n_classes=len(fold.targets.names),
        groups=None if fold.groups is None else fold.groups[fold.train],
        weight=class_weights(fold.targets.take(fold.train)) if balance else None,
        seed=fold.seed,
    )
    return RowFit(logistic.predict(test))


def class_weights(targets: Targets) -> np.ndarray:
    """Balanced weight of every loss, (n_samples, 1), or for several labels (n_samples, n_labels).

    The same as the heads' with `--class-weight balanced`.
    """
    values = targets.values
    weight = balanced_weight(targets.kind, torch.from_numpy(values), len(targets.names))
    if weight is None:
        raise ValueError(f"class weights: expected classes or labels; found {targets.kind}")
    if targets.kind == "multilabel":
        return np.where(values > 0.5, weight[1].numpy(), weight[0].numpy())
    found: np.ndarray = weight.numpy()[values][:, None]
    return found


def dead_share(head: FittedHead, X: np.ndarray) -> float:
    """Share of a head's hidden units that put out the same for every row.

    Parameters
    ----------
    head : FittedHead
    X : ndarray, shape (n_samples, n_features)
    """
    device = next(head.module.parameters()).device
    x = torch.from_numpy(head.scaler.apply(X)).to(device)
    still = []
    with torch.no_grad():
        for layer in head.module.hidden:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                still.append(x.amax(0) - x.amin(0) <= 1e-6)
    return float(torch.cat(still).double().mean()) if still else 0.0
